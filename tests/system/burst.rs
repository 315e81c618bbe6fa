//! A burst is everybody's: all of it arrives, nobody is kicked.

use std::time::Duration;

use crate::harness::client::{Client, From};
use crate::harness::load::Load;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::swarm::Swarm;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(90);

/// All bytes that were ever closed by the service for a reason of its own.
fn closed(service: &Service) -> f64 {
    service.metric("dashstream_sessions_closed_total", &[])
}

#[test]
fn a_hundred_clients_at_eight_thousand_records_a_second_get_everything() {
    const RECORDS: u64 = 24_000;
    let topic = Topic::create(services::kafka(), "burst", 8);
    let dead_letters = topic.beside("dlq", 1);
    let service = Service::start_healthy(&Config::new(&topic).set("KAFKA_DLQ_TOPIC", &dead_letters.name));
    let swarm = Swarm::connect(service.address(), 100);
    // One among them checks every byte.
    let judge = Client::from(service.address(), From::Latest);
    let load = Load::start(&topic, 8_000);
    crate::harness::eventually::eventually("the burst", BOUND, || match load.published() {
        published if published >= RECORDS => Ok(()),
        published => Err(published.to_string()),
    });
    let published = load.stop();
    swarm.wait_for(&published.ends(), BOUND);
    judge.wait_for_all(&published, BOUND);
    swarm.all_are_open();
    assert_eq!(closed(&service), 0.0, "nobody is kicked");
    println!(
        "{} records to 101 clients, {} MiB, {} demotions",
        published.len(),
        swarm.bytes() >> 20,
        service.metric("dashstream_session_demotions_total", &[])
    );
}

#[test]
fn one_client_takes_ninety_thousand_records_as_fast_as_they_come() {
    let topic = Topic::create(services::kafka(), "torrent", 8);
    let service = Service::start_healthy(&Config::new(&topic));
    let client = Client::from(service.address(), From::Latest);
    let records = (0..90_000_u64).map(|count| {
        let partition = i32::try_from(count % 8).unwrap_or_default();
        records::good(&format!("run-{partition}"), count / 8 + 1).on_partition(partition)
    });
    let published = Producer::new(services::kafka()).publish(&topic.name, records);
    client.wait_for_all(&published, BOUND);
    assert_eq!((client.closed(), closed(&service)), (None, 0.0));
}
