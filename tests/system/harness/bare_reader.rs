//! A consumer that reads a topic and does nothing with it: no reading can be much faster.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);

pub struct BareReader {
    consumer: BaseConsumer,
    all: TopicPartitionList,
}

impl BareReader {
    /// Not connected yet; the first reading pays for that.
    pub fn new(topic: &Topic) -> Self {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &topic.kafka)
            .set("group.id", "-")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "1")
            .create()
            .expect("valid consumer settings");
        let mut all = TopicPartitionList::new();
        for partition in topic.partitions() {
            all.add_partition_offset(&topic.name, partition, Offset::Offset(0)).expect("a valid offset");
        }
        Self { consumer, all }
    }

    /// How long it takes to read so many records from the beginning of all partitions.
    pub fn read(&self, records: usize) -> Duration {
        let start = Instant::now();
        self.consumer.assign(&self.all).expect("an assignment");
        let mut left = records;
        while left > 0 {
            assert!(start.elapsed() < BOUND, "{left} records did not come");
            if let Some(polled) = self.consumer.poll(Duration::from_millis(100)) {
                polled.expect("a record");
                left -= 1;
            }
        }
        let took = start.elapsed();
        self.consumer.unassign().expect("no assignment");
        took
    }
}
