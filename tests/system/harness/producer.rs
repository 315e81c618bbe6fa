//! An independent producer, which remembers what it published and where Kafka put it.
//!
//! A client that saw a topic while it was away refuses its records for seconds: who makes a topic anew publishes with a
//! producer that began afterwards.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use dashstream::torture::ledger::Fingerprint;
use dashstream::torture::truth::{Expected, Truth};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, util::Timeout};

use super::records::{Expect, Outgoing};

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// A record as it lies in Kafka.
#[derive(Clone, Debug)]
pub struct Sent {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Option<Bytes>,
    pub expect: Expect,
}

/// What was published, by partition and offset: the truth against which clients are held.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub records: BTreeMap<(i32, i64), Sent>,
}

impl Published {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn extend(&mut self, other: Published) {
        self.records.extend(other.records);
    }

    /// What clients have to be told of it.
    pub fn truth(&self) -> Truth {
        let expected = |sent: &Sent| match (sent.expect, &sent.value) {
            (Expect::Skip(reason), _) => Expected::Skip(reason),
            (Expect::Record, value) => Expected::Record(Fingerprint::of(value.as_deref().unwrap_or_default())),
        };
        Truth { expected: self.records.iter().map(|(place, sent)| (*place, expected(sent))).collect() }
    }

    /// Records that clients must get.
    pub fn good(&self) -> usize {
        self.records.values().filter(|sent| sent.expect == Expect::Record).count()
    }

    /// Records that the decode policy has to set aside.
    pub fn bad(&self) -> usize {
        self.len() - self.good()
    }

    /// Per partition the offset after the last record.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        // The keys ascend, so the last one of a partition stays.
        self.records.keys().map(|&(partition, offset)| (partition, offset + 1)).collect()
    }
}

/// Idempotent and with all acknowledgements: each record is in the log once, in the order in which it was handed over.
pub struct Producer {
    inner: ThreadedProducer<Reports>,
}

impl Producer {
    pub fn new(kafka: &str) -> Self {
        let inner = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "200000")
            .set("message.max.bytes", "33554432")
            .set("message.timeout.ms", "120000")
            .create_with_context(Reports)
            .expect("valid producer settings");
        Self { inner }
    }

    /// Publishes all and waits until Kafka has acknowledged all. Order is kept per partition.
    pub fn publish(&self, topic: &str, records: impl IntoIterator<Item = Outgoing>) -> Published {
        let (reports, delivered) = mpsc::channel();
        let mut handed_over = 0_usize;
        for record in records {
            self.hand_over(topic, record, &reports);
            handed_over += 1;
        }
        drop(reports);
        self.inner.flush(Timeout::After(DELIVERY_TIMEOUT)).expect("Kafka takes the records in time");
        let published =
            Published { records: delivered.iter().map(|sent| ((sent.partition, sent.offset), sent)).collect() };
        assert_eq!(published.len(), handed_over, "every record must lie at an offset of its own");
        published
    }

    fn hand_over(&self, topic: &str, record: Outgoing, reports: &mpsc::Sender<Sent>) {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let pending = Box::new(Pending { record: record.clone(), reports: reports.clone() });
        let mut message = BaseRecord::with_opaque_to(topic, pending).key(&record.key).headers(headers);
        if let Some(value) = &record.value {
            message = message.payload(value.as_ref());
        }
        if let Some(partition) = record.partition {
            message = message.partition(partition);
        }
        // A full queue empties itself: the producer has its own thread.
        while let Err((error, back)) = self.inner.send(message) {
            assert!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "the producer refused a record: {error}"
            );
            std::thread::yield_now();
            message = back;
        }
    }
}

/// What comes back with a delivery report.
struct Pending {
    record: Outgoing,
    reports: mpsc::Sender<Sent>,
}

struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        // A record that failed is missing in the count, which fails the test.
        match result {
            Ok(message) => {
                let Outgoing { key, value, expect, .. } = pending.record;
                let (partition, offset) = (message.partition(), message.offset());
                let _ = pending.reports.send(Sent { partition, offset, key, value, expect });
            }
            Err((error, _)) => eprintln!("producer: a record was not delivered: {error}"),
        }
    }
}
