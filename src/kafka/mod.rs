//! The only place that knows rdkafka.

pub mod connection;

pub mod security;

pub mod errors;

pub mod monitor;

pub mod identity;

pub mod settings;

pub mod resets;

pub mod stop;

pub mod topic;

pub mod topic_watch;

pub mod watermarks;

mod assignment;

pub mod batch;

pub mod reader;

mod opening;

pub mod duties;

mod read_loop;

mod recovery;

mod standstill;

mod name_claim;

mod duty_reader;

pub mod membership;

pub mod lag_poller;

pub mod group_state;

pub mod group_reader;

pub mod group_lag;

pub mod history;

pub mod dlq_producer;

pub mod letters;

pub mod records;

pub mod topics;

pub mod load_producer;

pub mod placed_load;

pub mod demo_broker;

mod mock_ffi;

pub use rdkafka::error::KafkaError;
