//! A Kafka that cannot be reached is told, waited for and caught up with: no restart, no lost record, no lost client.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, From};
use crate::harness::eventually::{eventually, throughout, within};
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
const TOLD_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_cut_of_thirty_seconds_loses_nothing() {
    survives(&[(Fault::Cut, Duration::from_secs(30))]);
}

#[test]
fn a_cut_followed_at_once_by_a_black_hole_loses_nothing() {
    survives(&[(Fault::Cut, Duration::from_secs(15)), (Fault::BlackHole, Duration::from_secs(8))]);
}

#[test]
fn a_black_hole_is_told_and_loses_nothing() {
    survives(&[(Fault::BlackHole, Duration::from_secs(25))]);
}

/// Lets the faults happen one after the other while records are published past them.
fn survives(faults: &[(Fault, Duration)]) {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "cut", 4);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic).set("KAFKA_BROKERS", kafka.proxy.address());
    let mut service = Service::start_healthy(&config);
    let clients: Vec<Client> = (0..3).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let load = Load::start(&topic, 1_000);
    eventually("records to flow", BOUND, || match clients[0].received() {
        received @ 0..2_000 => Err(received.to_string()),
        _ => Ok(()),
    });

    let (start, cpu) = (Instant::now(), service.cpu());
    let mut told = None;
    for (fault, duration) in faults {
        kafka.proxy.set(*fault);
        throughout(&format!("{fault:?}"), *duration, || {
            // The truth is told, and browsers stay connected.
            let health = service.try_health()?;
            if health["status"] != "healthy" {
                told.get_or_insert_with(|| start.elapsed());
            }
            match clients.iter().find_map(Client::closed) {
                Some(closed) => Err(format!("a client was disconnected: {closed:?}")),
                None => Ok(()),
            }
        });
    }
    let (took, used) = (start.elapsed(), service.cpu().saturating_sub(cpu));
    assert!(used < took / 3, "asking again and again took {used:?} of {took:?}");
    let told = told.expect("/health left `healthy`");
    assert!(told <= TOLD_WITHIN, "/health told it after {told:?}");
    let during = clients[0].received();
    kafka.proxy.heal();

    within("records to flow again", Duration::from_secs(15), || match clients[0].received() > during {
        true => Ok(()),
        false => Err(format!("{during} records, as before; {}", service.health())),
    });
    let published = load.stop();
    for client in &clients {
        client.wait_for_all(&published, BOUND);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
    // Letters that were on their way when Kafka went may be lost: best effort is what was configured, and it is told.
    eventually("no fault but lost letters", BOUND, || match service.faults()? {
        codes if codes.iter().all(|code| code == "dead_letters_lost") => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let lost = service.metric("websocket_dlq_send_failures_total", &[]) as usize;
    assert!(dead_letters.keys().len() + lost >= published.bad(), "{lost} letters are counted as lost");
    assert!(service.is_running(), "it is the process that was started");
    for actor in service.health()["actors"].as_array().expect("a list of actors") {
        assert_eq!(actor["restarts"], 0, "{actor}");
    }
}
