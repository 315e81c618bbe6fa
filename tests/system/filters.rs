//! A client gets what it asks for and may see, a skip for the rest, and no more than that.

use std::time::Duration;

use serde_json::{Value, json};

use dashstream::wire::stream::SkipReason;

use crate::harness::client::{Client, From, Options};
use crate::harness::contract::{Fingerprint, Ledger};
use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::{Producer, Published};
use crate::harness::raw::{Heard, Raw};
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::token::{self, shown, token};
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);
/// Long enough for a frame that must not come to have come.
const SILENCE: Duration = Duration::from_secs(3);

/// `count` records over two partitions: two tenants in turn, plain and zstd, now and then a bad one.
fn mixed(from: usize, count: usize) -> impl Iterator<Item = Outgoing> {
    (from..from + count).map(|index| {
        let (sequence, partition) = (index as u64 + 1, i32::try_from(index % 2).expect("0 or 1"));
        let record = match index % 7 {
            6 => records::garbage("t"),
            0 | 3 => records::of_tenant("ant", &format!("ant-{}", index % 3), sequence, index % 2 == 0),
            _ => records::of_tenant("bee", "bee-0", sequence, index % 4 == 0),
        };
        record.on_partition(partition)
    })
}

fn is_of(outgoing: &crate::harness::producer::Sent, tenant: &str) -> bool {
    outgoing.key.starts_with(tenant)
}

/// Waits until the client has come to the end, and holds what it got against what `wants` says.
#[track_caller]
fn wait_for(client: &Client, published: &Published, wants: impl Fn(&crate::harness::producer::Sent) -> bool) {
    client.wait_until("the end of the stream", BOUND, |ledger| ledger.has_reached_the_end_of(published));
    client.look(|ledger| {
        assert_eq!((ledger.gaps.len(), ledger.resets.len()), (0, 0));
        let want: Vec<_> = published
            .records
            .values()
            .filter(|sent| wants(sent))
            .map(|sent| ((sent.partition, sent.offset), Fingerprint::of(sent.value.as_deref().unwrap_or_default())))
            .collect();
        let got: Vec<_> = ledger.records.iter().map(|(at, record)| (*at, *record)).collect();
        assert_eq!(got, want);
    });
}

fn filtered(from: From, filter: Value) -> Options {
    Options { from, filter, ..Options::default() }
}

fn reasons(ledger: &Ledger) -> Vec<SkipReason> {
    let mut reasons: Vec<_> = ledger.skips.iter().map(|range| range.reason).collect();
    reasons.dedup();
    reasons
}

#[test]
fn a_client_gets_exactly_what_its_filter_names_live_and_replayed() {
    let topic = Topic::create(services::kafka(), "filters", 2);
    // Skips at the end of a partition are told with the heartbeat.
    let config = Config::new(&topic).set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1);
    let service = Service::start_healthy(&config);
    let producer = Producer::new(services::kafka());
    let mut published = producer.publish(&topic.name, mixed(0, 2_000));
    let good = |sent: &crate::harness::producer::Sent| sent.expect == records::Expect::Record;
    type Wants = Box<dyn Fn(&crate::harness::producer::Sent) -> bool>;
    let cases: Vec<(Value, Wants)> = vec![
        (json!({"tenants": ["ant"]}), Box::new(|sent| is_of(sent, "ant"))),
        (json!({"tenants": ["ant", "bee"]}), Box::new(move |sent| good(sent))),
        (json!({"tenants": ["nobody"]}), Box::new(|_| false)),
        (json!({"threads": ["ant-1"], "tenants": ["ant"]}), Box::new(|sent| sent.key == "ant-1")),
        (json!({"threads": ["ant-1"], "tenants": ["bee"]}), Box::new(|_| false)),
        (json!({"types": ["event"]}), Box::new(move |sent| good(sent))),
        (json!({"types": ["error", "metrics"]}), Box::new(|_| false)),
        (json!({"partitions": [1]}), Box::new(move |sent| good(sent) && sent.partition == 1)),
        (json!({"partitions": [1], "tenants": ["bee"]}), Box::new(|sent| is_of(sent, "bee") && sent.partition == 1)),
        (json!({}), Box::new(move |sent| good(sent))),
    ];
    let connect =
        |(filter, wants): (Value, Wants)| (Client::connect(service.address(), filtered(From::Earliest, filter)), wants);
    let mut clients: Vec<(Client, Wants)> = cases.into_iter().map(connect).collect();
    for (client, wants) in &clients {
        wait_for(client, &published, wants);
    }
    published.extend(producer.publish(&topic.name, mixed(2_000, 1_000)));
    for (client, wants) in &clients {
        wait_for(client, &published, wants);
        assert!(reasons_are_sound(client), "a bad record keeps its reason");
    }
    assert!(service.metric("dashstream_filtered_sessions", &[]) >= 9.0);
    // A reconnect with the cursor goes on exactly, also over what was withheld.
    for (client, _) in &mut clients {
        client.disconnect();
    }
    published.extend(producer.publish(&topic.name, mixed(3_000, 1_000)));
    for (client, wants) in &mut clients {
        client.reconnect(service.address());
        wait_for(client, &published, wants);
    }
}

fn reasons_are_sound(client: &Client) -> bool {
    client.look(|ledger| {
        reasons(ledger)
            .iter()
            .all(|reason| matches!(reason, SkipReason::Filtered | SkipReason::InvalidProtobuf | SkipReason::NoRecord))
    })
}

#[test]
fn a_filter_changes_on_an_open_connection_without_a_hole_or_a_repetition() {
    let topic = Topic::create(services::kafka(), "refilter", 2);
    let service = Service::start_healthy(&Config::new(&topic).set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1));
    let producer = Producer::new(services::kafka());
    let client = Client::from(service.address(), From::Earliest);
    let mut published = Published::default();
    let mut changes = Vec::new();
    for (round, filter) in [json!({"tenants": ["ant"]}), Value::Null, json!({"tenants": ["bee"]})].iter().enumerate() {
        published.extend(producer.publish(&topic.name, mixed(round * 700, 700)));
        client.send(&json!({"type": "filter", "filter": filter}));
        changes = eventually("an answer to the filter", BOUND, || match client.texts("filter_applied") {
            texts if texts.len() == round + 1 => Ok(texts),
            texts => Err(texts.len().to_string()),
        });
    }
    published.extend(producer.publish(&topic.name, mixed(2_100, 700)));
    // Which filter held at an offset, the answers say.
    let held = |partition: i32, offset: i64| {
        let before = |change: &&Value| {
            let next = change["nextOffsets"][partition.to_string()].as_str().expect("each partition is named");
            next.parse::<i64>().expect("a decimal string") <= offset
        };
        changes.iter().filter(before).count()
    };
    wait_for(&client, &published, |sent| {
        sent.expect == records::Expect::Record
            && match held(sent.partition, sent.offset) {
                1 => is_of(sent, "ant"),
                3 => is_of(sent, "bee"),
                _ => true,
            }
    });
}

#[test]
fn bad_filters_are_answered_by_one_error_that_names_the_field() {
    let topic = Topic::create(services::kafka(), "bad-filters", 1);
    let service = Service::start_healthy(&Config::new(&topic));
    let mut raw = Raw::v2(service.address());
    for (filter, field) in [
        (json!({"tenant": ["a"]}), "filter"),
        (json!({"tenants": []}), "filter.tenants"),
        (json!({"threads": "t"}), "filter.threads"),
        (json!({"types": ["evnt"]}), "filter.types"),
        (json!({"partitions": [-1]}), "filter.partitions"),
    ] {
        raw.say(&json!({"type": "hello", "from": "latest", "filter": filter}));
        let error = raw.hear_text();
        assert_eq!(
            (&error["type"], &error["code"], &error["field"]),
            (&json!("error"), &json!("invalid_field"), &json!(field))
        );
    }
    raw.say(&json!({"type": "hello", "from": "latest"}));
    raw.hear_type("welcome");
    for _ in 0..11 {
        raw.say(&json!({"type": "filter", "filter": {"tenants": ["a"]}}));
    }
    for _ in 0..10 {
        raw.hear_type("filter_applied");
    }
    assert_eq!(raw.hear_type("error")["code"], "rate_limited");
}

/// A service that knows its clients, and the claims of two of them.
fn guarded(topic: &Topic) -> Config {
    Config::new(topic).set("DASHSTREAM_AUTH_JWT_SECRET", token::SECRET)
}

fn of(tenants: &[&str]) -> Vec<(&'static str, String)> {
    shown(&token(&json!({ "tenants": tenants })))
}

#[test]
fn a_tenant_never_receives_counts_or_times_the_records_of_another() {
    let topic = Topic::create(services::kafka(), "tenants", 2);
    // Nothing that comes in between is a heartbeat.
    let config = guarded(&topic).set("DASHSTREAM_WEB_HEARTBEAT_SECS", 300).set("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", 600);
    let observer = shown(&token(&json!({"scope": "dashstream:observe"})));
    let service = Service::start_healthy(&config);
    let producer = Producer::new(services::kafka());
    let both = [records::shared_batch(&[("ant", "1"), ("bee", "2")]).on_partition(0)];
    let mut published = producer.publish(&topic.name, mixed(0, 500).chain(both));
    let ants = |sent: &crate::harness::producer::Sent| is_of(sent, "ant");
    let all_read = |count: usize| {
        eventually("the service to have read all", BOUND, || {
            let (_, metrics) = service.get_with("/metrics", &observer)?;
            let samples = metrics.lines().filter(|line| line.starts_with("websocket_kafka_messages_total{"));
            let read: f64 = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
            if read >= count as f64 { Ok(()) } else { Err(read.to_string()) }
        });
    };
    all_read(published.len());

    // Replay, in every way to ask for it.
    let asks =
        [Value::Null, json!({"tenants": ["bee"]}), json!({"tenants": ["ant", "bee"]}), json!({"threads": ["bee-0"]})];
    let connect = |filter: &Value| {
        let options = Options { headers: of(&["ant"]), ..filtered(From::Earliest, filter.clone()) };
        Client::connect(service.address(), options)
    };
    let clients: Vec<Client> = asks.iter().map(connect).collect();
    for (index, client) in clients.iter().enumerate() {
        wait_for(client, &published, |sent| ants(sent) && index % 2 == 0);
        client.look(|ledger| assert_eq!(reasons(ledger), [SkipReason::Filtered], "not even whose record was bad"));
    }
    let v1 =
        V1Client::connect_with(service.address(), Some(&json!({"type": "resume", "from": "earliest"})), &of(&["ant"]));
    eventually("the records of one tenant", BOUND, || v1_has(&v1, &published, ants));

    // A cursor in the middle of what others wrote.
    let middle = published.records.values().find(|sent| is_of(sent, "bee") && sent.offset > 50).expect("some").offset;
    let mut raw = Raw::try_open_with(service.address(), Some("dashstream.v2"), &of(&["ant"])).expect("a connection");
    let cursor = json!({"0": middle.to_string(), "1": middle.to_string()});
    raw.say(&json!({"type": "hello", "from": "cursor", "lastOffsetsByPartition": cursor}));
    let complete = raw.hear_type("replay_complete");
    let left = published.records.values().filter(|sent| ants(sent) && sent.offset > middle).count();
    assert_eq!(complete["totalReplayed"], left);

    // What others write makes no sound; the next record of one's own brings the skip along.
    let seen: Vec<u64> = clients.iter().map(|client| client.look(|ledger| ledger.frames)).collect();
    let others = (0..200).map(|index| records::of_tenant("bee", "bee-0", 1, index % 2 == 0).on_partition(index % 2));
    published.extend(producer.publish(&topic.name, others));
    all_read(published.len());
    throughout("silence", SILENCE, || {
        let now: Vec<u64> = clients.iter().map(|client| client.look(|ledger| ledger.frames)).collect();
        if now == seen { Ok(()) } else { Err(format!("{seen:?} became {now:?}")) }
    });
    assert_eq!(raw.hear_within(Duration::from_millis(10)).filter(|heard| !matches!(heard, Heard::Text(_))), None);
    let own = (0..2).map(|partition| records::of_tenant("ant", "ant-9", 1, false).on_partition(partition));
    published.extend(producer.publish(&topic.name, own));
    for client in clients.iter().step_by(2) {
        wait_for(client, &published, ants);
    }
    eventually("the last record in v1", BOUND, || v1_has(&v1, &published, ants));

    // Heartbeats tell of one's own position, and the service of no more than its state.
    for client in &clients {
        for beat in client.texts("heartbeat") {
            assert_eq!(beat["ingest"]["reasons"], json!([]), "{beat}");
        }
    }
    let health: Value = serde_json::from_str(&service.get("/health").expect("/health answers").1).expect("JSON");
    assert_eq!(health.as_object().expect("an object").keys().collect::<Vec<_>>(), ["status"]);
    assert_eq!(service.get("/metrics").expect("/metrics answers").0, 401);
}

fn v1_has(
    v1: &V1Client,
    published: &Published,
    wants: impl Fn(&crate::harness::producer::Sent) -> bool,
) -> Result<(), String> {
    let want: Vec<_> =
        published.records.values().filter(|sent| wants(sent)).map(|sent| (sent.partition, sent.offset)).collect();
    let mut got: Vec<_> = v1.look(|seen| seen.records.keys().copied().collect());
    got.sort_unstable();
    if got == want { Ok(()) } else { Err(format!("{} of {}: {got:?}", got.len(), want.len())) }
}
