//! System tests: the built binary against real Apache Kafka and real Redis. A file per promise.
//!
//! `scripts/setup` installs what they need; `scripts/services run -- cargo test --test system` keeps one Kafka and one
//! Redis running over several test runs.
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

mod harness;

mod harness_keeps_its_word;

mod bad_records_while_catching_up;

mod before_kafka;

mod burst;

mod clients_are_listed;

mod clients_keep_their_word;

mod command_line;

mod connection_limits;

mod control_frames;

mod dashboards_show_live_data;

mod dead_letter_tools;

mod exact_digits;

mod fault_matrix;

mod history;

mod filters;

mod idle_clients;

mod actor_faults;

mod a_client_that_stops_reading_harms_nobody;

mod kafka_cut;

mod redaction;

mod redis_tier;

mod kafka_absent;

mod kafka_history;

#[path = "../kafka_ingest/support.rs"]
#[allow(dead_code, reason = "a toolbox of another test binary")]
mod ingest_support;

mod kafka_doors;

mod kill_nine_loses_nothing;

mod lag_is_watched_apart;

mod live_stream;

mod manual_reset;

mod quality_exporter;

mod resume_edges;

mod resume_holes;

mod run_commands;

mod second_instance;

mod sigterm_under_load;

mod slow_clients;

mod spans;

mod tenants;

mod thread_resumes;

mod topic_changes;

mod topics;

mod torture;

mod unprocessable_matrix;

mod unprocessable_records;

mod web_doors;

mod endpoints_are_as_documented;

mod metrics_are_as_documented;
