//! Every value that cannot be used refuses the start and is named with its key, range and source.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use dashstream::config::environment::Environment;
use dashstream::config::load::load;
use dashstream::config::setting::{Kind, Setting};
use dashstream::config::table;
use proptest::prelude::*;

use crate::layers::file;

/// Settings where zero means something, which their text must say.
const ZERO_MEANS_SOMETHING: [&str; 4] = ["web.port", "web.workers", "quality.port", "replay.history_cache_bytes"];

fn refusal(file: Option<&Path>, variables: &[(&str, &str)]) -> Option<String> {
    let environment: Environment = variables.iter().copied().collect();
    load(file, &environment, &[]).err().map(|error| error.to_string())
}

fn names_everything(setting: &Setting, message: &str, shown: &str, source: &str) {
    for part in [setting.path, shown, source, &setting.allowed()] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

const NO_NUMBERS: [&str; 17] = [
    "",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1.0",
    "1e3",
    "0x10",
    "1_000",
    "ten",
    "true",
    "NaN",
    "９",
    "1s",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "-9223372036854775809",
];

#[test]
fn no_number_setting_takes_text_negative_empty_or_overflowing_variables() {
    for setting in table::settings() {
        let Kind::Integer { min, max, .. } = setting.kind else { continue };
        let outside =
            [max.checked_add(1), min.checked_sub(1), Some(u64::MAX), Some(i64::MAX as u64), Some(10_u64.pow(18))];
        let outside = outside.into_iter().flatten().map(|number| number.to_string());
        for text in NO_NUMBERS.into_iter().map(String::from).chain(outside) {
            let message = refusal(None, &[(setting.variable, &text)]);
            let message = message.unwrap_or_else(|| panic!("{}={text:?} was taken", setting.variable));
            names_everything(setting, &message, &text, &format!("variable {}", setting.variable));
        }
        for inside in [min, max] {
            assert!(setting.from_text(&inside.to_string()).is_ok(), "{}={inside}", setting.variable);
        }
    }
}

#[test]
fn zero_is_refused_wherever_it_makes_no_sense() {
    for setting in table::settings() {
        if let Kind::Integer { .. } = setting.kind {
            let means_something = ZERO_MEANS_SOMETHING.contains(&setting.path);
            assert_eq!(refusal(None, &[(setting.variable, "0")]).is_none(), means_something, "{}", setting.path);
            assert_eq!(setting.doc.contains(" 0 "), means_something, "{}: {}", setting.path, setting.doc);
        }
    }
}

#[test]
fn no_setting_of_a_file_takes_a_value_of_another_type() {
    let values =
        ["-1", "99999999999999999999", "1.5", "nan", "true", "\"\"", "\"ä\"", "[1]", "[[]]", "{ a = 1 }", "1979-05-27"];
    for setting in table::settings() {
        for value in values {
            let fits = match setting.kind {
                Kind::Boolean => value == "true",
                Kind::Integer { .. } | Kind::List(_) => false,
                Kind::Choice(names) => value == "\"\"" && names.contains(&""),
                Kind::Text(form) | Kind::Secret(form) => {
                    (value == "\"\"" && form.empty.is_some()) || (value == "\"ä\"" && (form.check)("ä").is_ok())
                }
            };
            let (section, name) = setting.path.rsplit_once('.').unwrap();
            let file = file(&format!("# first\n[{section}]\n\n{name} = {value} # comment\n"));
            // A good value alone may still contradict another one; such messages do not name the range.
            let message = refusal(Some(file.path()), &[]).unwrap_or_default();
            let refused = message.contains("must be") && message.contains(&setting.allowed());
            // Not every number that TOML cannot hold is found in place of a text.
            if value == "99999999999999999999" && !matches!(setting.kind, Kind::Integer { .. }) {
                assert!(message.contains("line 4"), "{message}");
                continue;
            }
            assert_eq!(refused, !fits, "{} = {value}: {message}", setting.path);
            if refused {
                names_everything(setting, &message, "", &format!("{}, line 4", file.path().display()));
            }
        }
    }
}

#[test]
fn zero_and_limits_of_a_file_are_those_of_the_variables() {
    for setting in table::settings() {
        let Kind::Integer { min, max, .. } = setting.kind else { continue };
        for number in [0, min, max, max + 1] {
            let file = file(&format!("{} = {number}\n", setting.path));
            let message = refusal(Some(file.path()), &[]).unwrap_or_default();
            let refused = message.contains(&setting.allowed());
            assert_eq!(refused, !(min..=max).contains(&number), "{} = {number}: {message}", setting.path);
        }
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn texts_of_a_wrong_form_are_refused() {
    let long = "x".repeat(250);
    let bad: [(&str, &[&str]); 42] = [
        (
            "kafka.brokers",
            &[
                "",
                ",",
                "h:1,",
                "h:",
                "h:0",
                "h:65536",
                "h:x",
                ":9092",
                "::1:9092",
                "[::1",
                "PLAINTEXT://h:1",
                "a b:1",
                "u:p@h:1",
            ],
        ),
        ("kafka.topic", &["", ".", "..", "a b", "a/b", "ä", &long]),
        ("dlq.topic", &[".", "a b", "ä", &long, "dashstream-quality"]),
        ("kafka.group_instance_id", &["a b", "a/b", &long]),
        ("kafka.group_id", &["", " ", "a\nb", " a"]),
        ("kafka.cluster_id", &["\u{7}"]),
        ("kafka.auto_offset_reset", &["", "error", "smallest", "beginning"]),
        ("kafka.broker_address_family", &["", "v5", "ipv4"]),
        ("kafka.security.protocol", &["", "tls", "SASL"]),
        ("kafka.security.sasl_mechanism", &["GSSAPI", "SCRAM", "plaintext"]),
        ("kafka.security.ssl_endpoint_algorithm", &["", "http"]),
        ("kafka.security.ssl_ca_location", &["/does/not/exist.pem"]),
        ("decode.on_error", &["", "drop", "stop"]),
        ("decode.pause_scope", &["", "all", "record"]),
        ("dlq.mode", &["", "best-effort", "closed"]),
        ("web.admin_token", &["short", "sixteen characters", "tökentökentöken"]),
        ("web.host", &["0.0.0.0", "::", "10.0.0.1", "dash.example.com", "::ffff:10.0.0.1"]),
        (
            "web.allowed_origins",
            &["example.com", "https://a/", "https://a/b", "ftp://a", "https://u@a", "null", "*", "https://a,"],
        ),
        (
            "web.admin_listen",
            &["3003", "127.0.0.1", "::1:3003", "[::1]", "h:65536", "h:-1", "h:", ":3003", "http://h:1"],
        ),
        ("web.tls_certificate", &["/does/not/exist.pem"]),
        ("web.tls_key", &["/does/not/exist.pem"]),
        ("web.forwarded_header", &["", "x-real-ip", "both"]),
        ("auth.jwt_secret", &["short", "thirty-one characters, not more"]),
        (
            "auth.jwks",
            &["http://id.example/keys", "ftp://h/keys", "https://u:p@h/keys", "https://", "/does/not/exist.json"],
        ),
        ("auth.tenant_claim", &["", " a", "a\nb"]),
        ("redact.fields", &[".", "event.", "a..b", "a,,b", ","]),
        ("redact.patterns", &["(", "a*", "x|", "[z-a]", ","]),
        ("web.host", &["", "[::1]", "256.0.0.1", "127.0.0.1:3002", "a b", "-a", "a..b", "http://h", "1.2.3"]),
        (
            "web.trusted_proxies",
            &[",", "10.0.0.0/33", "10.0.0.1/8", "proxy", "10.0.0.1,", "10.0.0.1;10.0.0.2", "::/129"],
        ),
        ("replay.durability", &["", "best-effort", "always", "required"]),
        ("quality.host", &["", "0.0.0.0", "10.0.0.1", "metrics.example.com"]),
        ("quality.group_id", &["", " ", "a\nb", "websocket-server-v4"]),
        ("quality.latency_buckets_ms", &["", "a", "1,", "2,1", "1,1", "-1", "NaN", "inf", "1;2"]),
        ("quality.duration_buckets_seconds", &["", "1,0.5"]),
        ("quality.retry_buckets", &["", "-0"]),
        ("quality.session_turn_buckets", &["", "x"]),
        ("quality.quality_score_buckets", &["", "1e400"]),
        ("redis.topology", &["", "replicated"]),
        ("redis.nodes", &[",", "h", "h:", "h:0", "redis://h:1", "h:1;h:2", "::1:1"]),
        ("redis.sentinel_master", &["", "a b", "a/b", "ä"]),
        ("redis.key_prefix", &["", "a b", "{a}", "ä", &long]),
        ("telemetry.log", &["", "loud", "inf", "warning", "dashstream=loud", "a=b=c", ",", " \u{d81}["]),
    ];
    for (path, values) in bad {
        let setting = table::by_path(path).unwrap();
        for value in values {
            let message = refusal(None, &[(setting.variable, value)]);
            let message = message.unwrap_or_else(|| panic!("{}={value:?} was taken", setting.variable));
            assert!(message.contains(path) && message.contains(setting.variable), "{message}");
        }
    }
    for (path, schemes) in [("redis.url", ["redis", "rediss"]), ("telemetry.otlp_endpoint", ["http", "https"])] {
        let setting = table::by_path(path).unwrap();
        let mut values: Vec<_> = ["h:6379", "ftp://h", "://h", "/tmp/x", " redis://h"].map(String::from).into();
        for scheme in schemes {
            values.extend(["", "/", ":6379", "h:0", "h:65536", "h:x", "h h"].map(|rest| format!("{scheme}://{rest}")));
        }
        if path == "redis.url" {
            values.extend(["redis://h/x".into(), "redis://h/1/2".into(), "redis://h/-1".into()]);
        }
        for value in values {
            assert!(refusal(None, &[(setting.variable, &value)]).is_some(), "{}={value:?} was taken", setting.variable);
        }
    }
}

#[test]
fn truth_values_are_true_or_false() {
    for setting in table::settings().filter(|setting| matches!(setting.kind, Kind::Boolean)) {
        for (text, good) in [
            ("true", true),
            ("FALSE", true),
            ("1", true),
            ("0", true),
            ("", false),
            ("yes", false),
            ("2", false),
            ("truer", false),
        ] {
            assert_eq!(refusal(None, &[(setting.variable, text)]).is_none(), good, "{}={text}", setting.variable);
        }
    }
}

#[test]
fn a_variable_that_is_not_text_is_refused_for_every_setting() {
    for setting in table::settings() {
        let value = OsString::from_vec(vec![b'a', 0xff]);
        let environment: Environment = [(OsString::from(setting.variable), value)].into_iter().collect();
        let message = load(None, &environment, &[]).unwrap_err().to_string();
        names_everything(setting, &message, "not UTF-8", setting.variable);
    }
}

#[test]
fn settings_that_contradict_each_other_are_named_with_their_sources() {
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case; 14] = [
        (
            &[("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", "15")],
            "web.idle_timeout_secs = 15",
            "web.heartbeat_secs = 15 (default)",
        ),
        (
            &[("DASHSTREAM_WEB_SESSION_UNAPPLIED_BYTES", "65536")],
            "web.session_unapplied_bytes",
            "web.session_queue_bytes",
        ),
        (&[("DASHSTREAM_KAFKA_IN_FLIGHT_BYTES", "65536")], "kafka.in_flight_bytes", "kafka.batch_max_bytes"),
        (
            &[("KAFKA_LAG_CHECK_INTERVAL_SECS", "61")],
            "kafka.lag_stale_partition_secs",
            "variable KAFKA_LAG_CHECK_INTERVAL_SECS",
        ),
        (
            &[("DASHSTREAM_SUPERVISOR_BACKOFF_MAX_MS", "99")],
            "supervisor.backoff_max_ms",
            "supervisor.backoff_base_ms = 100",
        ),
        (&[("KAFKA_TOPIC", "a"), ("KAFKA_DLQ_TOPIC", "a")], "dlq.topic", "variable KAFKA_TOPIC"),
        (&[("DASHSTREAM_REPLAY_DURABILITY", "required")], "replay.durability = \"required\"", "redis.url"),
        (&[("DASHSTREAM_REDIS_TOPOLOGY", "cluster"), ("REDIS_URL", "redis://h/1")], "redis.url", "redis.topology"),
        (&[("KAFKA_SASL_PASSWORD", "x")], "kafka.security.sasl_username", "kafka.security.protocol = \"plaintext\""),
        (&[("KAFKA_SSL_KEY_PASSWORD", "x")], "kafka.security.ssl_key_password = \"***\"", "ssl_key_location"),
        (&[("WEBSOCKET_HOST", "0.0.0.0")], "web.host = \"0.0.0.0\"", "web.allow_unauthenticated = false (default)"),
        (&[("DASHSTREAM_WEB_TLS_KEY", "Cargo.toml")], "web.tls_certificate", "variable DASHSTREAM_WEB_TLS_KEY"),
        (
            &[("DASHSTREAM_REDACT_FIELDS", "error.message"), ("DLQ_INCLUDE_FULL_PAYLOAD", "true")],
            "dlq.include_payload",
            "variable DASHSTREAM_REDACT_FIELDS",
        ),
        (
            &[("KAFKA_SECURITY_PROTOCOL", "sasl_ssl")],
            "kafka.security.sasl_mechanism",
            "variable KAFKA_SECURITY_PROTOCOL",
        ),
    ];
    for (variables, key, with) in cases {
        let message = refusal(None, variables).unwrap_or_else(|| panic!("{variables:?} was taken"));
        assert!(message.contains(key) && message.contains(with), "{message}");
    }
    let long = "t".repeat(249);
    assert!(refusal(None, &[("KAFKA_TOPIC", &long)]).unwrap().contains("dlq.topic"));
    assert_eq!(refusal(None, &[("KAFKA_TOPIC", &long), ("KAFKA_DLQ_TOPIC", "d")]), None);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let file = file("[web]\nport = 70000\nunknown = 1\n");
    let message = refusal(Some(file.path()), &[("KAFKA_TOPIC", ""), ("DASHSTREAM_NONSENSE", "1")]).unwrap();
    for part in ["web.port", "web.unknown", "kafka.topic", "DASHSTREAM_NONSENSE"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let huge = file(&"# x\n".repeat(300_000));
    let binary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(binary.path(), [0xff, 0xfe]).unwrap();
    let missing = directory.path().join("missing.toml");
    for path in [directory.path(), huge.path(), binary.path(), missing.as_path()] {
        let message = refusal(Some(path), &[]).unwrap();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
    assert!(refusal(None, &[("DASHSTREAM_CONFIG", "")]).unwrap().contains("DASHSTREAM_CONFIG"));
}

proptest! {
    #[test]
    fn no_text_makes_the_configuration_panic(
        value in "\\PC{0,40}|[a-z0-9:/@.,=\\[\\]-]{0,40}|[\\x00-\\x7f]{0,20}",
        file_text in "\\PC{0,60}|[a-z.\\[\\]={}\" \n0-9-]{0,80}|\\[web\\]\nport ?=[^\n]{0,20}",
    ) {
        for setting in table::settings() {
            if let Ok(value) = setting.from_text(&value) {
                let is_number = matches!(setting.kind, Kind::Integer { .. });
                prop_assert!(!is_number || value.to_u128().is_some());
            }
        }
        let _ = load(Some(file(&file_text).path()), &Environment::default(), &[]);
    }
}
