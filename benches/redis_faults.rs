//! Kafka to settled with a Redis that is well, hangs or is dead, beside the same without Redis.
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

use std::io::Write as _;

use common::figures::{grouped, verdict};
use common::ingest::{Ingest, ingest};
use common::kafka::{Kafka, Load};
use common::redis::{Hung, Server, free_port};
use common::{Result, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    let kafka = Kafka::start()?;
    let count: u64 = setting("BENCH_RECORDS", 500_000);
    println!("redis_faults: {} preloaded records of 1 KiB, Kafka to settled, best_effort", grouped(count as f64));
    let (server, hung) = (Server::start()?, Hung::start()?);
    let dead = format!("redis://127.0.0.1:{}", free_port()?);
    // Before and after: the first reading may still meet a busy disk.
    let before = measured(&kafka, count, "without Redis", None)?;
    let well = measured(&kafka, count, "Redis is well", Some(&server.url))?;
    let hangs = measured(&kafka, count, "it hangs", Some(&hung.url))?;
    let is_dead = measured(&kafka, count, "it is dead", Some(&dead))?;
    let after = measured(&kafka, count, "without Redis", None)?;
    let written: u64 = deadpool_redis::redis::cmd("DBSIZE").query(&mut server.client()?)?;
    let accepted = hung.stop();
    if written == 0 || accepted == 0 {
        return Err(format!("Redis was not used: {written} keys, {accepted} connections to the hung one").into());
    }
    let without = before.rate.max(after.rate);
    // One that is well takes its share of the machine: what it writes, and what is written to it.
    verdict("of the rate without Redis: well", well.rate / without, 0.6, false);
    verdict("of the rate without Redis: hung", hangs.rate / without, 0.85, false);
    verdict("of the rate without Redis: dead", is_dead.rate / without, 0.85, false);
    Ok(())
}

/// A topic of its own each: group and history begin anew.
fn measured(kafka: &Kafka, count: u64, what: &str, redis: Option<&str>) -> Result<Ingest> {
    let topic = kafka.topic("redis-faults")?;
    let load = Load { size: 1024, compressed: false, pace: Pace::Unlimited, count: Some(count) };
    kafka.load(&topic, &load, &CancellationToken::new())?;
    let variables: Vec<(&str, &str)> = redis.map(|url| ("REDIS_URL", url)).into_iter().collect();
    let ours = ingest(kafka, &topic, count, &variables)?;
    println!(
        "    {what:<14} {:>12}/s  {:.2} us CPU a record, committed {:.2} s after the last record, {} MiB RSS",
        grouped(ours.rate),
        ours.cpu_us,
        ours.committed_after,
        grouped(ours.rss_mib)
    );
    std::io::stdout().flush()?;
    Ok(ours)
}
