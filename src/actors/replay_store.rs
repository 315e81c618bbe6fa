//! `ReplayStore`: keeps the memory window, fans live chunks out to joined sessions, answers joins, settles.
//!
//! In: `PartitionsOpened`, `Tracked`, `Join`, `Leave`. Out: chunks into session queues, `Settled` to `KafkaIngest`. Replay
//! and live meet in this actor's mailbox only, so they can neither overlap nor leave a hole. It never waits for anybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use bytes::Bytes;

use super::link::Link;
use super::session_queue::{Joined, Offer, SessionQueue};
use super::sessions::Sessions;
use super::supervisor::{Guard, Pulse};
use crate::board::{Board, PartitionBoard};
use crate::messages::{Heartbeat, Join, Leave, PartitionsOpened, Settled, Tracked};
use crate::metrics::Metrics;
use crate::pipeline::assemble::{Assembler, Judged, Misaligned};
use crate::pipeline::pacing::{Flush, Pacer};
use crate::pipeline::window::{Chunk, Read, Window};
use crate::wire::stream::GapReason;

/// Bounds of the window and the pace of the fan-out.
#[derive(Clone, Copy, Debug)]
pub struct ReplayStoreSettings {
    /// Bytes of the memory window.
    pub window_bytes: usize,
    /// Records of the memory window.
    pub window_records: usize,
    /// At most one flush per interval while the stream is dense.
    pub flush_interval: Duration,
}

/// Everything that a new generation is made of.
#[derive(Debug)]
pub struct ReplayStoreDeps {
    /// The bounds.
    pub settings: ReplayStoreSettings,
    /// The generation; sessions take chunks only from the one that they joined.
    pub generation: u64,
    /// Where settled ranges go.
    pub settled: Link<Settled>,
    /// The open sessions; a new generation serves them all again.
    pub sessions: Sessions,
    /// The positions.
    pub board: Board,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Touched at each heartbeat.
    pub pulse: Pulse,
    /// Reports the actor's end.
    pub guard: Guard,
}

/// The actor.
#[derive(Debug)]
pub struct ReplayStore {
    deps: ReplayStoreDeps,
    epoch: u64,
    window: Window,
    partitions: BTreeMap<i32, Partition>,
    live: Vec<Arc<SessionQueue>>,
    /// Sessions that asked before any partition was known.
    early: Vec<Arc<SessionQueue>>,
    pacer: Pacer,
    timer: Option<SpawnHandle>,
    unsettled: Vec<Settled>,
}

#[derive(Debug)]
struct Partition {
    assembler: Assembler,
    board: Arc<PartitionBoard>,
}

impl ReplayStore {
    /// A store that knows no partition yet.
    pub fn new(deps: ReplayStoreDeps) -> Self {
        let settings = deps.settings;
        Self {
            deps,
            epoch: 0,
            window: Window::new(settings.window_bytes, settings.window_records),
            partitions: BTreeMap::new(),
            live: Vec::new(),
            early: Vec::new(),
            pacer: Pacer::new(settings.flush_interval),
            timer: None,
            unsettled: Vec::new(),
        }
    }

    /// Seals everything that is open, keeps and fans it out, and settles it.
    fn flush(&mut self, now: Instant) {
        let sealed: Vec<Chunk> =
            self.partitions.values_mut().filter_map(|partition| partition.assembler.seal()).collect();
        for chunk in sealed {
            self.publish(chunk, now);
        }
        self.pacer.flushed(now);
        for settled in self.unsettled.drain(..) {
            // Nobody there: a new generation reads the range again.
            self.deps.settled.send(settled);
        }
        for (partition, low, _) in self.window.bounds() {
            if let Some(partition) = self.partitions.get(&partition) {
                partition.board.window_low.set(low);
            }
        }
        self.deps.metrics.window_bytes.set(i64::try_from(self.window.bytes()).unwrap_or(i64::MAX));
        self.deps.metrics.window_records.set(i64::try_from(self.window.records()).unwrap_or(i64::MAX));
    }

    /// Keeps a chunk and hands it to every live session.
    fn publish(&mut self, chunk: Chunk, now: Instant) {
        let chunk = Arc::new(chunk);
        let (partition, next) = (chunk.partition, chunk.next);
        if let Err(misaligned) = self.window.append(Arc::clone(&chunk)) {
            self.refuse_hole(partition, misaligned);
        }
        let generation = self.deps.generation;
        let mut v1: Option<Bytes> = None;
        let (mut delivered, mut demoted) = (0_u64, Vec::new());
        self.live.retain(|queue| match queue.offer(&chunk, &mut v1, generation, now) {
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
        self.deps.metrics.delivered_records.inc_by(delivered);
        if let Some(partition) = self.partitions.get(&partition) {
            partition.board.stored.set(next);
        }
        for queue in demoted {
            self.deps.metrics.demotions.inc();
            queue.ask_if_drained();
        }
    }

    /// Fills a session's queue from its cursors on; once it has reached the end everywhere it is live.
    fn serve(&mut self, queue: &Arc<SessionQueue>, now: Instant) {
        if self.partitions.is_empty() {
            self.early.push(Arc::clone(queue));
            return;
        }
        let Some(mut feeder) = queue.feeder(now) else { return };
        let bounds: Vec<(i32, i64)> = self.window.bounds().map(|(partition, low, _)| (partition, low)).collect();
        let metrics = &self.deps.metrics;
        loop {
            let mut progress = false;
            // One chunk per partition and turn, so that none waits for another's backlog.
            for (partition, low) in &bounds {
                let cursor = feeder.cursor(*partition, *low);
                if feeder.is_full() {
                    metrics.delivered_records.inc_by(feeder.records());
                    feeder.behind();
                    return;
                }
                match self.window.read(*partition, cursor) {
                    Read::Below(low) => {
                        let lost = feeder.gap(*partition, low, GapReason::Unavailable);
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
        match feeder.live(self.deps.generation) {
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

    /// Ends this generation: going on would be a silent hole. The supervisor restarts the pipeline, which reads the range
    /// again.
    #[allow(clippy::panic, reason = "the way for an actor to ask for a restart with fresh state")]
    fn refuse_hole(&self, partition: i32, misaligned: Misaligned) -> ! {
        self.deps.metrics.store_misaligned.inc();
        panic!("partition {partition}: next batch does not touch the window: {misaligned}");
    }

    fn flush_when_due(&mut self, ctx: &mut Context<Self>, now: Instant) {
        match self.pacer.decide(now) {
            Flush::Now => self.flush(now),
            Flush::At(due) if self.timer.is_none() => {
                self.timer = Some(ctx.run_later(due.saturating_duration_since(now), |store, _| {
                    store.timer = None;
                    store.flush(Instant::now());
                }));
            }
            Flush::At(_) => {}
        }
    }
}

impl Actor for ReplayStore {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        for partition in self.deps.board.partitions() {
            // This generation has read nothing yet. `window_low` stays: it tells from where to rebuild.
            partition.stored.clear();
        }
        self.early = self.deps.sessions.all().into_iter().map(|session| session.queue).collect();
    }
}

impl Handler<PartitionsOpened> for ReplayStore {
    type Result = ();

    fn handle(&mut self, opened: PartitionsOpened, _: &mut Self::Context) {
        let now = Instant::now();
        if opened.epoch.number < self.epoch {
            return;
        }
        let starts_again = self.epoch != 0 && opened.epoch.number > self.epoch;
        if starts_again {
            self.window.clear();
            self.partitions.clear();
            self.unsettled.clear();
        }
        self.epoch = opened.epoch.number;
        for start in &opened.partitions {
            let board = self.deps.board.partition(start.partition);
            self.window.open(start.partition, start.start);
            self.partitions.entry(start.partition).or_insert_with(|| Partition {
                assembler: Assembler::new(start.partition, start.start),
                board: Arc::clone(&board),
            });
            if let Some((low, next)) = self.window.bounds_of(start.partition) {
                board.window_low.set(low);
                board.stored.set(next);
            }
        }
        if starts_again {
            let starts: Vec<_> = opened.partitions.iter().map(|start| (start.partition, start.start)).collect();
            for session in self.deps.sessions.all() {
                session.queue.reset(&opened.epoch.name, &starts, now);
            }
        }
        for queue in std::mem::take(&mut self.early) {
            self.serve(&queue, now);
        }
        // A partition that appears while sessions are live: each learns of it before its first chunk.
        for queue in std::mem::take(&mut self.live) {
            self.serve(&queue, now);
        }
    }
}

impl Handler<Tracked> for ReplayStore {
    type Result = ();

    fn handle(&mut self, tracked: Tracked, ctx: &mut Self::Context) {
        let Tracked { decoded, findings } = tracked;
        let origin = decoded.batch.origin;
        if origin.epoch != self.epoch {
            return;
        }
        let now = Instant::now();
        let Some(partition) = self.partitions.get_mut(&origin.partition) else {
            tracing::error!(partition = origin.partition, "batch of a partition that was not opened");
            return;
        };
        let judged = Judged { batch: &decoded.batch, verdicts: &decoded.verdicts, findings: &findings };
        let mut full = Vec::new();
        if let Err(misaligned) = partition.assembler.take(judged, |chunk| full.push(chunk)) {
            self.refuse_hole(origin.partition, misaligned);
        }
        for chunk in full {
            self.publish(chunk, now);
        }
        if decoded.duty_term != 0 {
            let settled = Settled { origin, except: decoded.held, duty_term: decoded.duty_term };
            self.unsettled.push(settled);
        }
        self.flush_when_due(ctx, now);
    }
}

impl Handler<Join> for ReplayStore {
    type Result = ();

    fn handle(&mut self, join: Join, _: &mut Self::Context) {
        self.serve(&join.queue, Instant::now());
    }
}

impl Handler<Leave> for ReplayStore {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Self::Context) {
        self.live.retain(|queue| queue.info.session != leave.session);
        self.early.retain(|queue| queue.info.session != leave.session);
    }
}

impl Handler<Heartbeat> for ReplayStore {
    type Result = ();

    fn handle(&mut self, _: Heartbeat, _: &mut Self::Context) {
        self.deps.pulse.touch();
    }
}
