//! What a stream of quality judgements says in numbers: for the exporter.
//!
//! Pure: messages and times in, decisions out. It must not know Kafka, a clock, HTTP or how metrics are kept.

pub mod event;

pub mod health;

pub mod lag;

pub mod model_names;

pub mod run_events;

pub mod seen;

pub mod sessions;
