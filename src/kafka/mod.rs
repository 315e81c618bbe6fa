//! The only place that knows rdkafka.

pub mod connection;

pub mod security;

pub mod errors;

pub mod monitor;

pub mod topic;

pub mod watermarks;

pub mod batch;
