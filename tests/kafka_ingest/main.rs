//! The Kafka side against a real cluster, which `DASHSTREAM_TEST_KAFKA` names. Without it only the mock broker is used.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test fails by panicking, prints what it found, and is no library"
)]

mod outage;
mod speed;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dashstream::kafka::errors::ErrorType;
use dashstream::kafka::identity::ProcessIdentity;
use dashstream::pipeline::epoch::ResetPolicy;
use rdkafka::mocking::MockCluster;
use support::{Cluster, Instance, eventually, topic};

/// A process of this machine that is not alive.
fn dead_process() -> ProcessIdentity {
    ProcessIdentity { pid: u32::MAX, ..ProcessIdentity::current() }
}

/// Another live process of this machine.
fn live_neighbour() -> ProcessIdentity {
    let parent = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    ProcessIdentity { pid: parent, started, ..ProcessIdentity::current() }
}

fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|number| number.to_string().into_bytes())
}

macro_rules! kafka {
    () => {
        match Cluster::from_env() {
            Some(cluster) => cluster,
            None => {
                eprintln!("skipped: DASHSTREAM_TEST_KAFKA is not set");
                return;
            }
        }
    };
}

#[test]
fn every_record_arrives_once_in_order_and_is_committed() {
    let cluster = kafka!();
    let topic = topic("once");
    cluster.create_topic(&topic, 8);
    cluster.produce(&topic, 8, numbered(0..20_000));
    let started = Instant::now();
    let instance = Instance::start(cluster.settings(&topic, "a"));
    eventually("all records", || instance.received(1) == 20_000);
    println!("20,000 records after {:?}", started.elapsed());
    let terms = instance.log.lock().unwrap().batches.iter().filter(|batch| batch.duty_term == 0).count();
    println!("{} batches, {terms} of them without duties", instance.log.lock().unwrap().batches.len());
    let done = || cluster.committed(&format!("{topic}-group"), &topic, 8).values().map(|c| c.0).sum::<i64>();
    eventually("all commits", || done() == 20_000);
    let epoch = instance.board.epoch().name;
    assert!(epoch.contains(&topic) && !epoch.ends_with("/-"), "{epoch}");
    assert!(cluster.committed(&format!("{topic}-group"), &topic, 8).values().all(|c| c.1 == epoch));
    assert!(instance.drain(Duration::from_secs(5)).committed);
    // A restart goes on where it was.
    cluster.produce(&topic, 8, numbered(20_000..20_100));
    let again = Instance::start(cluster.settings(&topic, "a"));
    eventually("the rest", || again.received(1) == 100);
    assert_eq!(again.metrics.infrastructure_errors.get(), 0, "{:?}", again.monitor.status());
}

#[test]
fn after_a_kill_live_data_and_duties_are_back_at_once() {
    let cluster = kafka!();
    let topic = topic("kill");
    cluster.create_topic(&topic, 8);
    let before = Instance::start_as(cluster.settings(&topic, "a"), dead_process(), true);
    cluster.produce(&topic, 8, numbered(0..1_000));
    eventually("all settled", || before.has_committed(125));
    before.settle.store(false, Ordering::Relaxed);
    cluster.produce(&topic, 8, numbered(0..80));
    eventually("read, but not settled", || before.received(1) == 1_080);
    let started = Instant::now();
    let after = Instance::start(cluster.settings(&topic, "a"));
    eventually("live data", || after.received(1) == 80);
    println!("live after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3));
    eventually("duties", || after.owned().len() == 8);
    println!("duties after {:?}", started.elapsed());
    eventually("settled again", || after.has_committed(135));
    println!("committed after {:?}", started.elapsed());
    eventually("the old one is told", || before.is_over());
    before.vanish();
}

#[test]
fn a_second_process_with_the_same_member_id_is_refused_and_reads_on() {
    let cluster = kafka!();
    let topic = topic("twice");
    cluster.create_topic(&topic, 2);
    let first = Instance::start_as(cluster.settings(&topic, "a"), live_neighbour(), true);
    eventually("duties", || first.owned().len() == 2);
    let second = Instance::start(cluster.settings(&topic, "a"));
    eventually("a refusal", || second.refused.lock().unwrap().is_some());
    let why = second.refused.lock().unwrap().clone().unwrap();
    assert!(why.contains("KAFKA_GROUP_INSTANCE_ID") && why.contains("this machine"), "{why}");
    cluster.produce(&topic, 2, numbered(0..10));
    eventually("both read", || first.received(1) == 10 && second.received(1) == 10);
    assert!(second.owned().is_empty() && first.owned().len() == 2 && first.refused.lock().unwrap().is_none());
}

#[test]
fn duties_move_between_instances_and_nothing_unsettled_is_left_behind() {
    let cluster = kafka!();
    let topic = topic("move");
    cluster.create_topic(&topic, 8);
    let one = Instance::start(cluster.settings(&topic, "one"));
    cluster.produce(&topic, 8, numbered(0..800));
    eventually("all owned and read", || one.owned().len() == 8 && one.received(1) == 800);
    let started = Instant::now();
    let two = Instance::start(cluster.settings(&topic, "two"));
    eventually("half and half", || one.owned().len() == 4 && two.owned().len() == 4);
    println!("shared after {:?}", started.elapsed());
    assert!(one.owned().is_disjoint(&two.owned()));
    // One of them settles nothing any more and vanishes; the other one does its duties again.
    two.settle.store(false, Ordering::Relaxed);
    cluster.produce(&topic, 8, numbered(800..1_600));
    eventually("both read all", || one.received(1) == 1_600 && two.values(1).values().flatten().count() >= 800);
    let lost = two.owned();
    let reread = one.log.lock().unwrap().batches.len();
    two.vanish();
    let started = Instant::now();
    eventually("everything is committed by the one that is left", || {
        cluster.committed(&format!("{topic}-group"), &topic, 8).values().map(|c| c.0).sum::<i64>() == 1_600
    });
    println!("taken over after {:?}", started.elapsed());
    let log = one.log.lock().unwrap();
    let again: BTreeSet<i32> = log.batches[reread..].iter().map(|batch| batch.partition).collect();
    assert_eq!(again, lost, "only the ranges of the other one are read again");
    drop(log);
    assert_eq!(one.received(1), 1_600);
}

#[test]
fn a_recreated_topic_opens_a_new_epoch_and_is_read_from_its_start() {
    for (ids, more) in [(false, 100), (true, 1_500), (true, 100)] {
        let cluster = kafka!();
        let topic = topic("recreated");
        cluster.create_topic(&topic, 2);
        let mut settings = cluster.settings(&topic, "a");
        if !ids {
            settings.topic_id_timeout = Duration::ZERO;
        }
        let instance = Instance::start(settings.clone());
        cluster.produce(&topic, 2, numbered(0..1_000));
        eventually("the old topic", || instance.received(1) == 1_000);
        eventually("commits", || instance.has_committed(500));
        let old = instance.board.epoch();
        cluster.delete_topic(&topic);
        cluster.create_topic(&topic, 2);
        cluster.produce(&topic, 2, numbered(0..more));
        let took = eventually("the new topic", || instance.received(2) == more as usize);
        println!("topic ids {ids}, {more} new records: complete after {took:?}");
        let new = instance.board.epoch();
        assert_eq!(new.number, old.number + 1);
        assert_eq!(new.name != old.name, ids);
        assert_eq!(instance.metrics.epochs.get(), 1);
        let end = i64::from(more / 2);
        eventually("commits of the new one", || {
            let committed = cluster.committed(&format!("{topic}-group"), &topic, 2);
            committed.len() == 2 && committed.values().all(|c| *c == (end, new.name.clone()))
        });
        instance.vanish();
    }
}

#[test]
fn a_topic_recreated_while_nobody_looked_is_noticed() {
    let cluster = kafka!();
    let topic = topic("unseen");
    cluster.create_topic(&topic, 1);
    cluster.produce(&topic, 1, numbered(0..50));
    let first = Instance::start(cluster.settings(&topic, "a"));
    eventually("commits", || first.board.partitions().iter().any(|p| p.committed.get() == Some(50)));
    assert!(first.drain(Duration::from_secs(5)).committed);
    drop(first);
    cluster.delete_topic(&topic);
    cluster.create_topic(&topic, 1);
    cluster.produce(&topic, 1, numbered(0..80));
    let mut settings = cluster.settings(&topic, "a");
    settings.reset = ResetPolicy::Latest;
    // Kafka drops the group's offsets with the topic unless the group was in use; both must not lose anything.
    let kept = !cluster.committed(&format!("{topic}-group"), &topic, 1).is_empty();
    println!("commits outlived the topic: {kept}");
    settings.reset = if kept { ResetPolicy::Latest } else { ResetPolicy::Earliest };
    let second = Instance::start(settings);
    eventually("all of the new topic", || second.received(1) == 80);
    assert_eq!(second.metrics.epochs.get(), u64::from(kept));
}

#[test]
fn what_retention_took_is_told_as_lost_and_reading_goes_on() {
    let cluster = kafka!();
    let topic = topic("retention");
    cluster.create_topic(&topic, 2);
    let mut settings = cluster.settings(&topic, "a");
    settings.prefetch_kib = 1;
    let instance = Instance::start(settings.clone());
    eventually("opened", || instance.owned().len() == 2);
    // No credit: the reader, after at most one turn, stands still while retention passes it.
    let held = instance.credit.charge(instance.credit.limit());
    cluster.produce(&topic, 2, (0..4_000).map(|_| vec![b'x'; 1000]));
    cluster.delete_records(&topic, 0, 1_900);
    drop(held);
    eventually("both ends", || instance.has_committed(2_000));
    let values = instance.values(1);
    assert_eq!(values[&1].len(), 2_000, "the other partition loses nothing");
    let log = instance.log.lock().unwrap();
    let lost: i64 = log.batches.iter().filter(|batch| batch.lost).map(|batch| batch.next - batch.first).sum();
    assert!(lost > 0, "the library had everything prefetched");
    assert_eq!(values[&0].len() as i64, 2_000 - lost);
    assert_eq!(instance.metrics.lost_offsets.with_label_values(&["retention"]).get(), lost.unsigned_abs());
    drop(log);
    // A start from a commit that retention has passed tells the same.
    assert!(instance.drain(Duration::from_secs(5)).committed);
    drop(instance);
    cluster.produce(&topic, 2, numbered(0..200));
    cluster.delete_records(&topic, 0, 2_050);
    let again = Instance::start(settings);
    eventually("the rest", || again.received(1) == 150);
    let log = again.log.lock().unwrap();
    let lost: Vec<_> = log.batches.iter().filter(|batch| batch.lost).map(|b| (b.partition, b.first, b.next)).collect();
    assert_eq!(lost, vec![(0, 2_000, 2_050)]);
}

#[test]
fn new_partitions_are_read_from_their_start_and_owned() {
    let cluster = kafka!();
    let topic = topic("growth");
    cluster.create_topic(&topic, 2);
    let mut settings = cluster.settings(&topic, "a");
    settings.reset = ResetPolicy::Latest;
    let instance = Instance::start(settings);
    eventually("opened", || instance.owned().len() == 2);
    cluster.grow_topic(&topic, 5);
    cluster.produce(&topic, 5, numbered(0..500));
    let took = eventually("all records", || instance.received(1) == 500);
    println!("read after {took:?}");
    assert_eq!(instance.board.epoch_number(), 1);
    let took = eventually("duties", || instance.owned().len() == 5);
    println!("owned after {took:?}");
    eventually("commits", || instance.has_committed(100));
    let lags = || instance.metric("websocket_kafka_consumer_lag");
    eventually("the lag of old and new ones", || lags().len() == 5 && lags().values().all(|lag| *lag == 0.0));
}

#[test]
fn a_topic_that_comes_later_is_waited_for() {
    let cluster = kafka!();
    let topic = topic("later");
    let instance = Instance::start(cluster.settings(&topic, "a"));
    let missing = || instance.monitor.status().topic == dashstream::kafka::monitor::TopicState::Missing;
    eventually("the absence is known", missing);
    cluster.create_topic(&topic, 3);
    cluster.produce(&topic, 3, numbered(0..30));
    let took = eventually("all records", || instance.received(1) == 30);
    println!("read {took:?} after it was made");
    let took = eventually("duties", || instance.owned().len() == 3);
    println!("owned after {took:?}");
    assert_eq!(instance.log.lock().unwrap().openings.len(), 1);
}

#[test]
fn a_new_generation_goes_on_at_the_window_and_does_the_unsettled_again() {
    let cluster = kafka!();
    let topic = topic("generation");
    cluster.create_topic(&topic, 4);
    let instance = Instance::start(cluster.settings(&topic, "a"));
    cluster.produce(&topic, 4, numbered(0..400));
    eventually("committed", || instance.has_committed(100));
    instance.settle.store(false, Ordering::Relaxed);
    cluster.produce(&topic, 4, numbered(400..800));
    eventually("read", || instance.received(1) == 800);
    instance.settle.store(true, Ordering::Relaxed);
    let started = Instant::now();
    instance.restart();
    eventually("the unsettled is settled", || instance.has_committed(200));
    println!("done again after {:?}", started.elapsed());
    cluster.produce(&topic, 4, numbered(800..900));
    eventually("live again", || instance.received(1) == 900);
    assert!(instance.refused.lock().unwrap().is_none());
    assert!(instance.drain(Duration::from_secs(5)).committed);
}

#[test]
fn lag_is_shown_for_owned_partitions_only_and_rises_while_nothing_moves() {
    let cluster = kafka!();
    let topic = topic("lag");
    cluster.create_topic(&topic, 4);
    let one = Instance::start(cluster.settings(&topic, "one"));
    cluster.produce(&topic, 4, numbered(0..400));
    let lags = |instance: &Instance| instance.metric("websocket_kafka_consumer_lag");
    eventually("no lag anywhere", || lags(&one).len() == 4 && lags(&one).values().all(|lag| *lag == 0.0));
    eventually("caught up", || one.metric("websocket_kafka_catchup_phase").values().all(|phase| *phase == 0.0));
    // Stuck, but assigned: the turn that is under way may still take a few hundred.
    let held = one.credit.charge(one.credit.limit());
    cluster.produce(&topic, 1, numbered(0..2_000));
    eventually("a rising lag", || lags(&one)["0"] > 1_000.0 && lags(&one)["1"] == 0.0);
    eventually("a rising age", || {
        let ages = one.metric("websocket_kafka_lag_offset_age_seconds");
        ages["0"] > 1.0 && ages["1"] == 0.0
    });
    drop(held);
    eventually("no lag", || lags(&one).values().all(|lag| *lag == 0.0));
    // Given away, so not shown.
    let two = Instance::start(cluster.settings(&topic, "two"));
    eventually("each shows its own", || lags(&one).len() == 2 && lags(&two).len() == 2);
    assert!(lags(&one).keys().all(|partition| !lags(&two).contains_key(partition)));
    assert_eq!(one.metrics.lag_poll_failures.get(), 0);
}

/// The last offsets of such a log hold no record.
#[test]
fn ends_of_transactions_leave_no_lag() {
    let cluster = kafka!();
    let topic = topic("transactions");
    cluster.create_topic(&topic, 3);
    cluster.produce_transactions(&topic, &[(0, true), (1, false)]);
    let instance = Instance::start(cluster.settings(&topic, "a"));
    eventually("duties", || instance.owned().len() == 3);
    let at = |ends: &[i64; 3]| {
        let fetched: Vec<_> = instance.board.partitions().iter().map(|p| p.fetched.get()).collect();
        fetched == ends.map(Some)
    };
    let lags = || instance.metric("websocket_kafka_consumer_lag");
    let no_lag = || lags().len() == 3 && lags().values().all(|lag| *lag == 0.0);
    let mut ends = [6, 6, 0];
    eventually("all of the log", || at(&ends) && no_lag());
    for number in 0..10 {
        // Records without a transaction between, so that ends come among many records, and alone.
        cluster.produce_transactions(&topic, &[(0, number % 3 == 0), (1, true), (2, false), (2, true)]);
        cluster.produce(&topic, 1, numbered(0..number * 7));
        ends = [ends[0] + 6 + i64::from(number * 7), ends[1] + 6, ends[2] + 12];
        eventually("all of it again", || at(&ends) && no_lag());
    }
    let committed = || instance.board.partitions().iter().all(|p| p.committed.get() == p.fetched.get());
    eventually("commits", committed);
    let values = instance.values(1);
    // Of each committed transaction the five records, and all that were not in one.
    assert_eq!(values[&0].len(), 5 + 4 * 5 + 45 * 7);
    assert_eq!((values[&1].len(), values[&2].len()), (50, 50));
}

#[test]
fn the_mock_broker_is_enough_to_read_and_commit() {
    let mock = MockCluster::new(1).unwrap();
    let cluster = Cluster { brokers: mock.bootstrap_servers() };
    let topic = topic("mock");
    mock.create_topic(&topic, 4, 1).unwrap();
    cluster.produce(&topic, 4, numbered(0..1_000));
    let started = Instant::now();
    let instance = Instance::start(cluster.settings(&topic, "a"));
    eventually("all records", || instance.received(1) == 1_000);
    println!("mock: read after {:?}", started.elapsed());
    eventually("commits", || instance.has_committed(250));
    println!("mock: committed after {:?}", started.elapsed());
    let drained = instance.drain(Duration::from_secs(5));
    assert!(drained.empty && drained.committed);
}

/// A partition without a leader has no bounds yet, so the topic cannot be opened.
#[test]
fn a_drain_does_not_wait_for_a_topic_that_cannot_be_opened() {
    let mock = MockCluster::new(1).unwrap();
    let cluster = Cluster { brokers: mock.bootstrap_servers() };
    let topic = topic("leaderless");
    mock.create_topic(&topic, 2, 1).unwrap();
    mock.partition_leader(&topic, 1, None).unwrap();
    let mut settings = cluster.settings(&topic, "a");
    settings.topic_id_timeout = Duration::ZERO;
    let instance = Instance::start(settings);
    eventually("a question without an answer", || {
        let fault = instance.monitor.status().last_fault;
        fault.is_some_and(|(_, kind, _)| [ErrorType::Leader, ErrorType::Timeout].contains(&kind))
    });
    assert_eq!(instance.board.epoch_number(), 0);
    assert!(instance.drain(Duration::from_secs(60)).empty);
}

#[test]
fn each_kind_of_outage_has_a_label_of_its_own_and_nothing_gives_up() {
    for (brokers, label) in [("nowhere.invalid:9092", "dns_failure"), ("127.0.0.1:1", "broker_down")] {
        let instance = Instance::start(Cluster { brokers: brokers.into() }.settings("none", "a"));
        let count = |label: &str| instance.metrics.kafka_errors_by_type.with_label_values(&[label]).get();
        eventually(label, || count(label) > 0);
        let by_type = instance.metric("websocket_kafka_errors_by_type_total").values().sum::<f64>();
        assert!(by_type <= instance.metrics.infrastructure_errors.get() as f64);
        assert!(instance.monitor.status().contact_age.is_none());
        let drained = instance.drain(Duration::from_millis(500));
        assert!(drained.empty, "a drain does not wait for Kafka");
    }
}
