//! `dashstream torture`: clients that misbehave, against a running service; and scenarios, in which more is broken.

mod scenarios;

use std::time::Duration;

use serde_json::{Value, json};

use super::{Exit, UsageError, print};
use crate::config::environment::Environment;
use crate::torture::{Report, Settings, Telling, run as torture};

/// Where a bearer token is looked for: it must not stand on a command line.
const TOKEN: &str = "DASHSTREAM_TORTURE_TOKEN";
/// Clients at a time.
const CLIENTS: u32 = 8;

/// Let clients misbehave and things break, and check that every client is still given everything
///
/// Against a running service, only clients misbehave: they stop reading, read slowly, leave without a word and come back with
/// their cursor, at this instance or another. Each holds every frame against the promise (docs/PROTOCOL.md), all are held against
/// each other, and in the end each has to reach what any of them has seen. Nothing is changed in Kafka or at the service. A bearer
/// token is taken from DASHSTREAM_TORTURE_TOKEN.
///
/// With --scenarios, everything else breaks too: instances are killed and stand still, their clocks jump, Kafka, Redis and
/// clients are cut off, hang or are slow, Redis is flushed, the topic grows, loses records and is made anew. Each scenario starts
/// instances of this program on this machine and a producer, on a topic of its own in your cluster, which it deletes in the end;
/// nothing else in Kafka or Redis is touched. Brokers, security and Redis come from the same file and variables as those of
/// `serve`. In the end each client must hold all that was published, byte for byte.
///
/// Exit code 1: a promise was broken, or nothing came that could prove one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream torture                                          thirty seconds against the service of this machine
  dashstream torture --at a:3002 --at b:3002 --seconds 300    two instances
  dashstream torture --seed 17 --json                         the same plan again, for a program
  KAFKA_BROKERS=kafka:9092 dashstream torture --scenarios 1-20      twenty scenarios on topics of their own
  dashstream torture --scenarios 7 --only kill-service,hang-kafka   what is left of the seventh")]
pub(super) struct Args {
    /// HOST:PORT of an instance; several times for several
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3002", conflicts_with = "scenarios")]
    at: Vec<String>,
    /// Clients at a time; 8 unless given. The service allows 10 per address unless configured (WEBSOCKET_MAX_CONNECTIONS_PER_IP)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), allow_negative_numbers = true)]
    clients: Option<u32>,
    /// How long they misbehave
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400), conflicts_with = "scenarios", allow_negative_numbers = true)]
    seconds: u64,
    /// How long each may then take to get everything
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600), allow_negative_numbers = true)]
    patience: u64,
    /// Chooses what each client does, and when; random unless given
    #[arg(long, conflicts_with = "scenarios")]
    seed: Option<u64>,
    #[command(flatten)]
    scenarios: scenarios::Scenarios,
    /// One JSON object; with --scenarios one per scenario and line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    if let Some(seeds) = &args.scenarios.numbers {
        return scenarios::run(args, seeds, environment);
    }
    if args.scenarios.file.config.is_some() {
        let problem = "--config says how instances are run that scenarios start; without --scenarios there are none";
        return Err(UsageError(problem.to_owned()).into());
    }
    let settings = Settings {
        addresses: args.at.clone(),
        clients: args.clients.unwrap_or(CLIENTS),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        lasts: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(args.patience),
        token: environment.get(TOKEN).and_then(|token| token.to_str()).map(str::to_owned),
        telling: Telling::AgainstEachOther,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(torture(&settings));
    if report.connections == 0 {
        anyhow::bail!("nobody answered at {}; is the service running there? See --at", args.at.join(", "));
    }
    print(if args.json { as_json(&settings, &report) } else { as_text(&settings, &report) })?;
    if report.violations == 0 && report.records == 0 {
        anyhow::bail!("no client got a record, so nothing is proved: produce some, or see `dashstream generate`");
    }
    Ok(if report.violations == 0 { Exit::Success } else { Exit::Failed })
}

fn as_json(settings: &Settings, report: &Report) -> String {
    report_as_json(report, [("seed", json!(settings.seed.to_string())), ("clients", json!(settings.clients))])
}

/// A report, and what else is told with it, as one line.
fn report_as_json(report: &Report, besides: impl IntoIterator<Item = (&'static str, Value)>) -> String {
    let Report { faults, connections, records, gaps, resets, violations, told } = report;
    let report = [
        ("faults", json!(faults)),
        ("connections", json!(connections)),
        ("records", json!(records)),
        ("gaps", json!(gaps)),
        ("resets", json!(resets)),
        ("violations", json!(violations)),
        ("first_violations", json!(told)),
    ];
    let object: serde_json::Map<_, _> =
        besides.into_iter().chain(report).map(|(name, value)| (name.to_owned(), value)).collect();
    format!("{}\n", Value::Object(object))
}

fn as_text(settings: &Settings, report: &Report) -> String {
    let mut text = format!("seed {}, {} clients\n", settings.seed, settings.clients);
    let counted = |what: &str, count: &u64| format!("{count:>10}  {what}\n");
    text.extend(report.faults.iter().map(|(fault, count)| counted(fault, count)));
    text.push_str(&counted("connections", &report.connections));
    text.push_str(&counted("records received", &report.records));
    text.extend(report.gaps.iter().map(|(reason, count)| counted(&format!("gaps: {reason}"), count)));
    text.extend(report.resets.iter().map(|(reason, count)| counted(&format!("resets: {reason}"), count)));
    text.push_str(&counted("broken promises", &report.violations));
    text.extend(report.told.iter().map(|violation| format!("  {violation}\n")));
    text
}
