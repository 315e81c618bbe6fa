//! What a client is given that asks for threads: per thread, the records after the last sequence that it has.
//!
//! The first record of a thread that is found also tells what is missing before it. It must not know sessions or frames.

use std::collections::BTreeMap;

use super::tags::Reading;
use crate::wire::framing::{Mode, Unframer};
use crate::wire::schema::{self, EVENT_BATCH_TYPE, Events, Header, Unread};

/// Where a client stands in the threads that it names.
#[derive(Debug)]
pub struct ThreadCursor {
    threads: BTreeMap<Box<[u8]>, Place>,
    unframer: Unframer,
    /// Bytes that were looked through, packed and unpacked, since this was last asked.
    looked_through: usize,
}

#[derive(Debug)]
struct Place {
    /// The last sequence that the client has.
    last: u64,
    /// A later one was found.
    found: bool,
}

/// A record for the client: the threads for which it is, each with its sequence there. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found(Vec<(Box<[u8]>, u64)>);

/// Sequences that a client does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The thread.
    pub thread: String,
    /// How many.
    pub count: u64,
}

impl ThreadCursor {
    /// Threads and the last sequence of each, 0 for none. Records are read as they were accepted.
    pub fn new(threads: impl IntoIterator<Item = (String, u64)>, reading: Reading) -> Self {
        let place = |(thread, last): (String, u64)| (thread.into_bytes().into(), Place { last, found: false });
        let mode = if reading.legacy_framing { Mode::Legacy } else { Mode::Strict };
        Self {
            threads: threads.into_iter().map(place).collect(),
            unframer: Unframer::new(mode, reading.max_decompressed_bytes),
            looked_through: 0,
        }
    }

    /// Bytes that were looked through since this was last asked: what that cost, about.
    pub fn take_looked_through(&mut self) -> usize {
        std::mem::take(&mut self.looked_through)
    }

    /// Whether a record is for the client. A batch is when one of its events is; events without a thread of their own have
    /// that of the batch.
    pub fn find(&mut self, value: &[u8]) -> Option<Found> {
        let Self { threads, unframer, looked_through } = self;
        // Also a record of no bytes is one.
        *looked_through += value.len().max(1);
        let content = unframer.content(value).ok()?;
        *looked_through += content.len();
        let envelope = schema::read(content, &mut Unread).ok()?;
        let mut found = Search { threads, of_batch: envelope.header.thread_id, found: Vec::new() };
        if envelope.message_type == EVENT_BATCH_TYPE {
            // The header may come after the events, so they are read when it is known.
            schema::read(content, &mut found).ok()?;
        }
        found.look(envelope.header.thread_id, envelope.header.sequence);
        let found = found.found;
        unframer.trim();
        (!found.is_empty()).then_some(Found(found))
    }

    /// The client is given a record: what is missing before it.
    pub fn give(&mut self, found: &Found) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (thread, sequence) in &found.0 {
            let Some(place) = self.threads.get_mut(thread) else { continue };
            let count = sequence.saturating_sub(place.last).saturating_sub(1);
            if !std::mem::replace(&mut place.found, true) && count > 0 {
                missing.push(Missing { thread: String::from_utf8_lossy(thread).into_owned(), count });
            }
        }
        missing
    }
}

struct Search<'a> {
    threads: &'a BTreeMap<Box<[u8]>, Place>,
    of_batch: &'a [u8],
    found: Vec<(Box<[u8]>, u64)>,
}

impl Search<'_> {
    /// Only sequences from 1 on are real. Of several events of a thread the first one counts.
    fn look(&mut self, thread: &[u8], sequence: u64) {
        let Some((thread, place)) = self.threads.get_key_value(thread) else { return };
        if sequence > place.last && self.found.iter().all(|(known, _)| known != thread) {
            self.found.push((thread.clone(), sequence));
        }
    }
}

impl Events for Search<'_> {
    fn clear(&mut self) {
        self.found.clear();
    }

    fn event(&mut self, header: &Header<'_>) {
        let thread = if header.thread_id.is_empty() { self.of_batch } else { header.thread_id };
        self.look(thread, header.sequence);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire::telemetry::dash_stream_message::Message;
    use crate::wire::telemetry::{self, DashStreamMessage, Event, EventBatch};

    const READING: Reading = Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 };

    fn header(thread: &str, sequence: u64) -> Option<telemetry::Header> {
        Some(telemetry::Header { thread_id: thread.to_owned(), sequence, ..Default::default() })
    }

    fn event(thread: &str, sequence: u64) -> Event {
        Event { header: header(thread, sequence), ..Event::default() }
    }

    fn framed(message: Message) -> Vec<u8> {
        let mut value = vec![0];
        value.extend(DashStreamMessage { message: Some(message) }.encode_to_vec());
        value
    }

    fn record(thread: &str, sequence: u64) -> Vec<u8> {
        framed(Message::Event(event(thread, sequence)))
    }

    fn batch(of: &str, events: &[(&str, u64)]) -> Vec<u8> {
        let events = events.iter().map(|(thread, sequence)| event(thread, *sequence)).collect();
        framed(Message::EventBatch(EventBatch { header: header(of, 0), events }))
    }

    fn cursor(threads: &[(&str, u64)]) -> ThreadCursor {
        ThreadCursor::new(threads.iter().map(|(thread, last)| ((*thread).to_owned(), *last)), READING)
    }

    #[test]
    fn records_after_the_last_sequence_of_a_named_thread_are_found() {
        let mut cursor = cursor(&[("a", 5), ("b", 0), ("c", u64::MAX), ("d", u64::MAX - 1)]);
        for (value, wanted) in [
            (record("a", 4), false),
            (record("a", 5), false),
            (record("a", 6), true),
            (record("a", (1 << 53) + 1), true),
            (record("b", 0), false),
            (record("b", 1), true),
            (record("c", u64::MAX), false),
            (record("d", u64::MAX), true),
            (record("x", 9), false),
            (record("", 9), false),
            (batch("", &[("x", 1), ("b", 7)]), true),
            (batch("b", &[("", 7)]), true),
            (batch("x", &[("", 7), ("a", 5)]), false),
            (batch("b", &[]), false),
            (b"\0garbage".to_vec(), false),
            (Vec::new(), false),
        ] {
            assert_eq!(cursor.find(&value).is_some(), wanted, "{value:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_once_before_the_first_record_of_a_thread() {
        let mut cursor = cursor(&[("a", 5), ("b", 0)]);
        let mut given = |value: &[u8]| {
            let found = cursor.find(value).unwrap();
            let missing = cursor.give(&found).into_iter();
            missing.map(|missing| (missing.thread, missing.count)).collect::<Vec<_>>()
        };
        assert_eq!(given(&record("a", 6)), []);
        assert_eq!(given(&batch("", &[("a", 9), ("b", 4), ("b", 5)])), [("b".to_owned(), 3)]);
        assert_eq!(given(&record("b", 90)), [], "what producers leave out later is their finding");
    }
}
