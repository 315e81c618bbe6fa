//! Lag is measured by a client of its own: nothing that happens to it is felt by the stream, and what it says is true.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::client::{Client, From};
use crate::harness::eventually::{eventually, throughout};
use crate::harness::load::Load;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
/// Many, so that each look is work.
const PARTITIONS: i32 = 64;
const MIB: u64 = 1024 * 1024;

#[test]
fn a_lag_client_that_is_slow_or_hangs_does_not_slow_the_stream() {
    let seconds = Duration::from_secs;
    disturb_the_lag_client(
        2_000,
        &[(Fault::Delay(seconds(5)), seconds(6)), (Fault::BlackHole, seconds(6)), (Fault::Cut, seconds(6))],
    );
}

#[test]
#[ignore = "takes over five minutes"]
fn a_lag_client_that_hangs_for_minutes_under_load_piles_nothing_up() {
    disturb_the_lag_client(10_000, &[(Fault::BlackHole, Duration::from_secs(300))]);
}

/// Each fault for its time, under a load of records per second.
fn disturb_the_lag_client(per_second: u64, faults: &[(Fault, Duration)]) {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "lag-client", PARTITIONS);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic)
        .set("KAFKA_BROKERS", kafka.proxy.address())
        .set("KAFKA_DLQ_TOPIC", &dead_letters.name)
        .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
        // Full at once, so that its growth is not taken for a backlog.
        .set("DASHSTREAM_REPLAY_MEMORY_BYTES", MIB);
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let load = Load::start(&topic, per_second);
    eventually("lag to be known", BOUND, || match lags(&service).len() {
        64 => Ok(()),
        known => Err(known.to_string()),
    });
    forwarded(&client, &load, Duration::from_secs(4));
    let before = service.memory();
    for (fault, during) in faults {
        kafka.proxy.set_for("-lag-monitor", *fault);
        let share = forwarded(&client, &load, *during);
        assert!(share > 0.9, "{share} of the records came through with {fault:?}");
        let faults = service.faults().expect("/health answers");
        assert!(faults.is_empty(), "{fault:?}: {faults:?}");
    }
    eventually("failed looks to be counted", BOUND, || {
        match service.metric("websocket_kafka_lag_poll_failures_total", &[]) {
            failures if failures > 0.0 => Ok(()),
            failures => Err(failures.to_string()),
        }
    });
    let grown = service.memory().saturating_sub(before);
    println!("memory grew by {} KiB", grown / 1024);
    assert!(grown < 16 * MIB, "memory grew by {} MiB: no position waits for the lag client", grown / MIB);
    kafka.proxy.set_for("-lag-monitor", Fault::Healed);
    let published = load.stop();
    client.wait_for_all(&published, BOUND);
    eventually("lag to be known again, and zero", BOUND, || match lags(&service) {
        lags if lags.len() == 64 && lags.values().all(|lag| *lag == 0.0) => Ok(()),
        lags => Err(format!("{lags:?}")),
    });
}

/// The share of what is published during a while that reaches the client in it.
fn forwarded(client: &Client, load: &Load, during: Duration) -> f64 {
    let (received, published) = (client.received(), load.published());
    throughout("records flow", during, || match client.closed() {
        None => Ok(()),
        Some(closed) => Err(format!("{closed:?}")),
    });
    (client.received() - received) as f64 / (load.published() - published) as f64
}

fn lags(service: &Service) -> BTreeMap<String, f64> {
    let metrics = service.metrics();
    let lags = metrics.iter().filter(|(name, _)| name.starts_with("websocket_kafka_consumer_lag{"));
    lags.map(|(name, lag)| (name.split('"').nth(1).unwrap_or_default().to_owned(), *lag)).collect()
}

#[test]
fn the_lag_of_a_partition_rises_while_nothing_is_forwarded_and_falls_again() {
    let topic = Topic::create(services::kafka(), "lag", 4);
    let config = Config::new(&topic)
        .sabotaged()
        .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
        .set("DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS", 8);
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let good = |partition: i32, range: std::ops::Range<u64>| {
        let thread = format!("run-{partition}");
        range.map(move |number| records::good(&thread, number + 1).on_partition(partition)).collect::<Vec<_>>()
    };
    let producer = Producer::new(services::kafka());
    let mut published = producer.publish(&topic.name, (0..4).flat_map(|partition| good(partition, 0..50)));
    client.wait_for_all(&published, BOUND);
    let expect = |what: &str, expected: [f64; 4]| {
        eventually(what, BOUND, || match lags(&service) {
            lags if lags.values().copied().collect::<Vec<_>>() == expected => Ok(()),
            lags => Err(format!("{lags:?}")),
        });
    };
    expect("no lag anywhere", [0.0; 4]);

    service.sabotage("DecodePolicy", "hang");
    published.extend(producer.publish(&topic.name, good(2, 50..550)));
    expect("500 records to wait in partition 2", [0.0, 0.0, 500.0, 0.0]);
    eventually("an age of what waits", BOUND, || {
        let age = |partition: u8| {
            let label = format!("partition=\"{partition}\"");
            service.metric("websocket_kafka_lag_offset_age_seconds", &[&label])
        };
        match (age(2) > 0.0, [0, 1, 3].map(age)) {
            (true, [0.0, 0.0, 0.0]) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    expect("no lag once it goes on", [0.0; 4]);
    client.wait_for_all(&published, BOUND);
}

#[test]
fn partitions_that_another_instance_took_over_are_not_shown() {
    let topic = Topic::create(services::kafka(), "lag-revoked", 4);
    let config = Config::new(&topic).unset("KAFKA_GROUP_INSTANCE_ID").set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1);
    let first = Service::start_healthy(&config);
    let shown = |service: &Service| lags(service).into_keys().collect::<Vec<_>>();
    eventually("all partitions at the first one", BOUND, || match shown(&first) {
        all if all.len() == 4 => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    let second = Service::start_healthy(&config);
    eventually("each to show its own", BOUND, || match (shown(&first), shown(&second)) {
        (of_first, of_second)
            if of_first.len() == 2 && of_second.len() == 2 && of_first.iter().all(|own| !of_second.contains(own)) =>
        {
            Ok(())
        }
        seen => Err(format!("{seen:?}")),
    });
}
