//! The one place where a record is judged: size, framing, bounded decompression, protobuf, schema version.
//!
//! One verdict per record. It must not know what happens with a verdict.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::numbered::{Collector, ThreadHasher, unsupported};
use super::redact::{self, Redactor, Rules};
use super::sequence::{self, SequenceItem};
use crate::wire::framing::{FramingError, Mode, Unframer, framing_len};
use crate::wire::schema::{self, Envelope, Unread};

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
    /// How many it has: none when unsequenced, for an event batch those of its inner events, otherwise one.
    pub items_len: u32,
    /// Producer's time in Unix microseconds, 0 when absent.
    pub timestamp_us: i64,
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
    /// What is blacked out of good records.
    pub redaction: Option<Arc<Rules>>,
    /// A value at which judging fails in an unforeseen way: only tests of the whole service set it.
    pub sabotaged_value: Option<&'static [u8]>,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        const TEN_MIB: usize = 10 * 1024 * 1024;
        Self {
            max_payload_bytes: TEN_MIB,
            max_decompressed_bytes: TEN_MIB,
            legacy_framing: false,
            schema_versions: 1..=1,
            redaction: None,
            sabotaged_value: None,
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
    #[error("the record cannot be redacted: {0}")]
    Redaction(redact::Failed),
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
            Self::Redaction(_) => Kind::Internal,
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
    redacted: Option<Vec<u8>>,
}

impl Judge {
    /// A judge. `hash_seed` keys the hashes in [`SequenceItem::thread`]: judges that feed one tracker need the same.
    pub fn new(settings: JudgeSettings, hash_seed: u64) -> Self {
        let mode = if settings.legacy_framing { Mode::Legacy } else { Mode::Strict };
        let unframer = Unframer::new(mode, settings.max_decompressed_bytes);
        Self { settings, unframer, threads: ThreadHasher::new(hash_seed), redacted: None }
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

    /// The value to use instead of the one that was judged last, when something of it had to be blacked out.
    pub fn take_redacted(&mut self) -> Option<Vec<u8>> {
        self.redacted.take()
    }

    /// Looks at a record that was set aside again, for words. Not for every record: it allocates.
    pub fn explain(&mut self, value: Option<&[u8]>) -> Explanation {
        let error = match self.examine(value, &mut Vec::new()) {
            Ok(_) => "no fault was found when the record was looked at again".to_owned(),
            Err(fault) => fault.to_string(),
        };
        let mut explanation = Explanation { error, ..Explanation::default() };
        if let Ok(content) = self.content(value)
            && let Ok(Envelope { header, .. }) = schema::read(content, &mut Unread)
        {
            let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned()).filter(|text| !text.is_empty());
            explanation.tenant_id = text(header.tenant_id);
            explanation.thread_id = text(header.thread_id);
        }
        self.unframer.trim();
        explanation
    }

    fn examine(&mut self, value: Option<&[u8]>, items: &mut Vec<SequenceItem>) -> Result<Meta, Fault> {
        let Self { settings, unframer, threads, redacted } = self;
        *redacted = None;
        let content = content(settings, unframer, value)?;
        let items_start = items.len();
        let allowed = sequence::allowance(value.map_or(0, <[u8]>::len));
        let mut events = Collector::new(items, allowed, threads, &settings.schema_versions);
        let Envelope { message_type, header } = schema::read(content, &mut events).map_err(|_| Fault::Invalid)?;
        if message_type == 0 {
            return Err(Fault::Empty);
        }
        let refused = unsupported(&settings.schema_versions, header.schema_version).or(events.refused());
        if let Some(found) = refused {
            return Err(Fault::SchemaVersion { found });
        }
        if message_type != schema::EVENT_BATCH_TYPE {
            events.push(&header, 0);
        }
        events.finish();
        if let Some(rules) = &settings.redaction {
            let mut redactor = Redactor::new(rules, settings.max_decompressed_bytes);
            *redacted = redactor.redact(value.unwrap_or_default(), content).map_err(Fault::Redaction)?;
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

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::wire::framing::tests::repeated;
    use crate::wire::telemetry::dash_stream_message::Message;
    use crate::wire::telemetry::{
        Checkpoint, DashStreamMessage, Error, Event, EventBatch, ExecutionTrace, Header, Metrics, StateDiff,
        TokenChunk, ToolExecution,
    };

    const LIMIT: usize = 4096;

    fn judge(legacy_framing: bool) -> Judge {
        let limits = JudgeSettings { max_payload_bytes: LIMIT, max_decompressed_bytes: LIMIT, ..Default::default() };
        Judge::new(JudgeSettings { legacy_framing, ..limits }, 7)
    }

    fn header(thread: &str, sequence: u64) -> Header {
        Header {
            tenant_id: "acme".into(),
            thread_id: thread.into(),
            sequence,
            timestamp_us: 1_763_700_000_123_456,
            schema_version: 1,
            ..Header::default()
        }
    }

    fn encoded(message: Message) -> Vec<u8> {
        DashStreamMessage { message: Some(message) }.encode_to_vec()
    }

    fn plain(message: Message) -> Vec<u8> {
        [vec![0], encoded(message)].concat()
    }

    fn zstd(message: Message) -> Vec<u8> {
        [vec![1], zstd::bulk::compress(&encoded(message), 3).unwrap()].concat()
    }

    fn event(header: Header) -> Message {
        Message::Event(Event { header: Some(header), node_id: "research".into(), ..Event::default() })
    }

    /// An event whose encoding has exactly `len` bytes.
    fn event_of(len: usize) -> Vec<u8> {
        let empty = encoded(Message::Event(Event { node_id: "x".repeat(len - 20), ..Event::default() })).len();
        let bytes = encoded(Message::Event(Event { node_id: "x".repeat(len - 20 + len - empty), ..Event::default() }));
        assert_eq!(bytes.len(), len);
        bytes
    }

    fn batch(headers: impl IntoIterator<Item = Header>) -> Message {
        let events = headers.into_iter().map(|header| Event { header: Some(header), ..Event::default() }).collect();
        Message::EventBatch(EventBatch { header: Some(header("batch", 0)), events })
    }

    #[test]
    fn every_unprocessable_record_gets_its_kind() {
        let good = encoded(event(header("t", 1)));
        let version = |schema_version| Header { schema_version, ..header("t", 1) };
        let framed = |first: u8, content: &[u8]| Some([&[first], content].concat());
        let too_large = vec![0; LIMIT + 2];
        let cases: Vec<(&str, Option<Vec<u8>>, Kind)> = vec![
            ("null value", None, Kind::PayloadMissing),
            ("empty value", Some(vec![]), Kind::PayloadMissing),
            ("framed, payload over the limit", Some(too_large.clone()), Kind::PayloadTooLarge),
            ("compressed, payload over the limit", framed(1, &too_large), Kind::PayloadTooLarge),
            ("unknown framing over the limit", framed(9, &too_large), Kind::PayloadTooLarge),
            ("unframed protobuf", Some(good.clone()), Kind::UnknownFraming),
            ("unframed zstd", Some(zstd::bulk::compress(&good, 3).unwrap()), Kind::UnknownFraming),
            ("text", Some(b"{\"json\":1}".to_vec()), Kind::UnknownFraming),
            ("zstd byte alone", Some(vec![1]), Kind::DecompressionFailed),
            ("zstd byte and protobuf", framed(1, &good), Kind::DecompressionFailed),
            ("size declared too small", framed(1, &repeated(100, Some(50))), Kind::DecompressionFailed),
            ("two frames", framed(1, &repeated(9, Some(9)).repeat(2)), Kind::DecompressionFailed),
            ("bomb, declared", framed(1, &repeated(1 << 26, Some(1 << 26))), Kind::DecompressedTooLarge),
            ("bomb, not declared", framed(1, &repeated(1 << 26, None)), Kind::DecompressedTooLarge),
            ("bomb, false size", framed(1, &repeated(1 << 26, Some(9))), Kind::DecompressedTooLarge),
            ("bomb of frames", framed(1, &repeated(LIMIT, None).repeat(9)), Kind::DecompressedTooLarge),
            ("plain byte alone", Some(vec![0]), Kind::InvalidProtobuf),
            ("empty content, compressed", framed(1, &repeated(0, Some(0))), Kind::InvalidProtobuf),
            ("garbage", framed(0, b"garbage"), Kind::InvalidProtobuf),
            ("compressed garbage", framed(1, &repeated(100, Some(100))), Kind::InvalidProtobuf),
            ("cut protobuf", framed(0, &good[..good.len() - 1]), Kind::InvalidProtobuf),
            ("only unknown fields", framed(0, &[0xf8, 0x01, 1]), Kind::InvalidProtobuf),
            ("version 2", Some(plain(event(version(2)))), Kind::SchemaVersion),
            ("version 2, compressed", Some(zstd(event(version(2)))), Kind::SchemaVersion),
            ("inner version 2", Some(plain(batch([version(1), version(2)]))), Kind::SchemaVersion),
        ];
        let (mut judge, mut items) = (judge(false), Vec::new());
        for (name, value, kind) in cases {
            assert_eq!(judge.judge(value.as_deref(), &mut items), Verdict::Unprocessable(kind), "{name}");
            assert!(items.is_empty(), "{name}");
            let explanation = judge.explain(value.as_deref());
            assert!(!explanation.error.is_empty() && !explanation.error.contains("garbage"), "{name}: {explanation:?}");
            assert_eq!(explanation.tenant_id.is_some(), kind == Kind::SchemaVersion, "{name}: {explanation:?}");
        }
        assert!(matches!(judge.judge(Some(&plain(event(version(1)))), &mut items), Verdict::Deliver(_)));
    }

    #[test]
    fn the_framing_byte_does_not_count_against_the_limit() {
        let exact = event_of(LIMIT);
        let over = event_of(LIMIT + 1);
        let delivered = |judge: &mut Judge, value: &[u8]| match judge.judge(Some(value), &mut Vec::new()) {
            Verdict::Deliver(_) => true,
            Verdict::Unprocessable(kind) => {
                assert_eq!(kind, Kind::PayloadTooLarge);
                false
            }
        };
        assert!(delivered(&mut judge(false), &[&[0], &exact[..]].concat()));
        assert!(!delivered(&mut judge(false), &[&[0], &over[..]].concat()));
        assert!(delivered(&mut judge(true), &exact));
        assert!(!delivered(&mut judge(true), &over));
    }

    #[test]
    fn legacy_values_are_accepted_where_configured() {
        let good = encoded(event(header("t", 1)));
        let mut items = Vec::new();
        for value in [good.clone(), zstd::bulk::compress(&good, 3).unwrap(), [vec![0], good.clone()].concat()] {
            assert!(matches!(judge(true).judge(Some(&value), &mut items), Verdict::Deliver(_)));
        }
        assert_eq!(items.len(), 3);
        assert_eq!(judge(true).judge(Some(b"garbage"), &mut items), Verdict::Unprocessable(Kind::InvalidProtobuf));
    }

    #[test]
    fn every_message_type_is_named_by_its_field_number() {
        let h = Some(header("t", 5));
        let messages = [
            Message::Event(Event { header: h.clone(), ..Default::default() }),
            Message::StateDiff(StateDiff { header: h.clone(), ..Default::default() }),
            Message::TokenChunk(TokenChunk { header: h.clone(), ..Default::default() }),
            Message::ToolExecution(ToolExecution { header: h.clone(), ..Default::default() }),
            Message::Checkpoint(Checkpoint { header: h.clone(), ..Default::default() }),
            Message::Metrics(Metrics { header: h.clone(), ..Default::default() }),
            Message::Error(Error { header: h.clone(), ..Default::default() }),
            Message::EventBatch(EventBatch { header: h.clone(), ..Default::default() }),
            Message::ExecutionTrace(ExecutionTrace { header: h, ..Default::default() }),
        ];
        let (mut judge, mut items) = (judge(false), Vec::new());
        for (message, message_type) in messages.into_iter().zip(1_u8..) {
            for value in [plain(message.clone()), zstd(message)] {
                let items_start = saturated(items.len());
                // The header of a batch is not part of its thread's sequence; its events are.
                let items_len = u32::from(message_type != schema::EVENT_BATCH_TYPE);
                let meta = Meta { message_type, items_start, items_len, timestamp_us: 1_763_700_000_123_456 };
                assert_eq!(judge.judge(Some(&value), &mut items), Verdict::Deliver(meta));
            }
        }
        assert_eq!(items.len(), 16);
        assert!(items.iter().all(|item| (item.sequence, item.event_index, item.thread) == (5, 0, items[0].thread)));
    }

    #[test]
    fn inner_events_of_a_batch_are_numbered_by_their_place() {
        let headers = [header("a", 3), header("", 4), header("b", 0), header("b", 9), header("a", u64::MAX)];
        let (mut judge, mut items) = (judge(false), Vec::new());
        let Verdict::Deliver(meta) = judge.judge(Some(&plain(batch(headers))), &mut items) else {
            panic!("a good batch")
        };
        assert_eq!((meta.message_type, meta.items_start, meta.items_len), (8, 0, 3));
        let seen: Vec<_> = items.iter().map(|item| (item.event_index, item.sequence)).collect();
        assert_eq!(seen, [(0, 3), (3, 9), (4, u64::MAX)]);
        assert_eq!(items[0].thread, items[2].thread);
        assert_ne!(items[0].thread, items[1].thread);
    }

    /// Sequences of thread `t`, compressed as well as zstd can.
    fn of_sequences(sequences: impl Iterator<Item = u64>) -> Vec<u8> {
        let header = |sequence| Header { thread_id: "t".into(), sequence, ..Header::default() };
        [vec![1], zstd::bulk::compress(&encoded(batch(sequences.map(header))), 19).unwrap()].concat()
    }

    #[test]
    fn consecutive_numbers_of_a_thread_are_one_item_however_many_they_are() {
        let (mut judge, mut items) = (Judge::new(JudgeSettings::default(), 7), Vec::new());
        assert!(matches!(judge.judge(Some(&of_sequences(5..20_005)), &mut items), Verdict::Deliver(_)));
        assert_eq!(
            items.iter().map(|item| (item.sequence, item.event_index, item.len)).collect::<Vec<_>>(),
            [(5, 0, 20_000)]
        );
    }

    #[test]
    fn a_record_that_unpacks_to_thousands_of_events_is_delivered_and_its_items_weigh_about_what_it_weighs() {
        // Never consecutive, and again and again the same: nothing to take together, and next to nothing to store.
        let value = of_sequences((0..10_000).map(|n| 1 + n % 2 * 7));
        assert!(value.len() < 300, "{}", value.len());
        let (mut judge, mut items) = (Judge::new(JudgeSettings::default(), 7), Vec::new());
        for records in 1..=50 {
            assert!(matches!(judge.judge(Some(&value), &mut items), Verdict::Deliver(_)));
            assert!(size_of_val(items.as_slice()) <= records * 3 * (value.len() + 64), "{} items", items.len());
        }
        let each = items.len() / 50;
        assert!(items.chunks(each).all(|of_one| of_one.iter().position(SequenceItem::is_overlooked) == Some(each - 1)));
    }

    #[test]
    fn unnumbered_records_and_those_without_a_thread_are_in_no_sequence() {
        let mut items = Vec::new();
        for header in [header("t", 0), header("", 1), Header::default()] {
            let verdict = judge(false).judge(Some(&plain(event(header))), &mut items);
            assert!(matches!(verdict, Verdict::Deliver(Meta { items_len: 0, .. })));
        }
        let without = Message::Event(Event { node_id: "no header".into(), ..Event::default() });
        let verdict = judge(false).judge(Some(&plain(without)), &mut items);
        assert!(matches!(verdict, Verdict::Deliver(Meta { items_len: 0, timestamp_us: 0, .. })));
        assert!(items.is_empty());
    }

    #[test]
    fn tenants_and_threads_do_not_run_into_each_other() {
        let mut items = Vec::new();
        let mut judge = judge(false);
        for (tenant, thread) in [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "abc"), ("c", "ab")] {
            let header = Header { tenant_id: tenant.into(), ..header(thread, 1) };
            judge.judge(Some(&plain(event(header))), &mut items);
        }
        let mut threads: Vec<_> = items.iter().map(|item| item.thread).collect();
        threads.sort_unstable();
        threads.dedup();
        assert_eq!(threads.len(), 5);
        let mut other_key = Vec::new();
        Judge::new(JudgeSettings::default(), 8).judge(Some(&plain(event(header("c", 1)))), &mut other_key);
        assert!(!threads.contains(&other_key[0].thread));
    }

    #[test]
    fn a_schema_version_is_explained_with_tenant_and_thread() {
        let value = zstd(event(Header { schema_version: 7, ..header("thread-1", 1) }));
        let explanation = judge(false).explain(Some(&value));
        assert_eq!(
            explanation,
            Explanation {
                error: "schema version 7 is not supported".into(),
                tenant_id: Some("acme".into()),
                thread_id: Some("thread-1".into()),
            }
        );
    }

    proptest! {
        #[test]
        fn no_value_can_make_it_panic_or_leave_items_behind(
            mut value in proptest::collection::vec(any::<u8>(), 0..300),
            first in 0_u8..4,
            legacy: bool,
        ) {
            if let Some(byte) = value.first_mut() {
                *byte = if first < 2 { first } else { *byte };
            }
            let (mut judge, mut items) = (judge(legacy), Vec::new());
            if let Verdict::Unprocessable(_) = judge.judge(Some(&value), &mut items) {
                prop_assert!(items.is_empty());
                judge.explain(Some(&value));
            }
        }
    }
}
