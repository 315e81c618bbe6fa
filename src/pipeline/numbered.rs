//! Turns the events of a message into sequence items, while the message is read.
//!
//! It must not know framing, verdicts or what the sequence check does with the items.

use std::ops::RangeInclusive;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::decode::SequenceItem;
use crate::wire::schema::{Events, Header};

/// Inner events of one batch that are handed to the sequence check. Producers put at most 1,000 into a batch; the bound keeps
/// a small compressed record from growing into a huge list. The record is delivered either way.
const MAX_CHECKED_EVENTS: u32 = 10_000;

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
    threads: &'a mut ThreadHasher,
    versions: &'a RangeInclusive<u32>,
    /// Inner events so far.
    seen: u32,
    refused: Option<u32>,
}

impl<'a> Collector<'a> {
    /// Appends to `items`; looks at the schema version of inner events too.
    pub(super) fn new(
        items: &'a mut Vec<SequenceItem>,
        threads: &'a mut ThreadHasher,
        versions: &'a RangeInclusive<u32>,
    ) -> Self {
        Self { items_start: items.len(), items, threads, versions, seen: 0, refused: None }
    }

    /// The first schema version of an inner event that is not supported.
    pub(super) fn refused(&self) -> Option<u32> {
        self.refused
    }

    /// Appends one event; one without a thread or a number is not part of any sequence.
    pub(super) fn push(&mut self, header: &Header<'_>, event_index: u32) {
        if header.sequence > 0 && !header.thread_id.is_empty() {
            let thread = self.threads.hash(header.tenant_id, header.thread_id);
            self.items.push(SequenceItem { thread, sequence: header.sequence, event_index });
        }
    }
}

impl Events for Collector<'_> {
    fn clear(&mut self) {
        self.items.truncate(self.items_start);
        self.seen = 0;
        self.refused = None;
    }

    fn event(&mut self, header: &Header<'_>) {
        if self.refused.is_none() {
            self.refused = unsupported(self.versions, header.schema_version);
        }
        if self.seen < MAX_CHECKED_EVENTS {
            self.push(header, self.seen);
        }
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
