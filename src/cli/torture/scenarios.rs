//! `dashstream torture --scenarios`: scenarios against a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Exit, TOKEN, report_as_json};
use crate::cli::generate::rate;
use crate::cli::{FileArg, UsageError, print, seam};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::torture::instance::Program;
use crate::torture::plan::{Fault, Need};
use crate::torture::scenario::{NARROW, Outcome, ScenarioSettings, Stage};

/// What only scenarios have.
#[derive(Debug, clap::Args)]
pub(super) struct Scenarios {
    /// Scenarios by number: 7, 1-200 or 3,5,9. The same number breaks the same things
    #[arg(id = "scenarios", long = "scenarios", value_name = "NUMBERS", value_parser = seeds)]
    pub numbers: Option<Seeds>,
    #[command(flatten)]
    pub file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(long, value_name = "LIST", requires = "scenarios")]
    brokers: Option<String>,
    /// Break nothing but these
    #[arg(long, value_name = "FAULTS", value_delimiter = ',', requires = "scenarios")]
    only: Vec<Fault>,
    /// Instances of the service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10), requires = "scenarios", allow_negative_numbers = true)]
    instances: u32,
    /// Partitions of the topic, at first
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=1_000), requires = "scenarios", allow_negative_numbers = true)]
    partitions: i32,
    /// Records per second
    #[arg(long, default_value_t = 500.0, value_parser = rate, requires = "scenarios", allow_negative_numbers = true)]
    rate: f64,
    /// Where instances leave their logs. Otherwise a folder of its own, which stays only when a promise was broken
    #[arg(long, value_name = "FOLDER", requires = "scenarios")]
    logs: Option<PathBuf>,
}

/// Numbers of scenarios, in order.
#[derive(Clone, Debug)]
pub(super) struct Seeds(Vec<u64>);

fn seeds(text: &str) -> Result<Seeds, String> {
    const FORM: &str = "must be a number, two with a hyphen, or several with commas";
    const MOST: u64 = 100_000;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| FORM.to_owned());
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        match last.checked_sub(first) {
            Some(more) if more < MOST => seeds.extend(first..=last),
            Some(_) => return Err(format!("must be at most {MOST} scenarios")),
            None => return Err(format!("{first}-{last} goes down")),
        }
    }
    Ok(Seeds(seeds))
}

impl ValueEnum for Fault {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

pub(super) fn run(args: &super::Args, seeds: &Seeds, environment: &Environment) -> anyhow::Result<Exit> {
    let given = &args.scenarios;
    let config = given.file.load(&environment.with(&NARROW), &[("--brokers", "kafka.brokers", &given.brokers)])?;
    refuse(&config)?;
    let (folder, is_ours) = match &given.logs {
        Some(folder) => (folder.clone(), false),
        None => {
            let temporary = environment.get("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
            (temporary.join(format!("dashstream-torture-{:08x}", fastrand::u32(..))), true)
        }
    };
    std::fs::create_dir_all(&folder)?;
    let settings = settings(args, &config, folder.clone())?;
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let stage = Stage::new(settings)?;
    if !args.json {
        for (need, faults) in stage.left_out() {
            let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
            print(format!("left out: {}: {}\n", names.join(", "), advice(need)))?;
        }
    }
    let mut broken = 0;
    for seed in &seeds.0 {
        let outcome = stage.run(*seed, &stop)?;
        broken += u64::from(outcome.report.violations > 0);
        print(if args.json { as_json(&stage, &outcome) } else { as_text(&outcome) })?;
    }
    if broken == 0 && is_ours {
        let _ = std::fs::remove_dir_all(&folder);
    }
    if !args.json {
        let logs = if broken > 0 { format!("; what the instances said: {}", folder.display()) } else { String::new() };
        print(format!("{} scenarios, {broken} with broken promises{logs}\n", seeds.0.len()))?;
    }
    Ok(if broken == 0 { Exit::Success } else { Exit::Failed })
}

/// Some settings would keep the clients of scenarios out, or change what they are held against.
fn refuse(config: &Config) -> Result<(), UsageError> {
    let hindrance = if config.auth.is_on() {
        "with authentication: clients of scenarios have no tokens"
    } else if !config.web.tls_certificate.is_empty() {
        "with a certificate for browsers: clients of scenarios do not encrypt"
    } else if config.redact.is_on() {
        "with redaction: clients are held against what was published"
    } else {
        return Ok(());
    };
    Err(UsageError(format!("scenarios cannot be run {hindrance}; leave it out of the file and the variables")))
}

fn settings(args: &super::Args, config: &Config, folder: PathBuf) -> anyhow::Result<ScenarioSettings> {
    let given = &args.scenarios;
    let mut arguments = vec!["serve".to_owned()];
    if let Some(file) = &given.file.config {
        arguments.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
    }
    Ok(ScenarioSettings {
        connection: seam::connection(config, "dashstream-torture"),
        redis: seam::redis_settings(config),
        program: Program {
            path: Environment::program()?,
            arguments,
            hidden: vec![TOKEN],
            variables: vec![("KAFKA_BROKERS".to_owned(), config.kafka.brokers.clone())],
        },
        instances: given.instances,
        clients: args.clients.unwrap_or(super::CLIENTS),
        partitions: given.partitions,
        rate: given.rate,
        faults: if given.only.is_empty() {
            Fault::ALL.into()
        } else {
            given.only.iter().copied().collect::<BTreeSet<_>>()
        },
        patience: Duration::from_secs(args.patience),
        folder,
    })
}

const fn advice(need: Need) -> &'static str {
    match need {
        Need::Clock => "needs Linux with glibc, and a program that is linked with it dynamically",
        Need::PlainKafka => "needs a listener of Kafka that does not encrypt: a proxy stands in between",
        Need::PlainRedis => "needs a REDIS_URL of one server without encryption: a proxy stands in between",
    }
}

fn as_text(outcome: &Outcome) -> String {
    let Outcome { seed, steps, published, report, took } = outcome;
    let verdict = match report.violations {
        0 => "kept the promise".to_owned(),
        count => format!("BROKE {count} promises"),
    };
    let count = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
    let mut text = format!(
        "scenario {seed} {verdict} in {:.1} s: {published} records, {} received over {} connections, {} gaps, {} resets\n",
        took.as_secs_f64(),
        report.records,
        report.connections,
        count(&report.gaps),
        count(&report.resets),
    );
    for (faults, lasted) in steps {
        let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(" + ") };
        text.push_str(&format!("    {names}, {:.1} s\n", lasted.as_secs_f64()));
    }
    text.extend(report.told.iter().map(|violation| format!("  broken: {violation}\n")));
    text
}

fn as_json(stage: &Stage, outcome: &Outcome) -> String {
    let Outcome { seed, steps, published, report, took } = outcome;
    let names = |faults: &[Fault]| faults.iter().map(|fault| fault.name()).collect::<Vec<_>>();
    let steps: Vec<_> = steps
        .iter()
        .map(|(faults, lasted)| json!({ "faults": names(faults), "seconds": lasted.as_secs_f64() }))
        .collect();
    let left_out: Vec<_> = stage.left_out().values().flat_map(|faults| names(faults)).collect();
    let besides = [
        ("scenario", json!(seed.to_string())),
        ("steps", json!(steps)),
        ("left_out", json!(left_out)),
        ("published", json!(published)),
        ("seconds", json!(took.as_secs_f64())),
    ];
    report_as_json(report, besides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_scenarios_come_alone_as_ranges_and_as_lists() {
        for (text, expected) in [("7", vec![7]), ("1-3", vec![1, 2, 3]), ("9, 4-5", vec![9, 4, 5]), ("0-0", vec![0])] {
            assert_eq!(seeds(text).unwrap().0, expected, "{text}");
        }
        for text in ["", "-", "3-", "x", "5-3", "1-100001", "-1", "18446744073709551616"] {
            assert!(seeds(text).is_err(), "{text}");
        }
    }
}
