//! Turns the events of a message into sequence items, while the message is read. A list of them weighs no more than about the
//! record in Kafka, however many events it unpacks to.
//!
//! It must not know framing, verdicts or what the sequence check does with the items.

use std::ops::RangeInclusive;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::sequence::{self, SequenceItem};
use crate::wire::schema::{Events, Header};

/// Bytes of scratch space that are kept after an unusually long thread id.
const KEPT_SCRATCH: usize = 4 * 1024;

/// The version as stated when it is not supported; none stated counts as 1.
pub(super) fn unsupported(versions: &RangeInclusive<u32>, stated: u32) -> Option<u32> {
    (!versions.contains(&stated.max(1))).then_some(stated)
}

/// Turns events into sequence items while the message is read.
pub(super) struct Collector<'a> {
    items: &'a mut Vec<SequenceItem>,
    items_start: usize,
    /// How many items the record may have.
    allowed: usize,
    threads: &'a mut ThreadHasher,
    versions: &'a RangeInclusive<u32>,
    /// Inner events so far.
    seen: u32,
    /// Where the threads lie of those events that found no room.
    overlooked: u128,
    refused: Option<u32>,
}

impl<'a> Collector<'a> {
    /// Appends at most `allowed` items to `items`, and one for the rest; looks at the schema version of inner events too.
    pub(super) fn new(
        items: &'a mut Vec<SequenceItem>,
        allowed: usize,
        threads: &'a mut ThreadHasher,
        versions: &'a RangeInclusive<u32>,
    ) -> Self {
        Self { items_start: items.len(), items, allowed, threads, versions, seen: 0, overlooked: 0, refused: None }
    }

    /// The first schema version of an inner event that is not supported.
    pub(super) fn refused(&self) -> Option<u32> {
        self.refused
    }

    /// Appends one event; one without a thread or a number is not part of any sequence.
    pub(super) fn push(&mut self, header: &Header<'_>, event_index: u32) {
        if header.sequence == 0 || header.thread_id.is_empty() {
            return;
        }
        let thread = self.threads.hash(header.tenant_id, header.thread_id);
        let mine = self.items.len() - self.items_start;
        match self.items.last_mut() {
            Some(last) if mine > 0 && last.continues_with(thread, header.sequence, event_index) => last.len += 1,
            _ if mine < self.allowed => self.items.push(SequenceItem::one(thread, header.sequence, event_index)),
            _ => self.overlooked |= 1 << sequence::place_of(thread),
        }
    }

    /// The record was read.
    pub(super) fn finish(&mut self) {
        if self.overlooked != 0 {
            self.items.push(SequenceItem::overlooked(self.overlooked));
        }
    }
}

impl Events for Collector<'_> {
    fn clear(&mut self) {
        self.items.truncate(self.items_start);
        self.seen = 0;
        self.overlooked = 0;
        self.refused = None;
    }

    fn event(&mut self, header: &Header<'_>) {
        if self.refused.is_none() {
            self.refused = unsupported(self.versions, header.schema_version);
        }
        self.push(header, self.seen);
        self.seen = self.seen.saturating_add(1);
    }
}

/// Hashes (tenant, thread) so that no two pairs are the same bytes.
#[derive(Debug)]
pub(super) struct ThreadHasher {
    seed: u64,
    scratch: Vec<u8>,
}

impl ThreadHasher {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, scratch: Vec::new() }
    }

    fn hash(&mut self, tenant: &[u8], thread: &[u8]) -> u128 {
        self.scratch.clear();
        self.scratch.extend_from_slice(&(tenant.len() as u64).to_le_bytes());
        self.scratch.extend_from_slice(tenant);
        self.scratch.extend_from_slice(thread);
        let hash = xxh3_128_with_seed(&self.scratch, self.seed);
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::sequence::{Finding, Tracker};

    /// Threads and numbers, cut into records: what comes of each is found as `(record, event, finding)`.
    fn found(records: &[Vec<(u8, u64)>], allowed: impl Fn(usize) -> usize) -> Vec<(usize, u32, Finding)> {
        let (mut hasher, mut tracker, mut found) = (ThreadHasher::new(1), Tracker::default(), Vec::new());
        for (record, events) in records.iter().enumerate() {
            let mut items = Vec::new();
            let allowed = allowed(events.len());
            let mut collector = Collector::new(&mut items, allowed, &mut hasher, &(1..=1));
            for (thread, sequence) in events {
                collector.event(&Header { thread_id: &[*thread], sequence: *sequence, ..Header::default() });
            }
            collector.finish();
            assert!(items.len() <= allowed + 1);
            for item in &items {
                tracker.check(item, |event, finding| found.push((record, event, finding)));
            }
        }
        found
    }

    /// Every event alone, as many as there may be.
    fn model(records: &[Vec<(u8, u64)>]) -> Vec<(usize, u32, Finding)> {
        let (mut hasher, mut tracker, mut found) = (ThreadHasher::new(1), Tracker::default(), Vec::new());
        for (record, events) in records.iter().enumerate() {
            for (event, (thread, sequence)) in (0..).zip(events) {
                let item = SequenceItem::one(hasher.hash(&[], &[*thread]), *sequence, event);
                tracker.check(&item, |event, finding| found.push((record, event, finding)));
            }
        }
        found
    }

    /// Records of one event or many, of threads that go on, lose, repeat or begin again.
    fn records() -> impl Strategy<Value = Vec<Vec<(u8, u64)>>> {
        let event = (0..4_u8, prop_oneof![9 => Just(1_i64), 1 => -80..80_i64], 1..9_usize);
        proptest::collection::vec(proptest::collection::vec(event, 1..30), 1..20).prop_map(|records| {
            let mut next = [100_u64; 4];
            let mut numbered = |(thread, by, times): (u8, i64, usize)| {
                let at = &mut next[usize::from(thread)];
                *at = at.saturating_add_signed(by - 1);
                (0..times)
                    .map(|_| {
                        (thread, {
                            *at += 1;
                            *at
                        })
                    })
                    .collect::<Vec<_>>()
            };
            records.into_iter().map(|events| events.into_iter().flat_map(&mut numbered).collect()).collect()
        })
    }

    proptest! {
        #[test]
        fn findings_are_those_of_every_event_alone_whatever_is_batched(records in records()) {
            // An event has more bytes than this even when it is compressed.
            prop_assert_eq!(found(&records, |events| sequence::allowance(events * 16)), model(&records));
        }

        #[test]
        fn what_is_not_looked_at_is_never_taken_for_a_loss(records in records(), allowed in 0..6_usize) {
            let mut next = [1_u64; 4];
            let complete: Vec<Vec<_>> = records.iter().map(|events| {
                events.iter().map(|(thread, _)| (*thread, { let at = &mut next[usize::from(*thread)]; *at += 1; *at })).collect()
            }).collect();
            prop_assert_eq!(found(&complete, |_| allowed), vec![]);
        }
    }
}
