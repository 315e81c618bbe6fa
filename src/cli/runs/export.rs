//! `dashstream export`: telemetry into a file, complete.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::place::{Place, Which, thread_of};
use super::source::read;
use super::target::Target;
use super::types::Types;
use super::{Exit, note, seam, show};
use crate::config::environment::Environment;
use crate::kafka::records::{End, Start};
use crate::runs::item::Item;
use crate::runs::{csv, json};

/// Write messages to a file, complete
///
/// Everything that the topic has now and is meant, as it is read: in order per partition. JSON has the names of the contract;
/// numbers of 64 bits are decimal strings there, ids hexadecimal, other bytes base64. CSV has fixed columns, of which two are
/// JSON: attributes and the whole body. A text that a spreadsheet would run as a formula gets an apostrophe in front. Nothing
/// that is meant makes an empty export, and exit code 0; standard error says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream export --thread run-17 -o run-17.json --pretty
  dashstream export --since 1d --format jsonl | jq .event.node_id
  dashstream export --tenant acme --format csv -o acme.csv --force")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    types: Types,
    /// Where to: the file is there complete, or not at all. Otherwise, and with -, standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A JSON array, one JSON object per line, or a table
    #[arg(short = 'f', long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// JSON for people: several lines for each message
    #[arg(long)]
    pretty: bool,
    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

/// The forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Jsonl,
    Csv,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    if args.pretty && args.format != Format::Json {
        let why = "--pretty is for --format json: lines and tables have one line for each message";
        return Err(super::UsageError(why.to_owned()).into());
    }
    let config = args.place.load(environment)?;
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let mut target = Target::open(args.output.as_deref(), args.force)?;
    let mut form = Form { format: args.format, pretty: args.pretty, count: 0 };
    let mut heard = true;
    let range = (Start::Earliest, End::Now);
    read(&config, "dashstream-export", &args.which, range, &stop, &mut |item| {
        if args.types.admits(&item) {
            heard = target.write(&form.message(&item)?)?;
        }
        Ok(heard)
    })?;
    anyhow::ensure!(!stop.is_cancelled(), "interrupted: this is not everything, and no file was written");
    if !(heard && target.write(&form.end())? && target.finish()?) {
        return Ok(Exit::Success);
    }
    let topic = show::plain(&config.kafka.topic, 249);
    note(&match (form.count, &args.output) {
        (0, _) => format!("no message of topic {topic} is meant: the export is empty"),
        (count, Some(path)) => format!("{count} messages of topic {topic} to {}", path.display()),
        (count, None) => format!("{count} messages of topic {topic}"),
    });
    Ok(Exit::Success)
}

/// The text of an export, piece by piece.
struct Form {
    format: Format,
    pretty: bool,
    count: u64,
}

impl Form {
    fn begin(&self) -> String {
        match self.format {
            Format::Json => "[".to_owned(),
            Format::Jsonl => String::new(),
            Format::Csv => csv::head(),
        }
    }

    fn message(&mut self, item: &Item) -> anyhow::Result<String> {
        // Only now: where nothing can be read, nothing is written.
        let begin = if self.count == 0 { self.begin() } else { String::new() };
        let comma = if self.count == 0 { "" } else { "," };
        self.count += 1;
        Ok(match self.format {
            Format::Csv => begin + &csv::message(item, thread_of(item)),
            Format::Jsonl => format!("{}\n", json::message(item)),
            Format::Json => {
                let message = json::message(item);
                let text = if self.pretty { serde_json::to_string_pretty(&message)? } else { message.to_string() };
                format!("{begin}{comma}\n{text}")
            }
        })
    }

    fn end(&self) -> String {
        match (self.format, self.count) {
            (Format::Json, 0) => self.begin() + "]\n",
            (Format::Json, _) => "\n]\n".to_owned(),
            (Format::Jsonl | Format::Csv, 0) => self.begin(),
            (Format::Jsonl | Format::Csv, _) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::item::{Body, Place};
    use crate::wire::telemetry::{Event, Header};

    fn export(format: Format, pretty: bool, messages: i64) -> String {
        let mut form = Form { format, pretty, count: 0 };
        let mut text = String::new();
        for offset in 0..messages {
            let item = Item {
                place: Place { partition: 0, offset, index: 0 },
                record_time_ms: None,
                header: Header { thread_id: "a\nb".into(), ..Header::default() },
                body: Body::Event(Event::default()),
            };
            text.push_str(&form.message(&item).unwrap());
        }
        text + &form.end()
    }

    #[test]
    fn each_form_holds_as_many_messages_as_were_written() {
        for messages in [0, 1, 3] {
            let count = usize::try_from(messages).unwrap();
            for pretty in [false, true] {
                let read: serde_json::Value = serde_json::from_str(&export(Format::Json, pretty, messages)).unwrap();
                assert_eq!(read.as_array().unwrap().len(), count);
            }
            let lines = export(Format::Jsonl, false, messages);
            let read = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            assert_eq!(read.count(), count);
            assert_eq!(export(Format::Csv, false, messages).matches("\r\n").count(), 1 + count);
        }
    }
}
