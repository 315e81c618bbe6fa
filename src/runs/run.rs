//! One run: the messages of one tenant's thread, without repeated sends and in the order in which they were made.
//!
//! A thread that is used again holds several graphs, one after the other; here they stay together. It must not know what
//! the messages mean together: that is [`super::tree`] and [`super::state`].

use std::collections::{BTreeMap, HashMap, HashSet};

use super::fact::Fact;
use super::item::{Body, Item, Place};
use crate::wire::telemetry::EventType;

/// As many messages of a run are held.
pub const MAX_MESSAGES: usize = 500_000;
/// As many bytes of them.
pub const MAX_BYTES: usize = 512 << 20;

/// 9999-12-31: what lies beyond is no time that a producer's clock could show.
const LAST_US: i64 = 253_402_300_799_999_999;

/// A message of the run, reduced to what analysis needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Where it lies.
    pub place: Place,
    /// Its number in the thread, 0 when it has none.
    pub sequence: u64,
    /// When it was made, in Unix microseconds: by the producer's clock, otherwise by Kafka's.
    pub time_us: Option<i64>,
    /// As `time_us`; where there is none, that of the message before it.
    pub order_us: i64,
    /// Its id; may be empty.
    pub message_id: Vec<u8>,
    /// The id of the message that it belongs to; mostly empty.
    pub parent_id: Vec<u8>,
    /// What it says.
    pub fact: Fact,
    /// How often the producer had begun to count anew.
    numbering: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It belongs to the run.
    New,
    /// It was there already: a repeated send.
    Repeated,
}

/// The run is larger than what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the run has more than {} messages or {} MiB, which is as much as is held at a time; narrow the window with --since and \
     --until",
    MAX_MESSAGES,
    MAX_BYTES >> 20
)]
pub struct TooLarge;

/// Numbers of a thread that no message in the window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Missing {
    /// How many.
    pub const fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// What the numbers of a run say about messages that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Numbers between the first and the last that nobody has.
    pub missing: Vec<Missing>,
    /// Numbers below the first one: lost, or before the window.
    pub before: Option<Missing>,
    /// How often the producer began to count anew.
    pub restarts: u32,
    /// Messages with a number that another message has, too. Where there are any, several counters feed the thread: missing
    /// numbers cannot be told, and order is that of time.
    pub reused: u64,
}

/// The run so far.
#[derive(Clone, Debug, Default)]
pub struct Run {
    tenant: String,
    thread: String,
    keeps_states: bool,
    notes: Vec<Note>,
    ids: HashSet<Vec<u8>>,
    numbers: HashMap<(u32, u64), usize>,
    reused: BTreeMap<u32, u64>,
    numbering: u32,
    bytes: usize,
    repeated: u64,
    kinds: BTreeMap<&'static str, u64>,
    events: BTreeMap<i32, u64>,
}

impl Run {
    /// An empty run. States are large: they are kept for those who ask for them.
    pub fn new(tenant: &str, thread: &str, keeps_states: bool) -> Self {
        Self { tenant: tenant.to_owned(), thread: thread.to_owned(), keeps_states, ..Self::default() }
    }

    /// Takes in a message. Whose it is, the caller knows.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn add(&mut self, item: &Item) -> Result<Added, TooLarge> {
        if self.is_repeated(item) {
            self.repeated += 1;
            return Ok(Added::Repeated);
        }
        let header = &item.header;
        let fact = Fact::of(&item.body, self.keeps_states);
        self.bytes += fact.bytes() + header.message_id.len() * 2 + header.parent_id.len() + size_of::<Note>();
        if self.notes.len() >= MAX_MESSAGES || self.bytes > MAX_BYTES {
            return Err(TooLarge);
        }
        if !header.message_id.is_empty() {
            self.ids.insert(header.message_id.clone());
        }
        if header.sequence > 0 {
            if self.numbers.contains_key(&(self.numbering, header.sequence)) {
                if is_graph_start(&item.body) {
                    self.numbering += 1;
                } else {
                    *self.reused.entry(self.numbering).or_default() += 1;
                }
            }
            self.numbers.entry((self.numbering, header.sequence)).or_insert(self.notes.len());
        }
        *self.kinds.entry(item.body.kind()).or_default() += 1;
        if let Body::Event(event) = &item.body {
            *self.events.entry(event.event_type).or_default() += 1;
        }
        let time_us = time_us(item);
        self.notes.push(Note {
            place: item.place,
            sequence: header.sequence,
            time_us,
            order_us: time_us.unwrap_or_else(|| self.notes.last().map_or(0, |last| last.order_us)),
            message_id: header.message_id.clone(),
            parent_id: header.parent_id.clone(),
            fact,
            numbering: self.numbering,
        });
        Ok(Added::New)
    }

    /// An id tells; without one it is the same number at the same time that says the same.
    fn is_repeated(&self, item: &Item) -> bool {
        let header = &item.header;
        if !header.message_id.is_empty() {
            return self.ids.contains(&header.message_id);
        }
        let known = self.numbers.get(&(self.numbering, header.sequence)).and_then(|index| self.notes.get(*index));
        known.is_some_and(|known| {
            known.message_id.is_empty()
                && known.time_us == time_us(item)
                && known.fact == Fact::of(&item.body, self.keeps_states)
        })
    }

    /// Whose.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Its thread.
    pub fn thread(&self) -> &str {
        &self.thread
    }

    /// How many messages it has.
    pub const fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// How many sends were repeated.
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Messages by kind.
    pub const fn kinds(&self) -> &BTreeMap<&'static str, u64> {
        &self.kinds
    }

    /// Events by type.
    pub const fn events(&self) -> &BTreeMap<i32, u64> {
        &self.events
    }

    /// The earliest and the latest time.
    pub fn times(&self) -> Option<(i64, i64)> {
        let times = || self.notes.iter().filter_map(|note| note.time_us);
        Some((times().min()?, times().max()?))
    }

    /// The messages in order: by number, where a number is told once; otherwise by time, otherwise as they lie in Kafka. What
    /// has no number stands behind everything that is not later.
    pub fn ordered(&self) -> Vec<&Note> {
        let mut ordered = Vec::with_capacity(self.notes.len());
        for numbering in 0..=self.numbering {
            let own = self.notes.iter().filter(|note| note.numbering == numbering);
            let by_time = |note: &&Note| (note.order_us, note.place);
            if self.reused.contains_key(&numbering) {
                let mut own: Vec<_> = own.collect();
                own.sort_by_key(by_time);
                ordered.extend(own);
                continue;
            }
            let (mut numbered, mut others): (Vec<_>, Vec<_>) = own.partition(|note| note.sequence > 0);
            numbered.sort_by_key(|note| note.sequence);
            others.sort_by_key(by_time);
            let mut others = others.into_iter().peekable();
            let mut latest = i64::MIN;
            for note in numbered {
                latest = latest.max(note.order_us);
                while let Some(other) = others.next_if(|other| other.order_us < latest) {
                    ordered.push(other);
                }
                ordered.push(note);
            }
            ordered.extend(others);
        }
        ordered
    }

    /// What is not there.
    pub fn numbers(&self) -> Numbers {
        let mut told = Numbers { restarts: self.numbering, reused: self.reused.values().sum(), ..Numbers::default() };
        for numbering in (0..=self.numbering).filter(|numbering| !self.reused.contains_key(numbering)) {
            let own = self.numbers.keys().filter(|(of, _)| *of == numbering);
            let mut own: Vec<u64> = own.map(|(_, number)| *number).collect();
            own.sort_unstable();
            if let Some(first) = own.first().filter(|first| **first > 1 && numbering == 0) {
                told.before = Some(Missing { first: 1, last: first - 1 });
            }
            let holes = own.iter().zip(own.iter().skip(1)).filter(|(one, next)| one.saturating_add(1) < **next);
            told.missing.extend(holes.map(|(one, next)| Missing { first: one + 1, last: next - 1 }));
        }
        told
    }
}

fn is_graph_start(body: &Body) -> bool {
    matches!(body, Body::Event(event) if event.event_type == EventType::GraphStart as i32)
}

/// When a message was made, as far as anybody says so: 0 and what no clock shows is no time.
pub fn time_us(item: &Item) -> Option<i64> {
    let sane = |time: &i64| (1..=LAST_US).contains(time);
    let kafka = || item.record_time_ms.and_then(|time| time.checked_mul(1_000)).filter(sane);
    Some(item.header.timestamp_us).filter(sane).or_else(kafka)
}

#[cfg(test)]
mod tests {
    use super::super::make;
    use super::*;
    use proptest::prelude::*;

    fn run(items: &[Item]) -> Run {
        let mut run = Run::new("acme", "t", false);
        for item in items {
            run.add(item).unwrap();
        }
        run
    }

    fn sequences(run: &Run) -> Vec<u64> {
        run.ordered().iter().map(|note| note.sequence).collect()
    }

    #[test]
    fn a_repeated_send_is_counted_and_not_taken_twice() {
        let once = make::event(1, 10, EventType::NodeStart, "a");
        let again = make::event(2, 20, EventType::NodeEnd, "a");
        let run = run(&[once.clone(), again.clone(), once, again]);
        assert_eq!((run.len(), run.repeated()), (2, 2));
        assert_eq!(run.kinds().get("event"), Some(&2));
    }

    #[test]
    fn without_ids_only_the_same_number_time_and_content_is_a_repeated_send() {
        let bare = |sequence, time, node| make::without_id(make::event(sequence, time, EventType::NodeStart, node));
        let run = run(&[bare(1, 10, "a"), bare(1, 10, "a"), bare(1, 11, "a"), bare(1, 10, "b"), bare(0, 10, "a")]);
        assert_eq!((run.len(), run.repeated()), (4, 1));
        assert_eq!(run.numbers().reused, 2);
    }

    #[test]
    fn late_messages_stand_where_their_number_says() {
        let item = |sequence, time| make::event(sequence, time, EventType::NodeStart, "a");
        assert_eq!(sequences(&run(&[item(3, 30), item(1, 10), item(2, 99)])), [1, 2, 3]);
    }

    #[test]
    fn what_has_no_number_stands_behind_what_is_not_later() {
        let item = |sequence, time| make::event(sequence, time, EventType::NodeStart, "a");
        let run = run(&[item(0, 20), item(1, 10), item(2, 20), item(3, 30)]);
        assert_eq!(sequences(&run), [1, 2, 0, 3]);
    }

    #[test]
    fn several_counters_in_one_thread_are_told_and_ordered_by_time() {
        let item = |sequence, time| make::event(sequence, time, EventType::NodeStart, "a");
        let run = run(&[item(1, 10), item(2, 30), item(1, 20), item(9, 40)]);
        assert_eq!(run.ordered().iter().map(|note| note.time_us.unwrap()).collect::<Vec<_>>(), [10, 20, 30, 40]);
        assert_eq!(run.numbers(), Numbers { reused: 1, ..Numbers::default() });
    }

    #[test]
    fn a_producer_that_starts_again_begins_a_new_numbering() {
        let start = |time| make::event(1, time, EventType::GraphStart, "");
        let item = |sequence, time| make::event(sequence, time, EventType::NodeStart, "a");
        let run = run(&[start(10), item(2, 20), start(5), item(2, 6), item(4, 8)]);
        assert_eq!(sequences(&run), [1, 2, 1, 2, 4]);
        let missing = vec![Missing { first: 3, last: 3 }];
        assert_eq!(run.numbers(), Numbers { missing, restarts: 1, ..Numbers::default() });
    }

    #[test]
    fn missing_numbers_are_named() {
        let item = |sequence| make::event(sequence, 10, EventType::NodeStart, "a");
        let numbers = run(&[item(3), item(4), item(7), item(u64::MAX)]).numbers();
        assert_eq!(numbers.before, Some(Missing { first: 1, last: 2 }));
        assert_eq!(numbers.missing[0], Missing { first: 5, last: 6 });
        assert_eq!(numbers.missing[1].count(), u64::MAX - 8);
    }

    #[test]
    fn a_time_that_is_none_is_taken_from_kafka_and_else_told_as_missing() {
        let at = |timestamp_us, record_time_ms| {
            let mut item = make::event(1, timestamp_us, EventType::NodeStart, "a");
            item.record_time_ms = record_time_ms;
            time_us(&item)
        };
        assert_eq!(at(5, Some(7)), Some(5));
        for bad in [0, -1, i64::MAX, i64::MIN] {
            assert_eq!((at(bad, Some(7)), at(bad, None), at(bad, Some(-1))), (Some(7_000), None, None));
        }
    }

    proptest! {
        #[test]
        fn every_message_is_there_once_whatever_its_number_and_time(
            messages in prop::collection::vec((0_u64..6, 0_i64..50), 0..40),
        ) {
            let items: Vec<_> =
                messages.iter().map(|(sequence, time)| make::event(*sequence, *time, EventType::NodeStart, "a")).collect();
            let run = run(&items);
            let mut ids: Vec<_> = run.ordered().iter().map(|note| note.message_id.clone()).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), items.len());
        }
    }
}
