//! The only place that knows rdkafka.

pub mod connection;

pub mod security;

pub mod load_producer;

mod mock_ffi;

pub mod demo_broker;
