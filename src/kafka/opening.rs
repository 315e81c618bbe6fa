//! Opens the topic for the reader: asks Kafka for commits and bounds, lets the plan decide, publishes the outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::monitor::MonitorContext;
use super::reader::{ReaderParts, Stopped};
use super::settings::{ASK, RETRY};
use super::watermarks::{Watermarks, known_watermarks, watermarks};
use crate::board::Epoch;
use crate::messages::{PartitionStart, PartitionsOpened};
use crate::pipeline::epoch::{Committed, Known, Opening, ResetPolicy, TopicFacts, epoch_name, plan};

/// How long the group's commits are waited for. Live data must not wait for the group for ever; after this, reading starts
/// at the end, and the duties are caught up with as soon as the group answers.
const COMMITS_WAIT: Duration = Duration::from_secs(30);

/// An epoch as the reader goes on in it.
pub(super) struct Opened {
    pub(super) epoch: Epoch,
    pub(super) opening: Opening,
    /// Terms of partitions that were assigned before the epoch was opened.
    pub(super) terms: Vec<(i32, u64)>,
}

/// Opens all partitions. `anew`: the topic is known to be another one than before.
pub(super) fn open_topic(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    facts: &TopicFacts,
    anew: bool,
) -> Result<Opened, Stopped> {
    let name = epoch_name(&parts.settings.topic, facts);
    let partitions: Vec<i32> = (0..facts.partitions).collect();
    let (known, reset) = learn(parts, consumer, &partitions)?;
    let previous = parts.board.epoch();
    let previous_name = (previous.number > 0).then_some(previous.name.as_str());
    let opening = plan(&name, previous_name, anew, reset, &known);
    let (epoch, terms) = if opening.new_epoch {
        let epoch = Epoch { number: previous.number + 1, name };
        parts.board.open_epoch(epoch.clone());
        (epoch.clone(), parts.duties.open_epoch(epoch.number, &epoch.name))
    } else {
        (previous, Vec::new())
    };
    if opening.recreated {
        parts.monitor.metrics().epochs.inc();
        tracing::warn!(
            topic = parts.settings.topic,
            epoch = epoch.name,
            "the topic is another one than before: its offsets start again"
        );
    }
    tracing::info!(
        topic = parts.settings.topic,
        epoch = epoch.name,
        number = epoch.number,
        partitions = facts.partitions,
        "topic opened"
    );
    publish(parts, &epoch, &opening, &known);
    Ok(Opened { epoch, opening, terms })
}

/// Opens partitions that the topic has gained. All that they hold is new, so they are read from their start, whatever the
/// group may have committed of them.
pub(super) fn open_more(parts: &ReaderParts, epoch: &Epoch, marks: Vec<Watermarks>) -> Opening {
    let known: Vec<Known> = marks.into_iter().map(|mark| known(parts, mark, None)).collect();
    let opening = plan(&epoch.name, Some(&epoch.name), false, ResetPolicy::Earliest, &known);
    let partitions: Vec<i32> = known.iter().map(|known| known.partition).collect();
    tracing::info!(topic = parts.settings.topic, ?partitions, "new partitions opened");
    publish(parts, epoch, &opening, &known);
    opening
}

/// A thread that learns the bounds of new partitions, all of them. It answers nothing when it ends before, and then it may be
/// asked again.
pub(super) type Growth = std::thread::JoinHandle<Option<Vec<Watermarks>>>;

/// Asks for the bounds of partitions that the topic has gained, without holding the reader up. `None`: there is no thread.
pub(super) fn ask_growth(parts: &ReaderParts, epoch: u64, partitions: Vec<i32>) -> Option<Growth> {
    let parts = parts.clone();
    let learn = move || {
        let context = MonitorContext { client: "growth", monitor: Arc::clone(&parts.monitor) };
        let client = parts.settings.asking_config("growth").create_with_context(context);
        let client: BaseConsumer<MonitorContext> = client.ok()?;
        for attempt in 0.. {
            match watermarks(&client, &parts.settings.topic, &partitions, ASK) {
                Ok(marks) => return Some(marks),
                Err(error) => {
                    parts.monitor.fault("growth", "look up the bounds of new partitions", &error, "");
                }
            }
            let ended = parts.wait(RETRY.delay(attempt, fastrand::f64()));
            if ended || parts.board.epoch_number() != epoch {
                break;
            }
        }
        None
    };
    std::thread::Builder::new().name("kafka-growth".into()).spawn(learn).ok()
}

fn publish(parts: &ReaderParts, epoch: &Epoch, opening: &Opening, known: &[Known]) {
    for known in known {
        // Sessions may ask for the oldest record before the first lag poll.
        parts.board.opened(known.partition).low_watermark.set(known.low);
    }
    let mut partitions = Vec::with_capacity(opening.starts.len());
    for start in &opening.starts {
        let board = parts.board.opened(start.partition);
        board.start.set(start.first);
        board.end_at_start.set(start.end);
        board.fetched.set(start.first);
        partitions.push(PartitionStart { partition: start.partition, start: start.first });
    }
    parts.opened.do_send(PartitionsOpened { epoch: epoch.clone(), partitions });
}

/// Asks until everything is known that the plan needs. Answers also the reset policy that is to be used.
fn learn(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    partitions: &[i32],
) -> Result<(Vec<Known>, ResetPolicy), Stopped> {
    let topic = parts.settings.topic.as_str();
    let deadline = Instant::now() + COMMITS_WAIT;
    let commits = ask(parts, "fetch the group's commits", Some(deadline), || commits(consumer, topic, partitions))?;
    let reset = if commits.is_some() { parts.settings.reset } else { ResetPolicy::Latest };
    if commits.is_none() {
        tracing::warn!(group = parts.settings.group, "the group does not tell its commits; reading starts at the end");
    }
    let mut commits = commits.unwrap_or_default().into_iter();
    let marks = ask_bounds(parts, consumer, partitions)?;
    let known = marks.into_iter().map(|mark| known(parts, mark, commits.next().flatten())).collect();
    Ok((known, reset))
}

fn known(parts: &ReaderParts, mark: Watermarks, committed: Option<Committed>) -> Known {
    let Watermarks { partition, low, high } = mark;
    let board = parts.board.find(partition);
    let stored = board.as_ref().and_then(|board| board.stored.get());
    let window_low = board.as_ref().and_then(|board| board.window_low.get());
    Known { partition, low, high, committed, stored, window_low }
}

/// The bounds of all of these partitions; asks until Kafka tells every one.
fn ask_bounds(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    partitions: &[i32],
) -> Result<Vec<Watermarks>, Stopped> {
    let topic = parts.settings.topic.as_str();
    let marks = ask(parts, "look up the bounds of the topic", None, || watermarks(consumer, topic, partitions, ASK))?;
    Ok(marks.unwrap_or_default())
}

/// The bounds of those of the partitions that have a leader; asks until Kafka answers.
pub(super) fn ask_known_bounds(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    partitions: &[i32],
) -> Result<Vec<Watermarks>, Stopped> {
    let topic = parts.settings.topic.as_str();
    let question = || known_watermarks(consumer, topic, partitions, ASK);
    Ok(ask(parts, "look up the bounds of the topic", None, question)?.unwrap_or_default())
}

/// Asks with backoff until there is an answer or `deadline` has passed.
fn ask<T>(
    parts: &ReaderParts,
    doing: &str,
    deadline: Option<Instant>,
    mut question: impl FnMut() -> KafkaResult<T>,
) -> Result<Option<T>, Stopped> {
    for attempt in 0.. {
        match question() {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => {
                parts.monitor.fault("reader", doing, &error, "");
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(None);
                }
            }
        }
        if parts.wait(RETRY.delay(attempt, fastrand::f64())) {
            return Err(Stopped);
        }
    }
    Ok(None)
}

/// The group's commits, in the order of `partitions`.
pub(super) fn commits<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Vec<Option<Committed>>> {
    commits_within(consumer, topic, partitions, ASK)
}

/// As [`commits`], for a question that may not take as long.
pub(super) fn commits_within<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<Vec<Option<Committed>>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let answered = consumer.committed_offsets(asked, timeout)?;
    partitions
        .iter()
        .map(|partition| {
            let Some(found) = answered.find_partition(topic, *partition) else { return Ok(None) };
            found.error()?;
            Ok(match found.offset() {
                Offset::Offset(offset) if offset >= 0 => {
                    Some(Committed { offset, metadata: found.metadata().to_owned() })
                }
                _ => None,
            })
        })
        .collect()
}
