//! The typed section of the exporter of quality.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{milliseconds, seconds};

/// Section `quality`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityConfig {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0: any free one.
    pub port: u16,
    /// Whether other addresses than loopback are served without authentication.
    pub allow_unauthenticated: bool,
    /// The group that shares the partitions.
    pub group_id: String,
    /// How often what was counted is committed.
    #[serde(rename = "commit_interval_ms", with = "milliseconds")]
    pub commit_interval: Duration,
    /// After what silence a session is over.
    #[serde(rename = "session_timeout_secs", with = "seconds")]
    pub session_timeout: Duration,
    /// Most sessions under way.
    pub max_sessions: usize,
    /// How many messages are remembered.
    pub remembered_messages: usize,
    /// Bounds of latencies.
    pub latency_buckets_ms: String,
    /// Bounds of durations.
    pub duration_buckets_seconds: String,
    /// Bounds of retries.
    pub retry_buckets: String,
    /// Bounds of turns.
    pub session_turn_buckets: String,
    /// Bounds of the time of scrapes.
    pub metrics_endpoint_buckets: String,
    /// Bounds of scores.
    pub quality_score_buckets: String,
}

impl QualityConfig {
    /// Whether only this machine can reach the listener.
    pub fn is_loopback(&self) -> bool {
        super::sections::is_loopback(&self.host)
    }
}

/// The bounds that a checked text stands for.
pub fn bounds(text: &str) -> Vec<f64> {
    text.split(',').filter_map(|bound| bound.trim().parse().ok()).collect()
}
