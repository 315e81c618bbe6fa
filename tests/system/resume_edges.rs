//! Where a stream begins: every strategy at every edge of the memory window, in both protocols.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Client, From};
use crate::harness::contract::Judged as _;
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::raw::{Heard, Raw};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(30);
/// Records in each of the two partitions.
const EACH: i64 = 10;

fn publish(topic: &Topic, partitions: i32, each: i64) -> Published {
    let records = (0..partitions).flat_map(|partition| {
        let thread = format!("run-{partition}");
        (1..=each.unsigned_abs()).map(move |sequence| records::good(&thread, sequence).on_partition(partition))
    });
    Producer::new(services::kafka()).publish(&topic.name, records.collect::<Vec<_>>())
}

fn wait_until_stored(service: &Service, ends: &BTreeMap<i32, i64>) {
    eventually("the records to be in the window", BOUND, || {
        let health = service.health();
        // Offsets are decimal strings.
        let stored = |partition: &i32| health["partitions"][partition.to_string()]["stored"].as_str()?.parse().ok();
        match ends.iter().all(|(partition, end)| stored(partition) == Some(*end)) {
            true => Ok(()),
            false => Err(health["partitions"].to_string()),
        }
    });
}

/// What a client asks for, and per partition where it begins and whether it is told of a reset.
struct Case {
    from: &'static str,
    last: Value,
    begins: [i64; 2],
    resets: &'static [i32],
}

fn cases() -> Vec<Case> {
    let case = |from, last, begins, resets| Case { from, last, begins, resets };
    vec![
        case("latest", Value::Null, [EACH, EACH], &[]),
        case("latest", json!({}), [EACH, EACH], &[]),
        case("latest", json!({ "0": "3", "1": "3" }), [EACH, EACH], &[]),
        case("earliest", Value::Null, [0, 0], &[]),
        case("earliest", json!({ "0": "3", "1": "3" }), [0, 0], &[]),
        case("cursor", json!({ "0": "0", "1": "0" }), [1, 1], &[]),
        case("cursor", json!({ "0": "-1", "1": "4" }), [0, 5], &[]),
        case("cursor", json!({ "0": 4, "1": "8" }), [5, 9], &[]),
        case("cursor", json!({ "0": "9", "1": "9" }), [EACH, EACH], &[]),
        // An unlisted partition begins at its start; one that does not exist is nobody's.
        case("cursor", json!({ "1": "9" }), [0, EACH], &[]),
        case("cursor", json!({ "7": "5" }), [0, 0], &[]),
        case("cursor", json!({ "0": "10", "1": "0" }), [EACH, 1], &[0]),
        case("cursor", json!({ "0": "9223372036854775806", "1": "11" }), [EACH, EACH], &[0, 1]),
    ]
}

#[test]
fn a_stream_begins_where_the_client_says_in_the_second_protocol() {
    let topic = Topic::create(services::kafka(), "edges-v2", 2);
    let published = publish(&topic, 2, EACH);
    let service = Service::start_healthy(&Config::new(&topic));
    wait_until_stored(&service, &published.ends());
    for Case { from, last, begins, resets } in cases() {
        let what = format!("{from} {last}");
        let mut raw = Raw::v2(service.address());
        raw.say(&json!({ "type": "hello", "from": from, "lastOffsetsByPartition": last }));
        assert_begins(&mut raw, &what, begins, resets);
        // The same again, on the open connection.
        raw.say(&json!({ "type": "resume", "from": from, "lastOffsetsByPartition": last }));
        assert_begins(&mut raw, &what, begins, resets);
    }
    let mut raw = Raw::v2(service.address());
    let hello =
        json!({ "type": "hello", "from": "cursor", "default": "latest", "lastOffsetsByPartition": { "0": "2" } });
    raw.say(&hello);
    assert_begins(&mut raw, "default latest", [3, EACH], &[]);

    let mut of_another_log = hello;
    of_another_log["epoch"] = json!("another log");
    raw.say(&of_another_log);
    let welcome = raw.hear_type("welcome");
    assert_ne!(welcome["epoch"], "another log");
    for partition in 0..2 {
        let reset = raw.hear_type("cursor_reset");
        let expected = (json!(partition), json!("topic_recreated"), json!("0"));
        assert_eq!((reset["partition"].clone(), reset["reason"].clone(), reset["nextOffset"].clone()), expected);
    }
    assert_eq!(raw.hear_type("replay_complete")["totalReplayed"], 2 * EACH);
}

#[track_caller]
fn assert_begins(raw: &mut Raw, what: &str, begins: [i64; 2], resets: &[i32]) {
    let welcome = raw.hear_type("welcome");
    for (partition, from) in begins.iter().enumerate() {
        let position = &welcome["partitions"][partition.to_string()];
        assert_eq!(position["from"], from.to_string(), "{what}: partition {partition}");
        assert_eq!((&position["low"], &position["next"]), (&json!("0"), &json!(EACH.to_string())), "{what}");
    }
    for partition in resets {
        let reset = raw.hear_text();
        assert_eq!(
            (&reset["type"], &reset["reason"]),
            (&json!("cursor_reset"), &json!("beyond_end")),
            "{what}: {reset}"
        );
        assert_eq!(
            (&reset["partition"], &reset["nextOffset"]),
            (&json!(partition), &json!(EACH.to_string())),
            "{what}"
        );
    }
    let complete = raw.hear_text();
    assert_eq!(complete["type"], "replay_complete", "{what}: {complete}");
    assert_eq!(complete["totalReplayed"], 2 * EACH - begins.iter().sum::<i64>(), "{what}");
    assert_eq!(complete["lastOffsetsByPartition"], json!({ "0": "9", "1": "9" }), "{what}");
    assert_eq!(complete["capped"], false, "{what}");
}

#[test]
fn a_stream_begins_where_the_client_says_in_the_first_protocol() {
    let topic = Topic::create(services::kafka(), "edges-v1", 2);
    let published = publish(&topic, 2, EACH);
    let service = Service::start_healthy(&Config::new(&topic));
    wait_until_stored(&service, &published.ends());
    let mut kept_open = Raw::v1(service.address());
    for Case { from, last, begins, resets } in cases() {
        let what = format!("{from} {last}");
        let resume = json!({ "type": "resume", "mode": "partition", "from": from, "lastOffsetsByPartition": last });
        for raw in [&mut Raw::v1(service.address()), &mut kept_open] {
            raw.say(&resume);
            let (records, texts, complete) = raw.v1_until("replay_complete");
            for partition in 0..2 {
                let offsets: Vec<i64> = records.iter().filter(|(of, _)| *of == partition).map(|(_, at)| *at).collect();
                let expected: Vec<i64> = (begins[usize::try_from(partition).expect("0 or 1")]..EACH).collect();
                assert_eq!(offsets, expected, "{what}: partition {partition}");
            }
            let told: Vec<_> = texts.iter().map(|text| (text["type"].clone(), text["partition"].clone())).collect();
            let expected: Vec<_> = resets.iter().map(|of| (json!("cursor_reset"), json!(of))).collect();
            assert_eq!(told, expected, "{what}");
            assert_eq!((&complete["mode"], &complete["capped"]), (&json!(from), &json!(false)), "{what}");
            assert_eq!(complete["totalReplayed"], records.len(), "{what}");
        }
    }
    // `from` is optional here: a map alone is a cursor.
    let mut raw = Raw::v1(service.address());
    raw.say(&json!({ "type": "resume", "mode": "partition", "lastOffsetsByPartition": { "0": "8", "1": "8" } }));
    assert_eq!(raw.v1_until("replay_complete").0, [(0, 9), (1, 9)]);
    // An empty map asks for nothing, and gets nothing but the answer; the next resume works, and then it is live.
    raw.say(&json!({ "type": "resume", "from": "cursor", "lastOffsetsByPartition": {} }));
    let Heard::Text(error) = raw.hear() else { panic!("something is sent") };
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("empty_cursor")));
    raw.say(&json!({ "type": "resume", "from": "latest" }));
    assert_eq!(raw.v1_until("replay_complete").0, []);
    publish(&topic, 1, 1);
    raw.say(&json!({ "type": "ping" }));
    assert!(matches!(raw.hear_type("cursor")["offset"].as_str(), Some("10")));
}

#[test]
fn a_window_of_twenty_records_keeps_the_newest_twenty_and_the_topic_gives_the_rest() {
    let topic = Topic::create(services::kafka(), "twenty", 1);
    let service = Service::start_healthy(&Config::new(&topic).set("REPLAY_BUFFER_MEMORY_SIZE", 20).unset("REDIS_URL"));
    let published = publish(&topic, 1, 100);
    wait_until_stored(&service, &published.ends());
    eventually("the window to be measured", BOUND, || match service.metric("dashstream_replay_window_records", &[]) {
        20.0 => Ok(()),
        records => Err(records.to_string()),
    });
    let mut v1 = Raw::v1(service.address());
    v1.say(&json!({ "type": "resume", "from": "cursor", "lastOffsetsByPartition": { "0": "79" } }));
    let (records, texts, _) = v1.v1_until("replay_complete");
    assert_eq!((records.len(), texts), (20, Vec::new()));
    let pages = || service.metric("dashstream_history_pages_total", &[r#"tier="kafka""#, r#"result="served""#]);
    assert_eq!(pages(), 0.0, "memory had them all");
    v1.say(&json!({ "type": "resume", "from": "earliest" }));
    let (records, texts, complete) = v1.v1_until("replay_complete");
    assert_eq!(records, (0..100).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!((texts.len(), &complete["totalReplayed"]), (0, &json!(100)));
    assert!(pages() > 0.0);
}

#[test]
fn what_retention_has_taken_is_named_and_the_rest_is_sent() {
    let topic = Topic::create(services::kafka(), "retention", 1);
    let published = publish(&topic, 1, 100);
    topic.delete_records(0, 80);
    let service = Service::start_healthy(&Config::new(&topic));
    wait_until_stored(&service, &published.ends());

    let mut v1 = Raw::v1(service.address());
    v1.say(&json!({ "type": "resume", "from": "earliest" }));
    let (records, texts, complete) = v1.v1_until("replay_complete");
    assert_eq!(records, (80..100).map(|offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!((texts.len(), &complete["totalReplayed"]), (0, &json!(20)), "what is no longer kept was not asked for");

    v1.say(&json!({ "type": "resume", "from": "cursor", "lastOffsetsByPartition": { "0": "49" } }));
    let (records, texts, _) = v1.v1_until("replay_complete");
    assert_eq!(records, (80..100).map(|offset| (0, offset)).collect::<Vec<_>>());
    let stale = texts.iter().find(|text| text["type"] == "cursor_stale").expect("a stale cursor is named");
    assert_eq!((&stale["partition"], &stale["requested"]), (&json!(0), &json!("49")));
    assert_eq!(stale["oldest"], "80");
    let gap = texts.iter().find(|text| text["type"] == "gap").expect("the loss is named");
    assert_eq!((&gap["partition"], &gap["count"], &gap["severity"]), (&json!(0), &json!(30), &json!("warning")));

    // Exact at the edge, and for the very first offset.
    for (last, lost, kept) in [(0, 79, 20), (78, 1, 20), (79, 0, 20), (80, 0, 19)] {
        let last = json!({ "0": last.to_string() });
        v1.say(&json!({ "type": "resume", "from": "cursor", "lastOffsetsByPartition": last }));
        let (records, texts, _) = v1.v1_until("replay_complete");
        let told: Vec<_> = texts.iter().map(|text| (text["type"].as_str(), text["count"].as_i64())).collect();
        let stale = [(Some("cursor_stale"), None), (Some("gap"), Some(lost))];
        assert_eq!((records.len(), told.as_slice()), (kept, if lost > 0 { &stale[..] } else { &[] }), "{last}");
    }

    let v2 = Client::from(service.address(), From::Earliest);
    v2.wait_until("the end", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    v2.look(|ledger| assert_eq!((ledger.began[&0], ledger.received, ledger.gaps.len()), (80, 20, 0)));

    let mut v2 = Client::from(service.address(), From::Latest);
    let hello = json!({ "type": "hello", "from": "cursor", "lastOffsetsByPartition": { "0": "99" } });
    v2.connect_with(service.address(), &hello);
    let live = publish(&topic, 1, 100);
    v2.wait_until("the live ones", BOUND, |ledger| ledger.has_reached_the_end_of(&live));
}

#[test]
fn a_silent_client_of_the_first_protocol_gets_what_comes_from_its_connect_on() {
    let topic = Topic::create(services::kafka(), "silent-v1", 2);
    let before = publish(&topic, 2, EACH);
    let service = Service::start_healthy(&Config::new(&topic));
    wait_until_stored(&service, &before.ends());
    let opened = || service.metric("dashstream_sessions", &[]);
    let client = V1Client::connect(service.address(), None);
    eventually("the session", BOUND, || if opened() >= 1.0 { Ok(()) } else { Err("none".to_owned()) });
    // While it is held for a resume, and after.
    let held = publish(&topic, 2, EACH);
    client.wait_for_all(&held, BOUND);
    let live = publish(&topic, 2, EACH);
    let mut all = held;
    all.extend(live);
    client.wait_for_all(&all, BOUND);
    client.look(|seen| {
        assert_eq!(seen.records.keys().next(), Some(&(0, EACH)), "nothing from before");
        assert_eq!(seen.texts, Vec::<Value>::new(), "no answer to what it did not ask");
    });
}
