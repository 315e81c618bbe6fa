//! Settings of the exporter of quality. What it shares with the service (brokers, topic, security, limits of records) is set there.

use super::{Section, boolean, integer, text};
use crate::config::forms;

pub(super) const QUALITY: Section = Section {
    name: "quality",
    doc: "The exporter of quality metrics, dashstream quality-exporter. Brokers, topic, security and limits are those of the service.",
    settings: &[
        text(
            "quality.host",
            "METRICS_BIND_IP",
            "127.0.0.1",
            forms::HOST,
            "Address that the exporter listens on. Anything but a loopback address needs authentication (section auth).",
        ),
        integer(
            "quality.port",
            "METRICS_PORT",
            9_190,
            0..=65_535,
            "",
            "Port that the exporter listens on. 0 takes any free port and prints it.",
        ),
        boolean(
            "quality.allow_unauthenticated",
            "DASHSTREAM_QUALITY_ALLOW_UNAUTHENTICATED",
            false,
            "Whether other addresses than loopback are served without authentication.",
        ),
        text(
            "quality.group_id",
            "DASHSTREAM_QUALITY_GROUP_ID",
            "dashstream-quality-exporter",
            forms::GROUP,
            "Consumer group of the exporter; another one than that of the service. Exporters of one group share the partitions.",
        ),
        integer(
            "quality.commit_interval_ms",
            "DASHSTREAM_QUALITY_COMMIT_INTERVAL_MS",
            1_000,
            10..=60_000,
            "milliseconds",
            "How often the offsets of counted records are committed. After a crash at most so much is counted again.",
        ),
        integer(
            "quality.session_timeout_secs",
            "PROMETHEUS_SESSION_TIMEOUT_SECS",
            300,
            1..=86_400,
            "seconds",
            "After what silence a session is over and its turns are counted.",
        ),
        integer(
            "quality.max_sessions",
            "DASHSTREAM_QUALITY_MAX_SESSIONS",
            100_000,
            1..=10_000_000,
            "sessions",
            "Most sessions under way; beyond, the one that was silent longest is over.",
        ),
        integer(
            "quality.remembered_messages",
            "DASHSTREAM_QUALITY_REMEMBERED_MESSAGES",
            100_000,
            1..=10_000_000,
            "messages",
            "How many messages are remembered, so that one that comes again is not counted again.",
        ),
        text(
            "quality.latency_buckets_ms",
            "PROMETHEUS_LATENCY_BUCKETS_MS",
            "10,50,100,200,500,1000,2000,5000,10000,15000,20000,30000",
            forms::BUCKETS,
            "Bounds of the histograms of latency.",
        ),
        text(
            "quality.duration_buckets_seconds",
            "PROMETHEUS_DURATION_BUCKETS_SECONDS",
            "0.01,0.05,0.1,0.2,0.5,1,2,5,10",
            forms::BUCKETS,
            "Bounds of the histograms of durations.",
        ),
        text(
            "quality.retry_buckets",
            "PROMETHEUS_RETRY_BUCKETS",
            "0,1,2,3,5,10",
            forms::BUCKETS,
            "Bounds of the histogram of retries.",
        ),
        text(
            "quality.session_turn_buckets",
            "PROMETHEUS_SESSION_TURN_BUCKETS",
            "1,2,5,10,20,50",
            forms::BUCKETS,
            "Bounds of the histogram of turns.",
        ),
        text(
            "quality.metrics_endpoint_buckets",
            "PROMETHEUS_METRICS_ENDPOINT_BUCKETS",
            "0.001,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1",
            forms::BUCKETS,
            "Bounds of the histogram of the time of scrapes.",
        ),
        text(
            "quality.quality_score_buckets",
            "PROMETHEUS_QUALITY_SCORE_BUCKETS",
            "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,1",
            forms::BUCKETS,
            "Bounds of the histograms of scores.",
        ),
    ],
};
