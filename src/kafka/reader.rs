//! The reader: reads every partition by plain assignment and hands contiguous batches to the pipeline.
//!
//! Its own thread, because polling and dropping a consumer block. No rebalance touches it; it waits for nothing but credit
//! and Kafka. It must not look into a record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use actix::Recipient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::batch::{BatchBuilder, RecordView};
use super::duties::Duties;
use super::duty_reader::{DutyRange, spawn_duty_reader};
use super::monitor::{KafkaMonitor, MonitorContext};
use super::opening::{ask_bounds, open_more, open_topic};
use super::settings::{IngestSettings, RETRY};
use super::stop::Stop;
use super::topic::append_headers;
use crate::board::{Board, Epoch, PartitionBoard};
use crate::messages::{Ingested, PartitionsOpened};
use crate::pipeline::credit::Credit;
use crate::pipeline::epoch::{Committed, Opening, Place, Start, TopicChange, TopicFacts, compare, place, valid_commit};
use crate::pipeline::record::LossReason;

/// The longest that a command or the stop signal waits for the reader.
const TURN: Duration = Duration::from_millis(100);
/// Batches after which the reader looks at its commands, however much there is to read.
const BATCHES_PER_TURN: u32 = 32;

/// How long an answer about the topic is waited for when offsets seem to have gone back.
const LOOK_WAIT: Duration = Duration::from_secs(3);
/// How long a leader may take to know the end of its log.
const SETTLE: Duration = Duration::from_millis(500);

/// What the other threads tell the reader.
#[derive(Clone, Debug)]
pub enum ReaderCommand {
    /// The topic is there, and what it looks like.
    Facts {
        /// What was learned.
        facts: TopicFacts,
        /// The number of the epoch in which partitions were seen to end before what was already read of them.
        went_back: Option<u64>,
    },
    /// The group assigned a partition under a term.
    Own {
        /// The partition.
        partition: i32,
        /// The term.
        term: u64,
        /// The group's commit.
        committed: Option<Committed>,
    },
    /// The group has told which partitions are assigned, perhaps none.
    Assigned,
}

/// What the reader needs.
#[derive(Clone)]
pub struct ReaderParts {
    /// Names, limits, times.
    pub settings: IngestSettings,
    /// Where positions are published.
    pub board: Board,
    /// Bytes in flight.
    pub credit: Credit,
    /// Where faults go.
    pub monitor: Arc<KafkaMonitor>,
    /// Who owns what.
    pub duties: Arc<Duties>,
    /// Ends the thread.
    pub stop: Stop,
    /// Ends the reading, but not the thread.
    pub drain: Stop,
    /// Set by the reader once it has sent its last batch because of `drain`.
    pub drained: Stop,
    /// Asks the watch for a look at the topic.
    pub look_now: SyncSender<()>,
    /// Where batches go. The address of one generation: if that one dies, what was sent is lost with it and the reader has
    /// to be started anew.
    pub records: Recipient<Ingested>,
    /// Where openings are announced.
    pub opened: Recipient<PartitionsOpened>,
    /// Told when a helper of the reader cannot go on: everything has to be started anew.
    pub failed: Failed,
}

impl std::fmt::Debug for ReaderParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderParts").finish_non_exhaustive()
    }
}

/// Called with the reason.
pub type Failed = Arc<dyn Fn(String) + Send + Sync>;

/// The stop signal was given.
pub(super) struct Stopped;

enum End {
    Stopped,
    /// The topic is another one than before.
    Anew,
    Fatal(KafkaError),
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Reads until stopped.
///
/// # Errors
/// When no client can be made, or the client gave up for good.
pub fn run(parts: ReaderParts, commands: Receiver<ReaderCommand>) -> Result<(), KafkaError> {
    let mut wishes = Wishes::default();
    let assignment_deadline = Instant::now() + parts.settings.assignment_wait;
    let mut anew = false;
    loop {
        let context = MonitorContext { client: "reader", monitor: Arc::clone(&parts.monitor) };
        let config = parts.settings.reading_config("reader", parts.settings.prefetch_kib);
        let consumer: BaseConsumer<MonitorContext> = config.create_with_context(context)?;
        if wishes.wait(&parts, &commands, assignment_deadline).is_err() {
            parts.drained.stop();
            drop_elsewhere(consumer);
            return Ok(());
        }
        let end = Reader::open(&parts, &consumer, &mut wishes, anew)
            .map_err(End::from)
            .and_then(|mut reader| reader.read_on(&commands));
        // Closing a consumer may take seconds when brokers are away; nobody has to wait for it.
        drop_elsewhere(consumer);
        match end {
            Ok(()) | Err(End::Stopped) => return Ok(()),
            Err(End::Fatal(error)) => return Err(error),
            // A consumer keeps what it knows of the old topic (leader epochs, errors), so the new one gets its own.
            Err(End::Anew) => anew = true,
        }
    }
}

fn drop_elsewhere(consumer: BaseConsumer<MonitorContext>) {
    // Without another thread it is dropped here, which is slow but right.
    let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer));
}

/// Commands that wait for the topic to be opened.
#[derive(Default)]
struct Wishes {
    facts: Option<TopicFacts>,
    assigned: bool,
    owns: BTreeMap<i32, (u64, Option<Committed>)>,
}

impl Wishes {
    /// Waits for facts about the topic, and until `deadline` for the first assignment.
    fn wait(
        &mut self,
        parts: &ReaderParts,
        commands: &Receiver<ReaderCommand>,
        deadline: Instant,
    ) -> Result<(), Stopped> {
        while !parts.stop.is_stopped() && !parts.drain.is_stopped() {
            if self.facts.is_some() && (self.assigned || Instant::now() >= deadline) {
                return Ok(());
            }
            match commands.recv_timeout(TURN) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
        Err(Stopped)
    }

    fn take(&mut self, command: ReaderCommand) {
        match command {
            ReaderCommand::Facts { facts, .. } => self.facts = Some(facts),
            ReaderCommand::Own { partition, term, committed } => {
                self.owns.insert(partition, (term, committed));
            }
            ReaderCommand::Assigned => self.assigned = true,
        }
    }
}

/// One partition while it is read.
struct Open {
    builder: BatchBuilder,
    board: Arc<PartitionBoard>,
    start: i64,
}

/// The reader in one epoch.
struct Reader<'a> {
    parts: &'a ReaderParts,
    consumer: &'a BaseConsumer<MonitorContext>,
    wishes: &'a mut Wishes,
    facts: TopicFacts,
    epoch: Epoch,
    recreated: bool,
    /// By partition number.
    partitions: Vec<Open>,
    /// The partition whose batch is open.
    current: usize,
    /// A position is not in the log any more.
    suspect: bool,
    /// Recoveries since the last record.
    recoveries: u32,
}

impl<'a> Reader<'a> {
    fn open(
        parts: &'a ReaderParts,
        consumer: &'a BaseConsumer<MonitorContext>,
        wishes: &'a mut Wishes,
        anew: bool,
    ) -> Result<Self, Stopped> {
        let facts = wishes.facts.clone().ok_or(Stopped)?;
        let opened = open_topic(parts, consumer, &facts, anew)?;
        for (partition, term) in opened.terms {
            wishes.owns.insert(partition, (term, None));
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
        };
        reader.add(&opened.opening);
        reader.assign_all();
        reader.begin_owned();
        Ok(reader)
    }

    /// Reads until the end of this epoch.
    fn read_on(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        while !self.parts.stop.is_stopped() {
            while let Ok(command) = commands.try_recv() {
                self.obey(command)?;
            }
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
                self.read()?;
            }
        }
        Ok(())
    }

    /// Takes what is there, or waits one turn for something.
    fn read(&mut self) -> Result<(), End> {
        let consumer = self.consumer;
        let (mut timeout, mut batches) = (TURN, 0);
        while batches < BATCHES_PER_TURN {
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    if self.take(&message) {
                        batches += 1;
                        if self.parts.credit.used() >= self.parts.credit.limit() {
                            break;
                        }
                    }
                    timeout = Duration::ZERO;
                }
                Some(Err(error)) => self.trouble(error)?,
                None => break,
            }
        }
        self.flush();
        Ok(())
    }

    /// Takes one record; true when a batch was sent because of it.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let Ok(index) = usize::try_from(message.partition()) else { return false };
        let mut sent = false;
        if index != self.current {
            sent = self.send(self.current, None);
            self.current = index;
        }
        let Some(open) = self.partitions.get_mut(index) else { return sent };
        let record = RecordView {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload(),
        };
        self.recoveries = 0;
        if open.builder.push(record, |arena| append_headers(message, arena), self.parts.settings.batch) {
            return self.send(index, None);
        }
        sent
    }

    /// Sends the open batch, if there is anything in it.
    fn flush(&mut self) {
        self.send(self.current, None);
    }

    fn send(&mut self, index: usize, lost: Option<LossReason>) -> bool {
        let Some(open) = self.partitions.get_mut(index) else { return false };
        let Some((batch, weight)) = open.builder.finish(self.epoch.number, lost) else { return false };
        let permit = self.parts.credit.charge(weight);
        open.board.fetched.set(batch.origin.next);
        self.parts.records.do_send(Ingested { batch, permit });
        true
    }

    /// An error of the client: fatal, a position that is gone, or something that passes.
    fn trouble(&mut self, error: KafkaError) -> Result<(), End> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(End::Fatal(error)),
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => self.suspect = true,
            // Counted where the client reported it; the client goes on by itself.
            _ => {}
        }
        Ok(())
    }

    fn obey(&mut self, command: ReaderCommand) -> Result<(), End> {
        if let ReaderCommand::Facts { facts, went_back } = &command {
            let change = compare(&self.facts, facts);
            if change == TopicChange::Recreated || *went_back == Some(self.epoch.number) {
                self.flush();
                self.wishes.facts = Some(facts.clone());
                return Err(End::Anew);
            }
            if change == TopicChange::Grown {
                self.flush();
                let new: Vec<i32> = (self.facts.partitions..facts.partitions).collect();
                let opening = open_more(self.parts, self.consumer, &self.epoch, &new)?;
                self.add(&opening);
                self.assign_all();
            }
            let topic_id = facts.topic_id.clone().or_else(|| self.facts.topic_id.take());
            self.facts = TopicFacts { topic_id, ..facts.clone() };
        }
        self.wishes.take(command);
        Ok(())
    }

    /// Adds partitions as they were opened, and tells what they have lost.
    fn add(&mut self, opening: &Opening) {
        for &Start { partition, first, read_from, .. } in &opening.starts {
            let mut builder = BatchBuilder::new(partition, first);
            builder.cover(read_from);
            self.partitions.push(Open { builder, board: self.parts.board.partition(partition), start: first });
            if first < read_from {
                self.lose(self.partitions.len() - 1, read_from - first);
            }
        }
    }

    /// Hands the open coverage of a partition over as lost to retention.
    fn lose(&mut self, index: usize, count: i64) {
        tracing::warn!(
            topic = self.parts.settings.topic,
            partition = index,
            count,
            "offsets are lost: retention has passed them before they were read"
        );
        self.parts.monitor.metrics().lost_offsets.with_label_values(&["retention"]).inc_by(count.unsigned_abs());
        self.send(index, Some(LossReason::Retention));
    }

    /// Sets every partition to its position.
    fn assign_all(&mut self) {
        let mut list = TopicPartitionList::with_capacity(self.partitions.len());
        for (partition, open) in (0..).zip(&self.partitions) {
            // Cannot fail: a position is never negative.
            let _ = list.add_partition_offset(
                &self.parts.settings.topic,
                partition,
                Offset::Offset(open.builder.position()),
            );
        }
        if let Err(error) = self.consumer.assign(&list) {
            self.parts.monitor.fault("reader", "assign partitions", &error, "");
            self.suspect = true;
        }
    }

    /// Some position is not in the log: finds out which, tells what is lost, goes on. The error names no partition.
    fn recover(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        self.flush();
        if self.recoveries > 0 && self.parts.stop.wait(RETRY.delay(self.recoveries - 1, fastrand::f64())) {
            return Err(End::Stopped);
        }
        self.recoveries += 1;
        let all: Vec<i32> = (0..).take(self.partitions.len()).collect();
        let mut beyond_before = false;
        loop {
            let marks = ask_bounds(self.parts, self.consumer, &all)?;
            let places: Vec<_> =
                self.partitions.iter().zip(&marks).map(|(o, m)| place(o.builder.position(), m.low, m.high)).collect();
            if places.contains(&Place::Beyond) {
                // A leader that has just taken over may be behind for a moment, so it is asked twice.
                if beyond_before {
                    return Err(End::Anew);
                }
                beyond_before = true;
                self.look_again(commands)?;
                continue;
            }
            for (index, (place, mark)) in places.into_iter().zip(marks).enumerate() {
                if place == Place::Below
                    && let Some(open) = self.partitions.get_mut(index)
                {
                    let count = mark.low - open.builder.position();
                    open.builder.cover(mark.low);
                    self.lose(index, count);
                }
            }
            self.suspect = false;
            self.assign_all();
            return Ok(());
        }
    }

    /// Has the topic looked at, and waits for what the watch says.
    fn look_again(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        let _ = self.parts.look_now.try_send(());
        let asked = Instant::now();
        // Until the answer comes, but long enough for a new leader to settle.
        let mut answered = false;
        while asked.elapsed() < LOOK_WAIT && !(answered && asked.elapsed() > SETTLE) {
            if self.parts.stop.is_stopped() {
                return Err(End::Stopped);
            }
            if let Ok(command) = commands.recv_timeout(TURN) {
                answered |= matches!(command, ReaderCommand::Facts { .. });
                self.obey(command)?;
            }
        }
        Ok(())
    }

    /// Begins the duties that were assigned, where the reader has come to their start. What it has already passed is read
    /// again for the duties alone. A partition that another owner has brought further than this reader waits until the
    /// reader is there, so that nothing is done twice.
    fn begin_owned(&mut self) {
        if self.wishes.owns.is_empty() {
            return;
        }
        let mut ranges = Vec::new();
        let owns = std::mem::take(&mut self.wishes.owns);
        for (partition, (term, committed)) in owns {
            let index = usize::try_from(partition).unwrap_or(usize::MAX);
            let valid = committed.as_ref().and_then(|commit| valid_commit(commit, &self.epoch.name, self.recreated));
            let Some(from) = self.partitions.get(index).map(|open| valid.unwrap_or(open.start)) else {
                self.wishes.owns.insert(partition, (term, committed));
                continue;
            };
            // All that is sent from now on is judged after the term has begun.
            self.send(index, None);
            let position = self.partitions.get(index).map_or(from, |open| open.builder.position());
            if position < from {
                if self.parts.duties.holds(partition, term) {
                    self.wishes.owns.insert(partition, (term, committed));
                }
                continue;
            }
            if self.parts.duties.begin(partition, term, from, valid) && from < position {
                ranges.push(DutyRange { partition, term, from, to: position });
            }
        }
        if !ranges.is_empty() {
            spawn_duty_reader(self.parts.clone(), self.epoch.number, ranges);
        }
    }
}
