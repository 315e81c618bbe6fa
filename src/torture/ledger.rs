//! The judge: what docs/PROTOCOL.md promises a v2 client, checked on every frame. No IO.
//!
//! A [`Ledger`] lives as long as its client, over all its connections: it holds the cursor, every record received, and
//! refuses the first frame that leaves a hole, repeats an offset or comes out of order. Of the service's code it uses the
//! generated types only, so that it cannot share its mistakes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::fields::{offset, offsets, partition, partition_of};
use crate::wire::stream::item::Kind;
use crate::wire::stream::{Finding, Frame, GapReason, Item, SkipReason};

/// Stands for a record value: its length and 128 bits of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub length: usize,
    /// Of the bytes.
    pub hash: u128,
}

impl Fingerprint {
    /// Of a value.
    pub fn of(value: &[u8]) -> Self {
        Self { length: value.len(), hash: xxhash_rust::xxh3::xxh3_128(value) }
    }
}

/// Offsets `[first, next)` without a record, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<R> {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// Why.
    pub reason: R,
}

impl<R> Range<R> {
    /// Whether an offset lies in it.
    pub fn contains(&self, partition: i32, offset: i64) -> bool {
        self.partition == partition && (self.first..self.next).contains(&offset)
    }
}

/// Offsets that started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The partition.
    pub partition: i32,
    /// As the service says it.
    pub reason: String,
    /// Where the stream goes on.
    pub next_offset: i64,
    /// The epoch that is over for the partition, when another one begins.
    pub ended: Option<String>,
}

/// What one client knows of one topic.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Epoch of the last welcome or reset.
    pub epoch: Option<String>,
    /// Per partition where the stream began for this client (its first welcome, or its last reset).
    pub began: BTreeMap<i32, i64>,
    /// Those of which nothing had come when a later welcome began them elsewhere: what lies before has to be gone.
    pub begun_anew: BTreeSet<i32>,
    /// Records since then.
    pub records: BTreeMap<(i32, i64), Fingerprint>,
    /// Ranges without a record for the client.
    pub skips: Vec<Range<SkipReason>>,
    /// Ranges that are lost to it.
    pub gaps: Vec<Range<GapReason>>,
    /// Offsets that started again.
    pub resets: Vec<Reset>,
    /// Records of before a reset, with the epoch in which they came.
    pub ended: Vec<(String, (i32, i64), Fingerprint)>,
    /// What was found about the producer's numbering.
    pub findings: Vec<((i32, i64), Finding)>,
    /// Frames and records over all connections, resets included.
    pub frames: u64,
    /// Records over all connections.
    pub received: u64,
    /// Per partition the next offset that has to come.
    pub cursor: BTreeMap<i32, i64>,
    /// Per partition the epoch that its cursor belongs to.
    epochs: BTreeMap<i32, String>,
    /// Whether this connection has been welcomed.
    welcomed: bool,
    /// Nothing is sent before the client asks on, and is welcomed again.
    parked: bool,
    /// That it was parked was not acted upon yet.
    news: bool,
    /// Partitions whose welcome did not go on at the cursor: only a reset may explain that.
    unexplained: BTreeMap<i32, i64>,
    /// Partitions that the client knows and the welcome did not name: another instance has heard of them first. Nothing of
    /// them may come before they are announced.
    left_out: BTreeSet<i32>,
}

/// A broken promise, in words.
pub type Violation = String;

impl Ledger {
    /// Per partition the next offset that has to come.
    pub fn cursor(&self) -> &BTreeMap<i32, i64> {
        &self.cursor
    }

    /// The cursor as clients send it: per partition the last applied offset. Partitions of which nothing was applied
    /// and whose log began with the client are left out; they begin at their start.
    pub fn last_offsets(&self) -> BTreeMap<String, String> {
        self.cursor
            .iter()
            .filter(|(_, next)| **next > 0)
            .map(|(partition, next)| (partition.to_string(), (next - 1).to_string()))
            .collect()
    }

    /// The epoch that the cursor of a partition belongs to.
    pub fn epoch_of(&self, partition: i32) -> Option<&str> {
        self.epochs.get(&partition).map(String::as_str)
    }

    /// The epoch that goes with [`Self::last_offsets`]. A connection may end when some partitions have been told of a new
    /// log and some have not: then it is the older one, so that all of them are told again.
    pub fn cursor_epoch(&self) -> Option<&str> {
        let is_older = |(partition, epoch): &(&i32, &String)| {
            self.epoch.as_ref() != Some(*epoch) && self.cursor.get(partition).is_some_and(|next| *next > 0)
        };
        self.epochs.iter().find(is_older).map(|(_, epoch)| epoch).or(self.epoch.as_ref()).map(String::as_str)
    }

    /// Forgets what lies behind, but not the positions: for clients that look at it as it comes.
    pub fn forget(&mut self) {
        self.records.clear();
        self.ended.clear();
        self.skips.clear();
        self.gaps.clear();
        self.findings.clear();
    }

    /// A new connection begins.
    pub fn connected(&mut self) {
        self.welcomed = false;
        self.parked = false;
        self.unexplained.clear();
        self.left_out.clear();
    }

    /// Whether the session has been parked since this was last asked.
    pub fn is_to_ask_on(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether this connection has been welcomed.
    pub fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Takes in a text frame. Types that have nothing to do with positions pass unchecked.
    ///
    /// # Errors
    /// When it breaks the promise.
    pub fn text(&mut self, message: &Value) -> Result<(), Violation> {
        match message.get("type").and_then(Value::as_str) {
            Some("welcome") => self.welcome(message),
            Some("cursor_reset") => self.reset(message),
            Some("partition_added") => self.partition_added(message),
            Some("heartbeat") => offsets(message, "nextOffsets").map(|_| ()),
            Some("replay_complete") => {
                self.parked |= message["capped"] == true;
                self.news = self.parked;
                offsets(message, "lastOffsetsByPartition").map(|_| ())
            }
            Some("error") if message["code"] == "replay_timeout" || message["code"] == "not_ready" => {
                (self.parked, self.news) = (true, true);
                Ok(())
            }
            Some(_) => Ok(()),
            None => Err(format!("a text frame without a type: {message}")),
        }
    }

    fn welcome(&mut self, message: &Value) -> Result<(), Violation> {
        if !std::mem::take(&mut self.parked) && self.welcomed {
            return Err(format!("a second welcome on one connection: {message}"));
        }
        let partitions = message.get("partitions").and_then(Value::as_object);
        let partitions = partitions.ok_or_else(|| format!("a welcome without partitions: {message}"))?;
        let epoch = message.get("epoch").and_then(Value::as_str);
        self.epoch = Some(epoch.ok_or_else(|| format!("a welcome without an epoch: {message}"))?.to_owned());
        self.left_out = self.cursor.keys().copied().collect();
        for (name, positions) in partitions {
            let partition = partition_of(name)?;
            let (from, low, next) = (offset(positions, "from")?, offset(positions, "low")?, offset(positions, "next")?);
            if low > next {
                return Err(format!("welcome: partition {partition} has low {low} above next {next}"));
            }
            self.left_out.remove(&partition);
            self.go_on(partition, from);
        }
        self.welcomed = true;
        Ok(())
    }

    fn partition_added(&mut self, message: &Value) -> Result<(), Violation> {
        let partition = partition(message)?;
        let from = offset(message, "from")?;
        let was_left_out = self.left_out.remove(&partition);
        match self.cursor.get(&partition) {
            Some(cursor) if *cursor != from && !was_left_out => {
                Err(format!("partition_added: partition {partition} from {from}, cursor {cursor}"))
            }
            _ => {
                self.go_on(partition, from);
                Ok(())
            }
        }
    }

    /// The stream of a partition begins or goes on, as it was announced.
    fn go_on(&mut self, partition: i32, from: i64) {
        match self.cursor.get(&partition) {
            None => self.begin(partition, from),
            Some(&cursor) if cursor == from => self.enter(partition),
            // A cursor cannot say that nothing was applied: the stream begins where the log does by now.
            Some(0) => {
                self.begin(partition, from);
                self.begun_anew.insert(partition);
            }
            Some(_) => drop(self.unexplained.insert(partition, from)),
        }
    }

    fn reset(&mut self, message: &Value) -> Result<(), Violation> {
        let partition = partition(message)?;
        let next_offset = offset(message, "nextOffset")?;
        let reason = message.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        // It names the epoch that holds from here on.
        let epoch = message.get("epoch").and_then(Value::as_str);
        self.epoch = Some(epoch.ok_or_else(|| format!("a reset without an epoch: {message}"))?.to_owned());
        let known = ["topic_recreated", "retention", "manual_reset", "beyond_end"];
        if !known.contains(&reason.as_str()) {
            return Err(format!("cursor_reset with an unknown reason: {message}"));
        }
        if reason == "retention" {
            // Only says once more what the gap before it said.
            return match self.cursor.get(&partition) {
                Some(&cursor) if cursor == next_offset => {
                    self.resets.push(Reset { partition, reason, next_offset, ended: None });
                    Ok(())
                }
                cursor => Err(format!("reset by retention to {next_offset}, cursor {cursor:?}")),
            };
        }
        if let Some(epoch) = self.epochs.get(&partition) {
            let records = self.records.range((partition, i64::MIN)..=(partition, i64::MAX));
            self.ended.extend(records.map(|(place, record)| (epoch.clone(), *place, *record)));
        }
        self.records.retain(|(of, _), _| *of != partition);
        self.skips.retain(|range| range.partition != partition);
        self.gaps.retain(|range| range.partition != partition);
        self.findings.retain(|((of, _), _)| *of != partition);
        self.unexplained.remove(&partition);
        self.left_out.remove(&partition);
        let ended = self.epochs.remove(&partition).filter(|ended| self.epoch.as_ref() != Some(ended));
        self.begin(partition, next_offset);
        self.resets.push(Reset { partition, reason, next_offset, ended });
        Ok(())
    }

    fn begin(&mut self, partition: i32, from: i64) {
        self.begun_anew.remove(&partition);
        self.began.insert(partition, from);
        self.cursor.insert(partition, from);
        self.enter(partition);
    }

    /// The cursor of the partition is one of the epoch that holds.
    fn enter(&mut self, partition: i32) {
        if let Some(epoch) = &self.epoch {
            self.epochs.insert(partition, epoch.clone());
        }
    }

    /// Takes in a binary frame as it came.
    ///
    /// # Errors
    /// When it breaks the promise.
    pub fn binary(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let frame = <Frame as prost::Message>::decode(bytes).map_err(|error| format!("a broken frame: {error}"))?;
        self.frame(frame)
    }

    /// As [`Self::binary`], decoded.
    ///
    /// # Errors
    /// When it breaks the promise.
    pub fn frame(&mut self, frame: Frame) -> Result<(), Violation> {
        let Frame { partition, first_offset, next_offset, items } = frame;
        let at = format!("frame of partition {partition}, [{first_offset}, {next_offset})");
        if !self.welcomed || self.parked {
            return Err(format!("{at}: before welcome, or parked"));
        }
        if let Some(from) = self.unexplained.get(&partition) {
            let cursor = self.cursor.get(&partition);
            return Err(format!("{at}: welcome began at {from} instead of the cursor {cursor:?}, without a reset"));
        }
        let announced = self.cursor.get(&partition).filter(|_| !self.left_out.contains(&partition));
        let Some(&cursor) = announced else {
            return Err(format!("{at}: nobody announced this partition"));
        };
        if first_offset != cursor {
            let kind = if first_offset > cursor { "a hole" } else { "a repetition" };
            return Err(format!("{at}: {kind}, {cursor} had to come"));
        }
        let mut position = first_offset;
        for item in items {
            position = self.item(partition, position, item).map_err(|violation| format!("{at}: {violation}"))?;
        }
        if position != next_offset {
            return Err(format!("{at}: its items end at {position}"));
        }
        if first_offset == next_offset {
            return Err(format!("{at}: covers nothing"));
        }
        self.cursor.insert(partition, next_offset);
        self.frames += 1;
        Ok(())
    }

    /// Gives the position after the item.
    fn item(&mut self, partition: i32, position: i64, item: Item) -> Result<i64, Violation> {
        match item.kind {
            None => Err(format!("an item without a kind at {position}")),
            Some(Kind::Record(record)) => {
                touches("record", position, record.offset, record.offset.saturating_add(1))?;
                let place = (partition, record.offset);
                self.findings.extend(record.findings.into_iter().map(|finding| (place, finding)));
                self.records.insert(place, Fingerprint::of(&record.value));
                self.received += 1;
                Ok(record.offset.saturating_add(1))
            }
            Some(Kind::Skip(skip)) => {
                touches("skip", position, skip.first_offset, skip.next_offset)?;
                let reason = skip.reason();
                if reason == SkipReason::Unspecified {
                    return Err(format!("a skip without a known reason ({}) at {position}", skip.reason));
                }
                self.skips.push(Range { partition, first: skip.first_offset, next: skip.next_offset, reason });
                Ok(skip.next_offset)
            }
            Some(Kind::Gap(gap)) => {
                touches("gap", position, gap.first_offset, gap.next_offset)?;
                let reason = gap.reason();
                if reason == GapReason::Unspecified {
                    return Err(format!("a gap without a known reason ({}) at {position}", gap.reason));
                }
                self.gaps.push(Range { partition, first: gap.first_offset, next: gap.next_offset, reason });
                Ok(gap.next_offset)
            }
        }
    }
}

fn touches(what: &str, position: i64, first: i64, next: i64) -> Result<(), Violation> {
    match first == position && first < next {
        true => Ok(()),
        false => Err(format!("a {what} [{first}, {next}) where {position} had to come")),
    }
}
