//! The command line as a user meets it: exit codes, where output goes, and that it always ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dashstream::config::setting::Kind;
use dashstream::config::{render, table};
use dashstream::metrics::Metrics;
use tempfile::tempdir;

use crate::layers::file;

/// Runs the command in an empty directory with these variables alone. Contract: a refusal takes less than 10 s.
fn dashstream(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let directory = tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Outputs are smaller than a pipe, except for those of commands that end by themselves once they are read.
    while arguments.first() == Some(&"serve") && child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{arguments:?} with {variables:?} did not end within 10 s");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn serve_refuses_a_bad_value_of_every_setting_with_its_variable_and_64() {
    for setting in table::settings() {
        let bad = match setting.kind {
            Kind::Integer { .. } => "-1",
            Kind::Boolean => "perhaps",
            // Too long for any form.
            _ => &"ä b".repeat(5_000),
        };
        let output = dashstream(&["serve"], &[(setting.variable, bad)]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{}: {message}", setting.variable);
        assert!(message.contains(setting.variable) && message.contains(setting.path), "{message}");
        assert!(message.len() < 2_000, "the whole value is shown: {message}");
        assert!(output.stdout.is_empty());
    }
}

/// The library that sends spans reads variables of its own. What this build cannot do is refused, not left out.
#[test]
fn serve_refuses_to_compress_spans_and_names_the_variable() {
    for variable in ["OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"] {
        for algorithm in ["gzip", "zstd", "lz4"] {
            let variables = [
                ("KAFKA_BROKERS", "127.0.0.1:1"),
                ("WEBSOCKET_PORT", "0"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
                (variable, algorithm),
            ];
            let output = dashstream(&["serve"], &variables);
            let message = text(&output.stderr);
            assert!(!output.status.success() && message.contains(variable), "{algorithm}: {message}");
        }
    }
}

#[test]
fn serve_refuses_unknown_names_in_file_and_variables() {
    let file = file("[kafka]\nbroker = \"h:1\"\n");
    let path = file.path().to_str().unwrap();
    let output = dashstream(&["serve", "--config", path], &[]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        message.contains("kafka.broker") && message.contains("line 2") && message.contains("kafka.brokers?"),
        "{message}"
    );
    let output = dashstream(&["serve"], &[("DASHSTREAM_WEB_PROT", "1")]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("DASHSTREAM_WEB_PROT"));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &["sevre"][..],
        &["serve", "--prot", "1"],
        &["generate", "--rate", "0"],
        &["generate", "--rate", "-1"],
        &["generate", "--rate", "NaN"],
        &["generate", "--count", "0"],
        &["generate", "--count", "18446744073709551616"],
        &["generate", "--garbage", "1.5"],
        &["generate", "--topic", ""],
        &["generate", "--brokers", "h:0"],
        &["generate", "--compress"],
        &["generate", "--flat", "159"],
        &["generate", "--flat", "200", "--tenants", "2"],
        &["generate", "--flat", "200", "--garbage", "0.1"],
        &["demo", "--port", "70000"],
        &["demo", "--port", "-1"],
        &["demo", "--tenants", "0"],
        &["demo", "--seed", "-1"],
        &["completions", "cobol"],
        &["dlq", "replay", "--yes"],
        &["dlq", "replay", "--topic", "runs", "--yes"],
        &["dlq", "discard", "--topic", "runs", "--reason", "x", "--yes"],
        &["dlq", "list", "--since", "yesterday"],
        &["topics", "ensure", "--partitions", "0"],
        &["topics", "ensure", "--replication", "-1"],
        &["topics", "ensure", "--retention", "0d"],
        &["topics", "ensure", "--retention", "soon"],
        &["topics", "ensure", "--profile", "best"],
        &["topics", "ensure", "--topic", "a b"],
        &["topics", "describe", "runs", "--topic", "runs"],
        &["topics", "delete", "--yes"],
        &["tail", "-n", "0"],
        &["tail", "--type", "event_batch"],
        &["tail", "--since", "1h", "--from-beginning"],
        &["tail", "--topic", "a b"],
        &["replay", "--speed", "-1"],
        &["replay", "--from-checkpoint", "00ff"],
        &["replay", "--thread", "t", "--from-checkpoint", "0g"],
        &["replay", "--pause-on-error"],
        &["export", "--format", "xml"],
        &["export", "--force"],
        &["export", "--format", "csv", "--pretty"],
        &["inspect", "a", "--thread", "b"],
        &["inspect", "--detailed"],
        &["inspect", "--message", "3:"],
        &["diff", "--with", "a"],
        &["diff", "--thread", "a"],
        &["diff", "--thread", "a", "--checkpoint1", "00"],
        &["diff", "--thread", "a", "--with", "b", "--tolerance", "5"],
        &["profile"],
        &["profile", "--thread", "a", "--top", "0"],
        &["flamegraph"],
        &["flamegraph", "--thread", "a", "--force"],
        &["costs", "--price", "a=1"],
        &["costs", "--input-cost-per-million", "1"],
        &["costs", "--input-cost-per-million", "-1", "--output-cost-per-million", "1"],
        &["watch", "--refresh-ms", "1"],
        &["watch", "--until", "1h"],
    ] {
        let output = dashstream(arguments, &[]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty() && message.starts_with("error: "), "{arguments:?}: {message}");
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let commands = ["serve", "demo", "generate", "check-config", "default-config", "topology", "completions", "man"];
    let readers = ["tail", "replay", "export", "inspect", "diff", "profile", "flamegraph", "costs", "watch"];
    let readers = readers.map(|command| vec![command]);
    let dlq = ["list", "inspect", "replay", "discard"].map(|command| vec!["dlq", command]);
    let topics = ["ensure", "list", "describe", "delete"].map(|command| vec!["topics", command]);
    let groups = [vec!["dlq"], vec!["topics"]];
    for command in
        commands.into_iter().map(|command| vec![command]).chain(readers).chain(dlq).chain(topics).chain(groups)
    {
        let output = dashstream(&[&command[..], &["--help"]].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(text(&output.stdout).contains("Example"), "{command:?}");
    }
    assert_eq!(dashstream(&["--version"], &[]).status.code(), Some(0));
}

#[test]
fn default_config_prints_what_check_config_takes() {
    let output = dashstream(&["default-config"], &[]);
    assert_eq!(text(&output.stdout), render::default_config());
    assert!(output.stderr.is_empty());
    let file = file(&text(&output.stdout));
    let path = file.path().to_str().unwrap();
    assert_eq!(dashstream(&["check-config", "--config", path], &[]).status.code(), Some(0));
    // What check-config shows is a configuration too, where no secret is hidden.
    let shown = dashstream(&["check-config"], &[("KAFKA_TOPIC", "runs")]);
    let shown = crate::layers::file(&text(&shown.stdout));
    let again = dashstream(&["check-config", "--json", "--config", shown.path().to_str().unwrap()], &[]);
    assert!(text(&again.stdout).contains("\"runs\""));
}

#[test]
fn check_config_tells_machines_what_is_used_or_wrong() {
    let good = dashstream(&["check-config", "--json"], &[("REDIS_URL", "redis://:Zq7@h"), ("WEBSOCKET_PORT", "0")]);
    let answer: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((good.status.code(), &answer["valid"]), (Some(0), &true.into()));
    let settings = answer["settings"].as_array().unwrap();
    assert_eq!(settings.len(), table::settings().count());
    let port = settings.iter().find(|setting| setting["key"] == "web.port").unwrap();
    assert_eq!((&port["value"], &port["source"]), (&0.into(), &"variable WEBSOCKET_PORT".into()));
    assert!(!text(&good.stdout).contains("Zq7"));

    let bad = dashstream(&["check-config", "--json"], &[("WEBSOCKET_PORT", "x")]);
    let answer: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((bad.status.code(), &answer["valid"]), (Some(64), &false.into()));
    assert_eq!(answer["problems"][0]["key"], "web.port");
}

#[test]
fn a_file_in_the_directory_is_not_read_unasked() {
    let directory = tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), "nonsense").unwrap();
    let check = |path: &Path| {
        Command::new(env!("CARGO_BIN_EXE_dashstream"))
            .arg("check-config")
            .env_clear()
            .current_dir(path)
            .output()
            .unwrap()
    };
    assert_eq!(check(directory.path()).status.code(), Some(0));
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = dashstream(&["completions", shell], &[]);
        assert!(output.status.success() && text(&output.stdout).contains("check-config"), "{shell}");
    }
    assert!(text(&dashstream(&["man"], &[]).stdout).contains(".TH"));
    let directory = tempdir().unwrap();
    assert!(dashstream(&["man", "--out", directory.path().to_str().unwrap()], &[]).status.success());
    assert!(directory.path().join("dashstream-check-config.1").exists());
}

#[test]
fn serve_tells_the_configuration_in_use_as_json_events_without_secrets() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .arg("serve")
        .env_clear()
        .envs([
            ("DASHSTREAM_TELEMETRY_LOG_FORMAT", "json"),
            ("KAFKA_BROKERS", "127.0.0.1:1"),
            ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", "alice"),
            ("KAFKA_SASL_PASSWORD", "Zq7secret"),
            ("WEBSOCKET_PORT", "0"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (lines, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let (mut sections, mut registered) = (Vec::new(), None);
    let mut all = String::new();
    while sections.len() < table::SECTIONS.len() || registered.is_none() {
        let line = received.recv_timeout(Duration::from_secs(10)).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if event["message"] == "configuration" {
            sections.push(event["section"].as_str().unwrap().to_owned());
        }
        registered = registered.or_else(|| (event["message"] == "metrics are registered").then(|| event.clone()));
        all.push_str(&line);
    }
    let _ = child.kill();
    child.wait().unwrap();
    drop(received);
    let _ = reader.join().unwrap();
    assert_eq!(sections, table::SECTIONS.map(|section| section.name));
    for told in ["brokers=\\\"127.0.0.1:1\\\"", "topic=", "group_id=", "protocol=\\\"sasl_plaintext\\\""] {
        assert!(all.contains(told), "{told}: {all}");
    }
    assert!(all.contains("alice") && all.contains("variable KAFKA_SASL_PASSWORD") && !all.contains("Zq7"), "{all}");
    let registered = registered.unwrap();
    let names: Vec<&str> = registered["names"].as_str().unwrap().split(' ').collect();
    assert_eq!(names, Metrics::TABLE.iter().map(|metric| metric.name).collect::<Vec<_>>());
    assert_eq!(registered["families"], names.len());
}
