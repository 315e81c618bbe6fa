//! Sends an endless source of records to a topic: in its own time, at a rate, or as fast as Kafka takes them.
//!
//! Blocks: it belongs on a thread of its own. It must not know what the records say.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::connection::KafkaConnection;
use super::topics::{TopicAdmin, TopicError};
use crate::generate::defects::Record;
use crate::generate::records::{Records, Source};
use crate::pipeline::topic_plan::TopicPlan;

/// How long the end of the count waits for acknowledgements.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stop waits for them: somebody is waiting for the end.
const STOP_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait before the stop is looked at again.
const TICK: Duration = Duration::from_millis(50);
/// Records between two looks at clock, stop and acknowledgements.
const BURST: u64 = 256;

/// What is sent where, and how fast.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// The cluster.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// Creates the topic with so many partitions; a topic that exists is left as it is.
    pub create_partitions: Option<i32>,
    /// The records.
    pub source: Source,
    /// How fast.
    pub pace: Pace,
    /// Ends after so many records.
    pub count: Option<u64>,
    /// How often progress is told.
    pub progress_interval: Duration,
}

/// How fast records are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// In the source's own time, so many times faster.
    OwnTime(f64),
    /// Records per second.
    Rate(f64),
    /// As fast as Kafka takes them.
    Unlimited,
}

/// What has been sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Records acknowledged by Kafka.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records that Kafka refused or did not acknowledge in time.
    pub failed: u64,
    /// Time since the first record.
    pub seconds: f64,
    /// Why the last failed record failed.
    pub last_error: Option<String>,
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The client's configuration is wrong.
    #[error("cannot create the Kafka producer; check the brokers and the security settings")]
    Client(#[source] KafkaError),
    /// The topic is not there.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The producer cannot go on.
    #[error("the Kafka producer failed for good: {0}")]
    Fatal(String),
    /// A record could not be handed over.
    #[error("cannot send to topic {topic}")]
    Send {
        /// Its name.
        topic: String,
        /// What the client said.
        source: KafkaError,
    },
    /// Compression is not available.
    #[error("cannot prepare the encoder")]
    Encoder(#[source] std::io::Error),
}

/// Sends until `stop`, or until the count is reached, then waits for acknowledgements. Tells progress now and then.
///
/// # Errors
/// When the producer or the topic cannot be created, and when the producer fails for good. Records that fail one by one
/// are counted in the report.
pub fn run(
    settings: &LoadSettings,
    stop: &CancellationToken,
    progress: &mut dyn FnMut(&LoadReport),
) -> Result<LoadReport, LoadError> {
    if let Some(partitions) = settings.create_partitions {
        TopicAdmin::new(&settings.connection)?.create(&TopicPlan::plain(&settings.topic, partitions))?;
    }
    let mut records = Records::new(&settings.source).map_err(LoadError::Encoder)?;
    let mut config = settings.connection.client_config("load");
    let linger_ms = if settings.pace == Pace::Unlimited { "50" } else { "2" };
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", linger_ms)
        .set("batch.size", "1048576")
        .set("batch.num.messages", "20000")
        .set("message.max.bytes", "67108864")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.timeout.ms", "60000");
    let producer: BaseProducer<Counts> = config.create_with_context(Counts::default()).map_err(LoadError::Client)?;
    let load = Load { settings, producer, started: Instant::now(), told: RefCell::new(Instant::now()) };
    load.send_all(&mut records, stop, progress)?;
    load.finish(if stop.is_cancelled() { STOP_FLUSH_TIMEOUT } else { FLUSH_TIMEOUT })
}

struct Load<'a> {
    settings: &'a LoadSettings,
    producer: BaseProducer<Counts>,
    started: Instant,
    told: RefCell<Instant>,
}

impl Load<'_> {
    fn send_all(
        &self,
        records: &mut Records,
        stop: &CancellationToken,
        progress: &mut dyn FnMut(&LoadReport),
    ) -> Result<(), LoadError> {
        let mut clock = self.started;
        let mut sent = 0_u64;
        let mut unpolled = 0_u64;
        while !stop.is_cancelled() && self.settings.count.is_none_or(|count| sent < count) {
            let elapsed = clock.elapsed();
            let (allowed, wait) = match self.settings.pace {
                Pace::Unlimited => (BURST, Duration::ZERO),
                Pace::Rate(rate) => allowance(rate, sent, elapsed),
                Pace::OwnTime(speed) => {
                    let due = Duration::from_secs_f64(records.next_at_us() as f64 / 1e6 / speed.max(1e-6));
                    // After a stall the schedule moves, instead of a flood that makes up for it.
                    if elapsed > due + Duration::from_secs(2) {
                        clock += elapsed - due;
                    }
                    (u64::from(due <= elapsed), due.saturating_sub(elapsed))
                }
            };
            let left = self.settings.count.map_or(u64::MAX, |count| count - sent);
            for _ in 0..allowed.min(left) {
                let Some(record) = records.next_record(now_us()) else { return Ok(()) };
                self.send(&record, stop)?;
                sent += 1;
            }
            unpolled += allowed;
            // An endless run of due records must not keep the acknowledgements waiting either.
            if allowed == 0 || unpolled >= BURST {
                unpolled = 0;
                self.producer.poll(if allowed == 0 { wait.min(TICK) } else { Duration::ZERO });
                self.look_around(progress)?;
            }
        }
        Ok(())
    }

    /// Hands a record over, waiting for room as long as that takes.
    fn send(&self, record: &Record, stop: &CancellationToken) -> Result<(), LoadError> {
        let mut message: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.settings.topic).key(&*record.key);
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    message = back;
                    self.producer.poll(Duration::from_millis(5));
                    self.fatal()?;
                }
                Err((KafkaError::MessageProduction(code @ RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    self.producer.context().fail(&KafkaError::MessageProduction(code));
                    return Ok(());
                }
                Err((source, _)) => return Err(LoadError::Send { topic: self.settings.topic.clone(), source }),
            }
        }
    }

    fn look_around(&self, progress: &mut dyn FnMut(&LoadReport)) -> Result<(), LoadError> {
        let mut told = self.told.borrow_mut();
        if told.elapsed() < self.settings.progress_interval {
            return Ok(());
        }
        *told = Instant::now();
        self.fatal()?;
        progress(&self.report());
        Ok(())
    }

    fn fatal(&self) -> Result<(), LoadError> {
        match self.producer.client().fatal_error() {
            Some((_, reason)) => Err(LoadError::Fatal(reason)),
            None => Ok(()),
        }
    }

    fn report(&self) -> LoadReport {
        let counts = self.producer.context();
        LoadReport {
            records: counts.records.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            seconds: self.started.elapsed().as_secs_f64(),
            last_error: counts.last_error.lock().map_or(None, |error| error.clone()),
        }
    }

    fn finish(&self, timeout: Duration) -> Result<LoadReport, LoadError> {
        let flushed = self.producer.flush(timeout);
        self.producer.poll(Duration::ZERO);
        self.fatal()?;
        let mut report = self.report();
        if let Err(error) = flushed {
            report.failed += u64::try_from(self.producer.in_flight_count()).unwrap_or_default();
            report.last_error.get_or_insert_with(|| error.to_string());
        }
        Ok(report)
    }
}

/// How many records may be sent by now, and how long to wait when there are none.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates at the bounds of the integer"
)]
fn allowance(rate: f64, sent: u64, elapsed: Duration) -> (u64, Duration) {
    let allowed = (rate * elapsed.as_secs_f64()) as u64;
    if allowed > sent {
        return ((allowed - sent).min(BURST), Duration::ZERO);
    }
    let next = Duration::try_from_secs_f64((sent + 1) as f64 / rate).unwrap_or(Duration::MAX);
    // Not more often than a thousand times a second: that is what a wake costs.
    (0, next.saturating_sub(elapsed).max(Duration::from_millis(1)))
}

/// Counts what became of the records.
#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    fn fail(&self, error: &KafkaError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut last) = self.last_error.lock() {
            *last = Some(error.to_string());
        }
    }
}

impl ClientContext for Counts {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka load producer");
    }
}

impl ProducerContext for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        match delivery {
            Ok(message) => {
                self.records.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
            }
            Err((error, _)) => self.fail(error),
        }
    }
}

fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_on_average_and_bursts_are_bounded() {
        for rate in [0.5, 30.0, 1_000.0, 100_000.0] {
            let mut sent = 0;
            for step in 0..5_000_u64 {
                let elapsed = Duration::from_millis(step * 2);
                let (allowed, wait) = allowance(rate, sent, elapsed);
                assert!(allowed <= BURST && (allowed > 0) == wait.is_zero());
                sent += allowed;
                assert!(sent as f64 <= rate * elapsed.as_secs_f64());
            }
            assert!(sent as f64 >= rate * 9.99 - BURST as f64, "{sent} at {rate}");
        }
    }
}
