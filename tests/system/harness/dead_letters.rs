//! What lies in a topic of dead letters.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::eventually::eventually;
use super::topic::{KAFKA_TIMEOUT, Topic};

/// A dead letter as it lies in Kafka.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The Kafka key.
    pub key: String,
    pub json: Value,
    pub headers: BTreeMap<String, Vec<u8>>,
}

/// All letters in partition 0 of a topic, in order.
#[track_caller]
pub fn read(topic: &Topic) -> Vec<Letter> {
    let (_, end) = topic.watermarks(0);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &topic.kafka)
        .set("group.id", "-")
        .set("enable.auto.commit", "false")
        .create()
        .expect("valid consumer settings");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&topic.name, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&from).expect("the topic can be read");
    let mut letters = Vec::new();
    let mut position = 0;
    while position < end {
        let message = consumer.poll(KAFKA_TIMEOUT).expect("a letter in time").expect("a readable letter");
        position = message.offset() + 1;
        let headers = message
            .headers()
            .map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect());
        letters.push(Letter {
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            json: serde_json::from_slice(message.payload().unwrap_or_default()).expect("a letter is JSON"),
            headers: headers.unwrap_or_default(),
        });
    }
    letters
}

/// Waits until a topic holds `count` letters, and no more.
#[track_caller]
pub fn wait_for(topic: &Topic, count: usize, bound: std::time::Duration) -> Vec<Letter> {
    eventually(&format!("{count} dead letters"), bound, || match topic.watermarks(0).1 {
        end if end >= i64::try_from(count).expect("few") => Ok(()),
        end => Err(end.to_string()),
    });
    let letters = read(topic);
    assert_eq!(letters.len(), count, "{:?}", letters.iter().map(|letter| &letter.key).collect::<Vec<_>>());
    letters
}
