//! `dashstream dlq replay`.

use serde_json::{Value, json};

use super::desk::{Desk, Done, Found};
use super::{Chosen, Place};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;
use crate::kafka::letters::{LetterReader, LetterWriter};
use crate::pipeline::letters::{Letter, LetterCursor, REPLAYED_HEADER, Record};

/// Publish the records of dead letters again
///
/// Each record goes to the partition that it came from, with its key, its headers and a header dashstream-replayed-from;
/// Kafka gives it a new offset and time. The record is taken from its topic, or from the letter where the topic does not
/// have it any more, and only if its SHA-256 is that of the letter. Then the letter is settled. If the command is cut off
/// between the two, the next run publishes that record once more.
///
/// A record that was published again and failed again is refused, so that nothing goes round in circles; --again does it
/// once more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream dlq replay --kind schema_version             tells what would be done
  dashstream dlq replay --kind schema_version --yes       after an upgrade of the service
  dashstream dlq replay runs-3-42 --again --yes

Exit code: 1 when a letter was refused; the others are published all the same.")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chosen: Chosen,
    /// Also records that were published again before
    #[arg(long)]
    again: bool,
}

/// A record that may be published.
struct Ready {
    record: Record,
    topic: String,
    partition: i32,
    taken_from: &'static str,
}

#[derive(Default)]
struct Tally {
    published: u64,
    refused: u64,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let Args { place, chosen, again } = args;
    let config = place.load(environment)?;
    let desk = Desk::open(&config)?;
    let writer = if chosen.yes { Some(desk.writer()?) } else { None };
    // Reading letters and fetching records take turns, and a client has one position.
    let sources = desk.reader_beside()?;
    let by = chosen.by(environment);
    let mut tally = Tally::default();
    desk.letters(&LetterCursor::default(), &chosen.which.filter(&chosen.keys, place), |found| {
        if found.done.is_some() {
            return Ok(true);
        }
        let outcome = match prepare(&found, &sources, *again)? {
            Ok(ready) => {
                tally.published += 1;
                publish(&desk, writer.as_ref(), &found, ready, &by)?
            }
            Err(reason) => {
                tally.refused += 1;
                json!({"action": "refused", "reason": reason})
            }
        };
        print(line(&found, &outcome, chosen.json))?;
        Ok(true)
    })?;
    let Tally { published, refused } = tally;
    anyhow::ensure!(
        published + refused > 0,
        "no open letter of {} is meant; see `dashstream dlq list --all`",
        desk.topic
    );
    if !chosen.json {
        print(match chosen.yes {
            true => format!("{published} published, {refused} refused\n"),
            false => format!("{published} would be published, {refused} refused; nothing was written: --yes does it\n"),
        })?;
    }
    Ok(if refused == 0 { Exit::Success } else { Exit::Failed })
}

/// The record of a letter, or why it is refused.
fn prepare(found: &Found, sources: &LetterReader, again: bool) -> anyhow::Result<Result<Ready, String>> {
    let letter = match &found.letter {
        Ok(letter) => letter,
        Err(error) => return Ok(Err(error.clone())),
    };
    if let (Some(from), false) = (letter.replayed_from(), again) {
        let from = show::plain(&from, 200);
        return Ok(Err(format!(
            "it was published again before, for {from}, and failed again; --again does it once more"
        )));
    }
    if letter.payload_size == 0 {
        return Ok(Err("the record had no payload: there is nothing to publish; discard it".to_owned()));
    }
    let in_topic = sources.fetch(&letter.kafka_topic, letter.kafka_partition, letter.kafka_offset)?;
    Ok(choose(letter, in_topic))
}

/// The record as its topic has it, which is complete; otherwise as the letter has it.
fn choose(letter: &Letter, in_topic: Option<Record>) -> Result<Ready, String> {
    let Letter { kafka_topic, kafka_partition, kafka_offset, .. } = letter;
    let ready =
        |record, taken_from| Ready { record, topic: kafka_topic.clone(), partition: *kafka_partition, taken_from };
    let gone = match in_topic {
        Some(record) if letter.is_of(&record.value) => return Ok(ready(record, "topic")),
        Some(_) => "now holds another record there",
        None => "no longer has it",
    };
    match letter.record() {
        Ok(record) => Ok(ready(record, "letter")),
        Err(why) => {
            let topic = show::plain(kafka_topic, 200);
            Err(format!("{why}, and topic {topic} {gone} (partition {kafka_partition}, offset {kafka_offset})"))
        }
    }
}

/// Publishes, then settles the letter. Without a writer it only tells.
fn publish(desk: &Desk, writer: Option<&LetterWriter>, found: &Found, ready: Ready, by: &str) -> anyhow::Result<Value> {
    let Ready { record, topic, partition, taken_from } = ready;
    let Some(writer) = writer else {
        return Ok(
            json!({"action": "would_publish", "taken_from": taken_from, "topic": topic, "partition": partition}),
        );
    };
    let Record { key, value, mut headers } = record;
    headers.retain(|(name, _)| name != REPLAYED_HEADER);
    headers.push((REPLAYED_HEADER.to_owned(), Some(found.key.as_bytes().to_vec())));
    let offset = writer.write(&topic, partition, key.as_deref(), Some(&value), &headers)?;
    let note = format!("{topic}-{partition}-{offset}");
    desk.settle(writer, found, &Done { action: "replayed", by, note: &note }).map_err(|error| {
        error.context(format!(
            "{} was published as {note}, but could not be settled: discard it, or it is published once more",
            found.key
        ))
    })?;
    Ok(json!({
        "action": "published", "taken_from": taken_from,
        "topic": topic, "partition": partition, "offset": offset.to_string(),
    }))
}

fn line(found: &Found, outcome: &Value, as_json: bool) -> String {
    if as_json {
        let mut outcome = outcome.clone();
        if let Some(fields) = outcome.as_object_mut() {
            fields.insert("key".to_owned(), found.key.clone().into());
        }
        return format!("{outcome}\n");
    }
    let text = |field: &str| outcome.get(field).and_then(Value::as_str).unwrap_or_default();
    let partition = outcome.get("partition").and_then(Value::as_i64).unwrap_or_default();
    let told = match text("action") {
        "refused" => format!("refused: {}", text("reason")),
        "published" => format!(
            "published to {}, partition {partition}, offset {} (from the {})",
            show::plain(text("topic"), 200),
            text("offset"),
            text("taken_from")
        ),
        _ => format!(
            "would be published to {}, partition {partition} (from the {})",
            show::plain(text("topic"), 200),
            text("taken_from")
        ),
    };
    format!("{}: {told}\n", show::plain(&found.key, 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(truncated: bool) -> Letter {
        serde_json::from_value(json!({
            "kafka_topic": "runs", "kafka_partition": 0, "kafka_offset": 7, "record_key_base64": null,
            "record_headers": [], "error_type": "internal", "error": "x", "payload_size": 5,
            "payload_sha256": "cd42404d52ad55ccfa9aca4adc828aa5800ad9d385a0671fbcbf724118320619",
            "payload_truncated": truncated, "payload_base64": if truncated { "dmFs" } else { "dmFsdWU=" },
            "trace_id": null, "thread_id": null, "tenant_id": null, "timestamp": "2026-01-31T12:00:00Z",
        }))
        .unwrap()
    }

    fn record(value: &[u8]) -> Option<Record> {
        Some(Record { key: Some(b"long".to_vec()), value: value.to_vec(), headers: Vec::new() })
    }

    #[test]
    fn the_topic_is_asked_first_since_it_has_the_whole_record() {
        for truncated in [false, true] {
            let ready = choose(&letter(truncated), record(b"value")).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!((ready.taken_from, ready.record.key), ("topic", Some(b"long".to_vec())));
        }
    }

    #[test]
    fn the_letter_helps_where_the_topic_has_lost_the_record_or_holds_another_one() {
        for in_topic in [None, record(b"other")] {
            let ready = choose(&letter(false), in_topic).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!((ready.taken_from, &ready.record.value[..]), ("letter", &b"value"[..]));
        }
    }

    #[test]
    fn what_nobody_has_completely_is_refused_by_name() {
        let refused = |in_topic| choose(&letter(true), in_topic).err().unwrap_or_default();
        assert_eq!(
            refused(None),
            "the letter holds only the first 3 of 5 bytes, and topic runs no longer has it (partition 0, offset 7)"
        );
        assert!(refused(record(b"other")).contains("now holds another record there"));
    }
}
