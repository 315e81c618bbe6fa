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

/// The first offset that Kafka still has of each partition, in one request. Blocks, at most twice `timeout`.
///
/// # Errors
/// As [`watermarks`].
pub fn starts<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    offsets(consumer, topic, partitions, Offset::Beginning, timeout)
}

/// The first offset of each partition whose record is at least as new as `time_ms` (Unix milliseconds, not negative), or the
/// end when there is none. Blocks, at most thrice `timeout`.
///
/// # Errors
/// As [`watermarks`].
pub fn at_time<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    time_ms: i64,
    timeout: Duration,
) -> KafkaResult<Vec<i64>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    // Asked first: what is written between the two requests lies behind this end, and is not passed over.
    let ends = offsets(consumer, topic, partitions, Offset::End, timeout)?;
    // Below zero are the special values of the request.
    let found = ask_offsets(consumer, topic, partitions, Offset::Offset(time_ms.max(0)), timeout)?;
    Ok(found.into_iter().zip(ends).map(|(found, end)| found.map_or(end, |found| found.min(end))).collect())
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
    let not_told = || KafkaError::MetadataFetch(RDKafkaErrorCode::OffsetNotAvailable);
    let answered = ask_offsets(consumer, topic, partitions, which, timeout)
        .and_then(|found| found.into_iter().map(|found| found.ok_or_else(not_told)).collect());
    answered.inspect_err(|_| {
        // What matters is the picture that it leaves behind, not the answer.
        let _ = consumer.fetch_metadata(Some(topic), timeout);
    })
}

/// One ListOffsets request per leader; its special timestamps are the logical offsets. `None`: no such offset.
fn ask_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    timeout: Duration,
) -> KafkaResult<Vec<Option<i64>>> {
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
            Ok(match found.offset() {
                Offset::Offset(offset) if offset >= 0 => Some(offset),
                _ => None,
            })
        })
        .collect()
}
