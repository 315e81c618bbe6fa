//! `dashstream dlq`: what became of records that cannot be processed, and what can be done about them.
//!
//! A letter is open until something was done about it. What was done is written into the dead-letter topic itself, as a
//! tombstone under the letter's key with headers that say what, when, by whom and why; so the topic is its own audit.

mod desk;

mod discard;

mod inspect;

mod list;

mod replay;

use super::{Exit, FileArg, seam};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::pipeline::decode::Kind;
use crate::pipeline::letters::{Filter, point_in_time};

/// List, inspect, publish again or discard dead letters
///
/// Dead letters are what the service keeps of records that it cannot process. Brokers, topics and security come from the
/// same file and variables as those of `serve`; options win. Nothing here disturbs a running service: no group is joined,
/// nothing is committed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream dlq list --since 1h --kind schema_version
  dashstream dlq inspect runs-3-42
  dashstream dlq replay --kind schema_version --yes        after an upgrade
  dashstream dlq discard runs-3-42 --reason 'test data' --yes")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::Args),
    Inspect(inspect::Args),
    Replay(replay::Args),
    Discard(discard::Args),
}

/// Where the letters are.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(long, value_name = "LIST")]
    brokers: Option<String>,
    /// Source topic: only letters about its records. Otherwise KAFKA_TOPIC names the default dead-letter topic
    #[arg(long)]
    topic: Option<String>,
    /// Topic of the dead letters. Otherwise KAFKA_DLQ_TOPIC, otherwise the source topic's name with -dlq
    #[arg(long, value_name = "TOPIC")]
    dlq_topic: Option<String>,
}

/// Which letters are meant.
#[derive(Clone, Debug, Default, clap::Args)]
struct Which {
    /// Of this kind; may be given several times
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)))]
    kind: Vec<String>,
    /// Of this partition of the source topic
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..), allow_negative_numbers = true)]
    partition: Option<i32>,
    /// Written since then: a time (2026-01-31T12:00:00Z), or a span before now (30m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Written before then, in the same forms
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<i64>,
    /// Of this thread
    #[arg(long)]
    thread: Option<String>,
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
}

impl Which {
    fn filter(&self, keys: &[String], place: &Place) -> Filter {
        Filter {
            kinds: self.kind.clone(),
            keys: keys.to_vec(),
            topic: place.topic.clone(),
            partition: self.partition,
            since_ms: self.since,
            until_ms: self.until,
            thread: self.thread.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

/// What may say which letters are meant: an empty choice is a mistake, not everything. The topic is a place; whoever means
/// all of its letters says so.
const CHOICES: [&str; 8] = ["keys", "kind", "partition", "since", "until", "thread", "tenant", "all"];

/// Letters on which something is done.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which letters").required(true).multiple(true).args(CHOICES)))]
struct Chosen {
    /// Keys of letters: TOPIC-PARTITION-OFFSET, as `list` shows them
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Every open letter
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    /// Do it. Otherwise it is only told what would be done
    #[arg(long)]
    yes: bool,
    /// Who does it, for the record. Otherwise USER
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// One JSON object per letter and line
    #[arg(long)]
    json: bool,
}

impl Chosen {
    fn by(&self, environment: &Environment) -> String {
        let user = || environment.get("USER").map(|user| user.to_string_lossy().into_owned());
        self.by.clone().or_else(user).filter(|by| !by.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    match &args.command {
        Command::List(args) => list::run(args, environment),
        Command::Inspect(args) => inspect::run(args, environment),
        Command::Replay(args) => replay::run(args, environment),
        Command::Discard(args) => discard::run(args, environment),
    }
}

impl Place {
    /// The configuration that holds for these options; logging is started.
    fn load(&self, environment: &Environment) -> anyhow::Result<Config> {
        self.file.load(
            environment,
            &[
                ("--brokers", "kafka.brokers", &self.brokers),
                ("--topic", "kafka.topic", &self.topic),
                ("--dlq-topic", "dlq.topic", &self.dlq_topic),
            ],
        )
    }
}

fn time(text: &str) -> Result<i64, String> {
    point_in_time(text, seam::now_ms())
}
