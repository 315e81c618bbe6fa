//! The exporter of quality: its page says what it exports, reads and can be told.

use std::collections::BTreeSet;

use dashstream::config::{Config, table};
use dashstream::kafka::errors::ErrorType;
use dashstream::metrics::Values;
use dashstream::metrics::quality::{Buckets, QualityMetrics};
use dashstream::pipeline::decode::Kind;
use dashstream::quality::event::{CATEGORIES, FIELDS, ISSUES};
use dashstream::quality::health::{REASONS, Status};
use dashstream::quality::model_names::LABELS;

use crate::documents::{code_spans, read, same_or_written};
use crate::metrics::tables;

const PAGE: &str = "docs/QUALITY_EXPORTER.md";
/// Between these two headings the page is generated.
const GENERATED: (&str, &str) = ("## Metrics\n", "\n## Running it\n");

fn values(name: &str, label: &str) -> BTreeSet<&'static str> {
    let metric = QualityMetrics::TABLE.iter().find(|metric| metric.name == name).unwrap();
    match metric.labels.iter().find(|(found, _)| *found == label) {
        Some((_, Values::Closed(values))) => values.iter().copied().collect(),
        other => panic!("{name} {label}: {other:?}"),
    }
}

#[test]
fn the_metrics_on_the_exporters_page_are_those_of_the_table() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(GENERATED.0).unwrap();
    let (_, after) = rest.split_once(GENERATED.1).unwrap();
    let generated = tables(QualityMetrics::TABLE, "###");
    same_or_written(PAGE, &format!("{before}{}{generated}{}{after}", GENERATED.0, GENERATED.1));
}

#[test]
fn the_exporters_page_names_no_metric_that_is_not_in_the_table() {
    let declared: BTreeSet<&str> = QualityMetrics::TABLE.iter().map(|metric| metric.name).collect();
    let parts = ["_sum", "_count", "_bucket"];
    for span in code_spans(&read(PAGE)).iter().filter(|span| span.starts_with("dashstream_")) {
        let name = span.split(['{', ' ', '[']).next().unwrap();
        let family = parts.iter().find_map(|part| name.strip_suffix(part)).filter(|family| declared.contains(family));
        assert!(declared.contains(name) || family.is_some(), "{span} is no metric of the exporter");
    }
}

#[test]
fn names_of_the_exporters_metrics_are_unique_and_say_their_kind() {
    let names: BTreeSet<_> = QualityMetrics::TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), QualityMetrics::TABLE.len());
    for metric in QualityMetrics::TABLE {
        assert_eq!(metric.name.ends_with("_total"), metric.kind() == "counter", "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains(['|', '\n']), "{}", metric.name);
        assert!(metric.name.starts_with("dashstream_"), "{}", metric.name);
    }
}

#[test]
fn series_of_the_exporter_exist_before_their_first_event_unless_nobody_knows_their_value() {
    let metrics = QualityMetrics::new(&Buckets::default()).unwrap();
    assert_eq!(metrics.check().unwrap(), QualityMetrics::TABLE.len());
    let scrape = metrics.encode().unwrap();
    for metric in QualityMetrics::TABLE {
        let shown = scrape.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind()));
        assert_eq!(shown, metric.is_always_there(), "{}", metric.name);
        let sizes = metric.labels.iter().map(|(_, of)| if let Values::Closed(of) = of { of.len() } else { 0 });
        let series: usize = sizes.product();
        let samples = scrape.lines().filter(|line| line.starts_with(&format!("{}{{", metric.name))).count();
        if metric.is_always_there() && metric.kind() != "histogram" && !metric.labels.is_empty() {
            assert_eq!(samples, series, "{}", metric.name);
        }
    }
}

#[test]
fn label_values_of_the_exporter_are_those_of_the_code() {
    let kinds: BTreeSet<_> = Kind::ALL.map(Kind::as_str).into();
    assert_eq!(values("dashstream_exporter_messages_failed_total", "error_type"), kinds);
    let faults: BTreeSet<_> = ErrorType::ALL.map(ErrorType::label).into();
    assert_eq!(values("dashstream_exporter_kafka_errors_by_type_total", "error_type"), faults);
    assert_eq!(values("dashstream_queries_by_model_total", "model"), LABELS.iter().copied().collect());
    let categories = values("dashstream_quality_monitor_queries_failed_total", "category");
    assert_eq!(categories, CATEGORIES.iter().copied().collect());
    assert_eq!(values("dashstream_quality_issues_total", "issue"), ISSUES.iter().copied().collect());
}

#[test]
fn the_exporters_page_says_what_it_reads_and_what_it_can_be_told() {
    let page = read(PAGE);
    let spans: BTreeSet<String> = code_spans(&page).into_iter().collect();
    let settings = table::settings().filter(|setting| setting.path.starts_with("quality."));
    let variables: Vec<&str> = settings.map(|setting| setting.variable).chain(["KAFKA_AUTO_OFFSET_RESET"]).collect();
    for name in FIELDS.iter().chain(ISSUES).chain(&REASONS).chain(&variables) {
        assert!(spans.contains(*name), "{name} is not on the page");
    }
    for name in CATEGORIES.iter().copied().chain(Status::ALL.map(Status::as_str)) {
        assert!(spans.contains(name), "{name} is not on the page");
    }
    for path in ["/metrics", "/health", "/ready", "/live"] {
        assert!(spans.contains(path), "{path} is not on the page");
    }
    assert!(read("README.md").contains(&format!("({PAGE})")), "README.md leads to the page");
}

#[test]
fn where_a_new_group_begins_is_told_with_its_default() {
    let line = read(PAGE).lines().find(|line| line.starts_with("| `KAFKA_AUTO_OFFSET_RESET` |")).map(str::to_owned);
    let line = line.expect("a row about it");
    assert!(line.contains("| `earliest` |") && line.contains("`latest`"), "{line}");
    assert_eq!(Config::default().kafka.auto_offset_reset.as_str(), "earliest");
}

#[test]
fn exporter_and_service_share_their_topic_and_never_their_group() {
    let config = Config::default();
    assert!(read(PAGE).contains(&format!("`{}`", config.kafka.topic)), "the default topic is told");
    assert_ne!(config.quality.group_id, config.kafka.group_id);
    assert_eq!(config.quality.group_id, "dashstream-quality-exporter");
}
