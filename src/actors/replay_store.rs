//! `ReplayStore`: keeps the memory window, fans live chunks out to joined sessions, answers joins, settles.
//!
//! In: `PartitionsOpened`, `Tracked`, `Join`, `Leave`. Out: chunks into session queues, `Settled` to `KafkaIngest`. Replay
//! and live meet in this actor's mailbox only, so they can neither overlap nor leave a hole. It never waits for anybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};

use super::fan_out::{FanOut, Hole};
use super::link::Link;
use super::redis_queue::RedisQueue;
use super::sessions::Sessions;
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Board;
use crate::messages::{Join, Leave, PartitionsOpened, ReadHistory, Settled, Tracked};
use crate::metrics::Metrics;
use crate::pipeline::pacing::{Flush, Pacer};
use crate::pipeline::window::Window;
use crate::spans::Spans;

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
    /// Who reads what lies below the window.
    pub history: Link<ReadHistory>,
    /// The positions.
    pub board: Board,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where resumes are told.
    pub spans: Spans,
    /// Chunks for Redis, where there is one.
    pub redis: Option<RedisQueue>,
    /// Touched at each heartbeat.
    pub pulse: Pulse,
    /// Reports the actor's end.
    pub guard: Guard,
}

/// The actor.
#[derive(Debug)]
pub struct ReplayStore {
    fan_out: FanOut,
    pacer: Pacer,
    timer: Option<SpawnHandle>,
    settled: Link<Settled>,
    history: Link<ReadHistory>,
    metrics: Arc<Metrics>,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(ReplayStore);

impl ReplayStore {
    /// A store that knows no partition yet.
    pub fn new(deps: ReplayStoreDeps) -> Self {
        let ReplayStoreDeps { settings, generation, settled, sessions, history, board, metrics, .. } = deps;
        let ReplayStoreDeps { spans, redis, pulse, guard, .. } = deps;
        let window = Window::new(settings.window_bytes, settings.window_records);
        let fan_out = FanOut::new(generation, window, sessions, board, Arc::clone(&metrics));
        Self {
            fan_out: fan_out.with_redis(redis).with_spans(spans),
            pacer: Pacer::new(settings.flush_interval),
            timer: None,
            settled,
            history,
            metrics,
            pulse,
            _guard: guard,
        }
    }

    fn flush(&mut self, now: Instant) {
        if self.pulse.retired() {
            return;
        }
        match self.fan_out.flush(now) {
            Ok(settled) => {
                for settled in settled {
                    // Nobody there: its next generation reads the range again.
                    self.settled.send(settled);
                }
            }
            Err(hole) => self.refuse(hole),
        }
        self.pacer.flushed(now, self.fan_out.reached());
    }

    fn ask_history(&mut self) {
        for wanted in self.fan_out.wanted() {
            // Nobody there: its next generation asks for every session that waits.
            self.history.send(wanted);
        }
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

    /// Ends this generation: going on would be a silent hole. The supervisor restarts the pipeline, which reads the range
    /// again.
    #[allow(clippy::panic, reason = "the way for an actor to ask for a restart with fresh state")]
    fn refuse(&self, hole: Hole) -> ! {
        self.metrics.store_misaligned.inc();
        panic!("{hole}");
    }
}

impl Actor for ReplayStore {
    type Context = Context<Self>;
}

impl Handler<PartitionsOpened> for ReplayStore {
    type Result = ();

    fn handle(&mut self, opened: PartitionsOpened, _: &mut Self::Context) {
        // One that comes back from a hang has a successor, which tells sessions and positions.
        if !self.pulse.retired() {
            self.fan_out.open(&opened, Instant::now());
            self.ask_history();
        }
    }
}

impl Handler<Tracked> for ReplayStore {
    type Result = ();

    fn handle(&mut self, tracked: Tracked, ctx: &mut Self::Context) {
        if self.pulse.retired() {
            return;
        }
        let now = Instant::now();
        if let Err(hole) = self.fan_out.take(tracked, now) {
            self.refuse(hole);
        }
        self.flush_when_due(ctx, now);
    }
}

impl Handler<Join> for ReplayStore {
    type Result = ();

    fn handle(&mut self, join: Join, _: &mut Self::Context) {
        if !self.pulse.retired() {
            self.fan_out.serve(&join.queue, Instant::now());
            self.ask_history();
        }
    }
}

impl Handler<Leave> for ReplayStore {
    type Result = ();

    fn handle(&mut self, leave: Leave, _: &mut Self::Context) {
        self.fan_out.leave(leave.session);
    }
}
