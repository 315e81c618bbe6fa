//! The whole graph: who is spawned, on which thread, who sends what to whom, and what bounds it.
//!
//! The only place that names every actor. [`EDGES`] is what `dashstream topology` prints and the architecture document
//! shows; [`groups`] spawns the same, downstream first.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use schemars::JsonSchema;

use super::decode_policy::{DecodePolicy, DecodePolicyDeps};
use super::dlq_publisher::{self, DlqPublisher, DlqPublisherDeps, DlqRetry};
use super::history::{History, HistoryDeps};
use super::kafka_ingest::{self, IngestParts, KafkaIngest};
use super::lag_monitor::{LagMonitor, LagParts};
use super::letter_queue::Letters;
use super::link::Link;
use super::redis_writer::{RedisWriter, RedisWriterDeps};
use super::replay_store::{ReplayStore, ReplayStoreDeps, ReplayStoreSettings};
use super::sequence_tracker::{SequenceTracker, SequenceTrackerDeps};
use super::sessions::Sessions;
use super::supervisor::{ChildSpec, GroupSpec, Pulse, Running, StartContext, StartError};
use crate::board::Board;
use crate::kafka::dlq_producer::DlqProducer;
use crate::messages::{
    ChunksWaiting, Decoded, Ingested, Join, Leave, LettersWaiting, PartitionsOpened, ReadHistory, Settled, Tracked,
};
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::dead_letter::LetterContext;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::restart::{Intensity, Policy, Strategy};
use crate::pipeline::sequence::Limits;
use crate::redis::settings::RedisSettings;
use crate::redis::writer::Writer;
use crate::spans::Spans;

/// A message on its way between two actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who sends.
    pub from: &'static str,
    /// Who receives.
    pub to: &'static str,
    /// What.
    pub message: &'static str,
    /// What bounds the messages that wait.
    pub bound: &'static str,
}

const fn edge(from: &'static str, to: &'static str, message: &'static str, bound: &'static str) -> Edge {
    Edge { from, to, message, bound }
}

/// Sessions for which history is read at a time, in the edges' words.
pub const HISTORY_CONCURRENCY: usize = 128;

/// Every edge of the graph, in the order of the flow.
pub const EDGES: &[Edge] = &[
    edge("Kafka", "KafkaIngest", "records", "kafka prefetch of 16 MiB"),
    edge("KafkaIngest", "ReplayStore", "PartitionsOpened", "one per start and new partition"),
    edge("KafkaIngest", "DecodePolicy", "Ingested", "kafka.in_flight_bytes, plus one batch"),
    edge("DecodePolicy", "SequenceTracker", "Decoded", "the same bytes: the permit rides inside"),
    edge("SequenceTracker", "ReplayStore", "Tracked", "the same bytes"),
    edge("DecodePolicy", "DlqPublisher", "LettersWaiting", "one; the letters: dlq.queue_letters, dlq.queue_bytes"),
    edge("DlqPublisher", "Kafka", "dead letters", "the same letters"),
    edge("ReplayStore", "KafkaIngest", "Settled", "never awaited; by the records in flight"),
    edge("ReplayStore", "RedisWriter", "ChunksWaiting", "one; the chunks: redis.queue_bytes, redis.queue_chunks"),
    edge("RedisWriter", "Redis", "chunks", "one batch of 4 MiB at a time, plus one chunk"),
    edge("RedisWriter", "KafkaIngest", "Settled", "never awaited; by the records in flight"),
    edge("DlqPublisher", "KafkaIngest", "Settled", "never awaited; by the letters in flight"),
    edge("ClientSession", "ReplayStore", "Join", "one per session"),
    edge("ClientSession", "ReplayStore", "Leave", "one per session"),
    edge("ReplayStore", "History", "ReadHistory", "one per session that is behind the memory window"),
    edge("History", "ClientSession", "chunks", "web.session_queue_bytes, plus one page"),
    edge(
        "Kafka",
        "History",
        "pages",
        "for 128 sessions at a time, replay.history_readers read; replay.page_records for each",
    ),
    edge("Redis", "History", "pages", "for the same 128 sessions, redis.pool_size read; replay.page_records for each"),
    edge("ReplayStore", "ClientSession", "chunks", "web.session_queue_bytes, plus one chunk"),
    edge("ClientSession", "browser", "frames", "128 KiB socket buffer"),
    edge("Kafka", "LagMonitor", "watermarks", "one poll at a time"),
];

/// The supervised actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ActorName {
    /// Reads the topic, and commits.
    KafkaIngest,
    /// Judges records.
    DecodePolicy,
    /// Checks sequence numbers.
    SequenceTracker,
    /// Holds the memory window, and fans out.
    ReplayStore,
    /// Writes dead letters.
    DlqPublisher,
    /// Looks how far ingest is behind.
    LagMonitor,
    /// Writes history to Redis.
    RedisWriter,
    /// Reads history for sessions that are behind the memory window.
    History,
}

impl ActorName {
    /// The name in health, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KafkaIngest => "KafkaIngest",
            Self::DecodePolicy => "DecodePolicy",
            Self::SequenceTracker => "SequenceTracker",
            Self::ReplayStore => "ReplayStore",
            Self::DlqPublisher => "DlqPublisher",
            Self::LagMonitor => "LagMonitor",
            Self::RedisWriter => "RedisWriter",
            Self::History => "History",
        }
    }
}

/// The addresses that outlive every generation.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// `DecodePolicy`.
    pub ingested: Link<Ingested>,
    /// `SequenceTracker`.
    pub decoded: Link<Decoded>,
    /// `ReplayStore`.
    pub tracked: Link<Tracked>,
    /// `ReplayStore`.
    pub opened: Link<PartitionsOpened>,
    /// `ReplayStore`.
    pub join: Link<Join>,
    /// `ReplayStore`.
    pub leave: Link<Leave>,
    /// `History`.
    pub history: Link<ReadHistory>,
    /// `DlqPublisher`.
    pub dead_letters: Link<LettersWaiting>,
    /// `RedisWriter`.
    pub chunks: Link<ChunksWaiting>,
    /// `KafkaIngest`.
    pub settled: Link<Settled>,
    /// `KafkaIngest`, for the shutdown.
    pub drain_ingest: Link<kafka_ingest::Drain>,
    /// `DlqPublisher`, for the shutdown.
    pub drain_letters: Link<dlq_publisher::Drain>,
}

/// Restart limits of every group.
#[derive(Clone, Copy, Debug)]
pub struct RestartSettings {
    /// Restarts that are tolerated per window.
    pub intensity: Intensity,
    /// The waits before restarts.
    pub backoff: Backoff,
    /// How long an actor may leave a heartbeat unanswered.
    pub heartbeat: Duration,
}

/// What the actors are made of. Everything here outlives every generation.
#[derive(Clone)]
pub struct Parts {
    /// Addresses.
    pub links: Links,
    /// Positions.
    pub board: Board,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Spans.
    pub spans: Spans,
    /// Open sessions.
    pub sessions: Sessions,
    /// Dead letters that wait or are on their way.
    pub letter_queue: Letters,
    /// `KafkaIngest`.
    pub ingest: IngestParts,
    /// `DecodePolicy`.
    pub judge: JudgeSettings,
    /// Keys the hashes of threads.
    pub hash_seed: u64,
    /// `DecodePolicy`.
    pub letters: LetterContext,
    /// `DecodePolicy`: whether ingest stands still at a record that cannot be processed.
    pub pause: bool,
    /// `ReplayStore`.
    pub store: ReplayStoreSettings,
    /// `ReplayStore`, `RedisWriter`: the tier below the memory window, where there is one.
    pub redis: Option<RedisParts>,
    /// `DlqPublisher`.
    pub letter_producer: Arc<DlqProducer>,
    /// `DlqPublisher`.
    pub letter_retry: DlqRetry,
    /// `History`.
    pub history: HistoryDeps,
    /// `LagMonitor`.
    pub lag: LagParts,
    /// Restart limits.
    pub restarts: RestartSettings,
}

/// What writing to Redis is made of.
#[derive(Clone, Debug)]
pub struct RedisParts {
    /// Where it is.
    pub settings: RedisSettings,
    /// The chunks that wait, and how they are written.
    pub writer: RedisWriterDeps,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// How long an actor may take to stop before it is given up.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The supervised groups. The pipeline is one unit, restarted rest-for-one, downstream first; those at its side are
/// restarted alone.
pub fn groups(parts: &Parts) -> Vec<GroupSpec> {
    let group = |name, strategy, children| GroupSpec {
        name,
        strategy,
        intensity: parts.restarts.intensity,
        backoff: parts.restarts.backoff,
        stop_timeout: STOP_TIMEOUT,
        children,
    };
    let mut side = vec![dlq_publisher(parts), lag_monitor(parts), history(parts)];
    side.extend(parts.redis.as_ref().map(|redis| redis_writer(parts, redis)));
    vec![
        group("side", Strategy::OneForOne, side),
        group(
            "pipeline",
            Strategy::RestForOne,
            vec![replay_store(parts), sequence_tracker(parts), decode_policy(parts), kafka_ingest(parts)],
        ),
    ]
}

type Start = Box<dyn FnMut(StartContext) -> Result<Running, StartError> + Send>;

fn child(name: ActorName, thread: &'static str, parts: &Parts, start: Start) -> ChildSpec {
    let heartbeat = Some(parts.restarts.heartbeat);
    ChildSpec { name: name.as_str(), policy: Policy::Permanent, heartbeat, thread, start }
}

fn replay_store(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let deps = ReplayStoreDeps {
            settings: all.store,
            generation: life.generation,
            settled: all.links.settled.clone(),
            sessions: all.sessions.clone(),
            history: all.links.history.clone(),
            board: all.board.clone(),
            metrics: Arc::clone(&all.metrics),
            spans: all.spans.clone(),
            redis: all.redis.as_ref().map(|redis| redis.writer.queue.clone()),
            pulse: life.pulse,
            guard: life.guard,
        };
        let addr: Addr<ReplayStore> = ReplayStore::start_in_arbiter(&life.arbiter, |_| ReplayStore::new(deps));
        all.links.tracked.publish(&addr);
        all.links.opened.publish(&addr);
        all.links.join.publish(&addr);
        all.links.leave.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::ReplayStore, "pipeline", parts, Box::new(start))
}

fn sequence_tracker(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let deps = SequenceTrackerDeps {
            limits: Limits::default(),
            board: all.board.clone(),
            metrics: Arc::clone(&all.metrics),
            downstream: all.links.tracked.clone(),
            pulse: life.pulse,
            guard: life.guard,
        };
        let addr = SequenceTracker::start_in_arbiter(&life.arbiter, |_| SequenceTracker::new(deps));
        all.links.decoded.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::SequenceTracker, "pipeline", parts, Box::new(start))
}

fn decode_policy(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let mut before: Option<Pulse> = None;
    let start = move |life: StartContext| {
        // The mailboxes of a generation that hangs may stay for ever, and with them the credit of what lies in them.
        if before.replace(life.pulse.clone()).is_some_and(|before| before.retired()) {
            all.ingest.credit.write_off();
        }
        let next = all.links.decoded.current().ok_or_else(|| StartError("SequenceTracker is not there".into()))?;
        let deps = DecodePolicyDeps {
            judge: all.judge.clone(),
            hash_seed: all.hash_seed,
            letters: all.letters.clone(),
            next,
            letter_queue: all.letter_queue.clone(),
            pause: all.pause,
            pauses: all.ingest.pauses.clone(),
            board: all.board.clone(),
            metrics: Arc::clone(&all.metrics),
            spans: all.spans.clone(),
            pulse: life.pulse,
            guard: life.guard,
        };
        let addr = DecodePolicy::start_in_arbiter(&life.arbiter, |_| DecodePolicy::new(deps));
        all.links.ingested.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::DecodePolicy, "pipeline", parts, Box::new(start))
}

fn kafka_ingest(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let ingest = all.ingest.clone();
        let addr = KafkaIngest::start_in_arbiter(&life.arbiter, |_| KafkaIngest::new(ingest, life.pulse, life.guard));
        all.links.settled.publish(&addr);
        all.links.drain_ingest.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::KafkaIngest, "ingest", parts, Box::new(start))
}

fn dlq_publisher(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let deps = DlqPublisherDeps {
            producer: Arc::clone(&all.letter_producer),
            letters: all.letter_queue.clone(),
            retry: all.letter_retry,
            metrics: Arc::clone(&all.metrics),
        };
        let publisher = |_: &mut _| DlqPublisher::new(deps, life.pulse, life.guard);
        let addr = DlqPublisher::start_in_arbiter(&life.arbiter, publisher);
        all.links.dead_letters.publish(&addr);
        all.links.drain_letters.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::DlqPublisher, "side", parts, Box::new(start))
}

fn redis_writer(parts: &Parts, redis: &RedisParts) -> ChildSpec {
    let (links, redis) = (parts.links.clone(), redis.clone());
    let start = move |life: StartContext| {
        let RedisParts { settings, writer: deps } = redis.clone();
        let writer = Writer::new(settings, deps.state.clone(), Arc::clone(&deps.metrics))
            .map_err(|error| StartError(error.to_string()))?;
        let actor = |_: &mut _| RedisWriter::new(deps, writer, life.pulse, life.guard);
        let addr = RedisWriter::start_in_arbiter(&life.arbiter, actor);
        links.chunks.publish(&addr);
        Ok(Running::of(&addr))
    };
    // A thread of its own: what it waits for keeps nobody else waiting.
    child(ActorName::RedisWriter, "redis", parts, Box::new(start))
}

fn history(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let deps = all.history.clone();
        let addr = History::start_in_arbiter(&life.arbiter, |_| History::new(deps, life.pulse, life.guard));
        all.links.history.publish(&addr);
        Ok(Running::of(&addr))
    };
    child(ActorName::History, "history", parts, Box::new(start))
}

fn lag_monitor(parts: &Parts) -> ChildSpec {
    let all = parts.clone();
    let start = move |life: StartContext| {
        let lag = all.lag.clone();
        let addr = LagMonitor::start_in_arbiter(&life.arbiter, |_| LagMonitor::new(lag, life.pulse, life.guard));
        Ok(Running::of(&addr))
    };
    child(ActorName::LagMonitor, "side", parts, Box::new(start))
}
