//! What the server says: one function per frame.

use serde_json::{Map, Value, json};

use super::{Dialect, From};
use crate::wire::cursor::{Cursor, epoch_tag};

/// Partition → offset, as decimal strings.
pub fn offset_map(offsets: impl IntoIterator<Item = (i32, i64)>) -> Value {
    Value::Object(
        offsets.into_iter().map(|(partition, offset)| (partition.to_string(), offset.to_string().into())).collect(),
    )
}

/// `pong`.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// Where a partition of a new session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The partition.
    pub partition: i32,
    /// The session's first offset.
    pub from: i64,
    /// First offset in the memory window.
    pub low: i64,
    /// End of the memory window.
    pub next: i64,
}

/// What `welcome` says besides the positions.
#[derive(Clone, Debug)]
pub struct Welcome<'a> {
    /// Session number.
    pub session: u64,
    /// Name of the epoch.
    pub epoch: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// Under which name clients keep their cursor.
    pub resume_namespace: &'a str,
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_ms: u64,
    /// After how long without a sign of life a session is closed, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// `welcome`.
pub fn welcome(welcome: &Welcome<'_>, begins: &[Begin]) -> String {
    let partitions: Map<String, Value> = begins
        .iter()
        .map(|begin| {
            let position = json!({
                "from": begin.from.to_string(),
                "low": begin.low.to_string(),
                "next": begin.next.to_string(),
            });
            (begin.partition.to_string(), position)
        })
        .collect();
    json!({
        "type": "welcome",
        "protocol": Dialect::SUBPROTOCOL,
        "session": welcome.session.to_string(),
        "epoch": welcome.epoch,
        "topic": welcome.topic,
        "resumeNamespace": welcome.resume_namespace,
        "heartbeatMs": welcome.heartbeat_ms,
        "idleTimeoutMs": welcome.idle_timeout_ms,
        "partitions": partitions,
    })
    .to_string()
}

/// How far a resume has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pages sent.
    pub page: u64,
    /// Records sent.
    pub replayed: u64,
    /// Offsets left to where the log ended at the request.
    pub remaining: u64,
    /// Of the offsets between the request's cursor and that end.
    pub percent: u8,
}

/// v2: `replay_progress`, the boundary of a page.
pub fn replay_progress(progress: &Progress) -> String {
    json!({
        "type": "replay_progress",
        "page": progress.page,
        "totalReplayed": progress.replayed,
        "remaining": progress.remaining.to_string(),
        "percent": progress.percent,
    })
    .to_string()
}

/// The end of a resume.
#[derive(Clone, Copy, Debug)]
pub struct Complete<'a> {
    /// The strategy.
    pub from: From,
    /// Records sent.
    pub replayed: u64,
    /// Partition and next offset, ascending.
    pub next_offsets: &'a [(i32, i64)],
    /// Name of the epoch that they belong to.
    pub epoch: &'a str,
    /// There is more than the resume may send.
    pub capped: bool,
    /// It was asked for threads.
    pub threads: bool,
}

/// `replay_complete`.
pub fn replay_complete(complete: &Complete<'_>, dialect: Dialect) -> String {
    let Complete { from, replayed, next_offsets, epoch, capped, threads } = *complete;
    if threads {
        // Without positions: the client was not given all that lies below them.
        return json!({"type": "replay_complete", "totalReplayed": replayed, "mode": "thread", "capped": capped})
            .to_string();
    }
    // Positions on this wire are *last* offsets; a partition without any record before its cursor has none.
    let last = next_offsets.iter().filter(|(_, next)| *next > 0).map(|(partition, next)| (*partition, next - 1));
    let mut frame = json!({
        "type": "replay_complete",
        "totalReplayed": replayed,
        "lastOffsetsByPartition": offset_map(last),
        "capped": capped,
    });
    if let Some(fields) = frame.as_object_mut() {
        match dialect {
            Dialect::V1 => {
                fields.insert("mode".into(), from.as_str().into());
            }
            Dialect::V2 => {
                let cursor = Cursor { epoch: epoch_tag(epoch), next_offsets: next_offsets.to_vec() };
                fields.insert("mode".into(), "partition".into());
                fields.insert("from".into(), from.as_str().into());
                fields.insert("cursor".into(), cursor.encode().into());
            }
        }
    }
    frame.to_string()
}

/// `partition_added`.
pub fn partition_added(partition: i32, from: i64) -> String {
    json!({"type": "partition_added", "partition": partition, "from": from.to_string()}).to_string()
}

/// Why offsets start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// The topic was deleted and created again.
    TopicRecreated,
    /// The client's cursor lies beyond the end of the log.
    BeyondEnd,
    /// Retention has passed the client's cursor.
    Retention,
    /// An operator has hidden what lay before.
    ManualReset,
}

impl ResetReason {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopicRecreated => "topic_recreated",
            Self::BeyondEnd => "beyond_end",
            Self::Retention => "retention",
            Self::ManualReset => "manual_reset",
        }
    }
}

/// `cursor_reset`.
pub fn cursor_reset(partition: i32, reason: ResetReason, epoch: &str, next_offset: i64) -> String {
    json!({
        "type": "cursor_reset",
        "partition": partition,
        "reason": reason.as_str(),
        "epoch": epoch,
        "nextOffset": next_offset.to_string(),
    })
    .to_string()
}

/// `filter_applied`: from these offsets on the session's new filter holds.
pub fn filter_applied(next_offsets: &[(i32, i64)]) -> String {
    json!({"type": "filter_applied", "nextOffsets": offset_map(next_offsets.iter().copied())}).to_string()
}

/// v1: `cursor_stale`.
pub fn cursor_stale(partition: i32, requested: i64, oldest: i64) -> String {
    json!({
        "type": "cursor_stale",
        "partition": partition,
        "requested": requested.to_string(),
        "oldest": oldest.to_string(),
        "message": "the cursor lies below the first offset that is kept",
    })
    .to_string()
}

/// v1: `gap`. `reason` is the name of a gap reason or of a kind of unprocessable record.
pub fn gap_v1(partition: i32, count: i64, reason: &str) -> String {
    let severity = match count {
        ..10 => "info",
        10..100 => "warning",
        _ => "critical",
    };
    json!({
        "type": "gap",
        "partition": partition,
        // Numbers of JSON are exact up to here.
        "count": count.min((1 << 53) - 1),
        "severity": severity,
        "reason": reason,
        "message": format!("{count} offsets of partition {partition} are not delivered: {reason}"),
    })
    .to_string()
}

/// v1: `gap` in the numbering of a thread, before the first of its records that was found.
pub fn gap_of_thread(thread: &str, count: u64) -> String {
    json!({
        "type": "gap",
        "threadId": thread,
        // Numbers of JSON are exact up to here.
        "count": count.min((1 << 53) - 1),
        "severity": "warning",
        "reason": "unavailable",
        "message": format!("{count} messages of this thread are not there any more"),
    })
    .to_string()
}

/// v1: the `cursor` frame of a record, written without allocation.
pub fn write_cursor_v1(out: &mut Vec<u8>, partition: i32, offset: i64) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"{{"type":"cursor","partition":{partition},"offset":"{offset}"}}"#);
}

/// `heartbeat`. `ingest` is the health summary.
pub fn heartbeat(server_time_ms: i64, next_offsets: &[(i32, i64)], ingest: &Value) -> String {
    json!({
        "type": "heartbeat",
        "serverTimeMs": server_time_ms.to_string(),
        "nextOffsets": offset_map(next_offsets.iter().copied()),
        "ingest": ingest,
    })
    .to_string()
}
