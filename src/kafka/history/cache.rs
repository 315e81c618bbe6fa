//! What was lately read from Kafka, bounded in bytes: many clients that page over the same range cost one reading.
//!
//! No clock and no lock. It must not know where chunks come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::pipeline::page::{Page, PageRequest};
use crate::pipeline::window::Chunk;

/// Partition and first offset of a chunk.
type Key = (i32, i64);

/// Chunks of one epoch. None of them lies inside another, so that the last one which begins at or before an offset is the
/// best one for it.
#[derive(Debug)]
pub(super) struct Cache {
    max_bytes: usize,
    bytes: usize,
    epoch: u64,
    chunks: BTreeMap<Key, Kept>,
    /// By last use, oldest first.
    uses: BTreeMap<u64, Key>,
    now: u64,
}

#[derive(Debug)]
struct Kept {
    chunk: Arc<Chunk>,
    used: u64,
}

impl Cache {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: 0, epoch: 0, chunks: BTreeMap::new(), uses: BTreeMap::new(), now: 0 }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a chunk. A newer epoch empties the cache, an older one is not kept.
    pub(super) fn keep(&mut self, epoch: u64, chunk: &Arc<Chunk>) {
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::new(self.max_bytes) };
        }
        if epoch < self.epoch || chunk.weight() > self.max_bytes {
            return;
        }
        let partition = chunk.partition;
        if self.at(partition, chunk.first).is_some_and(|kept| kept.next >= chunk.next) {
            return;
        }
        let inside = self.chunks.range((partition, chunk.first)..(partition, chunk.next));
        let inside: Vec<Key> = inside.filter(|(_, kept)| kept.chunk.next <= chunk.next).map(|(key, _)| *key).collect();
        for key in inside {
            self.forget(key);
        }
        self.now += 1;
        self.bytes += chunk.weight();
        let key = (partition, chunk.first);
        self.chunks.insert(key, Kept { chunk: Arc::clone(chunk), used: self.now });
        self.uses.insert(self.now, key);
        while self.bytes > self.max_bytes
            && let Some((_, oldest)) = self.uses.first_key_value()
        {
            self.forget(*oldest);
        }
    }

    /// A page of what is kept from the request's first offset on. It may end early, but holds at least half of what was asked
    /// for: less is no help for whoever has to ask again.
    pub(super) fn page(&mut self, request: &PageRequest) -> Option<Page> {
        if request.epoch != self.epoch {
            return None;
        }
        let (mut cursor, mut records, mut bytes) = (request.from, request.max_records, 0);
        let mut chunks = Vec::new();
        while cursor < request.until
            && records > 0
            && bytes < request.max_bytes
            && let Some(chunk) = self.at(request.partition, cursor)
        {
            self.use_now((chunk.partition, chunk.first));
            let whole = chunk.first >= cursor && chunk.next <= request.until && chunk.records <= records;
            let taken = if whole { chunk } else { Arc::new(chunk.part(cursor, request.until, records)?) };
            cursor = taken.next;
            records = records.saturating_sub(taken.records);
            bytes += taken.message().len();
            chunks.push(taken);
        }
        let enough = cursor >= request.until || records <= request.max_records / 2 || bytes >= request.max_bytes / 2;
        (enough && !chunks.is_empty()).then_some(Page { chunks, low: None })
    }

    /// The chunk that covers an offset.
    fn at(&self, partition: i32, offset: i64) -> Option<Arc<Chunk>> {
        let (_, kept) = self.chunks.range((partition, i64::MIN)..=(partition, offset)).next_back()?;
        (kept.chunk.next > offset).then(|| Arc::clone(&kept.chunk))
    }

    fn use_now(&mut self, key: Key) {
        self.now += 1;
        if let Some(kept) = self.chunks.get_mut(&key) {
            self.uses.remove(&kept.used);
            kept.used = self.now;
            self.uses.insert(self.now, key);
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(kept) = self.chunks.remove(&key) {
            self.uses.remove(&kept.used);
            self.bytes -= kept.chunk.weight();
        }
    }
}
