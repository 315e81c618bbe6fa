//! The only place that knows rdkafka.

pub mod connection;

pub mod security;

pub mod errors;

pub mod monitor;

pub mod topic;

pub mod watermarks;

pub mod batch;

pub mod stop;

pub mod settings;

pub mod duties;

pub mod identity;

pub mod topic_watch;

pub mod reader;

mod opening;

mod read_loop;

mod recovery;

mod name_claim;

mod duty_reader;

pub mod membership;

pub mod lag_poller;
