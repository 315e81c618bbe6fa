//! `dashstream generate`: writes believable agent runs, or a flat load, to a topic.

use super::{Exit, FileArg, seam};
use crate::config::environment::Environment;
use crate::generate::flat::SIZE_MIN;

/// Write believable agent runs to a Kafka topic
///
/// Brokers, topic and security come from the same file and variables as those of `serve`; options win.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream generate --brokers 127.0.0.1:9092 --topic runs --rate 200
  dashstream generate --count 100000 --seed 7 --unlimited
  dashstream generate --flat 1024 --compress --threads 100 --rate 10000")]
pub struct Args {
    #[command(flatten)]
    file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(long, value_name = "LIST")]
    brokers: Option<String>,
    /// Topic to write to. Otherwise KAFKA_TOPIC
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// What only runs have: a flat load would ignore it.
const OF_RUNS: [&str; 9] =
    ["tenants", "concurrent_runs", "failure_rate", "gap", "duplicate", "reorder", "garbage", "oversized", "null"];

/// What is generated.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Records per second
    #[arg(long, default_value_t = 50.0, value_parser = rate, allow_negative_numbers = true)]
    pub rate: f64,
    /// As fast as the brokers take them
    #[arg(long, conflicts_with = "rate")]
    pub unlimited: bool,
    /// Decides what happens; the same seed gives the same records
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// Stop after this many records; otherwise go on until interrupted
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    pub count: Option<u64>,
    /// Create the topic with this many partitions if it does not exist
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000), allow_negative_numbers = true)]
    pub partitions: Option<i32>,
    /// Number of tenants
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000), allow_negative_numbers = true)]
    pub tenants: u32,
    /// Runs that are under way at any time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    pub concurrent_runs: u32,
    /// Chance of each thing that can go wrong in a run, 0 to 1
    #[arg(long, default_value_t = 0.08, value_parser = probability, allow_negative_numbers = true)]
    pub failure_rate: f64,
    /// Chance per record that it is left out, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub gap: f64,
    /// Chance per record that it is sent twice, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub duplicate: f64,
    /// Chance per record that it changes places with the next of its thread, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub reorder: f64,
    /// Chance per record that an unreadable one is sent besides, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub garbage: f64,
    /// Chance per record that an oversized one is sent besides, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub oversized: f64,
    /// Chance per record that one without a value is sent besides, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub null: f64,
    /// Instead of runs, records of this size in bytes, for load
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(SIZE_MIN as i64..=64 << 20), conflicts_with_all = OF_RUNS, allow_negative_numbers = true)]
    pub flat: Option<u32>,
    /// Threads that take turns in a flat load
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000), requires = "flat", allow_negative_numbers = true)]
    pub threads: u32,
    /// Compress the records of a flat load
    #[arg(long, requires = "flat")]
    pub compress: bool,
    /// Print the totals as one JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let flags = [("--brokers", "kafka.brokers", &args.brokers), ("--topic", "kafka.topic", &args.topic)];
    let config = args.file.load(environment, &flags)?;
    seam::generate(&args.options, &config)
}

/// A number of records per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    bounded(text, 0.001, 10_000_000.0)
}

/// A number from 0 to 1.
pub(super) fn probability(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 1.0)
}

fn bounded(text: &str, min: f64, max: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {min} to {max}")),
    }
}
