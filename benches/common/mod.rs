//! What the benchmarks share: Kafka, the service as a child process, a crowd of readers, and the figures.

#![allow(dead_code, reason = "each benchmark uses its own part")]

pub mod bare_writer;
pub mod crowd;
pub mod figures;
pub mod ingest;
pub mod kafka;
pub mod redis;
pub mod service;
pub mod stream_parser;

/// Any error ends a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A setting from the environment, e.g. `BENCH_SECONDS=10`.
pub fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Lets this process and its children open as many files as the system allows.
pub fn raise_file_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}
