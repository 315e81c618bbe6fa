//! Looks the bounds of all partitions up at an interval, on a thread and client of its own: looking never slows reading.
//!
//! It publishes what it saw on the board and the metrics; what it means is [`crate::pipeline::lag`]'s business.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::connection::KafkaConnection;
use super::monitor::{KafkaMonitor, MonitorContext, serve_until};
use super::stop::Stop;
use super::watermarks::{Watermarks, known_watermarks};
use crate::board::{Board, PartitionBoard};
use crate::metrics::Metrics;
use crate::pipeline::lag::{LagTracker, Look, catching_up};

/// The longest that one request of a look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds that were seen this many intervals ago are not known any more.
const STALE_INTERVALS: u32 = 3;

/// What the poller needs.
#[derive(Debug)]
pub struct LagPoller {
    /// How to reach Kafka.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// Between looks.
    pub interval: Duration,
    /// Positions and ownership.
    pub board: Board,
    /// Where faults go, and the metrics.
    pub monitor: Arc<KafkaMonitor>,
    /// Ends the thread.
    pub stop: Stop,
}

struct Shown {
    epoch: u64,
    tracker: LagTracker,
    lag: BTreeSet<i32>,
    catchup: BTreeSet<i32>,
}

impl LagPoller {
    /// Looks until stopped.
    ///
    /// # Errors
    /// When no client can be made from the settings.
    pub fn run(self) -> Result<(), KafkaError> {
        let context = MonitorContext { client: "lag-monitor", monitor: Arc::clone(&self.monitor) };
        let mut config = self.connection.client_config("lag-monitor");
        config.set("topic.metadata.refresh.interval.ms", "-1");
        let client: BaseConsumer<MonitorContext> = config.create_with_context(context)?;
        for status in ["success", "failure"] {
            let _ = self.metrics().lag_poll_duration.with_label_values(&[status]);
        }
        // What an earlier generation showed is not known to this one.
        self.metrics().consumer_lag.reset();
        self.metrics().lag_offset_age.reset();
        self.metrics().catchup_phase.reset();
        let start = Instant::now();
        let mut shown =
            Shown { epoch: 0, tracker: LagTracker::default(), lag: BTreeSet::new(), catchup: BTreeSet::new() };
        loop {
            let partitions = self.board.partitions();
            let epoch = self.board.epoch_number();
            let marks = if partitions.is_empty() { None } else { self.look(&client, &partitions) };
            // A look may take seconds; by then a successor may be at work.
            if epoch == self.board.epoch_number() && !self.stop.is_stopped() {
                let now_ms = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
                self.show(&mut shown, epoch, &partitions, marks.as_deref(), now_ms);
            }
            // Nothing is there to look at yet: look again soon.
            let wait =
                if partitions.is_empty() { self.interval.min(Duration::from_millis(200)) } else { self.interval };
            if serve_until(&self.stop, &client, wait) {
                return Ok(());
            }
        }
    }

    fn metrics(&self) -> &Metrics {
        self.monitor.metrics()
    }

    fn look(
        &self,
        client: &BaseConsumer<MonitorContext>,
        partitions: &[Arc<PartitionBoard>],
    ) -> Option<Vec<Watermarks>> {
        let asked: Vec<i32> = partitions.iter().map(|board| board.partition).collect();
        let start = Instant::now();
        let result: KafkaResult<_> = known_watermarks(client, &self.topic, &asked, LOOK_TIMEOUT);
        let complete = result.as_ref().is_ok_and(|marks| marks.len() == asked.len());
        let status = if complete { "success" } else { "failure" };
        self.metrics().lag_poll_duration.with_label_values(&[status]).observe(start.elapsed().as_secs_f64());
        match result {
            Ok(marks) => {
                if !complete {
                    self.metrics().lag_poll_failures.inc();
                    let error = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);
                    self.monitor.fault("lag-monitor", "look up the bounds of every partition", &error, "");
                }
                Some(marks)
            }
            Err(error) => {
                self.metrics().lag_poll_failures.inc();
                self.monitor.fault("lag-monitor", "look up the bounds of the topic", &error, "");
                None
            }
        }
    }

    /// Publishes a look. Series of partitions that are not owned, and of values that are not known, disappear.
    fn show(
        &self,
        shown: &mut Shown,
        epoch: u64,
        partitions: &[Arc<PartitionBoard>],
        marks: Option<&[Watermarks]>,
        now_ms: i64,
    ) {
        if shown.epoch != epoch {
            self.remove(shown);
            shown.epoch = epoch;
        }
        let stale = i64::try_from((self.interval * STALE_INTERVALS + 2 * LOOK_TIMEOUT).as_millis()).unwrap_or(i64::MAX);
        let (mut lag_now, mut catchup_now) = (BTreeSet::new(), BTreeSet::new());
        for board in partitions {
            let label = board.partition.to_string();
            let mark = marks.and_then(|marks| marks.iter().find(|mark| mark.partition == board.partition));
            if let Some(mark) = mark {
                board.low_watermark.set(mark.low);
                board.high_watermark.set(mark.high);
            }
            let handled = board.stored.get().or_else(|| board.start.get());
            if let Some(catching_up) = catching_up(board.end_at_start.get(), board.stored.get(), board.start.get()) {
                self.metrics().catchup_phase.with_label_values(&[&label]).set(i64::from(catching_up));
                catchup_now.insert(board.partition);
            }
            if board.duty_term.load(Ordering::Acquire) == 0 {
                continue;
            }
            let look = Look { watermarks: mark.map(|mark| (mark.low, mark.high)), handled, now_ms };
            if let Some(lag) = shown.tracker.look(board.partition, look, stale) {
                self.metrics().consumer_lag.with_label_values(&[&label]).set(lag.records);
                self.metrics().lag_offset_age.with_label_values(&[&label]).set(lag.age_seconds);
                lag_now.insert(board.partition);
            }
        }
        self.remove_lag(shown.lag.difference(&lag_now));
        self.remove_catchup(shown.catchup.difference(&catchup_now));
        shown.tracker.retain(|partition| {
            partitions.iter().any(|b| b.partition == partition && b.duty_term.load(Ordering::Acquire) != 0)
        });
        (shown.lag, shown.catchup) = (lag_now, catchup_now);
    }

    fn remove(&self, shown: &mut Shown) {
        self.remove_lag(shown.lag.iter());
        self.remove_catchup(shown.catchup.iter());
        shown.lag.clear();
        shown.catchup.clear();
        shown.tracker = LagTracker::default();
    }

    fn remove_lag<'a>(&self, partitions: impl Iterator<Item = &'a i32>) {
        for partition in partitions {
            let label = partition.to_string();
            // It is there: only shown partitions are removed.
            let _ = self.metrics().consumer_lag.remove_label_values(&[&label]);
            let _ = self.metrics().lag_offset_age.remove_label_values(&[&label]);
        }
    }

    fn remove_catchup<'a>(&self, partitions: impl Iterator<Item = &'a i32>) {
        for partition in partitions {
            let _ = self.metrics().catchup_phase.remove_label_values(&[&partition.to_string()]);
        }
    }
}
