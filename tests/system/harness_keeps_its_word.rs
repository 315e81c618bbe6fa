//! The judge is judged: the harness finds what it must find, and its services and faults are what they say.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashstream::wire::stream::item::Kind;
use dashstream::wire::stream::{Frame, Gap, GapReason, Item, Record, Skip, SkipReason};
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::harness::contract::{Judged as _, Ledger, Violation};
use crate::harness::eventually::{eventually, throughout, within};
use crate::harness::load::{Load, Mix};
use crate::harness::producer::{Producer, Published};
use crate::harness::records::{self, Expect};
use crate::harness::topic::Topic;
use crate::harness::{services, unique_name};
use dashstream::torture::proxy::Proxy;

const SOON: Duration = Duration::from_secs(20);

fn record(offset: i64) -> Item {
    let value = Bytes::from(format!("value {offset}"));
    Item { kind: Some(Kind::Record(Record { offset, timestamp_ms: 0, value, findings: Vec::new() })) }
}

fn skip(first_offset: i64, next_offset: i64) -> Item {
    let reason = SkipReason::NoRecord.into();
    Item { kind: Some(Kind::Skip(Skip { first_offset, next_offset, reason })) }
}

fn gap(first_offset: i64, next_offset: i64) -> Item {
    let reason = GapReason::Unavailable.into();
    Item { kind: Some(Kind::Gap(Gap { first_offset, next_offset, reason })) }
}

fn frame(first_offset: i64, next_offset: i64, items: Vec<Item>) -> Frame {
    Frame { partition: 0, first_offset, next_offset, items }
}

fn welcome(from: i64) -> Value {
    let from = from.to_string();
    json!({ "type": "welcome", "epoch": "e1", "partitions": { "0": { "from": from, "low": "0", "next": from } } })
}

/// A ledger that has begun at 10.
fn at_ten() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.connected();
    ledger.text(&welcome(10)).expect("a good welcome");
    ledger
}

fn frames(frames: Vec<Frame>) -> Result<Ledger, Violation> {
    let mut ledger = at_ten();
    frames.into_iter().try_for_each(|frame| ledger.frame(frame)).map(|()| ledger)
}

#[test]
fn the_judge_accepts_what_the_protocol_allows() {
    let ledger = frames(vec![
        frame(10, 12, vec![record(10), record(11)]),
        frame(12, 20, vec![skip(12, 14), record(14), gap(15, 20)]),
    ]);
    let ledger = ledger.expect("contiguous coverage");
    assert_eq!(ledger.cursor()[&0], 20);
    assert_eq!((ledger.received, ledger.skips.len(), ledger.gaps.len()), (3, 1, 1));
}

#[test]
fn the_judge_refuses_every_broken_frame() {
    let unknown_skip = Item { kind: Some(Kind::Skip(Skip { first_offset: 10, next_offset: 11, reason: 0 })) };
    let broken = [
        ("a hole before the first frame", vec![frame(11, 12, vec![record(11)])]),
        ("a repetition before the first frame", vec![frame(9, 11, vec![record(9), record(10)])]),
        ("a hole between frames", vec![frame(10, 11, vec![record(10)]), frame(12, 13, vec![record(12)])]),
        ("a repeated frame", vec![frame(10, 11, vec![record(10)]), frame(10, 11, vec![record(10)])]),
        ("a hole between items", vec![frame(10, 13, vec![record(10), record(12)])]),
        ("a repeated item", vec![frame(10, 11, vec![record(10), record(10)])]),
        ("items out of order", vec![frame(10, 12, vec![record(11), record(10)])]),
        ("items that end early", vec![frame(10, 12, vec![record(10)])]),
        ("items that go too far", vec![frame(10, 11, vec![record(10), record(11)])]),
        ("no items", vec![frame(10, 12, vec![])]),
        ("an empty frame", vec![frame(10, 10, vec![])]),
        ("an item without a kind", vec![frame(10, 11, vec![Item { kind: None }])]),
        ("a backward skip", vec![frame(10, 9, vec![skip(10, 9)])]),
        ("an empty gap", vec![frame(10, 11, vec![gap(10, 10), record(10)])]),
        ("a hole before a skip", vec![frame(10, 13, vec![record(10), skip(12, 13)])]),
        ("a skip without a reason", vec![frame(10, 11, vec![unknown_skip])]),
        ("an unknown partition", vec![Frame { partition: 1, ..frame(0, 1, vec![record(0)]) }]),
    ];
    for (what, sequence) in broken {
        assert!(frames(sequence).is_err(), "{what} was not noticed");
    }
}

#[test]
fn the_judge_holds_a_reconnect_against_the_cursor() {
    let reconnected = |from: i64, then: &[Value]| {
        let mut ledger = at_ten();
        ledger.frame(frame(10, 12, vec![record(10), record(11)]))?;
        ledger.connected();
        ledger.text(&welcome(from))?;
        then.iter().try_for_each(|message| ledger.text(message))?;
        let next = ledger.cursor()[&0];
        ledger.frame(frame(next, next + 1, vec![record(next)])).map(|()| ledger)
    };
    let reset = json!({ "type": "cursor_reset", "epoch": "e2", "partition": 0, "reason": "topic_recreated", "nextOffset": "0" });
    reconnected(12, &[]).expect("goes on at the cursor");
    let after_reset = reconnected(0, &[reset]).expect("a reset explains another start");
    assert_eq!((after_reset.resets.len(), after_reset.records.len()), (1, 1), "records of the old log are gone");
    let ended = Published::default().truth().compare_ended(&Published::default().truth(), true, &after_reset);
    assert!(ended.is_err_and(|error| error.contains("e1")), "what came before the reset was never published");
    for from in [0, 10, 11, 13] {
        assert!(reconnected(from, &[]).is_err(), "a start at {from} instead of 12 was not noticed");
    }
    let mut ledger = at_ten();
    ledger.connected();
    assert!(ledger.frame(frame(10, 11, vec![record(10)])).is_err(), "a frame before the welcome");
}

#[test]
fn the_judge_lets_a_welcome_leave_out_a_partition_that_is_announced_before_its_data() {
    let left_out = |added: &[i64]| {
        let mut ledger = at_ten();
        ledger.connected();
        ledger.text(&json!({ "type": "welcome", "epoch": "e1", "partitions": {} }))?;
        for from in added {
            ledger.text(&json!({ "type": "partition_added", "partition": 0, "from": from.to_string() }))?;
        }
        ledger.frame(frame(10, 11, vec![record(10)]))
    };
    left_out(&[10]).expect("it goes on at the cursor");
    for added in [&[][..], &[0], &[11], &[10, 11]] {
        assert!(left_out(added).is_err(), "{added:?} was not noticed");
    }
    let mut ledger = at_ten();
    ledger.connected();
    let failed = json!({ "type": "error", "code": "replay_timeout", "message": "later" });
    ledger.text(&failed).and_then(|()| ledger.text(&welcome(10))).expect("it was asked again");
    ledger.frame(frame(10, 11, vec![record(10)])).expect("it is not parked any more");
}

#[test]
fn a_client_that_was_told_of_a_new_log_in_part_asks_to_be_told_again() {
    let two = json!({ "from": "10", "low": "0", "next": "10" });
    let mut ledger = Ledger::default();
    ledger.connected();
    ledger.text(&json!({ "type": "welcome", "epoch": "e1", "partitions": { "0": two, "1": two } })).expect("a welcome");
    let reset = |partition| json!({ "type": "cursor_reset", "epoch": "e2", "partition": partition, "reason": "topic_recreated", "nextOffset": "0" });
    ledger.text(&reset(0)).expect("a reset");
    assert_eq!((ledger.cursor_epoch(), ledger.epoch_of(0), ledger.epoch_of(1)), (Some("e1"), Some("e2"), Some("e1")));
    ledger.text(&reset(1)).expect("a reset");
    assert_eq!(ledger.cursor_epoch(), Some("e2"));
}

#[test]
fn the_judge_refuses_offsets_that_are_json_numbers() {
    let messages = [
        json!({ "type": "welcome", "epoch": "e1", "partitions": { "0": { "from": 1, "low": "0", "next": "1" } } }),
        json!({ "type": "cursor_reset", "epoch": "e2", "partition": 0, "reason": "retention", "nextOffset": 7 }),
        json!({ "type": "cursor_reset", "epoch": "e2", "partition": "0", "reason": "retention", "nextOffset": "7" }),
        json!({ "type": "cursor_reset", "epoch": "e2", "partition": 0, "reason": "because", "nextOffset": "7" }),
        json!({ "type": "heartbeat", "nextOffsets": { "0": 7 } }),
        json!({ "no": "type" }),
    ];
    for message in messages {
        let mut ledger = Ledger::default();
        assert!(ledger.text(&message).is_err(), "{message} was not noticed");
    }
}

#[test]
fn the_judge_compares_every_published_record() {
    let topic = Topic::create(services::kafka(), "compare", 1);
    let producer = Producer::new(services::kafka());
    let published = producer.publish(&topic.name, [records::good("t", 1), records::null("t"), records::good("t", 2)]);
    let value = |offset| published.records[&(0, offset)].value.clone().unwrap_or_default();
    let delivered = |values: [Bytes; 2], reason: SkipReason| {
        let item = |offset, value| Item {
            kind: Some(Kind::Record(Record { offset, timestamp_ms: 0, value, findings: Vec::new() })),
        };
        let [first, last] = values;
        let set_aside =
            Item { kind: Some(Kind::Skip(Skip { first_offset: 1, next_offset: 2, reason: reason.into() })) };
        let mut ledger = Ledger::default();
        ledger.connected();
        ledger.text(&welcome(0)).expect("a good welcome");
        ledger.frame(frame(0, 3, vec![item(0, first), set_aside, item(2, last)])).expect("contiguous coverage");
        ledger.compare(&published, |_, _| false)
    };
    delivered([value(0), value(2)], SkipReason::PayloadMissing).expect("what was published");
    assert!(delivered([value(0), value(0)], SkipReason::PayloadMissing).is_err(), "another value");
    assert!(delivered([value(0), value(2)], SkipReason::NoRecord).is_err(), "another reason");
}

#[test]
fn topics_grow_shrink_and_start_again() {
    let topic = Topic::create(services::kafka(), "topic", 2);
    let producer = Producer::new(services::kafka());
    let to_first = |count: u64| (1..=count).map(|sequence| records::good("t", sequence).on_partition(0));
    producer.publish(&topic.name, to_first(10));
    assert_eq!(topic.watermarks(0), (0, 10));
    topic.delete_records(0, 4);
    assert_eq!(topic.watermarks(0), (4, 10));
    topic.grow(3);
    assert_eq!(topic.partitions(), [0, 1, 2]);
    assert!(topic.committed(&unique_name("nobody")).is_empty());
    topic.recreate(1);
    assert_eq!((topic.partitions(), topic.watermarks(0)), (vec![0], (0, 0)));
}

#[test]
fn the_producer_knows_where_each_record_lies() {
    let topic = Topic::create(services::kafka(), "producer", 3);
    let producer = Producer::new(services::kafka());
    let mut published = producer.publish(&topic.name, Mix::new(vec![0, 1, 2]).take(1_000));
    published.extend(producer.publish(&topic.name, [records::oversized("t", 2_000_000), records::bomb("t", 1 << 26)]));
    assert_eq!(published.len(), 1_002);
    assert!(published.good() > 900 && published.bad() > 5, "{} good, {} bad", published.good(), published.bad());
    for (partition, end) in published.ends() {
        assert_eq!(topic.watermarks(partition), (0, end));
    }
    read_back(&reader(&topic, services::kafka()), published.len(), &published);
}

/// A consumer at the beginning of every partition.
fn reader(topic: &Topic, kafka: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", unique_name("reader"))
        .set("enable.auto.commit", "false")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .expect("valid consumer settings");
    let mut list = TopicPartitionList::new();
    for partition in topic.partitions() {
        list.add_partition_offset(&topic.name, partition, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    consumer
}

/// Reads until `count` records have come, each of which is what the producer said.
fn read_back(consumer: &BaseConsumer, count: usize, published: &Published) {
    let mut right = 0;
    eventually("all records to be read back", SOON * 2, || {
        while let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let Ok(message) = message else { continue };
            let sent = &published.records[&(message.partition(), message.offset())];
            assert_eq!(message.payload(), sent.value.as_deref(), "record {}", message.offset());
            assert_eq!(message.key(), Some(sent.key.as_bytes()));
            right += 1;
        }
        if right >= count { Ok(()) } else { Err(format!("{right} records")) }
    });
    assert_eq!(right, count);
}

#[test]
fn a_load_publishes_until_it_is_stopped() {
    let topic = Topic::create(services::kafka(), "load", 2);
    let load = Load::start(&topic, 500);
    eventually("some records", SOON, || match load.published() {
        0..300 => Err(load.published().to_string()),
        _ => Ok(()),
    });
    let published = load.stop();
    let ends: i64 = published.ends().values().sum();
    assert_eq!(ends, i64::try_from(published.len()).expect("few records"));
    assert!(published.records.values().any(|sent| sent.expect != Expect::Record), "bad records are in the mix");
}

#[test]
fn a_consumer_behind_the_proxy_survives_a_cut_and_stays_behind_it() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "proxied", 2);
    let producer = Producer::new(&kafka.direct);
    let mut published = producer.publish(&topic.name, Mix::new(vec![0, 1]).take(500));
    let consumer = reader(&topic, &kafka.proxy.address());
    read_back(&consumer, 500, &published);

    kafka.proxy.cut();
    assert_eq!(kafka.proxy.connections(), 0);
    let refused = TcpStream::connect(kafka.proxy.address()).expect_err("a cut proxy refuses");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    published.extend(producer.publish(&topic.name, Mix::new(vec![0, 1]).take(500)));
    throughout("the cut", Duration::from_secs(1), || match consumer.poll(Duration::from_millis(100)) {
        Some(Ok(message)) => Err(format!("offset {} found a way around the proxy", message.offset())),
        _ => Ok(()),
    });

    kafka.proxy.heal();
    read_back(&consumer, 500, &published);
}

#[test]
fn redis_answers_directly_and_through_its_proxy() {
    let redis = services::redis_behind_proxy();
    let ping = |address: &str| {
        let mut stream = TcpStream::connect(address).expect("Redis is there");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.write_all(b"PING\r\n").expect("it takes a command");
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).expect("it answers");
        answer
    };
    assert_eq!(&ping(services::redis().trim_start_matches("redis://")), b"+PONG\r\n");
    assert_eq!(&ping(&redis.proxy.address()), b"+PONG\r\n");
}

/// An upstream that sends back what it gets, on one connection after the other.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(mut back) = stream.try_clone() else { return };
            std::thread::spawn(move || std::io::copy(&mut stream, &mut back));
        }
    });
    address
}

fn answered(stream: &mut TcpStream, wait: Duration) -> bool {
    stream.set_read_timeout(Some(wait)).expect("a timeout");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

#[test]
fn a_black_hole_holds_back_and_loses_nothing() {
    let proxy = Proxy::start().expect("a free port");
    proxy.forward_to(&echo());
    let mut old = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    old.write_all(b"hello").expect("it takes bytes");
    assert!(answered(&mut old, SOON));

    proxy.cut();
    proxy.black_hole();
    let mut new = TcpStream::connect(proxy.address()).expect("a black hole accepts");
    new.write_all(b"hello").expect("it takes bytes");
    assert!(!answered(&mut new, Duration::from_millis(300)), "nothing passes");

    proxy.heal();
    assert!(answered(&mut new, SOON), "what was held back arrives");
    let ended = within("the old connection to be reset", SOON, || match old.read(&mut [0; 1]) {
        Ok(0) => Ok("closed".to_owned()),
        Ok(_) => Err("bytes".to_owned()),
        Err(error) => Ok(error.to_string()),
    });
    assert!(!ended.is_empty());
}

#[test]
fn a_delay_delays_and_a_throttle_throttles() {
    let proxy = Proxy::start().expect("a free port");
    proxy.forward_to(&echo());
    let mut stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    let mut round_trip = |bytes: usize| {
        let start = Instant::now();
        stream.write_all(&vec![7; bytes]).expect("it takes bytes");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.read_exact(&mut vec![0; bytes]).expect("they come back");
        start.elapsed()
    };
    proxy.delay(Duration::from_millis(100));
    assert!(round_trip(5) >= Duration::from_millis(200));
    proxy.throttle(100_000);
    assert!(round_trip(50_000) >= Duration::from_millis(450));
}

#[test]
fn waiting_ends_with_the_last_thing_seen() {
    let panic = std::panic::catch_unwind(|| {
        within("the impossible", Duration::from_millis(50), || Err::<(), _>("a sign".to_owned()));
    });
    let message = panic.expect_err("it gives up").downcast::<String>().expect("a text");
    assert!(message.contains("the impossible") && message.contains("a sign"), "{message}");
    throughout("a moment", Duration::from_millis(50), || Ok(()));
}
