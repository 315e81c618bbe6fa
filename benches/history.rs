//! History from Kafka: pages and records per second of its readers, judged and encoded, beside librdkafka's bare poll loop over the same topic.
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

use std::sync::Arc;
use std::time::Instant;

use common::figures::{cpu_seconds, grouped, verdict};
use common::kafka::{Kafka, Load, PARTITIONS, raw_poll};
use common::{Result, setting};
use dashstream::board::{Board, Epoch};
use dashstream::kafka::history::{HistoryParts, KafkaHistory};
use dashstream::kafka::load_producer::Pace;
use dashstream::kafka::monitor::KafkaMonitor;
use dashstream::kafka::settings::IngestSettings;
use dashstream::kafka::topic::{TopicId, topic_id};
use dashstream::metrics::Metrics;
use dashstream::pipeline::decode::JudgeSettings;
use dashstream::pipeline::replay_plan::{Limits, Line, Patience, Step, Tier, Turn, plan};
use futures_util::future::join_all;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

const PAGE_RECORDS: u32 = 1_000;
const PAGE_BYTES: usize = 4 << 20;
const RESUME: i64 = 10_000;
/// The default.
const CACHE_BYTES: usize = 16 << 20;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn main() -> Result<()> {
    let kafka = Kafka::start()?;
    let count: u64 = setting("BENCH_RECORDS", 400_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("history: {} records over 8 partitions, pages of {PAGE_RECORDS}", grouped(count as f64));
    for (name, size, compressed) in [("1 KiB raw", 1024, false), ("1 KiB zstd", 1024, true), ("200 B", 200, false)] {
        let topic = kafka.topic(&format!("history-{}", name.replace(' ', "-").to_lowercase()))?;
        kafka.load(
            &topic,
            &Load { size, compressed, pace: Pace::Unlimited, count: Some(count) },
            &CancellationToken::new(),
        )?;
        let before = raw_poll(&kafka, &topic, count, false)?;
        let bare = measured(&runtime, &Rig::new(&kafka, &topic, 1, 0)?, 1)?;
        let one = measured(&runtime, &Rig::new(&kafka, &topic, 1, CACHE_BYTES)?, 1)?;
        let four = measured(&runtime, &Rig::new(&kafka, &topic, 2, CACHE_BYTES)?, 4)?;
        let after = raw_poll(&kafka, &topic, count, false)?;
        let raw = if before.0 > after.0 { before } else { after };
        println!("  {name}");
        println!("    raw poll loop           {:>12}/s  {:.2} us CPU a record", grouped(raw.0), raw.1);
        println!("    1 client, no cache      {bare}");
        println!("    1 client of 1 reader    {one}");
        println!("    4 clients of 2 readers  {four}");
        verdict("of the raw rate, 1 client", one.rate / raw.0, 0.3, false);
        let mut resumes = Vec::new();
        for _ in 0..20 {
            // Each connects first, and finds nothing kept.
            let rig = Rig::new(&kafka, &topic, 2, CACHE_BYTES)?;
            let started = Instant::now();
            let (records, _) = runtime.block_on(rig.read(RESUME / i64::from(PARTITIONS)))?;
            resumes.push(started.elapsed().as_secs_f64() * 1e3 * RESUME as f64 / records as f64);
        }
        resumes.sort_by(f64::total_cmp);
        println!("    a resume of 10,000 records: median {:.1} ms, worst {:.1} ms", resumes[10], resumes[19]);
    }
    Ok(())
}

struct Figures {
    rate: f64,
    pages: f64,
    cpu_us: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rate, pages) = (grouped(self.rate), grouped(self.pages));
        write!(f, "{rate:>12}/s  {:.2} us CPU a record, {pages} pages/s", self.cpu_us)
    }
}

/// All records to each of so many clients at the same time.
fn measured(runtime: &tokio::runtime::Runtime, rig: &Rig, clients: usize) -> Result<Figures> {
    let pid = std::process::id();
    let (started, cpu) = (Instant::now(), cpu_seconds(pid)?);
    let read = runtime.block_on(join_all((0..clients).map(|_| rig.read(i64::MAX))));
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let (mut records, mut pages) = (0.0, 0.0);
    for client in read {
        let (of_client, pages_of_client) = client?;
        records += of_client as f64;
        pages += pages_of_client as f64;
    }
    Ok(Figures { rate: records / seconds, pages: pages / seconds, cpu_us: cpu / records * 1e6 })
}

struct Rig {
    history: KafkaHistory,
    board: Board,
    name: Arc<str>,
}

impl Rig {
    fn new(kafka: &Kafka, topic: &str, readers: usize, cache_bytes: usize) -> Result<Self> {
        let client: BaseConsumer = kafka.reader(topic, Offset::End, &[])?;
        let TopicId::Is(id) = topic_id(client.client(), topic, PATIENCE) else {
            return Err("the topic has no id".into());
        };
        let name = format!("-/{topic}/{id}");
        let board = Board::new();
        board.open_epoch(Epoch { number: 1, name: name.clone() });
        for partition in 0..PARTITIONS {
            let (_, high) = client.fetch_watermarks(topic, partition, PATIENCE)?;
            board.opened(partition).fetched.set(high);
        }
        let metrics = Arc::new(Metrics::new()?);
        let history = KafkaHistory::start(HistoryParts {
            kafka: IngestSettings::new(kafka.connection(), topic, "bench-history", "bench"),
            judge: JudgeSettings::default(),
            readers,
            cache_bytes,
            board: board.clone(),
            monitor: Arc::new(KafkaMonitor::new(metrics)),
        })?;
        Ok(Self { history, board, name: name.into() })
    }

    /// Reads up to `most` records of each partition, as a session would; answers how many records and pages came.
    async fn read(&self, most: i64) -> Result<(u64, u64)> {
        let end = |partition: i32| self.board.opened(partition).fetched.get().unwrap_or(0).min(most);
        let mut lines: Vec<Line> = (0..PARTITIONS)
            .map(|partition| Line {
                partition,
                cursor: 0,
                until: end(partition),
                redis: Tier::off(),
                kafka: Tier::unknown(),
            })
            .collect();
        let (mut turn, mut records, mut pages) = (Turn::default(), 0, 0);
        loop {
            lines.retain(|line| line.cursor < line.until);
            if lines.is_empty() {
                return Ok((records, pages));
            }
            let planned = plan(&lines, Limits { records: PAGE_RECORDS, bytes: PAGE_BYTES }, turn, Patience::Left);
            (turn, pages) = (planned.turn, pages + 1);
            let deadline = Instant::now() + PATIENCE;
            let answers = join_all(planned.steps.iter().filter_map(|step| {
                let request = step.request(1, &self.name)?;
                Some(async move { (*step, self.history.page(&request, deadline).await) })
            }));
            for (step, answer) in answers.await {
                let Step::Read { source, partition, until, .. } = step else { continue };
                let line = lines.iter_mut().find(|line| line.partition == partition).ok_or("no line")?;
                if !line.answered(source, until, &answer) {
                    return Err(format!("partition {partition}: {answer:?}").into());
                }
                let page = answer?;
                records += page.chunks.iter().map(|chunk| u64::from(chunk.records)).sum::<u64>();
                line.cursor = page.next().ok_or("an empty page")?;
            }
        }
    }
}
