//! What is to be blacked out reaches nobody: no browser, live or from history, no store, no dead letter, no log.

use std::time::Duration;

use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{DashStreamMessage, Error, Header};
use prost::Message as _;

use crate::harness::client::{Client, From};
use crate::harness::contract::Fingerprint;
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::raw::{Heard, Raw};
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::redis_streams::RedisStreams;
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use crate::harness::{services, unique_name};
use serde_json::json;

const BOUND: Duration = Duration::from_secs(60);
const SECRET: &str = "sk-4f9a8b7c6d5e";

/// A failure of a run, with a secret in its message and a stack trace.
fn failure(index: u64, secret: bool, zstd: bool) -> Outgoing {
    let header = Header { tenant_id: "t".into(), thread_id: "t".into(), sequence: index + 1, ..Header::default() };
    let error = Error {
        header: Some(header),
        message: format!("call {index} with {}", if secret { SECRET } else { "no key" }),
        stack_trace: if secret { "in a_secret_place".into() } else { String::new() },
        ..Error::default()
    };
    let bytes = DashStreamMessage { message: Some(Message::Error(error)) }.encode_to_vec();
    let value =
        if zstd { [vec![1], zstd::bulk::compress(&bytes, 3).unwrap()].concat() } else { [vec![0], bytes].concat() };
    Outgoing::new("t", Some(value), Expect::Record).on_partition(0)
}

fn content(value: &[u8]) -> Vec<u8> {
    match value {
        [0, rest @ ..] => rest.to_vec(),
        [1, rest @ ..] => zstd::bulk::decompress(rest, 1 << 20).expect("a zstd frame"),
        other => panic!("{other:?}"),
    }
}

/// Whether a value is what it should have become.
#[track_caller]
fn check(published: &Published, offset: i64, value: &[u8]) {
    let sent = published.records[&(0, offset)].value.clone().unwrap_or_default();
    let had_secret = content(&sent).windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    if !had_secret {
        assert_eq!(value, sent, "offset {offset}: not one byte is changed without need");
        return;
    }
    let Some(Message::Error(error)) = DashStreamMessage::decode(&*content(value)).expect("still a message").message
    else {
        panic!("offset {offset} is no failure any more")
    };
    assert!(error.message.ends_with("with [redacted]"), "offset {offset}: {}", error.message);
    assert_eq!((error.stack_trace.as_str(), value[0]), ("[redacted]", sent[0]), "offset {offset}");
    assert_eq!(error.header.map(|header| header.sequence), Some(u64::try_from(offset).expect("an offset") + 1));
}

#[test]
fn what_is_blacked_out_is_so_live_in_history_and_in_redis() {
    let topic = Topic::create(services::kafka(), "redaction", 1);
    let prefix = unique_name("redaction");
    let config = Config::new(&topic)
        .set("DASHSTREAM_REDACT_PATTERNS", "sk-[0-9a-f]+")
        .set("DASHSTREAM_REDACT_FIELDS", "**.stack_trace")
        .set("DASHSTREAM_REDIS_KEY_PREFIX", &prefix)
        // What is older comes from Kafka.
        .set("REPLAY_BUFFER_MEMORY_SIZE", 50);
    let service = Service::start_healthy(&config);
    let mut live = Raw::v1(service.address());
    live.say(&json!({"type": "resume", "from": "earliest"}));
    live.hear_type("replay_complete");
    let records = (0..600).map(|index| failure(index, index % 3 == 0, index % 2 == 0));
    let published = Producer::new(services::kafka()).publish(&topic.name, records);

    let values = |raw: &mut Raw| {
        for offset in 0..600 {
            loop {
                match raw.hear() {
                    Heard::Binary(value) => break check(&published, offset, &value),
                    Heard::Text(text) => assert_ne!(text["type"], "gap", "{text}"),
                    Heard::Closed(closed) => panic!("{closed:?}"),
                }
            }
        }
    };
    values(&mut live);
    let mut replayed = Raw::v1(service.address());
    replayed.say(&json!({"type": "resume", "from": "earliest"}));
    values(&mut replayed);

    let streams = RedisStreams::new(services::redis(), &prefix);
    eventually("all records in Redis", BOUND, || match streams.read().get(&0).map_or(0, |found| found.values.len()) {
        600 => Ok(()),
        found => Err(found.to_string()),
    });
    for (offset, value) in &streams.read()[&0].values {
        check(&published, *offset, value);
    }
    assert_eq!(service.metric("dashstream_redacted_records_total", &[]), 200.0);
    assert!(!service.log().contains(SECRET));
}

#[test]
fn without_rules_nothing_is_changed_and_nothing_is_counted() {
    let topic = Topic::create(services::kafka(), "no-redaction", 1);
    let service = Service::start_healthy(&Config::new(&topic));
    let client = Client::from(service.address(), From::Earliest);
    let records =
        (0..100).map(|index| failure(index, true, index % 2 == 0)).chain([records::good("t", 101).on_partition(0)]);
    let published = Producer::new(services::kafka()).publish(&topic.name, records);
    client.wait_for_all(&published, BOUND);
    let first = published.records[&(0, 0)].value.clone().unwrap_or_default();
    client.look(|ledger| assert_eq!(ledger.records[&(0, 0)], Fingerprint::of(&first)));
    assert_eq!(service.metric("dashstream_redacted_records_total", &[]), 0.0);
}
