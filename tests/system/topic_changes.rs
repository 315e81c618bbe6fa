//! The topic changes under the service: deleted and made anew, grown, cut short by retention, not there yet. Clients are
//! told, and nothing of one log is ever taken for another.

use std::collections::BTreeMap;
use std::time::Duration;

use dashstream::wire::stream::GapReason;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::client::{Client, From};
use crate::harness::contract::{Judged as _, Range};
use crate::harness::eventually::eventually;
use crate::harness::load::{Load, Mix};
use crate::harness::producer::{Producer, Published};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);
const TOLD_WITHIN: Duration = Duration::from_secs(15);
const PARTITIONS: i32 = 3;

/// `count` good records of threads that are called after `log`, spread over the partitions.
fn publish(topic: &Topic, log: &str, count: u64) -> Published {
    publish_over(PARTITIONS, topic, log, count)
}

/// In turn to the first partitions.
fn publish_over(partitions: i32, topic: &Topic, log: &str, count: u64) -> Published {
    let records = (0..partitions).cycle().zip(0..count).map(|(partition, number)| {
        let sequence = number / u64::from(partitions.unsigned_abs()) + 1;
        records::good_of_size(&format!("{log}-{partition}"), sequence, 50).on_partition(partition)
    });
    Producer::new(&topic.kafka).publish(&topic.name, records)
}

fn wait_for_resets(client: &Client, partitions: i32) {
    client.wait_until("a reset of every partition", BOUND, |ledger| {
        let told: Vec<i32> = ledger.resets.iter().map(|reset| reset.partition).collect();
        match told == (0..partitions).collect::<Vec<_>>() {
            true => Ok(()),
            false => Err(format!("{:?}", ledger.resets)),
        }
    });
    client.look(|ledger| {
        for reset in &ledger.resets {
            assert_eq!((reset.reason.as_str(), reset.next_offset), ("topic_recreated", 0), "{reset:?}");
        }
    });
}

/// The stream of the new log, from its first record, and nothing else.
fn has_only(client: &Client, published: &Published) {
    client.wait_until("the end of the new log", BOUND, |ledger| ledger.has_reached_the_end_of(published));
    client.look(|ledger| {
        assert!(ledger.began.values().all(|began| *began == 0), "{:?}", ledger.began);
        ledger.compare(published, |_, _| false).expect("the new log, complete and byte for byte");
    });
}

#[test]
fn a_topic_made_anew_is_told_to_everybody_and_begins_at_its_first_record() {
    made_anew_while_connected(10_000, 300, PARTITIONS, 1_000);
}

#[test]
fn a_topic_made_anew_is_noticed_though_it_is_longer_than_the_old_one() {
    made_anew_while_connected(300, 10_000, PARTITIONS, 1_000);
}

#[test]
fn a_topic_made_anew_is_noticed_though_nobody_looks_for_minutes() {
    made_anew_while_connected(300, 10_000, PARTITIONS, 300_000);
}

#[test]
fn a_topic_made_anew_with_more_partitions_is_one_reset_for_each_of_them() {
    made_anew_while_connected(300, 600, PARTITIONS + 2, 1_000);
}

#[test]
fn a_topic_made_anew_with_fewer_partitions_takes_new_clients_and_leaves_the_old_ones_connected() {
    let topic = Topic::create(services::kafka(), "anew-fewer", PARTITIONS);
    let config = Config::new(&topic);
    let service = Service::start_healthy(&config);
    let before = service.epoch();
    let there = Client::from(service.address(), From::Earliest);
    there.wait_for_all(&publish(&topic, "old", 300), BOUND);

    topic.recreate(1);
    let published = publish_over(1, &topic, "new", 600);

    there.wait_until("the end of the new log", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    assert_eq!(there.closed(), None, "clients stay connected");
    let late = Client::from(service.address(), From::Earliest);
    late.wait_for_all(&published, BOUND);
    assert_ne!(service.epoch(), before);
    topic.wait_until_all_committed(config.group(), BOUND);
    service.wait_until_healthy(BOUND);
}

fn made_anew_while_connected(old: u64, new: u64, partitions: i32, metadata_interval_ms: u64) {
    let topic = Topic::create(services::kafka(), "anew", PARTITIONS);
    let config = Config::new(&topic).set("DASHSTREAM_KAFKA_METADATA_INTERVAL_MS", metadata_interval_ms);
    let service = Service::start_healthy(&config);
    let before = service.epoch();
    let clients: Vec<Client> =
        [From::Earliest, From::Latest].into_iter().map(|from| Client::from(service.address(), from)).collect();
    let v1 = V1Client::connect(
        service.address(),
        Some(&json!({
            "type": "resume", "mode": "partition", "from": "earliest"
        })),
    );
    let published = publish(&topic, "old", old);
    for client in &clients {
        client.wait_for_all(&published, BOUND);
    }
    v1.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);

    topic.recreate(partitions);
    let published = publish(&topic, "new", new);

    for client in &clients {
        wait_for_resets(client, partitions);
        has_only(client, &published);
        assert_eq!(client.closed(), None, "clients stay connected");
    }
    eventually("every record at the v1 client", BOUND, || {
        v1.look(|seen| {
            let resets = seen.texts.iter().filter(|text| text["type"] == "cursor_reset").count();
            let ends: BTreeMap<i32, i64> = published.ends();
            let last: BTreeMap<i32, i64> = seen
                .last_offsets()
                .iter()
                .filter_map(|(partition, last)| Some((partition.parse().ok()?, last.parse::<i64>().ok()? + 1)))
                .collect();
            if resets == partitions as usize && last == ends {
                Ok(())
            } else {
                Err(format!("{resets} resets, {last:?} of {ends:?}"))
            }
        })
    });
    let after = service.epoch();
    assert_ne!(before, after, "/version names the new log");
    assert_eq!(service.metric("dashstream_topic_epochs_total", &[]), 1.0);
    // Who comes later is in the new log from the start, and one who was there goes on in it.
    let late = Client::from(service.address(), From::Earliest);
    assert_eq!(late.look(|ledger| ledger.epoch.clone()), Some(after));
    late.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    service.wait_until_healthy(BOUND);
}

#[test]
fn a_topic_made_anew_while_nobody_could_tell_is_told_all_the_same() {
    let topic = Topic::create(services::kafka(), "anew-hung", PARTITIONS);
    let config = Config::new(&topic).sabotaged().set("DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS", 6);
    let service = Service::start_healthy(&config);
    let before = service.epoch();
    let client = Client::from(service.address(), From::Earliest);
    let published = publish(&topic, "old", 900);
    client.wait_for_all(&published, BOUND);

    // The store, which would tell clients, is replaced only after the new log was opened.
    service.sabotage("ReplayStore", "hang");
    topic.recreate(PARTITIONS);
    let published = publish(&topic, "new", 3_000);
    eventually("the new log to be open", BOUND, || match service.epoch() {
        epoch if epoch != before => Ok(()),
        epoch => Err(epoch),
    });
    assert_eq!(client.look(|ledger| ledger.resets.clone()), [], "the store still hangs");
    wait_for_resets(&client, PARTITIONS);
    has_only(&client, &published);
    topic.wait_until_all_committed(config.group(), BOUND);
}

#[test]
fn a_topic_made_anew_while_the_service_was_down_is_noticed_by_it_and_told_to_those_who_return() {
    let topic = Topic::create(services::kafka(), "anew-down", PARTITIONS);
    let config = Config::new(&topic);
    let mut service = Service::start_healthy(&config);
    let mut client = Client::from(service.address(), From::Earliest);
    let published = publish(&topic, "old", 300);
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    service.signal(Signal::SIGTERM);
    assert!(service.wait_for_exit(TOLD_WITHIN).success());

    topic.recreate(PARTITIONS);
    // Longer than the old one was: the old commit would be a valid position in it.
    let published = publish(&topic, "new", 900);
    service.restart();
    client.reconnect(service.address());
    wait_for_resets(&client, PARTITIONS);
    has_only(&client, &published);
    topic.wait_until_all_committed(config.group(), BOUND);
}

#[test]
fn an_instance_that_hears_late_of_a_new_topic_gives_all_of_it_and_takes_nobody_back_to_the_old_one() {
    let topic = Topic::create(services::kafka(), "anew-late", PARTITIONS);
    let config = Config::new(&topic).unset("KAFKA_GROUP_INSTANCE_ID");
    let (first, late) = (Service::start_healthy(&config), Service::start_healthy(&config));
    let at_late = Client::from(late.address(), From::Earliest);
    at_late.wait_for_all(&publish(&topic, "old", 300), BOUND);

    late.signal(Signal::SIGSTOP);
    topic.recreate(PARTITIONS);
    let mut published = publish(&topic, "new", 900);
    let mut ahead = Client::from(first.address(), From::Earliest);
    ahead.wait_until("the end of the new log", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    // What the other instance has done with does not begin later for that.
    topic.wait_until_all_committed(config.group(), BOUND);
    let resets = ahead.look(|ledger| ledger.resets.len());
    late.signal(Signal::SIGCONT);
    ahead.reconnect(late.address());
    published.extend(publish(&topic, "newer", 300));

    wait_for_resets(&at_late, PARTITIONS);
    for client in [&at_late, &ahead] {
        has_only(client, &published);
    }
    assert_eq!(ahead.look(|ledger| ledger.resets.len()), resets, "it was not taken back");
}

#[test]
fn new_partitions_reach_clients_from_their_first_record() {
    let topic = Topic::create(services::kafka(), "grown", 2);
    let dead_letters = topic.beside("dlq", 1);
    let service = Service::start_healthy(&Config::new(&topic).set("KAFKA_DLQ_TOPIC", &dead_letters.name));
    let clients: Vec<Client> =
        [From::Earliest, From::Latest].into_iter().map(|from| Client::from(service.address(), from)).collect();
    let load = Load::start(&topic, 500);
    clients[0].wait_until("records", BOUND, |ledger| if ledger.received > 100 { Ok(()) } else { Err(String::new()) });
    // One is away meanwhile; its cursor names none of the new ones.
    let mut away = Client::from(service.address(), From::Earliest);
    away.wait_until("records", BOUND, |ledger| if ledger.received > 100 { Ok(()) } else { Err(String::new()) });
    away.disconnect();
    topic.grow(5);
    let mut published = Producer::new(services::kafka()).publish(&topic.name, Mix::new(vec![2, 3, 4]).take(600));
    published.extend(load.stop());
    for client in &clients {
        client.wait_for_all(&published, BOUND);
        client.look(|ledger| assert!((2..5).all(|new| ledger.began.get(&new) == Some(&0)), "{:?}", ledger.began));
        assert_eq!(client.texts("partition_added").len(), 3);
    }
    away.reconnect(service.address());
    away.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(service.config().group(), BOUND);
    eventually("no fault", BOUND, || match service.faults()? {
        faults if faults.is_empty() => Ok(()),
        faults => Err(format!("{faults:?}")),
    });
}

#[test]
fn what_retention_took_while_the_service_was_down_is_a_gap_with_its_exact_range() {
    let topic = Topic::create(services::kafka(), "retention", 1);
    let config = Config::new(&topic);
    let mut service = Service::start_healthy(&config);
    let mut client = Client::from(service.address(), From::Earliest);
    let good = |range: std::ops::Range<u64>| {
        let records = range.map(|number| records::good("run", number + 1).on_partition(0));
        Producer::new(services::kafka()).publish(&topic.name, records)
    };
    let mut published = good(0..100);
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    service.signal(Signal::SIGTERM);
    assert!(service.wait_for_exit(TOLD_WITHIN).success());

    published.extend(good(100..300));
    topic.delete_records(0, 250);
    service.restart();
    client.reconnect(service.address());
    lost_to_retention(&client, &published, 100, 250);
    service.wait_for_verdict("degraded", "offsets_lost", TOLD_WITHIN);
    assert_eq!(service.metric("dashstream_lost_offsets_total", &[r#"reason="retention""#]), 150.0);
    topic.wait_until_all_committed(config.group(), BOUND);
}

#[test]
fn what_retention_took_while_kafka_was_cut_off_is_a_gap_with_its_exact_range() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "retention-cut", 1);
    let config = Config::new(&topic).set("KAFKA_BROKERS", kafka.proxy.address());
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let good = |range: std::ops::Range<u64>| {
        let records = range.map(|number| records::good("run", number + 1).on_partition(0));
        Producer::new(&kafka.direct).publish(&topic.name, records)
    };
    let mut published = good(0..100);
    client.wait_for_all(&published, BOUND);
    kafka.proxy.cut();
    published.extend(good(100..300));
    topic.delete_records(0, 250);
    kafka.proxy.heal();
    lost_to_retention(&client, &published, 100, 250);
    assert_eq!(client.closed(), None);
    topic.wait_until_all_committed(config.group(), BOUND);
}

fn lost_to_retention(client: &Client, published: &Published, first: i64, next: i64) {
    client.wait_for_all_but(published, BOUND, |_, offset| (first..next).contains(&offset));
    client.look(|ledger| {
        assert_eq!(ledger.gaps, [Range { partition: 0, first, next, reason: GapReason::Retention }]);
    });
}

#[test]
fn a_topic_that_is_missing_is_told_and_waited_for() {
    let topic = Topic::planned(services::kafka(), "missing");
    let service = Service::start(&Config::new(&topic));
    service.wait_for_verdict("reconnecting", "topic_missing", TOLD_WITHIN);
    assert!(service.metric("websocket_kafka_errors_by_type_total", &[r#"error_type="topic_missing""#]) > 0.0);
    topic.create_now(PARTITIONS);
    service.wait_until_healthy(BOUND);
    let client = Client::from(service.address(), From::Earliest);
    let published = publish(&topic, "first", 300);
    client.wait_for_all(&published, BOUND);

    // Deleted again while a client is there, and made anew later.
    topic.delete();
    service.wait_for_verdict("reconnecting", "topic_missing", TOLD_WITHIN);
    assert_eq!(client.closed(), None);
    topic.create_now(PARTITIONS);
    let published = publish(&topic, "second", 30);
    wait_for_resets(&client, PARTITIONS);
    has_only(&client, &published);
    service.wait_until_healthy(BOUND);
}
