//! Strict parsing of what clients send. 64-bit numbers are decimal strings, or numbers where JSON keeps them exact.

use serde_json::{Map, Value};

use super::{ClientFrame, CursorEpoch, Dialect, ErrorCode, FrameError, From, Resume, Unlisted, cut};
use crate::wire::cursor::Cursor;
use crate::wire::filter::{self, FilterChange};
use crate::wire::limits::MAX_PARTITIONS;

/// Integers up to this are exact in every JSON implementation.
const MAX_EXACT: u64 = (1 << 53) - 1;
/// Threads in one map.
const MAX_THREADS: usize = 10_000;
/// Bytes of a thread's name.
const MAX_THREAD: usize = 1_024;

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
    // Without a mode, existing clients mean threads when that is all they name.
    let names_threads = || fields.contains_key("lastSequencesByThread") || fields.contains_key("threadId");
    let threads = match (text("mode")?, dialect) {
        (None, Dialect::V1) => !fields.contains_key("lastOffsetsByPartition") && names_threads(),
        (None | Some("partition"), _) => false,
        (Some("thread"), Dialect::V1) => true,
        (Some("thread"), Dialect::V2) => {
            let message = "mode \"thread\" is not offered; use mode \"partition\", and a filter";
            return Err(FrameError { code: ErrorCode::Unsupported, message: message.into(), field: Some("mode") });
        }
        (Some(other), _) => {
            return Err(FrameError::field("mode", format!("{:?} is no mode; use \"partition\"", cut(other, 32))));
        }
    };
    let from = strategy(text("from")?, fields, dialect)?;
    if threads {
        return of_threads(fields, from);
    }
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
        threads: None,
        unlisted,
        epoch,
        client: text("client")?.map(|client| cut(client, 64).to_owned()),
        filter: filter::parse(fields)?,
    })
}

/// v1, `mode: thread`. What a client says of partitions does not count then.
fn of_threads(fields: &Map<String, Value>, from: From) -> Result<Resume, FrameError> {
    const MAP: &str = "lastSequencesByThread";
    let named = |thread: &str| match thread.len() {
        1..=MAX_THREAD => Ok(thread.to_owned()),
        length => Err(FrameError::field(MAP, format!("a thread of {length} bytes; from 1 to {MAX_THREAD} are taken"))),
    };
    let mut threads = match fields.get(MAP) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(map)) if map.len() > MAX_THREADS => {
            let message = format!("{} threads; at most {MAX_THREADS} are taken", map.len());
            return Err(FrameError::too_large(MAP, message));
        }
        Some(Value::Object(map)) => {
            let thread = |(name, value): (&String, &Value)| Ok((named(name)?, sequence(MAP, value)?));
            map.iter().map(thread).collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err(FrameError::field(MAP, "an object from thread to last sequence is required")),
    };
    // The form of older clients, which know of one thread.
    match fields.get("threadId") {
        None | Some(Value::Null) => {}
        Some(Value::String(thread)) if threads.iter().any(|(known, _)| known == thread) => {}
        Some(Value::String(thread)) => {
            let last = fields.get("lastSequence").map_or(Ok(0), |value| sequence("lastSequence", value))?;
            threads.push((named(thread)?, last));
        }
        Some(_) => return Err(FrameError::field("threadId", "a string is required")),
    }
    if threads.is_empty() && from == From::Cursor {
        return Err(FrameError {
            code: ErrorCode::EmptyCursor,
            message: "mode \"thread\" needs lastSequencesByThread, or threadId and lastSequence".into(),
            field: Some(MAP),
        });
    }
    if from == From::Earliest {
        threads.iter_mut().for_each(|(_, last)| *last = 0);
    }
    let (last_applied, unlisted, filter) = (Vec::new(), Unlisted::Earliest, FilterChange::Keep);
    Ok(Resume { from, last_applied, threads: Some(threads), unlisted, epoch: None, client: None, filter })
}

fn sequence(field: &'static str, value: &Value) -> Result<u64, FrameError> {
    let exact = match value {
        Value::String(text) => decimal(text),
        Value::Number(number) => number.as_u64().filter(|number| *number <= MAX_EXACT),
        _ => None,
    };
    exact.ok_or_else(|| {
        let message = format!("a sequence is not a decimal string from 0 (numbers only up to {MAX_EXACT})");
        FrameError::field(field, message)
    })
}

fn strategy(from: Option<&str>, fields: &Map<String, Value>, dialect: Dialect) -> Result<From, FrameError> {
    Ok(match (from, dialect) {
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

/// Last applied offsets, and the epoch that they belong to.
type Cursored = (Vec<(i32, i64)>, Option<CursorEpoch>);

/// The positions in a printable cursor, as last applied offsets.
fn printable(text: &str) -> Result<Cursored, FrameError> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

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
        assert_eq!(code(r#"{"type":"resume","mode":"thread"}"#, Dialect::V2), Err((Unsupported, Some("mode"))));
    }

    #[test]
    fn threads_are_asked_for_by_name_or_by_what_a_frame_lacks() {
        let threads = |fields: &str| match code(&format!(r#"{{"type":"resume",{fields}}}"#), Dialect::V1)? {
            ClientFrame::Resume(resume) => Ok(resume.threads),
            other => panic!("{other:?}"),
        };
        let a = |last: u64| Ok(Some(vec![("a".to_owned(), last)]));
        let by_map = r#""lastSequencesByThread":{"a":"7"}"#;
        let offsets = r#""lastOffsetsByPartition":{"0":"1"}"#;
        assert_eq!(threads(&format!(r#""mode":"thread",{by_map}"#)), a(7));
        assert_eq!(threads(by_map), a(7));
        assert_eq!(threads(r#""threadId":"a","lastSequence":7"#), a(7));
        assert_eq!(threads(r#""threadId":"a""#), a(0));
        assert_eq!(threads(&format!(r#""threadId":"a","lastSequence":9,{by_map}"#)), a(7), "the exact one counts");
        assert_eq!(threads(&format!(r#""mode":"thread",{by_map},{offsets}"#)), a(7), "the mode that is named wins");
        assert_eq!(threads(&format!("{by_map},{offsets}")), Ok(None));
        assert_eq!(threads(&format!(r#""mode":"partition",{by_map},{offsets}"#)), Ok(None));
        assert_eq!(threads(&format!(r#""mode":"thread","from":"earliest",{by_map}"#)), a(0));
        assert_eq!(threads(r#""mode":"thread","from":"latest""#), Ok(Some(Vec::new())));
        for exact in [0, (1 << 53) - 1, (1 << 53) + 1, u64::MAX] {
            assert_eq!(threads(&format!(r#""lastSequencesByThread":{{"a":"{exact}"}}"#)), a(exact));
        }
        use ErrorCode::{EmptyCursor, InvalidField, TooLarge};
        let map = Some("lastSequencesByThread");
        assert_eq!(threads(r#""mode":"thread""#), Err((EmptyCursor, map)));
        assert_eq!(threads(r#""lastSequencesByThread":{}"#), Err((EmptyCursor, map)));
        for bad in ["-1", "1.5", "9007199254740992", "\"-1\"", "\"01\"", "\"18446744073709551616\"", "null", "{}"] {
            assert_eq!(
                threads(&format!(r#""lastSequencesByThread":{{"a":{bad}}}"#)),
                Err((InvalidField, map)),
                "{bad}"
            );
        }
        assert_eq!(threads(r#""lastSequencesByThread":[]"#), Err((InvalidField, map)));
        assert_eq!(threads(r#""lastSequencesByThread":{"":"1"}"#), Err((InvalidField, map)));
        let long = "x".repeat(1_025);
        assert_eq!(threads(&format!(r#""lastSequencesByThread":{{"{long}":"1"}}"#)), Err((InvalidField, map)));
        assert_eq!(threads(r#""threadId":7"#), Err((InvalidField, Some("threadId"))));
        assert_eq!(threads(r#""threadId":"a","lastSequence":-1"#), Err((InvalidField, Some("lastSequence"))));
        let many: Map<String, Value> = (0..10_001).map(|n| (n.to_string(), "1".into())).collect();
        assert_eq!(threads(&format!(r#""lastSequencesByThread":{}"#, json!(many))), Err((TooLarge, map)));
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
    fn a_printable_cursor_is_taken_for_positions_in_both_dialects_and_only_whole() {
        let cursor = Cursor { epoch: 7, next_offsets: vec![(0, 0), (3, 1 << 60)] };
        let printed = cursor.encode();
        for dialect in [Dialect::V1, Dialect::V2] {
            for kind in if dialect == Dialect::V1 { &["resume"][..] } else { &["hello", "resume"] } {
                let ask = |fields: Value| {
                    let mut frame = json!({"type": kind, "from": "cursor"});
                    frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
                    parse(&frame.to_string(), dialect).map_err(|error| (error.code, error.field))
                };
                let asked = ask(json!({"cursor": printed}));
                let (Ok(ClientFrame::Hello(resume)) | Ok(ClientFrame::Resume(resume))) = asked else {
                    panic!("{asked:?}")
                };
                assert_eq!(resume.last_applied, [(0, -1), (3, (1 << 60) - 1)]);
                assert_eq!(resume.epoch, Some(CursorEpoch::Tag(7)));
                let refused = Err((ErrorCode::InvalidField, Some("cursor")));
                assert_eq!(ask(json!({"cursor": printed, "lastOffsetsByPartition": {"0": "1"}})), refused);
                for bad in ["", "x", printed.get(1..).unwrap(), &format!("{printed}A")] {
                    assert_eq!(ask(json!({"cursor": bad})), refused, "{bad}");
                }
            }
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
    }
}
