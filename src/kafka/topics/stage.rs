//! What is done to topics to see whether a service stands it: partitions are added, records go before their time. Also where
//! the brokers are, and how far a group has come.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::admin::NewPartitions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{RETRY, SETTLE, TopicAdmin, TopicError, one};
use crate::kafka::connection::KafkaConnection;
use crate::kafka::settings::ASK;
use crate::kafka::watermarks::{Watermarks, known_watermarks};

impl TopicAdmin {
    /// Where the brokers are, as they say themselves: `(host, port)`.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn brokers(&self) -> Result<Vec<(String, i32)>, TopicError> {
        let metadata = self.persist("look at the brokers", || self.asker.fetch_metadata(None, self.ask))?;
        Ok(metadata.brokers().iter().map(|broker| (broker.host().to_owned(), broker.port())).collect())
    }

    /// Adds partitions, and waits until all of them are led.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses, or the partitions are not there in time.
    pub fn grow(&self, topic: &str, partitions: usize) -> Result<(), TopicError> {
        let new = NewPartitions::new(topic, partitions);
        self.persist(&format!("add partitions to topic {topic}"), || {
            one(self.runtime.block_on(self.admin.create_partitions([&new], &self.options()))?)
        })?;
        self.wait(topic, "grown", |found| {
            found.is_some_and(|found| found.len() >= partitions && found.iter().all(|found| found.leader.is_some()))
        })
    }

    /// Deletes the records of a partition below an offset, as retention does, and waits until they are gone.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses, or the records are still there after a while.
    pub fn delete_below(&self, topic: &str, partition: i32, offset: i64) -> Result<(), TopicError> {
        let doing = format!("delete records of topic {topic}");
        self.persist(&doing, || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
            self.runtime.block_on(self.admin.delete_records(&list, &self.options())).map(drop)
        })?;
        let deadline = Instant::now() + SETTLE;
        for attempt in 0.. {
            let bounds = self.bounds(topic)?;
            if bounds.iter().any(|bounds| bounds.partition == partition && bounds.low >= offset) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(RETRY.delay(attempt, fastrand::f64()));
        }
        Err(TopicError::Unsettled { topic: topic.to_owned(), awaited: "rid of the records" })
    }

    /// First offset and end of every partition that is led, by number.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn bounds(&self, topic: &str) -> Result<Vec<Watermarks>, TopicError> {
        let found = self.partitions(topic)?.unwrap_or_default();
        let partitions: Vec<i32> = found.iter().map(|found| found.partition).collect();
        self.persist(&format!("look at the ends of topic {topic}"), || {
            known_watermarks(&self.asker, topic, &partitions, self.ask)
        })
    }
}

/// What a group has committed, per partition.
///
/// # Errors
/// When Kafka cannot be reached, refuses, or does not know one of the partitions.
pub fn committed(
    connection: &KafkaConnection,
    topic: &str,
    group: &str,
    partitions: impl IntoIterator<Item = i32>,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut config = connection.client_config("commits");
    config.set("group.id", group).set("enable.auto.commit", "false");
    let client: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    let found = client.committed_offsets(list, ASK)?;
    let mut offsets = BTreeMap::new();
    for element in found.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}
