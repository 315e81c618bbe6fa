//! What lies in the topic, and whether a client was given all of it and nothing else. No IO.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Fingerprint, Ledger};
use crate::wire::stream::SkipReason;

/// What a client has to be told of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The record itself, byte for byte.
    Record(Fingerprint),
    /// A skip with this reason.
    Skip(SkipReason),
}

/// One log: what was published, by partition and offset.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// What is to be told of each offset.
    pub expected: BTreeMap<(i32, i64), Expected>,
}

impl Truth {
    /// Per partition the offset after the last record.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        // The keys ascend, so the last one of a partition stays.
        self.expected.keys().map(|&(partition, offset)| (partition, offset + 1)).collect()
    }

    /// Holds a client against the log, from where it began: every good record is there byte for byte, every bad one is a
    /// skip with its reason, nothing else is there. A gap excuses only what `taken` says that retention has taken; where a
    /// client began at what was kept, and retention was faster than its first record, that is a skip.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn compare(&self, client: &Ledger, taken: impl Fn(i32, i64) -> bool) -> Result<(), String> {
        for (&(partition, offset), expected) in &self.expected {
            let Some(&began) = client.began.get(&partition) else {
                return Err(format!("partition {partition} was never announced"));
            };
            if offset < began && client.begun_anew.contains(&partition) && !taken(partition, offset) {
                return Err(format!("{:?} was left out: the stream began anew at {began}", (partition, offset)));
            }
            let passed_over = taken(partition, offset)
                && client.skips.iter().any(|skip| {
                    let is_first = skip.first == began && skip.reason == SkipReason::NoRecord;
                    is_first && skip.contains(partition, offset)
                });
            if offset >= began && !passed_over {
                compare_one(client, (partition, offset), *expected, &taken)?;
            }
        }
        match client.records.keys().find(|place| !self.expected.contains_key(place)) {
            Some(place) => Err(format!("{place:?} was received but never published")),
            None => Ok(()),
        }
    }

    /// Holds what a client got before its last reset against the log that is over: all of it is from there, byte for byte.
    /// librdkafka does not tell when it goes on in another topic of the same name: from an offset on it may be the `next` one.
    /// Each instance that the client was at goes on there by itself; `one_reader`: there is one, which never goes back.
    ///
    /// # Errors
    /// The first record that is not, in words.
    pub fn compare_ended(&self, next: &Self, one_reader: bool, client: &Ledger) -> Result<(), String> {
        // Ascends within a partition.
        let mut gone_on = BTreeSet::new();
        for (epoch, place, record) in &client.ended {
            // What was sent twice of the log that holds is no matter of the old one.
            if client.epoch.as_ref() == Some(epoch) {
                continue;
            }
            let is_of = |log: &Self| log.expected.get(place) == Some(&Expected::Record(*record));
            let fault = match (is_of(self), is_of(next)) {
                (true, _) if one_reader && gone_on.contains(&place.0) => "the one before it was of the next log",
                (true, _) => continue,
                (_, true) => {
                    gone_on.insert(place.0);
                    continue;
                }
                (false, false) => "it is not what lies there in the next log either",
            };
            return Err(format!("{place:?} of epoch {epoch} is not what was published then: {fault}"));
        }
        Ok(())
    }
}

fn compare_one(
    client: &Ledger,
    place: (i32, i64),
    expected: Expected,
    taken: &impl Fn(i32, i64) -> bool,
) -> Result<(), String> {
    let (partition, offset) = place;
    if let Some(gap) = client.gaps.iter().find(|gap| gap.contains(partition, offset)) {
        return match taken(partition, offset) {
            true => Ok(()),
            false => Err(format!("{place:?} is in a gap: {gap:?}")),
        };
    }
    let got = client.records.get(&place);
    match expected {
        Expected::Record(record) if got == Some(&record) => Ok(()),
        Expected::Record(_) => Err(format!("{place:?} should be a record, received: {got:?}")),
        Expected::Skip(reason) => {
            let skip = client.skips.iter().find(|skip| skip.contains(partition, offset));
            match skip.is_some_and(|skip| skip.reason == reason) {
                true => Ok(()),
                false => Err(format!("{place:?} should be a skip for {reason:?}, received: {skip:?}, {got:?}")),
            }
        }
    }
}

/// Whether a client has come to these ends of partitions.
///
/// # Errors
/// How far it has come, in words.
pub fn has_reached(ends: &BTreeMap<i32, i64>, client: &Ledger) -> Result<(), String> {
    let cursor = |partition| client.cursor().get(partition).copied().unwrap_or(-1);
    let behind: BTreeMap<i32, (i64, i64)> = ends
        .iter()
        .map(|(partition, end)| (*partition, (cursor(partition), *end)))
        .filter(|(_, (cursor, end))| cursor < end)
        .collect();
    match behind.is_empty() {
        true => Ok(()),
        false => Err(format!("partition: (cursor, end) {behind:?}, {} records received", client.received)),
    }
}
