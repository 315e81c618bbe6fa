//! Contracts that hold without Kafka, Redis or a browser. One binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test fails by panicking, prints what it found, and is no library"
)]

mod alerts;

mod bad_values;

mod command_line;

mod default_config;

mod documents;

mod golden;

mod health;

#[path = "../system/harness/json_schema.rs"]
mod json_schema;

mod layers;

mod metrics;

mod quality;

mod requirements;

mod secrets;
