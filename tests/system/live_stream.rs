//! What is in the topic arrives at every client: all of it, once, in order, byte for byte.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::load::Mix;
use crate::harness::producer::Producer;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(120);

#[test]
fn a_hundred_thousand_records_over_eight_partitions_reach_twenty_clients() {
    let topic = Topic::create(services::kafka(), "live", 8);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic).set("KAFKA_DLQ_TOPIC", &dead_letters.name);
    let service = Service::start_healthy(&config);
    let at = |index| if index % 2 == 0 { From::Latest } else { From::Earliest };
    let clients: Vec<Client> = (0..20).map(|index| Client::from(service.address(), at(index))).collect();

    let published = Producer::new(services::kafka()).publish(&topic.name, Mix::new((0..8).collect()).take(100_000));

    for client in &clients {
        client.wait_for_all(&published, BOUND);
    }
    topic.wait_until_all_committed(config.group(), BOUND);

    // Each record ended in exactly one outcome, each bad one in a dead letter.
    let (good, bad) = (published.good() as f64, published.bad() as f64);
    assert_eq!(service.metric("websocket_kafka_messages_total", &[r#"status="success""#]), good);
    assert_eq!(service.metric("websocket_kafka_messages_total", &[r#"status="error""#]), bad);
    // A burst of bad records may meet the bound of letters on their way: then the loss is counted.
    eventually("the fate of each dead letter", BOUND, || {
        let letters = dead_letters.watermarks(0).1 as f64;
        let lost = service.metric("websocket_dlq_send_failures_total", &[r#"reason="backpressure""#]);
        match letters + lost == bad && letters > 0.0 {
            true => Ok(()),
            false => Err(format!("{letters} landed, {lost} lost, of {bad}")),
        }
    });
}

#[test]
fn clients_of_the_first_protocol_get_every_record_too() {
    let topic = Topic::create(services::kafka(), "live-v1", 3);
    let service = Service::start_healthy(&Config::new(&topic));
    let from_the_start = json!({ "type": "resume", "mode": "partition", "from": "earliest" });
    let resumed = V1Client::connect(service.address(), Some(&from_the_start));
    // Its connection has to be open before the records come: it gets what arrives from then on.
    let silent = V1Client::connect(service.address(), None);
    eventually("both sessions", BOUND, || match service.metric("websocket_connected_clients", &[]) {
        clients if clients >= 2.0 => Ok(()),
        clients => Err(clients.to_string()),
    });

    let published = Producer::new(services::kafka()).publish(&topic.name, Mix::new(vec![0, 1, 2]).take(5_000));

    resumed.wait_for_all(&published, BOUND);
    silent.wait_for_all(&published, BOUND);
}
