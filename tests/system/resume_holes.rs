//! Where a log has nothing to give: markers and aborted records of transactions, holes of compaction, partitions and topics
//! without a record. Every strategy in both protocols, out of memory and out of the topic.

use std::collections::BTreeSet;
use std::time::Duration;

use dashstream::wire::stream::SkipReason;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::contract::{Fingerprint, Judged as _};
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::raw::{Heard, Raw};
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::topic::Topic;
use crate::harness::{services, unique_name};

const BOUND: Duration = Duration::from_secs(60);

/// Of each transaction five records and a marker, which takes an offset as well.
fn transactions(topic: &Topic, of: &[(i32, bool)]) {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &topic.kafka)
        .set("transactional.id", unique_name("holes"))
        .create()
        .expect("valid settings");
    producer.init_transactions(BOUND).expect("a transactional producer");
    for (partition, commit) in of {
        producer.begin_transaction().expect("a transaction");
        for number in 0..5 {
            let value = records::good("t", number + 1).value.unwrap_or_default();
            let record = BaseRecord::<(), [u8]>::to(&topic.name).partition(*partition).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("room");
        }
        producer.flush(BOUND).expect("Kafka takes them");
        let ended = if *commit { producer.commit_transaction(BOUND) } else { producer.abort_transaction(BOUND) };
        ended.expect("the end of a transaction");
    }
}

/// A log, and what may be had of it.
struct Log {
    ends: Vec<i64>,
    records: BTreeSet<(i32, i64)>,
}

/// What a client asks for, where each partition begins for it, and of which it is told that its cursor lies beyond the end.
struct Case {
    from: &'static str,
    last: Value,
    begins: Vec<i64>,
    resets: Vec<i32>,
}

fn case(from: &'static str, last: Value, begins: &[i64], resets: &[i32]) -> Case {
    Case { from, last, begins: begins.to_vec(), resets: resets.to_vec() }
}

/// One service that has read the log into memory, and one whose memory begins behind it.
fn services_of(topic: &Topic, log: &Log) -> [(&'static str, Service); 2] {
    let config = || Config::new(topic).unset("REDIS_URL").set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1);
    let of_memory = Service::start_healthy(&config());
    let of_topic = Service::start_healthy(&config().set("KAFKA_AUTO_OFFSET_RESET", "latest"));
    for service in [&of_memory, &of_topic] {
        eventually("the ends of all partitions to be known", BOUND, || {
            let health = service.try_health()?;
            let partitions = &health["partitions"];
            let known = |(partition, end): (usize, &i64)| {
                let (known, end) = (&partitions[partition.to_string()], end.to_string());
                ["stored", "high_watermark"].iter().all(|position| known[position].as_str() == Some(&end))
            };
            if log.ends.iter().enumerate().all(known) { Ok(()) } else { Err(partitions.to_string()) }
        });
    }
    [("memory", of_memory), ("the topic", of_topic)]
}

impl Log {
    /// Where each partition's last offset lies, as clients hear of it: those of which nothing was there have none.
    fn last(&self) -> Value {
        let ends = self.ends.iter().enumerate().filter(|(_, end)| **end > 0);
        Value::Object(ends.map(|(partition, end)| (partition.to_string(), (end - 1).to_string().into())).collect())
    }

    /// What a client has to get.
    fn wanted(&self, begins: &[i64]) -> Vec<(i32, i64)> {
        let wanted = |(partition, offset): &&(i32, i64)| *offset >= begins[*partition as usize];
        self.records.iter().filter(wanted).copied().collect()
    }

    /// The second protocol: its judge sees to it that every offset is covered once.
    fn answers_v2(&self, service: &Service, what: &str, case: &Case) -> Client {
        let hello = json!({ "type": "hello", "from": case.from, "lastOffsetsByPartition": case.last });
        let client = Client::connect_to(service.address(), &hello);
        let complete = eventually(&format!("{what}: an answer"), BOUND, || {
            client.texts("replay_complete").pop().ok_or_else(|| "none".to_owned())
        });
        let wanted = self.wanted(&case.begins);
        assert_eq!((&complete["totalReplayed"], &complete["capped"]), (&json!(wanted.len()), &json!(false)), "{what}");
        assert_eq!(complete["lastOffsetsByPartition"], self.last(), "{what}");
        client.look(|ledger| {
            let begins: Vec<i64> = ledger.began.values().copied().collect();
            let ends: Vec<i64> = ledger.cursor.values().copied().collect();
            assert_eq!((&begins, &ends), (&case.begins, &self.ends), "{what}");
            assert_eq!(ledger.records.keys().copied().collect::<Vec<_>>(), wanted, "{what}");
            let resets: Vec<_> = ledger.resets.iter().map(|reset| (reset.partition, reset.reason.as_str())).collect();
            let expected: Vec<_> = case.resets.iter().map(|of| (*of, "beyond_end")).collect();
            assert_eq!((resets, ledger.gaps.len()), (expected, 0), "{what}");
            assert!(ledger.skips.iter().all(|skip| skip.reason == SkipReason::NoRecord), "{what}: {:?}", ledger.skips);
        });
        client
    }

    fn answers_v1(&self, service: &Service, what: &str, case: &Case) -> Raw {
        let mut raw = Raw::v1(service.address());
        raw.say(&json!({ "type": "resume", "from": case.from, "lastOffsetsByPartition": case.last }));
        let (mut records, texts, complete) = raw.v1_until("replay_complete");
        records.sort_unstable();
        assert_eq!(records, self.wanted(&case.begins), "{what}");
        let told: Vec<_> = texts.iter().map(|text| (text["type"].clone(), text["partition"].clone())).collect();
        let resets: Vec<_> = case.resets.iter().map(|of| (json!("cursor_reset"), json!(of))).collect();
        assert_eq!(told, resets, "{what}");
        assert_eq!((&complete["totalReplayed"], &complete["capped"]), (&json!(records.len()), &json!(false)), "{what}");
        assert_eq!(complete["lastOffsetsByPartition"], self.last(), "{what}");
        raw
    }

    /// Every case in both protocols and out of both tiers; then a record of each partition reaches who asked last.
    fn answers(&self, topic: &Topic, cases: &[Case]) {
        let services = services_of(topic, self);
        let mut live = Vec::new();
        for (tier, service) in &services {
            let mut last = None;
            for case in cases {
                let what = format!("{tier}, {} {}", case.from, case.last);
                let v2 = self.answers_v2(service, &format!("v2, {what}"), case);
                last = Some((v2, self.answers_v1(service, &format!("v1, {what}"), case)));
            }
            live.extend(last);
        }
        let one_each = (0..).zip(&self.ends).map(|(partition, _)| records::good("live", 0).on_partition(partition));
        let published = Producer::new(&topic.kafka).publish(&topic.name, one_each);
        for (v2, mut v1) in live {
            v2.wait_until("what is live", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
            let mut heard = BTreeSet::new();
            while heard.len() < self.ends.len() {
                match v1.hear() {
                    Heard::Text(text) => assert!(heard.insert(text.to_string()), "{text}"),
                    Heard::Binary(_) => {}
                    Heard::Closed(closed) => panic!("{closed:?}"),
                }
            }
            let cursor = |(partition, offset): &(i32, i64)| {
                json!({ "type": "cursor", "partition": partition, "offset": offset.to_string() }).to_string()
            };
            assert_eq!(heard, published.records.keys().map(cursor).collect());
        }
    }
}

#[test]
fn markers_and_aborted_records_and_empty_partitions_are_passed_by_every_strategy_in_both_protocols() {
    let topic = Topic::create(services::kafka(), "markers", 3);
    // Offsets 0-4 and a marker, 6-10 aborted and a marker, 12-16 and a marker; nothing; 0-4 aborted and a marker.
    transactions(&topic, &[(0, true), (0, false), (0, true), (2, false)]);
    let records = (0..5).chain(12..17).map(|offset| (0, offset)).collect();
    let log = Log { ends: vec![18, 0, 6], records };
    assert_eq!([0, 1, 2].map(|partition| topic.watermarks(partition).1), [18, 0, 6]);
    let cursor = |last: Value, begins: [i64; 3], resets: &[i32]| case("cursor", last, &begins, resets);
    log.answers(
        &topic,
        &[
            case("latest", Value::Null, &[18, 0, 6], &[]),
            case("earliest", Value::Null, &[0, 0, 0], &[]),
            cursor(json!({ "0": "-1", "1": "-1", "2": "-1" }), [0, 0, 0], &[]),
            cursor(json!({ "0": "0", "2": "0" }), [1, 0, 1], &[]),
            // Before a marker, at it, and among what was aborted.
            cursor(json!({ "0": "4" }), [5, 0, 0], &[]),
            cursor(json!({ "0": "5", "2": "5" }), [6, 0, 6], &[]),
            cursor(json!({ "0": "8", "2": "3" }), [9, 0, 4], &[]),
            cursor(json!({ "0": "11" }), [12, 0, 0], &[]),
            // The last record, behind which a marker lies, and the marker.
            cursor(json!({ "0": "16", "2": "4" }), [17, 0, 5], &[]),
            cursor(json!({ "0": "17" }), [18, 0, 0], &[]),
            cursor(json!({ "0": "18", "1": "0", "2": "9007199254740993" }), [18, 0, 6], &[0, 1, 2]),
        ],
    );
}

#[test]
fn a_topic_without_a_record_answers_every_strategy_in_both_protocols_and_then_is_live() {
    let topic = Topic::create(services::kafka(), "empty", 2);
    let log = Log { ends: vec![0, 0], records: BTreeSet::new() };
    log.answers(
        &topic,
        &[
            case("latest", Value::Null, &[0, 0], &[]),
            case("earliest", Value::Null, &[0, 0], &[]),
            case("cursor", json!({ "0": "-1" }), &[0, 0], &[]),
            case("cursor", json!({ "0": "0", "1": "7" }), &[0, 0], &[0, 1]),
            case("cursor", json!({ "1": "9223372036854775806" }), &[0, 0], &[1]),
        ],
    );
}

#[test]
fn holes_of_compaction_are_passed_by_every_strategy_in_both_protocols() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.bytes", "1048576"),
        ("min.compaction.lag.ms", "0"),
    ];
    let topic = Topic::create_with(services::kafka(), "compacted", 1, &settings);
    // One key again and again, others once; then enough to fill the segment, which is not compacted while it is open.
    let keyed = |key: String, number: u64, size| {
        Outgoing { key, ..records::good_of_size("t", number + 1, size) }.on_partition(0)
    };
    let small = (0..200_u64).map(|number| match number % 10 {
        0 => keyed(format!("once-{number}"), number, 20),
        _ => keyed("again".to_owned(), number, 20),
    });
    let large = (200..230_u64).map(|number| keyed(format!("large-{number}"), number, 100_000));
    let published = Producer::new(&topic.kafka).publish(&topic.name, small.chain(large));
    eventually("the log to be compacted", BOUND, || match topic.keys_of_some(0, 0, 190) {
        keys if keys.iter().any(|key| key == "again") => Err(format!("{} records below 190", keys.len())),
        _ => Ok(()),
    });
    // Of the one key the last record is left, at 199.
    let kept = (0..190).step_by(10).chain([190, 199]).chain(200..230).map(|offset| (0, offset));
    let log = Log { ends: vec![230], records: kept.collect() };
    let cursor = |last: i64, begins: i64| case("cursor", json!({ "0": last.to_string() }), &[begins], &[]);
    log.answers(
        &topic,
        &[
            case("latest", Value::Null, &[230], &[]),
            case("earliest", Value::Null, &[0], &[]),
            cursor(0, 1),
            // The beginning, the middle and the end of a hole.
            cursor(10, 11),
            cursor(14, 15),
            cursor(19, 20),
            cursor(198, 199),
            cursor(229, 230),
        ],
    );
    let service = Service::start_healthy(&Config::new(&topic));
    let client = Client::connect_to(service.address(), &json!({ "type": "hello", "from": "earliest" }));
    client.wait_until("the end", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    client.look(|ledger| {
        for ((partition, offset), record) in ledger.records.iter().filter(|((_, offset), _)| *offset < 230) {
            let value = published.records[&(*partition, *offset)].value.clone().unwrap_or_default();
            assert_eq!(*record, Fingerprint::of(&value), "offset {offset}");
        }
    });
}
