//! Sends records to a topic and tells where Kafka has put each: the truth that readers are held against.
//!
//! Blocks: it belongs on a thread of its own. All of what it sent is kept in memory. Who makes a topic anew begins with a new
//! call: a producer that saw the topic while it was away refuses its records for seconds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio_util::sync::CancellationToken;

use super::connection::KafkaConnection;
use super::load_producer::LoadError;
use crate::generate::defects::Record;

/// How long the end waits for acknowledgements.
const FLUSH: Duration = Duration::from_secs(60);
/// The longest wait before the stop is looked at again.
const TICK: Duration = Duration::from_millis(20);

/// A record as it lies in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Sends records, each to its partition, until there are no more or until `stop`; not more than `rate` per second.
///
/// # Errors
/// When no producer can be made, and when one record was not acknowledged: then nobody knows what lies in the topic.
pub fn send(
    connection: &KafkaConnection,
    topic: &str,
    rate: f64,
    records: impl Iterator<Item = (i32, Record)>,
    stop: &CancellationToken,
) -> Result<Vec<Placed>, LoadError> {
    let mut config = connection.client_config("torture");
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("message.max.bytes", "67108864")
        .set("message.timeout.ms", "120000");
    let producer: BaseProducer<Reports> = config.create_with_context(Reports::default()).map_err(LoadError::Client)?;
    let failed = |source| LoadError::Send { topic: topic.to_owned(), source };
    let started = Instant::now();
    for (sent, (partition, record)) in records.enumerate() {
        let due = Duration::try_from_secs_f64(sent as f64 / rate).unwrap_or(Duration::MAX);
        while !stop.is_cancelled() && started.elapsed() < due {
            producer.poll(TICK.min(due.saturating_sub(started.elapsed())));
        }
        if stop.is_cancelled() {
            break;
        }
        let Record { key, value } = record;
        let mut message: BaseRecord<'_, str, [u8], Box<Option<Vec<u8>>>> =
            BaseRecord::with_opaque_to(topic, Box::new(value.clone())).key(&*key).partition(partition);
        if let Some(value) = &value {
            message = message.payload(value);
        }
        while let Err((error, back)) = producer.send(message) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(failed(error));
            }
            message = back;
            producer.poll(TICK);
        }
    }
    producer.flush(FLUSH).map_err(failed)?;
    producer.context().reports().error.take().map_or(Ok(()), |error| Err(failed(error)))?;
    let placed = std::mem::take(&mut producer.context().reports().placed);
    Ok(placed)
}

#[derive(Debug, Default)]
struct Reports(Mutex<Reported>);

#[derive(Debug, Default)]
struct Reported {
    placed: Vec<Placed>,
    error: Option<KafkaError>,
}

impl Reports {
    fn reports(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka load producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Option<Vec<u8>>>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, value: Box<Option<Vec<u8>>>) {
        let mut reports = self.reports();
        match delivery {
            Ok(message) => {
                let placed = Placed { partition: message.partition(), offset: message.offset(), value: *value };
                reports.placed.push(placed);
            }
            Err((error, _)) => reports.error = Some(error.clone()),
        }
    }
}
