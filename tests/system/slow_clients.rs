//! Clients that are slower than the stream are set back to pulling, and lose nothing; one that reads nothing is closed.

use std::collections::BTreeMap;
use std::time::Duration;

use dashstream::wire::stream::GapReason;
use serde_json::json;

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::contract::Judged as _;
use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::{Producer, Published};
use crate::harness::raw::{Heard, Raw};
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

/// Small queues, another policy, and time enough that nobody is closed for a reason of its own.
fn with_policy(topic: &Topic, policy: &str) -> Config {
    small_queues(topic)
        .set("DASHSTREAM_WEB_SLOW_CLIENT", policy)
        .set("WEBSOCKET_SEND_TIMEOUT_SECS", 300)
        .set("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", 300)
}

/// Publishes until so many clients were too slow; the sockets take some before anything is queued.
fn publish_until_demoted(service: &Service, producer: &Producer, topic: &Topic, demotions: f64) -> Published {
    let (mut all, mut sequence) = (Published::default(), 0);
    eventually("clients to be too slow", BOUND, || {
        all.extend(publish(producer, topic, sequence..sequence + 2_000));
        sequence += 2_000;
        match service.metric("dashstream_session_demotions_total", &[]) {
            demoted if demoted >= demotions => Ok(()),
            demoted => Err(format!("{demoted} after {sequence} records")),
        }
    });
    all.extend(publish(producer, topic, sequence..sequence + 2_000));
    all
}

/// Reads on to the end: per partition each record in order, or a gap that is named. How many offsets were in gaps.
fn read_v1_to(raw: &mut Raw, ends: &BTreeMap<i32, i64>) -> i64 {
    let mut next: BTreeMap<i32, i64> = ends.keys().map(|partition| (*partition, 0)).collect();
    let mut skipped = 0;
    while next != *ends {
        let text = match raw.hear() {
            Heard::Text(text) => text,
            Heard::Binary(_) => continue,
            Heard::Closed(closed) => panic!("closed at {next:?}: {closed:?}"),
        };
        let partition = text["partition"].as_i64().and_then(|partition| i32::try_from(partition).ok());
        let next = next.get_mut(&partition.expect("a partition")).expect("a known one");
        if text["type"] == "gap" {
            assert_eq!(text["reason"], "skipped_to_live", "{text}");
            let count = text["count"].as_i64().expect("a number");
            (*next, skipped) = (*next + count, skipped + count);
        } else {
            assert_eq!((&text["type"], &text["offset"]), (&json!("cursor"), &json!(next.to_string())), "{text}");
            *next += 1;
        }
    }
    skipped
}

#[test]
fn slow_clients_that_shall_skip_are_told_what_they_missed_and_are_live_again() {
    let topic = Topic::create(services::kafka(), "skip-to-live", 2);
    let service = Service::start_healthy(&with_policy(&topic, "skip_to_live"));
    let slow = Client::connect(service.address(), Options { receive_buffer: Some(4096), ..Options::default() });
    slow.read(Reading::Stopped);
    let mut v1 = Raw::v1(service.address());
    v1.say(&json!({ "type": "resume", "from": "latest" }));
    v1.hear_type("replay_complete");

    // Neither reads now.
    let producer = Producer::new(services::kafka());
    let mut all = publish_until_demoted(&service, &producer, &topic, 2.0);
    slow.read(Reading::Fast);
    slow.wait_until("the end of the stream", BOUND, |ledger| ledger.has_reached_the_end_of(&all));
    let gaps = slow.look(|ledger| ledger.gaps.clone());
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.reason == GapReason::SkippedToLive), "{gaps:?}");
    let last = all.ends();
    let skipped_v1 = read_v1_to(&mut v1, &last);
    assert!(skipped_v1 > 0);

    // From there on they are live, and miss nothing.
    let more = publish(&producer, &topic, 1_000_000..1_000_100);
    all.extend(more);
    slow.wait_for_all_but(&all, BOUND, |partition, offset| gaps.iter().any(|gap| gap.contains(partition, offset)));
    assert_eq!(slow.look(|ledger| ledger.gaps.clone()), gaps);
    assert_eq!(service.metric("dashstream_sessions", &[r#"state="live""#]), 2.0);
    let skipped = gaps.iter().map(|gap| gap.next - gap.first).sum::<i64>() + skipped_v1;
    assert_eq!(service.metric("websocket_replay_gap_messages_total", &[]), skipped as f64, "and it is counted");
}

#[test]
fn a_slow_client_that_shall_be_closed_is_told_by_its_code_and_comes_back_with_its_cursor() {
    let topic = Topic::create(services::kafka(), "closed-as-slow", 2);
    let service = Service::start_healthy(&with_policy(&topic, "disconnect"));
    let mut slow = Client::connect(service.address(), Options { receive_buffer: Some(4096), ..Options::default() });
    slow.read(Reading::Stopped);

    let all = publish_until_demoted(&service, &Producer::new(services::kafka()), &topic, 1.0);
    slow.read(Reading::Fast);
    let closed = slow.wait_until_closed(BOUND);
    assert_eq!((closed.code, closed.reason.as_str()), (Some(4001), "slow_client"));
    assert_eq!(slow.look(|ledger| ledger.gaps.len()), 0, "what came before the end was whole");
    slow.reconnect(service.address());
    slow.wait_for_all(&all, BOUND);
    assert_eq!(service.metric("dashstream_sessions_closed_total", &[r#"reason="slow_client""#]), 1.0);
}
