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

use common::figures::{grouped, verdict};
use common::ingest::ingest;
use common::kafka::{Kafka, Load, raw_poll};
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
        let ours = ingest(&kafka, &topic, count, &[])?;
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
