//! DashStream: live telemetry of AI-agent graphs, from a Kafka topic to the browser.
//!
//! The data flow, which is also the order of the modules:
//!
//! ```text
//! Kafka → KafkaIngest → DecodePolicy → SequenceTracker → ReplayStore → ClientSession → browser
//!              │              └→ DlqPublisher → Kafka DLQ       ▲             │
//!              └→ LagMonitor                     settled ───────┘   join ─────┘
//! ```
//!
//! - [`wire`]: bytes to types and back. No IO, no clock.
//! - [`pipeline`]: every decision, as pure functions and state machines. No actix, no clock, no log.
//! - [`runs`]: what records say about the runs that published them, for the command line.
//! - [`quality`]: what judgements of quality say in numbers, for the exporter.
//! - [`kafka`]: the only place that knows rdkafka.
//! - [`redis`]: the tier of the history that instances share; the only place that knows redis.
//! - [`messages`], [`board`], [`pauses`]: what actors say to each other, the positions that they publish, the records at
//!   which they stand still.
//! - [`actors`]: thin shells around the pipeline, and the supervisor that keeps them alive.
//! - [`web`]: HTTP, WebSocket upgrade, health, metrics, the page.
//! - [`generate`]: a source of believable agent runs, for demo, tests and benchmarks.
//! - [`config`], [`metrics`], [`spans`], [`telemetry`], [`http_client`]: the usual surroundings.
//! - [`torture`]: clients that misbehave, and their judge.
//! - [`app`], [`cli`]: composition and the command line.

pub mod wire;

pub mod pipeline;

pub mod runs;

pub mod quality;

pub mod kafka;

pub mod redis;

pub mod messages;

pub mod board;

pub mod pauses;

pub mod actors;

pub mod web;

pub mod generate;

pub mod config;

pub mod metrics;

pub mod spans;

pub mod telemetry;

pub mod http_client;

pub mod torture;

pub mod app;

pub mod cli;
