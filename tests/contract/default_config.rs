//! The documented file, the table of settings and the types say the same.

use std::collections::BTreeSet;
use std::path::Path;

use dashstream::config::environment::{Environment, systematic_name};
use dashstream::config::load::load;
use dashstream::config::problem::Origin;
use dashstream::config::setting::{Kind, Literal};
use dashstream::config::{Config, render, table};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_default()
}

#[test]
fn config_toml_is_the_documented_default() {
    let command = "cargo run -- default-config > config.toml";
    assert!(file("config.toml") == render::default_config(), "config.toml differs from the table; run: {command}");
}

#[test]
fn the_reference_page_is_the_table() {
    let command = "cargo run -- default-config --format markdown > docs/CONFIGURATION.md";
    assert!(
        file("docs/CONFIGURATION.md") == render::reference_page(),
        "the page differs from the table; run: {command}"
    );
}

#[test]
fn the_documented_file_sets_every_setting_to_its_default() {
    let path = Path::new(ROOT).join("config.toml");
    let loaded = load(Some(&path), &Environment::default(), &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    let text = file("config.toml");
    let lines: Vec<_> = text.lines().collect();
    for setting in loaded.effective() {
        let Origin::File(_, Some(line)) = setting.source else { panic!("{} is not in the file", setting.key) };
        let name = setting.key.rsplit('.').next().unwrap();
        assert!(lines[line - 1].starts_with(&format!("{name} = ")), "{}: line {line}", setting.key);
    }
}

fn leaves(prefix: &str, value: &serde_json::Value, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(&path, value, out);
            }
        }
        _ => drop(out.insert(prefix.to_owned())),
    }
}

#[test]
fn table_and_types_name_the_same_settings() {
    let mut typed = BTreeSet::new();
    leaves("", &serde_json::to_value(Config::default()).unwrap(), &mut typed);
    let listed: BTreeSet<_> = table::settings().map(|setting| setting.path.to_owned()).collect();
    assert_eq!(typed, listed);
    assert_eq!(listed.len(), table::settings().count(), "a path is listed twice");
    let variables: BTreeSet<_> = table::settings().map(|setting| setting.variable).collect();
    assert_eq!(variables.len(), listed.len(), "a variable is listed twice");
}

#[test]
fn every_default_is_within_its_own_range_and_every_row_is_explained() {
    for setting in table::settings() {
        let text = match setting.default {
            Literal::Integer(number) => number.to_string(),
            Literal::Boolean(boolean) => boolean.to_string(),
            Literal::Text(text) => text.to_owned(),
            Literal::EmptyList => String::new(),
        };
        assert!(setting.from_text(&text).is_ok(), "{}", setting.path);
        assert!(setting.doc.ends_with('.'), "{}", setting.path);
        if let Kind::Integer { min, max, .. } = setting.kind {
            assert!(min < max && i64::try_from(max).is_ok(), "{}: a TOML file cannot hold the largest", setting.path);
        }
        if setting.variable.starts_with(table::OWN_PREFIX) {
            assert_eq!(setting.variable, systematic_name(setting.path));
        }
    }
}

#[test]
fn names_that_deployments_use_keep_their_meaning() {
    for (variable, path) in [
        ("KAFKA_BROKERS", "kafka.brokers"),
        ("KAFKA_TOPIC", "kafka.topic"),
        ("KAFKA_GROUP_ID", "kafka.group_id"),
        ("KAFKA_GROUP_INSTANCE_ID", "kafka.group_instance_id"),
        ("KAFKA_CLUSTER_ID", "kafka.cluster_id"),
        ("KAFKA_DLQ_TOPIC", "dlq.topic"),
        ("KAFKA_AUTO_OFFSET_RESET", "kafka.auto_offset_reset"),
        ("KAFKA_ON_DECODE_ERROR", "decode.on_error"),
        ("KAFKA_LAG_CHECK_INTERVAL_SECS", "kafka.lag_check_interval_secs"),
        ("KAFKA_LAG_STALE_PARTITION_SECS", "kafka.lag_stale_partition_secs"),
        ("KAFKA_SECURITY_PROTOCOL", "kafka.security.protocol"),
        ("KAFKA_SASL_MECHANISM", "kafka.security.sasl_mechanism"),
        ("KAFKA_SASL_USERNAME", "kafka.security.sasl_username"),
        ("KAFKA_SASL_PASSWORD", "kafka.security.sasl_password"),
        ("KAFKA_SSL_CA_LOCATION", "kafka.security.ssl_ca_location"),
        ("KAFKA_SSL_CERTIFICATE_LOCATION", "kafka.security.ssl_certificate_location"),
        ("KAFKA_SSL_KEY_LOCATION", "kafka.security.ssl_key_location"),
        ("KAFKA_SSL_KEY_PASSWORD", "kafka.security.ssl_key_password"),
        ("KAFKA_SSL_ENDPOINT_ALGORITHM", "kafka.security.ssl_endpoint_algorithm"),
        ("KAFKA_BROKER_ADDRESS_FAMILY", "kafka.broker_address_family"),
        ("DLQ_MODE", "dlq.mode"),
        ("DLQ_SEND_TIMEOUT_SECS", "dlq.send_timeout_secs"),
        ("DLQ_INCLUDE_FULL_PAYLOAD", "dlq.include_payload"),
        ("MAX_CONCURRENT_DLQ_SENDS", "dlq.max_in_flight"),
        ("REDIS_URL", "redis.url"),
        ("REDIS_MAX_SEQUENCES", "redis.max_sequences"),
        ("REDIS_MESSAGE_TTL_SECS", "redis.message_ttl_secs"),
        ("REPLAY_BUFFER_MEMORY_SIZE", "replay.memory_messages"),
        ("REPLAY_MAX_TOTAL", "replay.max_total"),
        ("REPLAY_TIMEOUT_SECS", "replay.timeout_secs"),
        ("WEBSOCKET_HOST", "web.host"),
        ("WEBSOCKET_PORT", "web.port"),
        ("WEBSOCKET_MAX_PAYLOAD_BYTES", "decode.max_payload_bytes"),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_IP", "web.max_connections_per_ip"),
        ("WEBSOCKET_TRUSTED_PROXY_IPS", "web.trusted_proxies"),
        ("WEBSOCKET_SEND_TIMEOUT_SECS", "web.send_timeout_secs"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
        ("RUST_LOG", "telemetry.log"),
    ] {
        assert_eq!(table::by_path(path).map(|setting| setting.variable), Some(variable));
    }
}
