//! Reads dead letters and the records that they are about, and writes records back: for people at a command line.
//!
//! Blocks. It commits nothing and joins no group, so it never disturbs a service. It must not know what a letter says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::connection::KafkaConnection;
use super::errors::is_lost_position;
use super::topic::append_headers;
use super::watermarks::{Watermarks, watermarks};
use crate::pipeline::letters::Record;
use crate::pipeline::record::decode_headers;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);
/// How long nothing may come while something must.
const SILENCE: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(100);
/// How long Kafka may take to acknowledge a record.
const SEND_TIMEOUT_MS: &str = "30000";
/// Kafka's own clients ask for a group although there is none.
const NO_GROUP: &str = "dashstream-cli";

/// Why reading or writing failed.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The client's configuration is wrong.
    #[error("cannot create a Kafka client; check the brokers and the security settings")]
    Client(#[source] KafkaError),
    /// The topic is not there.
    #[error("topic {0} does not exist; name the right one with --dlq-topic or KAFKA_DLQ_TOPIC, or check KAFKA_TOPIC")]
    Missing(String),
    /// Kafka does not answer, or refuses.
    #[error("cannot read topic {topic}; check that brokers answer and that the user may read it")]
    Read {
        /// The topic.
        topic: String,
        /// What Kafka said.
        source: KafkaError,
    },
    /// Kafka answers, but the records do not come.
    #[error("topic {topic}, partition {partition}: nothing came for {} s from offset {offset} on", SILENCE.as_secs())]
    Silence {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A record could not be written.
    #[error("cannot write to topic {topic}")]
    Write {
        /// The topic.
        topic: String,
        /// What Kafka said.
        source: KafkaError,
    },
}

/// What lies in the dead-letter topic at one place.
#[derive(Debug)]
pub struct Entry {
    /// Partition of the dead-letter topic.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
    /// The key.
    pub key: String,
    /// The letter's text; `None` when everything before it under its key is settled.
    pub json: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Reads ranges of topics.
pub struct LetterReader {
    consumer: BaseConsumer,
    /// Bounds of the topics from which single records are fetched; `None` for one that does not exist.
    known: RefCell<HashMap<String, Option<Vec<Watermarks>>>>,
}

impl std::fmt::Debug for LetterReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterReader").finish_non_exhaustive()
    }
}

impl LetterReader {
    /// A reader that has not connected yet.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(connection: &KafkaConnection) -> Result<Self, LetterError> {
        let mut config: ClientConfig = connection.client_config("letters");
        config
            .set("group.id", NO_GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            // It moves from place to place: a question that waits for more at the old one would hold up the next.
            .set("fetch.wait.max.ms", "10")
            .set("queued.max.messages.kbytes", "16384");
        Ok(Self { consumer: config.create().map_err(LetterError::Client)?, known: RefCell::default() })
    }

    /// The bounds of every partition of a topic. Blocks, at most half a minute.
    ///
    /// # Errors
    /// When the topic does not exist or Kafka does not answer.
    pub fn bounds(&self, topic: &str) -> Result<Vec<Watermarks>, LetterError> {
        let failed = |source| LetterError::Read { topic: topic.to_owned(), source };
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK).map_err(failed)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.filter(|found| found.error().is_none() && !found.partitions().is_empty());
        let Some(found) = found else { return Err(LetterError::Missing(topic.to_owned())) };
        let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        watermarks(&self.consumer, topic, &partitions, ASK).map_err(failed)
    }

    /// Hands over everything of a partition in `[from, to)`, in order, as long as `each` says so. Blocks.
    ///
    /// # Errors
    /// When Kafka fails or falls silent, and what `each` answers.
    pub fn read<E: From<LetterError>>(
        &self,
        topic: &str,
        partition: i32,
        (from, to): (i64, i64),
        mut each: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<(), E> {
        if from >= to {
            return Ok(());
        }
        self.go_to(topic, partition, from)?;
        while let Some(message) = self.next(topic, partition, from)? {
            if message.offset() >= to {
                break;
            }
            let offset = message.offset();
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let json = message.payload().map(<[u8]>::to_vec);
            let entry = Entry { partition, offset, key, json, headers: headers(&message) };
            if !each(entry)? || offset + 1 >= to {
                break;
            }
        }
        Ok(())
    }

    /// The record at an offset; `None` when the topic does not have it any more. Blocks.
    ///
    /// # Errors
    /// When Kafka fails or falls silent: then nobody knows.
    pub fn fetch(&self, topic: &str, partition: i32, offset: i64) -> Result<Option<Record>, LetterError> {
        if !self.may_have(topic, partition, offset)? {
            return Ok(None);
        }
        self.go_to(topic, partition, offset)?;
        let found = self.next(topic, partition, offset)?.filter(|message| message.offset() == offset);
        Ok(found.map(|message| Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers(&message),
        }))
    }

    /// Whether a topic has an offset, as far as its bounds say. They are asked once: the end only grows, and a start that
    /// moves meanwhile is noticed by reading.
    fn may_have(&self, topic: &str, partition: i32, offset: i64) -> Result<bool, LetterError> {
        let mut known = self.known.borrow_mut();
        if !known.contains_key(topic) {
            let bounds = match self.bounds(topic) {
                Ok(bounds) => Some(bounds),
                Err(LetterError::Missing(_)) => None,
                Err(error) => return Err(error),
            };
            known.insert(topic.to_owned(), bounds);
        }
        let bounds = known.get(topic).and_then(Option::as_ref).map(Vec::as_slice).unwrap_or_default();
        Ok(bounds.iter().any(|mark| mark.partition == partition && (mark.low..mark.high).contains(&offset)))
    }

    fn go_to(&self, topic: &str, partition: i32, offset: i64) -> Result<(), LetterError> {
        let failed = |source| LetterError::Read { topic: topic.to_owned(), source };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        self.consumer.assign(&list).map_err(failed)
    }

    /// The next record; `None` at the end of the partition, or when the position is not in the log any more.
    fn next(&self, topic: &str, partition: i32, offset: i64) -> Result<Option<BorrowedMessage<'_>>, LetterError> {
        let deadline = Instant::now() + SILENCE;
        while Instant::now() < deadline {
            match self.consumer.poll(TURN) {
                None => {}
                Some(Ok(message)) => return Ok(Some(message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_lost_position(code) => return Ok(None),
                    // The client goes on by itself; if it does not, the deadline ends it.
                    Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut) => {}
                    _ => return Err(LetterError::Read { topic: topic.to_owned(), source: error }),
                },
            }
        }
        Err(LetterError::Silence { topic: topic.to_owned(), partition, offset })
    }
}

/// All headers of a record, whatever their names are made of.
fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut encoded = Vec::new();
    append_headers(message, &mut encoded);
    decode_headers(&encoded).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect()
}

/// Writes records one at a time, each acknowledged by all replicas before the next.
pub struct LetterWriter {
    producer: BaseProducer<Reports>,
}

impl std::fmt::Debug for LetterWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterWriter").finish_non_exhaustive()
    }
}

impl LetterWriter {
    /// A writer that has not connected yet.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(connection: &KafkaConnection) -> Result<Self, LetterError> {
        let mut config = connection.client_config("letters");
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.max.bytes", "67108864")
            .set("message.timeout.ms", SEND_TIMEOUT_MS);
        Ok(Self { producer: config.create_with_context(Reports).map_err(LetterError::Client)? })
    }

    /// Writes one record and answers its offset. Without a value it is a tombstone. Blocks.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub fn write(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(String, Option<Vec<u8>>)],
    ) -> Result<i64, LetterError> {
        let failed = |source| LetterError::Write { topic: topic.to_owned(), source };
        let (report, reported) = mpsc::sync_channel(1);
        let insert = |all: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
            all.insert(Header { key: name, value: value.as_ref() })
        };
        let owned = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), insert);
        let mut record: BaseRecord<'_, [u8], [u8], Report> =
            BaseRecord::with_opaque_to(topic, Box::new(report)).partition(partition).headers(owned);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        self.producer.send(record).map_err(|(error, _)| failed(error))?;
        // The client itself gives up after its message timeout.
        let deadline = Instant::now() + SILENCE + ASK;
        loop {
            self.producer.poll(TURN);
            match reported.try_recv() {
                Ok(delivered) => return delivered.map_err(failed),
                Err(_) if Instant::now() > deadline => {
                    return Err(failed(KafkaError::MessageProduction(Code::MessageTimedOut)));
                }
                Err(_) => {}
            }
        }
    }
}

impl Drop for LetterWriter {
    fn drop(&mut self) {
        // Everything was acknowledged or given up; nothing is worth waiting for.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

type Report = Box<mpsc::SyncSender<Result<i64, KafkaError>>>;

/// Tells who waits what became of a record.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Report;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Report) {
        let told = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // Who has given up does not listen any more.
        let _ = report.try_send(told);
    }
}
