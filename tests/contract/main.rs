//! Contracts that hold without Kafka, Redis or a browser. One binary.

mod golden;
mod bad_values;

mod command_line;

mod default_config;

mod layers;

mod secrets;
