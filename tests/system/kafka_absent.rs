//! Kafka is not there yet, or cannot be used: the service answers, says what is wrong by type, and goes on by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::client::{Client, From};
use crate::harness::eventually::{eventually, within};
use crate::harness::load::Mix;
use crate::harness::producer::Producer;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const EXIT_WITHIN: Duration = Duration::from_secs(10);
const TOLD_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_kafka_that_comes_later_is_waited_for() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "later", 3);
    let dead_letters = topic.beside("dlq", 1);
    let published = Producer::new(&kafka.direct).publish(&topic.name, Mix::new(vec![0, 1, 2]).take(900));
    for fault in [Fault::Cut, Fault::BlackHole] {
        kafka.proxy.set(fault);
        let config =
            Config::new(&topic).set("KAFKA_BROKERS", kafka.proxy.address()).set("KAFKA_DLQ_TOPIC", &dead_letters.name);
        let start = Instant::now();
        let mut service = Service::spawn(&config);
        service.wait_until_listening();
        let health = service.health();
        assert!(start.elapsed() < ANSWERS_WITHIN, "/health answers at once, not after {:?}", start.elapsed());
        assert_eq!(health["status"], "starting", "{health}");
        service.wait_for_verdict("reconnecting", "kafka_unreachable", TOLD_WITHIN);
        let (status, _) = service.get("/ready").expect("/ready answers");
        assert_eq!(status, 503);
        kafka.proxy.heal();
        within("it goes on by itself", TOLD_WITHIN, || match service.verdict()? {
            (status, _) if status == "healthy" => Ok(()),
            found => Err(format!("{found:?}")),
        });
        let client = Client::from(service.address(), From::Earliest);
        client.wait_for_all(&published, BOUND);
        topic.wait_until_all_committed(config.group(), BOUND);
        // And a Kafka that hangs does not hold the end up.
        kafka.proxy.black_hole();
        service.signal(Signal::SIGTERM);
        let status = service.wait_for_exit(EXIT_WITHIN);
        assert!(status.success(), "{status}");
        assert_eq!(client.wait_until_closed(BOUND).code, Some(1001));
    }
}

#[test]
fn a_slow_broker_with_many_partitions_is_asked_about_all_of_them_at_once() {
    const PARTITIONS: i32 = 64;
    const DELAY: Duration = Duration::from_millis(700);
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "slow-start", PARTITIONS);
    kafka.proxy.delay(DELAY);
    let service = Service::start(&Config::new(&topic).set("KAFKA_BROKERS", kafka.proxy.address()));
    // There and back for each partition in turn would take longer.
    let in_turn = DELAY * 2 * PARTITIONS.unsigned_abs();
    assert!(in_turn > BOUND);
    within("it to read", BOUND, || match service.verdict()? {
        (status, _) if status == "healthy" => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

#[test]
fn faults_of_the_infrastructure_are_told_apart_and_are_no_faults_of_records() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = nobody.expect("a port that was free a moment ago").to_string();
    let topic = Topic::planned(services::kafka(), "by-type");
    let refused = Config::new(&topic).set("KAFKA_BROKERS", &nobody);
    let unresolved = Config::new(&topic).set("KAFKA_BROKERS", "no-such-host.invalid:9092");
    // A listener without SASL refuses to talk about credentials.
    let unwanted = Config::new(&topic)
        .set("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext")
        .set("KAFKA_SASL_MECHANISM", "PLAIN")
        .set("KAFKA_SASL_USERNAME", "somebody")
        .set("KAFKA_SASL_PASSWORD", "something");
    let cases = [(refused, "broker_down"), (unresolved, "dns_failure"), (unwanted, "authentication")];
    let services: Vec<(Service, &str)> =
        cases.into_iter().map(|(config, kind)| (Service::start(&config), kind)).collect();
    for (service, expected) in &services {
        eventually(&format!("{expected} to be counted"), TOLD_WITHIN, || {
            match by_type(service).get(*expected).is_some_and(|count| *count > 0.0) {
                true => Ok(()),
                false => Err(format!("{:?}", by_type(service))),
            }
        });
        let counted = by_type(service);
        for (_, other) in services.iter().filter(|(_, other)| other != expected) {
            assert_eq!(counted.get(*other), Some(&0.0), "{expected} is not {other}: {counted:?}");
        }
        for untouched in [
            "websocket_kafka_messages_total",
            "websocket_decode_errors_total",
            "websocket_kafka_payload_missing_total",
            "websocket_dlq_send_failures_total",
        ] {
            assert_eq!(service.metric(untouched, &[]), 0.0, "{untouched}");
        }
        // One scrape, so that both are of one moment.
        eventually("the sum of the types to be the total", BOUND, || {
            let all = service.metrics();
            let sum: f64 = all
                .iter()
                .filter(|(name, _)| name.starts_with("websocket_kafka_errors_by_type_total"))
                .map(|(_, count)| count)
                .sum();
            let total = all["websocket_infrastructure_errors_total"];
            if sum == total { Ok(()) } else { Err(format!("{sum} and {total}")) }
        });
    }
    for (service, _) in &services {
        service.wait_for_verdict("reconnecting", "kafka_unreachable", TOLD_WITHIN);
    }
}

fn by_type(service: &Service) -> BTreeMap<String, f64> {
    let label = |name: &str| name.split('"').nth(1).unwrap_or_default().to_owned();
    let metrics = service.metrics();
    let types = metrics.iter().filter(|(name, _)| name.starts_with("websocket_kafka_errors_by_type_total"));
    types.map(|(name, count)| (label(name), *count)).collect()
}

#[test]
fn a_broker_that_vanishes_moves_only_the_counters_of_the_infrastructure() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "vanishes", 2);
    let service = Service::start_healthy(&Config::new(&topic).set("KAFKA_BROKERS", kafka.proxy.address()));
    assert_eq!(service.metric("websocket_infrastructure_errors_total", &[]), 0.0, "nothing has happened yet");
    kafka.proxy.cut();
    eventually("the fault to be counted", TOLD_WITHIN, || {
        match service.metric("websocket_infrastructure_errors_total", &[]) {
            count if count > 0.0 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    service.wait_for_verdict("reconnecting", "kafka_unreachable", TOLD_WITHIN);
    for untouched in ["websocket_kafka_messages_total", "websocket_decode_errors_total"] {
        assert_eq!(service.metric(untouched, &[]), 0.0, "{untouched}");
    }
    kafka.proxy.heal();
    within("it comes back by itself", TOLD_WITHIN, || match service.verdict()? {
        (status, _) if status == "healthy" => Ok(()),
        found => Err(format!("{found:?}")),
    });
    // Faults are told while they happen: none is kept for a time when all is well.
    let mut last = (Instant::now(), 0.0);
    eventually("the counter to stand still", BOUND, || {
        let counted = service.metric("websocket_infrastructure_errors_total", &[]);
        if counted != last.1 {
            last = (Instant::now(), counted);
        }
        match last.0.elapsed() {
            quiet if quiet >= Duration::from_secs(12) => Ok(()),
            quiet => Err(format!("{counted}, {quiet:?} ago")),
        }
    });
}
