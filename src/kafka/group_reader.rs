//! Reads a topic as a member of a group: every partition that the group assigns, each record handled before its offset is
//! committed.
//!
//! Blocks: it belongs on a thread of its own, and waits for nothing but Kafka. It must not look into a record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::connection::KafkaConnection;
use super::group_state::GroupState;
use super::monitor::log_library;
use super::settings::join_group;
use super::stop::Stop;
use crate::pipeline::backoff::Backoff;

/// The longest that the stop signal and whatever is due by the clock wait for the reader.
const TURN: Duration = Duration::from_millis(100);
/// Records in one turn, however many there are to read.
const RECORDS_PER_TURN: u32 = 500;
/// Between clients, when one gave up.
const ANEW: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };
/// A client that lasted so long had no trouble with its start.
const LASTED: Duration = Duration::from_secs(60);

/// Whose group it is, and where it begins.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// How to reach Kafka.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether a group without a commit begins at the first record, or at the end.
    pub from_earliest: bool,
    /// Between commits.
    pub commit_interval: Duration,
    /// After what silence the group gives a member up.
    pub session_timeout: Duration,
}

/// A record as it lies in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct GroupRecord<'a> {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When Kafka has it from, in Unix milliseconds, as far as it says so.
    pub time_ms: Option<i64>,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// What is done with records.
pub trait Handle {
    /// Handles one record. Its offset is committed afterwards.
    fn record(&mut self, record: GroupRecord<'_>);

    /// A turn of the reader, several times per second, whether or not there are records.
    fn turn(&mut self);

    /// There will be no more records.
    fn end(&mut self);
}

/// The reader.
#[derive(Debug)]
pub struct GroupReader {
    /// Whose group it is.
    pub settings: GroupSettings,
    /// What others may know.
    pub state: Arc<GroupState>,
    /// Ends it.
    pub stop: Stop,
}

impl GroupSettings {
    fn reading_config(&self) -> rdkafka::ClientConfig {
        let mut config = self.connection.client_config("reader");
        join_group(&mut config, &self.group, self.session_timeout);
        config
            .set("auto.offset.reset", if self.from_earliest { "earliest" } else { "latest" })
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.error.backoff.ms", "200")
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }
}

impl GroupReader {
    /// Reads until stopped, then commits and leaves the group. A client that gives up is replaced.
    ///
    /// # Errors
    /// When no client can be made from the settings.
    pub fn run(&self, handle: &mut dyn Handle) -> KafkaResult<()> {
        let mut attempt = 0;
        loop {
            let context = MemberContext { state: Arc::clone(&self.state), stop: self.stop.clone() };
            let consumer: BaseConsumer<MemberContext> = self.settings.reading_config().create_with_context(context)?;
            let began = Instant::now();
            let Err(error) = self.take_part(&consumer, handle) else {
                // Before the client is closed, which takes its time when brokers are away.
                handle.end();
                return Ok(());
            };
            self.state.left();
            drop_elsewhere(consumer);
            attempt = if began.elapsed() >= LASTED { 0 } else { attempt + 1 };
            let wait = ANEW.delay(attempt, fastrand::f64());
            tracing::error!(%error, "the Kafka client gave up; another one takes its place");
            if self.wait(wait, handle) {
                handle.end();
                return Ok(());
            }
        }
    }

    /// Waits without missing what is due by the clock; true when stopped.
    fn wait(&self, wait: Duration, handle: &mut dyn Handle) -> bool {
        let end = Instant::now() + wait;
        loop {
            self.state.turned();
            handle.turn();
            let left = end.saturating_duration_since(Instant::now());
            if self.stop.wait(left.min(TURN)) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    fn take_part(&self, consumer: &BaseConsumer<MemberContext>, handle: &mut dyn Handle) -> KafkaResult<()> {
        consumer.subscribe(&[&self.settings.topic])?;
        let mut next_commit = Instant::now() + self.settings.commit_interval;
        let mut uncommitted = false;
        loop {
            self.state.turned();
            handle.turn();
            uncommitted |= self.read(consumer, handle)?;
            let stopped = self.stop.is_stopped();
            if uncommitted && (stopped || Instant::now() >= next_commit) {
                // What fails is tried again with the next.
                uncommitted = !consumer.context().commit(consumer);
                next_commit = Instant::now() + self.settings.commit_interval;
            }
            if stopped {
                return Ok(());
            }
        }
    }

    /// Handles what is there, or waits a turn for it; whether something was handled.
    fn read(&self, consumer: &BaseConsumer<MemberContext>, handle: &mut dyn Handle) -> KafkaResult<bool> {
        let mut handled = false;
        for _ in 0..RECORDS_PER_TURN {
            if self.stop.is_stopped() {
                break;
            }
            match consumer.poll(if handled { Duration::ZERO } else { TURN }) {
                None => break,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let time_ms = message.timestamp().to_millis().filter(|time| *time > 0);
                    handle.record(GroupRecord { partition, offset, time_ms, value: message.payload() });
                    handled = true;
                    self.state.handled(partition, offset);
                    if let Err(error) = consumer.store_offset(&self.settings.topic, partition, offset) {
                        self.state.metrics().offset_store_errors.inc();
                        self.state.fault("reader", "keep an offset for the next commit", &error, "");
                    }
                }
                // Most errors pass by themselves, and the context has told them. A client that gave up says so.
                Some(Err(_)) => {
                    if let Some((code, reason)) = consumer.client().fatal_error() {
                        tracing::error!(reason, "the Kafka client cannot go on");
                        return Err(KafkaError::MessageConsumptionFatal(code));
                    }
                    break;
                }
            }
        }
        Ok(handled)
    }
}

fn drop_elsewhere(consumer: BaseConsumer<MemberContext>) {
    // Closing may take seconds when brokers are away. Without another thread it is dropped here, which is slow but right.
    let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer));
}

struct MemberContext {
    state: Arc<GroupState>,
    stop: Stop,
}

impl MemberContext {
    /// Commits what was handled; true when nothing is left to commit.
    fn commit(&self, consumer: &BaseConsumer<Self>) -> bool {
        let result = match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) => "ok",
            // Nothing to commit is no fault and no commit.
            Err(error) if self.state.fault("reader", "commit", &error, "").is_none() => return true,
            Err(_) => "failed",
        };
        self.state.metrics().commits.with_label_values(&[result]).inc();
        result == "ok"
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|entry| entry.partition()).collect()
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library("reader", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What comes while the client is closed is of the closing.
        if !self.stop.is_stopped() {
            self.state.fault("reader", "connect", &error, reason);
        }
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let revoked = partitions_of(list);
        if consumer.assignment_lost() {
            // Others read on from the last commit already.
            self.state.left();
        } else if !revoked.is_empty() && !self.stop.is_stopped() {
            self.commit(consumer);
            tracing::info!(partitions = ?revoked, "the group took partitions away");
        }
        self.state.lost(&revoked);
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = partitions_of(list);
                tracing::info!(?partitions, "the group assigned partitions");
                self.state.gained(&partitions);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                self.state.fault("reader", "rebalance", error, "");
            }
        }
    }
}
