//! A real Kafka for the benchmarks, topics on it, and the reference reader: librdkafka alone.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashstream::generate::flat::FlatSettings;
use dashstream::generate::records::Source;
use dashstream::kafka::connection::KafkaConnection;
use dashstream::kafka::load_producer::{LoadReport, LoadSettings, Pace, run};
use dashstream::kafka::topics::TopicAdmin;
use dashstream::pipeline::topic_plan::TopicPlan;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Result;
use super::figures::{Histogram, cpu_seconds};
use super::stream_parser::producer_time_us;

/// Partitions of every topic.
pub const PARTITIONS: i32 = 8;

/// A reachable Kafka; one that was started here ends with this.
pub struct Kafka {
    /// `host:port`.
    pub brokers: String,
    _started: Option<(Child, ChildStdin)>,
}

impl Kafka {
    /// The Kafka of `DASHSTREAM_TEST_KAFKA`, or one that `scripts/services` starts.
    pub fn start() -> Result<Self> {
        if let Ok(brokers) = std::env::var("DASHSTREAM_TEST_KAFKA") {
            return Ok(Self { brokers, _started: None });
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let mut child = Command::new(script)
            .args(["up", "--only", "kafka", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let address = line.split_whitespace().find_map(|word| word.strip_prefix("DASHSTREAM_TEST_KAFKA="));
            if let Some(brokers) = address {
                return Ok(Self { brokers: brokers.to_owned(), _started: Some((child, stdin)) });
            }
        }
        Err("scripts/services did not start Kafka; run scripts/setup first".into())
    }

    /// How to reach it.
    pub fn connection(&self) -> KafkaConnection {
        KafkaConnection {
            brokers: self.brokers.clone(),
            client_id: "bench".to_owned(),
            security: Default::default(),
            address_family: None,
        }
    }

    /// A new, empty topic.
    pub fn topic(&self, name: &str) -> Result<String> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let topic = format!("bench-{name}-{stamp}");
        TopicAdmin::new(&self.connection())?.create(&TopicPlan::plain(&topic, PARTITIONS))?;
        Ok(topic)
    }

    /// Sends records of one size at a pace, until `count` or `stop`.
    pub fn load(&self, topic: &str, load: &Load, stop: &CancellationToken) -> Result<LoadReport> {
        let flat = FlatSettings {
            seed: 1,
            threads: 1_000,
            size: load.size,
            compressed: load.compressed,
            thread_prefix: "bench-".to_owned(),
        };
        let settings = LoadSettings {
            connection: self.connection(),
            topic: topic.to_owned(),
            create_partitions: None,
            source: Source::Flat(flat),
            pace: load.pace,
            count: load.count,
            progress_interval: Duration::from_secs(3_600),
        };
        let report = run(&settings, stop, &mut |_| {})?;
        if report.failed > 0 {
            return Err(format!("{} records failed: {:?}", report.failed, report.last_error).into());
        }
        Ok(report)
    }

    /// A consumer of all partitions, outside of any group.
    pub fn reader(&self, topic: &str, from: Offset, tuned: &[(&str, &str)]) -> Result<BaseConsumer> {
        let mut config = self.connection().client_config("reference");
        config.set("group.id", "bench-reference").set("enable.auto.commit", "false");
        for (name, value) in tuned {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, from)?;
        }
        consumer.assign(&partitions)?;
        Ok(consumer)
    }

    /// The sum of a group's committed offsets.
    pub fn committed(&self, topic: &str, group: &str) -> Result<i64> {
        let consumer: BaseConsumer = self.connection().client_config("watch").set("group.id", group).create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition(topic, partition);
        }
        let committed = consumer.committed_offsets(partitions, Duration::from_secs(10))?;
        Ok(committed.elements().iter().filter_map(|element| element.offset().to_raw()).filter(|at| *at > 0).sum())
    }
}

/// A flat load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a value before compression.
    pub size: usize,
    /// Whether values are zstd frames.
    pub compressed: bool,
    /// How fast.
    pub pace: Pace,
    /// How many.
    pub count: Option<u64>,
}

/// Settings with which librdkafka alone reads fastest.
const TUNED: [(&str, &str); 5] = [
    ("queued.min.messages", "1000000"),
    ("queued.max.messages.kbytes", "262144"),
    ("fetch.queue.backoff.ms", "1"),
    ("fetch.message.max.bytes", "4194304"),
    ("fetch.max.bytes", "67108864"),
];

/// Reads `count` records by a bare poll loop. Gives records per second and CPU microseconds per record of this process.
pub fn raw_poll(kafka: &Kafka, topic: &str, count: u64, decompress: bool) -> Result<(f64, f64)> {
    let (mut zstd, mut plain) = (zstd::bulk::Decompressor::new()?, Vec::with_capacity(1024 * 1024));
    let consumer = kafka.reader(topic, Offset::Beginning, &TUNED)?;
    let pid = std::process::id();
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut read, mut bytes, mut start) = (0, 0, None);
    while read < count {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                if start.is_none() {
                    start = Some((Instant::now(), cpu_seconds(pid)?));
                }
                let message = message?;
                bytes += message.payload_len();
                if let Some((1, frame)) = message
                    .payload()
                    .filter(|_| decompress)
                    .and_then(|payload| payload.split_first().map(|(framing, rest)| (*framing, rest)))
                {
                    plain.clear();
                    bytes += zstd.decompress_to_buffer(frame, &mut plain)?;
                }
                read += 1;
            }
            None if Instant::now() > deadline => return Err(format!("only {read} of {count} records came").into()),
            None => {}
        }
    }
    let (started, cpu) = start.ok_or("nothing read")?;
    std::hint::black_box(bytes);
    Ok((count as f64 / started.elapsed().as_secs_f64(), (cpu_seconds(pid)? - cpu) / count as f64 * 1e6))
}

/// Measures the time from the producer's stamp to a bare consumer, beside everything else, until stopped.
pub fn latency_reference(
    kafka: &Kafka,
    topic: &str,
    measuring: &Arc<AtomicBool>,
    stop: &CancellationToken,
) -> Result<Histogram> {
    let consumer = kafka.reader(topic, Offset::End, &[("fetch.wait.max.ms", "500")])?;
    let mut histogram = Histogram::default();
    while !stop.is_cancelled() {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message?;
        if measuring.load(Ordering::Relaxed)
            && let Some(sent_us) = message.payload().and_then(producer_time_us)
        {
            histogram.add(now_us().saturating_sub(sent_us));
        }
    }
    Ok(histogram)
}

/// Unix microseconds.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
