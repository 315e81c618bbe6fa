//! History read from Kafka is what the live stream was: complete, in order, judged the same, within its limits and its time,
//! and never of another log. The readers are driven here as the service drives them, on a board that stands for a live
//! reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashstream::board::{Board, Epoch};
use dashstream::kafka::connection::KafkaConnection;
use dashstream::kafka::history::{HistoryParts, KafkaHistory};
use dashstream::kafka::monitor::KafkaMonitor;
use dashstream::kafka::settings::IngestSettings;
use dashstream::kafka::topic::{TopicId, topic_id};
use dashstream::metrics::Metrics;
use dashstream::pipeline::decode::JudgeSettings;
use dashstream::pipeline::epoch::{TopicFacts, epoch_name};
use dashstream::pipeline::page::{Page, PageRequest, TierError};
use dashstream::pipeline::replay_plan::{Limits, Line, Patience, Source, Step, Tier, Turn, plan};
use dashstream::pipeline::window::Chunk;
use dashstream::wire::stream::{Frame, SkipReason, item};
use futures_util::future::join_all;
use prost::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::{runtime, unique_name};
use crate::ingest_support::Instance;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
/// A deadline that is not what is tested.
const LONG: Duration = Duration::from_secs(60);
const ALL: i64 = i64::MAX;

/// What lies at a range of offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Record(i64, Bytes),
    Skip(i64, i64, SkipReason),
}

impl Item {
    fn range(&self) -> (i64, i64) {
        match self {
            Self::Record(offset, _) => (*offset, offset + 1),
            Self::Skip(first, next, _) => (*first, *next),
        }
    }
}

/// What a browser would decode of a chunk.
fn items(chunk: &Chunk) -> Vec<Item> {
    let message = chunk.message();
    let header = match message[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let frame = Frame::decode(&message[header..]).expect("a frame");
    assert_eq!((frame.partition, frame.first_offset, frame.next_offset), (chunk.partition, chunk.first, chunk.next));
    let item = |item: item::Kind| match item {
        item::Kind::Record(record) => Item::Record(record.offset, record.value),
        item::Kind::Skip(skip) => {
            Item::Skip(skip.first_offset, skip.next_offset, SkipReason::try_from(skip.reason).expect("a reason"))
        }
        item::Kind::Gap(gap) => panic!("history has no gaps of its own: {gap:?}"),
    };
    let items: Vec<Item> = frame.items.into_iter().filter_map(|found| Some(item(found.kind?))).collect();
    let mut at = chunk.first;
    for item in &items {
        assert_eq!(item.range().0, at, "items touch each other");
        at = item.range().1;
    }
    assert_eq!(at, chunk.next);
    items
}

/// Readers of history beside a board that says that everything was read live.
struct Rig {
    board: Board,
    metrics: Arc<Metrics>,
    history: KafkaHistory,
    epoch_name: Arc<str>,
}

fn settings(kafka: &str, topic: &str) -> IngestSettings {
    let connection = KafkaConnection {
        brokers: kafka.to_owned(),
        client_id: "history-test".to_owned(),
        security: Default::default(),
        address_family: None,
    };
    IngestSettings::new(connection, topic, &unique_name("history"), "a")
}

fn name_of(topic: &Topic) -> String {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &topic.kafka).create().expect("valid settings");
    let id =
        eventually("the topic's id", BOUND, || match topic_id(client.client(), &topic.name, Duration::from_secs(2)) {
            TopicId::Is(id) => Ok(id),
            other => Err(format!("{other:?}")),
        });
    epoch_name(&topic.name, &TopicFacts { cluster_id: "c".into(), topic_id: Some(id), partitions: 1 })
}

fn open_board(topic: &Topic, board: &Board, number: u64) -> Arc<str> {
    let name = name_of(topic);
    board.open_epoch(Epoch { number, name: name.clone() });
    for partition in topic.partitions() {
        let (low, high) = topic.watermarks(partition);
        let board = board.opened(partition);
        board.start.set(low);
        board.end_at_start.set(high);
        board.fetched.set(high);
    }
    name.into()
}

impl Rig {
    fn new(topic: &Topic) -> Self {
        Self::with(topic, &topic.kafka, 2, 16 << 20)
    }

    fn with(topic: &Topic, kafka: &str, readers: usize, cache_bytes: usize) -> Self {
        let board = Board::new();
        let epoch_name = open_board(topic, &board, 1);
        Self::on(board, epoch_name, settings(kafka, &topic.name), readers, cache_bytes)
    }

    fn on(board: Board, epoch_name: Arc<str>, kafka: IngestSettings, readers: usize, cache_bytes: usize) -> Self {
        let metrics = Arc::new(Metrics::new().expect("unique names"));
        let monitor = Arc::new(KafkaMonitor::new(Arc::clone(&metrics)));
        let parts = HistoryParts {
            kafka,
            judge: JudgeSettings::default(),
            readers,
            cache_bytes,
            board: board.clone(),
            monitor,
        };
        Self { board, metrics, history: KafkaHistory::start(parts).expect("threads"), epoch_name }
    }

    fn request(&self, partition: i32, from: i64, until: i64, max_records: u32) -> PageRequest {
        let (epoch, epoch_name) = (self.board.epoch_number(), Arc::clone(&self.epoch_name));
        PageRequest { epoch, epoch_name, partition, from, until, max_records, max_bytes: 1 << 20 }
    }

    fn page(&self, request: &PageRequest) -> Result<Page, TierError> {
        runtime().block_on(self.history.page(request, Instant::now() + LONG))
    }

    /// All pages from `from` to `until`, or to the end when that comes first; checks each of them against what was asked.
    fn read(&self, partition: i32, from: i64, until: i64, max_records: u32) -> Vec<Item> {
        let (mut cursor, mut found) = (from, Vec::new());
        while cursor < until {
            let page = self.page(&self.request(partition, cursor, until, max_records)).expect("a page");
            assert_eq!(page.low, None);
            let Some(next) = page.next() else { break };
            let records: u32 = page.chunks.iter().map(|chunk| chunk.records).sum();
            assert!(records <= max_records, "{records} records in a page of {max_records}");
            for chunk in &page.chunks {
                assert_eq!((chunk.partition, chunk.first), (partition, cursor), "chunks touch each other");
                cursor = chunk.next;
                found.extend(items(chunk));
            }
            assert!(cursor == next && cursor <= until);
        }
        found
    }

    fn pages(&self, result: &str) -> u64 {
        self.metrics.history_pages.with_label_values(&["kafka", result]).get()
    }
}

/// What the items of a partition have to be, neighbouring skips of one kind taken as one.
fn expected(published: &Published, partition: i32) -> Vec<Item> {
    let of_partition = published.records.values().filter(|sent| sent.partition == partition);
    merged(of_partition.map(|sent| match sent.expect {
        Expect::Record => Item::Record(sent.offset, sent.value.clone().unwrap_or_default()),
        Expect::Skip(reason) => Item::Skip(sent.offset, sent.offset + 1, reason),
    }))
}

fn merged(items: impl IntoIterator<Item = Item>) -> Vec<Item> {
    let mut merged: Vec<Item> = Vec::new();
    for item in items {
        match (merged.last_mut(), &item) {
            (Some(Item::Skip(_, next, reason)), Item::Skip(first, end, other)) if next == first && reason == other => {
                *next = *end;
            }
            _ => merged.push(item),
        }
    }
    merged
}

/// Good records, each kind of bad one among them, spread over the partitions.
fn mixed(count: u64, partitions: i32) -> impl Iterator<Item = Outgoing> {
    let record = move |number: u64| {
        let bad = records::one_of_each_bad("bad");
        match number % 29 {
            3 => bad[(number / 29) as usize % bad.len()].clone(),
            7 => records::zstd("packed", number, 300),
            _ => records::good_of_size("thread", number, (number % 200) as usize),
        }
        .on_partition(i32::try_from(number).unwrap_or_default() % partitions)
    };
    (0..count).map(record)
}

#[test]
fn pages_of_any_size_are_what_the_live_stream_was() {
    let topic = Topic::create(services::kafka(), "pages", 3);
    let published = Producer::new(&topic.kafka).publish(&topic.name, mixed(3_000, 3));
    for (readers, cache_bytes) in [(1, 0), (2, 16 << 20)] {
        let rig = Rig::with(&topic, &topic.kafka, readers, cache_bytes);
        for partition in 0..3 {
            let want = expected(&published, partition);
            for max_records in [7, 250, 10_000] {
                assert_eq!(merged(rig.read(partition, 0, ALL, max_records)), want, "pages of {max_records}");
            }
            // The same from anywhere, also where what is kept begins elsewhere.
            for from in [1, 499, 999] {
                let want: Vec<Item> = want.iter().filter(|item| item.range().0 >= from).cloned().collect();
                let found = merged(rig.read(partition, from, ALL, 100));
                assert_eq!(found.iter().filter(|item| item.range().0 >= from).count(), found.len());
                assert!(found.ends_with(&want[want.len().min(1)..]), "from {from}");
            }
            let some = rig.read(partition, 100, 200, 1_000);
            assert_eq!((some[0].range().0, some[some.len() - 1].range().1), (100, 200));
        }
        assert_eq!(rig.metrics.decode_errors.with_label_values(&["invalid_protobuf"]).get(), 0, "outcomes are of live");
        assert_eq!(rig.metrics.infrastructure_errors.get(), 0);
        assert!(rig.pages("served") > 0 && rig.pages("timeout") + rig.pages("unavailable") == 0);
    }
}

#[test]
fn a_page_ends_with_its_bytes() {
    let topic = Topic::create(services::kafka(), "bytes", 1);
    let records = (0..40).map(|number| records::good_of_size("thread", number + 1, 10_000).on_partition(0));
    Producer::new(&topic.kafka).publish(&topic.name, records);
    let rig = Rig::with(&topic, &topic.kafka, 1, 0);
    for (max_bytes, want) in [(1, 1), (25_000, 3), (1 << 20, 40)] {
        let page = rig.page(&PageRequest { max_bytes, ..rig.request(0, 0, 40, 1_000) }).expect("a page");
        let records: u32 = page.chunks.iter().map(|chunk| chunk.records).sum();
        assert_eq!(records, want, "of {max_bytes} bytes");
    }
    let text = rig.metrics.encode().expect("metrics");
    for shown in ["dashstream_history_page_records_sum{tier=\"kafka\"} 44\n", "page_seconds_count{tier=\"kafka\"} 3\n"]
    {
        assert!(text.contains(shown), "sizes and times of pages are shown");
    }
}

#[test]
fn the_edges_of_a_log_are_told() {
    let topic = Topic::create(services::kafka(), "edges", 3);
    let published =
        Producer::new(&topic.kafka).publish(&topic.name, (0..100).map(|n| records::good("t", n + 1).on_partition(0)));
    Producer::new(&topic.kafka).publish(&topic.name, (0..50).map(|n| records::good("t", n + 1).on_partition(2)));
    let rig = Rig::new(&topic);
    let asked = |partition, from, until| rig.page(&rig.request(partition, from, until, 1_000)).expect("a page");
    let bounds = |page: &Page| (page.chunks.first().map(|chunk| chunk.first), page.next(), page.low);
    for (what, partition, from, until, want) in [
        ("the first record", 0, 0, 1, (Some(0), Some(1), None)),
        ("the last record", 0, 99, 100, (Some(99), Some(100), None)),
        ("past the last record", 0, 99, 200, (Some(99), Some(100), None)),
        ("at the end", 0, 100, 200, (None, None, None)),
        ("beyond the end", 0, 150, 200, (None, None, None)),
        ("far beyond the end", 0, (1 << 53) + 1, ALL, (None, None, None)),
        ("nothing", 0, 10, 10, (None, None, None)),
        ("an empty partition", 1, 0, 1, (None, None, None)),
        ("everything", 0, 0, ALL, (Some(0), Some(100), None)),
    ] {
        assert_eq!(bounds(&asked(partition, from, until)), want, "{what}");
    }
    assert_eq!(merged(rig.read(0, 0, ALL, 33)), expected(&published, 0));

    // Retention moves on.
    topic.delete_records(0, 60);
    topic.delete_records(2, 50);
    let rig = Rig::new(&topic);
    let asked = |partition, from, until| rig.page(&rig.request(partition, from, until, 1_000)).expect("a page");
    for (what, partition, from, until, want) in [
        ("below the start", 0, 0, 100, (None, None, Some(60))),
        ("just below the start", 0, 59, 100, (None, None, Some(60))),
        ("below the start, asked only there", 0, 0, 30, (None, None, Some(60))),
        ("the start", 0, 60, 100, (Some(60), Some(100), None)),
        ("a log of which nothing is left", 2, 10, 50, (None, None, Some(50))),
        ("its end", 2, 50, 60, (None, None, None)),
    ] {
        assert_eq!(bounds(&asked(partition, from, until)), want, "{what}");
    }
    let starts = runtime().block_on(rig.history.offsets_at(1, 0, Instant::now() + LONG)).expect("log starts");
    assert_eq!(starts, vec![(0, 60), (1, 0), (2, 50)]);
}

/// A producer of records with times of their own.
fn timed(topic: &Topic, partition: i32, times: impl IntoIterator<Item = i64>) {
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &topic.kafka).create().expect("valid settings");
    for (number, time) in (1..).zip(times) {
        let value = records::good("timed", number).value.unwrap_or_default();
        let record = BaseRecord::<(), [u8]>::to(&topic.name).partition(partition).payload(&value).timestamp(time);
        producer.send(record).map_err(|(error, _)| error).expect("room for a few records");
    }
    producer.flush(BOUND).expect("Kafka takes them");
}

#[test]
fn a_time_is_the_offset_of_the_first_record_that_is_as_new() {
    // The times are long ago.
    let topic = Topic::create_with(services::kafka(), "time", 3, &[("retention.ms", "-1")]);
    let start = 1_700_000_000_000_i64;
    timed(&topic, 0, (0..100).map(|number| start + number * 1_000));
    timed(&topic, 1, (0..10).map(|number| start + 50_000 + number));
    let rig = Rig::new(&topic);
    let at = |time| runtime().block_on(rig.history.offsets_at(1, time, Instant::now() + LONG)).expect("offsets");
    for (what, time, want) in [
        ("before all", start - 1, [0, 0, 0]),
        ("the beginning of time", 0, [0, 0, 0]),
        ("before it", -1, [0, 0, 0]),
        ("long before it", i64::MIN, [0, 0, 0]),
        ("the first record", start, [0, 0, 0]),
        ("between two records", start + 1, [1, 0, 0]),
        ("within the other partition", start + 50_005, [51, 5, 0]),
        ("the last record", start + 99_000, [99, 10, 0]),
        ("after all", start + 99_001, [100, 10, 0]),
        ("the end of time", i64::MAX, [100, 10, 0]),
    ] {
        let want: Vec<(i32, i64)> = (0..).zip(want).collect();
        assert_eq!(at(time), want, "{what}");
    }
    topic.delete_records(0, 30);
    assert_eq!(at(start)[0], (0, 30), "what is gone is not found");
}

#[test]
fn holes_of_compaction_are_skips() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.bytes", "1048576"),
        ("min.compaction.lag.ms", "0"),
    ];
    let topic = Topic::create_with(services::kafka(), "compacted", 1, &settings);
    // One key again and again, others once; then enough to fill the segment, which is not compacted while it is open.
    let record = |number: u64| {
        let key = if number.is_multiple_of(10) { format!("once-{number}") } else { "again".to_owned() };
        Outgoing { key, ..records::good_of_size("t", number + 1, 20) }.on_partition(0)
    };
    let producer = Producer::new(&topic.kafka);
    let mut published = producer.publish(&topic.name, (0..1_000).map(record));
    published.extend(producer.publish(
        &topic.name,
        (0..30).map(|number| {
            Outgoing { key: format!("large-{number}"), ..records::good_of_size("t", number + 1, 100_000) }
                .on_partition(0)
        }),
    ));
    eventually("the log to be compacted", BOUND, || match topic.keys_of_some(0, 0, 20) {
        keys if keys.iter().any(|key| key == "again") => Err(format!("{} records below 20", keys.len())),
        _ => Ok(()),
    });
    let rig = Rig::new(&topic);
    for max_records in [3, 1_000] {
        let found = merged(rig.read(0, 0, ALL, max_records));
        assert_eq!((found[0].range().0, found[found.len() - 1].range().1), (0, 1_030));
        assert_eq!(found[1], Item::Skip(1, 10, SkipReason::NoRecord), "{:?}", &found[..3]);
        for item in &found {
            match item {
                Item::Record(offset, value) => {
                    assert_eq!(Some(value), published.records[&(0, *offset)].value.as_ref(), "offset {offset}");
                }
                Item::Skip(_, _, reason) => assert_eq!(*reason, SkipReason::NoRecord),
            }
        }
        let kept = found.iter().filter(|item| matches!(item, Item::Record(..))).count();
        assert!((130..1_000).contains(&kept), "{kept} records");
        // Asked in the middle of a hole.
        assert_eq!(rig.read(0, 5, 12, max_records)[0], Item::Skip(5, 10, SkipReason::NoRecord));
        assert_eq!(rig.read(0, 3, 7, max_records), vec![Item::Skip(3, 7, SkipReason::NoRecord)]);
    }
}

#[test]
fn markers_and_aborted_records_of_transactions_are_skips() {
    let topic = Topic::create(services::kafka(), "transactions", 1);
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &topic.kafka)
        .set("transactional.id", unique_name("transactions"))
        .create()
        .expect("valid settings");
    producer.init_transactions(BOUND).expect("a transactional producer");
    // Offsets 0-4 and a marker, 6-10 aborted and a marker, 12-16 and a marker: the last offset of the log holds no record.
    for commit in [true, false, true] {
        producer.begin_transaction().expect("a transaction");
        for number in 0..5 {
            let value = records::good("t", number + 1).value.unwrap_or_default();
            let record = BaseRecord::<(), [u8]>::to(&topic.name).partition(0).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("room");
        }
        producer.flush(BOUND).expect("Kafka takes them");
        let ended = if commit { producer.commit_transaction(BOUND) } else { producer.abort_transaction(BOUND) };
        ended.expect("the end of a transaction");
    }
    let rig = Rig::new(&topic);
    assert_eq!(topic.watermarks(0), (0, 18));
    for max_records in [1, 2, 5, 100] {
        let found = merged(rig.read(0, 0, 18, max_records));
        let text: Vec<String> = found
            .iter()
            .map(|item| match item {
                Item::Record(offset, _) => offset.to_string(),
                Item::Skip(first, next, reason) => format!("{first}-{next} {reason:?}"),
            })
            .collect();
        let want = "0 1 2 3 4 5-12 NoRecord 12 13 14 15 16 17-18 NoRecord";
        assert_eq!(text.join(" "), want, "pages of {max_records}");
    }
    assert_eq!(rig.read(0, 17, 18, 10), vec![Item::Skip(17, 18, SkipReason::NoRecord)], "the marker alone");
    assert_eq!(rig.read(0, 6, 11, 10), vec![Item::Skip(6, 11, SkipReason::NoRecord)], "aborted records alone");
    assert_eq!(rig.read(0, 18, 30, 10), vec![], "behind it");
}

#[test]
fn nothing_of_a_topic_made_anew_is_served_into_the_old_epoch() {
    for (old, new) in [(500, 100), (100, 500)] {
        let topic = Topic::create(services::kafka(), "anew", 2);
        let of = |count| (0..count).map(|n| records::good("t", n + 1).on_partition(i32::try_from(n).unwrap_or(0) % 2));
        Producer::new(&topic.kafka).publish(&topic.name, of(old));
        let rig = Rig::new(&topic);
        let request = rig.request(0, 10, 40, 10);
        assert_eq!(rig.page(&request).expect("a page").next(), Some(20));
        assert_eq!(rig.page(&PageRequest { epoch: 2, ..request.clone() }).err(), Some(TierError::EpochOver));

        topic.recreate(2);
        let published = Producer::new(&topic.kafka).publish(&topic.name, of(new));
        // The board knows nothing of it yet.
        let unread = |partition, from| rig.request(partition, from, from + 40, 10);
        for request in [unread(1, 0), unread(1, 30)] {
            eventually("the end of the epoch to be told", BOUND, || match rig.page(&request) {
                Err(TierError::EpochOver) => Ok(()),
                Ok(page) => panic!("{:?} was served after {old} records", page.chunks.first().map(|c| c.first)),
                // While the topic is away or has no leader.
                Err(error) => Err(error.to_string()),
            });
        }
        let epoch_over = |answer: Result<Vec<(i32, i64)>, TierError>| assert_eq!(answer, Err(TierError::EpochOver));
        epoch_over(runtime().block_on(rig.history.offsets_at(1, 0, Instant::now() + LONG)));

        let epoch_name = open_board(&topic, &rig.board, 2);
        assert_eq!(rig.page(&request).err(), Some(TierError::EpochOver), "also what is kept");
        let rig = Rig { epoch_name, ..rig };
        assert_eq!(merged(rig.read(0, 0, ALL, 30)), expected(&published, 0), "the new epoch is read");
    }
}

#[test]
fn a_cluster_that_does_not_answer_costs_the_deadline_and_no_more() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "faults", 2);
    let published = Producer::new(&kafka.direct).publish(&topic.name, mixed(2_000, 2));
    let rig = Rig::with(&topic, &kafka.proxy.address(), 1, 0);
    assert_eq!(rig.read(0, 0, 100, 50).len(), rig.read(0, 0, 100, 50).len());
    for fault in [Fault::Cut, Fault::BlackHole] {
        kafka.proxy.set(fault);
        let asked = Instant::now();
        let patience = Duration::from_secs(4);
        let before = rig.pages("timeout");
        // More than the one reader can take at once.
        let answers = runtime().spawn(join_all((0..20).map(|number| {
            let (history, request) = (rig.history.clone(), rig.request(number % 2, 500, 1_000, 100));
            async move { history.page(&request, asked + patience).await }
        })));
        let waits = || rig.metrics.history_questions.get();
        eventually("all of them to wait", patience, || if waits() == 20 { Ok(()) } else { Err(waits().to_string()) });
        let answers = runtime().block_on(answers).expect("no panic");
        assert_eq!(waits(), 0);
        let took = asked.elapsed();
        assert!(answers.iter().all(|answer| matches!(answer, Err(TierError::Timeout))), "{fault:?}: {answers:?}");
        assert!(took >= patience && took < patience + Duration::from_secs(10), "{fault:?}: {took:?}");
        assert_eq!(rig.pages("timeout"), before + 20);
        let starts = runtime().block_on(rig.history.offsets_at(1, 0, Instant::now() + Duration::from_secs(1)));
        assert_eq!(starts, Err(TierError::Timeout));
        kafka.proxy.heal();
        for partition in 0..2 {
            assert_eq!(merged(rig.read(partition, 0, ALL, 400)), expected(&published, partition), "after {fault:?}");
        }
    }
}

#[test]
fn many_clients_that_page_over_the_same_range_share_one_reading() {
    let topic = Topic::create(services::kafka(), "shared", 1);
    Producer::new(&topic.kafka).publish(&topic.name, (0..2_000).map(|n| records::good("t", n + 1).on_partition(0)));
    let rig = Rig::new(&topic);
    let mut cursor = 0;
    while cursor < 2_000 {
        let request = rig.request(0, cursor, 2_000, 100);
        let deadline = Instant::now() + LONG;
        let pages = runtime().block_on(join_all((0..100).map(|_| rig.history.page(&request, deadline))));
        let pages: Vec<Page> = pages.into_iter().map(|page| page.expect("a page")).collect();
        let all: Vec<Vec<Item>> =
            pages.iter().map(|page| page.chunks.iter().flat_map(|c| items(c)).collect()).collect();
        assert!(all.iter().all(|items| *items == all[0]), "everybody gets the same");
        cursor = pages[0].next().expect("progress");
    }
    let read = rig.metrics.history_cache_lookups.with_label_values(&["miss"]).get();
    assert!((1..=20).contains(&read), "{read} pages were read from Kafka");
    assert!(rig.pages("served") >= 2_000);
    let kept = rig.metrics.history_cache_bytes.get();
    assert!(kept > 0 && kept <= 16 << 20, "{kept} bytes are kept");
}

/// Reads a backlog as a session does: by the plan, all partitions of a page at once.
fn by_the_plan(rig: &Rig, lines: &mut [Line], limits: Limits) -> (Vec<(i32, Item)>, usize) {
    let (mut turn, mut pages, mut found) = (Turn::default(), 0, Vec::new());
    loop {
        let below: Vec<Line> = lines.iter().filter(|line| line.cursor < line.until).copied().collect();
        if below.is_empty() {
            return (found, pages);
        }
        let planned = plan(&below, limits, turn, Patience::Left);
        (turn, pages) = (planned.turn, pages + 1);
        let deadline = Instant::now() + LONG;
        let answers = runtime().block_on(join_all(planned.steps.iter().map(|step| async {
            let request = step.request(1, &rig.epoch_name).expect("only reads");
            (*step, rig.history.page(&request, deadline).await)
        })));
        let mut records = 0;
        for (step, answer) in answers {
            let Step::Read { source, partition, from, until, .. } = step else { panic!("{step:?}") };
            assert_eq!(source, Source::Kafka);
            let line = lines.iter_mut().find(|line| line.partition == partition).expect("a line");
            assert!(line.answered(source, until, &answer), "{answer:?}");
            for chunk in answer.expect("a page").chunks {
                assert!(chunk.first == line.cursor && line.cursor >= from && chunk.next <= until);
                line.cursor = chunk.next;
                records += chunk.records;
                found.extend(items(&chunk).into_iter().map(|item| (partition, item)));
            }
        }
        assert!(records <= limits.records, "{records} records in one page");
    }
}

#[test]
fn ten_thousand_records_come_completely_however_many_partitions_they_lie_in() {
    let mut of_one = None;
    for partitions in [1, 10, 50] {
        let topic = Topic::create(services::kafka(), "backlog", partitions);
        let published = Producer::new(&topic.kafka).publish(&topic.name, mixed(10_000, partitions));
        let rig = Rig::new(&topic);
        let line = |(partition, end): (i32, i64)| Line {
            partition,
            cursor: 0,
            until: end,
            redis: Tier::off(),
            kafka: Tier::unknown(),
        };
        let mut lines: Vec<Line> = published.ends().into_iter().map(line).collect();
        let started = Instant::now();
        let (found, pages) = by_the_plan(&rig, &mut lines, Limits { records: 1_000, bytes: 4 << 20 });
        let took = started.elapsed();
        println!("10,000 records of {partitions} partitions in {pages} pages after {took:?}");
        // What is left over twice the time is the machine's.
        let allowed = *of_one.get_or_insert(took) * 2 + Duration::from_millis(250);
        assert!(took < allowed, "{partitions} partitions: {took:?}, allowed {allowed:?}");
        assert!(pages <= 25, "{pages} pages");
        let mut by_partition: BTreeMap<i32, Vec<Item>> = BTreeMap::new();
        for (partition, item) in found {
            by_partition.entry(partition).or_default().push(item);
        }
        for partition in 0..partitions {
            let found = merged(by_partition.remove(&partition).unwrap_or_default());
            assert_eq!(found, expected(&published, partition));
        }
    }
}

#[test]
fn live_records_flow_while_history_is_read() {
    let topic = Topic::create(services::kafka(), "beside", 4);
    let producer = Producer::new(&topic.kafka);
    let published = producer.publish(&topic.name, mixed(20_000, 4));
    let kafka = settings(&topic.kafka, &topic.name);
    let instance = Instance::start(kafka.clone());
    eventually("the live reader to have all", BOUND, || match instance.received(1) {
        20_000 => Ok(()),
        received => Err(received.to_string()),
    });
    let name: Arc<str> = instance.board.epoch().name.into();
    let rig = Rig::on(instance.board.clone(), name, kafka, 4, 0);
    let live = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|partition| {
                let (rig, published) = (&rig, &published);
                scope.spawn(move || {
                    for _ in 0..3 {
                        assert_eq!(merged(rig.read(partition, 0, 5_000, 200)), expected(published, partition));
                    }
                })
            })
            .collect();
        let mut live = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            live += producer.publish(&topic.name, mixed(40, 4)).len();
            eventually("what was published to be live", BOUND, || match instance.received(1) - 20_000 {
                received if received == live => Ok(()),
                received => Err(format!("{received} of {live}")),
            });
        }
        live
    });
    println!("{live} live records meanwhile");
    assert!(live > 0);
    assert_eq!(instance.metrics.infrastructure_errors.get() + rig.metrics.infrastructure_errors.get(), 0);
    assert_eq!(instance.board.epoch_number(), 1);
}
