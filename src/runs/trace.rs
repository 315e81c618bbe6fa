//! What only a run's summary tells: nodes and graphs whose events are missing.
//!
//! It must not know how spans are made of events.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::span::{Span, SpanKind, SpanStatus};
use crate::wire::telemetry::ExecutionTrace;

/// Adds what the summaries tell of nodes that no event names, each with the graph that it came with, and ends graphs whose
/// end is missing. Gives the last graph that it had to make up from a summary.
pub(super) fn complete(spans: &mut Vec<Span>, traces: &[(Option<usize>, ExecutionTrace)]) -> Option<usize> {
    let known: BTreeSet<String> =
        spans.iter().filter(|span| span.kind == SpanKind::Node).map(|span| span.name.clone()).collect();
    let mut made = None;
    for (graph, trace) in traces {
        let index = graph.unwrap_or_else(|| {
            let mut graph = Span::begun(SpanKind::Graph, String::new(), micros(&trace.started_at));
            graph.from_trace = true;
            spans.push(graph);
            made = Some(spans.len() - 1);
            spans.len() - 1
        });
        if let Some(graph) = spans.get_mut(index).filter(|graph| graph.status == SpanStatus::Unfinished) {
            graph.end(micros(&trace.ended_at), told(trace.total_duration_ms), status(trace.completed));
        }
        for record in trace.nodes_executed.iter().filter(|record| !known.contains(&record.node)) {
            let mut node = Span::begun(SpanKind::Node, record.node.clone(), micros(&record.started_at));
            node.parent = Some(index);
            node.from_trace = true;
            node.end(micros(&record.ended_at), told(record.duration_ms), status(record.succeeded));
            spans.push(node);
        }
    }
    made
}

const fn status(succeeded: bool) -> SpanStatus {
    if succeeded { SpanStatus::Done } else { SpanStatus::Failed }
}

/// Milliseconds as a duration of the wire; more than it can hold is absurd there, too.
fn told(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// Unix microseconds of an RFC 3339 time.
fn micros(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telemetry::NodeExecutionRecord;

    fn trace() -> ExecutionTrace {
        let node = |node: &str, duration_ms| NodeExecutionRecord {
            node: node.to_owned(),
            duration_ms,
            succeeded: true,
            started_at: "1970-01-01T00:00:01Z".to_owned(),
            ended_at: "never".to_owned(),
            ..NodeExecutionRecord::default()
        };
        ExecutionTrace {
            nodes_executed: vec![node("a", 5), node("b", u64::MAX)],
            completed: true,
            total_duration_ms: 9,
            ..ExecutionTrace::default()
        }
    }

    #[test]
    fn a_run_without_events_is_what_its_summary_tells() {
        let mut spans = Vec::new();
        assert_eq!(complete(&mut spans, &[(None, trace())]), Some(0));
        let told: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.parent, span.took().micros())).collect();
        assert_eq!(told, [("", None, Some(9_000)), ("a", Some(0), Some(5_000)), ("b", Some(0), None)]);
        assert_eq!(spans[1].start_us, Some(1_000_000));
        assert!(spans[2].is_absurd() && spans.iter().all(|span| span.from_trace));
    }

    #[test]
    fn nodes_that_have_events_are_not_told_again() {
        let mut spans = vec![
            Span::begun(SpanKind::Graph, "g".to_owned(), Some(1)),
            Span::begun(SpanKind::Node, "a".to_owned(), Some(1)),
        ];
        assert_eq!(complete(&mut spans, &[(Some(0), trace())]), None);
        assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["g", "a", "b"]);
        assert_eq!(spans[0].status, SpanStatus::Done);
    }
}
