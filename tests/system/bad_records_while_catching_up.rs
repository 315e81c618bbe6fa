//! A flood of old records that is caught up with hides no new bad ones, and old bad ones count as well.

use std::time::Duration;

use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const BACKLOG: usize = 10_000;

/// Records of a partition, of which each `bad`th is bad.
fn mixed(partition: i32, count: usize, bad: usize) -> impl Iterator<Item = Outgoing> {
    (0..count).map(move |index| {
        let record = if index % bad == 0 { records::garbage("bad") } else { records::good_of_size("run-good", 0, 100) };
        record.on_partition(partition)
    })
}

/// Records of the last two minutes, and the bad ones among them.
fn recent(service: &Service) -> Result<(u64, u64), String> {
    let health = service.try_health()?;
    let figure = |name: &str| health["metrics"][name].as_u64().ok_or_else(|| health.to_string());
    Ok((figure("messages_last_120s")?, figure("decode_errors_last_120s")?))
}

#[test]
fn five_percent_of_the_new_records_of_one_partition_degrade_it_while_another_catches_up() {
    let topic = Topic::create(services::kafka(), "drown", 2);
    topic.beside("dlq", 1);
    let producer = Producer::new(&topic.kafka);
    // Of the old ones half a percent is bad, which is tolerated.
    producer.publish(&topic.name, mixed(0, BACKLOG, 200));
    let service = Service::start_healthy(&Config::new(&topic));
    eventually("both partitions to be opened", BOUND, || {
        let partitions = &service.try_health()?["partitions"];
        let opened = ["0", "1"].iter().all(|partition| partitions[partition]["fetched"].is_string());
        if opened { Ok(()) } else { Err(partitions.to_string()) }
    });

    producer.publish(&topic.name, mixed(1, 400, 20));
    service.wait_for_verdict("degraded", "decode_error_rate", Duration::from_secs(15));
    eventually("all to be read", BOUND, || match recent(&service)? {
        (messages, errors) if messages >= BACKLOG as u64 + 400 => Ok((messages, errors)),
        found => Err(format!("{found:?}")),
    });
    assert_eq!(recent(&service), Ok((BACKLOG as u64 + 400, 70)), "less than one percent of all");
    let health = service.health();
    let details: Vec<_> = health["reasons"].as_array().into_iter().flatten().map(|reason| &reason["detail"]).collect();
    assert_eq!(details, ["20 of 400 new records could not be decoded"], "{health}");
    assert_eq!(service.metric("dashstream_new_records_total", &[r#"status="error""#]), 20.0);
}

#[test]
fn five_percent_of_the_records_that_are_caught_up_with_degrade_it() {
    let topic = Topic::create(services::kafka(), "old-bad", 1);
    topic.beside("dlq", 1);
    Producer::new(&topic.kafka).publish(&topic.name, mixed(0, 1_000, 20));
    let service = Service::start(&Config::new(&topic));
    service.wait_for_verdict("degraded", "decode_error_rate", BOUND);
    assert_eq!(service.metric("dashstream_new_records_total", &[]), 0.0);
}
