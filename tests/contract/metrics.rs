//! The metrics that are declared, their label values, and the pages that describe them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dashstream::actors::topology::EDGES;
use dashstream::kafka::errors::ErrorType;
use dashstream::metrics::{Declared, Metrics, Values};
use dashstream::pipeline::dead_letter::Loss;
use dashstream::pipeline::decode::Kind;
use dashstream::pipeline::restart::Cause;
use dashstream::redis::fault::Fault;
use dashstream::redis::state::Operation;
use dashstream::web::admission::Refused;
use dashstream::web::auth::Denied;
use dashstream::wire::close_code::CloseCode;
use dashstream::wire::control::Dialect;

use crate::documents::{code_spans, read, same_or_written};

/// The same page under the two names by which people look for it.
const PAGES: [&str; 2] = ["docs/METRICS.md", "monitoring/PROMETHEUS_METRICS.md"];

const INTRODUCTION: &str = "\
# Metrics

Every family on `/metrics`, written from the table in `src/metrics.rs` by `UPDATE_DOCS=1 cargo test --test contract`. A test
compares this page with a running service, in both directions.

- Names are `websocket_*` where earlier versions had them, otherwise `dashstream_*`; the unit is in the name.
- Label values are closed sets, listed here, and their series exist from the start, at 0. Series with a label that stands for
  something (a partition, the build) exist while it does: lag of a partition that is not owned any more disappears.
- A counter that counts records counts each once, also when it is read again after a restart of an actor.
- A histogram `x` has the samples `x_bucket`, `x_sum` and `x_count`.
";

fn labels(metric: &Declared) -> String {
    let one = |(label, values): &(&str, Values)| match values {
        Values::Closed(values) => {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{label}`: {}", values.join(", "))
        }
        Values::Each(what) => format!("`{label}`: of each {what}"),
    };
    metric.labels.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn page() -> String {
    format!("{INTRODUCTION}{}", tables(Metrics::TABLE, "##"))
}

/// A table of metrics as one table of a page per group, under headings of this level.
pub(crate) fn tables(declared: &[Declared], level: &str) -> String {
    let mut page = String::new();
    let mut group = "";
    for metric in declared {
        if metric.group != group {
            group = metric.group;
            write!(page, "\n{level} {group}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n").unwrap();
        }
        writeln!(page, "| `{}` | {} | {} | {} |", metric.name, metric.kind(), labels(metric), metric.help).unwrap();
    }
    page
}

/// What the table says about a metric.
pub(crate) fn declared(name: &str) -> &'static Declared {
    Metrics::TABLE.iter().find(|metric| metric.name == name).unwrap()
}

fn values(name: &str, label: &str) -> BTreeSet<&'static str> {
    match declared(name).labels.iter().find(|(found, _)| *found == label) {
        Some((_, Values::Closed(values))) => values.iter().copied().collect(),
        other => panic!("{name} {label}: {other:?}"),
    }
}

#[test]
fn the_reference_pages_are_the_table() {
    for name in PAGES {
        same_or_written(name, &page());
    }
}

#[test]
fn label_values_are_those_of_the_code() {
    let kinds: BTreeSet<_> = Kind::ALL.map(Kind::as_str).into();
    assert_eq!(values("websocket_decode_errors_total", "error_type"), kinds);
    assert_eq!(values("websocket_dlq_sends_total", "error_type"), kinds);
    assert_eq!(values("websocket_dlq_send_failures_total", "reason"), Loss::ALL.map(Loss::as_str).into());
    assert_eq!(
        values("websocket_kafka_errors_by_type_total", "error_type"),
        ErrorType::ALL.map(ErrorType::label).into()
    );
    assert_eq!(values("dashstream_actor_restarts_total", "reason"), Cause::ALL.map(Cause::as_str).into());
    assert_eq!(values("dashstream_sessions_closed_total", "reason"), CloseCode::ALL.map(CloseCode::name).into());
    let denied =
        [Denied::Missing, Denied::Invalid(""), Denied::Expired, Denied::Forbidden(String::new()), Denied::NoKeys];
    let refused = [Refused::Total, Refused::PerAddress].map(Refused::as_str).into_iter();
    assert_eq!(
        values("websocket_rejected_connections_total", "reason"),
        refused.chain(denied.iter().map(Denied::as_str)).chain(["origin"]).collect()
    );
    assert_eq!(
        values("dashstream_sessions_opened_total", "protocol"),
        [Dialect::V1, Dialect::V2].map(Dialect::as_str).into()
    );
    assert_eq!(values("dashstream_redis_errors_by_type_total", "error_type"), Fault::ALL.map(Fault::as_str).into());
    let operations = [Operation::Read, Operation::Write].map(Operation::as_str);
    assert_eq!(values("dashstream_redis_timeouts_total", "operation"), operations.into());
    let outside = ["Kafka", "Redis", "ClientSession", "browser"];
    let actors: BTreeSet<_> =
        EDGES.iter().flat_map(|edge| [edge.from, edge.to]).filter(|name| !outside.contains(name)).collect();
    assert_eq!(values("dashstream_actor_up", "actor"), actors);
    assert_eq!(values("dashstream_actor_restarts_total", "actor"), actors);
}

#[test]
fn names_are_unique_and_say_their_kind_and_unit() {
    let names: BTreeSet<_> = Metrics::TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), Metrics::TABLE.len());
    for metric in Metrics::TABLE {
        assert_eq!(metric.name.ends_with("_total"), metric.kind() == "counter", "{}", metric.name);
        assert!(metric.help.ends_with('.') && !metric.help.contains(['|', '\n']), "{}", metric.name);
        let prefixed = ["websocket_", "dashstream_", "replay_buffer_"].iter().any(|p| metric.name.starts_with(p));
        assert!(prefixed, "{}", metric.name);
    }
}

#[test]
fn series_of_closed_sets_exist_before_their_first_event() {
    let scrape = Metrics::new().unwrap().encode().unwrap();
    for metric in Metrics::TABLE {
        let closed = metric.labels.iter().all(|(_, values)| matches!(values, Values::Closed(_)));
        let samples = scrape.lines().filter(|line| line.starts_with(&format!("{}{{", metric.name))).count();
        let series: usize = metric
            .labels
            .iter()
            .map(|(_, values)| if let Values::Closed(values) = values { values.len() } else { 0 })
            .product();
        if closed && metric.kind() != "histogram" && !metric.labels.is_empty() {
            assert_eq!(samples, series, "{}", metric.name);
        }
        assert_eq!(scrape.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind())), closed, "{}", metric.name);
    }
}

#[test]
fn the_overview_for_operators_names_every_family_and_no_other() {
    let declared: BTreeSet<String> = Metrics::TABLE.iter().map(|metric| metric.name.to_owned()).collect();
    let overview = read("docs/OBSERVABILITY_INFRASTRUCTURE.md");
    let is_family = |span: &String| ["websocket_", "dashstream_", "replay_buffer_"].iter().any(|p| span.starts_with(p));
    let named: BTreeSet<String> = code_spans(&overview).into_iter().filter(is_family).collect();
    assert_eq!(named, declared);
}
