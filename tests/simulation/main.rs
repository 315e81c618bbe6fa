//! Seeded simulation of the pure core: store, queues and clients in one loop, with crashes between any two steps.
//!
//! `SEED=n cargo test --test simulation` replays one run; `RUNS=n` makes more of them.
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

mod client;
mod log;
mod world;

use world::World;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn every_client_sees_every_offset_once_whatever_crashes() {
    let seeds = match from_env("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_env("RUNS").unwrap_or(400),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| World::new(seed).run(400));
        if let Err(panic) = run {
            eprintln!("replay with: SEED={seed} cargo test --test simulation");
            std::panic::resume_unwind(panic);
        }
    }
}
