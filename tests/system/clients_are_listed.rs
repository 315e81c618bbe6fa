//! Operators see every client: where it comes from, what it wants, how far it has come, and how far it is behind.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::contract::Judged as _;
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);
const RECORDS: i64 = 600;

fn listing(service: &Service, query: &str) -> Result<Value, String> {
    let (status, body) = service.get(&format!("/admin/clients{query}"))?;
    match status {
        200 => serde_json::from_str(&body).map_err(|error| error.to_string()),
        _ => Err(format!("{status}: {body}")),
    }
}

/// By the name that each client gave, or its protocol.
fn by_name(listing: &Value) -> BTreeMap<String, Value> {
    let clients = listing["clients"].as_array().expect("a list");
    let name = |client: &Value| client["client"].as_str().or(client["protocol"].as_str()).expect("a name").to_owned();
    clients.iter().map(|client| (name(client), client.clone())).collect()
}

/// Sums over all clients, as they are scraped.
fn lag(service: &Service) -> f64 {
    service.metric("websocket_client_apply_lag_messages", &[])
}

/// What clients do not apply, or do not read, shows as that and as nothing else.
fn a_slow_client_is_no_trouble_of_kafka_or_redis(service: &Service) {
    assert!(lag(service) > 0.0 && service.metric("websocket_client_apply_lag_seconds", &[]) > 0.0);
    // The network of another one shows as what waits for it, and a long replay as a replay.
    assert!(service.metric("dashstream_session_queued_bytes", &[]) > 16.0 * 1024.0);
    assert_eq!(service.metric("dashstream_sessions", &[r#"state="parked""#]), 1.0);
    assert!(service.metric("websocket_replay_messages_total", &[]) >= 100.0);
    eventually("no lag behind Kafka", BOUND, || match service.metric("websocket_kafka_consumer_lag", &[]) {
        0.0 => Ok(()),
        lag => Err(lag.to_string()),
    });
    assert_eq!(service.metric("websocket_infrastructure_errors_total", &[]), 0.0);
    assert_eq!(service.metric("dashstream_websocket_redis_errors_total", &[]), 0.0);
}

/// Page by page it is the same list.
fn comes_in_pages(service: &Service, total: usize) {
    let (mut paged, mut after) = (Vec::new(), json!("0"));
    while let Some(from) = after.as_str() {
        let page = listing(service, &format!("?limit=2&after={from}")).expect("a page");
        let some = page["clients"].as_array().expect("a list");
        assert!((1..=2).contains(&some.len()) && page["total"] == total, "{page}");
        paged.extend(some.iter().map(|client| client["session"].clone()));
        after = page["next"].clone();
    }
    assert_eq!(paged.len(), total);
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=-1", "?what=1"] {
        assert!(listing(service, query).is_err_and(|error| error.starts_with("400")), "{query}");
    }
}

/// Three kinds of slowness, three pictures: of applying, of the network, of a long replay.
fn shows_three_kinds_of_slowness(clients: &BTreeMap<String, Value>) {
    let at = |name: &str| clients[name]["positions"]["0"].clone();
    let queued = |name: &str| clients[name]["queued_bytes"].as_u64().expect("a number");
    assert_eq!(at("frozen")["applied"], "0");
    assert!(queued("frozen") < 64 * 1024);
    let behind: i64 = clients["frozen"]["apply_lag"]["messages"].as_str().expect("a number").parse().expect("a number");
    assert!((1..RECORDS).contains(&behind), "{behind}");
    assert!(clients["frozen"]["apply_lag"]["seconds"].as_f64().expect("a number") > 0.0);
    assert_eq!((at("parked")["sent"].as_str(), &clients["parked"]["apply_lag"]), (Some("100"), &Value::Null));
    assert_eq!(clients["deaf"]["apply_lag"], Value::Null);
    assert!(queued("deaf") > 16 * 1024, "{}", clients["deaf"]);
}

fn who_leaves_is_gone(service: &Service) {
    eventually("an empty list", BOUND, || match listing(service, "")?["total"].as_u64() {
        Some(0) => Ok(()),
        total => Err(format!("{total:?}")),
    });
    eventually("their lag to be gone", BOUND, || match lag(service) {
        0.0 => Ok(()),
        lag => Err(lag.to_string()),
    });
}

#[test]
fn every_client_is_listed_with_its_state_positions_and_lag() {
    let topic = Topic::create(services::kafka(), "listed", 1);
    let config = Config::new(&topic)
        .set("REPLAY_MAX_TOTAL", 100)
        .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
        .set("WEBSOCKET_SEND_TIMEOUT_SECS", 120)
        .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 64 * 1024)
        .set("DASHSTREAM_WEB_SESSION_UNAPPLIED_BYTES", 256 * 1024);
    let service = Service::start_healthy(&config);
    let open = |name: &'static str, from: From, filter: Value| {
        let quiet = Options { name, from, filter, reports_applied: false, asks_on: false, ..Options::default() };
        Client::connect(service.address(), quiet)
    };
    let live = open("live", From::Latest, Value::Null);
    let frozen = open("frozen", From::Latest, Value::Null);
    // One whose network takes nothing.
    let deaf = Options { name: "deaf", receive_buffer: Some(4096), reports_applied: false, ..Options::default() };
    let deaf = Client::connect(service.address(), deaf);
    deaf.read(Reading::Stopped);
    let filter = json!({ "threads": vec!["listed"; 30], "types": ["event"] });
    let filtered = open("filtered", From::Latest, filter);
    let v1 = V1Client::connect(service.address(), Some(&json!({ "type": "resume", "from": "latest" })));
    // From its first report on it is held to it; it never reports again.
    frozen.send(&json!({ "type": "applied", "offsets": { "0": "-1" } }));
    live.send(&json!({ "type": "applied", "offsets": { "0": "-1" } }));
    eventually("both reports to be taken", BOUND, || {
        let clients = by_name(&listing(&service, "")?);
        match ["live", "frozen"]
            .iter()
            .all(|name| clients.get(*name).is_some_and(|client| !client["apply_lag"].is_null()))
            && clients.len() == 5
        {
            true => Ok(()),
            false => Err(format!("{clients:?}")),
        }
    });

    let records = (1..=RECORDS.unsigned_abs()).map(|sequence| records::good_of_size("listed", sequence, 1_000));
    let published = Producer::new(services::kafka()).publish(&topic.name, records);
    eventually("the live client to apply everything", BOUND, || {
        live.send(&json!({ "type": "applied", "offsets": live.look(|ledger| ledger.last_offsets()) }));
        live.look(|ledger| ledger.has_reached_the_end_of(&published))
    });
    let end = RECORDS.to_string();
    let parked = open("parked", From::Earliest, Value::Null);
    let clients = eventually("the states of all", BOUND, || {
        live.send(&json!({ "type": "applied", "offsets": live.look(|ledger| ledger.last_offsets()) }));
        let clients = by_name(&listing(&service, "")?);
        let is = |name: &str, state: &str| clients.get(name).is_some_and(|client| client["state"] == state);
        let states =
            is("live", "live") && is("filtered", "live") && is("frozen", "catching_up") && is("parked", "parked");
        let of = |name: &str| clients.get(name).cloned().unwrap_or_default();
        let applied = of("live")["positions"]["0"]["applied"] == *end;
        let sent = of("parked")["queued_bytes"] == 0;
        match states && applied && sent && is("v1", "live") {
            true => Ok(clients),
            false => Err(format!("{clients:?}")),
        }
    });
    assert_eq!(clients["live"]["positions"]["0"], json!({ "start": "0", "sent": end, "applied": end }));
    assert_eq!(clients["live"]["apply_lag"]["messages"], "0");
    assert_eq!(clients["live"]["address"], "127.0.0.1");
    assert_eq!(clients["live"]["filter"], Value::Null);
    shows_three_kinds_of_slowness(&clients);
    let filter = &clients["filtered"]["filter"];
    assert_eq!(filter["threads"]["count"], 30);
    assert_eq!(filter["threads"]["first"].as_array().map(Vec::len), Some(20));
    assert_eq!((&filter["types"], &filter["restricted"]), (&json!(["event"]), &json!(false)));
    assert_eq!((&clients["v1"]["protocol"], &clients["v1"]["apply_lag"]), (&json!("v1"), &Value::Null));

    comes_in_pages(&service, clients.len());
    a_slow_client_is_no_trouble_of_kafka_or_redis(&service);
    assert!(service.metrics().keys().all(|series| !series.contains("127.0.0.1")), "no series of a client");

    drop((live, filtered, v1, parked, frozen, deaf));
    who_leaves_is_gone(&service);
}

#[test]
fn with_an_admin_token_the_list_is_for_those_who_show_it() {
    let topic = Topic::create(services::kafka(), "listed", 1);
    let service = Service::start(&Config::new(&topic).set("DASHSTREAM_WEB_ADMIN_TOKEN", "a-long-secret-of-operators"));
    let client = Client::from(service.address(), From::Latest);
    let (status, body) = service.get("/admin/clients").expect("an answer");
    assert_eq!(status, 401, "{body}");
    assert!(!body.contains("127.0.0.1"), "{body}");
    let with_token = [("authorization", "Bearer a-long-secret-of-operators")];
    let (status, body) = service.get_with("/admin/clients", &with_token).expect("an answer");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("system-test/1"), "{body}");
    assert_eq!(client.closed(), None);
}
