//! `SequenceTracker`: adds sequence findings to decoded batches. In: [`Decoded`]. Out: [`Tracked`]. It must not change or
//! withhold records. All findings are counted; no more of a record ride along than weigh about what it weighs.
//!
//! Batches may come again: the reader goes back after a restart, and when duties are taken over. What this generation has
//! checked is not checked again. What an earlier generation had checked is checked once more, to learn where the threads
//! are and to tell clients, but is not counted again. A new epoch is a new log: all threads begin anew in it, without a
//! finding, since nobody can say what was lost between two logs. Batches of an older epoch are dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Context, Handler};

use super::link::Link;
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::{Board, PartitionBoard};
use crate::messages::{Decoded, Tracked};
use crate::metrics::Metrics;
use crate::pipeline::decode::{Meta, Verdict};
use crate::pipeline::record::Origin;
use crate::pipeline::sequence::{self, Finding, Limits, RecordFinding, SequenceItem, Tally, Tracker};

/// At most one event about forgotten threads in this time.
const PRUNE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the actor is given.
#[derive(Debug)]
pub struct SequenceTrackerDeps {
    /// How much it may remember.
    pub limits: Limits,
    /// Where it publishes how far it has checked.
    pub board: Board,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Who gets the batches.
    pub downstream: Link<Tracked>,
    /// Its sign of life.
    pub pulse: Pulse,
    /// Its end.
    pub guard: Guard,
}

/// The actor.
#[derive(Debug)]
pub struct SequenceTracker {
    tracker: Tracker,
    epoch: u64,
    /// Per partition the offset below which this generation has checked everything in this epoch.
    checked: Vec<(i32, i64)>,
    /// What was counted of the tracker's tally.
    counted: Tally,
    prune_log: PruneLog,

    downstream: Link<Tracked>,

    board: Board,
    metrics: Arc<Metrics>,
    pulse: Pulse,
    _guard: Guard,
}

#[derive(Debug, Default)]
struct PruneLog {
    last: Option<Instant>,
    pruned: u64,
}

supervised!(SequenceTracker);

impl SequenceTracker {
    /// An actor that has seen nothing.
    pub fn new(deps: SequenceTrackerDeps) -> Self {
        let SequenceTrackerDeps { limits, board, metrics, downstream, pulse, guard } = deps;
        Self {
            tracker: Tracker::new(limits),
            epoch: board.epoch_number(),
            checked: Vec::new(),
            counted: Tally::default(),
            prune_log: PruneLog::default(),
            downstream,
            board,
            metrics,
            pulse,
            _guard: guard,
        }
    }

    /// The partition's board, or none if the batch belongs to an epoch that is over.
    fn enter(&mut self, origin: Origin) -> Option<Arc<PartitionBoard>> {
        // In this order: a board that was taken before the check belongs to that epoch or to none any more.
        let partition = self.board.find(origin.partition)?;
        if origin.epoch < self.epoch || origin.epoch < self.board.epoch_number() {
            return None;
        }
        if origin.epoch > self.epoch {
            self.epoch = origin.epoch;
            self.tracker.reset();
            self.checked.clear();
        }
        Some(partition)
    }

    fn check(&mut self, decoded: &Decoded, partition: &PartitionBoard) -> Vec<RecordFinding> {
        let checked = self.checked_to(decoded.batch.origin.partition);
        let counted = partition.sequenced.get().unwrap_or(0);
        let mut findings = Vec::new();
        let records = decoded.batch.records.iter().zip(&decoded.verdicts).zip(0_u32..);
        for ((record, verdict), index) in records {
            let Verdict::Deliver(meta) = verdict else { continue };
            let items = items_of(decoded, meta);
            if record.offset < checked || items.is_empty() {
                continue;
            }
            let counts = record.offset >= counted;
            if counts {
                self.count_record(items);
            }
            let started = self.tracker.tally().started;
            let room = findings.len() + sequence::allowance(record.value.map_or(0, |value| value.len as usize));
            for item in items {
                self.tracker.check(item, |event_index, finding| {
                    if counts {
                        count(&self.metrics, finding);
                    }
                    if findings.len() < room {
                        findings.push(RecordFinding { record: index, event_index, finding });
                    }
                });
            }
            if !counts {
                // A predecessor has counted them.
                self.counted.started += self.tracker.tally().started - started;
            }
        }
        findings
    }

    fn checked_to(&self, partition: i32) -> i64 {
        self.checked.iter().find(|(known, _)| *known == partition).map_or(0, |(_, checked)| *checked)
    }

    /// Publishes how far the partition is checked now; a batch that came again takes nothing back.
    fn advance(&mut self, origin: Origin, partition: &PartitionBoard) {
        match self.checked.iter_mut().find(|(known, _)| *known == origin.partition) {
            Some((_, checked)) => *checked = origin.next.max(*checked),
            None => self.checked.push((origin.partition, origin.next)),
        }
        if partition.sequenced.get().is_none_or(|sequenced| sequenced < origin.next) {
            partition.sequenced.set(origin.next);
        }
    }

    fn count_record(&self, items: &[SequenceItem]) {
        let mut threads = items.iter().filter(|item| !item.is_overlooked()).map(|item| item.thread);
        let first = threads.next();
        if threads.any(|thread| Some(thread) != first) {
            self.metrics.multi_thread_batches.inc();
        }
        if items.iter().any(SequenceItem::is_overlooked) {
            self.metrics.sequence_overlooked.inc();
        }
    }

    fn count_threads(&mut self) {
        let tally = self.tracker.tally();
        self.metrics.sequence_threads.set(i64::try_from(self.tracker.tracked()).unwrap_or(i64::MAX));
        self.metrics.sequence_started.inc_by(tally.started - self.counted.started);
        let pruned = tally.pruned - self.counted.pruned;
        self.metrics.sequence_pruned.inc_by(pruned);
        self.counted = tally;
        if pruned == 0 && self.prune_log.pruned == 0 {
            return;
        }
        self.prune_log.pruned += pruned;
        if self.prune_log.last.is_none_or(|last| last.elapsed() >= PRUNE_LOG_INTERVAL) {
            tracing::warn!(
                pruned = self.prune_log.pruned,
                tracked = self.tracker.tracked(),
                remembered = self.tracker.remembered(),
                memory_bytes = self.tracker.memory_bytes(),
                "threads were forgotten to bound memory; gaps at their return are not seen"
            );
            self.prune_log = PruneLog { last: Some(Instant::now()), pruned: 0 };
        }
    }
}

fn count(metrics: &Metrics, finding: Finding) {
    match finding {
        Finding::Gap { expected, found } => {
            metrics.sequence_gaps.inc();
            #[allow(clippy::cast_precision_loss, reason = "a histogram of sizes")]
            metrics.sequence_gap_size.observe((found - expected) as f64);
        }
        Finding::Duplicate { .. } => metrics.sequence_duplicates.inc(),
        Finding::Reorder { .. } => metrics.sequence_reorders.inc(),
        Finding::ProducerRestart { .. } => metrics.sequence_restarts.inc(),
    }
}

/// What the check looks at for one record.
fn items_of<'a>(decoded: &'a Decoded, meta: &Meta) -> &'a [SequenceItem] {
    let start = meta.items_start as usize;
    decoded.items.get(start..start.saturating_add(meta.items_len as usize)).unwrap_or_default()
}

impl Actor for SequenceTracker {
    type Context = Context<Self>;
}

impl Handler<Decoded> for SequenceTracker {
    type Result = ();

    fn handle(&mut self, decoded: Decoded, ctx: &mut Self::Context) {
        if self.pulse.retired() {
            return ctx.stop();
        }
        let origin = decoded.batch.origin;
        let Some(partition) = self.enter(origin) else {
            tracing::debug!(epoch = origin.epoch, partition = origin.partition, "batch of an epoch that is over");
            return;
        };
        let findings = self.check(&decoded, &partition);
        self.advance(origin, &partition);
        self.count_threads();
        if !self.downstream.send(Tracked { decoded, findings }) {
            // The whole chain is restarted then, and the reader goes back.
            tracing::debug!(partition = origin.partition, first = origin.first, "nobody takes tracked batches");
        }
    }
}

#[cfg(test)]
mod tests;
