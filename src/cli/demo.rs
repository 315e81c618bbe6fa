//! `dashstream demo`: the whole service with a broker and producers of its own, in one process.

use super::generate::{probability, rate};
use super::{Exit, seam, serve};
use crate::config::environment::Environment;
use crate::config::load::{Flag, load};

/// Try it: broker, producers, service and page in one process
///
/// Prints the address of the page. Nothing else needs to run, and nothing is kept: all data is in memory. The settings of
/// sections web, auth, replay, supervisor and telemetry apply; those of Kafka and Redis do not.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream demo
  dashstream demo --port 0 --rate 500 --tenants 6    busier, on any free port
  dashstream demo --garbage 0.01                     with records that cannot be processed")]
pub struct Args {
    /// Records per second
    #[arg(long, default_value_t = 50.0, value_parser = rate, allow_negative_numbers = true)]
    pub rate: f64,
    /// Decides what happens; the same seed gives the same runs
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// Port of the page; 0 is any free one. Otherwise WEBSOCKET_PORT, otherwise 3002
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    pub port: Option<String>,
    /// Number of tenants
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000), allow_negative_numbers = true)]
    pub tenants: u32,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64), allow_negative_numbers = true)]
    pub partitions: i32,
    /// Chance of each thing that can go wrong in a run, 0 to 1
    #[arg(long, default_value_t = 0.08, value_parser = probability, allow_negative_numbers = true)]
    pub failure_rate: f64,
    /// Chance per record that an unreadable one is sent besides, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = probability, allow_negative_numbers = true)]
    pub garbage: f64,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let environment = own(environment);
    let port = args.port.clone().map(|value| Flag { name: "--port", path: "web.port", value });
    let loaded = load(None, &environment, port.as_slice())?;
    serve::start_logging(&loaded)?;
    seam::demo(args, loaded.config)
}

/// Variables of a real cluster may be set in the shell of the one who tries the demo. What is left of them must not need
/// what is left out: here is no Redis that could be required.
fn own(environment: &Environment) -> Environment {
    environment.only_sections(&["web", "auth", "replay", "supervisor", "telemetry"], &["replay.durability"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_starts_whatever_a_real_cluster_has_left_in_the_shell() {
        let shell: Environment = [
            ("KAFKA_BROKERS", "kafka:9092"),
            ("REDIS_URL", "redis://redis:6379"),
            ("DASHSTREAM_REPLAY_DURABILITY", "required"),
            ("DLQ_INCLUDE_FULL_PAYLOAD", "true"),
            ("DASHSTREAM_REDACT_FIELDS", "error.message"),
            ("WEBSOCKET_HOST", "0.0.0.0"),
            ("DASHSTREAM_AUTH_JWT_SECRET", "correct-horse-battery-staple-of-32-bytes"),
            ("DASHSTREAM_CONFIG", "/no/such/file.toml"),
        ]
        .into_iter()
        .collect();
        let config = load(None, &own(&shell), &[]).expect("it can be used").config;
        assert_eq!((config.web.host.as_str(), config.auth.is_on()), ("0.0.0.0", true));
        assert!(config.redis.url.is_empty());
    }
}
