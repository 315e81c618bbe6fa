//! What a client costs that does nothing: memory per connection, and CPU of many.
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

use std::time::Duration;

use common::crowd::{Crowd, Dialect};
use common::figures::{grouped, verdict};
use common::kafka::Kafka;
use common::service::Service;
use common::{Result, raise_file_limit, setting};

const WARM_UP: usize = 100;

fn main() -> Result<()> {
    raise_file_limit()?;
    let kafka = Kafka::start()?;
    let clients: usize = setting("BENCH_CLIENTS", 2_000);
    println!("idle: {} clients that have said hello and get heartbeats only", grouped(clients as f64));
    for dialect in [Dialect::V2("latest"), Dialect::V1] {
        let topic = kafka.topic("idle")?;
        let service = Service::start(&kafka, &topic, "earliest")?;
        service.wait_until_ready()?;
        // The first clients pay for what is allocated once.
        let mut crowd = Crowd::connect(service.address, WARM_UP, dialect)?;
        crowd.run_for(Duration::from_secs(3))?;
        let before = service.rss()?;
        crowd.add(service.address, clients)?;
        crowd.run_for(Duration::from_secs(3))?;
        let cpu = service.cpu()?;
        let seconds = setting("BENCH_SECONDS", 10);
        crowd.run_for(Duration::from_secs(seconds))?;
        crowd.all_open()?;
        let percent = (service.cpu()? - cpu) / seconds as f64 * 100.0;
        let each = (service.rss()? - before) / clients as f64;
        println!("  {dialect:?}: {each:.1} KiB a client, {percent:.1} % of a core for all");
        if dialect != Dialect::V1 {
            verdict("KiB a client", each, 12.0, true);
        }
    }
    Ok(())
}
