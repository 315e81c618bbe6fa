//! What `/health` can say about the service: every status, every reason. When it does, [`super::health`] decides.

use schemars::JsonSchema;
use serde::Serialize;

/// The verdict on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything works.
    Healthy,
    /// It works, but something is lost, late or failing.
    Degraded,
    /// It has not begun to read.
    Starting,
    /// Kafka cannot be reached.
    Reconnecting,
    /// Ingest waits for an operator.
    Paused,
    /// It is stopping.
    Draining,
}

impl Status {
    /// Whether new clients should be sent here.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded | Self::Paused)
    }
}

/// Why the status is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reason {
    /// For machines.
    pub code: Code,
    /// For people: what is the case.
    pub detail: String,
    /// What to look at or do.
    pub hint: &'static str,
}

/// The reasons that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The service is stopping.
    Draining,
    /// Ingest stands still at a record, and an operator of this instance decides about it.
    Paused,
    /// Ingest stands still at a record about which the owner of the partition decides.
    WaitingForOwner,
    /// Dead letters cannot be written and hold offsets.
    DeadLettersBlocked,
    /// Kafka has not answered yet: the first ten seconds.
    KafkaConnecting,
    /// Kafka does not answer.
    KafkaUnreachable,
    /// The topic does not exist.
    TopicMissing,
    /// Where to begin is being asked.
    ReadingPositions,
    /// The group does not count on this instance: it serves, but commits nothing.
    NotInGroup,
    /// Redis takes no history.
    RedisUnreachable,
    /// The bytes in flight are at their limit: a stage does not keep up.
    PipelineFull,
    /// A partition lies behind, and nothing of it is handled.
    PartitionStuck,
    /// An actor does not run.
    ActorDown,
    /// An actor was restarted a moment ago.
    ActorRestarted,
    /// Too many records have no payload.
    PayloadMissingRate,
    /// Too many records cannot be decoded.
    DecodeErrorRate,
    /// Dead letters could not be written.
    DeadLettersLost,
    /// Records were not written to Redis because too much was waiting.
    RedisWritesDropped,
    /// Redis has lost streams of history.
    RedisEmptied,
    /// Offsets were gone before they could be read.
    OffsetsLost,
}
