//! Chunks between the store and the one who writes them to Redis: a queue that is bounded in bytes and chunks.
//!
//! It outlives the writer, so what was on its way when the writer died is tried again. The store never waits here. With
//! best effort the oldest chunk goes when there is no room; when Redis is required, nothing goes, the bytes stay charged to
//! the credit of the pipeline, and records are settled only when Redis has all up to them. It must not know Redis.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::link::Link;
use crate::board::Epoch;
use crate::messages::{ChunksWaiting, Settled};
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::credit::Permit;
use crate::pipeline::window::Chunk;
use crate::pipeline::write_order::{TakeLimits, WriteOrder};

/// What it means when a chunk cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayDurability {
    /// The stream goes on; what finds no room is dropped and counted.
    BestEffort,
    /// Offsets wait for it.
    Required,
}

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct RedisQueueLimits {
    /// Whether Redis may lag behind.
    pub durability: ReplayDurability,
    /// Bytes that may wait, with best effort.
    pub bytes: usize,
    /// Chunks that may wait, with best effort.
    pub chunks: usize,
    /// The waits after a failure.
    pub backoff: Backoff,
}

/// The queue. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RedisQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: RedisQueueLimits,
    state: Mutex<State>,
    moved: Notify,
    writer: Link<ChunksWaiting>,
    settled: Link<Settled>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    epoch: Option<Epoch>,
    lanes: BTreeMap<i32, Lane>,
    arrivals: u64,
    /// Whose turn it is when not all fit into a batch.
    turn: i32,
    /// The writer was told and has not looked yet.
    announced: bool,
}

#[derive(Debug)]
struct Lane {
    order: WriteOrder,
    lent: bool,
    /// Failures in a row, and when it may be tried again.
    failures: u32,
    due: Option<Instant>,
    /// Settled once Redis has everything up to their end.
    owed: Vec<Owed>,
}

#[derive(Debug)]
struct Owed {
    settled: Settled,
    _permit: Permit,
}

/// Chunks of one partition on their way to Redis.
#[derive(Clone, Debug)]
pub struct LentChunks {
    /// The partition.
    pub partition: i32,
    /// In rising order.
    pub chunks: Vec<Arc<Chunk>>,
}

impl RedisQueue {
    /// An empty queue. `writer` is told when there is something to write; what is settled goes to `settled`.
    pub fn new(
        limits: RedisQueueLimits,
        writer: Link<ChunksWaiting>,
        settled: Link<Settled>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default(), moved: Notify::new(), writer, settled, metrics }))
    }

    /// Whether records are settled by what Redis has.
    pub fn settles(&self) -> bool {
        self.0.limits.durability == ReplayDurability::Required
    }

    /// A new store begins: what an earlier one owed is read again.
    pub fn forget_owed(&self) {
        for lane in self.lock().lanes.values_mut() {
            lane.owed.clear();
        }
    }

    /// An epoch begins; nothing of another one is written from here on.
    pub fn open_epoch(&self, epoch: &Epoch) {
        let mut state = self.lock();
        if state.epoch.as_ref() != Some(epoch) {
            state.lanes.clear();
            state.epoch = Some(epoch.clone());
        }
        self.show(&state);
        drop(state);
        self.0.moved.notify_waiters();
    }

    /// The duties of a partition are ours under `term`, from the offset `from` on.
    pub fn begin(&self, partition: i32, term: u64, from: i64) {
        let mut state = self.lock();
        let fresh =
            || Lane { order: WriteOrder::new(term, from), lent: false, failures: 0, due: None, owed: Vec::new() };
        state.lanes.entry(partition).or_insert_with(fresh).order.begin(term, from);
    }

    /// Whether all of a partition below `next` is written or given up, so that it needs not be assembled again.
    pub fn has(&self, partition: i32, next: i64) -> bool {
        self.lock().lanes.get(&partition).is_some_and(|lane| lane.order.done() >= next)
    }

    /// Takes a chunk of a partition whose duties were begun.
    pub fn push(&self, chunk: Arc<Chunk>) {
        let mut state = self.lock();
        state.arrivals += 1;
        let arrival = state.arrivals;
        let Some(lane) = state.lanes.get_mut(&chunk.partition) else { return };
        lane.order.push(chunk, arrival);
        if self.0.limits.durability == ReplayDurability::BestEffort {
            self.make_room(&mut state);
        }
        self.show(&state);
        let tell = !std::mem::replace(&mut state.announced, true);
        drop(state);
        if tell && !self.0.writer.send(ChunksWaiting) {
            // The next writer looks when it starts.
            self.lock().announced = false;
        }
    }

    /// Records that are settled once Redis has everything up to their end. Until then their bytes stay charged.
    pub fn owe(&self, settled: Settled, permit: Permit) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(&settled.origin.partition) else { return };
        if settled.origin.next > lane.order.done() {
            lane.owed.push(Owed { settled, _permit: permit });
            return;
        }
        drop(state);
        self.0.settled.send(settled);
    }

    /// What can be written now, at most `limits` of each partition and `limits.bytes` altogether, and its epoch.
    pub fn lend(&self, now: Instant, limits: TakeLimits) -> Option<(Epoch, Vec<LentChunks>)> {
        let mut state = self.lock();
        state.announced = false;
        let epoch = state.epoch.clone()?;
        let (mut lent, mut bytes) = (Vec::new(), 0_usize);
        let State { lanes, turn, .. } = &mut *state;
        // From the one on whose turn it is, so that none with a backlog keeps the others from their turn.
        let order: Vec<i32> =
            lanes.range(*turn..).chain(lanes.range(..*turn)).map(|(partition, _)| *partition).collect();
        for partition in &order {
            let Some(lane) = lanes.get_mut(partition) else { continue };
            if lane.lent || lane.due.is_some_and(|due| due > now) {
                continue;
            }
            if bytes >= limits.bytes {
                *turn = *partition;
                break;
            }
            let chunks = lane.order.take(TakeLimits { bytes: limits.bytes - bytes, ..limits });
            if !chunks.is_empty() {
                bytes += chunks.iter().map(|chunk| chunk.weight()).sum::<usize>();
                lane.lent = true;
                lent.push(LentChunks { partition: *partition, chunks });
            }
        }
        (!lent.is_empty()).then_some((epoch, lent))
    }

    /// The lent chunks of a partition are in Redis.
    pub fn written(&self, epoch: &Epoch, partition: i32) {
        let mut settled = Vec::new();
        let mut state = self.lock();
        if let Some(lane) = state.lane(epoch, partition) {
            lane.lent = false;
            lane.failures = 0;
            lane.due = None;
            lane.order.written();
            let done = lane.order.done();
            settled.extend(lane.owed.extract_if(.., |owed| owed.settled.origin.next <= done));
        }
        self.show(&state);
        drop(state);
        self.0.moved.notify_waiters();
        for Owed { settled, .. } in settled {
            // Nobody there: its next generation reads the range again.
            self.0.settled.send(settled);
        }
    }

    /// The lent chunks of a partition are not in Redis, as far as is known. They wait, the longer the more often it fails.
    pub fn failed(&self, epoch: &Epoch, partition: i32, now: Instant, random: f64) {
        let backoff = self.0.limits.backoff;
        let mut state = self.lock();
        if let Some(lane) = state.lane(epoch, partition) {
            lane.lent = false;
            lane.order.put_back();
            lane.due = Some(now + backoff.delay(lane.failures, random));
            lane.failures = lane.failures.saturating_add(1);
        }
        if self.0.limits.durability == ReplayDurability::BestEffort {
            self.make_room(&mut state);
        }
        self.show(&state);
    }

    /// What an earlier writer had on its way waits again.
    pub fn take_back(&self) {
        for lane in self.lock().lanes.values_mut() {
            lane.lent = false;
            lane.order.put_back();
        }
    }

    /// When a partition that failed may be tried again, the first of them.
    pub fn next_due(&self) -> Option<Instant> {
        let state = self.lock();
        state.lanes.values().filter(|lane| !lane.lent && !lane.order.is_empty()).filter_map(|lane| lane.due).min()
    }

    /// Whether some partition failed the last time.
    pub fn has_failures(&self) -> bool {
        self.lock().lanes.values().any(|lane| lane.failures > 0)
    }

    /// The current epoch and its partitions that this instance writes.
    pub fn lanes(&self) -> Option<(Epoch, Vec<i32>)> {
        let state = self.lock();
        Some((state.epoch.clone()?, state.lanes.keys().copied().collect()))
    }

    /// How many chunks wait or are on their way.
    pub fn waiting(&self) -> usize {
        self.lock().held().0
    }

    /// Waits until nothing waits.
    pub async fn all_written(&self) {
        loop {
            let moved = self.0.moved.notified();
            tokio::pin!(moved);
            // From here on no change is missed.
            moved.as_mut().enable();
            if self.waiting() == 0 {
                return;
            }
            moved.await;
        }
    }

    /// Drops the oldest chunks that are not on their way until the bounds hold. The newest are worth more: they join what
    /// comes next.
    fn make_room(&self, state: &mut State) {
        let limits = &self.0.limits;
        loop {
            let (chunks, bytes) = state.held();
            if chunks <= limits.chunks && bytes <= limits.bytes {
                return;
            }
            let oldest = state
                .lanes
                .values_mut()
                .filter_map(|lane| Some((lane.order.lowest_arrival()?, lane)))
                .min_by_key(|(arrival, _)| *arrival);
            let Some(dropped) = oldest.and_then(|(_, lane)| lane.order.give_up_lowest()) else { return };
            self.0.metrics.redis_write_dropped.inc_by(u64::from(dropped.records));
        }
    }

    fn show(&self, state: &State) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (chunks, bytes) = state.held();
        self.0.metrics.redis_queued_blocks.set(gauge(chunks));
        self.0.metrics.redis_queued_bytes.set(gauge(bytes));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self) -> (usize, usize) {
        self.lanes.values().map(|lane| lane.order.held()).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// The lane of a partition, when the epoch is still the one that it was lent in.
    fn lane(&mut self, epoch: &Epoch, partition: i32) -> Option<&mut Lane> {
        if self.epoch.as_ref() == Some(epoch) { self.lanes.get_mut(&partition) } else { None }
    }
}

#[cfg(test)]
mod tests;
