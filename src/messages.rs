//! What the actors say to each other, in the order of the flow.
//!
//! Messages carry batches, never single records, and their origin (epoch, partition, offsets) to the end. The byte permit
//! rides inside: whoever drops the last message of a batch gives its credit back. Only types live here, no behaviour.

use std::sync::Arc;

use actix::Message;

use crate::actors::session_queue::SessionQueue;
use crate::board::Epoch;
use crate::pipeline::credit::Permit;
use crate::pipeline::decode::Verdict;
use crate::pipeline::record::{Origin, RawBatch};
use crate::pipeline::sequence::{RecordFinding, SequenceItem};

/// `KafkaIngest` → `ReplayStore`: partitions that the reader is about to read, before their first batch.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PartitionsOpened {
    /// The epoch they belong to; a number above the current one ends the old epoch.
    pub epoch: Epoch,
    /// Where each begins.
    pub partitions: Vec<PartitionStart>,
}

/// Where the reader starts in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStart {
    /// The partition.
    pub partition: i32,
    /// The first offset that will be read.
    pub start: i64,
}

/// `KafkaIngest` → `DecodePolicy`: records as they lie in Kafka.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ingested {
    /// The records.
    pub batch: RawBatch,
    /// Their byte credit.
    pub permit: Permit,
}

/// `DecodePolicy` → `SequenceTracker`: every record has its verdict.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Decoded {
    /// The records.
    pub batch: RawBatch,
    /// One verdict per record, in the same order.
    pub verdicts: Vec<Verdict>,
    /// What the sequence check looks at, for all records of the batch.
    pub items: Vec<SequenceItem>,
    /// The duty term under which the batch was judged, 0 when another instance does the duties.
    pub duty_term: u64,
    /// Offsets whose dead letter is still under way: they are settled by `DlqPublisher`, not by `ReplayStore`.
    pub held: Vec<i64>,
    /// Their byte credit.
    pub permit: Permit,
}

/// `SequenceTracker` → `ReplayStore`: what was found rides along.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Tracked {
    /// The decoded batch, unchanged.
    pub decoded: Decoded,
    /// Findings in record order.
    pub findings: Vec<RecordFinding>,
}

/// `DecodePolicy` → `DlqPublisher`: there are dead letters in the queue that both share. One at a time is under way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct LettersWaiting;

/// `ReplayStore` → `RedisWriter`: there are chunks in the queue that both share. One at a time is under way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ChunksWaiting;

/// `ReplayStore`, `RedisWriter`, `DlqPublisher` → `KafkaIngest`: all duties of these offsets are done. Never awaited.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Settled {
    /// The range.
    pub origin: Origin,
    /// Offsets inside the range that somebody else settles.
    pub except: Vec<i64>,
    /// The duty term under which the work was done.
    pub duty_term: u64,
}

/// `ClientSession` → `ReplayStore`: serve this session from its queue's cursors on.
///
/// The store fills the queue from the memory window up to the queue's bound; once every partition has reached the end,
/// the session is live in the same turn of the mailbox, so that replay and live cannot overlap or leave a hole.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// The session's queue; it holds the cursors.
    pub queue: Arc<SessionQueue>,
}

/// `ReplayStore` → `History`: this session's cursors lie below the memory window.
///
/// History is read in pages into the session's queue, under the ticket; then the session asks the store again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct ReadHistory {
    /// The session's queue; it holds the cursors.
    pub queue: Arc<SessionQueue>,
    /// Opens the queue for the pages, until the session wants something else.
    pub ticket: u64,
    /// Number of the epoch.
    pub epoch: u64,
    /// The partitions that lie below.
    pub below: Vec<Below>,
}

/// A partition of a session that needs history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// The partition.
    pub partition: i32,
    /// Where the memory window begins.
    pub until: i64,
}

/// `ClientSession` → `ReplayStore`: the session ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// The session's number.
    pub session: u64,
}

/// Supervisor → every actor: prove that you still take messages, by touching your pulse.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Heartbeat;

/// Supervisor → every actor: finish what lies in the mailbox before this message, and stop.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Halt;
