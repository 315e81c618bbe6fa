//! More than usual, for a while: everything arrives at everybody, and nobody is closed.
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

use common::crowd::{Crowd, Dialect};
use common::figures::grouped;
use common::kafka::{Kafka, Load};
use common::service::Service;
use common::{Result, raise_file_limit, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    raise_file_limit()?;
    let kafka = Kafka::start()?;
    let seconds: f64 = setting("BENCH_SECONDS", 10.0);
    println!("burst: 1 KiB records for {seconds} s, everything must arrive");
    for (clients, rate) in [(100, 8_000.0), (1, 100_000.0)] {
        let count = (rate * seconds) as u64;
        let topic = kafka.topic("burst")?;
        let service = Service::start(&kafka, &topic, "earliest")?;
        service.wait_until_ready()?;
        let mut crowd = Crowd::connect(service.address, clients, Dialect::V2("earliest"))?;
        let load = Load { size: 1024, compressed: false, pace: Pace::Rate(rate), count: Some(count) };
        let (cpu, started) = (service.cpu()?, Instant::now());
        let (loaded, arrived) = std::thread::scope(|scope| -> Result<_> {
            let producer = scope.spawn(|| {
                let report = kafka.load(&topic, &load, &CancellationToken::new()).map_err(|error| error.to_string());
                (report, Instant::now())
            });
            let deadline = started + Duration::from_secs_f64(seconds * 4.0 + 30.0);
            let arrived = crowd.run_until(deadline, |crowd| crowd.fewest_records() >= count)?;
            let arrived_at = Instant::now();
            let (report, produced_at) = producer.join().map_err(|_| "the producer panicked")?;
            Ok((report?, arrived.then(|| arrived_at.saturating_duration_since(produced_at))))
        })?;
        crowd.all_open()?;
        let deliveries = crowd.totals.records as f64;
        println!("  {clients} clients, produced at {}/s", grouped(loaded.records as f64 / loaded.seconds));
        match arrived {
            Some(late) => println!(
                "    ok   all {} deliveries, {:.2} s after the last record was sent",
                grouped(deliveries),
                late.as_secs_f64()
            ),
            None => println!(
                "    MISS {} of {} records at the slowest client",
                grouped(crowd.fewest_records() as f64),
                grouped(count as f64)
            ),
        }
        println!(
            "    {}/s delivered, {:.2} us CPU a delivery, {} offsets lost, {} demotions, {} MiB RSS",
            grouped(deliveries / started.elapsed().as_secs_f64()),
            (service.cpu()? - cpu) / deliveries.max(1.0) * 1e6,
            crowd.totals.lost,
            service.metric("dashstream_session_demotions_total")?,
            grouped(service.rss()? / 1024.0)
        );
    }
    Ok(())
}
