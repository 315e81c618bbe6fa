//! The sections of history: `replay` and `redis`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretUrl};
use super::units::{milliseconds, seconds};

/// Section `replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// Most records in the memory window.
    pub memory_messages: usize,
    /// Most bytes in the memory window.
    pub memory_bytes: usize,
    /// Most records sent for one resume.
    pub max_total: u64,
    /// Records of one page, over all partitions.
    pub page_records: u32,
    /// Time budget of one resume.
    #[serde(rename = "timeout_secs", with = "seconds")]
    pub timeout: Duration,
    /// Threads that read history from Kafka.
    pub history_readers: usize,
    /// Bytes of lately read history that are kept.
    pub history_cache_bytes: usize,
    /// What it means when Redis does not take history.
    pub durability: Durability,
}

/// What it means when Redis does not take history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The offset advances; Redis may have holes.
    BestEffort,
    /// The offset waits for Redis.
    Required,
}

/// Section `redis`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Address; empty: no Redis.
    pub url: SecretUrl,
    /// What the address leads to.
    pub topology: RedisTopology,
    /// Further addresses.
    pub nodes: Vec<String>,
    /// What the Sentinels call the server.
    pub sentinel_master: String,
    /// Password of the Sentinels.
    pub sentinel_password: Secret,
    /// What every key begins with.
    pub key_prefix: String,
    /// Most offsets kept per partition.
    pub max_sequences: u64,
    /// Most bytes kept per partition.
    pub max_bytes_per_partition: u64,
    /// How long records are kept.
    #[serde(rename = "message_ttl_secs", with = "seconds")]
    pub message_ttl: Duration,
    /// How long opening a connection may take.
    #[serde(rename = "connect_timeout_ms", with = "milliseconds")]
    pub connect_timeout: Duration,
    /// How long one answer may take.
    #[serde(rename = "response_timeout_ms", with = "milliseconds")]
    pub response_timeout: Duration,
    /// Most connections for reading.
    pub pool_size: usize,
    /// Bytes that may wait to be written.
    pub queue_bytes: usize,
    /// Chunks that may wait to be written.
    pub queue_chunks: usize,
}

/// What the address of Redis leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisTopology {
    /// One server.
    Standalone,
    /// Sentinels, which name the server.
    Sentinel,
    /// Nodes of a cluster.
    Cluster,
}
