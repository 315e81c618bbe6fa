//! The body of `/health`: its types, which `docs/health.schema.json` is written from, and what fills them in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::status::StatusSource;
use crate::actors::supervisor::ChildStatus;
use crate::actors::topology::ActorName;
use crate::board::{Cell, PartitionBoard};
use crate::pipeline::decode::Kind;
use crate::pipeline::health::{Facts, KAFKA_LOST, StandsAt};
use crate::pipeline::verdict::{Reason, Status};

/// After this long without a record the topic counts as idle, which is no fault.
const IDLE: Duration = Duration::from_secs(60);

/// What GET /health answers, always with status 200. Figures that end in _last_120s are over the last 120 seconds; the others
/// are since the start of the process. Unknown is null, not 0.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Health {
    /// For who may see what others do.
    Full(Box<Full>),
    /// For everybody else, where operators have a listener or a token of their own.
    Brief(Brief),
}

/// Nothing but the verdict.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Brief {
    /// The worst finding.
    pub status: Status,
}

/// Everything.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Full {
    /// The worst finding.
    pub status: Status,
    /// All findings.
    pub reasons: Vec<Reason>,
    /// What was counted.
    pub metrics: Figures,
    /// The tiers from which history is served.
    pub replay_buffer: ReplayBuffer,
    /// How Kafka does.
    pub kafka_status: KafkaStatus,
    /// no_clients, or their number and _clients_connected.
    pub websocket_status: String,
    /// Records at which ingest stands still.
    pub paused: Vec<Paused>,
    /// The actors, in the order in which they are started.
    pub actors: Vec<Actor>,
    /// By partition.
    #[schemars(with = "BTreeMap<String, Positions>")]
    pub partitions: BTreeMap<i32, Positions>,
}

/// What was counted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Figures {
    /// Records judged, whatever came of them.
    pub kafka_messages_received: u64,
    /// Of kafka_messages_received, the ones that cannot be processed.
    pub kafka_errors: u64,
    /// As kafka_errors: every such record is an error of decoding.
    pub decode_errors: u64,
    /// Of kafka_errors, the ones without a payload.
    pub payload_missing: u64,
    /// Faults of Kafka, the network or the Kafka clients; never of a record.
    pub infrastructure_errors: u64,
    /// Clients that are connected now.
    pub connected_clients: usize,
    /// Since the start of the process.
    pub uptime_seconds: u64,
    /// Null before the first record.
    pub last_kafka_message_ago_seconds: Option<u64>,
    /// Offsets that were named to clients in gaps.
    pub dropped_messages: u64,
    /// Sends to clients that failed.
    pub send_failed: u64,
    /// Clients that did not read in time.
    pub send_timeout: u64,
    /// As kafka_messages_received.
    pub messages_last_120s: u64,
    /// As decode_errors.
    pub decode_errors_last_120s: u64,
    /// As payload_missing.
    pub payload_missing_last_120s: u64,
    /// As infrastructure_errors.
    pub infrastructure_errors_last_120s: u64,
    /// As send_failed.
    pub send_failed_last_120s: u64,
    /// As send_timeout.
    pub send_timeout_last_120s: u64,
    /// Dead letters that could not be written.
    pub dead_letters_lost_last_120s: u64,
    /// Offsets that were gone before they could be read.
    pub lost_offsets_last_120s: u64,
    /// Records that were not written to Redis because too much was waiting.
    pub redis_writes_dropped_last_120s: u64,
    /// Streams of history that Redis has lost.
    pub redis_streams_emptied_last_120s: u64,
}

/// The tiers from which history is served.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReplayBuffer {
    /// Whether there is a Redis tier.
    pub redis_enabled: bool,
    /// Whether Redis does what it should; false without Redis.
    pub redis_up: bool,
    /// Pages of history that Redis could give from the cursor on.
    pub redis_hits: u64,
    /// Pages of history that Redis could not give.
    pub redis_misses: u64,
    /// Records that were not written to Redis because too much was waiting.
    pub redis_write_dropped: u64,
    /// Writes of one partition to Redis that failed; they are tried again.
    pub redis_write_failures: u64,
    /// How long Redis keeps a record. Null without Redis.
    pub redis_message_ttl_secs: Option<u64>,
    /// How many offsets of a partition Redis keeps. Null without Redis.
    pub redis_max_sequences: Option<u64>,
    /// Joins answered completely from the memory window.
    pub memory_hits: u64,
    /// Records in the memory window.
    #[schemars(range(min = 0))]
    pub memory_buffer_size: i64,
    /// Bytes in the memory window.
    #[schemars(range(min = 0))]
    pub memory_buffer_bytes: i64,
    /// The most records that the memory window may hold.
    #[schemars(range(min = 1))]
    pub max_memory_size: usize,
}

/// How Kafka does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KafkaStatus {
    /// Kafka answers, and a record has come within the last minute.
    Connected,
    /// Kafka answers, and no record has come yet.
    WaitingForMessages,
    /// Kafka answers, and the last record came more than a minute ago.
    NoRecentMessages,
    /// Kafka has never answered, or not for ten seconds.
    NotConnected,
}

impl KafkaStatus {
    /// From the time since Kafka last answered, and that since the last record.
    fn of(contact: Option<Duration>, last_message: Option<Duration>) -> Self {
        match (contact, last_message) {
            (None, _) => Self::NotConnected,
            (Some(ago), _) if ago >= KAFKA_LOST => Self::NotConnected,
            (Some(_), None) => Self::WaitingForMessages,
            (Some(_), Some(ago)) if ago > IDLE => Self::NoRecentMessages,
            (Some(_), Some(_)) => Self::Connected,
        }
    }
}

/// A record at which ingest stands still.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Paused {
    /// Its partition.
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// Its offset, decimal.
    pub offset: String,
    /// What is wrong with it.
    #[schemars(extend("enum" = Kind::ALL.map(Kind::as_str)))]
    pub kind: &'static str,
    /// Whose decision is waited for.
    pub decided_by: DecidedBy,
    /// For how long.
    pub seconds: u64,
}

/// Who decides about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The operator of this instance.
    Operator,
    /// The instance that owns the partition; this one follows.
    Owner,
}

impl From<&StandsAt> for Paused {
    fn from(StandsAt { partition, offset, kind, ours, since }: &StandsAt) -> Self {
        Self {
            partition: *partition,
            offset: offset.to_string(),
            kind: kind.as_str(),
            decided_by: if *ours { DecidedBy::Operator } else { DecidedBy::Owner },
            seconds: since.as_secs(),
        }
    }
}

/// A supervised actor.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Actor {
    /// Its name.
    #[schemars(with = "ActorName")]
    pub name: &'static str,
    /// Whether it runs.
    pub up: bool,
    /// The number of its last start; 0 before the first.
    pub generation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// Why its last generation ended, in words. Null: none has ended by itself.
    pub last_reason: Option<String>,
}

impl From<ChildStatus> for Actor {
    fn from(ChildStatus { name, up, generation, restarts, last_reason, .. }: ChildStatus) -> Self {
        Self { name, up, generation, restarts, last_reason }
    }
}

/// How far a partition has come. Offsets are decimal strings; null is unknown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Positions {
    /// The offset that is read next.
    pub fetched: Option<String>,
    /// The offset up to which nothing is left to do.
    pub settled: Option<String>,
    /// The offset that the group has committed.
    pub committed: Option<String>,
    /// The first offset of the memory window.
    pub window_low: Option<String>,
    /// The end of the memory window.
    pub stored: Option<String>,
    /// The end of the log.
    pub high_watermark: Option<String>,
    /// Whether committing it and writing its dead letters is this instance's duty.
    pub owned: bool,
}

impl From<&PartitionBoard> for Positions {
    fn from(board: &PartitionBoard) -> Self {
        let offset = |cell: &Cell| cell.get().map(|offset| offset.to_string());
        Self {
            fetched: offset(&board.fetched),
            settled: offset(&board.settled),
            committed: offset(&board.committed),
            window_low: offset(&board.window_low),
            stored: offset(&board.stored),
            high_watermark: offset(&board.high_watermark),
            owned: board.duty_term.load(Ordering::Relaxed) != 0,
        }
    }
}

impl StatusSource {
    /// The body of `/health` for who may see what others do.
    pub(super) fn full(&self) -> Full {
        let (status, reasons, facts) = self.assess();
        let clients = self.sessions.len();
        let last_message = self.last_message_age();
        let positions = |board: &Arc<PartitionBoard>| (board.partition, Positions::from(&**board));
        Full {
            status,
            reasons,
            metrics: self.figures(&facts, clients, last_message),
            replay_buffer: self.replay_buffer(),
            kafka_status: KafkaStatus::of(facts.kafka_contact, last_message),
            websocket_status: if clients == 0 {
                "no_clients".to_owned()
            } else {
                format!("{clients}_clients_connected")
            },
            paused: facts.stands_at.iter().map(Paused::from).collect(),
            actors: self.actors.children().into_iter().map(Actor::from).collect(),
            partitions: self.board.partitions().iter().map(positions).collect(),
        }
    }

    fn figures(&self, facts: &Facts, connected_clients: usize, last_message: Option<Duration>) -> Figures {
        let (total, window) = (self.counts(), &facts.window);
        Figures {
            kafka_messages_received: total.all.messages,
            kafka_errors: total.all.decode_errors,
            decode_errors: total.all.decode_errors,
            payload_missing: total.all.payload_missing,
            infrastructure_errors: total.infrastructure_errors,
            connected_clients,
            uptime_seconds: self.started.elapsed().as_secs(),
            last_kafka_message_ago_seconds: last_message.map(|ago| ago.as_secs()),
            dropped_messages: self.metrics.replay_gap_messages.with_label_values(&["partition"]).get(),
            send_failed: total.send_failed,
            send_timeout: total.send_timeout,
            messages_last_120s: window.all.messages,
            decode_errors_last_120s: window.all.decode_errors,
            payload_missing_last_120s: window.all.payload_missing,
            infrastructure_errors_last_120s: window.infrastructure_errors,
            send_failed_last_120s: window.send_failed,
            send_timeout_last_120s: window.send_timeout,
            dead_letters_lost_last_120s: window.dlq_failures,
            lost_offsets_last_120s: window.lost_offsets,
            redis_writes_dropped_last_120s: window.redis_dropped,
            redis_streams_emptied_last_120s: window.redis_emptied,
        }
    }

    fn replay_buffer(&self) -> ReplayBuffer {
        let (metrics, redis) = (&self.metrics, self.identity.redis);
        ReplayBuffer {
            redis_enabled: redis.is_some(),
            redis_up: metrics.redis_up.get() == 1,
            redis_hits: metrics.redis_hits.get(),
            redis_misses: metrics.redis_misses.get(),
            redis_write_dropped: metrics.redis_write_dropped.get(),
            redis_write_failures: metrics.redis_write_failures.get(),
            redis_message_ttl_secs: redis.map(|redis| redis.age_ms / 1_000),
            redis_max_sequences: redis.map(|redis| redis.offsets),
            memory_hits: metrics.memory_hits.get(),
            memory_buffer_size: metrics.window_records.get(),
            memory_buffer_bytes: metrics.window_bytes.get(),
            max_memory_size: self.identity.window_records,
        }
    }
}
