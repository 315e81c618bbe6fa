//! The actors: thin shells that receive, call the pipeline, send and count.

pub mod link;

pub mod supervisor;

pub mod kafka_ingest;

pub mod decode_policy;

mod decode_outcomes;

mod set_aside;

pub mod letter_queue;

pub mod sequence_tracker;

pub mod replay_store;

pub mod fan_out;

pub mod redis_queue;

pub mod redis_writer;

pub mod dlq_publisher;

pub mod lag_monitor;

pub mod tiers;

pub mod history;

pub mod bell;

pub mod session_queue;

pub mod sessions;

pub mod resumes;

pub mod heartbeat;

pub mod client_session;

pub mod topology;
