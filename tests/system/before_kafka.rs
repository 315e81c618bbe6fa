//! Clients that come before Kafka does: they are told, and they are served as soon as it can be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{Client, From, Options};
use crate::harness::eventually::within;
use crate::harness::load::Mix;
use crate::harness::producer::Producer;
use crate::harness::raw::Raw;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use dashstream::torture::proxy::Proxy;

const BOUND: Duration = Duration::from_secs(60);

#[test]
fn clients_that_come_before_kafka_wait_are_told_and_are_served_when_it_is_there() {
    let topic = Topic::create(services::kafka(), "early", 2);
    let published = Producer::new(services::kafka()).publish(&topic.name, Mix::new(vec![0, 1]).take(500));
    // A connection to the bootstrap address hangs until the test says where it leads.
    let proxy = Proxy::start().expect("a free port");
    let config = Config::new(&topic)
        .set("KAFKA_BROKERS", proxy.address())
        .set("REDIS_URL", "redis://127.0.0.1:1")
        .set("REPLAY_TIMEOUT_SECS", 2);
    let started = Instant::now();
    let mut service = Service::spawn(&config);
    service.wait_until_listening();
    let health = within("/health", Duration::from_secs(3).saturating_sub(started.elapsed()), || service.try_health());
    assert_ne!(health["status"], "healthy", "{health}");
    // A stream without a name has no namespace either: pages keep theirs.
    let (_, version) = service.get("/version").expect("/version answers");
    let version: Value = serde_json::from_str(&version).expect("/version is JSON");
    assert_eq!((&version["epoch"], &version["resume_namespace"]), (&json!(""), &Value::Null));

    // Asked before: an error with a hint after REPLAY_TIMEOUT_SECS, never an answer out of nothing.
    let asked = Instant::now();
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        let kind = if dialect == "v1" { "resume" } else { "hello" };
        raw.say(&json!({ "type": kind, "from": "earliest" }));
        let error = raw.hear_text();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("not_ready")), "{dialect}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("try again")), "{dialect}: {error}");
        raw.say(&json!({ "type": "ping" }));
        assert_eq!(raw.hear_text()["type"], "pong", "{dialect}: the session stays open, and there is one error");
    }
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());

    // Asked shortly before it comes: answered when it comes. And who asked for nothing goes live.
    let silent = V1Client::connect(service.address(), None);
    let mut waiting = Raw::v2(service.address());
    waiting.say(&json!({ "type": "hello", "from": "earliest" }));
    let kafka = services::kafka().to_owned();
    proxy.forward_to(&kafka);
    let client = Client::connect(service.address(), Options { from: From::Earliest, ..Options::default() });
    client.wait_for_all(&published, BOUND);
    let first = waiting.hear_text();
    assert!(first["type"] == "welcome" || first["code"] == "not_ready", "{first}");
    let live = Producer::new(services::kafka()).publish(&topic.name, Mix::new(vec![0, 1]).take(100));
    silent.wait_for_all(&live, BOUND);
}
