//! First offset and end of every partition, in two requests for all of them.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// The bounds of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The partition.
    pub partition: i32,
    /// First offset that Kafka still has.
    pub low: i64,
    /// The offset after the last readable one.
    pub high: i64,
}

/// Looks the bounds of `partitions` up, in the order given. Blocks, at most thrice `timeout`.
///
/// # Errors
/// The client's error, or that of the first partition which has one.
pub fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<Vec<Watermarks>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let low = offsets(consumer, topic, partitions, Offset::Beginning, timeout)?;
    let high = offsets(consumer, topic, partitions, Offset::End, timeout)?;
    let marks = partitions.iter().zip(low.into_iter().zip(high));
    // Between the two requests retention may have moved the start.
    Ok(marks.map(|(&partition, (low, high))| Watermarks { partition, low: low.min(high), high }).collect())
}

/// The end of each partition, in one request. Blocks, at most twice `timeout`.
///
/// # Errors
/// As [`watermarks`].
pub fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    offsets(consumer, topic, partitions, Offset::End, timeout)
}

/// As [`ask_offsets`]. After a failure the client's picture of the topic is renewed: after an outage it may hold leaders or
/// partitions that are not there any more, and it would keep it for minutes.
fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    ask_offsets(consumer, topic, partitions, which, timeout).inspect_err(|_| {
        // What matters is the picture that it leaves behind, not the answer.
        let _ = consumer.fetch_metadata(Some(topic), timeout);
    })
}

/// One ListOffsets request per leader; its special timestamps are the logical offsets.
fn ask_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, which)?;
    }
    let answered = consumer.offsets_for_times(asked, timeout)?;
    partitions
        .iter()
        .map(|partition| {
            let Some(found) = answered.find_partition(topic, *partition) else {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition));
            };
            found.error()?;
            match found.offset() {
                Offset::Offset(offset) if offset >= 0 => Ok(offset),
                _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OffsetNotAvailable)),
            }
        })
        .collect()
}
