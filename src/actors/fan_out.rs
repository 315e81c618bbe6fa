//! The heart of `ReplayStore` without its mailbox: window, open chunks, live sessions, and the join of replay and live.
//!
//! Every method is one turn of the actor. Time is an argument and nothing here waits, so the simulation drives the same
//! code as the service.

mod serving;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use super::bell::Wakes;
use super::redis_queue::RedisQueue;
use super::session_queue::{Forms, Offer, SessionQueue};
use super::sessions::Sessions;
use crate::board::{Board, PartitionBoard};
use crate::messages::{PartitionsOpened, ReadHistory, Settled, Tracked};
use crate::metrics::Metrics;
use crate::pipeline::assemble::{Assembler, Judged, Misaligned};
use crate::pipeline::pacing::Reached;
use crate::pipeline::window::{Chunk, Window};
use crate::spans::Spans;

/// The state of one store generation.
#[derive(Debug)]
pub struct FanOut {
    /// Sessions take live chunks only from the generation that they joined.
    generation: u64,
    epoch: u64,
    window: Window,
    partitions: BTreeMap<i32, Partition>,
    live: Vec<Arc<SessionQueue>>,
    /// Sessions that asked before any partition was known.
    early: Vec<Arc<SessionQueue>>,
    unsettled: Vec<Settled>,
    /// Records, once for each session that got it, since [`Self::reached`].
    deliveries: u64,
    sessions: Sessions,
    /// What is to be read for sessions below the window.
    wanted: Vec<ReadHistory>,
    board: Board,
    metrics: Arc<Metrics>,
    redis: Option<RedisQueue>,
    spans: Spans,
}

#[derive(Debug)]
struct Partition {
    assembler: Assembler,
    /// Whether something in the open chunk is ours to write.
    ours: bool,
    /// What is read again for the duties alone: it goes to Redis and to nobody else.
    again: Option<Assembler>,
    board: Arc<PartitionBoard>,
}

impl Partition {
    /// Takes a batch that lies below what was fanned out, for Redis alone.
    fn write_again(&mut self, judged: Judged<'_>, redis: &RedisQueue) {
        let origin = judged.batch.origin;
        if redis.has(origin.partition, origin.next) {
            return;
        }
        let mut sealed = Vec::new();
        let continues = self.again.as_ref().is_some_and(|again| again.next() == origin.first);
        if !continues {
            let fresh = Assembler::new(origin.partition, origin.first);
            sealed.extend(self.again.replace(fresh).and_then(|mut before| before.seal()));
        }
        if let Some(again) = &mut self.again {
            // Cannot be refused: it ends where the batch begins.
            let _ = again.take(judged, |chunk| sealed.push(chunk));
        }
        for chunk in sealed {
            redis.push(Arc::new(chunk));
        }
    }
}

/// A batch that would leave a hole in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: batch does not touch the window: {misaligned}")]
pub struct Hole {
    /// The partition.
    pub partition: i32,
    /// Where it should begin, and where it does.
    pub misaligned: Misaligned,
}

impl FanOut {
    /// A generation that knows no partition yet and will serve the sessions that are open.
    pub fn new(generation: u64, window: Window, sessions: Sessions, board: Board, metrics: Arc<Metrics>) -> Self {
        for partition in board.partitions() {
            // This generation has read nothing. `window_low` stays: it tells from where to rebuild.
            partition.stored.clear();
        }
        Self {
            generation,
            epoch: 0,
            window,
            partitions: BTreeMap::new(),
            live: Vec::new(),
            early: Vec::new(),
            unsettled: Vec::new(),
            deliveries: 0,
            sessions,
            wanted: Vec::new(),
            board,
            metrics,
            redis: None,
            spans: Spans::default(),
        }
    }

    /// The same, with a queue of chunks for Redis.
    #[must_use]
    pub fn with_redis(self, redis: Option<RedisQueue>) -> Self {
        if let Some(redis) = &redis {
            redis.forget_owed();
        }
        Self { redis, ..self }
    }

    /// The same, and tells a collector of resumes.
    #[must_use]
    pub fn with_spans(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// Partitions are about to be read. A newer epoch ends the old one: nothing of it is ever served again.
    pub fn open(&mut self, opened: &PartitionsOpened, now: Instant) {
        let boards = opened.partitions.iter().map(|start| self.board.find(start.partition));
        let Some(boards) = boards.collect::<Option<Vec<_>>>() else { return };
        // In this order: boards that were taken before the check belong to that epoch. Of a newer one is told next.
        if opened.epoch.number < self.epoch || opened.epoch.number < self.board.epoch_number() {
            return;
        }
        // What the sessions know, not what this generation knows: it may be younger than the epoch.
        let known = self.board.announced_epoch();
        let starts_again = known != 0 && opened.epoch.number > known;
        if starts_again {
            self.window.clear();
            self.partitions.clear();
            self.unsettled.clear();
        }
        self.epoch = opened.epoch.number;
        if let Some(redis) = &self.redis {
            redis.open_epoch(&opened.epoch);
        }
        if self.partitions.is_empty() {
            // Also those who asked a predecessor, in vain.
            self.early.extend(self.sessions.all().into_iter().map(|session| session.queue));
        }
        let mut new = Vec::new();
        for (start, board) in opened.partitions.iter().zip(boards) {
            self.window.open(start.partition, start.start);
            if let Some((low, next)) = self.window.bounds_of(start.partition) {
                board.window_low.set(low);
                board.stored.set(next);
            }
            if let Entry::Vacant(vacant) = self.partitions.entry(start.partition) {
                let assembler = Assembler::new(start.partition, start.start);
                vacant.insert(Partition { assembler, ours: false, again: None, board });
                new.push((start.partition, start.start));
            }
        }
        for session in self.sessions.all() {
            if starts_again {
                self.place_anew(&session.queue, now);
            } else {
                for (partition, start) in &new {
                    session.queue.add_partition(*partition, *start, now);
                }
            }
        }
        self.board.announce_epoch(self.epoch);
        for queue in std::mem::take(&mut self.early).into_iter().chain(std::mem::take(&mut self.live)) {
            self.serve(&queue, now);
        }
    }

    /// Takes a batch. What it fills is kept and fanned out at once; the rest waits for [`Self::flush`].
    ///
    /// # Errors
    /// When the batch would leave a hole: this generation cannot go on.
    pub fn take(&mut self, tracked: Tracked, now: Instant) -> Result<(), Hole> {
        let Tracked { decoded, findings } = tracked;
        let origin = decoded.batch.origin;
        if origin.epoch != self.epoch {
            return Ok(());
        }
        let hole = |misaligned| Hole { partition: origin.partition, misaligned };
        let Some(partition) = self.partitions.get_mut(&origin.partition) else {
            return Err(hole(Misaligned { expected: crate::board::UNKNOWN, found: origin.first }));
        };
        let judged = Judged { batch: &decoded.batch, verdicts: &decoded.verdicts, findings: &findings };
        let redis = self.redis.as_ref().filter(|_| decoded.duty_term != 0);
        if let Some(redis) = redis {
            let from = partition.board.duty_from.get().unwrap_or(origin.first);
            redis.begin(origin.partition, decoded.duty_term, from);
            if origin.first < partition.assembler.next() {
                partition.write_again(judged, redis);
            }
            partition.ours = true;
        }
        let mut full = Vec::new();
        partition.assembler.take(judged, |chunk| full.push(chunk)).map_err(hole)?;
        self.publish(full, now)?;
        if decoded.duty_term != 0 {
            let settled = Settled { origin, except: decoded.held, duty_term: decoded.duty_term };
            match self.redis.as_ref().filter(|redis| redis.settles()) {
                Some(redis) => redis.owe(settled, decoded.permit),
                None => self.unsettled.push(settled),
            }
        }
        Ok(())
    }

    /// Seals, keeps and fans out everything that is open; hands out what is settled by that.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn flush(&mut self, now: Instant) -> Result<Vec<Settled>, Hole> {
        let sealed = self.partitions.values_mut().filter_map(|partition| partition.assembler.seal()).collect();
        self.publish(sealed, now)?;
        for partition in self.partitions.values_mut() {
            // The next chunk is ours when a batch says so.
            partition.ours = false;
            if let (Some(redis), Some(chunk)) = (&self.redis, partition.again.as_mut().and_then(Assembler::seal)) {
                redis.push(Arc::new(chunk));
            }
        }
        for (partition, low, _) in self.window.bounds() {
            if let Some(partition) = self.partitions.get(&partition) {
                partition.board.window_low.set(low);
            }
        }
        self.metrics.window_bytes.set(i64::try_from(self.window.bytes()).unwrap_or(i64::MAX));
        self.metrics.window_records.set(i64::try_from(self.window.records()).unwrap_or(i64::MAX));
        self.metrics.retention_used.with_label_values(&["memory"]).set(self.window.used_ratio());
        Ok(std::mem::take(&mut self.unsettled))
    }

    /// What was reached since the last time.
    pub fn reached(&mut self) -> Reached {
        Reached { clients: self.live.len(), deliveries: std::mem::take(&mut self.deliveries) }
    }

    /// Hands out what is to be read for sessions below the window.
    pub fn wanted(&mut self) -> Vec<ReadHistory> {
        std::mem::take(&mut self.wanted)
    }

    /// A session ended.
    pub fn leave(&mut self, session: u64) {
        self.live.retain(|queue| queue.info.session != session);
        self.early.retain(|queue| queue.info.session != session);
    }

    /// Keeps chunks and hands them to every live session, which is woken once for all of them.
    fn publish(&mut self, chunks: Vec<Chunk>, now: Instant) -> Result<(), Hole> {
        let chunks: Vec<_> = chunks.into_iter().map(Arc::new).collect();
        for chunk in &chunks {
            let hole = |misaligned| Hole { partition: chunk.partition, misaligned };
            self.window.append(Arc::clone(chunk)).map_err(hole)?;
        }
        let generation = self.generation;
        let mut forms: Vec<_> = chunks.iter().map(|_| Forms::default()).collect();
        let (mut delivered, mut demoted, mut wakes) = (0, Vec::new(), Wakes::default());
        self.live.retain(|queue| match queue.offer(&chunks, &mut forms, generation, &mut wakes, now) {
            Offer::Taken(records) => {
                delivered += records;
                true
            }
            Offer::Behind(records) => {
                delivered += records;
                demoted.push(Arc::clone(queue));
                false
            }
            Offer::Gone => false,
        });
        drop(wakes);
        self.deliveries += delivered;
        self.metrics.delivered_records.inc_by(delivered);
        for chunk in &chunks {
            if let Some(partition) = self.partitions.get(&chunk.partition) {
                partition.board.stored.set(chunk.next);
                if let Some(redis) = self.redis.as_ref().filter(|_| partition.ours) {
                    redis.push(Arc::clone(chunk));
                }
            }
        }
        for queue in demoted {
            self.metrics.demotions.inc();
            queue.ask_if_drained();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
