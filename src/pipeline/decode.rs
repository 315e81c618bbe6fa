//! The one place where a record is judged: size, framing, bounded decompression, protobuf, schema version.
//!
//! One verdict per record. It must not know what happens with a verdict.

use std::ops::RangeInclusive;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::wire::framing::{FramingError, Mode, Unframer, framing_len};
use crate::wire::schema::{self, Envelope, Events, Header};

/// Inner events of one batch that are handed to the sequence check. Producers put at most 1,000 into a batch; the bound keeps
/// a small compressed record from growing into a huge list. The record is delivered either way.
const MAX_CHECKED_EVENTS: u32 = 10_000;

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

/// What the judge accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgeSettings {
    /// Largest payload in bytes, as it lies in Kafka, without the framing byte.
    pub max_payload_bytes: usize,
    /// Largest decompressed payload in bytes.
    pub max_decompressed_bytes: usize,
    /// Whether unframed values of older producers are accepted.
    pub legacy_framing: bool,
    /// Schema versions that are understood.
    pub schema_versions: RangeInclusive<u32>,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        const TEN_MIB: usize = 10 * 1024 * 1024;
        Self {
            max_payload_bytes: TEN_MIB,
            max_decompressed_bytes: TEN_MIB,
            legacy_framing: false,
            schema_versions: 1..=1,
        }
    }
}

/// What is wrong with a record, in detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the record has no value")]
    Missing,
    #[error("the payload of {len} bytes is larger than the limit of {limit} bytes")]
    TooLarge { len: usize, limit: usize },
    #[error("the first byte is {first:#04x}; 0x00 (protobuf) or 0x01 (zstd) was expected")]
    UnknownFraming { first: u8 },
    #[error("the value does not hold exactly one intact zstd frame")]
    Decompression,
    #[error("the decompressed payload is larger than the limit of {limit} bytes")]
    DecompressedTooLarge { limit: usize },
    #[error("the content is not a valid DashStreamMessage")]
    Invalid,
    #[error("the DashStreamMessage holds no message")]
    Empty,
    #[error("schema version {found} is not supported")]
    SchemaVersion { found: u32 },
}

impl Fault {
    const fn kind(self) -> Kind {
        match self {
            Self::Missing => Kind::PayloadMissing,
            Self::TooLarge { .. } => Kind::PayloadTooLarge,
            Self::UnknownFraming { .. } => Kind::UnknownFraming,
            Self::Decompression => Kind::DecompressionFailed,
            Self::DecompressedTooLarge { .. } => Kind::DecompressedTooLarge,
            Self::Invalid | Self::Empty => Kind::InvalidProtobuf,
            Self::SchemaVersion { .. } => Kind::SchemaVersion,
        }
    }
}

/// What can be said about a record that was set aside; for the dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// What is wrong, without any of the record's content.
    pub error: String,
    /// The tenant, when the record could be read so far.
    pub tenant_id: Option<String>,
    /// The thread, when the record could be read so far.
    pub thread_id: Option<String>,
}

/// Judges records one after the other; owns the decompression context and buffers that all of them share.
#[derive(Debug)]
pub struct Judge {
    settings: JudgeSettings,
    unframer: Unframer,
    threads: ThreadHasher,
}

impl Judge {
    /// A judge. `hash_seed` keys the hashes in [`SequenceItem::thread`]: judges that feed one tracker need the same.
    pub fn new(settings: JudgeSettings, hash_seed: u64) -> Self {
        let mode = if settings.legacy_framing { Mode::Legacy } else { Mode::Strict };
        let unframer = Unframer::new(mode, settings.max_decompressed_bytes);
        Self { settings, unframer, threads: ThreadHasher { seed: hash_seed, scratch: Vec::new() } }
    }

    /// Judges one record value, and appends its numbered events to `items`; nothing is appended for a record that is set
    /// aside.
    pub fn judge(&mut self, value: Option<&[u8]>, items: &mut Vec<SequenceItem>) -> Verdict {
        let start = items.len();
        let examined = self.examine(value, items);
        self.unframer.trim();
        match examined {
            Ok(meta) => Verdict::Deliver(meta),
            Err(fault) => {
                items.truncate(start);
                Verdict::Unprocessable(fault.kind())
            }
        }
    }

    /// Looks at a record that was set aside again, for words. Not for every record: it allocates.
    pub fn explain(&mut self, value: Option<&[u8]>) -> Explanation {
        let error = match self.examine(value, &mut Vec::new()) {
            Ok(_) => "no fault was found when the record was looked at again".to_owned(),
            Err(fault) => fault.to_string(),
        };
        let mut explanation = Explanation { error, ..Explanation::default() };
        if let Ok(content) = self.content(value)
            && let Ok(Envelope { header, .. }) = schema::read(content, &mut Ignored)
        {
            let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| !text.is_empty());
            explanation.tenant_id = text(header.tenant_id);
            explanation.thread_id = text(header.thread_id);
        }
        self.unframer.trim();
        explanation
    }

    fn examine(&mut self, value: Option<&[u8]>, items: &mut Vec<SequenceItem>) -> Result<Meta, Fault> {
        let Self { settings, unframer, threads } = self;
        let content = content(settings, unframer, value)?;
        let items_start = items.len();
        let mut events =
            Collector { items, items_start, threads, versions: &settings.schema_versions, seen: 0, refused: None };
        let Envelope { message_type, header } = schema::read(content, &mut events).map_err(|_| Fault::Invalid)?;
        if message_type == 0 {
            return Err(Fault::Empty);
        }
        let refused = unsupported(&settings.schema_versions, header.schema_version).or(events.refused);
        if let Some(found) = refused {
            return Err(Fault::SchemaVersion { found });
        }
        if message_type != schema::EVENT_BATCH_TYPE {
            events.push(&header, 0);
        }
        Ok(Meta {
            message_type,
            items_start: saturated(items_start),
            items_len: saturated(items.len().saturating_sub(items_start)),
            timestamp_us: header.timestamp_us,
        })
    }

    fn content<'a>(&'a mut self, value: Option<&'a [u8]>) -> Result<&'a [u8], Fault> {
        content(&self.settings, &mut self.unframer, value)
    }
}

/// The protobuf bytes in a record value: size, framing, decompression.
fn content<'a>(
    settings: &JudgeSettings,
    unframer: &'a mut Unframer,
    value: Option<&'a [u8]>,
) -> Result<&'a [u8], Fault> {
    let value = value.unwrap_or_default();
    let first = *value.first().ok_or(Fault::Missing)?;
    let len = value.len() - framing_len(value);
    if len > settings.max_payload_bytes {
        return Err(Fault::TooLarge { len, limit: settings.max_payload_bytes });
    }
    unframer.content(value).map_err(|error| match error {
        FramingError::Unknown => Fault::UnknownFraming { first },
        FramingError::DecompressionFailed => Fault::Decompression,
        FramingError::TooLarge => Fault::DecompressedTooLarge { limit: settings.max_decompressed_bytes },
    })
}

/// The version as stated when it is not supported; none stated counts as 1.
fn unsupported(versions: &RangeInclusive<u32>, stated: u32) -> Option<u32> {
    (!versions.contains(&stated.max(1))).then_some(stated)
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Turns events into sequence items while the message is read.
struct Collector<'a> {
    items: &'a mut Vec<SequenceItem>,
    items_start: usize,
    threads: &'a mut ThreadHasher,
    versions: &'a RangeInclusive<u32>,
    /// Inner events so far.
    seen: u32,
    /// The first inner schema version that is not supported.
    refused: Option<u32>,
}

impl Collector<'_> {
    fn push(&mut self, header: &Header<'_>, event_index: u32) {
        if header.sequence > 0 && !header.thread_id.is_empty() {
            let thread = self.threads.hash(header.tenant_id, header.thread_id);
            self.items.push(SequenceItem { thread, sequence: header.sequence, event_index });
        }
    }
}

impl Events for Collector<'_> {
    fn clear(&mut self) {
        self.items.truncate(self.items_start);
        self.seen = 0;
        self.refused = None;
    }

    fn event(&mut self, header: &Header<'_>) {
        if self.refused.is_none() {
            self.refused = unsupported(self.versions, header.schema_version);
        }
        if self.seen < MAX_CHECKED_EVENTS {
            self.push(header, self.seen);
        }
        self.seen = self.seen.saturating_add(1);
    }
}

/// Inner events that nobody asks for.
struct Ignored;

impl Events for Ignored {
    fn clear(&mut self) {}
    fn event(&mut self, _: &Header<'_>) {}
}

/// Hashes (tenant, thread) so that no two pairs are the same bytes.
#[derive(Debug)]
struct ThreadHasher {
    seed: u64,
    scratch: Vec<u8>,
}

impl ThreadHasher {
    fn hash(&mut self, tenant: &[u8], thread: &[u8]) -> u128 {
        self.scratch.clear();
        self.scratch.extend_from_slice(&(tenant.len() as u64).to_le_bytes());
        self.scratch.extend_from_slice(tenant);
        self.scratch.extend_from_slice(thread);
        xxh3_128_with_seed(&self.scratch, self.seed)
    }
}
