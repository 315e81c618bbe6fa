//! The only place that knows rdkafka.

pub mod connection;

pub mod security;
