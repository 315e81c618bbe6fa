//! The membership: a member of the group that owns duties and commits, and never reads a record.
//!
//! Its own thread and consumer. What it is assigned is kept paused; assignments are passed on to the reader, and what is
//! settled is committed, each time with the name of the epoch.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::duties::{Duties, ToCommit};
use super::errors::{ErrorType, classify_error};
use super::identity::ProcessIdentity;
use super::monitor::{KafkaMonitor, log_library};
use super::name_claim::{leaves_some_ownerless, wait_for_name};
use super::opening::commits;
use super::reader::ReaderCommand;
use super::settings::IngestSettings;
use super::stop::Stop;

/// The longest that a command or the stop signal waits.
const TURN: Duration = Duration::from_millis(50);
/// How often a member looks whether each partition has an owner.
const OWNERS_LOOK: Duration = Duration::from_secs(10);
/// How long a revoked partition may settle what is in flight.
const DRAIN: Duration = Duration::from_secs(1);

/// What the membership needs.
#[derive(Debug)]
pub struct MembershipParts {
    /// Names and times.
    pub settings: IngestSettings,
    /// Who this process is.
    pub identity: ProcessIdentity,
    /// What is owned.
    pub duties: Arc<Duties>,
    /// Where faults go.
    pub monitor: Arc<KafkaMonitor>,
    /// Ends the membership.
    pub stop: Stop,
    /// Where assignments go.
    pub reader: SyncSender<ReaderCommand>,
    /// Asks for the last commit; the time is the deadline. Answered by ending.
    pub finish: Receiver<Instant>,
}

/// Why a membership ended.
#[derive(Debug)]
pub enum MembershipEnd {
    /// As it was told; whether all that was settled is committed.
    Stopped {
        /// Nothing settled is left to commit.
        committed: bool,
    },
    /// Another process uses the same member id; this one must not go on.
    Refused(String),
    /// The client gave up; this is why.
    Failed(String),
}

#[derive(Debug, Default)]
struct Seen {
    gained: Vec<i32>,
    answered: bool,
    /// What comes from now on is only the closing.
    closing: bool,
    /// The last fault that the client told by itself, and that was counted.
    told: Option<RDKafkaErrorCode>,
}

struct MemberContext {
    settings: IngestSettings,
    duties: Arc<Duties>,
    monitor: Arc<KafkaMonitor>,
    stop: Stop,
    seen: Mutex<Seen>,
}

/// Takes part in the group until told to end. `ended` is told why before the consumer is closed, which may take seconds.
pub fn run(parts: &MembershipParts, ended: impl FnOnce(MembershipEnd)) {
    parts.monitor.set_member(false);
    match create(parts) {
        Ok(consumer) => {
            let end = take_part(parts, &consumer).unwrap_or_else(failed);
            // One that was told to stop may have a successor already.
            if !parts.stop.is_stopped() {
                parts.monitor.set_member(false);
            }
            consumer.context().lock().closing = true;
            ended(end);
        }
        Err(error) => ended(failed(error)),
    }
}

fn failed(error: KafkaError) -> MembershipEnd {
    MembershipEnd::Failed(error.to_string())
}

fn create(parts: &MembershipParts) -> KafkaResult<BaseConsumer<MemberContext>> {
    let context = MemberContext {
        settings: parts.settings.clone(),
        duties: Arc::clone(&parts.duties),
        monitor: Arc::clone(&parts.monitor),
        stop: parts.stop.clone(),
        seen: Mutex::default(),
    };
    let identity = format!("{}-member.{}", parts.settings.connection.client_id, parts.identity);
    parts.settings.member_config(&identity).create_with_context(context)
}

fn take_part(parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>) -> KafkaResult<MembershipEnd> {
    if let Some(end) = wait_for_name(parts, consumer) {
        return Ok(end);
    }
    consumer.subscribe(&[&parts.settings.topic])?;
    member_loop(parts, consumer)
}

fn member_loop(parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>) -> KafkaResult<MembershipEnd> {
    let mut told = false;
    let mut next_commit = Instant::now() + parts.settings.commit_interval;
    let mut owners = Owners { next: Instant::now() + OWNERS_LOOK, left_some_out: false };
    loop {
        if parts.stop.is_stopped() {
            return Ok(MembershipEnd::Stopped { committed: false });
        }
        if let Ok(deadline) = parts.finish.try_recv() {
            return Ok(MembershipEnd::Stopped { committed: last_commit(parts, consumer, deadline) });
        }
        // Paused partitions deliver nothing; a stray record would be read by the reader anyway.
        if let Some(Err(_)) = consumer.poll(TURN)
            && let Some(end) = judge(parts, consumer)
        {
            return Ok(end);
        }
        if pass_on(parts, consumer) && !told {
            told = parts.reader.send(ReaderCommand::Assigned).is_ok();
        }
        if Instant::now() >= next_commit {
            next_commit = Instant::now() + parts.settings.commit_interval;
            consumer.context().commit(consumer, parts.duties.to_commit(None));
        }
        if told {
            owners.look(parts, consumer)?;
        }
    }
}

/// A static member whose join was cut off, and tried again, gets what it had before, without a look at the topic: nothing,
/// if the topic was just being made. The client takes that for an answer to what it has seen of the topic, and never asks
/// again.
struct Owners {
    next: Instant,
    left_some_out: bool,
}

impl Owners {
    /// Joins once more when partitions were without an owner at two looks in a row: who leads the group divides them anew.
    fn look(&mut self, parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>) -> KafkaResult<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.left_some_out, leaves_some_ownerless(parts, consumer));
        if before && self.left_some_out {
            self.left_some_out = false;
            tracing::warn!(group = parts.settings.group, "partitions have no owner in the group; joining it once more");
            consumer.unsubscribe();
            consumer.subscribe(&[&parts.settings.topic])?;
        }
        self.next = Instant::now() + OWNERS_LOOK;
        Ok(())
    }
}

/// Whether the client has given up, and why: the error that was just polled may be another one, of a connection.
fn judge(parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>) -> Option<MembershipEnd> {
    // Fenced is no exception. Another process has joined with our name, or we ourselves: a join of which a broken connection has
    // swallowed the answer is fenced by the next one. Who starts anew asks whose the name is, and is refused if it is another's.
    let (code, reason) = consumer.client().fatal_error()?;
    let error = KafkaError::MessageConsumptionFatal(code);
    let kind = classify_error(&error).unwrap_or(ErrorType::Fatal);
    if consumer.context().lock().told != Some(code) {
        parts.monitor.fault("member", "take part in the group", &error, &reason);
    }
    parts.duties.lose_all();
    parts.monitor.set_member(false);
    Some(MembershipEnd::Failed(format!("{}: {reason}", kind.label())))
}

/// Passes new assignments on, with the group's commits. True once the group has answered for the first time and all of
/// its answer was passed on. What fails is tried again in the next turn.
fn pass_on(parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>) -> bool {
    let (gained, answered) = {
        let mut seen = consumer.context().lock();
        (std::mem::take(&mut seen.gained), seen.answered)
    };
    if gained.is_empty() {
        return answered;
    }
    match commits(consumer, &parts.settings.topic, &gained) {
        Ok(found) => {
            tracing::info!(partitions = ?gained, "the group assigned partitions");
            for (partition, committed) in gained.into_iter().zip(found) {
                let term = parts.duties.gain(partition);
                // The reader is gone only when everything is about to end.
                let _ = parts.reader.send(ReaderCommand::Own { partition, term, committed });
            }
            true
        }
        Err(error) => {
            parts.monitor.fault("member", "fetch the group's commits", &error, "");
            consumer.context().lock().gained.extend(gained);
            false
        }
    }
}

/// Commits what is settled until nothing is left or the deadline has passed.
fn last_commit(parts: &MembershipParts, consumer: &BaseConsumer<MemberContext>, deadline: Instant) -> bool {
    while Instant::now() < deadline && !parts.stop.is_stopped() {
        let Some(left) = parts.duties.to_commit(None) else { return true };
        consumer.context().commit(consumer, Some(left));
        let _ = consumer.poll(Duration::from_millis(20));
    }
    parts.duties.to_commit(None).is_none()
}

impl MemberContext {
    /// Commits and waits for the answer, which the library gives within the session timeout. (Of a commit that is not
    /// waited for, its event interface tells nothing.) What failed stays to be committed.
    fn commit(&self, consumer: &BaseConsumer<Self>, what: Option<ToCommit>) {
        let Some(ToCommit { epoch, epoch_name, offsets }) = what else { return };
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in &offsets {
            let mut entry = list.add_partition(&self.settings.topic, *partition);
            // Cannot fail: a settled offset is never negative.
            let _ = entry.set_offset(Offset::Offset(*offset));
            entry.set_metadata(&epoch_name);
        }
        let result = match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                for (partition, offset) in offsets {
                    self.duties.confirm(partition, offset, epoch);
                }
                "ok"
            }
            // Nothing to commit is no fault and no commit.
            Err(error) if self.monitor.fault("member", "commit", &error, "").is_none() => return,
            Err(_) => "failed",
        };
        self.monitor.metrics().commits.with_label_values(&[result]).inc();
    }

    fn ending(&self) -> bool {
        self.stop.is_stopped() || self.lock().closing
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|entry| entry.partition()).collect()
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library("member", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if !self.ending() {
            self.lock().told = error.rdkafka_error_code();
            self.monitor.fault("member", "connect", &error, reason);
        }
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let revoked = partitions_of(list);
        self.lock().gained.retain(|partition| !revoked.contains(partition));
        if consumer.assignment_lost() && !self.ending() {
            self.monitor.set_member(false);
        }
        if revoked.is_empty() {
            return;
        }
        if !self.ending() && !consumer.assignment_lost() {
            let drained = self.duties.wait_settled(&revoked, DRAIN);
            self.commit(consumer, self.duties.to_commit(Some(&revoked)));
            tracing::info!(partitions = ?revoked, drained, "the group took partitions away");
        }
        for partition in revoked {
            self.duties.lose(partition);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if list.count() > 0
                    && let Err(error) = consumer.pause(list)
                {
                    self.monitor.fault("member", "pause partitions", &error, "");
                }
                // Also without a partition of its own: there may be more instances than partitions.
                if !self.ending() {
                    self.monitor.set_member(true);
                }
                let mut seen = self.lock();
                seen.answered = true;
                seen.gained.extend(partitions_of(list));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                self.monitor.fault("member", "rebalance", error, "");
            }
        }
    }
}
