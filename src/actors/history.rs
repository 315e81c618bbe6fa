//! `History`: reads what lies below the memory window into the queues of sessions that are behind, page by page.
//!
//! In: `ReadHistory`. Out: chunks into session queues; then the session asks `ReplayStore` again. One task per session that
//! is behind, and only some of them hold pages at a time, so that deep history never competes with live data. What is
//! asked of whom is decided by [`replay_plan`](crate::pipeline::replay_plan).

mod job;

pub use job::{Job, Turned};

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::unfold;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::sessions::Sessions;
use super::supervisor::{Guard, Pulse, supervised};
use super::tiers::HistoryTier;
use crate::board::Board;
use crate::messages::ReadHistory;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::page::{Page, TierError};
use crate::pipeline::replay_plan::{Limits, Source, Step};
use crate::spans::Spans;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    /// Records of a page, over all partitions of a session.
    pub page_records: u32,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// How long a session waits for a page before it is told.
    pub timeout: Duration,
    /// Sessions for which pages are read at a time; each holds one page's bytes, and a chunk per partition more.
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
    /// Where a resume that runs out of time is told.
    pub spans: Spans,
}

/// The actor.
#[derive(Debug)]
pub struct History {
    reader: Arc<Reader>,
    /// To the one future that drives all sessions: as futures of the actor each would be polled whenever one moves.
    asked: UnboundedSender<ReadHistory>,
    waiting: Option<UnboundedReceiver<ReadHistory>>,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(History);

impl History {
    /// A reader of history with nothing to do.
    pub fn new(deps: HistoryDeps, pulse: Pulse, guard: Guard) -> Self {
        let permits = Semaphore::new(deps.settings.concurrency.max(1));
        #[allow(clippy::disallowed_methods, reason = "a session asks once and waits for the answer")]
        let (asked, waiting) = unbounded_channel();
        Self { reader: Arc::new(Reader { deps, permits }), asked, waiting: Some(waiting), pulse, _guard: guard }
    }
}

impl Actor for History {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(waiting) = self.waiting.take() {
            let reader = Arc::clone(&self.reader);
            let asked = unfold(waiting, async |mut waiting| waiting.recv().await.map(|asked| (asked, waiting)));
            ctx.spawn(
                async move { asked.for_each_concurrent(None, |asked| reader.serve(asked)).await }.into_actor(self),
            );
        }
        // Whom a predecessor has left waiting.
        for session in self.reader.deps.sessions.all() {
            session.queue.ask_again();
        }
    }
}

impl Handler<ReadHistory> for History {
    type Result = ();

    fn handle(&mut self, asked: ReadHistory, _: &mut Self::Context) {
        if !self.pulse.retired() {
            // Fails only when the actor has ended: its successor has the session ask again.
            let _ = self.asked.send(asked);
        }
    }
}

#[derive(Debug)]
struct Reader {
    deps: HistoryDeps,
    permits: Semaphore,
}

impl Reader {
    /// Reads until the session has reached the window, its queue is full, or it wants something else.
    async fn serve(&self, asked: ReadHistory) {
        let HistoryDeps { settings, board, metrics, spans, .. } = &self.deps;
        let Some(mut job) = Job::new(asked, self.deps.redis.is_some(), board) else { return };
        let limits = Limits { records: settings.page_records, bytes: settings.page_bytes };
        let (mut moved_at, mut attempt) = (Instant::now(), 0);
        while let Some(steps) = job.next(limits, board, Instant::now()) {
            // Held until the pages are queued, for that long they take memory.
            let Ok(permit) = self.permits.acquire().await else { return };
            let answers = join_all(steps.iter().map(|step| self.ask(&job, step))).await;
            let turned = job.absorb(&steps, answers, board, metrics, Instant::now());
            drop(permit);
            match turned {
                Turned::Over => return,
                Turned::Moved => (moved_at, attempt) = (Instant::now(), 0),
                Turned::Stuck if moved_at.elapsed() >= settings.timeout => {
                    if !job.out_of_time(board, metrics, spans, Instant::now()) {
                        return;
                    }
                }
                Turned::Stuck => {
                    tokio::time::sleep(RETRY.delay(attempt, fastrand::f64())).await;
                    attempt += 1;
                    job.retry();
                }
            }
        }
    }

    async fn ask(&self, job: &Job, step: &Step) -> Option<Result<Page, TierError>> {
        let (source, request) = job.request(step)?;
        let (tier, limit) = match source {
            Source::Redis => (self.deps.redis.as_ref()?, REDIS_DEADLINE.min(self.deps.settings.timeout)),
            Source::Kafka => (&self.deps.kafka, self.deps.settings.timeout),
        };
        Some(tier.page(request, Instant::now() + limit).await)
    }
}
