//! Clients of the first protocol that know threads and sequences instead of positions get what they miss of these threads.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::{Seen, V1Client};

const BOUND: Duration = Duration::from_secs(60);
const EACH: u64 = 50;

/// Three threads, each on a partition of its own and numbered from 1, and one whose numbers begin at 5.
fn publish(topic: &Topic) -> Published {
    let of = |partition: i32, thread: &'static str, sequence| match sequence % 3 {
        0 => records::zstd(thread, sequence, 300).on_partition(partition),
        _ => records::good(thread, sequence).on_partition(partition),
    };
    let records = (1..=EACH).flat_map(|sequence| {
        [of(0, "a", sequence), of(1, "b", sequence), of(2, "c", sequence), of(2, "late", sequence + 4)]
    });
    Producer::new(&topic.kafka).publish(&topic.name, records)
}

/// Thread of each record received, with how many of it.
fn threads(seen: &Seen, published: &Published) -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for place in seen.records.keys() {
        *threads.entry(published.records[place].key.clone()).or_default() += 1;
    }
    threads
}

fn completion(client: &V1Client) -> Value {
    eventually("the end of the replay", BOUND, || {
        client.look(|seen| {
            let complete = seen.texts.iter().find(|text| text["type"] == "replay_complete");
            complete.cloned().ok_or_else(|| format!("{:?}, {:?}", seen.texts, seen.closed))
        })
    })
}

#[test]
fn threads_go_on_after_the_last_sequence_and_then_everything_is_live() {
    let topic = Topic::create(services::kafka(), "threads", 3);
    // A window of twenty records: most comes from history.
    let config = Config::new(&topic).set("REPLAY_BUFFER_MEMORY_SIZE", 20);
    let service = Service::start_healthy(&config);
    let published = publish(&topic);
    topic.wait_until_all_committed(config.group(), BOUND);

    let cases = [
        (
            json!({"mode": "thread", "lastSequencesByThread": {"a": "10", "b": 0, "nobody": "7"}}),
            [("a", 40), ("b", 50)],
            None,
        ),
        (json!({"lastSequencesByThread": {"a": "49", "late": "1"}}), [("a", 1), ("late", 50)], Some(("late", 3))),
        (
            json!({"mode": "thread", "from": "earliest", "lastSequencesByThread": {"a": "50", "c": "50"}}),
            [("a", 50), ("c", 50)],
            None,
        ),
    ];
    let mut clients = Vec::new();
    for (mut resume, wanted, gap) in cases {
        resume["type"] = "resume".into();
        let client = V1Client::connect(service.address(), Some(&resume));
        let complete = completion(&client);
        let wanted: BTreeMap<String, usize> =
            wanted.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let total: usize = wanted.values().sum();
        assert_eq!(
            complete,
            json!({"type": "replay_complete", "totalReplayed": total, "mode": "thread", "capped": false})
        );
        client.look(|seen| {
            assert_eq!(threads(seen, &published), wanted, "{resume}");
            let gaps: Vec<_> = seen.texts.iter().filter(|text| text["type"] == "gap").collect();
            match gap {
                None => assert!(gaps.is_empty(), "{gaps:?}"),
                Some((thread, count)) => {
                    assert_eq!(gaps.len(), 1, "{gaps:?}");
                    assert_eq!((&gaps[0]["threadId"], &gaps[0]["count"]), (&json!(thread), &json!(count)));
                    assert_eq!((&gaps[0]["severity"], gaps[0].get("partition")), (&json!("warning"), None));
                }
            }
        });
        clients.push((client, total));
    }
    // Who wants nothing of the past gets nothing of it.
    let resume = json!({"type": "resume", "mode": "thread", "from": "latest", "lastSequencesByThread": {"a": "1"}});
    let latest = V1Client::connect(service.address(), Some(&resume));
    assert_eq!(completion(&latest)["totalReplayed"], 0);
    clients.push((latest, 0));

    let live = Producer::new(&topic.kafka).publish(&topic.name, (1..=9).map(|sequence| records::good("new", sequence)));
    for (client, replayed) in &clients {
        eventually("live records of every thread", BOUND, || {
            client.look(|seen| match seen.records.len() == replayed + live.len() {
                true => Ok(()),
                false => Err(format!("{} records, {replayed} replayed; {:?}", seen.records.len(), seen.closed)),
            })
        });
    }
    assert_eq!(service.metric("websocket_resume_requests_total", &[r#"mode="thread""#]), 4.0);
    assert_eq!(service.metric("websocket_replay_messages_total", &[r#"mode="thread""#]), 241.0);
    assert_eq!(service.metric("websocket_replay_gap_messages_total", &[r#"mode="thread""#]), 3.0);
}

#[test]
fn a_capped_replay_of_threads_says_so_and_a_request_without_threads_is_an_error() {
    let topic = Topic::create(services::kafka(), "threads", 3);
    let config = Config::new(&topic).set("REPLAY_MAX_TOTAL", 10);
    let service = Service::start_healthy(&config);
    publish(&topic);
    topic.wait_until_all_committed(config.group(), BOUND);

    let ask = |sequence: u64| json!({"type": "resume", "mode": "thread", "lastSequencesByThread": {"a": sequence.to_string()}});
    let exact = V1Client::connect(service.address(), Some(&ask(EACH - 10)));
    assert_eq!(completion(&exact)["capped"], false, "nothing was left out");
    let capped = V1Client::connect(service.address(), Some(&ask(EACH - 11)));
    let complete = completion(&capped);
    assert_eq!((&complete["capped"], &complete["totalReplayed"]), (&json!(true), &json!(10)));
    capped.look(|seen| {
        let gap = seen.texts.iter().find(|text| text["type"] == "gap" && text["partition"] == 0);
        assert_eq!(gap.map(|gap| &gap["reason"]), Some(&json!("skipped_to_live")), "{:?}", seen.texts);
    });

    let nothing = V1Client::connect(service.address(), Some(&json!({"type": "resume", "mode": "thread"})));
    eventually("an error", BOUND, || {
        nothing.look(|seen| match seen.texts.iter().find(|text| text["type"] == "error") {
            Some(error) if error["code"] == "empty_cursor" && error["field"] == "lastSequencesByThread" => Ok(()),
            _ => Err(format!("{:?}", seen.texts)),
        })
    });
    nothing.look(|seen| assert_eq!(seen.closed, None));
}
