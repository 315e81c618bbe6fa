//! Offsets and sequences beyond 2^53, where JSON numbers and floating point lose digits, are exact from Kafka to the
//! browser and back.

use std::time::Duration;

use dashstream::wire::stream::{Finding, FindingKind};
use serde_json::json;

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::raw::Raw;
use crate::harness::redis_streams::RedisStreams;
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use crate::harness::{records, services, unique_name};

const BOUND: Duration = Duration::from_secs(60);
/// 2^53 + 1 is the first number that floating point cannot hold.
const FIRST: i64 = (1 << 53) + 1;
const FIRST_SEQUENCE: u64 = (1 << 53) + 3;
const THREAD: &str = "far";
const COUNT: u64 = 200;

/// Numbered on from 2^53 + 3; of `lost` numbers after the half there is no record.
fn publish(topic: &Topic, lost: u64) -> Published {
    let number = |at| FIRST_SEQUENCE + at + if at < COUNT / 2 { 0 } else { lost };
    let records = (0..COUNT).map(|at| records::good(THREAD, number(at)).on_partition(0));
    Producer::new(&topic.kafka).publish(&topic.name, records)
}

/// A resume by position, and where it says that it begins and ends.
fn by_position(service: &Service, last: i64, end: i64) {
    let mut raw = Raw::v2(service.address());
    raw.say(&json!({ "type": "hello", "from": "cursor", "lastOffsetsByPartition": { "0": last.to_string() } }));
    assert_eq!(raw.hear_type("welcome")["partitions"]["0"]["from"], (last + 1).to_string());
    let complete = raw.hear_type("replay_complete");
    assert_eq!(complete["lastOffsetsByPartition"], json!({ "0": (end - 1).to_string() }));
    raw.say(&json!({ "type": "resume", "from": "cursor", "cursor": complete["cursor"] }));
    let welcome = raw.hear_type("welcome");
    assert_eq!(welcome["partitions"]["0"]["from"], end.to_string(), "the printable cursor");
    assert_eq!(welcome["partitions"]["0"]["next"], end.to_string());

    let mut v1 = Raw::v1(service.address());
    v1.say(&json!({ "type": "resume", "mode": "partition", "lastOffsetsByPartition": { "0": last.to_string() } }));
    let (records, _, _) = v1.v1_until("replay_complete");
    assert_eq!(records, (last + 1..end).map(|offset| (0, offset)).collect::<Vec<_>>());
}

/// v1 clients that know a thread and its last sequence: the neighbour that floating point takes it for is another record.
fn by_sequence(service: &Service, published: &Published) {
    let last = FIRST_SEQUENCE + 41;
    let resume = json!({ "type": "resume", "mode": "thread", "lastSequencesByThread": { THREAD: last.to_string() } });
    let client = V1Client::connect(service.address(), Some(&resume));
    eventually("the end of the replay", BOUND, || {
        client.look(|seen| match seen.texts.iter().any(|text| text["type"] == "replay_complete") {
            true => Ok(()),
            false => Err(format!("{:?}, {:?}", seen.texts, seen.closed)),
        })
    });
    let got: Vec<i64> = client.look(|seen| seen.records.keys().map(|(_, offset)| *offset).collect());
    let wanted: Vec<i64> = published.records.keys().map(|(_, offset)| *offset).filter(|at| *at >= FIRST + 42).collect();
    assert_eq!(got, wanted);
}

#[test]
fn offsets_and_sequences_beyond_2_to_the_53_keep_every_digit_from_kafka_over_redis_to_the_wire_and_back() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::planned(&kafka.direct, "digits");
    kafka.begin_at(&topic.name, 0, FIRST);
    topic.create_now(1);
    assert_eq!(topic.watermarks(0), (FIRST, FIRST));
    let prefix = unique_name("digits");
    let config = Config::new(&topic)
        .set("REDIS_URL", services::redis())
        .set("DASHSTREAM_REDIS_KEY_PREFIX", &prefix)
        .set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1);
    let mut service = Service::start_healthy(&config);
    let (mut client, v1) =
        (Client::from(service.address(), From::Earliest), V1Client::connect(service.address(), None));
    eventually("the v1 session", BOUND, || match service.metric("websocket_connected_clients", &[]) {
        2.0 => Ok(()),
        clients => Err(clients.to_string()),
    });
    let mut published = publish(&topic, 5);
    let end = FIRST + i64::try_from(COUNT).expect("a small number");
    assert_eq!(published.ends()[&0], end);

    client.wait_for_all(&published, BOUND);
    v1.wait_for_all(&published, BOUND);
    assert_eq!(client.look(|ledger| ledger.began.clone()), [(0, FIRST)].into());
    let expected = FIRST_SEQUENCE + COUNT / 2;
    let gap = Finding { kind: FindingKind::Gap.into(), event_index: 0, expected, found: expected + 5 };
    assert_eq!(client.look(|ledger| ledger.findings.clone()), [((0, FIRST + i64::try_from(COUNT / 2).unwrap()), gap)]);
    assert_eq!(v1.look(|seen| seen.last_offsets()), [("0".to_owned(), (end - 1).to_string())].into());
    by_position(&service, FIRST + 41, end);
    by_sequence(&service, &published);

    topic.wait_until_all_committed(config.group(), BOUND);
    let streams = RedisStreams::new(services::redis(), &prefix);
    eventually("everything in Redis", BOUND, || streams.compare(&published));
    assert_eq!(streams.read()[&0].ranges, [(FIRST, end)]);

    // What was committed is not read again: history comes from Redis, and the client goes on with its cursor.
    service.restart();
    service.wait_until_healthy(BOUND);
    by_position(&service, FIRST + 41, end);
    by_sequence(&service, &published);
    assert!(service.metric("replay_buffer_redis_hits_total", &[]) > 0.0, "it came from somewhere else");
    client.reconnect(service.address());
    let more = (0..20).map(|at| records::good(THREAD, FIRST_SEQUENCE + COUNT + 5 + at).on_partition(0));
    published.extend(Producer::new(&topic.kafka).publish(&topic.name, more));
    client.wait_for_all(&published, BOUND);
    let mut raw = Raw::v2(service.address());
    raw.say(&json!({ "type": "hello", "from": "latest" }));
    let wanted = json!((end + 20).to_string());
    eventually("a heartbeat that names the end", BOUND, || match &raw.hear_heartbeat()["nextOffsets"]["0"] {
        next if *next == wanted => Ok(()),
        next => Err(next.to_string()),
    });
}
