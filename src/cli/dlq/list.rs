//! `dashstream dlq list`.

use serde_json::{Value, json};

use super::desk::{Desk, Found};
use super::{Place, Which};
use crate::cli::{Exit, print, seam, show};
use crate::config::environment::Environment;
use crate::pipeline::letters::LetterCursor;

/// List dead letters
///
/// Open ones, oldest first, a page at a time. The page ends with a cursor, from which --from goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream dlq list --limit 20
  dashstream dlq list --kind invalid_protobuf --kind internal --since 2h
  dashstream dlq list --from 0:1200                         the next page
  dashstream dlq list --json --all | jq .letter.error")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Where to begin: PARTITION:OFFSET of the dead-letter topic, separated by commas, as the last page told
    #[arg(long, value_name = "CURSOR")]
    from: Option<LetterCursor>,
    /// Most letters
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Also those that were published again or discarded
    #[arg(long)]
    all: bool,
    /// One JSON object per letter and line, with the cursor behind it. Payloads are left out
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let desk = Desk::open(&config)?;
    let now = seam::now_ms();
    let mut rows = Vec::new();
    let mut count = 0;
    let mut next = None;
    desk.letters(&args.from.clone().unwrap_or_default(), &args.which.filter(&[], &args.place), |found| {
        if found.done.is_some() && !args.all {
            return Ok(true);
        }
        count += 1;
        if args.json {
            print(format!("{}\n", as_json(&found, false)))?;
        } else {
            rows.push(row(&found, now));
        }
        next = (count == args.limit).then(|| found.next.to_string());
        Ok(count < args.limit)
    })?;
    if args.json {
        return Ok(Exit::Success);
    }
    let mut text = String::new();
    if !rows.is_empty() {
        let head = ["KEY", "KIND", "STATE", "AGE", "BYTES", "THREAD", "ERROR"].map(str::to_owned).to_vec();
        rows.insert(0, head);
        text = show::table(&rows);
    }
    let more = next.map(|next| format!("; more may follow: --from {next}")).unwrap_or_default();
    let letters = if count == 1 { "letter" } else { "letters" };
    text.push_str(&format!("{count} {letters} in {}{more}\n", desk.topic));
    print(text)
}

fn row(found: &Found, now_ms: i64) -> Vec<String> {
    let state = found.done.as_deref().unwrap_or("open");
    let cells = match &found.letter {
        Ok(letter) => [
            show::plain(&found.key, 60),
            show::plain(&letter.error_type, 24),
            show::plain(state, 12),
            show::age(letter.written_ms(), now_ms),
            letter.payload_size.to_string(),
            show::plain(letter.thread_id.as_deref().unwrap_or("-"), 24),
            show::plain(&letter.error, 80),
        ],
        Err(error) => [
            show::plain(&found.key, 60),
            "unreadable".into(),
            show::plain(state, 12),
            "?".into(),
            "?".into(),
            "-".into(),
            show::plain(error, 80),
        ],
    };
    cells.to_vec()
}

/// A letter for machines. Its payload may hold secrets, so it is left out unless asked for.
pub(super) fn as_json(found: &Found, with_payload: bool) -> Value {
    let mut letter: Value = serde_json::from_slice(&found.json).unwrap_or(Value::Null);
    if let (Some(fields), false) = (letter.as_object_mut(), with_payload) {
        fields.remove("payload_base64");
    }
    json!({
        "key": found.key,
        "state": found.done.as_deref().unwrap_or("open"),
        "dlq_partition": found.partition,
        "dlq_offset": found.offset.to_string(),
        "cursor": found.next.to_string(),
        "letter": letter,
    })
}
