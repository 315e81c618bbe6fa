//! The letters of a topic, with what was done about them, in the order of the topic.
//!
//! It must not know what is done with them.

use std::collections::HashSet;

use crate::cli::seam;
use crate::config::Config;
use crate::kafka::connection::KafkaConnection;
use crate::kafka::letters::{Entry, LetterReader, LetterWriter};
use crate::kafka::watermarks::Watermarks;
use crate::pipeline::dead_letter::rfc3339;
use crate::pipeline::letters::{
    ACTION_HEADER, AT_HEADER, BY_HEADER, Filter, Letter, LetterCursor, NOTE_HEADER, Settled,
};

/// A letter as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it lies.
    pub(super) partition: i32,
    /// Where it lies.
    pub(super) offset: i64,
    /// Its key.
    pub(super) key: String,
    /// What was done about it; `None` while it is open.
    pub(super) done: Option<String>,
    /// Its text.
    pub(super) json: Vec<u8>,
    /// What it says; an error when it is no letter.
    pub(super) letter: Result<Letter, String>,
    /// Where the next one is to be looked for.
    pub(super) next: LetterCursor,
}

/// What is written when something was done about a letter.
#[derive(Debug)]
pub(super) struct Done<'a> {
    pub(super) action: &'a str,
    pub(super) by: &'a str,
    pub(super) note: &'a str,
}

/// Letters that are read once, up to the end that the topic has now.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) topic: String,
    pub(super) reader: LetterReader,
    connection: KafkaConnection,
    bounds: Vec<Watermarks>,
    settled: Settled,
}

impl Desk {
    /// Looks through the topic for what is settled.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let connection = seam::connection(config, "dashstream-dlq");
        let reader = LetterReader::new(&connection)?;
        let topic = config.dlq_topic();
        let bounds = reader.bounds(&topic)?;
        let mut settled = Settled::default();
        for mark in &bounds {
            reader.read(&topic, mark.partition, (mark.low, mark.high), |entry| {
                if entry.json.is_none() {
                    let action = entry.headers.iter().find(|(name, _)| name == ACTION_HEADER);
                    let action = action.and_then(|(_, value)| value.as_deref()).unwrap_or(b"removed");
                    settled.add(&entry.key, entry.partition, entry.offset, &String::from_utf8_lossy(action));
                }
                anyhow::Ok(true)
            })?;
        }
        Ok(Self { topic, reader, connection, bounds, settled })
    }

    /// Hands over the letters that a filter admits, from a place on, as long as `each` says so. Of several letters under
    /// one key the first is handed over.
    pub(super) fn letters(
        &self,
        from: &LetterCursor,
        filter: &Filter,
        mut each: impl FnMut(Found) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        let mut next = LetterCursor::default();
        let mut go_on = true;
        for mark in &self.bounds {
            let begin =
                from.0.get(&mark.partition).copied().unwrap_or(mark.low).clamp(mark.low, mark.high.max(mark.low));
            next.0.insert(mark.partition, begin);
            self.reader.read(&self.topic, mark.partition, (begin, mark.high), |entry| {
                next.0.insert(entry.partition, entry.offset + 1);
                if let Some(found) = self.found(entry, &next)
                    && admits(filter, &found)
                    && seen.insert((found.key.clone(), found.done.is_some()))
                {
                    go_on = each(found)?;
                }
                anyhow::Ok(go_on)
            })?;
            if !go_on {
                break;
            }
            next.0.insert(mark.partition, mark.high);
        }
        Ok(())
    }

    fn found(&self, entry: Entry, next: &LetterCursor) -> Option<Found> {
        let Entry { partition, offset, key, json, .. } = entry;
        let json = json?;
        let done = self.settled.action(&key, partition, offset).map(str::to_owned);
        let letter = serde_json::from_slice(&json).map_err(|error| format!("this is no dead letter: {error}"));
        Some(Found { partition, offset, key, done, json, letter, next: next.clone() })
    }

    /// A second reader: this one has a place in the letters, and keeps it.
    pub(super) fn reader_beside(&self) -> anyhow::Result<LetterReader> {
        Ok(LetterReader::new(&self.connection)?)
    }

    /// Writers are made when something is to be written: who only looks needs no right to write.
    pub(super) fn writer(&self) -> anyhow::Result<LetterWriter> {
        Ok(LetterWriter::new(&self.connection)?)
    }

    /// Writes into the topic what was done about a letter; from then on it is settled.
    pub(super) fn settle(&self, writer: &LetterWriter, found: &Found, done: &Done<'_>) -> anyhow::Result<()> {
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let headers = [
            header(ACTION_HEADER, done.action),
            header(AT_HEADER, &rfc3339(seam::now_ms())),
            header(BY_HEADER, done.by),
            header(NOTE_HEADER, done.note),
        ];
        writer.write(&self.topic, found.partition, Some(found.key.as_bytes()), None, &headers)?;
        Ok(())
    }
}

/// What is no letter can only be meant by its key, or by no filter at all.
fn admits(filter: &Filter, found: &Found) -> bool {
    match &found.letter {
        Ok(letter) => filter.admits(&found.key, letter),
        Err(_) => {
            let by_key = filter.keys.is_empty() || filter.keys.contains(&found.key);
            by_key && Filter { keys: Vec::new(), ..filter.clone() } == Filter::default()
        }
    }
}
