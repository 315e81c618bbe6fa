//! A topic of a test's own, and what Kafka says about it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::eventually::eventually;
use super::{runtime, unique_name};

pub const KAFKA_TIMEOUT: Duration = Duration::from_secs(20);

/// Deleted when dropped, as far as Kafka can be reached.
pub struct Topic {
    pub name: String,
    /// The broker, `host:port`.
    pub kafka: String,
}

impl Topic {
    /// A topic with a unique name.
    pub fn create(kafka: &str, what: &str, partitions: i32) -> Self {
        Self::create_with(kafka, what, partitions, &[])
    }

    /// As [`Topic::create`], with topic settings such as `("retention.ms", "1000")`.
    pub fn create_with(kafka: &str, what: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let topic = Self { name: unique_name(what), kafka: kafka.to_owned() };
        topic.create_again(partitions, settings);
        topic
    }

    /// A name of its own for a topic that does not exist yet; [`Topic::create_now`] makes it.
    pub fn planned(kafka: &str, what: &str) -> Self {
        Self { name: unique_name(what), kafka: kafka.to_owned() }
    }

    /// Makes a planned or deleted topic.
    pub fn create_now(&self, partitions: i32) {
        self.create_again(partitions, &[]);
    }

    /// A second topic beside this one, `<name>-<suffix>`: for dead letters.
    pub fn beside(&self, suffix: &str, partitions: i32) -> Self {
        let topic = Self { name: format!("{}-{suffix}", self.name), kafka: self.kafka.clone() };
        topic.create_again(partitions, &[]);
        topic
    }

    /// Deletes the topic and creates it anew: another topic id, offsets from 0.
    pub fn recreate(&self, partitions: i32) {
        self.delete();
        self.create_again(partitions, &[]);
    }

    fn create_again(&self, partitions: i32, settings: &[(&str, &str)]) {
        eventually(&format!("topic {} to be created", self.name), KAFKA_TIMEOUT, || {
            let mut new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
            for (key, value) in settings {
                new = new.set(key, value);
            }
            let answer = runtime().block_on(admin(&self.kafka).create_topics([&new], &options()));
            one(answer.map_err(|error| error.to_string())?)
        });
        eventually(&format!("topic {} to have leaders", self.name), KAFKA_TIMEOUT, || {
            (0..partitions).try_for_each(|partition| self.try_watermarks(partition).map(|_| ()))
        });
    }

    /// Deletes the topic and waits until it is gone.
    pub fn delete(&self) {
        let answer = runtime().block_on(admin(&self.kafka).delete_topics(&[&self.name], &options()));
        one(answer.expect("an answer to delete_topics")).expect("the topic can be deleted");
        eventually(&format!("topic {} to be gone", self.name), KAFKA_TIMEOUT, || {
            let metadata = self.consumer("-").fetch_metadata(None, KAFKA_TIMEOUT).map_err(|error| error.to_string())?;
            match metadata.topics().iter().any(|topic| topic.name() == self.name) {
                true => Err("still listed".to_owned()),
                false => Ok(()),
            }
        });
    }

    /// Adds partitions, up to `total`.
    pub fn grow(&self, total: usize) {
        let new = NewPartitions::new(&self.name, total);
        let answer = runtime().block_on(admin(&self.kafka).create_partitions([&new], &options()));
        one(answer.expect("an answer to create_partitions")).expect("partitions can be added");
        let last = i32::try_from(total).expect("few partitions") - 1;
        eventually("the new partitions to have leaders", KAFKA_TIMEOUT, || self.try_watermarks(last));
    }

    /// Deletes the records of a partition below `before`.
    pub fn delete_records(&self, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(before)).expect("a valid offset");
        runtime().block_on(admin(&self.kafka).delete_records(&list, &options())).expect("records can be deleted");
        eventually("the records to be gone", KAFKA_TIMEOUT, || match self.watermarks(partition).0 {
            low if low >= before => Ok(()),
            low => Err(format!("the log starts at {low}")),
        });
    }

    /// Changes a setting of the topic, such as `max.message.bytes`.
    pub fn set(&self, setting: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set(setting, value);
        let answer = runtime().block_on(admin(&self.kafka).alter_configs([&change], &options()));
        let answer = answer.expect("an answer to alter_configs").pop().expect("one answer");
        answer.expect("the setting can be changed");
    }

    /// First kept offset and the offset after the last record.
    pub fn watermarks(&self, partition: i32) -> (i64, i64) {
        self.try_watermarks(partition).expect("Kafka knows the watermarks")
    }

    fn try_watermarks(&self, partition: i32) -> Result<(i64, i64), String> {
        self.consumer("-").fetch_watermarks(&self.name, partition, KAFKA_TIMEOUT).map_err(|error| error.to_string())
    }

    /// The keys of the records of a partition that lie in `[from, until)`; a later record must be there.
    pub fn keys_of_some(&self, partition: i32, from: i64, until: i64) -> Vec<String> {
        let consumer = self.consumer("-");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(from)).expect("a valid offset");
        consumer.assign(&list).expect("an assignment");
        let mut keys = Vec::new();
        eventually("a record behind the range", KAFKA_TIMEOUT, || {
            loop {
                match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) if message.offset() >= until => return Ok(()),
                    Some(Ok(message)) => {
                        keys.push(String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned());
                    }
                    other => return Err(format!("{:?}", other.map(|found| found.is_ok()))),
                }
            }
        });
        keys
    }

    /// The keys of all records, in the order of their partitions and offsets.
    pub fn keys(&self) -> Vec<String> {
        let consumer = self.consumer("-");
        let (mut list, mut left) = (TopicPartitionList::new(), 0);
        for partition in self.partitions() {
            let (low, high) = self.watermarks(partition);
            list.add_partition_offset(&self.name, partition, Offset::Offset(low)).expect("a valid offset");
            left += high - low;
        }
        consumer.assign(&list).expect("an assignment");
        let mut keys = Vec::new();
        eventually("all records of the topic", KAFKA_TIMEOUT, || {
            while left > 0 {
                let message = match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => message,
                    other => return Err(format!("{left} are missing, {:?}", other.map(|found| found.is_ok()))),
                };
                keys.push(String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned());
                left -= 1;
            }
            Ok(())
        });
        keys
    }

    pub fn partitions(&self) -> Vec<i32> {
        let consumer = self.consumer("-");
        let metadata = consumer.fetch_metadata(Some(&self.name), KAFKA_TIMEOUT).expect("Kafka answers");
        let topic = metadata.topics().first().expect("the topic that was asked for");
        let mut partitions: Vec<i32> = topic.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        partitions
    }

    /// The offset that the group has committed per partition; partitions without one are left out.
    pub fn committed(&self, group: &str) -> BTreeMap<i32, i64> {
        let mut list = TopicPartitionList::new();
        for partition in self.partitions() {
            list.add_partition(&self.name, partition);
        }
        let answer = self.consumer(group).committed_offsets(list, KAFKA_TIMEOUT).expect("Kafka knows the group");
        answer
            .elements()
            .iter()
            .filter_map(|element| Some((element.partition(), element.offset().to_raw()?)))
            .filter(|(_, offset)| *offset >= 0)
            .collect()
    }

    /// Waits until the group has committed the end of every partition that holds records.
    #[track_caller]
    pub fn wait_until_all_committed(&self, group: &str, bound: Duration) {
        let ends: BTreeMap<i32, i64> = self
            .partitions()
            .into_iter()
            .map(|partition| (partition, self.watermarks(partition).1))
            .filter(|(_, end)| *end > 0)
            .collect();
        eventually(&format!("group {group} to commit {ends:?}"), bound, || {
            let committed = self.committed(group);
            if committed == ends { Ok(()) } else { Err(format!("{committed:?}")) }
        });
    }

    /// Waits until the group has committed an offset of partition 0.
    #[track_caller]
    pub fn wait_until_committed(&self, group: &str, offset: i64, bound: Duration) {
        eventually(&format!("group {group} to commit {offset}"), bound, || match self.committed(group).get(&0) {
            Some(committed) if *committed == offset => Ok(()),
            committed => Err(format!("{committed:?}")),
        });
    }

    /// A member of the group under a name that another one may have: it takes part for as long as it is polled.
    pub fn join(&self, group: &str, instance: &str) -> BaseConsumer {
        let mut settings = self.settings(group);
        settings.set("group.instance.id", instance).set("partition.assignment.strategy", "cooperative-sticky");
        let member: BaseConsumer = settings.create().expect("valid consumer settings");
        member.subscribe(&[&self.name]).expect("a subscription");
        member
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.settings(group).create().expect("valid consumer settings")
    }

    fn settings(&self, group: &str) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.kafka).set("group.id", group).set("enable.auto.commit", "false");
        settings
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // A broker that is shared or belongs to the developer should not fill up. A failure harms nobody.
        if !std::thread::panicking() {
            let options = options().operation_timeout(Some(Duration::from_secs(2)));
            let _ = runtime().block_on(admin(&self.kafka).delete_topics(&[&self.name], &options));
        }
    }
}

fn admin(kafka: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka).create().expect("valid admin settings")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(KAFKA_TIMEOUT)).operation_timeout(Some(KAFKA_TIMEOUT))
}

fn one(answer: Vec<rdkafka::admin::TopicResult>) -> Result<(), String> {
    match answer.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((name, code))) => Err(format!("{name}: {code}")),
        None => Err("an empty answer".to_owned()),
    }
}
