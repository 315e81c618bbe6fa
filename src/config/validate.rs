//! Rules between settings. Each names the settings that contradict each other.

use std::collections::BTreeMap;

use super::load::at_path;
use super::problem::{Origin, Problem};
use super::replay::{Durability, RedisTopology};
use super::sections::Config;

/// Settings that contradict each other.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The setting to name first.
    path: String,
    /// The others.
    with: &'static [&'static str],
    message: String,
}

impl Conflict {
    /// Names the values and their sources.
    pub(super) fn into_problem(self, config: &Config, origins: &BTreeMap<&'static str, Origin>) -> Problem {
        let values = serde_json::to_value(config).unwrap_or_default();
        let origin = |path: &str| origins.get(path).cloned().unwrap_or(Origin::Default);
        let shown = |path: &str| super::setting::cut(&at_path(&values, path).to_string());
        let others: Vec<_> =
            self.with.iter().map(|path| format!("{path} = {} ({})", shown(path), origin(path))).collect();
        let message = if others.is_empty() { self.message } else { format!("{}; {}", self.message, others.join("; ")) };
        Problem { value: Some(shown(&self.path)), source: origin(&self.path), key: self.path, message }
    }
}

/// What contradicts itself about Redis and the doors.
fn surroundings(config: &Config, mut rule: impl FnMut(bool, &str, &'static [&'static str], &str)) {
    let Config { dlq, web, .. } = config;
    rule(
        config.replay.durability == Durability::BestEffort || !config.redis.url.is_empty(),
        "replay.durability",
        &["redis.url"],
        "needs a Redis",
    );
    rule(
        config.redis.topology != RedisTopology::Cluster || database_of(config) == 0,
        "redis.url",
        &["redis.topology"],
        "must name no database: a cluster has only one",
    );
    rule(
        web.is_loopback() || config.auth.is_on() || web.allow_unauthenticated,
        "web.host",
        &["auth.jwt_secret", "auth.jwks", "web.allow_unauthenticated"],
        "is open to its network, and nobody would have to say who they are: set up authentication (auth.jwt_secret or auth.jwks), \
         or allow this with web.allow_unauthenticated = true",
    );
    rule(
        config.quality.is_loopback() || config.auth.is_on() || config.quality.allow_unauthenticated,
        "quality.host",
        &["auth.jwt_secret", "auth.jwks", "quality.allow_unauthenticated"],
        "is open to its network, and nobody would have to say who they are: set up authentication (auth.jwt_secret or auth.jwks), \
         or allow this with quality.allow_unauthenticated = true",
    );
    rule(
        web.tls_certificate.is_empty() == web.tls_key.is_empty(),
        if web.tls_key.is_empty() { "web.tls_key" } else { "web.tls_certificate" },
        &["web.tls_certificate", "web.tls_key"],
        "certificate and key belong together",
    );
    rule(
        !(config.redact.is_on() && dlq.include_payload),
        "dlq.include_payload",
        &["redact.fields", "redact.patterns"],
        "must be false with rules of redaction: a record that cannot be read cannot be redacted either",
    );
}

/// Everything that contradicts itself.
pub(super) fn check(config: &Config) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut rule = |holds: bool, path: &str, with: &'static [&'static str], message: &str| {
        if !holds {
            conflicts.push(Conflict { path: path.into(), with, message: message.into() });
        }
    };
    let Config { kafka, dlq, web, supervisor, .. } = config;
    rule(
        web.idle_timeout > web.heartbeat,
        "web.idle_timeout_secs",
        &["web.heartbeat_secs"],
        "must be longer than the heartbeat, which is what idle clients answer",
    );
    rule(
        web.session_unapplied_bytes >= web.session_queue_bytes,
        "web.session_unapplied_bytes",
        &["web.session_queue_bytes"],
        "must be at least the session queue",
    );
    rule(
        kafka.in_flight_bytes >= kafka.batch_max_bytes,
        "kafka.in_flight_bytes",
        &["kafka.batch_max_bytes"],
        "must be at least one batch",
    );
    rule(
        kafka.lag_stale_partition >= kafka.lag_check_interval,
        "kafka.lag_stale_partition_secs",
        &["kafka.lag_check_interval_secs"],
        "must be at least the interval at which lag is measured",
    );
    rule(
        supervisor.backoff_max >= supervisor.backoff_base,
        "supervisor.backoff_max_ms",
        &["supervisor.backoff_base_ms"],
        "must be at least the first delay",
    );
    rule(
        config.quality.group_id != kafka.group_id,
        "quality.group_id",
        &["kafka.group_id"],
        "must be another group than that of the service, or each would take partitions away from the other",
    );
    rule(
        config.dlq_topic() != kafka.topic,
        "dlq.topic",
        &["kafka.topic"],
        "must be another topic than the source, or dead letters would be read as records",
    );
    rule(
        !dlq.topic.is_empty() || config.dlq_topic().len() <= 249,
        "dlq.topic",
        &["kafka.topic"],
        "must be set, because the source topic with -dlq appended is longer than the 249 characters that Kafka allows",
    );
    surroundings(config, rule);
    conflicts.extend(security(config));
    conflicts.extend(files(config));
    conflicts
}

/// What an operator should know of a configuration that can be used.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let loopback = config.web.is_loopback();
    if !loopback && !config.auth.is_on() {
        warnings.push(format!(
            "web.host is {}: everyone who can reach it can read the stream, because there is no authentication",
            config.web.host
        ));
    }
    if !config.redis.nodes.is_empty() && config.redis.topology == RedisTopology::Standalone {
        warnings.push("redis.nodes has no effect, because redis.topology is standalone".into());
    }
    if !loopback && config.auth.is_on() && config.web.tls_certificate.is_empty() {
        warnings.push(format!(
            "web.host is {} without TLS: tokens can be read on their way unless a proxy in front encrypts (web.tls_certificate)",
            config.web.host
        ));
    }
    warnings
}

/// The database that the address of Redis names.
fn database_of(config: &Config) -> u16 {
    let url = url::Url::parse(config.redis.url.reveal());
    url.ok().and_then(|url| url.path().trim_matches('/').parse().ok()).unwrap_or(0)
}

fn security(config: &Config) -> Option<Conflict> {
    let security = &config.kafka.security;
    let conflict = |field: &str, message: &str| {
        let path = format!("kafka.security.{field}");
        Conflict { path, with: &["kafka.security.protocol"], message: message.into() }
    };
    security.validate().err().map(|error| conflict(error.field, error.problem))
}

/// Files that a client would fail on much later, with a message that names no setting.
fn files(config: &Config) -> Vec<Conflict> {
    let (security, none) = (&config.kafka.security, String::new());
    let named = [
        ("kafka.security.ssl_ca_location", &security.ssl_ca_location),
        ("kafka.security.ssl_certificate_location", &security.ssl_certificate_location),
        ("kafka.security.ssl_key_location", &security.ssl_key_location),
        ("auth.jwks", if config.auth.jwks.contains("://") { &none } else { &config.auth.jwks }),
        ("web.tls_certificate", &config.web.tls_certificate),
        ("web.tls_key", &config.web.tls_key),
    ];
    let unreadable = named.into_iter().filter(|(_, file)| !file.is_empty()).filter_map(|(path, file)| {
        let problem = match std::fs::metadata(file) {
            Ok(metadata) if !metadata.is_file() => "it is not a file".to_owned(),
            Ok(_) => std::fs::File::open(file).err()?.to_string(),
            Err(error) => error.to_string(),
        };
        Some(Conflict { path: path.into(), with: &[], message: format!("must be a readable file: {problem}") })
    });
    unreadable.collect()
}
