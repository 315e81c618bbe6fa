//! System tests: the built binary against real Apache Kafka and real Redis. A file per promise.
//!
//! `scripts/setup` installs what they need; `scripts/services run -- cargo test --test system` keeps Kafka and Redis
//! running over several test runs.

mod harness;

mod harness_keeps_its_word;
