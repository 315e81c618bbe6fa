//! `dashstream dlq inspect`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::desk::{Desk, Found};
use super::list::as_json;
use super::{Place, Which};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;
use crate::pipeline::letters::{Letter, LetterCursor};

/// Bytes of a payload that are shown.
const SHOWN_BYTES: usize = 512;
/// Bytes in a line.
const LINE_BYTES: usize = 16;

/// Show everything that a dead letter says
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream dlq inspect runs-3-42
  dashstream dlq inspect runs-3-42 --show-payload
  dashstream dlq inspect runs-3-42 --json | jq .letter")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Key of the letter: TOPIC-PARTITION-OFFSET
    #[arg(value_name = "KEY")]
    key: String,
    /// Also the payload, if the letter holds one. Payloads may hold secrets
    #[arg(long)]
    show_payload: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let desk = Desk::open(&config)?;
    let filter = Which::default().filter(std::slice::from_ref(&args.key), &args.place);
    let mut last = None;
    desk.letters(&LetterCursor::default(), &filter, |found| {
        last = Some(found);
        Ok(true)
    })?;
    let Some(found) = last else {
        anyhow::bail!(
            "there is no letter {} in {}; `dashstream dlq list --all` shows what there is",
            args.key,
            desk.topic
        );
    };
    if args.json {
        return print(format!("{}\n", as_json(&found, args.show_payload)));
    }
    match &found.letter {
        Ok(letter) => print(text(&found, letter, args.show_payload)),
        Err(error) => anyhow::bail!("{} in {}: {error}", args.key, desk.topic),
    }
}

fn text(found: &Found, letter: &Letter, with_payload: bool) -> String {
    let or_none = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), |text| show::plain(text, 200));
    let bytes = |base64: &str| BASE64.decode(base64).unwrap_or_default();
    let readable = |base64: &str| show::plain(&String::from_utf8_lossy(&bytes(base64)), 200);
    let mut rows = vec![
        (
            "record",
            format!("{}, partition {}, offset {}", letter.kafka_topic, letter.kafka_partition, letter.kafka_offset),
        ),
        ("state", found.done.as_deref().map_or("open".to_owned(), |done| show::plain(done, 40))),
        ("kind", show::plain(&letter.error_type, 40)),
        ("error", show::plain(&letter.error, 400)),
        ("written", show::plain(&letter.timestamp, 40)),
        ("key", letter.record_key_base64.as_deref().map_or("-".to_owned(), readable)),
        ("tenant", or_none(&letter.tenant_id)),
        ("thread", or_none(&letter.thread_id)),
        ("trace", or_none(&letter.trace_id)),
        ("payload", format!("{} bytes, sha256 {}", letter.payload_size, show::plain(&letter.payload_sha256, 64))),
        ("in the letter", kept(letter)),
    ];
    for header in &letter.record_headers {
        let value = header.value.as_deref().map_or("(null)".to_owned(), readable);
        rows.push(("header", format!("{}: {value}", show::plain(&header.name, 80))));
    }
    if let Some(from) = letter.replayed_from() {
        rows.push(("published for", show::plain(&from, 200)));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut text = show::table(&rows);
    if let (Some(payload), true) = (&letter.payload_base64, with_payload) {
        text.push('\n');
        text.push_str(&dump(&bytes(payload)));
    }
    text
}

fn kept(letter: &Letter) -> String {
    match letter.record() {
        Ok(_) => "the whole payload".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Offsets, bytes, and the characters among them.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.iter().take(SHOWN_BYTES).copied().collect::<Vec<_>>().chunks(LINE_BYTES).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let chars: String =
            chunk.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        text.push_str(&format!("{:06x}  {:<47}  {chars}\n", line * LINE_BYTES, hex.join(" ")));
    }
    if bytes.len() > SHOWN_BYTES {
        text.push_str(&format!("… {} bytes more; --json has them all\n", bytes.len() - SHOWN_BYTES));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_bounded_and_printable() {
        assert_eq!(dump(b"\x00ab\x1b"), format!("000000  {:<47}  .ab.\n", "00 61 62 1b"));
        let long = dump(&[7; 1_000]);
        assert_eq!(long.lines().count(), SHOWN_BYTES / LINE_BYTES + 1);
        assert!(long.ends_with("… 488 bytes more; --json has them all\n"));
        assert_eq!(dump(&[]), "");
    }
}
