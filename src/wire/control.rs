//! The JSON text frames of both dialects: strict parsing of what clients send, building of what the server says.
//!
//! 64-bit numbers are decimal strings on the way out; on the way in, numbers are accepted only where JSON keeps them exact.
//! It must not know sessions, and echoes no more of a client's text than a bounded, whole-character cut.

use serde_json::{Map, Value, json};

use super::cursor::{self, Cursor};
use super::filter::{self, FilterChange};

/// Integers up to this are exact in every JSON implementation.
const MAX_EXACT: u64 = (1 << 53) - 1;
/// Partitions in one map.
const MAX_PARTITIONS: usize = 10_000;
/// Bytes of an error message.
const MAX_MESSAGE: usize = 256;

/// The longest head of `text` that fits `max` bytes and ends at a character boundary.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The dialect of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A `cursor` frame before each record.
    V1,
    /// One frame per batch.
    V2,
}

impl Dialect {
    /// The WebSocket subprotocol of v2.
    pub const SUBPROTOCOL: &'static str = "dashstream.v2";

    /// Label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What a client may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// Answered by `pong`.
    Ping,
    /// Only proves that the client is there.
    Pong,
    /// v2: the first frame.
    Hello(Resume),
    /// Where to go on.
    Resume(Resume),
    /// v2: last applied offset per partition.
    Applied(Vec<(i32, i64)>),
    /// v2: what the session is given from here on.
    Filter(FilterChange),
}

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The strategy.
    pub from: From,
    /// Partition and last applied offset, ascending, each partition once. Filled only with [`From::Cursor`].
    pub last_applied: Vec<(i32, i64)>,
    /// Where partitions begin that `last_applied` does not list.
    pub unlisted: Unlisted,
    /// The epoch that the cursor belongs to.
    pub epoch: Option<CursorEpoch>,
    /// What the client calls itself.
    pub client: Option<String>,
    /// What the client wants.
    pub filter: FilterChange,
}

/// How a cursor names its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorEpoch {
    /// By its name.
    Name(String),
    /// By the tag of its name, in a printable cursor.
    Tag(u64),
}

impl CursorEpoch {
    /// Whether it is the epoch of this name.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(named) => named == name,
            Self::Tag(tag) => *tag == cursor::epoch_tag(name),
        }
    }
}

/// `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum From {
    /// Only what arrives from now on.
    Latest,
    /// Everything that is kept.
    Earliest,
    /// After the last applied offsets.
    Cursor,
    /// From this time on, in milliseconds since 1970.
    Time(i64),
}

impl From {
    /// The value on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Earliest => "earliest",
            Self::Cursor => "cursor",
            Self::Time(_) => "time",
        }
    }
}

/// `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// From the start of what is kept.
    Earliest,
    /// From now on.
    Latest,
}

/// The code of an `error` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a JSON object.
    InvalidJson,
    /// The `type` is missing or unknown in this dialect.
    UnknownType,
    /// A field has a bad value.
    InvalidField,
    /// The frame or a map in it is too large.
    TooLarge,
    /// Too many control frames.
    RateLimited,
    /// Understood, but not offered.
    Unsupported,
    /// `from: cursor` without a cursor.
    EmptyCursor,
    /// The positions of the log are not known yet; try again.
    NotReady,
    /// History could not be read within its time budget; ask again from the same cursor.
    ReplayTimeout,
}

impl ErrorCode {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::UnknownType => "unknown_type",
            Self::InvalidField => "invalid_field",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unsupported => "unsupported",
            Self::EmptyCursor => "empty_cursor",
            Self::NotReady => "not_ready",
            Self::ReplayTimeout => "replay_timeout",
        }
    }
}

/// Why a client frame was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct FrameError {
    /// The code.
    pub code: ErrorCode,
    /// What is wrong and what would be right.
    pub message: String,
    /// The field at fault.
    pub field: Option<&'static str>,
}

impl FrameError {
    /// An error about the frame as a whole.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    pub(super) const fn too_large(field: &'static str, message: String) -> Self {
        Self { code: ErrorCode::TooLarge, message, field: Some(field) }
    }

    pub(super) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidField, message: message.into(), field: Some(field) }
    }

    /// The `error` frame.
    pub fn to_json(&self) -> String {
        let mut frame = json!({
            "type": "error",
            "code": self.code.as_str(),
            "message": cut(&self.message, MAX_MESSAGE),
        });
        if let (Some(field), Some(object)) = (self.field, frame.as_object_mut()) {
            object.insert("field".into(), field.into());
        }
        frame.to_string()
    }
}

/// Parses a client's text frame.
///
/// # Errors
/// Says which field is wrong and what it takes.
pub fn parse(text: &str, dialect: Dialect) -> Result<ClientFrame, FrameError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| FrameError::new(ErrorCode::InvalidJson, format!("not valid JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(FrameError::new(ErrorCode::InvalidJson, "a control frame is a JSON object"));
    };
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    match (kind, dialect) {
        ("ping", _) => Ok(ClientFrame::Ping),
        ("pong", _) => Ok(ClientFrame::Pong),
        ("resume", _) => resume(&fields, dialect).map(ClientFrame::Resume),
        ("hello", Dialect::V2) => resume(&fields, dialect).map(ClientFrame::Hello),
        ("applied", Dialect::V2) => match fields.get("offsets") {
            Some(Value::Object(map)) => offsets("offsets", map).map(ClientFrame::Applied),
            _ => Err(FrameError::field("offsets", "an object from partition to last applied offset is required")),
        },
        ("filter", Dialect::V2) => match filter::parse(&fields)? {
            FilterChange::Keep => Err(FrameError::field("filter", "an object or null is required")),
            change @ FilterChange::Set(_) => Ok(ClientFrame::Filter(change)),
        },
        ("cursor_reset", _) => Err(FrameError::new(
            ErrorCode::Unsupported,
            "a reset is made by an operator, not by a client; drop your own cursor and resume from earliest or latest",
        )),
        _ => Err(FrameError::new(
            ErrorCode::UnknownType,
            format!("unknown type {:?}; known are {}", cut(kind, 64), known_types(dialect)),
        )),
    }
}

const fn known_types(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::V1 => "ping, pong, resume",
        Dialect::V2 => "hello, resume, applied, filter, ping, pong",
    }
}

fn resume(fields: &Map<String, Value>, dialect: Dialect) -> Result<Resume, FrameError> {
    let text = |name: &'static str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(FrameError::field(name, "a string is required")),
    };
    match text("mode")? {
        None | Some("partition") => {}
        Some("thread") => {
            let message = "mode \"thread\" is not offered; use mode \"partition\"";
            return Err(FrameError { code: ErrorCode::Unsupported, message: message.into(), field: Some("mode") });
        }
        Some(other) => {
            return Err(FrameError::field("mode", format!("{:?} is no mode; use \"partition\"", cut(other, 32))));
        }
    }
    let from = match (text("from")?, dialect) {
        (Some("latest"), _) => From::Latest,
        (Some("earliest"), _) => From::Earliest,
        (Some("cursor"), _) | (None, Dialect::V1) => From::Cursor,
        (Some("time"), Dialect::V2) => From::Time(time(fields.get("time"))?),
        (None, Dialect::V2) => {
            return Err(FrameError::field("from", "\"latest\", \"earliest\", \"cursor\" or \"time\" is required"));
        }
        (Some(other), _) => {
            let known = match dialect {
                Dialect::V1 => "\"latest\", \"earliest\" or \"cursor\"",
                Dialect::V2 => "\"latest\", \"earliest\", \"cursor\" or \"time\"",
            };
            return Err(FrameError::field("from", format!("{:?} is unknown; use {known}", cut(other, 32))));
        }
    };
    let epoch = text("epoch")?.map(|epoch| CursorEpoch::Name(cut(epoch, 512).to_owned()));
    let (last_applied, epoch) = match (from, text("cursor")?, fields.get("lastOffsetsByPartition")) {
        (From::Cursor, Some(_), Some(Value::Object(_))) => {
            return Err(FrameError::field("cursor", "give cursor or lastOffsetsByPartition, not both"));
        }
        (From::Cursor, Some(printed), _) => printable(printed)?,
        (From::Cursor, None, Some(Value::Object(map))) if !map.is_empty() => {
            (offsets("lastOffsetsByPartition", map)?, epoch)
        }
        (From::Cursor, None, None | Some(Value::Null | Value::Object(_))) => {
            return Err(FrameError {
                code: ErrorCode::EmptyCursor,
                message:
                    "from \"cursor\" needs lastOffsetsByPartition or cursor; \"earliest\" asks for everything that \
                          is kept, \"latest\" for what comes"
                        .into(),
                field: Some("lastOffsetsByPartition"),
            });
        }
        (From::Cursor, None, Some(_)) => {
            return Err(FrameError::field(
                "lastOffsetsByPartition",
                "an object from partition to last applied offset is required",
            ));
        }
        (From::Latest | From::Earliest | From::Time(_), _, _) => (Vec::new(), epoch),
    };
    let unlisted = match text("default")? {
        None | Some("earliest") => Unlisted::Earliest,
        Some("latest") => Unlisted::Latest,
        Some(other) => {
            let message = format!("{:?} is unknown; use \"earliest\" or \"latest\"", cut(other, 32));
            return Err(FrameError::field("default", message));
        }
    };
    Ok(Resume {
        from,
        last_applied,
        unlisted,
        epoch,
        client: text("client")?.map(|client| cut(client, 64).to_owned()),
        filter: filter::parse(fields)?,
    })
}

/// Milliseconds since 1970 as a decimal string or an exact number, or RFC 3339.
fn time(value: Option<&Value>) -> Result<i64, FrameError> {
    let millis = match value {
        Some(Value::Number(number)) => number.as_u64().filter(|number| *number <= MAX_EXACT),
        Some(Value::String(text)) => match decimal(text) {
            Some(millis) => Some(millis),
            None => time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
                .ok()
                .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()),
        },
        _ => None,
    };
    millis.and_then(|millis| i64::try_from(millis).ok()).ok_or_else(|| {
        FrameError::field("time", "a time is required: RFC 3339, or milliseconds since 1970 as a decimal string")
    })
}

/// The positions in a printable cursor, as last applied offsets.
fn printable(text: &str) -> Result<(Vec<(i32, i64)>, Option<CursorEpoch>), FrameError> {
    let cursor = Cursor::decode(text).map_err(|error| FrameError::field("cursor", error.to_string()))?;
    let last = cursor.next_offsets.iter().map(|(partition, next)| (*partition, next - 1)).collect();
    Ok((last, Some(CursorEpoch::Tag(cursor.epoch))))
}

fn offsets(field: &'static str, map: &Map<String, Value>) -> Result<Vec<(i32, i64)>, FrameError> {
    if map.len() > MAX_PARTITIONS {
        let message = format!("{} partitions; at most {MAX_PARTITIONS} are taken", map.len());
        return Err(FrameError::too_large(field, message));
    }
    let mut parsed = Vec::with_capacity(map.len());
    for (key, value) in map {
        let Some(partition) = decimal(key).and_then(|number| i32::try_from(number).ok()) else {
            let message = format!("{:?} is no partition; a decimal number from 0 is required", cut(key, 32));
            return Err(FrameError::field(field, message));
        };
        let offset = match value {
            // Nothing of the partition was applied yet: goes on with offset 0.
            Value::String(text) if text == "-1" => {
                parsed.push((partition, -1));
                continue;
            }
            Value::String(text) => decimal(text),
            Value::Number(number) => number.as_u64().filter(|number| *number <= MAX_EXACT),
            _ => None,
        };
        // The largest offset has no successor to go on with.
        let Some(offset) = offset.and_then(|offset| i64::try_from(offset).ok()).filter(|offset| *offset < i64::MAX)
        else {
            let message = format!(
                "the offset of partition {partition} is not a decimal string from 0 (numbers only up to {MAX_EXACT})"
            );
            return Err(FrameError::field(field, message));
        };
        parsed.push((partition, offset));
    }
    parsed.sort_unstable();
    Ok(parsed)
}

/// Digits only, without a leading zero, so that a partition or offset has one spelling.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

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

/// `replay_complete`. `capped`: there is more than the resume may send.
pub fn replay_complete(
    from: From,
    dialect: Dialect,
    replayed: u64,
    next_offsets: &[(i32, i64)],
    capped: bool,
) -> String {
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
                fields.insert("mode".into(), "partition".into());
                fields.insert("from".into(), from.as_str().into());
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
}

impl ResetReason {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopicRecreated => "topic_recreated",
            Self::BeyondEnd => "beyond_end",
            Self::Retention => "retention",
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
        "count": count,
        "severity": severity,
        "reason": reason,
        "message": format!("{count} offsets of partition {partition} are not delivered: {reason}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str, dialect: Dialect) -> Result<ClientFrame, (ErrorCode, Option<&'static str>)> {
        parse(text, dialect).map_err(|error| (error.code, error.field))
    }

    #[test]
    fn each_bad_field_is_named() {
        use ErrorCode::*;
        let table: &[(&str, ErrorCode, Option<&str>)] = &[
            ("", InvalidJson, None),
            ("[]", InvalidJson, None),
            ("null", InvalidJson, None),
            ("{", InvalidJson, None),
            ("{}", UnknownType, None),
            (r#"{"type":7}"#, UnknownType, None),
            (r#"{"type":"shout"}"#, UnknownType, None),
            (r#"{"type":"cursor_reset"}"#, Unsupported, None),
            (r#"{"type":"resume","mode":"thread"}"#, Unsupported, Some("mode")),
            (r#"{"type":"resume","mode":"x"}"#, InvalidField, Some("mode")),
            (r#"{"type":"resume","mode":1}"#, InvalidField, Some("mode")),
            (r#"{"type":"resume","from":"x"}"#, InvalidField, Some("from")),
            (r#"{"type":"resume","from":1}"#, InvalidField, Some("from")),
            (r#"{"type":"resume","from":"latest","default":"x"}"#, InvalidField, Some("default")),
            (r#"{"type":"resume","from":"cursor"}"#, EmptyCursor, Some("lastOffsetsByPartition")),
            (
                r#"{"type":"resume","from":"cursor","lastOffsetsByPartition":{}}"#,
                EmptyCursor,
                Some("lastOffsetsByPartition"),
            ),
            (
                r#"{"type":"resume","from":"cursor","lastOffsetsByPartition":[]}"#,
                InvalidField,
                Some("lastOffsetsByPartition"),
            ),
        ];
        for dialect in [Dialect::V1, Dialect::V2] {
            for (text, want, field) in table {
                assert_eq!(code(text, dialect), Err((*want, *field)), "{text} in {dialect:?}");
            }
        }
        assert_eq!(code(r#"{"type":"hello","from":"latest"}"#, Dialect::V1), Err((UnknownType, None)));
        assert_eq!(code(r#"{"type":"applied","offsets":{}}"#, Dialect::V1), Err((UnknownType, None)));
        assert_eq!(code(r#"{"type":"hello"}"#, Dialect::V2), Err((InvalidField, Some("from"))));
        assert_eq!(code(r#"{"type":"resume"}"#, Dialect::V1), Err((EmptyCursor, Some("lastOffsetsByPartition"))));
        assert_eq!(code(r#"{"type":"applied"}"#, Dialect::V2), Err((InvalidField, Some("offsets"))));
    }

    #[test]
    fn offsets_are_exact_or_refused() {
        let cursor = |partition: &str, offset: &str| {
            let text =
                format!(r#"{{"type":"resume","from":"cursor","lastOffsetsByPartition":{{"{partition}":{offset}}}}}"#);
            match parse(&text, Dialect::V2) {
                Ok(ClientFrame::Resume(resume)) => Some(resume.last_applied[0]),
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::InvalidField);
                    None
                }
                other => panic!("{other:?}"),
            }
        };
        for exact in [-1, 0, 1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, i64::MAX - 1] {
            assert_eq!(cursor("3", &format!("\"{exact}\"")), Some((3, exact)));
        }
        assert_eq!(cursor("0", "9007199254740991"), Some((0, (1 << 53) - 1)));
        let refused = [
            "9007199254740992",
            "-1",
            "1.0",
            "1e3",
            "\"-2\"",
            "\"+1\"",
            "\"01\"",
            "\"\"",
            "\"1 \"",
            "\"0x1\"",
            "null",
            "true",
            "{}",
            "\"9223372036854775807\"",
            "\"9223372036854775808\"",
            "\"99999999999999999999999\"",
        ];
        for bad in refused {
            assert_eq!(cursor("0", bad), None, "{bad}");
        }
        for bad in ["-1", "", "x", "1.0", "+1", "01", "2147483648"] {
            assert_eq!(cursor(bad, "\"1\""), None, "{bad}");
        }
    }

    #[test]
    fn latest_and_earliest_ignore_the_map() {
        for from in ["latest", "earliest"] {
            let text = format!(r#"{{"type":"resume","from":"{from}","lastOffsetsByPartition":{{"0":"5"}}}}"#);
            let Ok(ClientFrame::Resume(resume)) = parse(&text, Dialect::V1) else { panic!("{text}") };
            assert!(resume.last_applied.is_empty());
        }
    }

    #[test]
    fn too_many_partitions_are_refused_with_their_number() {
        let map: Map<String, Value> = (0..10_001).map(|p| (p.to_string(), "1".into())).collect();
        let text = json!({"type": "resume", "from": "cursor", "lastOffsetsByPartition": map}).to_string();
        let error = parse(&text, Dialect::V2).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
        assert!(error.message.contains("10001"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_error_is_bounded(text in ".{0,400}", kind in ".{0,300}", dialect in prop_oneof![Just(Dialect::V1), Just(Dialect::V2)]) {
            let framed = json!({"type": kind, "mode": text, "from": text}).to_string();
            for text in [text.as_str(), framed.as_str()] {
                if let Err(error) = parse(text, dialect) {
                    prop_assert!(error.to_json().len() < 2_000);
                }
            }
        }

        #[test]
        fn a_cut_is_a_whole_head(text in "[a€😀]{0,40}", max in 0..100_usize) {
            let head = cut(&text, max);
            prop_assert!(head.len() <= max && text.starts_with(head));
            prop_assert!(head.len() + 3 >= max.min(text.len()));
        }
    }
}
