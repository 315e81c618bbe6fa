//! A resume of 10,000 records out of each tier, through the whole service to a client, beside a bare copy of the same bytes.
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
use common::crowd::{Crowd, Dialect};
use common::figures::grouped;
use common::kafka::{Kafka, Load};
use common::redis::Server;
use common::service::Service;
use common::{Result, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 20;
/// A memory window that holds next to nothing.
const NO_WINDOW: (&str, &str) = ("REPLAY_BUFFER_MEMORY_SIZE", "1");

fn main() -> Result<()> {
    if serve_if_asked()? {
        return Ok(());
    }
    let kafka = Kafka::start()?;
    let redis = Server::start()?;
    let count: u64 = setting("BENCH_RECORDS", 10_000);
    println!("resume: {} records of 1 KiB over 8 partitions, {ROUNDS} times", grouped(count as f64));
    let load = Load { size: 1024, compressed: false, pace: Pace::Unlimited, count: Some(count) };
    // Redis is required, so that what is committed is there.
    let in_redis = [NO_WINDOW, ("REDIS_URL", redis.url.as_str()), ("DASHSTREAM_REPLAY_DURABILITY", "required")];
    let tiers: [(&str, &[(&str, &str)]); 3] = [("memory", &[]), ("redis", &in_redis), ("kafka", &[NO_WINDOW])];
    let mut captured = Vec::new();
    for (tier, variables) in tiers {
        let topic = kafka.topic(&format!("resume-{tier}"))?;
        kafka.load(&topic, &load, &CancellationToken::new())?;
        let service = Service::start_with(&kafka, &topic, "earliest", variables)?;
        service.wait_until_ready()?;
        wait_until_committed(&kafka, &topic, &service.group, count)?;
        let mut times = Vec::new();
        let first = resume(&service, count, 0)?.0;
        println!("  {tier:<60} the first {:>4.1} ms", first.as_secs_f64() * 1e3);
        // Once more, for the reference.
        captured = resume(&service, count, usize::MAX)?.1;
        let before = Asked::of(&service)?;
        for _ in 0..ROUNDS {
            times.push(resume(&service, count, 0)?.0);
        }
        let asked = Asked::of(&service)?.since(&before);
        print(&format!("{tier} ({asked})"), &mut times, count);
        if asked.answered_by() != tier {
            return Err(format!("it did not come from {tier}").into());
        }
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        // It ends with its client.
        let bare = BareWriter::start(&captured, None)?;
        let started = Instant::now();
        let mut crowd = Crowd::connect(bare.address, 1, Dialect::Bare)?;
        crowd.run_until(Instant::now() + DEADLINE, |crowd| crowd.totals.records >= count)?;
        times.push(started.elapsed());
    }
    print("bare copy", &mut times, count);
    Ok(())
}

/// Pages that the tiers below memory were asked for.
struct Asked {
    redis_hits: f64,
    redis_misses: f64,
    kafka: f64,
}

impl Asked {
    fn of(service: &Service) -> Result<Self> {
        Ok(Self {
            redis_hits: service.metric("replay_buffer_redis_hits_total")?,
            redis_misses: service.metric("replay_buffer_redis_misses_total")?,
            kafka: service.metric("dashstream_history_pages_total")?,
        })
    }

    fn since(self, earlier: &Self) -> Self {
        Self {
            redis_hits: self.redis_hits - earlier.redis_hits,
            redis_misses: self.redis_misses - earlier.redis_misses,
            kafka: self.kafka - earlier.kafka,
        }
    }

    fn answered_by(&self) -> &'static str {
        match (self.redis_hits > 0.0, self.kafka > 0.0) {
            (false, false) => "memory",
            (true, false) => "redis",
            (false, true) => "kafka",
            (true, true) => "redis and kafka",
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pages of Redis {}, not there {}, of Kafka {}", self.redis_hits, self.redis_misses, self.kafka)
    }
}

/// One client from the connect on, until it has all records.
fn resume(service: &Service, count: u64, capture: usize) -> Result<(Duration, Vec<u8>)> {
    let started = Instant::now();
    let mut crowd = Crowd::prepare(Dialect::V2("earliest"))?;
    crowd.capture_limit = capture;
    crowd.add(service.address, 1)?;
    if !crowd.run_until(Instant::now() + DEADLINE, |crowd| crowd.totals.records >= count)? {
        return Err(format!("{} of {count} records came", crowd.totals.records).into());
    }
    let took = started.elapsed();
    crowd.all_open()?;
    Ok((took, std::mem::take(&mut crowd.captured)))
}

fn wait_until_committed(kafka: &Kafka, topic: &str, group: &str, count: u64) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while kafka.committed(topic, group)? < i64::try_from(count)? {
        if Instant::now() > deadline {
            return Err("not everything was committed".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn print(name: &str, times: &mut [Duration], count: u64) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let median = times[times.len() / 2];
    println!(
        "  {name:<60} median {:>6.1} ms, worst {:>6.1} ms, {:>9} records/s",
        ms(median),
        ms(times[times.len() - 1]),
        grouped(count as f64 / median.as_secs_f64())
    );
}
