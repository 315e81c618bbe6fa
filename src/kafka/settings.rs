//! What the Kafka side is told: names, policies, limits and times.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::batch::BatchLimits;
use super::connection::KafkaConnection;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::epoch::ResetPolicy;

/// How long one question to Kafka may take.
pub(super) const ASK: Duration = Duration::from_secs(5);
/// Between tries of a question that failed.
pub(super) const RETRY: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) };

/// Settings of `KafkaIngest`.
#[derive(Clone, Debug)]
pub struct IngestSettings {
    /// How to reach Kafka.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// Names the cluster in the epoch, instead of the id that Kafka tells; empty: that id.
    pub cluster_id: String,
    /// The group that owns duties and commits.
    pub group: String,
    /// This process's name in the group: stable over restarts, unique among processes.
    pub instance_id: String,
    /// Where to begin without a commit.
    pub reset: ResetPolicy,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// Between commits.
    pub commit_interval: Duration,
    /// Between looks at the topic.
    pub metadata_interval: Duration,
    /// How long the wait for Kafka's topic id may take; zero: the cluster does not know topic ids, do not ask.
    pub topic_id_timeout: Duration,
    /// After what silence the group gives a member up.
    pub session_timeout: Duration,
    /// How long the reader waits for its first assignment, so that the normal start needs no second reading.
    pub assignment_wait: Duration,
    /// Bytes that librdkafka may hold ahead of the reader, in KiB.
    pub prefetch_kib: u32,
    /// Whether a record at which ingest stands still stops its own partition alone.
    pub pause_partition_alone: bool,
}

impl IngestSettings {
    /// Usual limits and times for a topic.
    pub fn new(connection: KafkaConnection, topic: &str, group: &str, instance_id: &str) -> Self {
        Self {
            connection,
            topic: topic.to_owned(),
            cluster_id: String::new(),
            group: group.to_owned(),
            instance_id: instance_id.to_owned(),
            reset: ResetPolicy::Earliest,
            batch: BatchLimits { records: 500, bytes: 1024 * 1024 },
            commit_interval: Duration::from_millis(500),
            metadata_interval: Duration::from_secs(1),
            topic_id_timeout: Duration::from_secs(1),
            session_timeout: Duration::from_secs(10),
            assignment_wait: Duration::from_secs(1),
            prefetch_kib: 16 * 1024,
            pause_partition_alone: false,
        }
    }

    /// A consumer that reads by plain assignment and has no effect on the group. librdkafka wants a group id for that.
    pub(super) fn reading_config(&self, role: &str, prefetch_kib: u32) -> ClientConfig {
        let mut config = self.connection.client_config(role);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("max.poll.interval.ms", "86400000")
            // Errors come as events. Log lines would be written to standard error while many records are taken at once.
            .set_log_level(RDKafkaLogLevel::Emerg)
            // Enough ahead that decompression overlaps with judging, bounded in bytes.
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", prefetch_kib.to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "200")
            // Answer as soon as there is one byte: sparse traffic is not held back.
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "500")
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }

    /// The member of the group: owns duties, commits, never reads.
    pub(super) fn member_config(&self, identity: &str) -> ClientConfig {
        let mut config = self.connection.client_config("member");
        join_group(&mut config, &self.group, self.session_timeout);
        config
            .set("client.id", identity)
            .set("group.instance.id", &self.instance_id)
            // It never fetches, so the position that it would start from does not matter; this one needs no answer.
            .set("auto.offset.reset", "latest")
            .set("queued.max.messages.kbytes", "64")
            .set("topic.metadata.refresh.interval.ms", "10000");
        config
    }

    /// A client that only asks.
    pub(super) fn asking_config(&self, role: &str) -> ClientConfig {
        let mut config = self.connection.client_config(role);
        config.set("topic.metadata.refresh.interval.ms", "-1");
        config
    }
}

/// What every member of a group is told. `session_timeout`: after what silence the group gives it up.
pub(super) fn join_group(config: &mut ClientConfig, group: &str, session_timeout: Duration) {
    let session_ms = session_timeout.as_millis();
    config
        .set("group.id", group)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 5).max(100).to_string())
        .set("max.poll.interval.ms", "300000")
        // Committed by hand: what the library commits by itself, it does not tell about.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
}
