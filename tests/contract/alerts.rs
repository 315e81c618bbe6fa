//! Alert rules, their unit tests, dashboards and runbook: they agree with each other and with the declared metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use dashstream::config::table;
use dashstream::metrics::quality::QualityMetrics;
use dashstream::metrics::{Declared, Metrics, Values};
use serde_json::Value;

use crate::documents::{code_spans, read};

pub(crate) const RULES: &str = "monitoring/alert_rules.yml";
const COPY: &str = "deploy/kubernetes/prometheus-rules.yaml";
const UNIT_TESTS: &str = "monitoring/alert_rules_test.yml";
const RUNBOOK: &str = "docs/OBSERVABILITY_RUNBOOK.md";
const SCRIPT: &str = "scripts/check_dashstream_alert_rules_sync.sh";
/// Files and uids under which people have these dashboards in their bookmarks.
const DASHBOARDS: [(&str, &str); 2] = [
    ("grafana/dashboards/streaming_metrics_dashboard.json", "dashflow-streaming"),
    ("grafana/dashboards/grafana_quality_dashboard.json", "dashstream-quality"),
];
/// Series that Prometheus makes itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Expressions for which zero is as good as missing, each with the reason. There is none: every series of a closed set
/// exists from the start, so that a missing one is a fault.
const ZERO_IS_SAFE: [(&str, &str); 0] = [];
/// What must never be without an alert: the metrics that tell of a loss or a standstill.
const MUST_HAVE_AN_ALERT: [&str; 22] = [
    "websocket_decode_errors_total",
    "websocket_kafka_payload_missing_total",
    "websocket_infrastructure_errors_total",
    "websocket_kafka_consumer_lag",
    "websocket_kafka_lag_offset_age_seconds",
    "websocket_kafka_lag_poll_failures_total",
    "websocket_dlq_send_failures_total",
    "websocket_replay_gap_messages_total",
    "websocket_send_failed_total",
    "websocket_send_timeout_total",
    "websocket_client_apply_lag_seconds",
    "websocket_rejected_connections_total",
    "dashstream_dlq_blocked_letters",
    "dashstream_lost_offsets_total",
    "dashstream_offset_commits_total",
    "dashstream_owned_partitions",
    "dashstream_paused_partitions",
    "dashstream_topic_epochs_total",
    "dashstream_sequence_gaps_total",
    "dashstream_actor_up",
    "dashstream_actor_restarts_total",
    "dashstream_store_misaligned_total",
];

/// What the service and the exporter of quality export.
fn exported() -> impl Iterator<Item = &'static Declared> {
    Metrics::TABLE.iter().chain(QualityMetrics::TABLE)
}

/// One rule, as it is written in the file.
#[derive(Debug)]
struct Rule {
    alert: String,
    expr: String,
    runbook: String,
    severity: String,
}

/// The rules of the Prometheus file. It is plain YAML of one form, which promtool has checked.
fn rules() -> Vec<Rule> {
    let text = read(RULES);
    let mut rules = Vec::new();
    for part in text.split("      - alert: ").skip(1) {
        let field = |name: &str| {
            let line = part.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let lines = part.lines().skip_while(|line| !line.starts_with("        expr:"));
        let block: Vec<&str> = lines.skip(1).take_while(|line| line.starts_with("          ")).collect();
        let expr = if field("expr") == "|-" { block.join("\n") } else { field("expr") };
        rules.push(Rule {
            alert: part.lines().next().unwrap_or_default().to_owned(),
            expr,
            runbook: field("runbook_url"),
            severity: field("severity"),
        });
    }
    rules
}

/// Every expression of a dashboard, with the title of its panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    found
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every expression of rules and dashboards, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut all: Vec<_> = rules().into_iter().map(|rule| (rule.alert, rule.expr)).collect();
    for (name, _) in DASHBOARDS {
        all.extend(queries(&dashboard(name)).into_iter().map(|(title, expr)| (format!("{name}: {title}"), expr)));
    }
    all
}

/// The series that an expression names, each with the matchers behind it: `label` to the values that are named, of any of the
/// four kinds; a pattern is a list of values here.
fn series(expr: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let prefixes = ["websocket_", "dashstream_", "replay_buffer_"];
    let mut rest = expr;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        if !prefixes.iter().any(|prefix| name.starts_with(prefix)) && !OF_PROMETHEUS.contains(&name) {
            continue;
        }
        let matchers =
            after.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(inside, _)| inside);
        let pairs = matchers.split(", ").filter_map(|pair| pair.split_once(['=', '~']));
        let pairs = pairs.map(|(label, value)| (label.trim_end_matches('!').to_owned(), value.to_owned()));
        found.push((name.to_owned(), pairs.collect()));
    }
    found
}

#[test]
fn every_series_that_is_asked_for_is_declared_with_its_labels_and_values() {
    let mut wrong = Vec::new();
    for (place, expr) in expressions() {
        let named = series(&expr);
        if named.is_empty() {
            wrong.push(format!("{place}: names no series: {expr}"));
        }
        for (name, matchers) in named {
            if OF_PROMETHEUS.contains(&name.as_str()) {
                continue;
            }
            let family = exported().find(|metric| {
                let part = name.strip_prefix(metric.name);
                part == Some("")
                    || metric.kind() == "histogram"
                        && part.is_some_and(|part| ["_bucket", "_sum", "_count"].contains(&part))
            });
            let Some(family) = family else {
                wrong.push(format!("{place}: nobody exports {name}"));
                continue;
            };
            for (label, value) in
                matchers.iter().filter(|(label, _)| !["instance", "job", "le"].contains(&label.as_str()))
            {
                match family.labels.iter().find(|(found, _)| found == label) {
                    Some((_, Values::Closed(values)))
                        if !value.trim_matches(['~', '"']).split('|').all(|value| values.contains(&value)) =>
                    {
                        wrong.push(format!("{place}: {name} never has {label}={value}"));
                    }
                    Some(_) => {}
                    None => wrong.push(format!("{place}: {name} has no label {label}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_missing_series_is_never_painted_as_zero() {
    for (place, expr) in expressions() {
        let flat: String = expr.split_whitespace().collect::<Vec<_>>().join(" ");
        // `or 0 * count(x)` needs x; a bare number or vector does not.
        let painted =
            flat.contains("vector(") || flat.split(" or ").skip(1).any(|part| part.trim().parse::<f64>().is_ok());
        assert!(!painted || ZERO_IS_SAFE.iter().any(|(safe, _)| *safe == place), "{place}: {expr}");
    }
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() {
    let runbook = read(RUNBOOK);
    let sections: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let alerts: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    assert!(alerts.len() > 30, "the rules are found");
    assert_eq!(sections, alerts, "sections of the runbook (left), alerts (right)");
    for rule in rules() {
        let anchor = format!("/{RUNBOOK}#{}", rule.alert.to_lowercase());
        assert!(rule.runbook.starts_with("https://") && rule.runbook.ends_with(&anchor), "{rule:?}");
        assert!(["critical", "warning"].contains(&rule.severity.as_str()), "{rule:?}");
    }
}

#[test]
fn links_within_the_runbook_lead_to_a_section() {
    let runbook = read(RUNBOOK);
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_matches(['#', ' ']).to_lowercase())
        .collect();
    for rest in runbook.split("](#").skip(1) {
        let target = rest.split(')').next().unwrap();
        assert!(anchors.contains(target), "no section {target}");
    }
}

#[test]
fn the_runbook_names_settings_metrics_and_commands_that_exist() {
    let variables: BTreeSet<&str> = table::settings().map(|setting| setting.variable).collect();
    for span in code_spans(&read(RUNBOOK)) {
        let name = span.split(['=', ' ']).next().unwrap();
        let upper = name.len() > 4 && name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert!(!upper || variables.contains(name), "{span} is no setting");
        let metric = ["websocket_", "dashstream_"].iter().any(|prefix| span.starts_with(prefix));
        let known = exported().any(|metric| name == metric.name || name.starts_with(&format!("{}{{", metric.name)));
        assert!(!metric || known, "{span} is no metric");
    }
}

#[test]
fn what_tells_of_a_loss_or_a_standstill_has_an_alert() {
    let asked: BTreeSet<String> = rules().iter().flat_map(|rule| series(&rule.expr)).map(|(name, _)| name).collect();
    let silent: Vec<_> = MUST_HAVE_AN_ALERT.iter().filter(|name| !asked.contains(**name)).collect();
    assert!(silent.is_empty(), "no alert reads {silent:?}");
}

#[test]
fn every_alert_has_unit_tests_in_which_it_fires_and_in_which_it_is_silent() {
    let tests = read(UNIT_TESTS);
    for rule in rules() {
        for what in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: \"{} {what} ", rule.alert)), "no case `{} {what} …`", rule.alert);
        }
        assert!(tests.contains(&format!("alertname=\"{}\"", rule.alert)), "no case expects {}", rule.alert);
    }
}

#[test]
fn dashboards_can_be_imported_and_explain_themselves() {
    for (name, uid) in DASHBOARDS {
        let dashboard = dashboard(name);
        assert_eq!(dashboard["uid"], uid, "{name}");
        let variables: Vec<&str> =
            dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(variables, ["datasource", "instance"], "{name}");
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: panel ids are unique");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{name}: {title} says nothing");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: {title} has no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}: {title} asks nothing");
            let place = &panel["gridPos"];
            assert!(place["x"].as_i64().unwrap() + place["w"].as_i64().unwrap() <= 24, "{name}: {title} is too wide");
        }
        let titles = queries(&dashboard);
        for wanted in ["Kafka Consumer Lag", "Instrumentation"] {
            assert!(titles.iter().any(|(title, _)| title.starts_with(wanted)), "{name} has no panel {wanted}");
        }
        assert!(titles.iter().any(|(_, expr)| expr.contains("websocket_kafka_consumer_lag")), "{name} shows no lag");
    }
}

/// A copy of what the script reads, to break at will.
struct Copies(tempfile::TempDir);

impl Copies {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in [RULES, COPY, UNIT_TESTS, SCRIPT, "monitoring/prometheus.yml"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name), path).unwrap();
        }
        Self(folder)
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.0.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} holds no {from}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Whether the script is content, and what it said.
    fn check(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(self.0.path().join(SCRIPT)).args(arguments).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }
}

#[test]
fn the_script_notices_every_difference_between_the_copies() {
    let copies = Copies::new();
    assert!(copies.check(&[]).0, "{}", copies.check(&[]).1);
    for (name, from, to) in [
        (COPY, "websocket_kafka_consumer_lag) > 10000", "websocket_kafka_consumer_lag) > 20000"),
        (RULES, "for: 5m", "for: 6m"),
        (RULES, "alert: ServiceDown", "alert: ServiceGone"),
        (COPY, "severity: critical", "severity: warning"),
    ] {
        let copies = Copies::new();
        copies.edit(name, from, to);
        let (content, said) = copies.check(&[]);
        assert!(!content && said.contains("the copies differ"), "{name}: {from}: {said}");
        assert!(copies.check(&["--write"]).0 && copies.check(&[]).0, "{name}: written anew, they are equal");
    }
}

/// promtool is part of Debian's package `prometheus`, which `scripts/setup` installs.
#[test]
fn promtool_finds_what_is_broken_in_both_copies_alike() {
    let copies = Copies::new();
    let (content, said) = copies.check(&["--promtool"]);
    assert!(content, "the rules and their unit tests as they are: {said}");
    for name in [RULES, COPY] {
        copies.edit(
            name,
            "sum by (job) (dashstream_owned_partitions) == 0",
            "sum by (job) (dashstream_owned_partitions == 0",
        );
    }
    assert!(copies.check(&[]).0, "the copies are equal");
    let (content, said) = copies.check(&["--promtool"]);
    assert!(!content && said.contains("promtool found faults"), "{said}");
}
