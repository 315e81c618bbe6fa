//! Reads ranges again that the reader had passed before this instance became responsible for them: for the duties alone.
//!
//! One thread per gain, with a consumer of its own, through the same pipeline and the same credit. It ends when its ranges
//! are read or their terms are over.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::batch::{BatchBuilder, RecordView};
use super::errors::is_lost_position;
use super::monitor::MonitorContext;
use super::opening::ask_known_bounds;
use super::reader::{ReaderParts, Stopped};
use super::settings::RETRY;
use super::topic::append_headers;
use crate::messages::Ingested;
use crate::pipeline::credit::Credit;
use crate::pipeline::record::LossReason;

const TURN: Duration = Duration::from_millis(100);
/// It shares the machine with the live reader, which goes first.
const PREFETCH_KIB: u32 = 4 * 1024;

/// A range whose duties are to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DutyRange {
    /// The partition.
    pub partition: i32,
    /// The term.
    pub term: u64,
    /// First offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
}

/// Bytes in flight of such a reader. They are not those of the live reader: where records wait for Redis, what is live
/// waits for what is read again, which could then never come.
const IN_FLIGHT: usize = 8 << 20;

struct Job {
    range: DutyRange,
    builder: BatchBuilder,
}

/// Starts the thread.
pub(super) fn spawn_duty_reader(parts: ReaderParts, epoch: u64, ranges: Vec<DutyRange>) {
    tracing::info!(?ranges, "duties gained: these ranges are read again");
    let failed = Arc::clone(&parts.failed);
    let spawned = std::thread::Builder::new().name("kafka-duties".into()).spawn(move || {
        if let Err(error) = read_ranges(&parts, epoch, ranges) {
            parts.monitor.fault("duty-reader", "read a range again", &error, "");
            // The duties of this generation would wait for ever: a new one begins them again.
            (parts.failed)(format!("duty reader: {error}"));
        }
    });
    if let Err(error) = spawned {
        failed(format!("duty reader: cannot start a thread: {error}"));
    }
}

fn read_ranges(parts: &ReaderParts, epoch: u64, ranges: Vec<DutyRange>) -> Result<(), KafkaError> {
    let parts = &ReaderParts { credit: Credit::new(IN_FLIGHT.min(parts.credit.limit())), ..parts.clone() };
    let context = MonitorContext { client: "duty-reader", monitor: Arc::clone(&parts.monitor) };
    let mut config = parts.settings.reading_config("duties", PREFETCH_KIB);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<MonitorContext> = config.create_with_context(context)?;
    let mut jobs: Vec<Job> = ranges
        .into_iter()
        .map(|range| Job { range, builder: BatchBuilder::new(range.partition, range.from) })
        .collect();
    if assign(parts, &consumer, epoch, &mut jobs).is_err() {
        return Ok(());
    }
    let mut attempt = 0;
    while !parts.stop.is_stopped() && !parts.drain.is_stopped() && parts.board.epoch_number() == epoch {
        jobs.retain(|job| parts.duties.holds(job.range.partition, job.range.term));
        jobs.retain(|job| job.builder.position() < job.range.to || !job.builder.is_empty());
        if jobs.is_empty() {
            return Ok(());
        }
        if !parts.credit.wait(TURN) {
            continue;
        }
        match read_turn(parts, &consumer, epoch, &mut jobs) {
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(error),
            Err(KafkaError::MessageConsumption(code)) if is_lost_position(code) => {
                if parts.wait(RETRY.delay(attempt, fastrand::f64()))
                    || assign(parts, &consumer, epoch, &mut jobs).is_err()
                {
                    return Ok(());
                }
                attempt += 1;
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Reads what is there until a batch is full or nothing comes.
fn read_turn(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    epoch: u64,
    jobs: &mut [Job],
) -> Result<(), KafkaError> {
    let mut timeout = TURN;
    let mut full = false;
    let result = loop {
        if full {
            break Ok(());
        }
        match consumer.poll(timeout) {
            Some(Ok(message)) => {
                timeout = Duration::ZERO;
                let Some(job) = jobs.iter_mut().find(|job| job.range.partition == message.partition()) else {
                    continue;
                };
                if message.offset() >= job.range.to {
                    job.builder.cover(job.range.to);
                    continue;
                }
                let record = RecordView {
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                    key: message.key(),
                    value: message.payload(),
                };
                full = job.builder.push(record, |arena| append_headers(&message, arena), parts.settings.batch);
            }
            // The rest of the range holds no records: the log has them all behind it.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(job) = jobs.iter_mut().find(|job| job.range.partition == partition) {
                    job.builder.cover(job.range.to);
                }
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    for job in jobs {
        send(parts, epoch, job, None);
    }
    result
}

fn send(parts: &ReaderParts, epoch: u64, job: &mut Job, lost: Option<LossReason>) {
    if let Some((batch, weight)) = job.builder.finish(epoch, lost) {
        let permit = parts.credit.charge(weight);
        parts.records.do_send(Ingested { batch, permit });
    }
}

/// Sets every range to its position; what retention has taken is handed over as lost.
fn assign(
    parts: &ReaderParts,
    consumer: &BaseConsumer<MonitorContext>,
    epoch: u64,
    jobs: &mut [Job],
) -> Result<(), Stopped> {
    let partitions: Vec<i32> = jobs.iter().map(|job| job.range.partition).collect();
    let marks = ask_known_bounds(parts, consumer, &partitions)?;
    let mut list = TopicPartitionList::with_capacity(jobs.len());
    for job in jobs.iter_mut() {
        let mark = marks.iter().find(|mark| mark.partition == job.range.partition);
        if let Some(mark) = mark
            && job.builder.position() < mark.low
        {
            job.builder.cover(mark.low.min(job.range.to));
            send(parts, epoch, job, Some(LossReason::Retention));
        }
        if job.builder.position() < job.range.to {
            // Cannot fail: a position is never negative.
            let _ = list.add_partition_offset(
                &parts.settings.topic,
                job.range.partition,
                Offset::Offset(job.builder.position()),
            );
        }
    }
    if let Err(error) = consumer.assign(&list) {
        parts.monitor.fault("duty-reader", "assign partitions", &error, "");
    }
    Ok(())
}
