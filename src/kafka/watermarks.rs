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
    Ok(partitions.iter().zip(low.into_iter().zip(high)).map(|(&p, (low, high))| bounds(p, low, high)).collect())
}

/// As [`watermarks`], but of those partitions alone that have a leader, by rising number: asked together, one without would
/// keep the answers of all others back. Blocks, at most four times `timeout`.
///
/// # Errors
/// The client's error, when it says nothing about any of them.
pub fn known_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<Vec<Watermarks>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let led: Vec<i32> = found
        .map(|found| found.partitions())
        .unwrap_or_default()
        .iter()
        .filter(|partition| partition.leader() >= 0 && partitions.contains(&partition.id()))
        .map(|partition| partition.id())
        .collect();
    if led.is_empty() {
        return Ok(Vec::new());
    }
    let low = ask_offsets(consumer, topic, &led, Offset::Beginning, timeout)?;
    let high = ask_offsets(consumer, topic, &led, Offset::End, timeout)?;
    let told = |found: KafkaResult<Option<i64>>| found.ok().flatten();
    let marks = led.into_iter().zip(low.into_iter().map(told).zip(high.into_iter().map(told)));
    Ok(marks.filter_map(|(partition, (low, high))| Some(bounds(partition, low?, high?))).collect())
}

fn bounds(partition: i32, low: i64, high: i64) -> Watermarks {
    // Between the two requests retention may have moved the start.
    Watermarks { partition, low: low.min(high), high }
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
    let of_one = |(found, end): (KafkaResult<Option<i64>>, i64)| Ok(found?.map_or(end, |found| found.min(end)));
    found.into_iter().zip(ends).map(of_one).collect()
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
        .and_then(|found| found.into_iter().map(|found| found?.ok_or_else(not_told)).collect());
    answered.inspect_err(|_| {
        // What matters is the picture that it leaves behind, not the answer.
        let _ = consumer.fetch_metadata(Some(topic), timeout);
    })
}

/// One ListOffsets request per leader; its special timestamps are the logical offsets. In the order of `partitions`, of each
/// what was answered; `None`: no such offset.
fn ask_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    timeout: Duration,
) -> KafkaResult<Vec<KafkaResult<Option<i64>>>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition_offset(topic, *partition, which)?;
    }
    let answered = consumer.offsets_for_times(asked, timeout)?;
    let found = partitions
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
        .collect();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn a_partition_without_a_leader_keeps_no_answer_of_the_others_back() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 3, 1).unwrap();
        mock.partition_leader("t", 1, None).unwrap();
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let found = loop {
            match known_watermarks(&client, "t", &[0, 1, 2, 7], Duration::from_secs(5)) {
                Ok(found) => break found,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(found, vec![bounds(0, 0, 0), bounds(2, 0, 0)]);
        assert!(watermarks(&client, "t", &[0, 1, 2], Duration::from_millis(300)).is_err(), "all of them, or none");
        mock.partition_leader("t", 1, Some(1)).unwrap();
        while known_watermarks(&client, "t", &[0, 1, 2], Duration::from_secs(5)).is_ok_and(|found| found.len() < 3) {
            assert!(Instant::now() < deadline);
        }
    }
}
