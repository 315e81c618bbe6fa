//! A client gets what it asks for, and a skip for the rest.

use std::time::Duration;

use serde_json::{Value, json};

use dashstream::wire::stream::SkipReason;

use crate::harness::client::{Client, From, Options};
use crate::harness::contract::{Fingerprint, Judged as _, Ledger};
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published, Sent};
use crate::harness::raw::Raw;
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);

/// `count` records over two partitions: two tenants in turn, plain and zstd, now and then a bad one.
pub fn mixed(from: usize, count: usize) -> impl Iterator<Item = Outgoing> {
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

pub fn is_of(outgoing: &Sent, tenant: &str) -> bool {
    outgoing.key.starts_with(tenant)
}

/// Waits until the client has come to the end, and holds what it got against what `wants` says.
#[track_caller]
pub fn wait_for(client: &Client, published: &Published, wants: impl Fn(&Sent) -> bool) {
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

pub fn filtered(from: From, filter: Value) -> Options {
    Options { from, filter, ..Options::default() }
}

pub fn reasons(ledger: &Ledger) -> Vec<SkipReason> {
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
    let good = |sent: &Sent| sent.expect == records::Expect::Record;
    type Wants = Box<dyn Fn(&Sent) -> bool>;
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
        wait_for(client, &published, &*wants);
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
