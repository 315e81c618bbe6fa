//! The JSON text frames of both dialects: strict parsing of what clients send, building of what the server says.
//!
//! 64-bit numbers are decimal strings on the way out; on the way in, numbers are accepted only where JSON keeps them exact.
//! It must not know sessions, and echoes no more of a client's text than a bounded, whole-character cut.

mod parse;

mod server;

pub use parse::parse;
pub use server::{
    Begin, Complete, PONG, Progress, ResetReason, Welcome, cursor_reset, cursor_stale, filter_applied, gap_of_thread,
    gap_v1, heartbeat, offset_map, partition_added, replay_complete, replay_progress, welcome, write_cursor_v1,
};

use serde_json::json;

use super::cursor;
use super::filter::FilterChange;

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

    /// All that can be chosen. v1 has one for browsers that carry a token in another: they insist on an answer.
    pub const SUBPROTOCOLS: [&'static str; 2] = [Self::SUBPROTOCOL, "dashstream.v1"];

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
    /// v1: not positions but threads, and the last sequence of each; 0 for none.
    pub threads: Option<Vec<(String, u64)>>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cut_is_a_whole_head(text in "[a€😀]{0,40}", max in 0..100_usize) {
            let head = cut(&text, max);
            prop_assert!(head.len() <= max && text.starts_with(head));
            prop_assert!(head.len() + 3 >= max.min(text.len()));
        }
    }
}
