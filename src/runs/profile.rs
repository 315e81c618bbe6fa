//! Where the time of a run went: by node, by model, by tool.
//!
//! Only durations that are known are summed; executions without one are counted beside. It must not know messages.

use std::collections::BTreeMap;

use super::span::{Span, SpanKind, SpanStatus, Took};
use super::tree::Tree;

/// What one name took, over all its executions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Of a node, a model, a tool.
    pub name: String,
    /// Executions.
    pub count: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that have not ended.
    pub unfinished: u64,
    /// Those whose end told how long they took.
    pub told: u64,
    /// Those for which the time between their messages had to do.
    pub between: u64,
    /// Those whose producer told a duration that cannot be.
    pub absurd: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// The sum, in microseconds.
    pub total_us: u64,
    /// Without the time of what lies in it, in microseconds.
    pub self_us: u64,
    /// Known durations, sorted, in microseconds.
    durations: Vec<u64>,
}

impl Row {
    /// Executions whose duration is known.
    pub const fn known(&self) -> u64 {
        self.told + self.between
    }

    /// Shortest.
    pub fn min_us(&self) -> Option<u64> {
        self.durations.first().copied()
    }

    /// Longest.
    pub fn max_us(&self) -> Option<u64> {
        self.durations.last().copied()
    }

    /// The average, rounded down.
    pub const fn average_us(&self) -> Option<u64> {
        self.total_us.checked_div(self.known())
    }

    /// The duration that this many percent do not exceed (nearest rank).
    pub fn percentile_us(&self, percent: usize) -> Option<u64> {
        let rank = (self.durations.len() * percent).div_ceil(100).max(1);
        self.durations.get(rank - 1).copied()
    }

    fn take(&mut self, span: &Span, self_us: u64) {
        self.count += 1;
        self.failed += u64::from(span.status == SpanStatus::Failed);
        self.unfinished += u64::from(span.status == SpanStatus::Unfinished);
        self.told += u64::from(matches!(span.took(), Took::Told(_)));
        self.between += u64::from(matches!(span.took(), Took::Between(_)));
        self.absurd += u64::from(span.is_absurd());
        self.retries = self.retries.saturating_add(u64::from(span.retries));
        if let Some(micros) = span.took().micros() {
            self.total_us = self.total_us.saturating_add(micros);
            self.self_us = self.self_us.saturating_add(self_us);
            self.durations.push(micros);
        }
    }
}

/// Where the time went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The graphs together.
    pub graphs: Row,
    /// Nodes, the longest total first.
    pub nodes: Vec<Row>,
    /// Models.
    pub models: Vec<Row>,
    /// Tools.
    pub tools: Vec<Row>,
}

impl Profile {
    /// Of these spans.
    pub fn of(tree: &Tree) -> Self {
        let own = self_times(tree);
        let rows = |kind: SpanKind| {
            let mut rows = BTreeMap::<&str, Row>::new();
            for (index, span) in tree.of_kind(kind) {
                rows.entry(&span.name).or_default().take(span, own.get(index).copied().unwrap_or_default());
            }
            let mut rows: Vec<Row> =
                rows.into_iter().map(|(name, row)| sorted(Row { name: name.to_owned(), ..row })).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.total_us));
            rows
        };
        let mut graphs = Row::default();
        for (index, span) in tree.of_kind(SpanKind::Graph).filter(|(_, span)| span.parent.is_none()) {
            graphs.take(span, own.get(index).copied().unwrap_or_default());
        }
        Self {
            graphs: sorted(graphs),
            nodes: rows(SpanKind::Node),
            models: rows(SpanKind::Llm),
            tools: rows(SpanKind::Tool),
        }
    }

    /// All executions of nodes together, in microseconds. More than the graph took where nodes ran side by side.
    pub fn nodes_us(&self) -> u64 {
        self.nodes.iter().fold(0, |sum, row| sum.saturating_add(row.total_us))
    }
}

fn sorted(mut row: Row) -> Row {
    row.durations.sort_unstable();
    row
}

/// What each span took without what lies in it: its duration without the time in which at least one of the spans in it ran.
pub fn self_times(tree: &Tree) -> Vec<u64> {
    let (children, _) = tree.children();
    let own = |(span, children): (&Span, &Vec<usize>)| {
        let took = span.took().micros().unwrap_or_default();
        let Some((from, to)) = span.interval() else { return took };
        let inside = children.iter().filter_map(|child| tree.spans.get(*child)?.interval());
        let mut inside: Vec<_> = inside.map(|(start, end)| (start.max(from), end.min(to))).collect();
        inside.sort_unstable();
        let (mut covered, mut reached) = (0_u64, from);
        for (start, end) in inside {
            let start = start.max(reached);
            if start < end {
                covered = covered.saturating_add(end.abs_diff(start));
                reached = end;
            }
        }
        took.saturating_sub(covered)
    };
    tree.spans.iter().zip(&children).map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::super::make;
    use super::super::run::Run;
    use super::*;
    use crate::wire::telemetry::EventType;
    use proptest::prelude::*;

    fn span(kind: SpanKind, name: &str, parent: Option<usize>, start: i64, took: i64) -> Span {
        let mut span = Span::begun(kind, name.to_owned(), Some(start));
        span.parent = parent;
        span.end(Some(start + took), took, SpanStatus::Done);
        span
    }

    fn node(name: &str, start: i64, took: i64) -> Span {
        span(SpanKind::Node, name, Some(0), start, took)
    }

    #[test]
    fn totals_are_the_sums_of_the_durations_that_are_known() {
        let mut spans = vec![span(SpanKind::Graph, "g", None, 0, 1_000)];
        spans.extend((1..=20).map(|index| node("a", index * 30, index)));
        spans.push(span(SpanKind::Llm, "m", Some(1), 30, 1));
        spans.push(Span::begun(SpanKind::Node, "a".to_owned(), Some(5)));
        let profile = Profile::of(&Tree { spans, ..Tree::default() });
        let row = &profile.nodes[0];
        assert_eq!((row.count, row.known(), row.unfinished, row.total_us), (21, 20, 1, 210));
        assert_eq!((row.average_us(), row.min_us(), row.max_us()), (Some(10), Some(1), Some(20)));
        assert_eq!(
            (row.percentile_us(50), row.percentile_us(95), row.percentile_us(100)),
            (Some(10), Some(19), Some(20))
        );
        assert_eq!((profile.graphs.total_us, profile.graphs.self_us), (1_000, 790));
        assert_eq!((profile.models[0].total_us, profile.nodes_us()), (1, 210));
        assert_eq!(Row::default().average_us(), None);
        assert_eq!(Row::default().percentile_us(50), None);
    }

    #[test]
    fn what_runs_side_by_side_is_taken_off_once() {
        let spans = vec![
            span(SpanKind::Graph, "g", None, 0, 100),
            node("a", 10, 50),
            node("b", 20, 50),
            // Beyond the end of the graph nothing is its own.
            node("c", 90, 500),
        ];
        assert_eq!(self_times(&Tree { spans, ..Tree::default() }), [30, 50, 50, 500]);
    }

    #[test]
    fn two_executions_side_by_side_are_both_counted() {
        let mut run = Run::new("acme", "t", false);
        for item in [
            make::event(1, 10, EventType::NodeStart, "a"),
            make::event(2, 20, EventType::NodeStart, "a"),
            make::took(make::event(3, 110, EventType::NodeEnd, "a"), 100),
            make::took(make::event(4, 120, EventType::NodeEnd, "a"), 100),
        ] {
            run.add(&item).unwrap();
        }
        let profile = Profile::of(&Tree::of(&run));
        assert_eq!((profile.nodes[0].count, profile.nodes[0].total_us), (2, 200));
    }

    proptest! {
        #[test]
        fn no_self_time_is_more_than_the_whole(
            parts in prop::collection::vec((0_usize..8, 0_i64..200, 1_i64..200), 1..30),
        ) {
            let spans: Vec<_> = parts
                .into_iter()
                .enumerate()
                .map(|(index, (parent, start, took))| {
                    span(SpanKind::Node, "a", (parent < index).then_some(parent), start, took)
                })
                .collect();
            let tree = Tree { spans, ..Tree::default() };
            for (own, span) in self_times(&tree).into_iter().zip(&tree.spans) {
                prop_assert!(own <= span.took().micros().unwrap());
            }
        }
    }
}
