//! Kafka to settled with a Redis that is well, slow, full, evicts, is flushed, hangs or is dead, beside the same without
//! Redis.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::figures::{grouped, verdict};
use common::ingest::{Ingest, ingest};
use common::kafka::{Kafka, Load};
use common::redis::{Hung, Server, Slow, free_port};
use common::{Result, setting};
use dashstream::kafka::load_producer::Pace;
use deadpool_redis::redis::{RedisError, cmd, pipe};
use tokio_util::sync::CancellationToken;

/// How much later the answers of a slow Redis come.
const DELAY: Duration = Duration::from_millis(50);
/// A small part of what a run writes.
const SMALL: &str = "32mb";
/// How often a Redis is flushed.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

fn main() -> Result<()> {
    let kafka = Kafka::start()?;
    let count: u64 = setting("BENCH_RECORDS", 500_000);
    println!("redis_faults: {} preloaded records of 1 KiB, Kafka to settled, best_effort", grouped(count as f64));
    // Before and after: the first reading may still meet a busy disk.
    let before = measured(&kafka, count, "without Redis", None)?;
    let faults: [(&str, f64, Fault); 7] = [
        // One that takes what it is sent, or some of it, takes its share of the machine.
        ("well", 0.6, well),
        ("slow", 0.6, slow),
        ("full", 0.6, full),
        ("evicting", 0.6, evicting),
        ("flushed", 0.6, flushed),
        ("hung", 0.85, hung),
        ("dead", 0.85, dead),
    ];
    let mut rates = Vec::new();
    for (name, limit, fault) in faults {
        rates.push((name, limit, fault(&|url| measured(&kafka, count, name, Some(url)))?.rate));
    }
    let after = measured(&kafka, count, "without Redis", None)?;
    let without = before.rate.max(after.rate);
    for (name, limit, rate) in rates {
        verdict(&format!("of the rate without Redis: {name}"), rate / without, limit, false);
    }
    Ok(())
}

/// Measures with the Redis of an address.
type Measure<'a> = &'a dyn Fn(&str) -> Result<Ingest>;

/// Measures with a fault of its own; fails when that did not happen.
type Fault = fn(Measure<'_>) -> Result<Ingest>;

fn well(measure: Measure<'_>) -> Result<Ingest> {
    let server = Server::start()?;
    let measured = measure(&server.url)?;
    happened("streams were written", cmd("DBSIZE").query(&mut server.client()?)?)?;
    Ok(measured)
}

fn slow(measure: Measure<'_>) -> Result<Ingest> {
    let server = Server::start()?;
    let slow = Slow::start(&server, DELAY)?;
    let measured = measure(slow.url())?;
    let (connections, answers) = slow.stop();
    happened("connections were delayed", connections as u64)?;
    happened(&format!("pieces of answers came {} ms later", DELAY.as_millis()), answers)?;
    Ok(measured)
}

fn full(measure: Measure<'_>) -> Result<Ingest> {
    let server = Server::start_with(&["--maxmemory", SMALL, "--maxmemory-policy", "noeviction"])?;
    let measured = measure(&server.url)?;
    happened("commands were refused, out of memory", server.info("errorstats", "errorstat_OOM:count=")?)?;
    Ok(measured)
}

fn evicting(measure: Measure<'_>) -> Result<Ingest> {
    let server = Server::start_with(&["--maxmemory", SMALL, "--maxmemory-policy", "allkeys-lru"])?;
    let measured = measure(&server.url)?;
    happened("keys were evicted", server.info("stats", "evicted_keys:")?)?;
    Ok(measured)
}

fn flushed(measure: Measure<'_>) -> Result<Ingest> {
    let server = Server::start()?;
    let mut client = server.client()?;
    let over = AtomicBool::new(false);
    let (measured, flushes) = std::thread::scope(|scope| {
        let flushing = scope.spawn(|| {
            let mut flushes = 0;
            while !over.load(Ordering::Relaxed) {
                let (keys, _): (u64, String) = pipe().cmd("DBSIZE").cmd("FLUSHALL").query(&mut client)?;
                // One that takes nothing away is no fault.
                flushes += u64::from(keys > 0);
                std::thread::sleep(FLUSH_EVERY);
            }
            Ok::<u64, RedisError>(flushes)
        });
        let measured = measure(&server.url);
        over.store(true, Ordering::Relaxed);
        (measured, flushing.join().expect("no panic"))
    });
    happened("flushes took something away", flushes?)?;
    measured
}

fn hung(measure: Measure<'_>) -> Result<Ingest> {
    let hung = Hung::start()?;
    let measured = measure(hung.url())?;
    happened("connections were accepted and never answered", hung.stop() as u64)?;
    Ok(measured)
}

fn dead(measure: Measure<'_>) -> Result<Ingest> {
    measure(&format!("redis://127.0.0.1:{}", free_port()?))
}

/// A fault that did not happen was not measured.
fn happened(what: &str, times: u64) -> Result<()> {
    println!("        {} {what}", grouped(times as f64));
    if times == 0 { Err(format!("none of these: {what}").into()) } else { Ok(()) }
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
