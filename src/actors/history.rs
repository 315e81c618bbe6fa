//! `History`: reads what lies below the memory window into the queues of sessions that are behind, page by page.
//!
//! In: `ReadHistory`. Out: chunks into session queues; then the session asks `ReplayStore` again. One task per session that
//! is behind, and no more than a few tiers asked at a time, so that deep history never competes with live data. What is
//! asked of whom is decided by [`replay_plan`](crate::pipeline::replay_plan).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;

use super::session_queue::{Feeder, SessionQueue};
use super::sessions::Sessions;
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Board;
use crate::messages::ReadHistory;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::pipeline::replay_plan::{Limits, Line, Patience, Source, Step, Tier, Turn, plan};
use crate::pipeline::window::Chunk;
use crate::wire::control::{ErrorCode, FrameError};

/// A tier below the memory window.
pub trait HistoryTier: Send + Sync + std::fmt::Debug {
    /// A page, at most the deadline away.
    fn page(&self, request: PageRequest, deadline: Instant) -> BoxFuture<'static, Result<Page, TierError>>;
}

/// Where a time begins in the log.
pub trait LogTimes: Send + Sync + std::fmt::Debug {
    /// Partition and first offset at `time_ms` or later, of all partitions.
    fn offsets_at(
        &self,
        epoch: u64,
        time_ms: i64,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Vec<(i32, i64)>, TierError>>;
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    /// Records of a page, over all partitions of a session.
    pub page_records: u32,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// How long a session waits for a page before it is told.
    pub timeout: Duration,
    /// Pages that are asked for at a time, over all sessions.
    pub concurrency: usize,
}

/// Redis is only the faster one of two: it gets less time.
const REDIS_DEADLINE: Duration = Duration::from_secs(2);
/// Between questions to a tier that fails.
const RETRY: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) };

/// Everything that a new generation is made of.
#[derive(Clone, Debug)]
pub struct HistoryDeps {
    /// The bounds.
    pub settings: HistorySettings,
    /// Redis, when it is configured.
    pub redis: Option<Arc<dyn HistoryTier>>,
    /// Kafka.
    pub kafka: Arc<dyn HistoryTier>,
    /// The open sessions.
    pub sessions: Sessions,
    /// The positions.
    pub board: Board,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The actor.
#[derive(Debug)]
pub struct History {
    reader: Arc<Reader>,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(History);

impl History {
    /// A reader of history with nothing to do.
    pub fn new(deps: HistoryDeps, pulse: Pulse, guard: Guard) -> Self {
        let permits = Semaphore::new(deps.settings.concurrency.max(1));
        Self { reader: Arc::new(Reader { deps, permits }), pulse, _guard: guard }
    }
}

impl Actor for History {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        // Whom a predecessor has left waiting.
        for session in self.reader.deps.sessions.all() {
            session.queue.ask_again();
        }
    }
}

impl Handler<ReadHistory> for History {
    type Result = ();

    fn handle(&mut self, asked: ReadHistory, ctx: &mut Self::Context) {
        if !self.pulse.retired() {
            let reader = Arc::clone(&self.reader);
            ctx.spawn(async move { reader.serve(asked).await }.into_actor(self));
        }
    }
}

#[derive(Debug)]
struct Reader {
    deps: HistoryDeps,
    permits: Semaphore,
}

/// How a session's turn ended.
enum Turned {
    /// Something was sent.
    Moved,
    /// No tier had anything to give.
    Stuck,
    /// The session is not served any more.
    Over,
}

/// A session's lines, and how patient it still is.
struct Job {
    asked: ReadHistory,
    epoch_name: Arc<str>,
    lines: Vec<Line>,
    turn: Turn,
    patience: Patience,
}

impl Reader {
    /// Reads until the session has reached the window, its queue is full, or it wants something else.
    async fn serve(&self, asked: ReadHistory) {
        let epoch = self.deps.board.epoch();
        if epoch.number != asked.epoch {
            return;
        }
        let lines = asked.below.iter().map(|below| self.line(below.partition, below.until)).collect();
        let epoch_name = epoch.name.as_str().into();
        let mut job = Job { asked, epoch_name, lines, turn: Turn::default(), patience: Patience::Left };
        let (mut moved_at, mut attempt) = (Instant::now(), 0);
        loop {
            match self.turn(&mut job).await {
                Turned::Over => return,
                Turned::Moved => (moved_at, attempt) = (Instant::now(), 0),
                Turned::Stuck if moved_at.elapsed() >= self.deps.settings.timeout => {
                    if !self.out_of_time(&mut job) {
                        return;
                    }
                }
                Turned::Stuck => {
                    tokio::time::sleep(RETRY.delay(attempt, fastrand::f64())).await;
                    attempt += 1;
                    job.lines.iter_mut().for_each(Line::retry);
                }
            }
        }
    }

    fn line(&self, partition: i32, until: i64) -> Line {
        let redis = if self.deps.redis.is_some() { Tier::unknown() } else { Tier::off() };
        let kafka = match self.deps.board.partition(partition).low_watermark.get() {
            Some(low) => Tier::covers(low, i64::MAX),
            None => Tier::unknown(),
        };
        Line { partition, cursor: 0, window: Some((until, i64::MAX)), redis, kafka }
    }

    /// One page.
    async fn turn(&self, job: &mut Job) -> Turned {
        let queue = Arc::clone(&job.asked.queue);
        let Some(feeder) = self.open(&queue, job) else { return Turned::Over };
        job.lines.retain_mut(|line| {
            line.cursor = feeder.sent(line.partition).unwrap_or(i64::MAX);
            line.window.is_some_and(|(low, _)| line.cursor < low)
        });
        if job.lines.is_empty() || feeder.is_full() || feeder.is_capped() {
            feeder.behind();
            queue.ask_if_drained();
            return Turned::Over;
        }
        drop(feeder);
        let HistorySettings { page_records, page_bytes, .. } = self.deps.settings;
        let planned = plan(&job.lines, Limits { records: page_records, bytes: page_bytes }, job.turn, job.patience);
        job.turn = planned.turn;
        let answers = join_all(planned.steps.iter().map(|step| self.ask(*step, job))).await;
        let Some(mut feeder) = self.open(&queue, job) else { return Turned::Over };
        let mut moved = false;
        let mut pages = Vec::with_capacity(answers.len());
        for (step, answer) in planned.steps.iter().zip(answers) {
            match (*step, answer) {
                (Step::Gap { partition, to, reason, .. }, _) => {
                    self.deps.metrics.lost(feeder.gap(partition, to, reason));
                    moved = true;
                }
                (Step::Read { source, partition, until, .. }, Some(answer)) => {
                    let Some(line) = job.lines.iter_mut().find(|line| line.partition == partition) else { continue };
                    // Whatever it teaches brings the plan on.
                    moved |= answer.is_ok();
                    if line.answered(source, until, &answer) {
                        pages.extend(answer.map(|page| VecDeque::from(page.chunks)));
                    }
                }
                (Step::Read { .. }, None) => {}
            }
        }
        interleave(&mut feeder, pages);
        self.deps.metrics.delivered_records.inc_by(feeder.records());
        feeder.wake();
        if moved { Turned::Moved } else { Turned::Stuck }
    }

    /// Opens the session's queue, unless it wants something else by now or its epoch is over.
    fn open<'a>(&self, queue: &'a SessionQueue, job: &Job) -> Option<Feeder<'a>> {
        let feeder = queue.history_feeder(job.asked.ticket, Instant::now())?;
        // Looked at under the queue's lock: a reset that comes after this finds the ticket of this job.
        (self.deps.board.epoch_number() == job.asked.epoch).then_some(feeder)
    }

    async fn ask(&self, step: Step, job: &Job) -> Option<Result<Page, TierError>> {
        let Step::Read { source, .. } = step else { return None };
        let request = step.request(job.asked.epoch, &job.epoch_name)?;
        let _permit = self.permits.acquire().await.ok()?;
        let (tier, limit) = match source {
            Source::Redis => (self.deps.redis.as_ref()?, REDIS_DEADLINE.min(self.deps.settings.timeout)),
            Source::Kafka => (&self.deps.kafka, self.deps.settings.timeout),
            Source::Memory => return None,
        };
        Some(tier.page(request, Instant::now() + limit).await)
    }

    /// The budget is spent without a page. A client that can ask on is told and keeps its cursor; for one that cannot, the
    /// rest is named as lost. Whether to go on.
    fn out_of_time(&self, job: &mut Job) -> bool {
        let queue = Arc::clone(&job.asked.queue);
        let Some(mut feeder) = self.open(&queue, job) else { return false };
        if job.patience == Patience::Left {
            self.deps.metrics.replay_timeouts.inc();
        }
        if feeder.can_ask_on() {
            let seconds = self.deps.settings.timeout.as_secs();
            let message = format!("history could not be read within {seconds} s; resume from the same cursor later");
            feeder.tell(&FrameError::new(ErrorCode::ReplayTimeout, message).to_json());
            feeder.park();
            return false;
        }
        job.patience = Patience::Spent;
        true
    }
}

/// Queues pages of several partitions in turn, a chunk at a time.
fn interleave(feeder: &mut Feeder<'_>, mut pages: Vec<VecDeque<Arc<Chunk>>>) {
    while !pages.is_empty() {
        pages.retain_mut(|page| match page.pop_front() {
            Some(chunk) => {
                let fed = feeder.chunk(&chunk);
                !fed.capped
            }
            None => false,
        });
    }
}
