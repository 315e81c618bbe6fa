//! Dead letters: what is kept of a record that cannot be processed, as JSON (`docs/dead_letter.schema.json`).
//!
//! A letter proves which record it was (position, size, SHA-256 of the whole value) and stays below 1 MiB, Kafka's usual
//! limit, whatever the record holds. It must not know how letters are sent.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::decode::{Explanation, Kind};
use super::record::{RawRecord, Span, decode_headers, encode_header};
use super::trace_parent::TraceParent;

/// Bytes of the payload that a letter holds at most, when it may hold any.
pub const MAX_PAYLOAD_EXCERPT: usize = 512 * 1024;
/// Bytes of the record key that a letter holds at most.
pub const MAX_KEY_EXCERPT: usize = 16 * 1024;
/// Bytes of headers that a letter holds at most; headers are kept whole, in order.
pub const MAX_HEADERS: usize = 16 * 1024;
/// Bytes of any text from the record that a letter holds at most.
const MAX_TEXT: usize = 4 * 1024;

/// The largest integer that every JSON reader keeps exact.
const MAX_JSON_INTEGER: u64 = (1 << 53) - 1;

/// A dead letter, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The Kafka key: `<topic>-<partition>-<offset>`.
    pub key: String,
    /// The JSON text.
    pub json: Vec<u8>,
    /// The kind of failure, for metrics.
    pub kind: Kind,
    /// The source record's headers, encoded as in a batch's arena.
    pub headers: Vec<u8>,
}

impl DeadLetter {
    /// What it holds in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.key.capacity() + self.json.capacity() + self.headers.capacity() + size_of::<Self>()
    }
}

/// Tells whether Kafka has a letter.
pub type Landed = Arc<AtomicBool>;

/// What it means when a dead letter cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The loss is counted, and the record is settled all the same.
    BestEffort,
    /// The record is not settled before its letter is written; it is tried for ever.
    FailClosed,
}

/// Why a dead letter was not sent. Also the value of the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Kafka did not acknowledge it in time.
    Timeout,
    /// Kafka refused it, or it could not be sent for another reason.
    KafkaError,
    /// Too many letters were waiting or on their way.
    Backpressure,
}

impl Loss {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Timeout, Self::KafkaError, Self::Backpressure];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::KafkaError => "kafka_error",
            Self::Backpressure => "backpressure",
        }
    }
}

/// What all letters of a process have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterContext {
    /// The source topic.
    pub topic: String,
    /// The consumer group that decides about the record.
    pub consumer_group: String,
    /// The decode policy in force: `skip` or `pause`.
    pub policy: String,
    /// Which instance of this service wrote the letter.
    pub instance: String,
    /// Whether letters hold payload; payloads may hold secrets.
    pub include_payload: bool,
}

/// The record that was set aside.
#[derive(Clone, Copy, Debug)]
pub struct Rejected<'a> {
    /// Its partition.
    pub partition: i32,
    /// The record.
    pub record: &'a RawRecord,
    /// The arena of its batch.
    pub arena: &'a [u8],
    /// Why.
    pub kind: Kind,
    /// Why, in words.
    pub explanation: &'a Explanation,
}

#[derive(Serialize)]
struct Letter<'a> {
    kafka_topic: &'a str,
    kafka_partition: i32,
    #[serde(serialize_with = "exact")]
    kafka_offset: i64,
    record_key_base64: Option<String>,
    record_headers: Vec<LetterHeader<'a>>,
    #[serde(serialize_with = "exact_or_null")]
    record_timestamp_ms: Option<i64>,
    consumer_group: &'a str,
    error_type: &'static str,
    error: &'a str,
    policy: &'a str,
    payload_size: usize,
    payload_sha256: String,
    payload_truncated: bool,
    payload_base64: Option<String>,
    trace_id: Option<String>,
    thread_id: Option<&'a str>,
    tenant_id: Option<&'a str>,
    timestamp: String,
    instance: &'a str,
}

#[derive(Serialize)]
struct LetterHeader<'a> {
    name: &'a str,
    value: Option<String>,
}

/// Writes the letter of a record. `now_ms` is the time in Unix milliseconds.
pub fn build(context: &LetterContext, rejected: &Rejected<'_>, now_ms: i64) -> DeadLetter {
    let Rejected { partition, record, arena, kind, explanation } = *rejected;
    let key = format!("{}-{partition}-{}", context.topic, record.offset);
    let value = record.value.map(|span| span.of(arena));
    let payload = value.unwrap_or_default();
    let excerpt = value.filter(|_| context.include_payload).map(|value| cut(value, MAX_PAYLOAD_EXCERPT));
    let all_headers = record.headers.of(arena);
    let headers = whole_headers(all_headers, MAX_HEADERS);
    let letter = Letter {
        kafka_topic: &context.topic,
        kafka_partition: partition,
        kafka_offset: record.offset,
        record_key_base64: record.key.map(|span: Span| BASE64.encode(cut(span.of(arena), MAX_KEY_EXCERPT))),
        record_headers: decode_headers(&headers)
            .map(|(name, value)| LetterHeader { name, value: value.map(|value| BASE64.encode(value)) })
            .collect(),
        record_timestamp_ms: (record.timestamp_ms != 0).then_some(record.timestamp_ms),
        consumer_group: &context.consumer_group,
        error_type: kind.as_str(),
        error: cut_text(&explanation.error),
        policy: &context.policy,
        payload_size: payload.len(),
        payload_sha256: hex(&Sha256::digest(payload)),
        payload_truncated: excerpt.is_some_and(|excerpt| excerpt.len() < payload.len()),
        payload_base64: excerpt.map(|excerpt| BASE64.encode(excerpt)),
        trace_id: TraceParent::of_headers(decode_headers(all_headers)).map(|parent| parent.trace_id()),
        thread_id: explanation.thread_id.as_deref().map(cut_text),
        tenant_id: explanation.tenant_id.as_deref().map(cut_text),
        timestamp: rfc3339(now_ms),
        instance: &context.instance,
    };
    // Strings, integers and lists of them always serialise.
    let json = serde_json::to_vec(&letter).unwrap_or_default();
    DeadLetter { key, json, kind, headers }
}

/// The first headers that fit into `limit` bytes as they are encoded.
fn whole_headers(headers: &[u8], limit: usize) -> Vec<u8> {
    let mut kept = Vec::with_capacity(headers.len().min(limit));
    for (name, value) in decode_headers(headers) {
        let before = kept.len();
        if before + name.len() + value.map_or(0, <[u8]>::len) > limit {
            break;
        }
        encode_header(&mut kept, name, value);
        if kept.len() > limit {
            kept.truncate(before);
            break;
        }
    }
    kept
}

fn cut(bytes: &[u8], limit: usize) -> &[u8] {
    bytes.get(..limit).unwrap_or(bytes)
}

/// At most [`MAX_TEXT`] bytes, cut at a character.
fn cut_text(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// A time in Unix milliseconds, as letters tell it.
pub fn rfc3339(unix_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// A number as far as every JSON reader keeps it exact, beyond that a decimal string.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn exact<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.unsigned_abs() <= MAX_JSON_INTEGER {
        serializer.serialize_i64(*number)
    } else {
        serializer.collect_str(number)
    }
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn exact_or_null<S: Serializer>(number: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => exact(number, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SCHEMA: &str = include_str!("../../docs/dead_letter.schema.json");
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn context(include_payload: bool) -> LetterContext {
        LetterContext {
            topic: "events".into(),
            consumer_group: "dashstream".into(),
            policy: "skip".into(),
            instance: "host-1:3002".into(),
            include_payload,
        }
    }

    #[derive(Default)]
    struct Source {
        offset: i64,
        timestamp_ms: i64,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<(String, Option<Vec<u8>>)>,
        explanation: Explanation,
    }

    impl Source {
        fn letter(&self, context: &LetterContext) -> (DeadLetter, Value) {
            let mut arena = b"other records".to_vec();
            let span = |arena: &mut Vec<u8>, bytes: &Option<Vec<u8>>| {
                let start = u32::try_from(arena.len()).unwrap();
                bytes.as_ref().map(|bytes| {
                    arena.extend_from_slice(bytes);
                    Span { start, len: u32::try_from(bytes.len()).unwrap() }
                })
            };
            let key = span(&mut arena, &self.key);
            let value = span(&mut arena, &self.value);
            let mut headers = Vec::new();
            self.headers.iter().for_each(|(name, value)| encode_header(&mut headers, name, value.as_deref()));
            let headers = span(&mut arena, &Some(headers)).unwrap();
            let record = RawRecord { offset: self.offset, timestamp_ms: self.timestamp_ms, key, value, headers };
            let (kind, explanation) = (Kind::InvalidProtobuf, &self.explanation);
            let rejected = Rejected { partition: 3, record: &record, arena: &arena, kind, explanation };
            let letter = build(context, &rejected, 1_763_700_000_123);
            let json = serde_json::from_slice(&letter.json).unwrap();
            check_against_schema(&json);
            (letter, json)
        }
    }

    /// Fields, types and enumerations as the schema states them.
    fn check_against_schema(letter: &Value) {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let letter = letter.as_object().unwrap();
        let mut required: Vec<_> = schema["required"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        required.sort_unstable();
        let names =
            |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names(letter).into_iter().collect::<Vec<_>>(), required);
        assert_eq!(names(letter), names(properties));
        assert_eq!(schema["additionalProperties"], json!(false));
        for (name, value) in letter {
            let found = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let allowed = &properties[name]["type"];
            let fits = allowed.as_array().map_or(*allowed == found, |allowed| allowed.iter().any(|one| one == found));
            assert!(fits, "{name} is {found}, allowed: {allowed}");
        }
    }

    #[test]
    fn the_schema_names_every_kind() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert_eq!(schema["properties"]["error_type"]["enum"], json!(Kind::ALL.map(Kind::as_str)));
    }

    #[test]
    fn a_letter_tells_which_record_it_was_and_why() {
        let explanation = Explanation {
            error: "the content is not a valid DashStreamMessage".into(),
            tenant_id: Some("acme".into()),
            thread_id: Some("thread-1".into()),
        };
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let source = Source {
            offset: 42,
            timestamp_ms: 1_763_699_999_000,
            key: Some(b"thread-1".to_vec()),
            value: Some(b"\x00secret".to_vec()),
            headers: vec![("traceparent".into(), Some(traceparent.into_bytes())), ("empty".into(), None)],
            explanation,
        };
        let (letter, json) = source.letter(&context(false));
        assert_eq!(
            json,
            json!({
                "kafka_topic": "events", "kafka_partition": 3, "kafka_offset": 42,
                "record_key_base64": "dGhyZWFkLTE=",
                "record_headers": [
                    {"name": "traceparent", "value": BASE64.encode(format!("00-{TRACE}-00f067aa0ba902b7-01"))},
                    {"name": "empty", "value": null},
                ],
                "record_timestamp_ms": 1_763_699_999_000_i64,
                "consumer_group": "dashstream", "error_type": "invalid_protobuf",
                "error": "the content is not a valid DashStreamMessage", "policy": "skip",
                "payload_size": 7,
                "payload_sha256": "7c8cc910759bf004c2a3e02379c08e20d1215469f19c0f5831879acfc2089387",
                "payload_truncated": false, "payload_base64": null,
                "trace_id": TRACE, "thread_id": "thread-1", "tenant_id": "acme",
                "timestamp": "2025-11-21T04:40:00.123Z", "instance": "host-1:3002",
            })
        );
        assert_eq!((letter.key.as_str(), letter.kind), ("events-3-42", Kind::InvalidProtobuf));
        assert_eq!(decode_headers(&letter.headers).count(), 2);
        assert_eq!(source.letter(&context(false)).0, letter, "the same record gives the same letter");
    }

    #[test]
    fn a_null_and_an_empty_value_have_size_0_and_the_hash_of_no_bytes() {
        for (value, excerpt) in [(None, Value::Null), (Some(Vec::new()), json!(""))] {
            let (_, json) = Source { value, ..Source::default() }.letter(&context(true));
            assert_eq!(json["payload_size"], 0);
            assert_eq!(json["payload_sha256"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
            assert_eq!((&json["payload_base64"], &json["payload_truncated"]), (&excerpt, &json!(false)));
            assert_eq!((&json["record_key_base64"], &json["record_timestamp_ms"]), (&Value::Null, &Value::Null));
        }
    }

    #[test]
    fn the_payload_is_there_only_when_configured_and_at_most_512_kib_of_it() {
        for (len, truncated) in
            [(7, false), (MAX_PAYLOAD_EXCERPT, false), (MAX_PAYLOAD_EXCERPT + 1, true), (2 << 20, true)]
        {
            let value: Vec<u8> = (0..=250).cycle().take(len).collect();
            let source = Source { value: Some(value.clone()), ..Source::default() };
            let (_, json) = source.letter(&context(true));
            let excerpt = BASE64.decode(json["payload_base64"].as_str().unwrap()).unwrap();
            assert_eq!(excerpt, value[..len.min(MAX_PAYLOAD_EXCERPT)]);
            assert_eq!((&json["payload_size"], &json["payload_truncated"]), (&json!(len), &json!(truncated)));
            assert_eq!(json["payload_sha256"], hex(&Sha256::digest(&value)));
            assert_eq!(source.letter(&context(false)).1["payload_base64"], Value::Null);
        }
    }

    #[test]
    fn integers_beyond_what_json_keeps_exact_are_decimal_strings() {
        for (offset, expected) in [
            (0, json!(0)),
            ((1 << 53) - 1, json!(9_007_199_254_740_991_i64)),
            (1 << 53, json!("9007199254740992")),
            (i64::MAX, json!("9223372036854775807")),
        ] {
            let (letter, json) = Source { offset, timestamp_ms: offset, ..Source::default() }.letter(&context(false));
            assert_eq!(json["kafka_offset"], expected);
            assert_eq!(letter.key, format!("events-3-{offset}"));
            assert_eq!(json["record_timestamp_ms"], if offset == 0 { Value::Null } else { expected });
        }
    }

    #[test]
    fn only_a_valid_traceparent_gives_a_trace_id() {
        let parent = "00f067aa0ba902b7";
        let zeros = "0".repeat(32);
        for (name, value, valid) in [
            ("traceparent", format!("00-{TRACE}-{parent}-01"), true),
            ("Traceparent", format!("00-{TRACE}-{parent}-00"), true),
            ("traceparent", format!("01-{TRACE}-{parent}-01-later"), true),
            ("traceparent", format!("00-{TRACE}-{parent}-01-later"), false),
            ("traceparent", format!("ff-{TRACE}-{parent}-01"), false),
            ("traceparent", format!("00-{zeros}-{parent}-01"), false),
            ("traceparent", format!("00-{}-{parent}-01", TRACE.to_uppercase()), false),
            ("traceparent", format!("00-{TRACE}-{parent}"), false),
            ("traceparent", format!("00-{}-{parent}-01", TRACE.split_at(1).1), false),
            ("traceparent", "ü".repeat(55), false),
            ("tracestate", format!("00-{TRACE}-{parent}-01"), false),
        ] {
            let headers = vec![(name.to_owned(), Some(value.clone().into_bytes()))];
            let (_, json) = Source { headers, ..Source::default() }.letter(&context(false));
            assert_eq!(json["trace_id"], if valid { json!(TRACE) } else { Value::Null }, "{name}: {value}");
        }
    }

    #[test]
    fn the_largest_letter_stays_below_what_kafka_takes() {
        let nasty = "\u{1}".repeat(10 << 20);
        let explanation =
            Explanation { error: nasty.clone(), tenant_id: Some(nasty.clone()), thread_id: Some(nasty.clone()) };
        let many = (0..200_000).map(|_| (String::new(), None));
        let large = [(nasty.split_at(16_000).0.to_owned(), None), ("value".to_owned(), Some(vec![0; 1 << 20]))];
        for headers in [many.collect::<Vec<_>>(), large.to_vec()] {
            let (key, value) = (Some(vec![0xff; 1 << 20]), Some(vec![0xff; 10 << 20]));
            let (letter, json) = Source { key, value, headers, explanation: explanation.clone(), ..Source::default() }
                .letter(&context(true));
            assert!(letter.json.len() + letter.headers.len() + letter.key.len() < 1_000_000, "{}", letter.json.len());
            assert!(!json["record_headers"].as_array().unwrap().is_empty());
        }
    }

    #[test]
    fn text_is_cut_at_a_character_at_every_alignment() {
        for prefix in 0..4 {
            for character in ["é", "€", "😀"] {
                let text = "a".repeat(prefix) + &character.repeat(MAX_TEXT);
                let explanation = Explanation { thread_id: Some(text.clone()), ..Explanation::default() };
                let (_, json) = Source { explanation, ..Source::default() }.letter(&context(false));
                let kept = json["thread_id"].as_str().unwrap();
                assert!(text.starts_with(kept) && kept.len() <= MAX_TEXT && kept.len() > MAX_TEXT - 4);
            }
        }
    }
}
