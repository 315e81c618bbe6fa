//! The one place where a record is judged: size, framing, bounded decompression, protobuf, schema version.
//!
//! One verdict per record. It must not know what happens with a verdict.

/// Why a record cannot be processed. Also the value of the `error_type` label and field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Null or empty value.
    PayloadMissing,
    /// The value is larger than the limit.
    PayloadTooLarge,
    /// The first byte names no known framing.
    UnknownFraming,
    /// The zstd frame is broken.
    DecompressionFailed,
    /// The content is larger than the limit.
    DecompressedTooLarge,
    /// The content is not a `DashStreamMessage`.
    InvalidProtobuf,
    /// The schema version is not supported.
    SchemaVersion,
    /// Judging the record failed in an unforeseen way.
    Internal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::PayloadMissing,
        Self::PayloadTooLarge,
        Self::UnknownFraming,
        Self::DecompressionFailed,
        Self::DecompressedTooLarge,
        Self::InvalidProtobuf,
        Self::SchemaVersion,
        Self::Internal,
    ];

    /// The name in metrics and dead letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PayloadMissing => "payload_missing",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnknownFraming => "unknown_framing",
            Self::DecompressionFailed => "decompression_failed",
            Self::DecompressedTooLarge => "decompressed_too_large",
            Self::InvalidProtobuf => "invalid_protobuf",
            Self::SchemaVersion => "schema_version",
            Self::Internal => "internal",
        }
    }
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered as it lies in Kafka.
    Deliver(Meta),
    /// It is set aside.
    Unprocessable(Kind),
}

/// What later stages need to know of a good record without decoding it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The message type: the field number in `DashStreamMessage`'s oneof, 1 to 9.
    pub message_type: u8,
    /// Index of its first [`SequenceItem`] in the batch.
    pub items_start: u32,
    /// How many it has: inner events of an event batch, otherwise one, or none when unsequenced.
    pub items_len: u32,
    /// Producer's time in Unix microseconds, 0 when absent.
    pub timestamp_us: i64,
}

/// One numbered event, as the sequence check sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceItem {
    /// Keyed 128-bit hash of (tenant, thread).
    pub thread: u128,
    /// The sequence, at least 1.
    pub sequence: u64,
    /// Index of the inner event in an event batch, otherwise 0.
    pub event_index: u32,
}
