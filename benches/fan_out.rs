//! Saturated fan-out: many clients, more records than can be delivered, beside a bare writer of the very same frames.
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

use common::bare_writer::{BareWriter, serve_if_asked};
use common::crowd::{Crowd, Dialect, Totals};
use common::figures::{cpu_seconds, grouped, verdict};
use common::kafka::{Kafka, Load};
use common::service::Service;
use common::{Result, raise_file_limit, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

const CAPTURE: usize = 4 * 1024 * 1024;

fn main() -> Result<()> {
    raise_file_limit()?;
    if serve_if_asked()? {
        return Ok(());
    }
    let kafka = Kafka::start()?;
    let clients: usize = setting("BENCH_CLIENTS", 1_000);
    println!("fan-out: {} clients, 1 KiB records", grouped(clients as f64));
    for (dialect, rate) in [(Dialect::V2("latest"), 1_000.0), (Dialect::V2("latest"), 6_000.0), (Dialect::V1, 1_000.0)]
    {
        println!("  {dialect:?}, {} records/s produced: {} deliveries/s offered", rate, grouped(rate * clients as f64));
        let (ours, captured) = fan_out(&kafka, clients, dialect, rate)?;
        ours.print("dashstream");
        if dialect == Dialect::V1 {
            continue;
        }
        let bare = bare(&captured, clients)?;
        bare.print("bare writer");
        // Where everything that was offered has been delivered, the rate says nothing about the limit.
        if ours.rate < rate * clients as f64 * 0.95 {
            verdict("of the bare writer's rate", ours.rate / bare.rate, 0.8, false);
        }
        verdict("us CPU a delivery", ours.cpu_us, 0.5, true);
    }
    Ok(())
}

/// Figures of one measurement.
struct Flow {
    rate: f64,
    cpu_us: f64,
    records_per_frame: f64,
    kib_per_read: f64,
}

impl Flow {
    fn print(&self, name: &str) {
        println!(
            "    {name:<12} {:>12}/s  {:.2} us CPU a delivery, {:.1} records a frame, {:.0} KiB a read",
            grouped(self.rate),
            self.cpu_us,
            self.records_per_frame,
            self.kib_per_read
        );
    }
}

/// Reads for a while and divides what came by time and by the CPU time of the process that sent it.
fn measure(crowd: &mut Crowd, cpu: impl Fn() -> Result<f64>) -> Result<Flow> {
    crowd.run_for(Duration::from_secs(setting("BENCH_WARMUP_SECONDS", 3)))?;
    let (before, cpu_before, started) = (crowd.totals.clone(), cpu()?, Instant::now());
    crowd.run_for(Duration::from_secs(setting("BENCH_SECONDS", 10)))?;
    let (seconds, used) = (started.elapsed().as_secs_f64(), cpu()? - cpu_before);
    crowd.all_open()?;
    let Totals { records, bytes, frames, reads, lost } = crowd.totals.clone();
    if lost > 0 {
        return Err(format!("{lost} offsets were lost").into());
    }
    let records = (records - before.records) as f64;
    Ok(Flow {
        rate: records / seconds,
        cpu_us: used / records.max(1.0) * 1e6,
        records_per_frame: records / (frames - before.frames).max(1) as f64,
        kib_per_read: (bytes - before.bytes) as f64 / (reads - before.reads).max(1) as f64 / 1024.0,
    })
}

fn fan_out(kafka: &Kafka, clients: usize, dialect: Dialect, rate: f64) -> Result<(Flow, Vec<u8>)> {
    let topic = kafka.topic("fan-out")?;
    // Saturated clients fall behind by seconds: the window holds them, so that no other tier is measured.
    let window = [("DASHSTREAM_REPLAY_MEMORY_BYTES", "1073741824"), ("REPLAY_BUFFER_MEMORY_SIZE", "1000000")];
    let service = Service::start_with(kafka, &topic, "earliest", &window)?;
    service.wait_until_ready()?;
    let mut crowd = Crowd::connect(service.address, clients, dialect)?;
    crowd.capture_limit = CAPTURE;
    let stop = CancellationToken::new();
    let load = Load { size: 1024, compressed: false, pace: Pace::Rate(rate), count: None };
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| kafka.load(&topic, &load, &stop).map_err(|error| error.to_string()));
        let flow = measure(&mut crowd, || service.cpu());
        stop.cancel();
        producer.join().map_err(|_| "the producer panicked")??;
        Ok((flow?, std::mem::take(&mut crowd.captured)))
    })
}

/// The same reader against a process that only writes, over and over, the frames that the service sent.
fn bare(frames: &[u8], clients: usize) -> Result<Flow> {
    let writer = BareWriter::start(frames, None)?;
    let mut crowd = Crowd::connect(writer.address, clients, Dialect::Bare)?;
    measure(&mut crowd, || cpu_seconds(writer.pid()))
}
