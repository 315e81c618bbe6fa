//! Each layer sets what it should, and the later one wins.

use std::io::Write;

use dashstream::config::environment::Environment;
use dashstream::config::load::{Flag, Loaded, load};
use dashstream::config::problem::Origin;
use dashstream::config::replay::{Durability, RedisTopology};
use dashstream::config::secret::{Secret, SecretUrl};
use dashstream::config::sections::{AddressFamily, AutoOffsetReset, DlqMode, LogFormat, OnDecodeError};
use dashstream::config::setting::{Kind, Literal, Setting};
use dashstream::config::table;
use dashstream::kafka::security::{SaslMechanism, SecurityProtocol};
use serde_json::json;
use tempfile::NamedTempFile;

pub(crate) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn variables(list: &[(&str, &str)]) -> Environment {
    list.iter().copied().collect()
}

fn setting_of(loaded: &Loaded, path: &str) -> (serde_json::Value, Origin) {
    let setting = loaded.effective().into_iter().find(|setting| setting.key == path).unwrap();
    (setting.value, setting.source)
}

/// Two values of a setting that differ from its default and from each other where there are so many: as a variable holds
/// them, and as they show.
fn samples(setting: &Setting) -> Option<[(String, serde_json::Value); 2]> {
    let same = |a: &str, b: &str| Some([(a.to_owned(), json!(a)), (b.to_owned(), json!(b))]);
    match (setting.path, setting.kind, setting.default) {
        (_, Kind::Integer { max, .. }, Literal::Integer(default)) => {
            let [a, b] = if default + 2 <= max { [default + 1, default + 2] } else { [default - 1, default - 2] };
            Some([(a.to_string(), json!(a)), (b.to_string(), json!(b))])
        }
        (_, Kind::Boolean, Literal::Boolean(default)) => {
            Some([((!default).to_string(), json!(!default)), (u8::from(default).to_string(), json!(default))])
        }
        // Half a security setting is refused; they have a test of their own.
        (path, ..) if path.starts_with("kafka.security.") => None,
        // So is a tier that is required but not there.
        ("replay.durability", ..) => None,
        (_, Kind::Choice(names), Literal::Text(default)) => {
            let other = names.iter().find(|name| **name != default)?;
            Some([(other.to_ascii_uppercase(), json!(other)), (default.to_owned(), json!(default))])
        }
        ("kafka.brokers", ..) => same("a:1,b:2", "[::1]:9092"),
        ("kafka.topic" | "kafka.group_id" | "kafka.group_instance_id" | "kafka.cluster_id" | "dlq.topic", ..) => {
            same("one", "two")
        }
        ("quality.host", ..) => same("localhost", "::1"),
        ("quality.group_id", ..) => same("one", "two"),
        (path, ..) if path.starts_with("quality.") && path.contains("buckets") => same("1,2", "0.5,1e3"),
        ("redis.sentinel_master" | "redis.key_prefix", ..) => same("one", "two:2"),
        ("redis.sentinel_password", ..) => Some(["one", "two"].map(|password| (password.into(), json!("***")))),
        ("redis.nodes", ..) => Some([
            ("a:1, [::1]:2".into(), json!(["a:1", "[::1]:2"])),
            ("10.0.0.1:26379".into(), json!(["10.0.0.1:26379"])),
        ]),
        ("redis.url", ..) => same("redis://h:1/2", "rediss://h"),
        ("telemetry.otlp_endpoint", ..) => same("http://h:4317", "https://h/v1"),
        ("telemetry.log", ..) => same("warn", "info,dashstream=debug"),
        ("web.host", ..) => same("localhost", "::1"),
        // A certificate without its key is refused; they have a test of their own.
        ("web.tls_certificate" | "web.tls_key", ..) => None,
        ("web.admin_listen", ..) => same("127.0.0.1:9000", "[::1]:0"),
        ("web.allowed_origins", ..) => Some([
            ("https://a.example, HTTP://b.example:81".into(), json!(["https://a.example", "http://b.example:81"])),
            ("http://[::1]:3002".into(), json!(["http://[::1]:3002"])),
        ]),
        ("auth.jwt_secret", ..) => Some(["a", "b"].map(|letter| (letter.repeat(32), json!("***")))),
        ("auth.jwks", ..) => same("https://id.example/keys", "http://127.0.0.1:9000/keys"),
        ("auth.issuer" | "auth.audience" | "auth.tenant_claim" | "auth.thread_claim" | "auth.partition_claim", ..) => {
            same("one", "two")
        }
        ("redact.fields", ..) => Some([
            ("event.attributes.*, **.stack_trace".into(), json!(["event.attributes.*", "**.stack_trace"])),
            ("error.message".into(), json!(["error.message"])),
        ]),
        ("redact.patterns", ..) => Some([
            ("sk-[a-z]+, [0-9]{16}".into(), json!(["sk-[a-z]+", "[0-9]{16}"])),
            ("secret".into(), json!(["secret"])),
        ]),
        ("web.admin_token", ..) => {
            Some(["correct-horse-battery", "staple-horse-battery"].map(|token| (token.into(), json!("***"))))
        }
        ("web.trusted_proxies", ..) => Some([
            ("10.0.0.1, 10.1.0.0/16".into(), json!(["10.0.0.1/32", "10.1.0.0/16"])),
            ("fd00::/8".into(), json!(["fd00::/8"])),
        ]),
        (path, ..) => panic!("no sample for {path}"),
    }
}

fn as_toml(setting: &Setting, text: &str, shown: &serde_json::Value) -> String {
    match setting.kind {
        Kind::Integer { .. } | Kind::Boolean | Kind::List(_) => shown.to_string(),
        _ => json!(text).to_string(),
    }
}

#[test]
fn each_variable_alone_sets_its_setting_and_no_other() {
    let default = load(None, &Environment::default(), &[]).unwrap().effective();
    for setting in table::settings() {
        let Some(samples) = samples(setting) else { continue };
        for (text, shown) in samples {
            let loaded = load(None, &variables(&[(setting.variable, &text)]), &[])
                .unwrap_or_else(|error| panic!("{}={text}: {error}", setting.variable));
            for (before, after) in default.iter().zip(loaded.effective()) {
                if after.key == setting.path {
                    assert_eq!(after.value, shown, "{}", setting.variable);
                    assert_eq!(after.source, Origin::Variable(setting.variable.into()));
                } else {
                    assert_eq!(before, &after, "{} also set {}", setting.variable, after.key);
                }
            }
        }
    }
}

#[test]
fn a_later_layer_wins_for_every_setting() {
    for setting in table::settings() {
        let Some([(first, first_shown), (second, second_shown)]) = samples(setting) else { continue };
        let file = file(&format!("{} = {}\n", setting.path, as_toml(setting, &first, &first_shown)));
        let from_file = load(Some(file.path()), &Environment::default(), &[]).unwrap();
        let origin = Origin::File(file.path().to_owned(), Some(1));
        assert_eq!(setting_of(&from_file, setting.path), (first_shown.clone(), origin));

        let environment = variables(&[(setting.variable, &second)]);
        let from_variable = load(Some(file.path()), &environment, &[]).unwrap();
        let origin = Origin::Variable(setting.variable.into());
        assert_eq!(setting_of(&from_variable, setting.path), (second_shown, origin));

        let flag = Flag { name: "--flag", path: setting.path, value: first };
        let from_flag = load(Some(file.path()), &environment, &[flag]).unwrap();
        assert_eq!(setting_of(&from_flag, setting.path), (first_shown, Origin::Flag("--flag")));
    }
}

#[test]
fn a_process_with_variables_alone_is_fully_configured() {
    let pem = file("pem");
    let pem = pem.path().to_str().unwrap();
    let config = load(
        None,
        &variables(&[
            ("KAFKA_BROKERS", "kafka-1:9093, kafka-2:9093"),
            ("KAFKA_TOPIC", "runs"),
            ("KAFKA_GROUP_ID", "g"),
            ("KAFKA_AUTO_OFFSET_RESET", "LATEST"),
            ("KAFKA_BROKER_ADDRESS_FAMILY", "V6"),
            ("KAFKA_ON_DECODE_ERROR", "Pause"),
            ("DLQ_MODE", "FAIL_CLOSED"),
            ("DLQ_INCLUDE_FULL_PAYLOAD", "1"),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
            ("KAFKA_SASL_USERNAME", "alice"),
            ("KAFKA_SASL_PASSWORD", "secret"),
            ("KAFKA_SSL_CA_LOCATION", pem),
            ("KAFKA_SSL_CERTIFICATE_LOCATION", pem),
            ("KAFKA_SSL_KEY_LOCATION", pem),
            ("KAFKA_SSL_KEY_PASSWORD", "other"),
            ("KAFKA_SSL_ENDPOINT_ALGORITHM", "none"),
            ("REDIS_URL", "redis://:pw@redis:6379/1"),
            ("DASHSTREAM_REDIS_TOPOLOGY", "Sentinel"),
            ("DASHSTREAM_REPLAY_DURABILITY", "REQUIRED"),
            ("WEBSOCKET_HOST", "0.0.0.0"),
            ("DASHSTREAM_WEB_ALLOW_UNAUTHENTICATED", "true"),
            ("WEBSOCKET_PORT", "0"),
            ("DASHSTREAM_TELEMETRY_LOG_FORMAT", "json"),
        ]),
        &[],
    )
    .unwrap()
    .config;
    assert_eq!(config.kafka.brokers, "kafka-1:9093,kafka-2:9093");
    assert_eq!(config.dlq_topic(), "runs-dlq");
    assert_eq!(config.kafka.auto_offset_reset, AutoOffsetReset::Latest);
    assert_eq!(config.kafka.broker_address_family, AddressFamily::V6);
    assert_eq!((config.decode.on_error, config.dlq.mode), (OnDecodeError::Pause, DlqMode::FailClosed));
    assert!(config.dlq.include_payload);
    let security = &config.kafka.security;
    assert_eq!(
        (security.protocol, security.sasl_mechanism),
        (SecurityProtocol::SaslSsl, Some(SaslMechanism::ScramSha512))
    );
    assert_eq!((&security.sasl_password, &security.ssl_key_password), (&Secret::new("secret"), &Secret::new("other")));
    assert_eq!(config.redis.topology, RedisTopology::Sentinel);
    assert_eq!(config.replay.durability, Durability::Required);
    assert_eq!(config.redis.url, SecretUrl::new("redis://:pw@redis:6379/1"));
    assert_eq!((config.web.host.as_str(), config.web.port), ("0.0.0.0", 0));
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
}

#[test]
fn an_empty_variable_unsets_what_the_file_sets_where_empty_means_something() {
    let file =
        file("[kafka]\ncluster_id = \"c\"\n[redis]\nurl = \"redis://h\"\n[web]\ntrusted_proxies = [\"10.0.0.1\"]\n");
    let environment = variables(&[("KAFKA_CLUSTER_ID", ""), ("REDIS_URL", ""), ("WEBSOCKET_TRUSTED_PROXY_IPS", "")]);
    let config = load(Some(file.path()), &environment, &[]).unwrap().config;
    assert!(config.kafka.cluster_id.is_empty() && config.redis.url.is_empty() && config.web.trusted_proxies.is_empty());
}

#[test]
fn an_empty_mechanism_unsets_the_one_of_the_file() {
    let file = file("[kafka.security]\nsasl_mechanism = \"PLAIN\"\n");
    let environment = variables(&[("KAFKA_SASL_MECHANISM", "")]);
    let loaded = load(Some(file.path()), &environment, &[]).unwrap();
    assert_eq!(loaded.config.kafka.security.sasl_mechanism, None);
    let origin = Origin::Variable("KAFKA_SASL_MECHANISM".into());
    assert_eq!(setting_of(&loaded, "kafka.security.sasl_mechanism").1, origin);
}

#[test]
fn the_file_is_named_by_the_variable_unless_an_option_names_it() {
    let by_variable = file("[kafka]\ntopic = \"variable\"\n");
    let by_option = file("[kafka]\ntopic = \"option\"\n");
    let environment: Environment = [("DASHSTREAM_CONFIG", by_variable.path())].into_iter().collect();
    assert_eq!(load(None, &environment, &[]).unwrap().config.kafka.topic, "variable");
    assert_eq!(load(Some(by_option.path()), &environment, &[]).unwrap().config.kafka.topic, "option");
}

#[test]
fn variables_without_effect_are_told() {
    let loaded = load(
        None,
        &variables(&[
            ("WEBSOCKET_BUFFER_SIZE", "0"),
            ("WEBSOCKET_HOST", "0.0.0.0"),
            ("DASHSTREAM_WEB_ALLOW_UNAUTHENTICATED", "1"),
        ]),
        &[],
    )
    .unwrap();
    let warnings = loaded.warnings.concat();
    assert!(warnings.contains("WEBSOCKET_BUFFER_SIZE") && warnings.contains("0.0.0.0"), "{warnings}");
}
