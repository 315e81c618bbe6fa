//! What a client costs that was demoted and reads nothing: memory of many that catch up from where they stopped, beside
//! what they cost while they were idle and what the same records cost without any client.
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
use common::figures::{grouped, verdict};
use common::kafka::{Kafka, Load};
use common::service::Service;
use common::{Result, raise_file_limit, setting};
use dashstream::kafka::load_producer::Pace;
use tokio_util::sync::CancellationToken;

const CATCHING_UP: &str = r#"dashstream_sessions{state="catching_up"}"#;
const DEADLINE: Duration = Duration::from_secs(300);
/// A session's queue and its sockets take 1 to 3 MiB before it is too slow; so much is sent at a time.
const ROUND: u64 = 2_000;

fn main() -> Result<()> {
    raise_file_limit()?;
    let kafka = Kafka::start()?;
    let clients: usize = setting("BENCH_CLIENTS", 1_000);
    // Fills the memory window, whose bound is 64 MiB.
    let fill: u64 = setting("BENCH_RECORDS", 100_000);
    println!("demoted: {} clients that stop reading, records of 1 KiB", grouped(clients as f64));
    let topic = kafka.topic("demoted")?;
    // Nobody is closed for being silent.
    let patient = [("WEBSOCKET_SEND_TIMEOUT_SECS", "3600"), ("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", "3600")];
    let service = Service::start_with(&kafka, &topic, "earliest", &patient)?;
    service.wait_until_ready()?;
    let mut sent = 0;
    let mut send = |count: u64| -> Result<()> {
        let load = Load { size: 1024, compressed: false, pace: Pace::Unlimited, count: Some(count) };
        kafka.load(&topic, &load, &CancellationToken::new())?;
        sent += count;
        wait_for(&service, "websocket_kafka_messages_total", sent as f64)
    };
    send(fill)?;
    let full = service.rss()?;
    send(fill)?;
    let alone = service.rss()?;
    let mut crowd = Crowd::connect(service.address, clients, Dialect::V2("latest"))?;
    crowd.run_for(Duration::from_secs(3))?;
    let idle = service.rss()?;
    // From here on nobody reads.
    let (started, mut rounds) = (Instant::now(), 0);
    while service.metric(CATCHING_UP)? < clients as f64 {
        if started.elapsed() > DEADLINE {
            return Err(format!("{} of {clients} clients were demoted", service.metric(CATCHING_UP)?).into());
        }
        send(ROUND)?;
        rounds += 1;
    }
    let demoted = service.rss()?;
    // What is behind them does not grow with what they miss.
    send(fill)?;
    let later = service.rss()?;
    let each = |after: f64, before: f64| (after - before) / clients as f64;
    println!("    window full {:.1} MiB, as many records again {:.1} MiB", full / 1024.0, alone / 1024.0);
    println!("    idle        {:>8.1} KiB a client", each(idle, alone));
    println!(
        "    demoted     {:>8.1} KiB a client, after {} records",
        each(demoted, alone),
        grouped((rounds * ROUND) as f64)
    );
    println!("    later       {:>8.1} KiB a client, after {} more", each(later, alone), grouped(fill as f64));
    verdict("KiB a demoted client", each(demoted, alone), 256.0, true);
    verdict(
        "of that with everything that they missed since",
        each(later, alone) / each(demoted, alone).max(1.0),
        1.5,
        true,
    );
    // All of them go on where they stopped, and read as if nothing had been; a little of it shows that they live.
    let before = crowd.totals.records;
    crowd.run_until(Instant::now() + DEADLINE, |crowd| crowd.fewest_records() > 0)?;
    crowd.all_open()?;
    println!("    read on: {} records at all of them", grouped((crowd.totals.records - before) as f64));
    Ok(())
}

fn wait_for(service: &Service, metric: &str, value: f64) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while service.metric(metric)? < value {
        if Instant::now() > deadline {
            return Err(format!("{metric} does not reach {value}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
