//! The heart of `ReplayStore` without its mailbox: window, open chunks, live sessions, and the join of replay and live.
//!
//! Every method is one turn of the actor. Time is an argument and nothing here waits, so the simulation drives the same
//! code as the service.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use super::session_queue::{Forms, Joined, Offer, SessionQueue};
use super::sessions::Sessions;
use crate::board::{Board, PartitionBoard};
use crate::messages::{PartitionsOpened, Settled, Tracked};
use crate::metrics::Metrics;
use crate::pipeline::assemble::{Assembler, Judged, Misaligned};
use crate::pipeline::window::{Chunk, Read, Window};
use crate::wire::stream::GapReason;

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
    sessions: Sessions,
    board: Board,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Partition {
    assembler: Assembler,
    board: Arc<PartitionBoard>,
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
            sessions,
            board,
            metrics,
        }
    }

    /// Partitions are about to be read. A newer epoch ends the old one: nothing of it is ever served again.
    pub fn open(&mut self, opened: &PartitionsOpened, now: Instant) {
        if opened.epoch.number < self.epoch {
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
        if self.partitions.is_empty() {
            // Also those who asked a predecessor, in vain.
            self.early.extend(self.sessions.all().into_iter().map(|session| session.queue));
        }
        let mut new = Vec::new();
        for start in &opened.partitions {
            let board = self.board.partition(start.partition);
            self.window.open(start.partition, start.start);
            if let Some((low, next)) = self.window.bounds_of(start.partition) {
                board.window_low.set(low);
                board.stored.set(next);
            }
            if let Entry::Vacant(vacant) = self.partitions.entry(start.partition) {
                vacant.insert(Partition { assembler: Assembler::new(start.partition, start.start), board });
                new.push((start.partition, start.start));
            }
        }
        for session in self.sessions.all() {
            if starts_again {
                session.queue.reset(&opened.epoch.name, &new, now);
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
        let mut full = Vec::new();
        partition.assembler.take(judged, |chunk| full.push(chunk)).map_err(hole)?;
        for chunk in full {
            self.publish(chunk, now)?;
        }
        if decoded.duty_term != 0 {
            self.unsettled.push(Settled { origin, except: decoded.held, duty_term: decoded.duty_term });
        }
        Ok(())
    }

    /// Seals, keeps and fans out everything that is open; hands out what is settled by that.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn flush(&mut self, now: Instant) -> Result<Vec<Settled>, Hole> {
        let sealed: Vec<Chunk> =
            self.partitions.values_mut().filter_map(|partition| partition.assembler.seal()).collect();
        for chunk in sealed {
            self.publish(chunk, now)?;
        }
        for (partition, low, _) in self.window.bounds() {
            if let Some(partition) = self.partitions.get(&partition) {
                partition.board.window_low.set(low);
            }
        }
        self.metrics.window_bytes.set(i64::try_from(self.window.bytes()).unwrap_or(i64::MAX));
        self.metrics.window_records.set(i64::try_from(self.window.records()).unwrap_or(i64::MAX));
        Ok(std::mem::take(&mut self.unsettled))
    }

    /// Fills a session's queue from its cursors on; once it has reached the end everywhere it is live, in the same turn.
    pub fn serve(&mut self, queue: &Arc<SessionQueue>, now: Instant) {
        if self.partitions.is_empty() {
            self.early.push(Arc::clone(queue));
            return;
        }
        let Some(mut feeder) = queue.feeder(now) else { return };
        let metrics = &self.metrics;
        loop {
            let mut progress = false;
            // One chunk per partition and turn, so that none waits for another's backlog.
            for (partition, low, _) in self.window.bounds() {
                let cursor = feeder.cursor(partition, low);
                if feeder.is_full() {
                    metrics.delivered_records.inc_by(feeder.records());
                    feeder.behind();
                    queue.ask_if_drained();
                    return;
                }
                match self.window.read(partition, cursor) {
                    Read::Below(low) => {
                        let lost = feeder.gap(partition, low, GapReason::Unavailable);
                        metrics.replay_gaps.with_label_values(&["partition"]).inc();
                        metrics.replay_gap_messages.with_label_values(&["partition"]).inc_by(lost);
                        progress = true;
                    }
                    Read::Chunk(chunk) => {
                        feeder.chunk(&chunk);
                        progress = true;
                    }
                    Read::End => {}
                }
            }
            if !progress {
                break;
            }
        }
        metrics.delivered_records.inc_by(feeder.records());
        match feeder.live(self.generation) {
            Joined::Resumed { replayed, took } => {
                metrics.memory_hits.inc();
                metrics.replay_messages.with_label_values(&["partition"]).inc_by(replayed);
                metrics.replay_latency.with_label_values(&["partition"]).observe(took.as_secs_f64() * 1000.0);
            }
            Joined::CaughtUp => metrics.promotions.inc(),
            Joined::StayedLive => {}
        }
        if !self.live.iter().any(|live| Arc::ptr_eq(live, queue)) {
            self.live.push(Arc::clone(queue));
        }
    }

    /// A session ended.
    pub fn leave(&mut self, session: u64) {
        self.live.retain(|queue| queue.info.session != session);
        self.early.retain(|queue| queue.info.session != session);
    }

    /// Keeps a chunk and hands it to every live session.
    fn publish(&mut self, chunk: Chunk, now: Instant) -> Result<(), Hole> {
        let chunk = Arc::new(chunk);
        let (partition, next) = (chunk.partition, chunk.next);
        self.window.append(Arc::clone(&chunk)).map_err(|misaligned| Hole { partition, misaligned })?;
        let generation = self.generation;
        let mut forms = Forms::default();
        let (mut delivered, mut demoted) = (0_u64, Vec::new());
        self.live.retain(|queue| match queue.offer(&chunk, &mut forms, generation, now) {
            Offer::Taken(records) => {
                delivered += u64::from(records);
                true
            }
            Offer::Behind => {
                demoted.push(Arc::clone(queue));
                false
            }
            Offer::Gone => false,
        });
        self.metrics.delivered_records.inc_by(delivered);
        if let Some(partition) = self.partitions.get(&partition) {
            partition.board.stored.set(next);
        }
        for queue in demoted {
            self.metrics.demotions.inc();
            queue.ask_if_drained();
        }
        Ok(())
    }
}
