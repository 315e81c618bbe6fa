//! Kafka to settled: how fast the service takes in what lies in a topic, beside librdkafka's bare poll loop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a measurement fails by panicking, prints what it found, and is no library"
)]

mod common;

use std::time::{Duration, Instant};

use common::figures::{grouped, verdict};
use common::kafka::{Kafka, Load, raw_poll};
use common::service::Service;
use common::{Result, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    let kafka = Kafka::start()?;
    let count: u64 = setting("BENCH_RECORDS", 1_000_000);
    println!("ingest: {} preloaded records over 8 partitions, Kafka to settled", grouped(count as f64));
    for (name, size, compressed) in [("1 KiB raw", 1024, false), ("1 KiB zstd", 1024, true), ("200 B", 200, false)] {
        let topic = kafka.topic(&name.replace(' ', "-").to_lowercase())?;
        let load = Load { size, compressed, pace: Pace::Unlimited, count: Some(count) };
        let loaded = kafka.load(&topic, &load, &CancellationToken::new())?;
        println!("  {name}: loaded at {}/s", grouped(loaded.records as f64 / loaded.seconds));
        // Before and after: the first reading may still meet a busy disk.
        let before = raw_poll(&kafka, &topic, count, false)?;
        let ours = ingest(&kafka, &topic, count)?;
        let after = raw_poll(&kafka, &topic, count, false)?;
        let raw = if before.0 > after.0 { before } else { after };
        println!("    raw poll loop  {:>12}/s  {:.2} us CPU a record", grouped(raw.0), raw.1);
        let unpacked = if compressed { Some(raw_poll(&kafka, &topic, count, true)?) } else { None };
        if let Some((rate, cpu)) = unpacked {
            println!("    with unpacking {:>12}/s  {cpu:.2} us CPU a record", grouped(rate));
        }
        println!(
            "    dashstream     {:>12}/s  {:.2} us CPU a record, committed {:.2} s after the last record, {} MiB RSS",
            grouped(ours.rate),
            ours.cpu_us,
            ours.committed_after,
            grouped(ours.rss_mib)
        );
        verdict("of the raw rate", ours.rate / raw.0, 0.5, false);
        if let Some((rate, _)) = unpacked {
            verdict("of the raw rate with unpacking", ours.rate / rate, 0.5, false);
        }
        verdict("us CPU a record", ours.cpu_us, 1.4, true);
    }
    Ok(())
}

struct Ingest {
    rate: f64,
    cpu_us: f64,
    committed_after: f64,
    rss_mib: f64,
}

fn ingest(kafka: &Kafka, topic: &str, count: u64) -> Result<Ingest> {
    let service = Service::start(kafka, topic, "earliest")?;
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
