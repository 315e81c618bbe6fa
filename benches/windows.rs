//! What the windowed figures of `/health` cost those who count: threads that count as the pipeline does, while the figures
//! are sampled and read, beside the same counting on bare atomics. Exits with 1 when they cost more than a few percent.
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

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::figures::{grouped, verdict};
use common::{Result, setting};
use dashstream::metrics::Metrics;
use dashstream::pipeline::health::{Counts, Judged, Samples};

const THREADS: u64 = 16;
/// One record of so many is unprocessable.
const BAD: u64 = 100;
/// The service samples once per second; here it is done a hundred times as often.
const SAMPLED_EVERY: Duration = Duration::from_millis(10);
/// Share of the rate without windows that is left.
const ENOUGH: f64 = 0.95;

fn main() -> Result<ExitCode> {
    let (records, rounds): (u64, u32) = (setting("BENCH_RECORDS", 10_000_000), setting("BENCH_ROUNDS", 5));
    println!("windows: {THREADS} threads count {} records each, best of {rounds} rounds", grouped(records as f64));
    let metrics = Metrics::new()?;
    let (mut bare, mut off, mut on) = (0.0_f64, 0.0_f64, 0.0_f64);
    // Turn by turn, so that whatever else the machine does meets all of them.
    for _ in 0..rounds {
        bare = bare.max(on_atomics(records));
        off = off.max(on_counters(&metrics, records));
        on = on.max(with_windows(&metrics, records));
    }
    println!("    bare atomics   {:>14}/s", grouped(bare));
    println!("    windows off    {:>14}/s", grouped(off));
    println!("    windows on     {:>14}/s", grouped(on));
    // What the counters themselves cost is not what the windows cost.
    println!("    {:.2} of the rate on bare atomics with windows, {:.2} without", on / bare, off / bare);
    verdict("of the rate without windows", on / off, ENOUGH, false);
    Ok(if on / off >= ENOUGH { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Records per second over all threads.
fn rate(records: u64, count: impl Fn(u64) + Sync) -> f64 {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..records).for_each(&count));
        }
    });
    (records * THREADS) as f64 / begin.elapsed().as_secs_f64()
}

fn on_atomics(records: u64) -> f64 {
    let (success, error) = (Box::new(AtomicU64::new(0)), Box::new(AtomicU64::new(0)));
    rate(records, |record| {
        let counter = if record % BAD == 0 { &error } else { &success };
        counter.fetch_add(1, Ordering::Relaxed);
    })
}

/// On the counters of the service, with handles that were looked up once, as the pipeline holds them.
fn on_counters(metrics: &Metrics, records: u64) -> f64 {
    let of = |status| metrics.kafka_messages.with_label_values(&[status]);
    let (success, error) = (of("success"), of("error"));
    rate(records, |record| if record % BAD == 0 { error.inc() } else { success.inc() })
}

fn with_windows(metrics: &Metrics, records: u64) -> f64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let samples = Mutex::new(Samples::default());
            while !stop.load(Ordering::Relaxed) {
                let (now, counts) = (Instant::now(), counts(metrics));
                let mut samples = samples.lock().unwrap();
                samples.add(now, counts);
                std::hint::black_box(samples.windowed(now, counts));
                drop(samples);
                std::thread::sleep(SAMPLED_EVERY);
            }
        });
        let rate = on_counters(metrics, records);
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn counts(metrics: &Metrics) -> Counts {
    let of = |status| metrics.kafka_messages.with_label_values(&[status]).get();
    let all = Judged { messages: of("success") + of("error"), decode_errors: of("error"), payload_missing: 0 };
    Counts { all, ..Counts::default() }
}
