//! What a topic looks like, and where to begin and to end in its partitions: the questions to Kafka.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};

use super::{End, Start};
use crate::kafka::errors::{ErrorType, classify_error};
use crate::kafka::settings::ASK;
use crate::kafka::topic::{TopicId, topic_id};
use crate::kafka::topics::faults::Told;
use crate::kafka::watermarks::{Watermarks, at_time, watermarks};

/// How long such a look may hold up the records.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// The partitions of a topic.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) led: BTreeSet<i32>,
    pub(super) leaderless: BTreeSet<i32>,
}

/// The cluster's id of a topic, where it tells.
pub(super) fn id_of(consumer: &BaseConsumer<Told>, topic: &str) -> Option<String> {
    match topic_id(consumer.client(), topic, LOOK) {
        TopicId::Is(id) => Some(id),
        TopicId::Unknown | TopicId::Unanswered | TopicId::Failed => None,
    }
}

/// Looks at a topic; `None`: it does not exist.
pub(super) fn look(consumer: &BaseConsumer<Told>, topic: &str, timeout: Duration) -> KafkaResult<Option<Found>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    if let Some(code) = topic.error() {
        let error = KafkaError::MetadataFetch(code.into());
        match classify_error(&error) {
            Some(ErrorType::TopicMissing) => return Ok(None),
            Some(ErrorType::Leader) => {}
            _ => return Err(error),
        }
    }
    let mut found = Found::default();
    for partition in topic.partitions() {
        let of = if partition.leader() < 0 { &mut found.leaderless } else { &mut found.led };
        of.insert(partition.id());
    }
    Ok((!topic.partitions().is_empty()).then_some(found))
}

/// What is asked for of a partition.
pub(super) struct Asked {
    pub(super) next: i64,
    pub(super) end: Option<i64>,
    pub(super) mark: Watermarks,
}

impl Asked {
    pub(super) fn partition(&self) -> i32 {
        self.mark.partition
    }
}

/// Where to begin and to end in each of these partitions.
pub(super) fn places(
    consumer: &BaseConsumer<Told>,
    topic: &str,
    partitions: &[i32],
    start: &Start,
    end: End,
) -> KafkaResult<Vec<Asked>> {
    // The ends first: a time that is asked for afterwards is cut to them.
    let marks = watermarks(consumer, topic, partitions, ASK)?;
    let times = |time_ms| at_time(consumer, topic, partitions, time_ms, ASK);
    let starts = if let Start::Time(time_ms) = start { times(*time_ms)? } else { Vec::new() };
    let ends = if let End::Time(time_ms) = end { times(time_ms)? } else { Vec::new() };
    let asked = |(index, mark): (usize, Watermarks)| {
        let end = match end {
            End::Never => None,
            End::Now => Some(mark.high),
            End::Time(_) => Some(ends.get(index).copied().unwrap_or(mark.high).min(mark.high)),
        };
        let next = match start {
            Start::Earliest => mark.low,
            Start::Latest => mark.high,
            Start::Time(_) => starts.get(index).copied().unwrap_or(mark.high).min(mark.high),
            Start::At(offsets) => offsets.get(&mark.partition).copied().unwrap_or(mark.low),
        };
        Asked { next, end, mark }
    };
    Ok(marks.into_iter().enumerate().map(asked).collect())
}
