//! History from Kafka itself, for whoever needs what the memory window does not hold any more: bounded, paged, off the live
//! path.
//!
//! Questions wait in a bounded queue for a few threads, each with a consumer of its own. A page is judged and encoded as
//! the live stream is, but nothing is counted as an outcome, no dead letter is written and nothing stands still: that was
//! done when the record was live. What belongs to another epoch is never answered. It must not know who asks.
//!
//! What the live stream has beyond this: findings of the sequence check, which depend on all that came before a record.

mod cache;

mod partition;

mod questions;

mod queue;

mod reader;

mod round;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Semaphore, oneshot};

use self::cache::Cache;
use self::queue::{Answer, Offsets, PageJob, Queue};
use super::monitor::KafkaMonitor;
use super::settings::IngestSettings;
use super::stop::Stop;
use crate::board::Board;
use crate::metrics::Metrics;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::page::{Page, PageRequest, TierError};

/// Questions that may wait or be under way; more wait with whoever asks.
const MAX_QUESTIONS: usize = 256;
/// The label of this tier.
const TIER: &str = "kafka";

/// What history reading needs.
#[derive(Debug)]
pub struct HistoryParts {
    /// How to reach the topic.
    pub kafka: IngestSettings,
    /// What records may look like: the same as live.
    pub judge: JudgeSettings,
    /// Threads that read, at least 1.
    pub readers: usize,
    /// Bytes of what was lately read that are kept; 0: none.
    pub cache_bytes: usize,
    /// The epoch, and how far the live reader is.
    pub board: Board,
    /// Where faults go, and the metrics.
    pub monitor: Arc<KafkaMonitor>,
}

/// The readers of history. Cloning shares them; they end with the last clone.
#[derive(Clone, Debug)]
pub struct KafkaHistory(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

/// What the readers share with those who ask.
#[derive(Debug)]
struct Shared {
    parts: HistoryParts,
    queue: Queue,
    cache: Mutex<Cache>,
    stop: Stop,
}

impl KafkaHistory {
    /// Starts the threads; none of them connects before there is something to read.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(parts: HistoryParts) -> std::io::Result<Self> {
        let readers = parts.readers.max(1);
        let shared = Arc::new(Shared {
            cache: Mutex::new(Cache::new(parts.cache_bytes)),
            parts,
            queue: Queue::default(),
            stop: Stop::new(),
        });
        let history =
            Self(Arc::new(Handle { shared: Arc::clone(&shared), permits: Arc::new(Semaphore::new(MAX_QUESTIONS)) }));
        for number in 0..readers {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("kafka-history-{number}")).spawn(move || reader::run(&shared))?;
        }
        Ok(history)
    }

    /// Reads a page. Offsets without a record (compaction, transaction markers, aborted records) are skips; what cannot be
    /// processed is the same skip as live. When the log begins above `from`, the page is empty and `low` is the log's start.
    /// A page that ends early is no sign of an end: ask on. Empty without `low`: the log ends at or before `from`.
    ///
    /// # Errors
    /// [`TierError::Timeout`] at the deadline; [`TierError::Unavailable`] when Kafka refuses; [`TierError::EpochOver`] when
    /// the epoch of the request is not the current one, or ended while the page was read.
    pub async fn page(&self, request: &PageRequest, deadline: Instant) -> Result<Page, TierError> {
        let started = Instant::now();
        let answer = self.cached_or_read(request, deadline).await;
        let result = match &answer {
            Ok(page) if page.chunks.is_empty() => "empty",
            Ok(_) => "served",
            Err(TierError::Timeout) => "timeout",
            Err(TierError::Unavailable(_)) => "unavailable",
            Err(TierError::EpochOver) => "epoch_over",
        };
        let metrics = self.0.shared.metrics();
        metrics.history_pages.with_label_values(&[TIER, result]).inc();
        metrics.history_page_seconds.with_label_values(&[TIER]).observe(started.elapsed().as_secs_f64());
        if let Ok(page) = &answer
            && !page.chunks.is_empty()
        {
            let records: u32 = page.chunks.iter().map(|chunk| chunk.records).sum();
            metrics.history_page_records.with_label_values(&[TIER]).observe(f64::from(records));
        }
        answer
    }

    /// The offset from which on records are at least as new as `time_ms` (Unix milliseconds), for every partition: its log
    /// start when all are, its end when none is.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn offsets_at(&self, epoch: u64, time_ms: i64, deadline: Instant) -> Result<Vec<(i32, i64)>, TierError> {
        self.0.shared.is_current(epoch)?;
        self.ask(deadline, |answer| {
            self.0.shared.queue.push_offsets(Offsets { epoch, time_ms, deadline, answer });
        })
        .await
    }

    /// Ends the readers. Open questions are answered as failed.
    pub fn stop(&self) {
        self.0.stop();
    }

    async fn cached_or_read(&self, request: &PageRequest, deadline: Instant) -> Result<Page, TierError> {
        let shared = &self.0.shared;
        shared.is_current(request.epoch)?;
        if request.from >= request.until {
            return Ok(Page::default());
        }
        if let Some(page) = shared.cached(request) {
            return Ok(page);
        }
        self.ask(deadline, |answer| {
            shared.queue.push_page(PageJob { request: request.clone(), deadline, put_back: 0, answer });
        })
        .await
    }

    /// Waits for room, puts the question and waits for its answer; gives up at the deadline. A reader notices that nobody
    /// waits any more.
    async fn ask<T>(&self, deadline: Instant, put: impl FnOnce(Answer<T>)) -> Result<T, TierError> {
        let ended = || TierError::Unavailable("the reader of history has ended or failed unexpectedly".into());
        let answered = async {
            let permit = Arc::clone(&self.0.permits).acquire_owned().await.map_err(|_| ended())?;
            let (sender, answered) = oneshot::channel();
            put(Answer::new(sender, permit));
            answered.await.map_err(|_| ended())?
        };
        let _open = OpenQuestion::new(self.0.shared.metrics());
        tokio::time::timeout_at(deadline.into(), answered).await.map_err(|_| TierError::Timeout)?
    }
}

/// A question that is counted until it is answered, or nobody waits for it any more.
struct OpenQuestion<'a>(&'a Metrics);

impl<'a> OpenQuestion<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.history_questions.inc();
        Self(metrics)
    }
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.0.history_questions.dec();
    }
}

impl Handle {
    fn stop(&self) {
        self.shared.stop.stop();
        self.shared.queue.close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn metrics(&self) -> &Metrics {
        self.parts.monitor.metrics()
    }

    fn is_current(&self, epoch: u64) -> Result<(), TierError> {
        if self.parts.board.epoch_number() == epoch { Ok(()) } else { Err(TierError::EpochOver) }
    }

    fn cached(&self, request: &PageRequest) -> Option<Page> {
        let found = self.cache.lock().unwrap_or_else(PoisonError::into_inner).page(request);
        if found.is_some() {
            self.metrics().history_cache_lookups.with_label_values(&["hit"]).inc();
        }
        found
    }
}

#[cfg(test)]
mod round_tests;

#[cfg(test)]
mod tests;
