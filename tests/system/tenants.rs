//! Who may see the records of one tenant receives, counts and times nothing of another, whatever is asked and wherever
//! the answer comes from.

use std::time::Duration;

use serde_json::{Value, json};

use dashstream::wire::stream::SkipReason;

use crate::filters::{filtered, is_of, mixed, reasons, wait_for};
use crate::harness::client::{Client, From, Options, SUBPROTOCOL};
use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::{Producer, Published, Sent};
use crate::harness::raw::{Heard, Raw};
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::token::{self, shown, token};
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use crate::harness::{services, unique_name};

const BOUND: Duration = Duration::from_secs(60);
/// Long enough for a frame that must not come to have come.
const SILENCE: Duration = Duration::from_secs(3);

/// A service that knows its clients. Nothing that comes in between is a heartbeat.
fn guarded(topic: &Topic) -> Config {
    Config::new(topic)
        .set("DASHSTREAM_AUTH_JWT_SECRET", token::SECRET)
        .set("DASHSTREAM_WEB_HEARTBEAT_SECS", 300)
        .set("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", 600)
}

fn of(tenants: &[&str]) -> Vec<(&'static str, String)> {
    shown(&token(&json!({ "tenants": tenants })))
}

/// Sum of the samples of a metric, as an operator sees it.
fn metric(service: &Service, name: &str) -> Result<f64, String> {
    let observer = shown(&token(&json!({"scope": "dashstream:observe"})));
    let (_, text) = service.get_with("/metrics", &observer)?;
    let samples = text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
    Ok(samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

fn wait_until_read(service: &Service, published: &Published) {
    eventually("the service to have read all", BOUND, || match metric(service, "websocket_kafka_messages_total")? {
        read if read >= published.len() as f64 => Ok(()),
        read => Err(read.to_string()),
    });
}

fn ants(sent: &Sent) -> bool {
    is_of(sent, "ant")
}

fn v1_has_the_ants(v1: &V1Client, published: &Published) -> Result<(), String> {
    let sent = published.records.values().filter(|sent| ants(sent));
    let want: Vec<_> = sent.map(|sent| (sent.partition, sent.offset)).collect();
    let got: Vec<_> = v1.look(|seen| seen.records.keys().copied().collect());
    if got == want { Ok(()) } else { Err(format!("{} of {}", got.len(), want.len())) }
}

/// Replay in every way to ask for it: what comes, what is told of the rest, and what the totals are.
fn replays(service: &Service, published: &Published) -> (Vec<Client>, V1Client) {
    let asks =
        [Value::Null, json!({"tenants": ["bee"]}), json!({"tenants": ["ant", "bee"]}), json!({"threads": ["bee-0"]})];
    let connect = |filter: &Value| {
        let options = Options { headers: of(&["ant"]), ..filtered(From::Earliest, filter.clone()) };
        Client::connect(service.address(), options)
    };
    let clients: Vec<Client> = asks.iter().map(connect).collect();
    let own = published.records.values().filter(|sent| ants(sent)).count();
    for (index, client) in clients.iter().enumerate() {
        let sees = index % 2 == 0;
        wait_for(client, published, |sent| ants(sent) && sees);
        client.look(|ledger| assert_eq!(reasons(ledger), [SkipReason::Filtered], "not even whose record was bad"));
        let complete = eventually("the end of the replay", BOUND, || {
            client.texts("replay_complete").pop().ok_or_else(|| "not yet".to_owned())
        });
        assert_eq!(complete["totalReplayed"], if sees { own } else { 0 });
        for beat in client.texts("heartbeat") {
            assert_eq!(beat["ingest"]["reasons"], json!([]), "{beat}");
        }
    }
    let resume = json!({"type": "resume", "from": "earliest"});
    let v1 = V1Client::connect_with(service.address(), Some(&resume), &of(&["ant"]));
    eventually("the records of one tenant in v1", BOUND, || v1_has_the_ants(&v1, published));
    (clients, v1)
}

/// A cursor in the middle of what others wrote.
fn resumes_from_others(service: &Service, published: &Published) -> Raw {
    let others = published.records.values().find(|sent| is_of(sent, "bee") && sent.offset > 50);
    let middle = others.expect("one of many").offset;
    let mut raw = Raw::try_open_with(service.address(), Some(SUBPROTOCOL), &of(&["ant"])).expect("a connection");
    let cursor = json!({"0": middle.to_string(), "1": middle.to_string()});
    raw.say(&json!({"type": "hello", "from": "cursor", "lastOffsetsByPartition": cursor}));
    let complete = raw.hear_type("replay_complete");
    let left = published.records.values().filter(|sent| ants(sent) && sent.offset > middle).count();
    assert_eq!(complete["totalReplayed"], left);
    raw
}

#[test]
fn a_tenant_never_receives_counts_or_times_the_records_of_another() {
    let topic = Topic::create(services::kafka(), "tenants", 2);
    let producer = Producer::new(services::kafka());
    let both = [records::shared_batch(&[("ant", "1"), ("bee", "2")]).on_partition(0)];
    let mut published = producer.publish(&topic.name, mixed(0, 500).chain(both));

    let small = |config: Config| config.set("REPLAY_BUFFER_MEMORY_SIZE", 50);
    let redis = small(guarded(&topic)).set("DASHSTREAM_REDIS_KEY_PREFIX", unique_name("tenants"));
    let of_redis = Service::start(&redis);
    let of_kafka = Service::start(&small(guarded(&topic)).unset("REDIS_URL"));
    let service = Service::start(&guarded(&topic));
    for service in [&of_redis, &of_kafka, &service] {
        wait_until_read(service, &published);
    }
    eventually("history in Redis", BOUND, || {
        let (queued, blocks) =
            (metric(&of_redis, "dashstream_redis_queued_blocks")?, metric(&of_redis, "dashstream_redis_blocks_total")?);
        if queued == 0.0 && blocks > 0.0 { Ok(()) } else { Err(format!("{queued} queued, {blocks} written")) }
    });
    for (service, served) in
        [(&of_redis, "replay_buffer_redis_hits_total"), (&of_kafka, "dashstream_history_page_records_count")]
    {
        replays(service, &published);
        resumes_from_others(service, &published);
        assert!(metric(service, served).expect("/metrics answers") > 0.0, "{served}");
    }
    let (clients, v1) = replays(&service, &published);
    let mut raw = resumes_from_others(&service, &published);

    // What others write makes no sound; the next record of one's own brings the skip along.
    let frames = || clients.iter().map(|client| client.look(|ledger| ledger.frames)).collect::<Vec<u64>>();
    let seen = frames();
    let others = (0..200).map(|index| records::of_tenant("bee", "bee-0", 1, index % 2 == 0).on_partition(index % 2));
    published.extend(producer.publish(&topic.name, others));
    wait_until_read(&service, &published);
    throughout("silence", SILENCE, || {
        let now = frames();
        if now == seen { Ok(()) } else { Err(format!("{seen:?} became {now:?}")) }
    });
    assert_eq!(raw.hear_within(Duration::from_millis(10)).filter(|heard| !matches!(heard, Heard::Text(_))), None);
    let own = (0..2).map(|partition| records::of_tenant("ant", "ant-9", 1, false).on_partition(partition));
    published.extend(producer.publish(&topic.name, own));
    for client in clients.iter().step_by(2) {
        wait_for(client, &published, ants);
    }
    eventually("the last record in v1", BOUND, || v1_has_the_ants(&v1, &published));

    // The service tells a tenant no more than its state, and takes no orders.
    let health: Value =
        serde_json::from_str(&service.get_with("/health", &of(&["ant"])).expect("it answers").1).expect("JSON");
    assert_eq!(health.as_object().expect("an object").keys().collect::<Vec<_>>(), ["status"]);
    for path in ["/metrics", "/admin/clients"] {
        assert_eq!(service.get_with(path, &of(&["ant"])).expect("it answers").0, 403, "{path}");
    }
    assert_eq!(service.get("/metrics").expect("it answers").0, 401);
    let [(name, shown)] = &of(&["ant"])[..] else { panic!("one header") };
    let headers = [(*name, shown.as_str()), ("content-type", "application/json")];
    let ordered = service.post("/admin/ingest/continue", &headers, r#"{"action":"retry"}"#).expect("it answers");
    assert_eq!(ordered.0, 403, "{ordered:?}");
}

/// The partitions that a text frame names.
fn partitions_in(frame: &Value) -> Vec<String> {
    let maps = ["partitions", "nextOffsets", "lastOffsetsByPartition"];
    let keys = maps.iter().filter_map(|name| frame[name].as_object()).flat_map(|map| map.keys().cloned());
    keys.chain(frame["partition"].as_i64().map(|partition| partition.to_string())).collect()
}

#[test]
fn a_client_with_partitions_of_its_own_does_not_learn_that_there_are_others() {
    let topic = Topic::create(services::kafka(), "own-partitions", 3);
    let config = guarded(&topic)
        .set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1)
        .set("DASHSTREAM_REPLAY_PAGE_RECORDS", 10)
        .set("REPLAY_BUFFER_MEMORY_SIZE", 50);
    let service = Service::start(&config);
    let producer = Producer::new(services::kafka());
    let record = |index: u64, partition: i32| match partition {
        1 => records::of_tenant("ant", "ant-0", index + 1, index.is_multiple_of(2)).on_partition(1),
        other => records::of_tenant("bee", "bee-0", index + 1, index.is_multiple_of(2)).on_partition(other),
    };
    let some = |range: std::ops::Range<u64>| -> Vec<Outgoing> {
        range.flat_map(|index| (0..3).map(move |partition| record(index, partition))).collect()
    };
    let published = producer.publish(&topic.name, some(0..100));
    wait_until_read(&service, &published);

    let headers = shown(&token(&json!({"tenants": "ant", "partitions": [1, 7]})));
    let mut raws = Vec::new();
    for hello in [
        json!({"type": "hello", "from": "earliest"}),
        json!({"type": "hello", "from": "earliest", "filter": {"partitions": [0, 1, 2]}}),
        json!({"type": "hello", "from": "time", "time": "1"}),
        json!({"type": "hello", "from": "cursor", "lastOffsetsByPartition": {"0": "10", "2": "10"}}),
    ] {
        let mut raw = Raw::try_open_with(service.address(), Some(SUBPROTOCOL), &headers).expect("a connection");
        raw.say(&hello);
        let mut remaining = Vec::new();
        loop {
            match raw.hear() {
                Heard::Text(text) => {
                    assert!(partitions_in(&text).iter().all(|partition| partition == "1"), "{hello}: {text}");
                    match text["type"].as_str() {
                        Some("replay_progress") => remaining.push(text["remaining"].clone()),
                        Some("replay_complete") => {
                            assert_eq!(text["totalReplayed"], 100, "{hello}: {text}");
                            break;
                        }
                        Some("error") => panic!("{hello}: {text}"),
                        _ => {}
                    }
                }
                Heard::Binary(bytes) => only_of_partition_1(&bytes),
                Heard::Closed(closed) => panic!("{hello}: {closed:?}"),
            }
        }
        assert!(remaining.first().is_some_and(|left| left == "90"), "{hello}: {remaining:?}");
        raws.push(raw);
    }
    // Live, with heartbeats between: first others alone, then one's own.
    let others = some(100..150).into_iter().filter(|record| record.partition != Some(1));
    let all = published.len() + producer.publish(&topic.name, others).len();
    eventually("all to be read", BOUND, || match metric(&service, "websocket_kafka_messages_total")? {
        read if read >= all as f64 => Ok(()),
        read => Err(read.to_string()),
    });
    producer.publish(&topic.name, [record(150, 1)]);
    for raw in &mut raws {
        loop {
            match raw.hear() {
                Heard::Text(text) => assert!(partitions_in(&text).iter().all(|partition| partition == "1"), "{text}"),
                Heard::Binary(bytes) => break only_of_partition_1(&bytes),
                Heard::Closed(closed) => panic!("{closed:?}"),
            }
        }
    }
    let nobody = shown(&token(&json!({"tenants": "ant", "partitions": []})));
    let refused = Raw::try_open_with(service.address(), Some(SUBPROTOCOL), &nobody).map(drop);
    assert!(refused.expect_err("a claim that names nothing is not the same as none").contains("403"));
}

fn only_of_partition_1(bytes: &[u8]) {
    use prost::Message as _;
    let frame = dashstream::wire::stream::Frame::decode(bytes).expect("a frame");
    assert_eq!(frame.partition, 1);
}
