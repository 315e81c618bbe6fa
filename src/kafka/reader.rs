//! The reader: reads every partition by plain assignment and hands contiguous batches to the pipeline.
//!
//! Its own thread, because polling and dropping a consumer block. No rebalance touches it; it waits for nothing but credit
//! and Kafka. It must not look into a record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use actix::Recipient;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::duties::Duties;
use super::monitor::{KafkaMonitor, MonitorContext};
use super::read_loop::Reader;
use super::settings::IngestSettings;
use super::stop::Stop;
use crate::board::Board;
use crate::messages::{Ingested, PartitionsOpened};
use crate::pauses::Pauses;
use crate::pipeline::credit::Credit;
use crate::pipeline::epoch::{Committed, TopicFacts};

/// The longest that a command or the stop signal waits for the reader.
pub(super) const TURN: Duration = Duration::from_millis(100);

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
    /// Where to stand still.
    pub pauses: Pauses,
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

impl ReaderParts {
    /// Waits; true when there is nothing more to read for: the thread ends, or the reading does.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.stop.wait(left.min(TURN)) || self.drain.is_stopped() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

impl std::fmt::Debug for ReaderParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderParts").finish_non_exhaustive()
    }
}

/// Called with the reason.
pub type Failed = Arc<dyn Fn(String) + Send + Sync>;

/// The signal to stop, or to drain, was given.
pub(super) struct Stopped;

/// Why a reader ended.
pub(super) enum End {
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
        let mut config = parts.settings.reading_config("reader", parts.settings.prefetch_kib);
        // The last offsets of a log may hold no record, and would never be passed without a word about its end.
        config.set("enable.partition.eof", "true");
        let consumer: BaseConsumer<MonitorContext> = config.create_with_context(context)?;
        if wishes.wait(&parts, &commands, assignment_deadline).is_err() {
            // Nothing more is sent.
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
            Ok(()) | Err(End::Stopped) => {
                parts.drained.stop();
                return Ok(());
            }
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
pub(super) struct Wishes {
    pub(super) facts: Option<TopicFacts>,
    pub(super) assigned: bool,
    pub(super) owns: BTreeMap<i32, (u64, Option<Committed>)>,
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

    /// A term waits to begin. One that a new epoch has begun may be here before the one that it has ended.
    pub(super) fn own(&mut self, partition: i32, term: u64, committed: Option<Committed>) {
        if self.owns.get(&partition).is_none_or(|(known, _)| *known < term) {
            self.owns.insert(partition, (term, committed));
        }
    }

    pub(super) fn take(&mut self, command: ReaderCommand) {
        match command {
            ReaderCommand::Facts { facts, .. } => self.facts = Some(facts),
            ReaderCommand::Own { partition, term, committed } => self.own(partition, term, committed),
            ReaderCommand::Assigned => self.assigned = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Epoch;
    use crate::metrics::Metrics;

    /// The group assigns a partition while the topic that was made anew is being opened: the reader hears of it after it
    /// was given the term of the new epoch.
    #[test]
    fn a_term_that_a_new_epoch_has_ended_does_not_keep_the_next_one_from_beginning() {
        let board = Board::new();
        board.open_epoch(Epoch { number: 1, name: "old".into() });
        let duties = Duties::new(board.clone(), Arc::new(Metrics::new().unwrap()));
        let mut wishes = Wishes::default();
        let assigned = duties.gain(3);
        board.open_epoch(Epoch { number: 2, name: "new".into() });
        duties.open_epoch(2, "new").into_iter().for_each(|(partition, term)| wishes.own(partition, term, None));
        wishes.take(ReaderCommand::Own { partition: 3, term: assigned, committed: None });
        board.opened(3);
        let (term, _) = wishes.owns.remove(&3).unwrap();
        assert!(duties.begin(3, term, 0, None), "nobody would do the duties of the partition");
        // One that comes after is another matter.
        let again = duties.gain(3);
        wishes.own(3, term, None);
        wishes.take(ReaderCommand::Own { partition: 3, term: again, committed: None });
        assert_eq!(wishes.owns.get(&3).map(|(term, _)| *term), Some(again));
    }
}
