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

/// Redis is only the faster one of two: it gets less time, and leaves half of it to Kafka.
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
            // Held until the pages are queued, for that long they take memory. To wait for it is to wait for a page.
            let permit = if steps.iter().any(|step| matches!(step, Step::Read { .. })) {
                match tokio::time::timeout_at((moved_at + settings.timeout).into(), self.permits.acquire()).await {
                    Ok(Ok(permit)) => Some(permit),
                    Ok(Err(_closed)) => return,
                    Err(_elapsed) => {
                        job.give_up();
                        if !job.out_of_time(board, metrics, spans, Instant::now()) {
                            return;
                        }
                        continue;
                    }
                }
            } else {
                None
            };
            let answers = join_all(steps.iter().map(|step| self.ask(&job, step))).await;
            let turned = job.absorb(&steps, answers, board, metrics, Instant::now());
            drop(permit);
            match turned {
                Turned::Over => return,
                Turned::Moved => (moved_at, attempt) = (Instant::now(), 0),
                // Nobody is asked again yet: as long as Redis fails, Kafka has its turn.
                Turned::Elsewhere => {}
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
            Source::Redis => (self.deps.redis.as_ref()?, REDIS_DEADLINE.min(self.deps.settings.timeout / 2)),
            Source::Kafka => (&self.deps.kafka, self.deps.settings.timeout),
        };
        Some(tier.page(request, Instant::now() + limit).await)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::actors::link::Link;
    use crate::actors::session_queue::{Beginning, Feed, QueueLimits, Request, SessionInfo, SessionQueue, SlowPolicy};
    use crate::board::Epoch;
    use crate::messages::Below;
    use crate::pipeline::page::PageRequest;
    use crate::pipeline::window::Chunk;
    use crate::wire::control::{Dialect, From};
    use crate::wire::stream_frame::FrameBuilder;

    /// A tier that never answers.
    #[derive(Debug)]
    struct Hangs;

    impl HistoryTier for Hangs {
        fn page(&self, _: PageRequest, deadline: Instant) -> BoxFuture<'static, Result<Page, TierError>> {
            Box::pin(async move {
                tokio::time::sleep_until(deadline.into()).await;
                Err(TierError::Timeout)
            })
        }
    }

    /// A tier that cannot be reached, and counts how often that was tried.
    #[derive(Debug, Default)]
    struct Gone(std::sync::atomic::AtomicU32);

    impl HistoryTier for Gone {
        fn page(&self, _: PageRequest, _: Instant) -> BoxFuture<'static, Result<Page, TierError>> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::pin(async { Err(TierError::Unavailable("gone".into())) })
        }
    }

    /// A tier that has everything.
    #[derive(Debug)]
    struct Whole;

    impl HistoryTier for Whole {
        fn page(&self, asked: PageRequest, _: Instant) -> BoxFuture<'static, Result<Page, TierError>> {
            let (first, next) = (asked.from, asked.until.min(asked.from + i64::from(asked.max_records)));
            let mut builder = FrameBuilder::new();
            (first..next).for_each(|offset| builder.record(offset, 0, b"\0value", &[]));
            let frame = builder.seal(asked.partition, first, next);
            let chunk = Chunk::new(asked.partition, first, next, u32::try_from(next - first).unwrap(), frame);
            Box::pin(async { Ok(Page { chunks: vec![Arc::new(chunk)], low: None }) })
        }
    }

    fn reader(
        redis: Option<Arc<dyn HistoryTier>>,
        kafka: Arc<dyn HistoryTier>,
        timeout: Duration,
        epoch: &Epoch,
    ) -> (Reader, Arc<Metrics>) {
        let (board, metrics) = (Board::new(), Arc::new(Metrics::new().unwrap()));
        board.open_epoch(epoch.clone());
        let settings = HistorySettings { page_records: 10, page_bytes: 1 << 20, timeout, concurrency: 1 };
        let (sessions, spans) = (Sessions::default(), Spans::default());
        let deps = HistoryDeps { settings, redis, kafka, sessions, board, metrics: Arc::clone(&metrics), spans };
        (Reader { deps, permits: Semaphore::new(1) }, metrics)
    }

    fn asked(queue: &Arc<SessionQueue>) -> ReadHistory {
        let ticket = queue.feeder(Instant::now()).unwrap().await_history();
        let below = vec![Below { partition: 0, until: 50 }];
        ReadHistory { queue: Arc::clone(queue), ticket, epoch: 1, below }
    }

    #[actix::test]
    async fn while_redis_fails_kafka_gives_it_and_redis_is_not_asked_for_every_page() {
        let epoch = Epoch { number: 1, name: "e".into() };
        for dialect in [Dialect::V1, Dialect::V2] {
            let redis = Arc::new(Gone::default());
            let (reader, metrics) = reader(Some(redis.clone()), Arc::new(Whole), Duration::from_secs(60), &epoch);
            let queue = session(1, dialect, &epoch);
            reader.serve(asked(&queue)).await;
            assert_eq!(queue.snapshot(Instant::now()).positions[0].sent, 50, "{dialect:?}");
            assert_eq!((metrics.replay_timeouts.get(), metrics.delivered_records.get()), (0, 50), "{dialect:?}");
            assert_eq!(redis.0.load(std::sync::atomic::Ordering::Relaxed), 1, "{dialect:?}");
        }
    }

    #[actix::test]
    async fn where_both_fail_it_ends_with_the_budget() {
        let epoch = Epoch { number: 1, name: "e".into() };
        let (redis, kafka) = (Arc::new(Gone::default()), Arc::new(Gone::default()));
        let (reader, metrics) = reader(Some(redis), kafka, Duration::from_secs(1), &epoch);
        let queue = session(1, Dialect::V2, &epoch);
        let begun = Instant::now();
        reader.serve(asked(&queue)).await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!((metrics.replay_timeouts.get(), queue.snapshot(Instant::now()).feed), (1, Feed::Parked));
    }

    /// A session of which everything lies below the window.
    fn session(number: u64, dialect: Dialect, epoch: &Epoch) -> Arc<SessionQueue> {
        let (now, address) = (Instant::now(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let info = SessionInfo { session: number, dialect, address, opened: now, trace: None };
        let (queued_bytes, unapplied_bytes, slow) = (1 << 20, 1 << 20, SlowPolicy::CatchUp);
        let limits = QueueLimits { queued_bytes, unapplied_bytes, page_records: 100, max_total: 100, slow };
        let queue = Arc::new(SessionQueue::new(info, limits, Link::default()));
        let start = Beginning { partition: 0, from: 0, end: 50, oldest: false };
        queue.begin(epoch, &[start], Request::new(From::Cursor), now);
        queue
    }

    #[actix::test]
    async fn who_waits_behind_others_for_a_tier_that_hangs_is_told_within_the_budget_as_well() {
        const BUDGET: Duration = Duration::from_secs(1);
        const SESSIONS: u64 = 12;
        let epoch = Epoch { number: 1, name: "e".into() };
        let (reader, metrics) = reader(None, Arc::new(Hangs), BUDGET, &epoch);
        let dialect = |number| if number % 2 == 0 { Dialect::V2 } else { Dialect::V1 };
        let queues: Vec<_> = (0..SESSIONS).map(|number| session(number, dialect(number), &epoch)).collect();
        let asked = queues.iter().map(|queue| reader.serve(asked(queue)));
        let begun = Instant::now();
        join_all(asked).await;
        let took = begun.elapsed();
        assert!(took >= BUDGET && took < BUDGET * 4, "{took:?}: one after the other would take {:?}", BUDGET * 12);
        assert_eq!(metrics.replay_timeouts.get(), SESSIONS);
        for (number, queue) in (0..).zip(&queues) {
            let state = queue.snapshot(Instant::now());
            match dialect(number) {
                Dialect::V2 => assert_eq!((state.feed, state.positions[0].sent), (Feed::Parked, 0), "it may ask on"),
                // It cannot, and was told of the loss.
                Dialect::V1 => assert_eq!(state.positions[0].sent, 50),
            }
        }
    }
}
