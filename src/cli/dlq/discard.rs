//! `dashstream dlq discard`.

use serde_json::json;

use super::desk::{Desk, Done};
use super::{Chosen, Place};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;
use crate::pipeline::letters::LetterCursor;

/// Settle dead letters about which nothing has to be done
///
/// The letter is no longer open. A tombstone under its key says when, by whom and why; the letter itself stays in the
/// topic until retention or compaction removes it. The record was skipped before and stays so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream dlq discard runs-3-42 --reason 'test data'            tells what would be done
  dashstream dlq discard runs-3-42 --reason 'test data' --yes
  dashstream dlq discard --kind payload_missing --since 2h --reason tombstones --yes")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chosen: Chosen,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let Args { place, chosen, reason } = args;
    let config = place.load(environment)?;
    let desk = Desk::open(&config)?;
    let writer = if chosen.yes { Some(desk.writer()?) } else { None };
    let by = chosen.by(environment);
    let mut count = 0;
    desk.letters(&LetterCursor::default(), &chosen.which.filter(&chosen.keys, place), |found| {
        if found.done.is_some() {
            return Ok(true);
        }
        if let Some(writer) = &writer {
            desk.settle(writer, &found, &Done { action: "discarded", by: &by, note: reason })?;
        }
        count += 1;
        let did = if chosen.yes { "discarded" } else { "would be discarded" };
        print(match chosen.json {
            true => format!("{}\n", json!({"key": found.key, "action": "discard", "done": chosen.yes})),
            false => format!("{}: {did}\n", show::plain(&found.key, 200)),
        })?;
        Ok(true)
    })?;
    anyhow::ensure!(count > 0, "no open letter of {} is meant; see `dashstream dlq list --all`", desk.topic);
    if chosen.json {
        return Ok(Exit::Success);
    }
    print(match chosen.yes {
        true => format!("{count} discarded\n"),
        false => format!("{count} would be discarded; nothing was written: --yes does it\n"),
    })
}
