//! A browser that stops reading costs a bounded amount of memory and nobody's time, and it can come back.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::contract::Judged as _;
use crate::harness::producer::{Producer, Published};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(120);
const MIB: u64 = 1024 * 1024;
/// The memory window; small, so that it is full before anything is measured.
const WINDOW: u64 = 8 * MIB;
const ROUND: u64 = 30_000;
const PORTION: u64 = 3_000;
const STALLED: usize = 10;
const ROUNDS_WITH_STALLED: u64 = 3;

#[test]
fn a_client_that_stops_reading_harms_nobody() {
    let topic = Topic::create(services::kafka(), "stalled", 4);
    let config = Config::new(&topic).set("DASHSTREAM_REPLAY_MEMORY_BYTES", WINDOW);
    let service = Service::start_healthy(&config);
    let readers: Vec<Client> = (0..4).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let producer = Producer::new(services::kafka());
    let mut all = Published::default();

    // 30 MiB a round. The first one fills every cache and window.
    let alone = publish_and_wait(&producer, &topic, 0, &readers, &mut all);
    let before = service.memory();

    let options = Options { receive_buffer: Some(4096), ..Options::default() };
    let stalled: Vec<Client> = (0..STALLED).map(|_| Client::connect(service.address(), options.clone())).collect();
    for client in &stalled {
        client.read(Reading::Stopped);
    }
    let mut together = Duration::ZERO;
    for round in 1..=ROUNDS_WITH_STALLED {
        together = together.max(publish_and_wait(&producer, &topic, round, &readers, &mut all));
    }

    let grown = service.memory().saturating_sub(before);
    // Ten clients, each with its queue and a socket; 90 MiB went past them.
    assert!(grown < 32 * MIB, "memory grew by {} MiB", grown / MIB);
    // Not a benchmark: a service that waits for a stalled socket takes a deadline's time, not a factor.
    assert!(together < alone * 5 + Duration::from_secs(5), "{together:?} with stalled clients, {alone:?} without");

    // They come back where they were. The window has moved on: what it no longer holds may be a gap, told as such.
    for mut client in stalled {
        client.read(Reading::Fast);
        client.reconnect(service.address());
        client.wait_for_all_but(&all, BOUND, |_, _| true);
    }
}

/// How long it took until every reader had the round, complete and byte for byte.
fn publish_and_wait(
    producer: &Producer,
    topic: &Topic,
    round: u64,
    readers: &[Client],
    all: &mut Published,
) -> Duration {
    let start = Instant::now();
    // In portions that the window holds: a reader that a busy machine slows down catches up from there.
    for portion in 0..ROUND / PORTION {
        let first = round * ROUND + portion * PORTION + 1;
        let records = (first..first + PORTION).map(|sequence| {
            let partition = i32::try_from(sequence % 4).unwrap_or_default();
            records::good_of_size(&format!("run-{partition}"), sequence, 1_000).on_partition(partition)
        });
        all.extend(producer.publish(&topic.name, records));
        for reader in readers {
            reader.wait_until("the end of the portion", BOUND, |ledger| ledger.has_reached_the_end_of(all));
        }
    }
    let took = start.elapsed();
    for reader in readers {
        reader.wait_for_all(all, BOUND);
    }
    took
}
