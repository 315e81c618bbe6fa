//! Reads pages of history. Coverage is read off the entries: what is not there is said, never papered over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use deadpool_redis::redis::{Value, pipe};

use super::block;
use super::connect::{ConnectError, Redis};
use super::fault::{Failure, Fault};
use super::keys::Keys;
use super::settings::RedisSettings;
use super::state::{Operation, RedisState};
use crate::board::Board;
use crate::metrics::Metrics;
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::pipeline::window::Chunk;

/// Most entries of one answer.
const MAX_ENTRIES: usize = 2_048;
/// Most entries of the first answer of a page. What earlier pages have seen of a stream says little about this part of it.
const FIRST_GUESS: usize = 8;
/// So many times more than in the answer before.
const GROWTH: usize = 4;
/// Most answers for one page; normally it is one of a stream with large entries, and a few where they are small.
const MAX_ROUNDS: usize = 6;

/// The Redis tier. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RedisTier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: Redis,
    keys: Keys,
    board: Board,
    /// What entries of a partition weigh, as last seen.
    sizes: Mutex<HashMap<i32, Size>>,
    state: RedisState,
    metrics: Arc<Metrics>,
}

/// What the entries of a stream are like.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Most bytes of one. What was seen once is forgotten by halves: the next large one is not far.
    bytes: usize,
    /// Records of one, on the average.
    records: f64,
}

/// What the tier has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierBounds {
    /// The first offset. There may be holes above it.
    pub low: i64,
    /// The offset after the last one.
    pub next: i64,
}

impl RedisTier {
    /// A tier that connects when it is asked.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn new(
        settings: &RedisSettings,
        keys: Keys,
        board: Board,
        state: RedisState,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectError> {
        let redis = Redis::new(settings, settings.pool_size)?;
        Ok(Self(Arc::new(Inner { redis, keys, board, sizes: Mutex::default(), state, metrics })))
    }

    /// One page, in a few requests: each may ask for more entries than the one before, by what those were like.
    ///
    /// # Errors
    /// When Redis does not answer before the deadline, cannot be asked, or the epoch is over.
    pub async fn page(&self, request: &PageRequest, deadline: Instant) -> Result<Page, TierError> {
        let tier = &*self.0;
        if tier.board.epoch_number() != request.epoch {
            return Err(TierError::EpochOver);
        }
        let Some(key) = tier.keys.stream(request.epoch, &request.epoch_name, request.partition) else {
            return Ok(Page::default());
        };
        let begun = Instant::now();
        let result = self.read(&key, request, deadline).await;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        tier.metrics.redis_latency.with_label_values(&[Operation::Read.as_str()]).observe(took);
        let page = result.map_err(|failure| {
            if failure.fault == Fault::Timeout {
                // Perhaps it was too much at once.
                self.sizes().remove(&request.partition);
            }
            tier.metrics.redis_misses.inc();
            self.failed(&failure)
        })?;
        // What was read may be of a log that is gone by now.
        if tier.board.epoch_number() != request.epoch {
            return Err(TierError::EpochOver);
        }
        let covers = !page.chunks.is_empty() && page.low.is_none();
        if covers { &tier.metrics.redis_hits } else { &tier.metrics.redis_misses }.inc();
        let records: u64 = page.chunks.iter().map(|chunk| u64::from(chunk.records)).sum();
        tier.metrics.redis_page_records.observe(records as f64);
        Ok(page)
    }

    /// Where the stream of a partition begins and ends; `None` when there is nothing.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn bounds(
        &self,
        epoch: u64,
        epoch_name: &str,
        partition: i32,
        deadline: Instant,
    ) -> Result<Option<TierBounds>, TierError> {
        if self.0.board.epoch_number() != epoch {
            return Err(TierError::EpochOver);
        }
        let Some(key) = self.0.keys.stream(epoch, epoch_name, partition) else { return Ok(None) };
        self.read_bounds(&key, partition, deadline).await.map_err(|failure| self.failed(&failure))
    }

    fn failed(&self, failure: &Failure) -> TierError {
        self.0.state.failed(Operation::Read, failure);
        match failure.fault {
            Fault::Timeout => TierError::Timeout,
            _ => TierError::Unavailable(failure.text.clone()),
        }
    }

    async fn read_bounds(&self, key: &str, partition: i32, deadline: Instant) -> Result<Option<TierBounds>, Failure> {
        let mut ends = pipe();
        ends.ignore_errors();
        ends.cmd("XRANGE").arg(key).arg("-").arg("+").arg("COUNT").arg(1);
        ends.cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1);
        let mut answers = self.ask(ends, deadline).await?.into_iter();
        let mut end = || -> Result<_, Failure> {
            let entries = block::entries(answers.next().unwrap_or(Value::Nil), partition)?;
            entries.into_iter().next().transpose()
        };
        let (oldest, newest) = (end()?, end()?);
        Ok(oldest.zip(newest).map(|(oldest, newest)| TierBounds { low: oldest.chunk.first, next: newest.chunk.next }))
    }

    async fn read(&self, key: &str, request: &PageRequest, deadline: Instant) -> Result<Page, Failure> {
        let mut draft = Draft::new(request);
        let (mut from, mut most) = (request.from, FIRST_GUESS);
        for _ in 0..MAX_ROUNDS {
            let size = self.sizes().get(&request.partition).copied();
            let count = entries_for(size, &draft).min(most);
            most = count.saturating_mul(GROWTH);
            let mut range = pipe();
            range.ignore_errors();
            range.cmd("XRANGE").arg(key).arg(from).arg("+").arg("COUNT").arg(count);
            let answer = self.ask(range, deadline).await?.into_iter().next().unwrap_or(Value::Nil);
            let entries = block::entries(answer, request.partition)?;
            let last_answer = entries.len() < count;
            let mut seen = Seen::default();
            for entry in entries {
                match entry {
                    Ok(entry) => {
                        seen.add(&entry.chunk);
                        draft.add(&entry.chunk);
                    }
                    // What it covers is not there.
                    Err(failure) => drop(self.failed(&failure)),
                }
            }
            self.remember(request.partition, &seen);
            if last_answer || draft.ended || seen.next <= from || draft.is_mostly_full() {
                break;
            }
            from = seen.next;
        }
        Ok(draft.page)
    }

    fn remember(&self, partition: i32, seen: &Seen) {
        if seen.entries > 0 {
            let records = f64::from(seen.records) / f64::from(seen.entries);
            let mut sizes = self.sizes();
            let known = sizes.get(&partition).map_or(0, |size| size.bytes);
            sizes.insert(partition, Size { bytes: seen.largest.max(known / 2), records });
        }
    }

    async fn ask(&self, pipeline: deadpool_redis::redis::Pipeline, deadline: Instant) -> Result<Vec<Value>, Failure> {
        let connection = self.0.redis.connection(deadline).await?;
        let answers = connection.ask(Arc::new(pipeline), deadline).await;
        if answers.is_err() {
            connection.discard();
        }
        answers
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<i32, Size>> {
        self.0.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many entries are likely to fill what is left of the page, and no more than its bytes allow.
fn entries_for(size: Option<Size>, draft: &Draft<'_>) -> usize {
    let Some(size) = size else { return FIRST_GUESS };
    let records = f64::from(draft.request.max_records).max(1.0) - draft.records as f64;
    let by_records = (records / size.records.max(0.1)).ceil().clamp(1.0, MAX_ENTRIES as f64);
    let by_bytes = draft.request.max_bytes.saturating_sub(draft.bytes) / size.bytes.max(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a small positive range")]
    (by_records as usize + 1).min(by_bytes.max(1)).min(MAX_ENTRIES)
}

/// What an answer held.
#[derive(Default)]
struct Seen {
    entries: u32,
    records: u32,
    largest: usize,
    next: i64,
}

impl Seen {
    fn add(&mut self, chunk: &Chunk) {
        self.entries += 1;
        self.records = self.records.saturating_add(chunk.records);
        self.largest = self.largest.max(chunk.weight());
        self.next = self.next.max(chunk.next);
    }
}

/// A page that is being put together from entries by rising end.
struct Draft<'a> {
    request: &'a PageRequest,
    page: Page,
    records: u64,
    bytes: usize,
    /// Nothing more belongs to the page: it is full, a hole follows, or it has reached what is wanted.
    ended: bool,
}

impl<'a> Draft<'a> {
    fn new(request: &'a PageRequest) -> Self {
        Self { request, page: Page::default(), records: 0, bytes: 0, ended: false }
    }

    fn add(&mut self, chunk: &Arc<Chunk>) {
        let request = self.request;
        let position = self.page.next().unwrap_or(request.from);
        let full = self.records >= u64::from(request.max_records.max(1)) || self.bytes >= request.max_bytes.max(1);
        if position >= request.until || full {
            self.ended = true;
        }
        if self.ended || chunk.next <= position {
            return;
        }
        if chunk.first > position {
            if !self.page.chunks.is_empty() || chunk.first >= request.until {
                // The page ends before the hole.
                self.ended = true;
                return;
            }
            self.page.low = Some(chunk.first);
        }
        // Blocks of two writers may overlap. The first one may begin below the cursor, as anywhere else.
        let overlaps = chunk.first < position && !self.page.chunks.is_empty();
        let cut = if overlaps { chunk.part(position, i64::MAX, u32::MAX) } else { None };
        let chunk = cut.map_or_else(|| Arc::clone(chunk), Arc::new);
        self.records += u64::from(chunk.records);
        self.bytes += chunk.weight();
        self.page.chunks.push(chunk);
    }

    /// Whether another question is not worth it.
    fn is_mostly_full(&self) -> bool {
        self.records * 2 >= u64::from(self.request.max_records) || self.bytes * 2 >= self.request.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::window::ItemRef;
    use crate::wire::stream_frame::FrameBuilder;
    use proptest::prelude::*;

    fn chunk(first: i64, next: i64) -> Arc<Chunk> {
        let mut builder = FrameBuilder::new();
        for offset in first..next {
            builder.record(offset, 0, &offset.to_be_bytes(), &[]);
        }
        let records = u32::try_from(next - first).unwrap();
        Arc::new(Chunk::new(0, first, next, records, builder.seal(0, first, next)))
    }

    fn request(from: i64, until: i64, max_records: u32) -> PageRequest {
        PageRequest {
            epoch: 1,
            epoch_name: "c/t/i".into(),
            partition: 0,
            from,
            until,
            max_records,
            max_bytes: usize::MAX,
        }
    }

    fn page(request: &PageRequest, chunks: &[(i64, i64)]) -> (Vec<(i64, i64)>, Option<i64>) {
        let mut draft = Draft::new(request);
        for (first, next) in chunks {
            draft.add(&chunk(*first, *next));
        }
        (draft.page.chunks.iter().map(|chunk| (chunk.first, chunk.next)).collect(), draft.page.low)
    }

    #[test]
    fn a_page_ends_before_a_hole_and_says_where_the_next_part_begins() {
        let wide = request(10, 1_000, 1_000);
        assert_eq!(page(&wide, &[(5, 20), (20, 30), (31, 40)]), (vec![(5, 20), (20, 30)], None));
        assert_eq!(page(&wide, &[(12, 20), (20, 30), (35, 40)]), (vec![(12, 20), (20, 30)], Some(12)));
        assert_eq!(page(&wide, &[]), (vec![], None));
        assert_eq!(page(&request(10, 12, 9), &[(12, 20)]), (vec![], None), "what is not wanted is not told");
        assert_eq!(page(&request(10, 20, 99), &[(5, 20), (20, 30)]), (vec![(5, 20)], None));
        assert_eq!(page(&request(10, 90, 20), &[(5, 20), (20, 30), (30, 40)]), (vec![(5, 20), (20, 30)], None));
    }

    proptest! {
        /// Blocks of several writers, with other boundaries and with holes: a page covers each offset once and in order,
        /// from the cursor or from where it says, and leaves out no offset that it passes.
        #[test]
        fn overlapping_blocks_cover_each_offset_once(
            blocks in proptest::collection::vec((0..60_i64, 1..12_i64), 0..30), from in 0..60_i64, len in 1..80_i64,
        ) {
            let mut blocks: Vec<_> = blocks.into_iter().map(|(first, len)| (first, first + len)).collect();
            blocks.sort_unstable_by_key(|(_, next)| *next);
            // A stream holds one entry per id, and `XRANGE` begins with the one that ends above the cursor.
            blocks.dedup_by_key(|(_, next)| *next);
            let wanted = request(from, from + len, 1_000);
            let mut draft = Draft::new(&wanted);
            for (first, next) in blocks.iter().filter(|(_, next)| *next > from) {
                draft.add(&chunk(*first, *next));
            }
            let mut position = draft.page.low.unwrap_or(from);
            prop_assert!(position >= from);
            for chunk in &draft.page.chunks {
                for (first, next, item) in chunk.items_from(position) {
                    prop_assert_eq!(first, position);
                    prop_assert_eq!(item, ItemRef::Record(&first.to_be_bytes()));
                    position = next;
                }
                prop_assert_eq!(position, chunk.next);
            }
        }
    }
}
