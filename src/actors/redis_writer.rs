//! `RedisWriter`: writes chunks to Redis behind the live stream, in batches, for ever.
//!
//! In: [`ChunksWaiting`], chunks from the queue that it shares with the store. Out: Redis; `Settled`, by the queue. One
//! batch is on its way at a time. While there is nothing to write it looks once a second whether Redis is there. It must
//! not know what the chunks hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, SpawnHandle, WrapFuture as _};

use super::redis_queue::{LentChunks, RedisQueue};
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Epoch;
use crate::messages::ChunksWaiting;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::write_order::TakeLimits;
use crate::redis::fault::Failure;
use crate::redis::keys::Keys;
use crate::redis::state::{Operation, RedisState};
use crate::redis::writer::{Batch, Writer};

/// Most of one batch: what Redis takes in a few milliseconds.
const BATCH: TakeLimits = TakeLimits { chunks: 256, bytes: 4 << 20 };
/// How often it looks whether Redis is there, when it has nothing to write.
const LOOK: Duration = Duration::from_secs(1);

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct RedisWriterDeps {
    /// The chunks.
    pub queue: RedisQueue,
    /// Names of streams.
    pub keys: Keys,
    /// How long a batch may take.
    pub deadline: Duration,
    /// The waits after a batch of which nothing was written.
    pub backoff: Backoff,
    /// What is known about Redis.
    pub state: RedisState,
    /// Where the fill of the streams is shown.
    pub metrics: Arc<Metrics>,
}

/// The actor.
#[derive(Debug)]
pub struct RedisWriter {
    deps: RedisWriterDeps,
    /// Absent while a batch is on its way.
    writer: Option<Writer>,
    /// Failures in a row of everything, and when the next try may be.
    failures: u32,
    pause_until: Option<Instant>,
    asked: Instant,
    timer: Option<SpawnHandle>,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(RedisWriter);

impl RedisWriter {
    /// A writer with nothing on its way. What an earlier one had on its way is tried again.
    pub fn new(deps: RedisWriterDeps, writer: Writer, pulse: Pulse, guard: Guard) -> Self {
        deps.queue.take_back();
        let (failures, pause_until, timer) = (0, None, None);
        Self { deps, writer: Some(writer), failures, pause_until, asked: Instant::now(), timer, pulse, _guard: guard }
    }

    /// Writes what waits, and comes back when there may be more.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if self.pulse.retired() || self.writer.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(until) = self.pause_until.filter(|until| *until > now) {
            self.come_back(until, now, ctx);
        } else if let Some((epoch, lent)) = self.deps.queue.lend(now, BATCH) {
            self.write(epoch, lent, ctx);
        } else if let Some(due) = self.deps.queue.next_due() {
            self.come_back(due, now, ctx);
        }
    }

    fn come_back(&mut self, at: Instant, now: Instant, ctx: &mut Context<Self>) {
        // At least a moment: a due time that has just passed must not spin.
        let wait = at.saturating_duration_since(now).max(Duration::from_millis(1));
        self.timer = Some(ctx.run_later(wait, |this, ctx| {
            this.timer = None;
            this.pump(ctx);
        }));
    }

    fn write(&mut self, epoch: Epoch, lent: Vec<LentChunks>, ctx: &mut Context<Self>) {
        let Some(mut writer) = self.writer.take() else { return };
        let key = |partition| self.deps.keys.stream(epoch.number, &epoch.name, partition);
        let batches: Option<Vec<Batch>> = lent
            .iter()
            .map(|LentChunks { partition, chunks }| {
                Some(Batch { key: key(*partition)?, partition: *partition, chunks: chunks.clone() })
            })
            .collect();
        let deadline = Instant::now() + self.deps.deadline;
        let state = self.deps.state.clone();
        let writing = async move {
            let results = match &batches {
                Some(batches) => writer.write(batches, deadline).await,
                None => {
                    state.failed(Operation::Write, &Failure::nameless_topic());
                    lent.iter().map(|_| Err(Failure::nameless_topic())).collect()
                }
            };
            (writer, lent, results)
        };
        ctx.spawn(writing.into_actor(self).map(move |(writer, lent, results), this, ctx| {
            this.writer = Some(writer);
            this.finish(&epoch, &lent, results);
            this.pump(ctx);
        }));
    }

    fn finish(&mut self, epoch: &Epoch, lent: &[LentChunks], results: Vec<Result<(), Failure>>) {
        let now = Instant::now();
        self.asked = now;
        let mut any = false;
        for (LentChunks { partition, .. }, result) in lent.iter().zip(results) {
            match result {
                Ok(()) => {
                    any = true;
                    self.deps.queue.written(epoch, *partition);
                }
                Err(_) => self.deps.queue.failed(epoch, *partition, now, fastrand::f64()),
            }
        }
        if !self.deps.queue.has_failures() {
            self.deps.state.succeeded();
        }
        if any {
            self.failures = 0;
            self.pause_until = None;
        } else {
            self.pause_until = Some(now + self.deps.backoff.delay(self.failures, fastrand::f64()));
            self.failures = self.failures.saturating_add(1);
        }
        self.tell();
    }

    /// One line in the log when Redis begins to fail, fails in another way, or works again.
    fn tell(&self) {
        match (self.deps.state.news(), self.deps.state.failing()) {
            (true, Some(failing)) => {
                let fault = failing.failure.fault.as_str();
                tracing::warn!(fault, error = %failing.failure, "redis does not take history; it is tried again");
            }
            (true, None) => tracing::info!("redis takes history"),
            (false, _) => {}
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        self.show_fill();
        if self.asked.elapsed() < LOOK / 2 || self.pause_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let Some(mut writer) = self.writer.take() else { return };
        let deadline = Instant::now() + self.deps.deadline;
        let looking = async move {
            writer.ping(deadline).await;
            writer
        };
        ctx.spawn(looking.into_actor(self).map(|writer, this, ctx| {
            this.writer = Some(writer);
            this.asked = Instant::now();
            this.tell();
            this.pump(ctx);
        }));
    }

    fn show_fill(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if let Some((epoch, partitions)) = self.deps.queue.lanes() {
            let stream = |partition: &i32| self.deps.keys.stream(epoch.number, &epoch.name, *partition);
            let streams: Vec<String> = partitions.iter().filter_map(stream).collect();
            writer.forget_all_but(|key| streams.iter().any(|stream| stream == key));
        }
        self.deps.metrics.retention_used.with_label_values(&["redis"]).set(writer.used_ratio());
    }
}

impl Actor for RedisWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, Self::look);
        // The first look is at once, so that health knows.
        self.asked = Instant::now().checked_sub(LOOK).unwrap_or(self.asked);
        self.look(ctx);
    }
}

impl Handler<ChunksWaiting> for RedisWriter {
    type Result = ();

    fn handle(&mut self, _: ChunksWaiting, ctx: &mut Self::Context) {
        self.pump(ctx);
    }
}
