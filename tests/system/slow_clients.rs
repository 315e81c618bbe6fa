//! Clients that are slower than the stream are set back to pulling, and lose nothing; one that reads nothing is closed.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::{Producer, Published};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const KIB: u64 = 1024;

/// About 1 KiB each, over two partitions.
fn publish(producer: &Producer, topic: &Topic, sequences: std::ops::Range<u64>) -> Published {
    let records = sequences.map(|sequence| {
        let partition = i32::try_from(sequence % 2).unwrap_or_default();
        records::good_of_size(&format!("run-{partition}"), sequence / 2 + 1, 1_000).on_partition(partition)
    });
    producer.publish(&topic.name, records)
}

fn small_queues(topic: &Topic) -> Config {
    Config::new(topic)
        .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 64 * KIB)
        .set("DASHSTREAM_WEB_SESSION_UNAPPLIED_BYTES", 256 * KIB)
}

#[test]
fn a_slow_client_is_demoted_and_promoted_and_misses_nothing() {
    let topic = Topic::create(services::kafka(), "slow", 2);
    let service = Service::start_healthy(&small_queues(&topic));
    let slow =
        Options { reading: Reading::Slow(Duration::from_millis(20)), receive_buffer: Some(4096), ..Options::default() };
    let slow = Client::connect(service.address(), slow);
    let fast = Client::from(service.address(), From::Latest);
    let producer = Producer::new(services::kafka());
    let mut all = Published::default();
    // Until it has been too slow: the sockets take some before anything is queued.
    let mut sequence = 0;
    eventually("a demotion", BOUND, || {
        all.extend(publish(&producer, &topic, sequence..sequence + 2_000));
        sequence += 2_000;
        match service.metric("dashstream_session_demotions_total", &[]) {
            0.0 => Err(format!("none after {sequence} records")),
            _ => Ok(()),
        }
    });
    fast.wait_for_all(&all, BOUND);
    slow.read(Reading::Fast);
    slow.wait_for_all(&all, BOUND);
    eventually("a promotion", BOUND, || match service.metric("dashstream_session_promotions_total", &[]) {
        0.0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    // Live again, both.
    all.extend(publish(&producer, &topic, sequence..sequence + 100));
    slow.wait_for_all(&all, BOUND);
    fast.wait_for_all(&all, BOUND);
    assert_eq!(slow.closed(), None);
    assert_eq!(service.metric("dashstream_sessions", &[r#"state="live""#]), 2.0);
}

#[test]
fn a_client_that_reads_but_does_not_apply_is_sent_no_more_until_it_does() {
    let topic = Topic::create(services::kafka(), "unapplied", 2);
    let service = Service::start_healthy(&small_queues(&topic));
    let frozen = Client::connect(service.address(), Options { reports_applied: false, ..Options::default() });
    let fast = Client::from(service.address(), From::Latest);
    // Its first report: from now on it is held to what it says.
    frozen.send(&json!({ "type": "applied", "offsets": { "0": "-1", "1": "-1" } }));
    frozen.send(&json!({ "type": "ping" }));
    eventually("the report to be taken", BOUND, || match frozen.texts("pong").len() {
        0 => Err("no pong".to_owned()),
        _ => Ok(()),
    });
    let all = publish(&Producer::new(services::kafka()), &topic, 0..2_000);
    fast.wait_for_all(&all, BOUND);
    eventually("it to be set back", BOUND, || {
        match service.metric("dashstream_sessions", &[r#"state="catching_up""#]) {
            1.0 => Ok(()),
            _ => Err(format!("{} records", frozen.received())),
        }
    });
    let limit = 256 + 2 * 64 + 16;
    throughout("it is sent no more", Duration::from_secs(1), || match frozen.received() {
        received if received < limit => Ok(()),
        received => Err(format!("{received} records")),
    });
    // It says what it has applied, a little at a time, and gets the rest.
    eventually("the rest", BOUND, || {
        let offsets = frozen.look(|ledger| ledger.last_offsets());
        frozen.send(&json!({ "type": "applied", "offsets": offsets }));
        frozen.look(|ledger| ledger.has_reached_the_end_of(&all))
    });
    frozen.wait_for_all(&all, BOUND);
}

#[test]
fn a_client_that_reads_nothing_is_closed_after_the_send_timeout_and_comes_back() {
    let topic = Topic::create(services::kafka(), "unread", 2);
    let service = Service::start_healthy(&Config::new(&topic).set("WEBSOCKET_SEND_TIMEOUT_SECS", 2));
    let options = Options { receive_buffer: Some(4096), ..Options::default() };
    let mut stopped = Client::connect(service.address(), options);
    let fast = Client::from(service.address(), From::Latest);
    stopped.read(Reading::Stopped);
    let all = publish(&Producer::new(services::kafka()), &topic, 0..4_000);
    fast.wait_for_all(&all, BOUND);
    eventually("its session to be closed", Duration::from_secs(10), || {
        match service.metric("websocket_send_timeout_total", &[]) {
            1.0 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    eventually("its place to be free", BOUND, || match service.metric("websocket_connected_clients", &[]) {
        1.0 => Ok(()),
        clients => Err(clients.to_string()),
    });
    assert_eq!(service.metric("dashstream_sessions_closed_total", &[r#"reason="slow_client""#]), 1.0);
    assert_eq!(fast.closed(), None);
    // The window still has what it missed.
    stopped.read(Reading::Fast);
    stopped.wait_until_closed(BOUND);
    stopped.reconnect(service.address());
    stopped.wait_for_all(&all, BOUND);
}
