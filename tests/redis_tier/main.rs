//! The Redis tier against real servers, which each test starts for itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test fails by panicking, and is no library"
)]

mod coverage;
mod faults;
mod retention;
mod support;
mod topologies;
