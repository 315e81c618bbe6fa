//! The reader in one epoch: polls, cuts batches, sends them, obeys commands.
//!
//! How it gets out of trouble is in [`super::recovery`], how it is opened in [`super::opening`].

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::batch::{BatchBuilder, RecordView};
use super::errors::is_lost_position;
use super::monitor::MonitorContext;
use super::opening::{Growth, ask_growth, open_more, open_topic};
use super::reader::{End, ReaderCommand, ReaderParts, Stopped, TURN, Wishes};
use super::standstill::Standstill;
use super::topic::{ReadyError, ReadyQueue, append_headers, position};
use crate::board::{Epoch, PartitionBoard, UNKNOWN};
use crate::messages::Ingested;
use crate::pipeline::epoch::{Opening, Start, TopicChange, TopicFacts, compare};
use crate::pipeline::record::LossReason;

/// Records that are taken from the client in one call. The credit may be overdrawn by so many, which the client's own bound
/// limits in bytes.
const RECORDS_PER_TAKE: usize = 250;
/// Calls after which the reader looks at its commands, however much there is to read.
const TAKES_PER_TURN: u32 = 64;

/// One partition while it is read.
pub(super) struct Open {
    pub(super) builder: BatchBuilder,
    pub(super) board: Arc<PartitionBoard>,
    pub(super) start: i64,
    /// The highest offset at which an error came among many records, the end of the partition included.
    pub(super) error_at: i64,
}

/// The reader in one epoch.
pub(super) struct Reader<'a> {
    pub(super) parts: &'a ReaderParts,
    pub(super) consumer: &'a BaseConsumer<MonitorContext>,
    pub(super) wishes: &'a mut Wishes,
    pub(super) facts: TopicFacts,
    pub(super) epoch: Epoch,
    pub(super) recreated: bool,
    /// By partition number.
    pub(super) partitions: Vec<Open>,
    /// The partition whose batch is open.
    pub(super) current: usize,
    /// A position is not in the log any more.
    pub(super) suspect: bool,
    /// Recoveries since the last record.
    pub(super) recoveries: u32,
    /// Records at which it stands still.
    pub(super) standstill: Standstill,
    /// Partitions that the topic has gained, while Kafka is asked about them.
    pub(super) growth: Option<Growth>,
}

impl<'a> Reader<'a> {
    pub(super) fn open(
        parts: &'a ReaderParts,
        consumer: &'a BaseConsumer<MonitorContext>,
        wishes: &'a mut Wishes,
        anew: bool,
    ) -> Result<Self, Stopped> {
        let facts = wishes.facts.clone().ok_or(Stopped)?;
        let opened = open_topic(parts, consumer, &facts, anew)?;
        for (partition, term) in opened.terms {
            wishes.own(partition, term, None);
        }
        let mut reader = Self {
            parts,
            consumer,
            wishes,
            facts,
            epoch: opened.epoch,
            recreated: opened.opening.recreated,
            partitions: Vec::new(),
            current: 0,
            suspect: false,
            recoveries: 0,
            standstill: Standstill::new(parts.settings.pause_partition_alone),
            growth: None,
        };
        reader.add(&opened.opening);
        reader.meet_again();
        reader.assign_all();
        reader.begin_owned();
        Ok(reader)
    }

    /// Reads until the end of this epoch.
    pub(super) fn read_on(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        let no_queue = || End::Fatal(KafkaError::ClientCreation("the consumer has no queue".into()));
        let mut ready = ReadyQueue::new(self.consumer, RECORDS_PER_TAKE).ok_or_else(no_queue)?;
        while !self.parts.stop.is_stopped() {
            while let Ok(command) = commands.try_recv() {
                self.obey(command)?;
            }
            self.grow();
            self.stand_still();
            self.begin_owned();
            if self.suspect {
                self.recover(commands)?;
            }
            if self.parts.drain.is_stopped() {
                self.parts.drained.stop();
                self.parts.stop.wait(TURN);
            } else if !self.parts.records.connected() {
                // The next stage died: whoever watches it will start this reader anew.
                self.parts.stop.wait(TURN);
            } else if self.parts.credit.wait(TURN) {
                self.read(&mut ready)?;
            }
        }
        Ok(())
    }

    /// Takes what is there, or waits one turn for something. The first record comes by the client's own poll, which also
    /// serves its events; the ones that are ready behind it are taken many at a time, which costs half as much.
    pub(super) fn read(&mut self, ready: &mut ReadyQueue<'_>) -> Result<(), End> {
        match self.consumer.poll(TURN) {
            Some(Ok(message)) => {
                let record = RecordView {
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                    key: message.key(),
                    value: message.payload(),
                };
                self.take(message.partition(), record, |arena| append_headers(&message, arena));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => self.at_end(partition, None),
            Some(Err(error)) => self.trouble(error)?,
            None => return Ok(()),
        }
        let mut troubles = Vec::new();
        for _ in 0..TAKES_PER_TURN {
            let count = ready.take(|message| match message {
                Ok(message) => {
                    let record = RecordView {
                        offset: message.offset(),
                        timestamp_ms: message.timestamp_ms(),
                        key: message.key(),
                        value: message.value(),
                    };
                    self.take(message.partition(), record, |arena| message.append_headers(arena));
                }
                Err(error) => {
                    self.note_error(error);
                    match error.code {
                        RDKafkaErrorCode::PartitionEOF => self.at_end(error.partition, Some(error.offset)),
                        code => troubles.push(code),
                    }
                }
            });
            if count < RECORDS_PER_TAKE || self.parts.credit.used() >= self.parts.credit.limit() {
                break;
            }
        }
        self.flush();
        for code in troubles {
            self.trouble_of_many(code)?;
        }
        Ok(())
    }

    /// Takes one record, and sends a batch when it is full or belongs to another partition.
    pub(super) fn take(&mut self, partition: i32, record: RecordView<'_>, headers: impl FnOnce(&mut Vec<u8>)) {
        let Ok(index) = usize::try_from(partition) else { return };
        if self.standstill.holds(partition) {
            // Left over from before it stood still; it comes again.
            return;
        }
        if index != self.current {
            self.flush();
            self.current = index;
        }
        let Some(open) = self.partitions.get_mut(index) else { return };
        self.recoveries = 0;
        if open.builder.push(record, headers, self.parts.settings.batch) {
            self.flush();
        }
    }

    /// All of a partition was taken: what it holds up to its end without a record, the ends of transactions, is covered.
    fn at_end(&mut self, partition: i32, end: Option<i64>) {
        let Ok(index) = usize::try_from(partition) else { return };
        let Some(open) = self.partitions.get_mut(index) else { return };
        let behind = || position(self.consumer, &self.parts.settings.topic, partition);
        let Some(end) = end.or_else(|| behind().map(|behind| without_error(behind, open.error_at))) else { return };
        if self.standstill.holds(partition) || end <= open.builder.position() {
            return;
        }
        if index != self.current {
            self.flush();
            self.current = index;
        }
        if let Some(open) = self.partitions.get_mut(index) {
            open.builder.cover(end);
        }
    }

    /// Notes where an error came among many records.
    fn note_error(&mut self, error: ReadyError) {
        let index = usize::try_from(error.partition).unwrap_or(usize::MAX);
        if let Some(open) = self.partitions.get_mut(index) {
            open.error_at = open.error_at.max(error.offset);
        }
    }

    /// Sends the open batch, if there is anything in it.
    pub(super) fn flush(&mut self) {
        self.send(self.current, None);
    }

    pub(super) fn send(&mut self, index: usize, lost: Option<LossReason>) {
        let Some(open) = self.partitions.get_mut(index) else { return };
        let Some((batch, weight)) = open.builder.finish(self.epoch.number, lost) else { return };
        let permit = self.parts.credit.charge(weight);
        open.board.fetched.set(batch.origin.next);
        self.parts.records.do_send(Ingested { batch, permit });
    }

    /// An error that came among many records. The client's own poll did not see it, so it is counted here.
    fn trouble_of_many(&mut self, code: RDKafkaErrorCode) -> Result<(), End> {
        let error = match code {
            RDKafkaErrorCode::Fatal => KafkaError::MessageConsumptionFatal(code),
            code => KafkaError::MessageConsumption(code),
        };
        self.parts.monitor.fault("reader", "read", &error, "");
        self.trouble(error)
    }

    /// An error of the client: fatal, a position that is gone, or something that passes.
    pub(super) fn trouble(&mut self, error: KafkaError) -> Result<(), End> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(End::Fatal(error)),
            KafkaError::MessageConsumption(code) => self.suspect |= is_lost_position(code),
            // Counted where the client reported it; the client goes on by itself.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn obey(&mut self, command: ReaderCommand) -> Result<(), End> {
        if let ReaderCommand::Facts { facts, went_back } = &command {
            let change = compare(&self.facts, facts);
            if change == TopicChange::Recreated || *went_back == Some(self.epoch.number) {
                self.flush();
                self.wishes.facts = Some(facts.clone());
                return Err(End::Anew);
            }
            let topic_id = facts.topic_id.clone().or_else(|| self.facts.topic_id.take());
            self.facts = TopicFacts { topic_id, ..facts.clone() };
        }
        self.wishes.take(command);
        Ok(())
    }

    /// Opens the partitions that the topic has gained as soon as their bounds are known. The others are read meanwhile.
    fn grow(&mut self) {
        let open = i32::try_from(self.partitions.len()).unwrap_or(i32::MAX);
        if open >= self.facts.partitions || self.parts.drain.is_stopped() {
            return;
        }
        match self.growth.take() {
            None => {
                let new = (open..self.facts.partitions).collect();
                self.growth = ask_growth(self.parts, self.epoch.number, new);
            }
            Some(asked) if !asked.is_finished() => self.growth = Some(asked),
            Some(asked) => {
                if let Ok(Some(marks)) = asked.join() {
                    self.flush();
                    let opening = open_more(self.parts, &self.epoch, marks);
                    self.add(&opening);
                    self.assign_all();
                }
            }
        }
    }

    /// Adds partitions as they were opened, and tells what they have lost.
    pub(super) fn add(&mut self, opening: &Opening) {
        for &Start { partition, first, read_from, .. } in &opening.starts {
            let mut builder = BatchBuilder::new(partition, first);
            builder.cover(read_from);
            self.partitions.push(Open {
                builder,
                board: self.parts.board.opened(partition),
                start: first,
                error_at: UNKNOWN,
            });
            if first < read_from {
                self.lose(self.partitions.len() - 1, read_from - first);
            }
        }
    }
}

/// The end of a partition, of which the client says that it has taken everything before `behind`. Of an error that it handed out
/// among many records, the end of a partition too, it believes that there was a record at its offset.
fn without_error(behind: i64, error_at: i64) -> i64 {
    if behind.checked_sub(1) == Some(error_at) { error_at } else { behind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_offset_is_passed_that_held_only_an_error() {
        for (behind, error_at, end) in [(18, UNKNOWN, 18), (18, 12, 18), (18, 17, 17), (1, UNKNOWN, 1), (1, 0, 0)] {
            assert_eq!(without_error(behind, error_at), end, "{behind} with an error at {error_at}");
        }
    }
}
