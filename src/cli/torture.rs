//! `dashstream torture`: clients that misbehave, against a running service.

use std::time::Duration;

use serde_json::json;

use super::{Exit, print};
use crate::config::environment::Environment;
use crate::torture::{Report, Settings, run as torture};

/// Where a bearer token is looked for: it must not stand on a command line.
const TOKEN: &str = "DASHSTREAM_TORTURE_TOKEN";

/// Let clients misbehave against a running service, and check that each is still given everything
///
/// Clients stop reading, read slowly, leave without a word and come back with their cursor, at this instance or another. Each
/// holds every frame against the promise (docs/PROTOCOL.md), all are held against each other, and in the end each has to reach what
/// any of them has seen. Nothing is changed in Kafka or at the service; break those by other means meanwhile. Exit code 1: a promise
/// was broken, or nothing came that could prove one. A bearer token is taken from DASHSTREAM_TORTURE_TOKEN.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream torture                                          thirty seconds against the service of this machine
  dashstream torture --at a:3002 --at b:3002 --seconds 300    two instances
  dashstream torture --seed 17 --json                         the same plan again, for a program")]
pub(super) struct Args {
    /// HOST:PORT of an instance; several times for several
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3002")]
    at: Vec<String>,
    /// Clients at a time; the service allows 10 per address unless configured (WEBSOCKET_MAX_CONNECTIONS_PER_IP)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long they misbehave
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long each may then take to get everything
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    patience: u64,
    /// Chooses what each client does, and when; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let settings = Settings {
        addresses: args.at.clone(),
        clients: args.clients,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        lasts: Duration::from_secs(args.seconds),
        patience: Duration::from_secs(args.patience),
        token: environment.get(TOKEN).and_then(|token| token.to_str()).map(str::to_owned),
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
    let Report { faults, connections, records, gaps, resets, violations, told } = report;
    let report = json!({
        "seed": settings.seed.to_string(),
        "clients": settings.clients,
        "faults": faults,
        "connections": connections,
        "records": records,
        "gaps": gaps,
        "resets": resets,
        "violations": violations,
        "first_violations": told,
    });
    format!("{report}\n")
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
