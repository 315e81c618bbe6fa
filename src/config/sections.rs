//! The typed configuration, as the rest of the program sees it.
//!
//! Names, defaults, ranges and explanations live in [`super::table`]; a test holds the two together. The types must not
//! know where a value came from.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::doors::{AuthConfig, ForwardedHeader, RedactConfig};
use super::quality::QualityConfig;
use super::replay::{RedisConfig, ReplayConfig};
use super::secret::{Secret, SecretUrl};
use super::units::{milliseconds, seconds};
use crate::kafka::security::KafkaSecurityConfig;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where records come from.
    pub kafka: KafkaConfig,
    /// How records are judged.
    pub decode: DecodeConfig,
    /// Where unprocessable records go.
    pub dlq: DlqConfig,
    /// How much history is kept and served.
    pub replay: ReplayConfig,
    /// The shared history tier.
    pub redis: RedisConfig,
    /// The listener and its sessions.
    pub web: WebConfig,
    /// Who may connect.
    pub auth: AuthConfig,
    /// What nobody may see.
    pub redact: RedactConfig,
    /// How actors are kept alive.
    pub supervisor: SupervisorConfig,
    /// The exporter of quality.
    pub quality: QualityConfig,
    /// Logs and spans.
    pub telemetry: TelemetryConfig,
}

/// Section `kafka`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// The source topic.
    pub topic: String,
    /// The group that owns commits.
    pub group_id: String,
    /// Static member id; empty: see [`super::instance::instance_id`].
    pub group_instance_id: String,
    /// Part of the resume namespace; empty: not used.
    pub cluster_id: String,
    /// Where a group without a committed offset begins.
    pub auto_offset_reset: AutoOffsetReset,
    /// Address family of broker connections.
    pub broker_address_family: AddressFamily,
    /// After what silence a member loses its duties.
    #[serde(rename = "session_timeout_ms", with = "milliseconds")]
    pub session_timeout: Duration,
    /// Most records in one batch.
    pub batch_max_records: usize,
    /// Most bytes in one batch; one larger record makes a batch of its own.
    pub batch_max_bytes: usize,
    /// Bytes between Kafka and the last stage at which polling stops.
    pub in_flight_bytes: usize,
    /// How often partitions and the topic id are looked up.
    #[serde(rename = "metadata_interval_ms", with = "milliseconds")]
    pub metadata_interval: Duration,
    /// How often settled offsets are committed.
    #[serde(rename = "commit_interval_ms", with = "milliseconds")]
    pub commit_interval: Duration,
    /// How often lag is measured.
    #[serde(rename = "lag_check_interval_secs", with = "seconds")]
    pub lag_check_interval: Duration,
    /// After what time without progress a lagging partition counts as stuck.
    #[serde(rename = "lag_stale_partition_secs", with = "seconds")]
    pub lag_stale_partition: Duration,
    /// TLS and SASL.
    pub security: KafkaSecurityConfig,
}

/// `auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoOffsetReset {
    /// The first retained record.
    Earliest,
    /// The end of the log.
    Latest,
}

impl AutoOffsetReset {
    /// The name in librdkafka.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
        }
    }
}

/// `broker.address.family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressFamily {
    /// IPv4 when a broker is a loopback address, otherwise any.
    Auto,
    /// Whatever the name resolves to.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl AddressFamily {
    /// The name in librdkafka; `None` leaves the choice to the connection.
    pub const fn as_librdkafka(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Any => Some("any"),
            Self::V4 => Some("v4"),
            Self::V6 => Some("v6"),
        }
    }
}

/// Section `decode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeConfig {
    /// Largest payload, raw and decompressed.
    pub max_payload_bytes: usize,
    /// Whether values without a framing byte are accepted.
    pub legacy_framing: bool,
    /// What happens at a record that cannot be processed.
    pub on_error: OnDecodeError,
    /// What stops with `on_error = "pause"`.
    pub pause_scope: PauseScope,
}

/// What happens at a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDecodeError {
    /// It is dead-lettered and the stream goes on.
    Skip,
    /// Consumption stops at it.
    Pause,
}

/// What stands still at a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseScope {
    /// Everything that this instance reads.
    Consumer,
    /// The record's partition.
    Partition,
}

/// Section `dlq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DlqConfig {
    /// Topic of dead letters; empty: see [`Config::dlq_topic`].
    pub topic: String,
    /// What a dead letter that cannot be written means.
    pub mode: DlqMode,
    /// Deadline of one dead letter.
    #[serde(rename = "send_timeout_secs", with = "seconds")]
    pub send_timeout: Duration,
    /// Most dead letters awaiting their acknowledgement.
    pub max_in_flight: usize,
    /// Most dead letters that wait to be sent.
    pub queue_letters: usize,
    /// Bytes of dead letters, waiting or sent, at which no more are taken.
    pub queue_bytes: usize,
    /// Whether dead letters carry the payload.
    pub include_payload: bool,
}

/// What a dead letter that cannot be written means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DlqMode {
    /// The loss is counted and the offset advances.
    BestEffort,
    /// The offset waits for the dead letter.
    FailClosed,
}

/// Section `web`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebConfig {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0: any free one.
    pub port: u16,
    /// Whether other addresses than loopback are served without authentication.
    pub allow_unauthenticated: bool,
    /// Origins of pages that may connect; empty: the service's own and those of this machine.
    pub allowed_origins: Vec<String>,
    /// A second listener for metrics, health and admin routes, `host:port`; empty: the first serves them.
    pub admin_listen: String,
    /// Certificate chain, PEM; empty: no TLS.
    pub tls_certificate: String,
    /// Its key, PEM.
    pub tls_key: String,
    /// How often both are looked at again.
    #[serde(rename = "tls_reload_secs", with = "seconds")]
    pub tls_reload: Duration,
    /// HTTP worker threads; 0: one per core.
    pub workers: usize,
    /// Most WebSocket connections.
    pub max_connections: usize,
    /// Most WebSocket connections of one client address.
    pub max_connections_per_ip: usize,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they name the client.
    pub forwarded_header: ForwardedHeader,
    /// After what time a client that takes no data is closed.
    #[serde(rename = "send_timeout_secs", with = "seconds")]
    pub send_timeout: Duration,
    /// How often the server says that it is alive.
    #[serde(rename = "heartbeat_secs", with = "seconds")]
    pub heartbeat: Duration,
    /// After what silence a client is closed.
    #[serde(rename = "idle_timeout_secs", with = "seconds")]
    pub idle_timeout: Duration,
    /// How long a v2 client may take to say hello.
    #[serde(rename = "hello_timeout_secs", with = "seconds")]
    pub hello_timeout: Duration,
    /// Most bytes queued for one session.
    pub session_queue_bytes: usize,
    /// Most bytes sent to one session that it has not applied.
    pub session_unapplied_bytes: usize,
    /// What becomes of a live session that does not keep up.
    pub slow_client: SlowClient,
    /// How long frames of a dense stream are gathered before a write.
    #[serde(rename = "flush_interval_ms", with = "milliseconds")]
    pub flush_interval: Duration,
    /// Largest frame accepted from a client.
    pub max_control_frame_bytes: usize,
    /// Who shows it may use the admin routes; empty: only this machine may.
    pub admin_token: Secret,
    /// How long a stop may take.
    #[serde(rename = "shutdown_timeout_secs", with = "seconds")]
    pub shutdown_timeout: Duration,
}

/// What becomes of a live session that does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowClient {
    /// It catches up at its own pace.
    CatchUp,
    /// What it missed is named as a gap.
    SkipToLive,
    /// It is closed.
    Disconnect,
}

/// Section `supervisor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Most restarts within the window; one more and the process gives up.
    pub max_restarts: u32,
    /// The window of `max_restarts`.
    #[serde(rename = "window_secs", with = "seconds")]
    pub window: Duration,
    /// Delay before the first restart.
    #[serde(rename = "backoff_base_ms", with = "milliseconds")]
    pub backoff_base: Duration,
    /// Longest delay before a restart.
    #[serde(rename = "backoff_max_ms", with = "milliseconds")]
    pub backoff_max: Duration,
    /// After what silence an actor counts as hanging.
    #[serde(rename = "heartbeat_timeout_secs", with = "seconds")]
    pub heartbeat_timeout: Duration,
}

/// Section `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Which log events are written.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// Collector of spans; empty: none.
    pub otlp_endpoint: SecretUrl,
}

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line for people.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// The topic of dead letters, by default `<topic>-dlq`.
    pub fn dlq_topic(&self) -> String {
        if self.dlq.topic.is_empty() { format!("{}-dlq", self.kafka.topic) } else { self.dlq.topic.clone() }
    }
}

impl WebConfig {
    /// Whether only this machine can reach the listener.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether only this machine can reach a listener at this address.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.to_canonical().is_loopback())
}

impl Default for Config {
    /// What runs when nothing is set.
    fn default() -> Self {
        super::load::defaults()
    }
}
