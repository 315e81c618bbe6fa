//! A producer that keeps publishing while the test does something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::producer::{Producer, Published};
use super::records::{self, Outgoing};
use super::topic::Topic;

const ROUND: Duration = Duration::from_millis(50);

/// Runs on a thread of its own until [`Load::stop`].
pub struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    thread: Option<JoinHandle<Published>>,
}

impl Load {
    /// About `per_second` records, over all partitions: mostly plain, some zstd, some batches, some bad.
    pub fn start(topic: &Topic, per_second: u64) -> Self {
        Self::start_as("run", topic, per_second)
    }

    /// As [`Load::start`], with threads of a name: no record is equal to one of another name.
    pub fn start_as(name: &str, topic: &Topic, per_second: u64) -> Self {
        let mix = Mix::named(name, topic.partitions());
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (name, kafka) = (topic.name.clone(), topic.kafka.clone());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&published));
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || publish(&kafka, &name, mix, per_second, &stopped, &count))
            .expect("a thread");
        Self { stop, published, thread: Some(thread) }
    }

    /// Records that Kafka has acknowledged so far.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Stops and tells all that was published.
    pub fn stop(mut self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped once").join().expect("the producer did not fail")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn publish(kafka: &str, topic: &str, mut mix: Mix, per_second: u64, stop: &AtomicBool, count: &AtomicU64) -> Published {
    let producer = Producer::new(kafka);
    let mut all = Published::default();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * per_second as f64) as u64;
        let missing = due.saturating_sub(count.load(Ordering::Relaxed));
        all.extend(producer.publish(topic, mix.by_ref().take(usize::try_from(missing).unwrap_or(usize::MAX))));
        count.store(all.len() as u64, Ordering::Relaxed);
        std::thread::park_timeout(ROUND);
    }
    all
}

/// An endless mix of records over partitions: of 20 records, 15 plain, 3 zstd, 1 batch; of 100, 1 bad.
pub struct Mix {
    name: String,
    partitions: Vec<i32>,
    count: u64,
    sequences: Vec<u64>,
}

impl Mix {
    pub fn new(partitions: Vec<i32>) -> Self {
        Self::named("run", partitions)
    }

    /// With threads that are called after `name`.
    pub fn named(name: &str, partitions: Vec<i32>) -> Self {
        let (name, sequences) = (name.to_owned(), vec![1; partitions.len()]);
        Self { name, partitions, count: 0, sequences }
    }
}

impl Iterator for Mix {
    type Item = Outgoing;

    fn next(&mut self) -> Option<Outgoing> {
        let turn = self.count;
        self.count += 1;
        let lane = usize::try_from(turn % self.partitions.len() as u64).ok()?;
        let partition = self.partitions[lane];
        let thread = format!("{}-{partition}", self.name);
        let sequence = self.sequences[lane];
        // Counts per partition, so that each one gets all kinds.
        let of_lane = turn / self.partitions.len() as u64;
        let (record, events) = match of_lane {
            n if n % 100 == 50 => {
                let bad = records::one_of_each_bad(&thread);
                let which = usize::try_from(n / 100).ok()? % bad.len();
                (bad.into_iter().nth(which)?, 0)
            }
            n if n % 20 == 19 => (records::batch(&thread, sequence, 3), 3),
            n if n % 20 >= 16 => (records::zstd(&thread, sequence, 400), 1),
            _ => (records::good_of_size(&thread, sequence, 100), 1),
        };
        self.sequences[lane] += events;
        Some(record.on_partition(partition))
    }
}
