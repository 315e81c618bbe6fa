//! Every actor may panic, hang or stop under load: clients stay connected and see neither a hole nor a duplicate.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);
/// A restart is told in `/health` for half a minute.
const HEALTHY_AGAIN: Duration = Duration::from_secs(60);
const DRAINED_WITHIN: Duration = Duration::from_secs(15);
/// Exit code of a process whose supervisor gave up.
const GAVE_UP: Option<i32> = Some(70);

const ACTORS: [&str; 6] =
    ["ReplayStore", "SequenceTracker", "DecodePolicy", "KafkaIngest", "DlqPublisher", "LagMonitor"];

/// Those that are restarted with an actor, itself included: those upstream of it, and all who share a thread that hangs.
fn unit(actor: &str, fault: &str) -> &'static [&'static str] {
    match (actor, fault) {
        ("ReplayStore", _) | ("SequenceTracker" | "DecodePolicy", "hang") => &ACTORS[0..4],
        ("SequenceTracker", _) => &ACTORS[1..4],
        ("DecodePolicy", _) => &ACTORS[2..4],
        ("KafkaIngest", _) => &ACTORS[3..4],
        (_, "hang") => &ACTORS[4..6],
        ("DlqPublisher", _) => &ACTORS[4..5],
        _ => &ACTORS[5..6],
    }
}

#[test]
fn a_panic_in_any_actor_under_load_is_seen_by_no_client() {
    every_actor_suffers("panic");
}

#[test]
fn a_hang_of_any_actor_under_load_is_seen_by_no_client() {
    every_actor_suffers("hang");
}

#[test]
fn a_stop_of_any_actor_under_load_is_seen_by_no_client() {
    every_actor_suffers("stop");
}

fn every_actor_suffers(fault: &str) {
    let topic = Topic::create(services::kafka(), fault, 4);
    let dead_letters = topic.beside("dlq", 1);
    let service = Service::start_healthy(&Config::new(&topic).sabotaged());
    let clients: Vec<Client> = (0..3).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let v1 = V1Client::connect(
        service.address(),
        Some(&serde_json::json!({
            "type": "resume", "mode": "partition", "from": "earliest"
        })),
    );
    let load = Load::start(&topic, 1_000);
    more_records(&clients[0]);

    for actor in ACTORS {
        let before = generations(&service);
        let restarts = |reason: &str| {
            let labels = [format!("actor=\"{actor}\""), format!("reason=\"{reason}\"")];
            service.metric("dashstream_actor_restarts_total", &[&labels[0], &labels[1]])
        };
        let restarted = restarts(fault);
        service.sabotage(actor, fault);
        eventually(&format!("{actor} and those that depend on it to be new"), BOUND, || {
            let now = generations(&service);
            match unit(actor, fault).iter().all(|of| now[*of] > before[*of]) {
                true => Ok(()),
                false => Err(format!("{before:?} before, {now:?} now")),
            }
        });
        assert_eq!(restarts(fault), restarted + 1.0, "{actor} was restarted once, for this reason");
        // The others are left alone.
        let now = generations(&service);
        for other in ACTORS.iter().filter(|other| !unit(actor, fault).contains(other)) {
            assert_eq!(now[*other], before[*other], "{other} has nothing to do with {actor}");
        }
        service.wait_for_verdict("degraded", "actor_restarted", Duration::from_secs(5));
        let told = service.health()["reasons"].to_string();
        assert!(told.contains(actor), "{told} names {actor}");
        more_records(&clients[0]);
        for client in &clients {
            assert_eq!(client.closed(), None, "clients stay connected while {actor} suffers a {fault}");
        }
    }

    let published = load.stop();
    for client in &clients {
        client.wait_for_all(&published, BOUND);
    }
    v1.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(service.config().group(), BOUND);
    eventually("health without the restarts", HEALTHY_AGAIN, || match service.faults()? {
        // A publisher that dies may lose the letters that it holds; that is told on its own.
        codes if codes.iter().all(|code| code == "dead_letters_lost") => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let lost = service.metric("websocket_dlq_send_failures_total", &[]) as usize;
    assert!(dead_letters.keys().len() + lost >= published.bad(), "every bad record has a letter or is counted");
    let judged = service.metric("websocket_kafka_messages_total", &[]);
    assert_eq!(judged, published.len() as f64, "each record is counted once, however often it was read");
    // Threads are complete and in order: whatever is read again is no finding.
    for finding in ["gaps", "duplicates", "reorders", "producer_restarts"] {
        assert_eq!(service.metric(&format!("dashstream_sequence_{finding}_total"), &[]), 0.0, "{finding}");
    }
    for client in &clients {
        client.look(|ledger| assert_eq!(ledger.findings, []));
    }
}

fn more_records(client: &Client) {
    let before = client.received();
    eventually("more records", BOUND, || match client.received() {
        received if received >= before + 500 => Ok(()),
        received => Err(format!("{received}, {before} before")),
    });
}

fn generations(service: &Service) -> BTreeMap<String, u64> {
    let health = service.health();
    let actors = health["actors"].as_array().expect("a list of actors");
    let generation = |actor: &serde_json::Value| {
        let up = actor["up"] == true;
        let name = actor["name"].as_str().unwrap_or_default().to_owned();
        // One that is down is not new yet.
        (name, if up { actor["generation"].as_u64().unwrap_or_default() } else { 0 })
    };
    actors.iter().map(generation).collect()
}

#[test]
fn a_crash_loop_ends_the_process_in_order_and_the_next_one_loses_nothing() {
    let topic = Topic::create(services::kafka(), "crash-loop", 2);
    let config = Config::new(&topic).sabotaged().set("DASHSTREAM_SUPERVISOR_MAX_RESTARTS", 2);
    let mut service = Service::start_healthy(&config);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let load = Load::start(&topic, 500);
    more_records(&clients[0]);

    for _ in 0..3 {
        let before = generations(&service)["DecodePolicy"];
        service.sabotage("DecodePolicy", "panic");
        eventually("the panic to be noticed", BOUND, || match service.is_running() {
            true if generations_or_end(&service)? == Some(before) => Err("still there".to_owned()),
            _ => Ok(()),
        });
    }
    let status = service.wait_for_exit(DRAINED_WITHIN);
    assert_eq!(status.code(), GAVE_UP, "{status}");
    assert!(service.log().contains("group pipeline failed more than 2 times"), "the log says why");
    for client in &clients {
        assert_eq!(client.wait_until_closed(BOUND).code, Some(1001), "clients are told to come back");
    }

    let committed = topic.committed(config.group());
    service.restart();
    for client in &mut clients {
        client.reconnect(service.address());
    }
    let published = load.stop();
    // Below what was committed the next process may have nothing in memory.
    let was_settled = |partition: i32, offset: i64| committed.get(&partition).is_some_and(|next| offset < *next);
    for client in &clients {
        client.wait_for_all_but(&published, BOUND, was_settled);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
}

/// The generation of `DecodePolicy`; `None` when nobody answers any more.
fn generations_or_end(service: &Service) -> Result<Option<u64>, String> {
    let Ok(health) = service.try_health() else { return Ok(None) };
    let actors = health["actors"].as_array().ok_or("no actors")?;
    let found = actors.iter().find(|actor| actor["name"] == "DecodePolicy").ok_or("no DecodePolicy")?;
    Ok((found["up"] == true).then(|| found["generation"].as_u64().unwrap_or_default()))
}
