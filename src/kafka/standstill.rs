//! How the reader stands still at records that cannot be processed, and goes on.
//!
//! A partition that stands still is read again from its record on, once there is an answer. While an operator has to
//! answer, nothing is read at all, unless the settings say that the partition waits alone; what is on its way from other
//! partitions is still delivered. While only another instance has to answer, the partition waits alone in any case, or two
//! instances could wait for each other for ever. It must not decide anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::batch::BatchBuilder;
use super::monitor::MonitorContext;
use super::opening::commits;
use super::read_loop::{Open, Reader};
use super::reader::ReaderParts;
use crate::pauses::Pause;
use crate::pipeline::epoch::valid_commit;

/// How often the group is asked whether the owner has passed a record.
const ASK_PERIOD: Duration = Duration::from_millis(500);

/// What the reader has made of the table of pauses.
#[derive(Default)]
pub(super) struct Standstill {
    /// A record stops its own partition alone.
    alone: bool,
    version: u64,
    /// As last seen.
    pauses: Vec<Pause>,
    /// Asks for the commits of partitions that others own.
    owner_watch: Option<std::thread::JoinHandle<()>>,
}

impl Standstill {
    pub(super) fn new(alone: bool) -> Self {
        Self { alone, ..Self::default() }
    }

    /// Whether a partition must not be read.
    pub(super) fn holds(&self, partition: i32) -> bool {
        let holds = |pause: &Pause| pause.partition == partition || pause.ours && !self.alone;
        self.pauses.iter().any(|pause| pause.stands() && holds(pause))
    }
}

impl Reader<'_> {
    /// A reader that has just been opened: whatever stands is met again on its way.
    pub(super) fn meet_again(&mut self) {
        let starts = (0..).zip(&self.partitions).map(|(partition, open)| (partition, open.start));
        self.standstill.pauses = self.parts.pauses.begin(self.epoch.number, starts);
    }

    /// Goes back to records that were met, stops where there is no answer, and goes on where there is one.
    pub(super) fn stand_still(&mut self) {
        if self.standstill.version == self.parts.pauses.version() && self.standstill.pauses.is_empty() {
            return;
        }
        self.follow_duties();
        // The version first: what changes meanwhile is seen in the next turn.
        self.standstill.version = self.parts.pauses.version();
        let before = std::mem::replace(&mut self.standstill.pauses, self.parts.pauses.all());
        let mut changed = false;
        for pause in &self.standstill.pauses {
            let known = before.iter().find(|known| known.meeting == pause.meeting);
            if known.is_none() {
                go_back(&mut self.partitions, pause);
            }
            changed |= known.is_none_or(|known| known.stands() != pause.stands() || known.ours != pause.ours);
        }
        let is_left = |old: &Pause| self.standstill.pauses.iter().any(|pause| pause.meeting == old.meeting);
        changed |= before.iter().any(|old| old.stands() && !is_left(old));
        if changed {
            self.assign_all();
        }
        self.watch_owners();
    }

    /// A record is decided by the owner of its partition: when that is another one now, somebody else has to answer.
    fn follow_duties(&self) {
        for pause in self.parts.pauses.all().iter().filter(|pause| pause.stands()) {
            let Some(board) = self.parts.board.find(pause.partition) else { continue };
            let owned = board.duty_term.load(Ordering::Acquire) != 0;
            if owned && !pause.ours {
                self.parts.pauses.retry(pause.partition);
            } else if !owned && pause.ours {
                tracing::info!(
                    partition = pause.partition,
                    offset = pause.offset,
                    "another instance owns the partition now, and decides about the record"
                );
                self.parts.pauses.set_ours(pause.partition, false);
            }
        }
    }

    fn watch_owners(&mut self) {
        let waits = self.standstill.pauses.iter().any(|pause| pause.stands() && !pause.ours);
        let watched = self.standstill.owner_watch.as_ref().is_some_and(|watch| !watch.is_finished());
        if !waits || watched {
            return;
        }
        let (parts, epoch, recreated) = (self.parts.clone(), self.epoch.clone(), self.recreated);
        let watch = move || {
            if let Err(error) = watch_owners(&parts, epoch.number, &epoch.name, recreated) {
                parts.monitor.fault("owner-watch", "ask for the group's commits", &error, "");
            }
        };
        // Without a thread it is tried again in the next turn.
        self.standstill.owner_watch = std::thread::Builder::new().name("kafka-owners".into()).spawn(watch).ok();
    }
}

/// A partition is read from the record on when it is read next. Nothing behind it has passed.
fn go_back(partitions: &mut [Open], pause: &Pause) {
    let index = usize::try_from(pause.partition).unwrap_or(usize::MAX);
    if let Some(open) = partitions.get_mut(index) {
        let position = pause.offset.min(open.builder.position());
        open.builder = BatchBuilder::new(pause.partition, position);
        open.board.fetched.set(position);
    }
}

/// Asks for the group's commits until no partition waits for another owner.
fn watch_owners(parts: &ReaderParts, epoch: u64, name: &str, recreated: bool) -> Result<(), KafkaError> {
    let context = MonitorContext { client: "owner-watch", monitor: Arc::clone(&parts.monitor) };
    let mut config = parts.settings.asking_config("owners");
    config.set("group.id", &parts.settings.group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer<MonitorContext> = config.create_with_context(context)?;
    while !parts.stop.is_stopped() && !parts.drain.is_stopped() && parts.board.epoch_number() == epoch {
        let all = parts.pauses.all();
        let waiting: Vec<i32> =
            all.iter().filter(|pause| pause.stands() && !pause.ours).map(|pause| pause.partition).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        match commits(&consumer, &parts.settings.topic, &waiting) {
            Ok(found) => {
                for (partition, commit) in waiting.into_iter().zip(found) {
                    if let Some(next) = commit.as_ref().and_then(|commit| valid_commit(commit, name, recreated)) {
                        parts.pauses.owner_passed(partition, next);
                    }
                }
            }
            Err(error) => drop(parts.monitor.fault("owner-watch", "ask for the group's commits", &error, "")),
        }
        parts.stop.wait(ASK_PERIOD);
    }
    Ok(())
}
