//! Live delivery while others replay deep history, beside the same without them and beside a bare consumer of the same
//! topic in the same moment.
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

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::crowd::{Crowd, Dialect};
use common::figures::{Histogram, grouped, verdict};
use common::kafka::{Kafka, Load, latency_reference};
use common::service::Service;
use common::{Result, raise_file_limit, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

/// Groups in which clients begin to replay.
const GROUPS: usize = 10;
const DEADLINE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    raise_file_limit()?;
    let kafka = Kafka::start()?;
    let deep: u64 = setting("BENCH_RECORDS", 400_000);
    let live: usize = setting("BENCH_CLIENTS", 100);
    let replaying: usize = setting("BENCH_REPLAYS", 100);
    let rate: f64 = setting("BENCH_RATE", 300.0);
    println!(
        "deep_replay: {live} live clients x {rate} records/s of 1 KiB, while {replaying} clients replay {} records",
        grouped(deep as f64)
    );
    let topic = kafka.topic("deep-replay")?;
    let load = Load { size: 1024, compressed: false, pace: Pace::Unlimited, count: Some(deep) };
    kafka.load(&topic, &load, &CancellationToken::new())?;
    // History lies in Kafka, and no replay ends before the measurement.
    let variables =
        [("REPLAY_BUFFER_MEMORY_SIZE", "10000"), ("REPLAY_MAX_TOTAL", "100000000"), ("REPLAY_TIMEOUT_SECS", "3600")];
    let service = Service::start_with(&kafka, &topic, "earliest", &variables)?;
    service.wait_until_ready()?;
    let deadline = Instant::now() + DEADLINE;
    while service.metric("websocket_kafka_messages_total")? < deep as f64 {
        if Instant::now() > deadline {
            return Err("the history is not read".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let without = measured(&kafka, &topic, &service, live, 0, rate)?;
    let with = measured(&kafka, &topic, &service, live, replaying, rate)?;
    for (what, measured) in [("without replays", &without), ("with replays", &with)] {
        println!("  {what}");
        println!("    bare consumer  {}", measured.reference.milliseconds());
        println!(
            "    live clients   {}, {} deliveries/s",
            measured.latency.milliseconds(),
            grouped(measured.deliveries)
        );
        println!("    replayed       {} records/s", grouped(measured.replayed));
    }
    let ms = |measured: &Measured, share| measured.latency.quantile(share) as f64 / 1_000.0;
    let over = |measured: &Measured| ms(measured, 0.99) - measured.reference.quantile(0.99) as f64 / 1_000.0;
    println!(
        "    p50 {:.2} times, p99 {:.2} times",
        ms(&with, 0.5) / ms(&without, 0.5),
        ms(&with, 0.99) / ms(&without, 0.99)
    );
    verdict("ms p99 over the bare consumer, with replays", over(&with), 100.0, true);
    Ok(())
}

struct Measured {
    reference: Histogram,
    latency: Histogram,
    /// Per second, to the live clients.
    deliveries: f64,
    /// Records per second to all that replay.
    replayed: f64,
}

fn measured(
    kafka: &Kafka,
    topic: &str,
    service: &Service,
    live: usize,
    replaying: usize,
    rate: f64,
) -> Result<Measured> {
    let mut crowd = Crowd::connect(service.address, live, Dialect::V2("latest"))?;
    let (stop, replayed) = (CancellationToken::new(), AtomicU64::new(0));
    let measuring = Arc::new(AtomicBool::new(false));
    let load = Load { size: 1024, compressed: false, pace: Pace::Rate(rate), count: None };
    std::thread::scope(|scope| {
        let reference =
            scope.spawn(|| latency_reference(kafka, topic, &measuring, &stop).map_err(|error| error.to_string()));
        let producer = scope.spawn(|| kafka.load(topic, &load, &stop).map_err(|error| error.to_string()));
        let replays =
            scope.spawn(|| replay(service.address, replaying, &stop, &replayed).map_err(|error| error.to_string()));
        let mut watch = || -> Result<(f64, f64)> {
            crowd.run_for(Duration::from_secs(setting("BENCH_WARMUP_SECONDS", 3)))?;
            let before = (crowd.totals.records, replayed.load(Ordering::Relaxed));
            let started = Instant::now();
            measuring.store(true, Ordering::Relaxed);
            crowd.measuring = true;
            crowd.run_for(Duration::from_secs(setting("BENCH_SECONDS", 10)))?;
            measuring.store(false, Ordering::Relaxed);
            let seconds = started.elapsed().as_secs_f64();
            crowd.all_open()?;
            let replayed = replayed.load(Ordering::Relaxed) - before.1;
            if replaying > 0 && replayed == 0 {
                return Err("nothing was replayed meanwhile".into());
            }
            Ok(((crowd.totals.records - before.0) as f64 / seconds, replayed as f64 / seconds))
        };
        let watched = watch();
        stop.cancel();
        producer.join().map_err(|_| "the producer panicked")??;
        replays.join().map_err(|_| "the replays panicked")??;
        let reference = reference.join().map_err(|_| "the bare consumer panicked")??;
        let (deliveries, replayed) = watched?;
        Ok(Measured { reference, latency: std::mem::take(&mut crowd.latency), deliveries, replayed })
    })
}

/// Clients that read from the beginning of the topic; new ones when all have come to 10 records of its end.
fn replay(address: SocketAddr, clients: usize, stop: &CancellationToken, replayed: &AtomicU64) -> Result<()> {
    let deep: u64 = setting("BENCH_RECORDS", 400_000);
    while clients > 0 && !stop.is_cancelled() {
        // In groups, so that they do not all read the same pages.
        let mut crowd = Crowd::connect(address, 1, Dialect::V2("earliest"))?;
        for group in 0..GROUPS {
            crowd.add(address, (clients - 1) * (group + 1) / GROUPS - (clients - 1) * group / GROUPS)?;
            crowd.run_for(Duration::from_millis(200))?;
        }
        let before = replayed.load(Ordering::Relaxed);
        crowd.run_until(Instant::now() + DEADLINE, |crowd| {
            replayed.store(before + crowd.totals.records, Ordering::Relaxed);
            stop.is_cancelled() || crowd.fewest_records() + 10 >= deep
        })?;
        crowd.all_open()?;
    }
    Ok(())
}
