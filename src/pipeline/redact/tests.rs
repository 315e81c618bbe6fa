//! What is blacked out, and that nothing else changes.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::pipeline::decode::{Judge, JudgeSettings, Kind, Verdict};
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::diff_operation::ValueEncoding;
use crate::wire::telemetry::{
    AttributeMap, AttributeValue, Checkpoint, CompressionInfo, CompressionType, DashStreamMessage, DiffOperation,
    Error, Event, EventBatch, Header, StateDiff, ToolExecution,
};

const LIMIT: usize = 1 << 20;

fn rules(fields: &[&str], patterns: &[&str]) -> Rules {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Rules::new(&list(fields), &list(patterns)).unwrap()
}

fn framed(message: &Message, zstd: bool) -> Vec<u8> {
    let bytes = DashStreamMessage { message: Some(message.clone()) }.encode_to_vec();
    if zstd { [vec![1], zstd::bulk::compress(&bytes, 3).unwrap()].concat() } else { [vec![0], bytes].concat() }
}

fn content(value: &[u8]) -> Vec<u8> {
    Unframer::new(Mode::Strict, LIMIT).content(value).unwrap().to_vec()
}

/// What becomes of a message; `None`: it stays as it is.
fn redacted(rules: &Rules, message: &Message) -> Option<Message> {
    let mut both = [false, true].map(|zstd| {
        let value = framed(message, zstd);
        let new = Redactor::new(rules, LIMIT).redact(&value, &content(&value)).unwrap()?;
        assert_eq!(new[0], value[0], "compressed as before");
        Some(DashStreamMessage::decode(&*content(&new)).unwrap().message.unwrap())
    });
    assert_eq!(both[0], both[1]);
    both[0].take()
}

fn text(text: &str) -> AttributeValue {
    AttributeValue { value: Some(Value::StringValue(text.into())) }
}

fn header() -> Option<Header> {
    Some(Header { tenant_id: "sk-tenant".into(), thread_id: "sk-thread".into(), sequence: 3, ..Header::default() })
}

fn event(attributes: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Event {
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Event { header: header(), node_id: "plan".into(), attributes, ..Event::default() }
}

#[test]
fn a_rule_about_a_place_covers_what_lies_below_it_and_nothing_else() {
    let inner = AttributeMap { values: [("deep".to_owned(), text("secret"))].into() };
    let nested = AttributeValue { value: Some(Value::MapValue(inner)) };
    let before = event([
        ("api_key", text("secret")),
        ("number", AttributeValue { value: Some(Value::IntValue(7)) }),
        ("nested", nested),
        ("open", text("open")),
    ]);
    let black = |event: &Event, name: &str| match event.attributes[name].value.clone() {
        Some(Value::StringValue(text)) => text == BLACK,
        Some(Value::MapValue(map)) => map.values["deep"].value == Some(Value::StringValue(BLACK.into())),
        None => true,
        _ => false,
    };
    for (rule, want) in [
        ("event.attributes.api_key", &["api_key"][..]),
        ("event.attributes.*", &["api_key", "number", "nested", "open"]),
        ("event.attributes", &["api_key", "number", "nested", "open"]),
        ("event", &["api_key", "number", "nested", "open"]),
        ("**.deep", &["nested"]),
        ("event.attributes.nested", &["nested"]),
        ("event.*.number", &["number"]),
        ("**.api_key.string_value", &["api_key"]),
        ("*.attributes.open", &["open"]),
        ("**", &["api_key", "number", "nested", "open"]),
        ("attributes.api_key", &[]),
        ("event.attributes.api", &[]),
        ("state_diff.**", &[]),
        ("event.attributes.key", &[]),
        ("event.attributes.value", &[]),
    ] {
        let after = redacted(&rules(&[rule], &[]), &Message::Event(before.clone()));
        let after = match after {
            Some(Message::Event(after)) => after,
            Some(other) => panic!("{other:?}"),
            None => before.clone(),
        };
        let found: Vec<_> =
            ["api_key", "number", "nested", "open"].into_iter().filter(|name| black(&after, name)).collect();
        assert_eq!(found, want, "{rule}");
        assert_eq!(after.header, before.header, "{rule}: whose it is stays");
        assert_eq!(after.node_id == BLACK, ["event", "**"].contains(&rule), "{rule}");
    }
}

#[test]
fn patterns_are_looked_for_in_every_kind_of_field() {
    let rules = rules(&[], &["sk-[a-z]+", "€{2}"]);
    let packed = |text: &str| [&[0xa0 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let diff = |value: &[u8], encoding: ValueEncoding| {
        let operation = DiffOperation { value: value.to_vec(), encoding: encoding.into(), ..DiffOperation::default() };
        StateDiff { operations: vec![operation], state_hash: vec![1; 32], ..StateDiff::default() }
    };
    let of_state = |diff: Option<Message>| match diff {
        Some(Message::StateDiff(diff)) => (diff.operations[0].value.clone(), diff.state_hash),
        other => panic!("{other:?}"),
    };
    let json = Message::StateDiff(diff(br#"{"key":"sk-abc","n":1}"#, ValueEncoding::Json));
    assert_eq!(of_state(redacted(&rules, &json)), (br#"{"key":"[redacted]","n":1}"#.to_vec(), Vec::new()));
    let message_pack = Message::StateDiff(diff(&packed("sk-abc"), ValueEncoding::Msgpack));
    assert_eq!(of_state(redacted(&rules, &message_pack)), (packed("[redacted]"), Vec::new()));
    let protobuf = Message::StateDiff(diff(b"\x0a\x06sk-abc", ValueEncoding::Protobuf));
    assert_eq!(of_state(redacted(&rules, &protobuf)), (Vec::new(), Vec::new()));
    assert_eq!(redacted(&rules, &Message::StateDiff(diff(b"open", ValueEncoding::Json))), None, "the hash stays");

    let tool = ToolExecution {
        arguments: b"a sk-abc b".to_vec(),
        error: "at €€ and sk-x".into(),
        error_details: Some(Error { header: header(), stack_trace: "sk-trace".into(), ..Error::default() }),
        ..ToolExecution::default()
    };
    let Some(Message::ToolExecution(after)) = redacted(&rules, &Message::ToolExecution(tool)) else {
        panic!("unchanged")
    };
    assert_eq!(after.arguments, b"a [redacted] b");
    assert_eq!(after.error, "at [redacted] and [redacted]");
    let details = after.error_details.unwrap();
    assert_eq!((details.stack_trace.as_str(), details.header), (BLACK, header()));

    let batch = EventBatch { header: header(), events: vec![event([("a", text("sk-a"))]), event([("b", text("b"))])] };
    let Some(Message::EventBatch(after)) = redacted(&rules, &Message::EventBatch(batch.clone())) else {
        panic!("unchanged")
    };
    assert_eq!(after.events[1], batch.events[1]);
    assert_eq!(after.events[0].attributes["a"], text(BLACK));
}

#[test]
fn compressed_states_are_looked_into_or_taken_out() {
    let rules = rules(&[], &["secret"]);
    let state = br#"{"a":"secret","b":"open"}"#;
    let checkpoint = |bytes: Vec<u8>, kind: CompressionType| {
        let info = CompressionInfo {
            r#type: kind.into(),
            uncompressed_size: state.len() as u64,
            ..CompressionInfo::default()
        };
        Message::Checkpoint(Checkpoint {
            state: bytes,
            checksum: vec![7; 32],
            compression_info: Some(info),
            state_type: "json".into(),
            ..Checkpoint::default()
        })
    };
    let after = |message| match redacted(&rules, &message) {
        Some(Message::Checkpoint(after)) => {
            assert_eq!(
                (after.checksum.len(), after.compression_info),
                (0, None),
                "what was said of the old state is gone"
            );
            assert_eq!(after.state_type, "json");
            Some(after.state)
        }
        Some(other) => panic!("{other:?}"),
        None => None,
    };
    let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let black = br#"{"a":"[redacted]","b":"open"}"#.to_vec();
    assert_eq!(after(checkpoint(packed(state), CompressionType::Zstd)), Some(black));
    assert_eq!(after(checkpoint(packed(b"{}"), CompressionType::Zstd)), None);
    assert_eq!(after(checkpoint(b"broken".to_vec(), CompressionType::Zstd)), Some(BLACK_JSON.to_vec()));
    assert_eq!(after(checkpoint(b"anything".to_vec(), CompressionType::Lz4)), Some(BLACK_JSON.to_vec()));
    // Something else of the checkpoint changes: the state is as it was, and so is what is said of it.
    let elsewhere = Message::Checkpoint(Checkpoint {
        storage_uri: "s3://secret".into(),
        state: packed(b"{}"),
        checksum: vec![7],
        compression_info: Some(CompressionInfo { r#type: CompressionType::Zstd.into(), ..CompressionInfo::default() }),
        ..Checkpoint::default()
    });
    let Some(Message::Checkpoint(after)) = redacted(&rules, &elsewhere) else { panic!("unchanged") };
    assert_eq!(
        (after.storage_uri.as_str(), after.checksum.len(), after.compression_info.is_some()),
        ("s3://[redacted]", 1, true)
    );
}

#[test]
fn fields_of_a_newer_schema_are_left_out_when_a_secret_is_in_them() {
    let mut bytes = DashStreamMessage { message: Some(Message::Event(event([]))) }.encode_to_vec();
    bytes.extend([0xa2, 0x06, 6]);
    bytes.extend(b"secret");
    let value = [&[0], &*bytes].concat();
    let after = Redactor::new(&rules(&[], &["secret"]), LIMIT).redact(&value, &bytes).unwrap().unwrap();
    assert_eq!(&after[1..], &bytes[..bytes.len() - 9]);
    assert_eq!(Redactor::new(&rules(&[], &["other"]), LIMIT).redact(&value, &bytes), Ok(None));
}

#[test]
fn the_judge_gives_what_to_use_instead_or_sets_the_record_aside() {
    let settings = JudgeSettings {
        redaction: Some(std::sync::Arc::new(rules(&[], &["x"]))),
        max_decompressed_bytes: 2_000,
        ..JudgeSettings::default()
    };
    let mut judge = Judge::new(settings, 1);
    let mut items = Vec::new();
    let mut judged = |node: &str| {
        let event = Event { header: header(), node_id: node.into(), ..Event::default() };
        let verdict = judge.judge(Some(&framed(&Message::Event(event), false)), &mut items);
        (verdict, judge.take_redacted())
    };
    assert!(matches!(judged("open"), (Verdict::Deliver(_), None)));
    let (verdict, new) = judged("x");
    assert!(matches!(verdict, Verdict::Deliver(meta) if meta.message_type == 1));
    assert!(new.is_some_and(|new| new.windows(BLACK.len()).any(|window| window == BLACK.as_bytes())));
    assert!(matches!(judged("open"), (Verdict::Deliver(_), None)), "nothing is left over");
    // Ten letters for one: more than records may hold.
    assert_eq!(judged(&"x".repeat(1_000)), (Verdict::Unprocessable(Kind::Internal), None));
}

#[test]
fn every_field_has_a_name() {
    assert!(crate::wire::rewrite::tables_agree());
}

fn attribute() -> impl Strategy<Value = AttributeValue> {
    let leaf = prop_oneof![
        "[a-c]{0,6}".prop_map(|text| AttributeValue { value: Some(Value::StringValue(text)) }),
        proptest::collection::vec(b'a'..b'd', 0..6)
            .prop_map(|bytes| AttributeValue { value: Some(Value::BytesValue(bytes)) }),
        any::<i64>().prop_map(|number| AttributeValue { value: Some(Value::IntValue(number)) }),
        any::<bool>().prop_map(|truth| AttributeValue { value: Some(Value::BoolValue(truth)) }),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        proptest::collection::btree_map("[a-c]{1,3}", inner, 0..4)
            .prop_map(|values| AttributeValue { value: Some(Value::MapValue(AttributeMap { values })) })
    })
}

fn blacken(value: &mut AttributeValue) {
    match &mut value.value {
        Some(Value::StringValue(text)) => *text = text.replace('b', BLACK),
        Some(Value::BytesValue(bytes)) => *bytes = String::from_utf8_lossy(bytes).replace('b', BLACK).into_bytes(),
        Some(Value::MapValue(map)) => map.values.values_mut().for_each(blacken),
        _ => {}
    }
}

proptest! {
    /// Against the same done to the decoded message. What has nothing to black out is not touched at all.
    #[test]
    fn a_pattern_changes_what_it_matches_and_not_one_byte_besides(
        attributes in proptest::collection::btree_map("[a-c]{1,3}", attribute(), 0..5),
        node in "[a-c]{0,5}",
        duration in any::<i64>(),
    ) {
        let before = Event { header: header(), node_id: node, attributes, duration_us: duration, ..Event::default() };
        let mut want = before.clone();
        want.node_id = want.node_id.replace('b', BLACK);
        want.attributes.values_mut().for_each(blacken);
        let after = redacted(&rules(&[], &["b"]), &Message::Event(before.clone()));
        match after {
            None => prop_assert_eq!(want, before),
            Some(Message::Event(after)) => {
                prop_assert!(after != before);
                prop_assert_eq!(after, want);
            }
            Some(other) => prop_assert!(false, "{other:?}"),
        }
    }

    /// Contents that were not judged before are refused or walked, never a panic.
    #[test]
    fn no_content_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Redactor::new(&rules(&["**.a"], &["b"]), LIMIT).redact(&[0], &bytes);
    }
}
