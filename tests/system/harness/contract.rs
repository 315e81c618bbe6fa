//! The judge of the clients: the [`Ledger`] of the library, and what it has to hold of what was published.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

pub use dashstream::torture::ledger::{Fingerprint, Range, Violation, offset};

use serde_json::Value;

use super::producer::{Published, Sent};
use super::records::Expect;

/// What one client knows of one topic, held against the truth.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: dashstream::torture::ledger::Ledger,
    /// Records of logs that are over for the client, with the epoch in which it got them.
    ended: Vec<(String, (i32, i64), Fingerprint)>,
}

impl Deref for Ledger {
    type Target = dashstream::torture::ledger::Ledger;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Ledger {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl Ledger {
    /// Takes in a text frame, and keeps what a reset ends.
    pub fn text(&mut self, message: &Value) -> Result<(), Violation> {
        let partition = message["partition"].as_i64().and_then(|partition| i32::try_from(partition).ok());
        if let (Some("cursor_reset"), Some(partition)) = (message["type"].as_str(), partition)
            && message["reason"] != "retention"
            && let Some(epoch) = self.inner.epoch_of(partition).map(str::to_owned)
        {
            let records = self.inner.records.range((partition, i64::MIN)..=(partition, i64::MAX));
            self.ended.extend(records.map(|(place, record)| (epoch.clone(), *place, *record)));
        }
        self.inner.text(message)
    }

    /// Holds what came before the resets against the log that is over: all of it is from there, byte for byte.
    pub fn compare_ended(&self, published: &Published) -> Result<(), String> {
        let foreign = |(epoch, place, record): &&(String, (i32, i64), Fingerprint)| {
            let value = published.records.get(place).and_then(|sent| sent.value.as_ref());
            // What was sent twice of the log that holds is no matter of the old one.
            self.inner.epoch.as_ref() != Some(epoch) && value.map(|value| Fingerprint::of(value)) != Some(*record)
        };
        match self.ended.iter().find(foreign) {
            Some((epoch, place, _)) => Err(format!("{place:?} of epoch {epoch} is not what was published then")),
            None => Ok(()),
        }
    }

    /// Whether the cursor has reached the end of all that was published.
    pub fn has_reached_the_end_of(&self, published: &Published) -> Result<(), String> {
        let behind: BTreeMap<i32, (i64, i64)> = published
            .ends()
            .into_iter()
            .map(|(partition, end)| (partition, (self.cursor.get(&partition).copied().unwrap_or(-1), end)))
            .filter(|(_, (cursor, end))| cursor < end)
            .collect();
        match behind.is_empty() {
            true => Ok(()),
            false => Err(format!("partition: (cursor, end) {behind:?}, {} records received", self.received)),
        }
    }

    /// Holds the ledger against what was published, from where the client began: every good record is there byte for
    /// byte, every bad one is a skip with its reason, nothing else is there. A gap excuses only what `excused` allows.
    pub fn compare(&self, published: &Published, excused: impl Fn(i32, i64) -> bool) -> Result<(), String> {
        for sent in published.records.values() {
            let Some(&began) = self.began.get(&sent.partition) else {
                return Err(format!("partition {} was never announced", sent.partition));
            };
            if sent.offset >= began {
                self.compare_one(sent, &excused)?;
            }
        }
        match self.records.keys().find(|place| !published.records.contains_key(place)) {
            Some(place) => Err(format!("{place:?} was received but never published")),
            None => Ok(()),
        }
    }

    fn compare_one(&self, sent: &Sent, excused: &impl Fn(i32, i64) -> bool) -> Result<(), String> {
        let (partition, offset) = (sent.partition, sent.offset);
        let gap = self.gaps.iter().find(|gap| gap.contains(partition, offset));
        if let Some(gap) = gap {
            return match excused(partition, offset) {
                true => Ok(()),
                false => Err(format!("({partition}, {offset}) is in a gap: {gap:?}")),
            };
        }
        let got = self.records.get(&(partition, offset));
        match (sent.expect, &sent.value) {
            (Expect::Record, Some(value)) if got == Some(&Fingerprint::of(value)) => Ok(()),
            (Expect::Record, _) => Err(format!("({partition}, {offset}) should be a record, received: {got:?}")),
            (Expect::Skip(reason), _) => {
                let skip = self.skips.iter().find(|skip| skip.contains(partition, offset));
                match skip.is_some_and(|skip| skip.reason == reason) {
                    true => Ok(()),
                    false => Err(format!(
                        "({partition}, {offset}) should be a skip for {reason:?}, received: {skip:?}, {got:?}"
                    )),
                }
            }
        }
    }
}
