//! `dashstream diff`: in what two runs, or two states of a run, differ.

use std::io::Write as _;

use serde_json::{Value, json};

use super::place::{Place, Which};
use super::{Exit, UsageError, gather, note, show};
use crate::cli::print;
use crate::config::environment::Environment;
use crate::config::problem::ConfigError;
use crate::runs::compare::{self, Difference};
use crate::runs::json::hex;
use crate::runs::run::Run;
use crate::runs::state::{Chain, Known};
use crate::runs::tree::Tree;
use crate::telemetry;

/// Compare two runs, or the states at two checkpoints of a run
///
/// Prints differences only: how the runs ended, which nodes, models and tools ran how often and with what outcome, which edges were
/// taken, and in what their final states differ, by JSON pointer. States are rebuilt from what was sent and checked by their
/// hashes; a state that cannot be rebuilt is told, not guessed. Numbers, ids and times of messages are not compared.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream diff --thread run-17 --with run-18
  dashstream diff --thread run-17 --with run-18 --durations --tolerance 20
  dashstream diff --thread run-17 --checkpoint1 8c1f… --checkpoint2 d02a…

Exit codes: 0 no difference, 1 at least one, 2 it could not be compared.")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// The other run's thread
    #[arg(long, value_name = "ID", conflicts_with_all = ["checkpoint1", "checkpoint2"])]
    with: Option<String>,
    /// The one checkpoint, hexadecimal as `dashstream inspect --detailed` shows it
    #[arg(long, value_name = "HEX", value_parser = super::replay::checkpoint, requires = "checkpoint2")]
    checkpoint1: Option<super::replay::Checkpoint>,
    /// The other checkpoint
    #[arg(long, value_name = "HEX", value_parser = super::replay::checkpoint, requires = "checkpoint1")]
    checkpoint2: Option<super::replay::Checkpoint>,
    /// Compare durations, too
    #[arg(long, requires = "with")]
    durations: bool,
    /// Durations that differ by no more than this many percent of the longer one are equal
    #[arg(long, value_name = "PERCENT", default_value_t = 10, requires = "durations", value_parser = clap::value_parser!(u64).range(0..=100))]
    tolerance: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    match compare(args, environment) {
        Err(error) if !error.is::<ConfigError>() && !error.is::<UsageError>() => {
            let _ = writeln!(std::io::stderr(), "error: {}", telemetry::chain(error.as_ref()));
            Ok(Exit::NotCompared)
        }
        result => result,
    }
}

fn compare(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let usage = |text: &str| Err(UsageError(text.to_owned()).into());
    let Some(thread) = args.which.thread.as_deref() else {
        return usage("name a run with --thread; `dashstream inspect` lists them");
    };
    let checkpoints = args.checkpoint1.as_ref().zip(args.checkpoint2.as_ref());
    let threads = match (&args.with, checkpoints) {
        (Some(with), _) => vec![thread, with],
        (None, Some(_)) => vec![thread],
        (None, None) => {
            return usage("name another run with --with, or two checkpoints with --checkpoint1 and --checkpoint2");
        }
    };
    let config = args.place.load(environment)?;
    let (runs, _) = gather::runs(&config, "dashstream-diff", &args.which, (&threads, true), &mut |_| {})?;
    runs.iter().for_each(gather::tell_missing);
    let (names, found) = match (runs.as_slice(), checkpoints) {
        ([run], Some((one, other))) => {
            let (left, right) = (state_at(run, &one.0)?, state_at(run, &other.0)?);
            ([hex(&one.0), hex(&other.0)], compare::states(&left, &right))
        }
        ([one, other], _) => ([one, other].map(|run| run.thread().to_owned()), of_runs(args, one, other)),
        _ => anyhow::bail!("the runs were not found"),
    };
    print(if args.json { as_json(&names, &found) } else { as_text(&found) })?;
    Ok(if found.is_empty() { Exit::Success } else { Exit::Failed })
}

fn of_runs(args: &Args, one: &Run, other: &Run) -> Vec<Difference> {
    let tolerance = args.durations.then_some(args.tolerance);
    let mut found = compare::runs(&Tree::of(one), &Tree::of(other), tolerance);
    let chains = [Chain::of(one), Chain::of(other)];
    for (run, chain) in [one, other].into_iter().zip(&chains) {
        let thread = show::plain(run.thread(), 120);
        if let Known::Unknown(reason) = chain.current()
            && chain.steps() > 0
        {
            note(&format!("the final state of thread {thread} cannot be told: {}", show::plain(reason, 400)));
        }
        tell_problems(&thread, chain);
    }
    let [left, right] = &chains;
    found.extend(compare::ends(left, right));
    found
}

fn state_at(run: &Run, checkpoint: &[u8]) -> anyhow::Result<Value> {
    let thread = show::plain(run.thread(), 120);
    let Some(chain) = Chain::at(run, checkpoint) else {
        anyhow::bail!(
            "thread {thread} has no checkpoint {} in the window; `dashstream inspect --thread {thread} --detailed` shows those \
             it has",
            hex(checkpoint)
        );
    };
    tell_problems(&thread, &chain);
    match chain.current() {
        Known::State(value, _) => Ok(value.clone()),
        Known::Unknown(reason) => {
            anyhow::bail!("the state at checkpoint {} cannot be told: {}", hex(checkpoint), show::plain(reason, 400))
        }
    }
}

fn tell_problems(thread: &str, chain: &Chain) {
    let (problems, more) = chain.problems();
    for problem in problems.iter().take(5) {
        note(&format!("thread {thread}: {}", show::plain(problem, 400)));
    }
    let more = more.saturating_add(problems.len().saturating_sub(5) as u64);
    if more > 0 {
        note(&format!("thread {thread}: … and {more} more"));
    }
}

fn as_json(names: &[String; 2], found: &[Difference]) -> String {
    let differences: Vec<Value> = found
        .iter()
        .map(|found| {
            let own = [("what", json!(found.what)), ("name", json!(found.name))].map(Some);
            // A side that is not there is left out: `null` is a value.
            let sides =
                [("left", &found.left), ("right", &found.right)].map(|(side, value)| Some((side, value.clone()?)));
            let fields = own.into_iter().chain(sides).flatten();
            Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
        })
        .collect();
    let [left, right] = names;
    format!("{}\n", json!({"left": left, "right": right, "equal": found.is_empty(), "differences": differences}))
}

fn as_text(found: &[Difference]) -> String {
    let side = |value: &Option<Value>| match value {
        None => "(not there)".to_owned(),
        Some(value) => show::plain(&value.to_string(), 120),
    };
    let mut rows = vec![["WHAT", "NAME", "LEFT", "RIGHT"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|found| {
        let name = if found.name.is_empty() { "-".to_owned() } else { show::plain(&found.name, 120) };
        vec![found.what.to_owned(), name, side(&found.left), side(&found.right)]
    }));
    if found.is_empty() { "no difference\n".to_owned() } else { show::table(&rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_null() {
        let found = [Difference { what: "state", name: "/a".into(), left: Some(Value::Null), right: None }];
        assert!(as_text(&found).contains("null  (not there)"), "{}", as_text(&found));
        let object: Value = serde_json::from_str(&as_json(&["a".into(), "b".into()], &found)).unwrap();
        assert_eq!(object["differences"], json!([{"what": "state", "name": "/a", "left": null}]));
        assert_eq!(object["equal"], false);
        assert_eq!(as_text(&[]), "no difference\n");
    }
}
