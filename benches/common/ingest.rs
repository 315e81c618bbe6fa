//! Kafka to settled, of one process of the service.

use std::time::{Duration, Instant};

use super::Result;
use super::kafka::Kafka;
use super::service::Service;

/// What taking in a whole topic took.
pub struct Ingest {
    /// Records per second, from the first sight of records to the last record.
    pub rate: f64,
    /// CPU microseconds per record.
    pub cpu_us: f64,
    /// Seconds from the last record to its commit.
    pub committed_after: f64,
    /// Resident memory at the end.
    pub rss_mib: f64,
}

/// Starts the service, with variables that are not at their defaults, and lets it take in the `count` records of a topic.
pub fn ingest(kafka: &Kafka, topic: &str, count: u64, variables: &[(&str, &str)]) -> Result<Ingest> {
    let service = Service::start_with(kafka, topic, "earliest", variables)?;
    let deadline = Instant::now() + Duration::from_secs(180);
    // Rate and CPU between the first sight of records and the last record: the start of the process is not measured.
    let mut first = None;
    let (end, records, cpu) = loop {
        let (at, records, cpu) = (Instant::now(), service.metric("websocket_kafka_messages_total")?, service.cpu()?);
        if records > 0.0 {
            first.get_or_insert((at, records, cpu));
        }
        if records >= count as f64 {
            break (at, records, cpu);
        }
        if at > deadline {
            return Err(format!("{records} of {count} records after 180 s").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (started, records_before, cpu_before) = first.ok_or("nothing ingested")?;
    let measured = (records - records_before).max(1.0);
    while kafka.committed(topic, &service.group)? < i64::try_from(count)? {
        if Instant::now() > deadline {
            return Err("not everything was committed within 180 s".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Ingest {
        rate: measured / (end - started).as_secs_f64(),
        cpu_us: (cpu - cpu_before) / measured * 1e6,
        committed_after: end.elapsed().as_secs_f64(),
        rss_mib: service.rss()? / 1024.0,
    })
}
