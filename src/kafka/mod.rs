//! The only place that knows rdkafka.

pub mod connection;

pub mod security;

pub mod dlq_producer;
