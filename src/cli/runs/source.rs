//! Reads the messages of a topic that are meant, and keeps account of what could not be shown.
//!
//! Records are judged as the service judges them, with its settings, so nobody sees here what was blacked out there.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::place::Which;
use super::{note, seam};
use crate::config::Config;
use crate::kafka::records::{End, Gap, Next, RecordReader, Start};
use crate::pipeline::flood::Flood;
use crate::runs::item::{Item, Opener};

/// Producers' clocks differ, and a record may wait before it is sent: in a partition one of an earlier time may lie behind
/// one of a later time. So far behind the time that ends reading, records of an earlier one are still looked for.
const OUT_OF_ORDER_MS: i64 = 60 * 60 * 1_000;
/// How long a signal may wait for the reader.
const TURN: Duration = Duration::from_millis(100);
/// Lines about records that cannot be read, per second; the others are counted.
const LINES_PER_SECOND: u32 = 10;
/// Gaps that are kept; of more only the number is.
const MAX_GAPS: usize = 1_000;

/// What was read, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Told {
    /// Records that were looked at.
    pub(in crate::cli) records: u64,
    /// Messages that were meant and handed over.
    pub(in crate::cli) items: u64,
    /// Records that cannot be shown, by why. Whose they are nobody knows.
    pub(in crate::cli) unreadable: BTreeMap<&'static str, u64>,
    /// What retention removed before it was read. The first thousand.
    pub(in crate::cli) gaps: Vec<Gap>,
    /// How many offsets that was in total.
    pub(in crate::cli) lost: u64,
}

impl Told {
    fn lose(&mut self, gap: Gap) {
        self.lost = self.lost.saturating_add(gap.to.abs_diff(gap.from));
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
        }
    }

    /// What is missing, in a sentence; `None`: nothing.
    pub(in crate::cli) fn missing(&self) -> Option<String> {
        let mut parts = Vec::new();
        let kinds: Vec<String> = self.unreadable.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if !kinds.is_empty() {
            parts.push(format!("records that cannot be read: {}", kinds.join(", ")));
        }
        if self.lost > 0 {
            parts.push(format!("offsets that retention removed before they were read: {}", self.lost));
        }
        (!parts.is_empty()).then(|| format!("not shown: {}", parts.join("; ")))
    }
}

/// What a source answers.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is handed over once per message, and taken apart at once")]
pub(in crate::cli) enum Step {
    /// A message that is meant.
    Item(Item),
    /// Nothing came in time.
    Idle,
    /// Everything that was asked for was read.
    End,
}

/// Messages of a topic, one after the other. Those of one thread come in the order of their partition; across partitions
/// they come as they arrive.
pub(in crate::cli) struct Source {
    reader: RecordReader,
    opener: Opener,
    which: Which,
    items: VecDeque<Item>,
    opened: Vec<Item>,
    flood: Flood,
    told: Told,
    notes: Box<dyn FnMut(&str) + Send>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("reader", &self.reader).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Source {
    /// Finds the records. `client` names the command to the brokers. A given `--since` and `--until` go before `start` and
    /// `end`, except that what is followed has no end.
    pub(in crate::cli) fn open(
        config: &Config,
        client: &str,
        which: &Which,
        start: Start,
        end: End,
    ) -> anyhow::Result<Self> {
        let start = match (start, which.since) {
            (Start::Earliest | Start::Latest, Some(since)) => Start::Time(since),
            (start, _) => start,
        };
        let end = match (end, which.until) {
            (End::Now, Some(until)) => End::Time(until.saturating_add(OUT_OF_ORDER_MS)),
            (end, _) => end,
        };
        let opener = Opener::new(seam::judge_settings(config)?);
        let reader = RecordReader::open(&seam::connection(config, client), &config.kafka.topic, start, end)?;
        Ok(Self {
            reader,
            opener,
            which: which.clone(),
            items: VecDeque::new(),
            opened: Vec::new(),
            flood: Flood::new(LINES_PER_SECOND, Duration::from_secs(1)),
            told: Told::default(),
            notes: Box::new(note),
        })
    }

    /// What is to be told meanwhile goes there, instead of to standard error: for whoever owns the whole screen.
    #[must_use]
    pub(in crate::cli) fn with_notes(self, notes: impl FnMut(&str) + Send + 'static) -> Self {
        Self { notes: Box::new(notes), ..self }
    }

    /// The next message that is meant. Waits at most so long, and looks at no more records than fit in that time.
    pub(in crate::cli) fn next(&mut self, wait: Duration) -> anyhow::Result<Step> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(item) = self.items.pop_front() {
                self.told.items += 1;
                return Ok(Step::Item(item));
            }
            let now = Instant::now();
            if let Some(more) = self.flood.unlogged(now) {
                (self.notes)(&format!("… and {more} more records that cannot be read"));
            }
            match self.reader.next(deadline.saturating_duration_since(now))? {
                Next::Record(record) => {
                    self.told.records += 1;
                    let (place, time) = ((record.partition(), record.offset()), record.timestamp_ms());
                    let meant = self.which.admits_time(time);
                    let opened =
                        if meant { self.opener.open(place, time, record.value(), &mut self.opened) } else { Ok(()) };
                    match opened {
                        // The key is no help: the events of a batch may be of other threads than its key, and whether a
                        // compressed record is a batch shows only when it is unpacked.
                        Ok(()) => self.items.extend(self.opened.drain(..).filter(|item| self.which.admits(item))),
                        Err(unreadable) => {
                            let kind = unreadable.0.as_str();
                            *self.told.unreadable.entry(kind).or_default() += 1;
                            if let Some(more) = self.flood.admit(now) {
                                if more > 0 {
                                    (self.notes)(&format!("… and {more} more records that cannot be read"));
                                }
                                (self.notes)(&format!(
                                    "partition {}, offset {}: cannot be read: {kind}",
                                    place.0, place.1
                                ));
                            }
                        }
                    }
                }
                Next::Gap(gap) => {
                    let Gap { partition, from, to } = gap;
                    (self.notes)(&format!(
                        "partition {partition}, offsets {from} to {}: lost, retention removed them before they were read",
                        to - 1
                    ));
                    self.told.lose(gap);
                }
                Next::Notice(notice) => (self.notes)(&notice),
                Next::Idle => return Ok(Step::Idle),
                Next::End => return Ok(Step::End),
            }
            if Instant::now() >= deadline && self.items.is_empty() {
                return Ok(Step::Idle);
            }
        }
    }

    /// Hands messages over until there are no more, `each` says no (false), or a signal comes. Then it is told on standard
    /// error what could not be shown.
    pub(in crate::cli) fn run(
        mut self,
        stop: &CancellationToken,
        each: &mut dyn FnMut(Item) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Told> {
        while !stop.is_cancelled() {
            match self.next(TURN)? {
                Step::Item(item) => {
                    if !each(item)? {
                        break;
                    }
                }
                Step::Idle => {}
                Step::End => break,
            }
        }
        Ok(self.finish())
    }

    /// Tells what could not be shown, and answers it.
    pub(in crate::cli) fn finish(mut self) -> Told {
        if let Some(missing) = self.told.missing() {
            (self.notes)(&missing);
        }
        self.told
    }

    /// What was read so far.
    pub(in crate::cli) fn told(&self) -> &Told {
        &self.told
    }

    /// Whether nothing lay behind what was read, when that was last heard.
    pub(in crate::cli) fn is_caught_up(&self) -> bool {
        self.items.is_empty() && self.reader.is_caught_up()
    }

    /// How many partitions are read.
    pub(in crate::cli) fn partitions(&self) -> usize {
        self.reader.partitions()
    }
}

/// Reads what the topic has, or follows it, and hands the messages that are meant over: as long as `each` says so (true),
/// and until a signal comes.
pub(in crate::cli) fn read(
    config: &Config,
    client: &str,
    which: &Which,
    (start, end): (Start, End),
    stop: &CancellationToken,
    each: &mut dyn FnMut(Item) -> anyhow::Result<bool>,
) -> anyhow::Result<Told> {
    Source::open(config, client, which, start, end)?.run(stop, each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_named_and_counted() {
        let mut told = Told::default();
        assert_eq!(told.missing(), None);
        told.unreadable.insert("invalid_protobuf", 2);
        told.lose(Gap { partition: 3, from: 5, to: 9 });
        (0..2_000).for_each(|at| told.lose(Gap { partition: 0, from: at, to: at + 1 }));
        assert_eq!((told.lost, told.gaps.len()), (2_004, MAX_GAPS));
        let missing = told.missing().unwrap();
        assert!(missing.contains("2 invalid_protobuf") && missing.contains("2004"), "{missing}");
    }
}
