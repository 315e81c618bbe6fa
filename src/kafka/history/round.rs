//! One round of a reader: pages of different partitions of one epoch, read at once.
//!
//! The usual round asks Kafka for records and, afterwards, for the topic's id; bounds are asked only when a position is not
//! in the log. It must not know who waits.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;

use super::Shared;
use super::partition::{Judging, PartitionRead};
use super::queue::PageJob;
use super::reader::Clients;
use crate::board::Epoch;
use crate::kafka::batch::RecordView;
use crate::kafka::errors::{ErrorType, classify_error, is_lost_position};
use crate::kafka::monitor::MonitorContext;
use crate::kafka::settings::{ASK, RETRY};
use crate::kafka::topic::{TopicId, topic_id};
use crate::kafka::watermarks::known_watermarks;
use crate::pipeline::page::TierError;

/// The longest that a reader does not notice that nobody waits any more.
const TURN: Duration = Duration::from_millis(50);
/// So much of a partition is taken beyond a page when it is there already, for the next one.
const AHEAD_BYTES: usize = 1024 * 1024;
/// The part of the cache that one round may fill so.
const AHEAD_SHARE: usize = 4;
/// How long the topic's id is waited for.
const ID_WAIT: Duration = Duration::from_secs(1);
/// So often it is asked for.
const ID_TRIES: u32 = 3;
/// So many records are taken, when they are there already, before it is looked again who waits: that goes over all partitions.
const AT_ONCE: usize = 100;

/// So long nothing may come in a round that holds others up.
const QUIET: Duration = Duration::from_millis(500);
/// So many times that for what was left unread before.
const MAX_PATIENCE: u32 = 8;

/// How a round left its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// As good as before.
    Good,
    /// It gave no record and no error in time, or gave up: the next round gets another one.
    Suspect,
}

/// A round while it goes on.
pub(super) struct Round<'a> {
    shared: &'a Shared,
    clients: &'a Clients,
    judging: &'a mut Judging,
    epoch: Epoch,
    /// By partition.
    reads: BTreeMap<i32, PartitionRead>,
    /// Since the last record.
    recoveries: u32,
    came: bool,
    /// When something came last, or the round began.
    last: Instant,
    /// It ended before its time: others wait, and what is left does not answer.
    cut_short: bool,
    fatal: bool,
    /// Partitions of which nothing more is wanted, but which are still fetched.
    complete: Vec<i32>,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        clients: &'a Clients,
        judging: &'a mut Judging,
        epoch: Epoch,
        jobs: Vec<PageJob>,
    ) -> Self {
        let ahead = AHEAD_BYTES.min(shared.parts.cache_bytes / AHEAD_SHARE / jobs.len().max(1));
        let boards = shared.parts.board.partitions();
        let known_end = |partition: i32| {
            let board = boards.iter().find(|board| board.partition == partition)?;
            board.fetched.get().max(board.end_at_start.get())
        };
        let reads = jobs.into_iter().map(|job| {
            let partition = job.request.partition;
            (partition, PartitionRead::new(job, known_end(partition).unwrap_or(0), ahead))
        });
        let reads = reads.collect();
        Self {
            shared,
            clients,
            judging,
            epoch,
            reads,
            recoveries: 0,
            came: false,
            last: Instant::now(),
            cut_short: false,
            fatal: false,
            complete: Vec::new(),
        }
    }

    /// Reads and answers, and keeps for the next page what came along with this one.
    pub(super) fn run(mut self) -> Left {
        self.read();
        let in_vain = self.was_in_vain();
        let checked = self.check_epoch();
        // Before the rest is closed, which makes a page of whatever has come.
        let unread: Vec<PageJob> = match checked {
            Ok(()) if self.cut_short => self.reads.values_mut().filter_map(PartitionRead::give_back).collect(),
            _ => Vec::new(),
        };
        for read in self.reads.values_mut() {
            read.answer(&checked);
        }
        if checked.is_ok() && self.shared.parts.cache_bytes > 0 {
            // What came after the check needs one of its own.
            let unchecked = self.ahead();
            if !unchecked || self.check_epoch().is_ok() {
                self.keep();
            }
        }
        let _ = self.clients.reading.unassign();
        unread.into_iter().for_each(|job| self.shared.queue.push_page(job));
        if self.fatal || in_vain { Left::Suspect } else { Left::Good }
    }

    fn read(&mut self) {
        if !self.assign() {
            return;
        }
        while let Some(left) = self.time_left() {
            if self.last.elapsed() >= self.patience() && self.holds_others_up() {
                self.cut_short = true;
                return;
            }
            let mut wait = left.min(TURN);
            for _ in 0..AT_ONCE {
                match self.poll(wait) {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => self.trouble(&error),
                    None => break,
                }
                wait = Duration::ZERO;
            }
        }
    }

    /// How long nothing may come before what is complete is answered: a partition without a leader gives neither a record
    /// nor an error. What was left unread before gets more time.
    fn patience(&self) -> Duration {
        let put_back = self.reads.values().map(PartitionRead::put_back).max().unwrap_or(0);
        QUIET * (put_back + 1).min(MAX_PATIENCE)
    }

    /// Whether somebody waits who could be answered, here or in another round.
    fn holds_others_up(&self) -> bool {
        self.reads.values().any(PartitionRead::is_complete) || self.shared.queue.is_waited_for()
    }

    /// Whether the consumer gave nothing though it had the time.
    fn was_in_vain(&self) -> bool {
        let patient = !self.cut_short || self.patience() >= QUIET * MAX_PATIENCE;
        !self.came && patient && self.reads.values().any(PartitionRead::is_wanted)
    }

    /// Takes what is there already, but waits for nothing. Answers whether there was anything.
    fn ahead(&mut self) -> bool {
        let chunks = |round: &Self| round.reads.values().map(|read| read.chunks().len()).sum::<usize>();
        let before = chunks(self);
        while self.reads.values().any(|read| !read.is_closed()) {
            match self.clients.reading.poll(Duration::ZERO) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error @ KafkaError::PartitionEOF(_))) => self.trouble(&error),
                _ => break,
            }
        }
        for read in self.reads.values_mut() {
            read.close(self.judging);
        }
        chunks(self) > before
    }

    /// How long somebody still waits for something; `None`: nobody does.
    fn time_left(&self) -> Option<Duration> {
        if self.fatal || self.shared.stop.is_stopped() {
            return None;
        }
        let deadline = self.reads.values().filter(|read| read.is_wanted()).map(|read| read.deadline()).max()?;
        deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let Some(read) = self.reads.get_mut(&message.partition()) else { return };
        let was_closed = read.is_closed();
        let record = RecordView {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: None,
            value: message.payload(),
        };
        read.take(self.judging, record);
        self.came = true;
        self.recoveries = 0;
        if !was_closed {
            self.last = Instant::now();
        }
        if !was_closed && read.is_closed() {
            self.complete.push(message.partition());
        }
    }

    /// The next that Kafka has. Before anything is waited for, what is complete is no longer fetched: together, since each
    /// change of what is fetched waits for the client's own thread.
    fn poll(&mut self, wait: Duration) -> Option<KafkaResult<BorrowedMessage<'a>>> {
        let clients = self.clients;
        let there = clients.reading.poll(Duration::ZERO);
        if there.is_some() {
            return there;
        }
        self.leave();
        clients.reading.poll(wait)
    }

    /// Stops fetching the partitions that are complete while others are still read.
    fn leave(&mut self) {
        if !self.complete.is_empty() && self.reads.values().any(PartitionRead::is_wanted) {
            let mut list = TopicPartitionList::with_capacity(self.complete.len());
            for partition in self.complete.drain(..) {
                list.add_partition(&self.shared.parts.kafka.topic, partition);
            }
            // Not a pause: that would outlive the assignment. If it goes on being fetched, that is only a waste.
            let _ = self.clients.reading.incremental_unassign(&list);
        }
    }

    fn trouble(&mut self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                self.came = true;
                self.last = Instant::now();
                if let Some(read) = self.reads.get_mut(partition) {
                    read.end_of_log(self.judging);
                }
            }
            // It names no partition.
            KafkaError::MessageConsumption(code) if is_lost_position(*code) => self.recover(),
            KafkaError::MessageConsumptionFatal(_) => {
                self.fatal = true;
                self.fail(error);
            }
            // Waiting does not help. Everything else passes, and the client goes on by itself.
            _ => {
                if let Some(ErrorType::TopicMissing | ErrorType::Authorization) = classify_error(error) {
                    self.fail(error);
                }
            }
        }
    }

    fn fail(&mut self, error: &KafkaError) {
        for read in self.reads.values_mut() {
            read.fail(self.judging, TierError::Unavailable(error.to_string()));
        }
    }

    /// Some position is not in the log: finds out which, and sets the others anew.
    fn recover(&mut self) {
        self.came = true;
        let Some(left) = self.time_left() else { return };
        if self.recoveries > 0 && self.shared.stop.wait(RETRY.delay(self.recoveries - 1, fastrand::f64()).min(left)) {
            return;
        }
        self.recoveries += 1;
        let partitions: Vec<i32> =
            self.reads.iter().filter(|(_, read)| !read.is_closed()).map(|(partition, _)| *partition).collect();
        match known_watermarks(&self.clients.asking, &self.shared.parts.kafka.topic, &partitions, left.min(ASK)) {
            Ok(marks) => {
                for mark in marks {
                    if let Some(read) = self.reads.get_mut(&mark.partition) {
                        read.out_of_log(self.judging, mark.low, mark.high);
                    }
                }
            }
            Err(error) => {
                self.shared.parts.monitor.fault("history", "look up the bounds of the topic", &error, "");
            }
        }
        self.assign();
    }

    /// Sets every partition that is still read to its position. False: the client refuses, for good.
    fn assign(&mut self) -> bool {
        let open: Vec<_> = self.reads.iter().filter(|(_, read)| !read.is_closed()).collect();
        let mut list = TopicPartitionList::with_capacity(open.len());
        for (partition, read) in open {
            // Fails when the position is negative, which is left out and never answered.
            let _ =
                list.add_partition_offset(&self.shared.parts.kafka.topic, *partition, Offset::Offset(read.position()));
        }
        self.complete.clear();
        let result = self.clients.reading.assign(&list);
        self.last = Instant::now();
        if let Err(error) = &result {
            self.shared.parts.monitor.fault("history", "assign partitions", error, "");
            self.fatal = true;
            self.fail(error);
        }
        result.is_ok()
    }

    /// Whether what was read belongs to the epoch: the id of a topic never comes back, so it is enough that it is the right
    /// one afterwards. Where ids are not known, the live reader notices another log by its offsets, and so does
    /// [`PartitionRead::out_of_log`].
    fn check_epoch(&self) -> Result<(), TierError> {
        if self.reads.values().all(|read| read.chunks().is_empty()) {
            return self.shared.is_current(self.epoch.number);
        }
        self.shared.check_topic(&self.clients.asking, &self.epoch)
    }

    fn keep(&self) {
        let mut cache = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in self.reads.values().flat_map(PartitionRead::chunks) {
            cache.keep(self.epoch.number, chunk);
        }
        self.shared.metrics().history_cache_bytes.set(i64::try_from(cache.bytes()).unwrap_or(i64::MAX));
    }
}

impl Shared {
    /// Whether the topic is still the one of the epoch: by its id, and by what the live reader knows.
    pub(super) fn check_topic(&self, client: &BaseConsumer<MonitorContext>, epoch: &Epoch) -> Result<(), TierError> {
        let expected = epoch.name.rsplit_once('/').map_or("-", |(_, id)| id);
        for attempt in 0..ID_TRIES {
            self.is_current(epoch.number)?;
            if expected == "-" {
                return Ok(());
            }
            match topic_id(client.client(), &self.parts.kafka.topic, ID_WAIT) {
                TopicId::Is(id) if id == expected => return self.is_current(epoch.number),
                TopicId::Is(_) => return Err(TierError::EpochOver),
                _ if self.stop.wait(RETRY.delay(attempt, fastrand::f64())) => break,
                _ => {}
            }
        }
        Err(TierError::Unavailable("Kafka does not tell whether the topic is still the same".into()))
    }
}
