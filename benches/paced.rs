//! Live delivery at steady rates: CPU of the service per delivery beside a bare writer of one frame per client and record, and
//! the time from append to receipt beside a bare consumer of the same topic in the same moment.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::bare_writer::{BareWriter, serve_if_asked};
use common::crowd::{Crowd, Dialect};
use common::figures::{Histogram, cpu_seconds, grouped, verdict};
use common::kafka::{Kafka, Load, latency_reference};
use common::service::Service;
use common::{Result, raise_file_limit, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

/// Clients, records per second, most CPU microseconds a delivery, most milliseconds over the bare consumer's p99.
const CASES: [(usize, f64, f64, f64); 3] = [(100, 300.0, 2.5, 10.0), (1_000, 30.0, 5.0, 10.0), (100, 500.0, 2.5, 5.0)];

const CAPTURE: usize = 256 * 1024;

fn main() -> Result<()> {
    raise_file_limit()?;
    if serve_if_asked()? {
        return Ok(());
    }
    let kafka = Kafka::start()?;
    println!("paced: 1 KiB records, default settings, time from the producer's stamp to receipt");
    for dialect in [Dialect::V2("latest"), Dialect::V1] {
        for (clients, rate, cpu_us_max, over_ms_max) in CASES {
            let paced = paced(&kafka, clients, dialect, rate)?;
            println!("  {dialect:?}, {clients} clients x {rate} records/s");
            println!("    bare consumer  {}", paced.reference.milliseconds());
            println!(
                "    dashstream     {}, {} deliveries/s, {:.2} us CPU a delivery",
                paced.latency.milliseconds(),
                grouped(paced.rate),
                paced.cpu_us
            );
            if dialect != Dialect::V1 {
                let bare_us = bare(&paced.captured, clients, rate)?;
                println!(
                    "    bare writer    {bare_us:.2} us CPU a delivery, one write each: {:.2} of it",
                    paced.cpu_us / bare_us
                );
                let p99_ms = |histogram: &Histogram| histogram.quantile(0.99) as f64 / 1_000.0;
                verdict("us CPU a delivery", paced.cpu_us, cpu_us_max, true);
                verdict(
                    "ms p99 over the bare consumer",
                    p99_ms(&paced.latency) - p99_ms(&paced.reference),
                    over_ms_max,
                    true,
                );
            }
        }
    }
    Ok(())
}

struct Paced {
    reference: Histogram,
    latency: Histogram,
    rate: f64,
    cpu_us: f64,
    captured: Vec<u8>,
}

/// CPU microseconds of a process that writes each record to each client by itself, and does nothing else.
fn bare(frames: &[u8], clients: usize, rate: f64) -> Result<f64> {
    let writer = BareWriter::start(frames, Some(rate))?;
    let mut crowd = Crowd::connect(writer.address, clients, Dialect::Bare)?;
    crowd.run_for(Duration::from_secs(setting("BENCH_WARMUP_SECONDS", 3)))?;
    let (before, cpu) = (crowd.totals.frames, cpu_seconds(writer.pid())?);
    crowd.run_for(Duration::from_secs(setting("BENCH_SECONDS", 10)))?;
    let frames = (crowd.totals.frames - before) as f64;
    Ok((cpu_seconds(writer.pid())? - cpu) / frames.max(1.0) * 1e6)
}

fn paced(kafka: &Kafka, clients: usize, dialect: Dialect, rate: f64) -> Result<Paced> {
    let topic = kafka.topic("paced")?;
    let service = Service::start(kafka, &topic, "earliest")?;
    service.wait_until_ready()?;
    let mut crowd = Crowd::connect(service.address, clients, dialect)?;
    crowd.capture_limit = CAPTURE;
    let stop = CancellationToken::new();
    let measuring = Arc::new(AtomicBool::new(false));
    let load = Load { size: 1024, compressed: false, pace: Pace::Rate(rate), count: None };
    std::thread::scope(|scope| {
        let reference =
            scope.spawn(|| latency_reference(kafka, &topic, &measuring, &stop).map_err(|error| error.to_string()));
        let producer = scope.spawn(|| kafka.load(&topic, &load, &stop).map_err(|error| error.to_string()));
        let mut watch = || -> Result<(f64, f64)> {
            crowd.run_for(Duration::from_secs(setting("BENCH_WARMUP_SECONDS", 3)))?;
            let (before, cpu, started) = (crowd.totals.records, service.cpu()?, Instant::now());
            measuring.store(true, Ordering::Relaxed);
            crowd.measuring = true;
            crowd.run_for(Duration::from_secs(setting("BENCH_SECONDS", 10)))?;
            measuring.store(false, Ordering::Relaxed);
            let records = (crowd.totals.records - before) as f64;
            let used = service.cpu()? - cpu;
            crowd.all_open()?;
            Ok((records / started.elapsed().as_secs_f64(), used / records.max(1.0) * 1e6))
        };
        let watched = watch();
        stop.cancel();
        producer.join().map_err(|_| "the producer panicked")??;
        let reference = reference.join().map_err(|_| "the bare consumer panicked")??;
        let (rate, cpu_us) = watched?;
        let (latency, captured) = (std::mem::take(&mut crowd.latency), std::mem::take(&mut crowd.captured));
        Ok(Paced { reference, latency, rate, cpu_us, captured })
    })
}
