//! Dead letters as they are read back: which are meant, which are settled, and whether a record may be published again.
//!
//! The other side of [`super::dead_letter`]. It must not read or send anything.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::dead_letter::MAX_KEY_EXCERPT;

/// The header of a record that was published again: which letter it was published for. A record that carries it and fails
/// again is not published a third time unasked.
pub const REPLAYED_HEADER: &str = "dashstream-replayed-from";
/// The header of what settles a letter: what was done.
pub const ACTION_HEADER: &str = "dashstream-dlq-action";
/// The header of what settles a letter: when, RFC 3339.
pub const AT_HEADER: &str = "dashstream-dlq-at";
/// The header of what settles a letter: who.
pub const BY_HEADER: &str = "dashstream-dlq-by";
/// The header of what settles a letter: why, or where to.
pub const NOTE_HEADER: &str = "dashstream-dlq-note";

/// A dead letter as it lies in Kafka. Fields that later versions may add are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Letter {
    /// Source topic.
    pub kafka_topic: String,
    /// Source partition.
    pub kafka_partition: i32,
    /// Source offset.
    #[serde(deserialize_with = "exact")]
    pub kafka_offset: i64,
    /// The record's key, perhaps its beginning.
    pub record_key_base64: Option<String>,
    /// The record's headers, perhaps the first of them.
    #[serde(default)]
    pub record_headers: Vec<LetterHeader>,
    /// The kind of failure.
    pub error_type: String,
    /// The failure in words.
    pub error: String,
    /// Bytes of the record's value.
    pub payload_size: u64,
    /// SHA-256 of the record's value, hexadecimal.
    pub payload_sha256: String,
    /// Whether the payload is cut.
    pub payload_truncated: bool,
    /// The record's value, perhaps its beginning, if letters hold payloads.
    pub payload_base64: Option<String>,
    /// From the record.
    pub trace_id: Option<String>,
    /// From the record.
    pub thread_id: Option<String>,
    /// From the record.
    pub tenant_id: Option<String>,
    /// When the letter was written, RFC 3339.
    pub timestamp: String,
}

/// A header of the record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LetterHeader {
    /// Its name.
    pub name: String,
    /// Its value, base64; null for none.
    pub value: Option<String>,
}

impl Letter {
    /// When it was written, Unix milliseconds; `None` when that cannot be read.
    pub fn written_ms(&self) -> Option<i64> {
        parse_time(&self.timestamp)
    }

    /// The letter for which its record was published, when it was.
    pub fn replayed_from(&self) -> Option<String> {
        let header = self.record_headers.iter().find(|header| header.name == REPLAYED_HEADER)?;
        let value = BASE64.decode(header.value.as_deref().unwrap_or_default()).unwrap_or_default();
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// Whether these bytes are the record's value.
    pub fn is_of(&self, value: &[u8]) -> bool {
        let digest = Sha256::digest(value);
        let hex = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from_digit(digit.into(), 16));
        value.len() as u64 == self.payload_size && hex.flatten().eq(self.payload_sha256.chars())
    }

    /// The record, as far as the letter alone holds it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn record(&self) -> Result<Record, NotInLetter> {
        let decode = |text: &str| BASE64.decode(text).map_err(|_| NotInLetter::Unreadable);
        let Some(payload) = &self.payload_base64 else { return Err(NotInLetter::NoPayload) };
        let value = decode(payload)?;
        if self.payload_truncated {
            return Err(NotInLetter::Truncated { kept: value.len(), size: self.payload_size });
        }
        if !self.is_of(&value) {
            return Err(NotInLetter::Unreadable);
        }
        let key = self.record_key_base64.as_deref().map(decode).transpose()?;
        if key.as_ref().is_some_and(|key| key.len() >= MAX_KEY_EXCERPT) {
            return Err(NotInLetter::KeyCut);
        }
        let header =
            |header: &LetterHeader| Ok((header.name.clone(), header.value.as_deref().map(decode).transpose()?));
        let headers = self.record_headers.iter().map(header).collect::<Result<_, NotInLetter>>()?;
        Ok(Record { key, value, headers })
    }
}

/// A record that can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a letter alone does not give its record back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInLetter {
    /// Letters hold payloads only if configured.
    #[error("the letter holds no payload (DLQ_INCLUDE_FULL_PAYLOAD was off)")]
    NoPayload,
    /// The record was larger than what letters hold.
    #[error("the letter holds only the first {kept} of {size} bytes")]
    Truncated {
        /// Bytes that it holds.
        kept: usize,
        /// Bytes of the record's value.
        size: u64,
    },
    /// The key was larger than what letters hold.
    #[error("the letter holds only the beginning of the record's key")]
    KeyCut,
    /// The payload is not what the hash says.
    #[error("the payload in the letter does not fit its own hash")]
    Unreadable,
}

/// Which letters are meant. What is not set admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these kinds.
    pub kinds: Vec<String>,
    /// One of these keys.
    pub keys: Vec<String>,
    /// Of this source topic.
    pub topic: Option<String>,
    /// Of this source partition.
    pub partition: Option<i32>,
    /// Written at this time or later, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Written before this time, Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Of this thread.
    pub thread: Option<String>,
    /// Of this tenant.
    pub tenant: Option<String>,
}

impl Filter {
    /// Whether a letter under a key is meant.
    pub fn admits(&self, key: &str, letter: &Letter) -> bool {
        let one_of = |all: &[String], one: &str| all.is_empty() || all.iter().any(|wanted| wanted == one);
        let same = |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|wanted| found == Some(wanted));
        // A letter whose time cannot be read is within no span.
        let within = |bound: Option<i64>, holds: fn(i64, i64) -> bool| {
            bound.is_none_or(|bound| letter.written_ms().is_some_and(|written| holds(written, bound)))
        };
        one_of(&self.kinds, &letter.error_type)
            && one_of(&self.keys, key)
            && same(self.topic.as_deref(), Some(&letter.kafka_topic))
            && self.partition.is_none_or(|partition| partition == letter.kafka_partition)
            && within(self.since_ms, |written, since| written >= since)
            && within(self.until_ms, |written, until| written < until)
            && same(self.thread.as_deref(), letter.thread_id.as_deref())
            && same(self.tenant.as_deref(), letter.tenant_id.as_deref())
    }
}

/// Letters that are settled: for each key the last thing that was done, and where in the dead-letter topic.
#[derive(Debug, Default)]
pub struct Settled(HashMap<String, (i32, i64, String)>);

impl Settled {
    /// Everything under `key` before this position is settled.
    pub fn add(&mut self, key: &str, partition: i32, offset: i64, action: &str) {
        self.0.insert(key.to_owned(), (partition, offset, action.to_owned()));
    }

    /// What was done with a letter at a position, if anything was. A letter that came later is open again.
    pub fn action(&self, key: &str, partition: i32, offset: i64) -> Option<&str> {
        let (of, until, action) = self.0.get(key)?;
        (*of == partition && offset < *until).then_some(action.as_str())
    }
}

/// A place in the dead-letter topic: per partition the next offset to be read. Partitions that it does not name are read
/// from their beginning. As text: `0:12,1:7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterCursor(pub BTreeMap<i32, i64>);

impl fmt::Display for LetterCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.0.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        f.write_str(&places.join(","))
    }
}

impl FromStr for LetterCursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = |text: &str| {
            let (partition, offset) = text.split_once(':')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some((partition, offset))
        };
        let mut places = BTreeMap::new();
        for part in text.split(',') {
            let (partition, offset) =
                place(part).ok_or("must be PARTITION:OFFSET, separated by commas, such as 0:12,1:7")?;
            if places.insert(partition, offset).is_some() {
                return Err(format!("names partition {partition} twice"));
            }
        }
        Ok(Self(places))
    }
}

/// A point in time: RFC 3339, or a span before now such as `90s`, `30m`, `2h` or `7d`. Unix milliseconds.
///
/// # Errors
/// What would be right.
pub fn point_in_time(text: &str, now_ms: i64) -> Result<i64, String> {
    span_ms(text).and_then(|span| now_ms.checked_sub(span)).or_else(|| parse_time(text)).ok_or_else(|| {
        "must be a time such as 2026-01-31T12:00:00Z, or a span before now such as 30m, 2h or 7d".to_owned()
    })
}

/// A span of time such as `90s`, `30m`, `2h` or `7d`, in milliseconds.
pub fn span_ms(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count >= 0)?;
    count.checked_mul(seconds)?.checked_mul(1_000)
}

fn parse_time(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// A number, or a decimal string.
fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(i64),
        Text(String),
    }
    match Number::deserialize(deserializer)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "runs-3-42";

    fn json(payload: Option<&[u8]>, value: &[u8]) -> Value {
        let hash: String = Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "kafka_topic": "runs", "kafka_partition": 3, "kafka_offset": 42, "record_key_base64": "a2V5",
            "record_headers": [{"name": "traceparent", "value": "YQ=="}, {"name": "none", "value": null}],
            "error_type": "invalid_protobuf", "error": "the content", "payload_size": value.len(),
            "payload_sha256": hash, "payload_truncated": payload.is_some_and(|payload| payload.len() < value.len()),
            "payload_base64": payload.map(|payload| BASE64.encode(payload)), "trace_id": null, "thread_id": "t1",
            "tenant_id": null, "timestamp": "2026-01-31T12:00:00.5Z", "of_a_later_version": 1,
        })
    }

    fn letter(json: Value) -> Letter {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_letter_that_holds_the_whole_record_gives_it_back() {
        let record = letter(json(Some(b"value"), b"value")).record().unwrap();
        let headers = vec![("traceparent".to_owned(), Some(b"a".to_vec())), ("none".to_owned(), None)];
        assert_eq!(record, Record { key: Some(b"key".to_vec()), value: b"value".to_vec(), headers });
    }

    #[test]
    fn a_letter_that_does_not_says_why() {
        let record = |json: Value| letter(json).record().unwrap_err();
        assert_eq!(record(json(None, b"value")), NotInLetter::NoPayload);
        assert_eq!(record(json(Some(b"val"), b"value")), NotInLetter::Truncated { kept: 3, size: 5 });
        let mut other = json(Some(b"value"), b"value");
        other["payload_sha256"] = "00".repeat(32).into();
        assert_eq!(record(other), NotInLetter::Unreadable);
        let mut cut = json(Some(b"value"), b"value");
        cut["record_key_base64"] = BASE64.encode(vec![1; MAX_KEY_EXCERPT]).into();
        assert_eq!(record(cut), NotInLetter::KeyCut);
    }

    #[test]
    fn only_the_very_bytes_are_the_records() {
        let letter = letter(json(None, b"value"));
        assert!(letter.is_of(b"value"));
        assert!(!letter.is_of(b"VALUE") && !letter.is_of(b"value ") && !letter.is_of(b""));
    }

    #[test]
    fn offsets_are_exact_as_numbers_and_as_text() {
        for (offset, expected) in [(json!(7), 7), (json!("9007199254740993"), 9_007_199_254_740_993)] {
            let mut json = json(None, b"");
            json["kafka_offset"] = offset;
            assert_eq!(letter(json).kafka_offset, expected);
        }
    }

    #[test]
    fn each_part_of_a_filter_admits_what_it_names_and_nothing_else() {
        let letter = letter(json(None, b"value"));
        let written = 1_769_860_800_500;
        assert_eq!(letter.written_ms(), Some(written));
        let text = |text: &str| Some(text.to_owned());
        let table = [
            (Filter::default(), true),
            (Filter { kinds: vec!["internal".into(), "invalid_protobuf".into()], ..Filter::default() }, true),
            (Filter { kinds: vec!["internal".into()], ..Filter::default() }, false),
            (Filter { keys: vec![KEY.into()], ..Filter::default() }, true),
            (Filter { keys: vec!["runs-3-4".into()], ..Filter::default() }, false),
            (Filter { topic: text("runs"), ..Filter::default() }, true),
            (Filter { topic: text("run"), ..Filter::default() }, false),
            (Filter { partition: Some(3), ..Filter::default() }, true),
            (Filter { partition: Some(0), ..Filter::default() }, false),
            (Filter { since_ms: Some(written), until_ms: Some(written + 1), ..Filter::default() }, true),
            (Filter { since_ms: Some(written + 1), ..Filter::default() }, false),
            (Filter { until_ms: Some(written), ..Filter::default() }, false),
            (Filter { thread: text("t1"), ..Filter::default() }, true),
            (Filter { thread: text("t2"), ..Filter::default() }, false),
            (Filter { tenant: text("t"), ..Filter::default() }, false),
        ];
        for (filter, admits) in table {
            assert_eq!(filter.admits(KEY, &letter), admits, "{filter:?}");
        }
        let unreadable = Letter { timestamp: "yesterday".into(), ..letter };
        assert!(!Filter { since_ms: Some(0), ..Filter::default() }.admits(KEY, &unreadable));
    }

    #[test]
    fn a_settled_letter_is_open_again_when_it_is_written_anew() {
        let mut settled = Settled::default();
        settled.add(KEY, 1, 10, "discard");
        assert_eq!(settled.action(KEY, 1, 9), Some("discard"));
        assert_eq!(
            (settled.action(KEY, 1, 11), settled.action(KEY, 0, 9), settled.action("k", 1, 9)),
            (None, None, None)
        );
    }

    #[test]
    fn cursors_and_times_are_read_as_they_are_written() {
        let cursor: LetterCursor = "0:12,3:9223372036854775807".parse().unwrap();
        assert_eq!(cursor.to_string(), "0:12,3:9223372036854775807");
        for bad in ["", "0", "0:", ":1", "0:-1", "-1:0", "0:1,0:2", "0:1,", "a:b", "0:1 1:2"] {
            assert!(bad.parse::<LetterCursor>().is_err(), "{bad}");
        }
        let now = 1_769_860_800_000;
        assert_eq!(point_in_time("90s", now), Ok(now - 90_000));
        assert_eq!(point_in_time("7d", now), Ok(now - 604_800_000));
        assert_eq!(point_in_time("2026-01-31T12:00:00Z", 0), Ok(now));
        assert_eq!(point_in_time("2026-01-31T13:00:00+01:00", 0), Ok(now));
        for bad in ["", "h", "-1h", "1w", "1.5h", "yesterday", "99999999999999999d", "2026-01-31", "ä"] {
            assert!(point_in_time(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_that_was_published_again_is_recognised() {
        let mut json = json(None, b"value");
        assert_eq!(letter(json.clone()).replayed_from(), None);
        json["record_headers"] = json!([{"name": REPLAYED_HEADER, "value": BASE64.encode("runs-3-41")}]);
        assert_eq!(letter(json).replayed_from().as_deref(), Some("runs-3-41"));
    }
}
