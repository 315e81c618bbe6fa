//! `dashstream topics ensure`.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Place, admin};
use crate::cli::{Exit, print};
use crate::config::environment::Environment;
use crate::kafka::topics::Ensured;
use crate::pipeline::letters::span_ms;
use crate::pipeline::topic_plan::{Profile, TopicPlan};

/// Create the topic of the records and that of the dead letters, where they do not exist
///
/// May be run again and again. A topic that exists is left as it is; if it has fewer partitions than asked for, or another
/// cleanup policy, that is told, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Profiles of the records' topic:
  default      10 partitions, 1 replica, 7 days, segments of 1 GiB, zstd
  recommended  the same with 3 replicas, 2 of which must have a record
  dev          3 partitions, 1 replica, 1 day, segments of 256 MiB, compressed as the producer does
The topic of the dead letters has 3 partitions, 30 days, segments of 256 MiB, zstd, and as many replicas as the other.

Examples:
  dashstream topics ensure
  dashstream topics ensure --profile recommended --partitions 32 --retention 14d
  KAFKA_TOPIC=runs dashstream topics ensure --profile dev --json

Exit code: 1 when a topic that exists falls short of what is asked for.")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// For what surroundings
    #[arg(long, value_enum, default_value_t = ProfileArg::Default)]
    profile: ProfileArg,
    /// Partitions of the records' topic. Otherwise as the profile has it
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=10_000), allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// Replicas of both topics; from 3 on, 2 must have a record. Otherwise as the profile has it
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=1_000), allow_negative_numbers = true)]
    replication: Option<i32>,
    /// How long records are kept: 12h, 7d. Otherwise as the profile has it
    #[arg(long, value_name = "SPAN", value_parser = retention, allow_hyphen_values = true)]
    retention: Option<Duration>,
    /// One JSON object per topic and line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileArg {
    Default,
    Recommended,
    Dev,
}

impl Args {
    /// The topics as they are asked for.
    fn plans(&self, topic: &str, dlq_topic: &str) -> (TopicPlan, TopicPlan) {
        let profile = match self.profile {
            ProfileArg::Default => Profile::Default,
            ProfileArg::Recommended => Profile::Recommended,
            ProfileArg::Dev => Profile::Dev,
        };
        let mut telemetry = TopicPlan::telemetry(topic, profile);
        let mut dead_letters = TopicPlan::dead_letters(dlq_topic, profile);
        if let Some(partitions) = self.partitions {
            telemetry.partitions = partitions;
        }
        if let Some(retention) = self.retention {
            telemetry = telemetry.with_retention(retention);
        }
        if let Some(replicas) = self.replication {
            telemetry = telemetry.with_replicas(replicas);
            dead_letters = dead_letters.with_replicas(replicas);
        }
        (telemetry, dead_letters)
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let (telemetry, dead_letters) = args.plans(&config.kafka.topic, &config.dlq_topic());
    let ensured = admin(&config)?.ensure_topics_with_dlq(&telemetry, &dead_letters)?;
    let lines: String = ensured.iter().map(|ensured| line(ensured, args.json)).collect();
    print(lines)?;
    let good = ensured.iter().all(|ensured| ensured.differences.is_empty());
    Ok(if good { Exit::Success } else { Exit::Failed })
}

fn line(ensured: &Ensured, as_json: bool) -> String {
    let Ensured { topic, created, differences } = ensured;
    let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
    if as_json {
        let object: Value = json!({"topic": topic, "created": created, "differences": differences});
        return format!("{object}\n");
    }
    match (created, differences.as_slice()) {
        (true, _) => format!("{topic}: created\n"),
        (false, []) => format!("{topic}: exists\n"),
        (false, some) => format!("{topic}: exists and was not changed: {}\n", some.join("; ")),
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    let span = span_ms(text).filter(|ms| *ms > 0).and_then(|ms| u64::try_from(ms).ok());
    span.map(Duration::from_millis).ok_or_else(|| "must be a span such as 90m, 12h or 7d".to_owned())
}
