//! In what two runs, or two states, differ: differences only.
//!
//! It must not know where they are from, or how differences are shown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::patch::escape;
use super::span::{SpanKind, SpanStatus};
use super::state::{Chain, Known};
use super::tree::Tree;

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What is compared: `status`, `executions`, `state` and so on.
    pub what: &'static str,
    /// Whose: a node, a tool, an edge, a JSON pointer; empty where it is the run's.
    pub name: String,
    /// On the one side; `None`: it is not there.
    pub left: Option<Value>,
    /// On the other.
    pub right: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    count: u64,
    failed: u64,
    unfinished: u64,
    retries: u64,
    total_us: u64,
}

fn outcomes(tree: &Tree, kind: SpanKind) -> BTreeMap<&str, Outcome> {
    let mut outcomes = BTreeMap::<&str, Outcome>::new();
    for (_, span) in tree.of_kind(kind) {
        let outcome = outcomes.entry(&span.name).or_default();
        outcome.count += 1;
        outcome.failed += u64::from(span.status == SpanStatus::Failed);
        outcome.unfinished += u64::from(span.status == SpanStatus::Unfinished);
        outcome.retries = outcome.retries.saturating_add(u64::from(span.retries));
        outcome.total_us = outcome.total_us.saturating_add(span.took().micros().unwrap_or_default());
    }
    outcomes
}

/// In what two runs differ: how they ended, which nodes, models and tools ran how often and with what outcome, which edges were
/// taken. Durations only beyond `tolerance_percent` of the longer one, where that is given.
pub fn runs(left: &Tree, right: &Tree, tolerance_percent: Option<u64>) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |what, name: &str, left: Option<Value>, right: Option<Value>| {
        if left != right {
            found.push(Difference { what, name: name.to_owned(), left, right });
        }
    };
    differ("status", "", Some(left.status.as_str().into()), Some(right.status.as_str().into()));
    differ("graph", "", Some(left.graph.as_str().into()), Some(right.graph.as_str().into()));
    let graphs = |tree: &Tree| Some(tree.of_kind(SpanKind::Graph).count().into());
    differ("graphs", "", graphs(left), graphs(right));
    let kinds = [
        (SpanKind::Node, ["node executions", "node failed", "node unfinished", "node retries", "node duration_us"]),
        (SpanKind::Llm, ["model calls", "model failed", "model unfinished", "model retries", "model duration_us"]),
        (SpanKind::Tool, ["tool calls", "tool failed", "tool unfinished", "tool retries", "tool duration_us"]),
    ];
    for (kind, [count, failed, unfinished, retries, duration]) in kinds {
        let (one, other) = (outcomes(left, kind), outcomes(right, kind));
        let names: BTreeSet<&str> = one.keys().chain(other.keys()).copied().collect();
        for name in names {
            let (one, other) = (one.get(name).copied(), other.get(name).copied());
            // What is on one side only is told once.
            differ(count, name, one.map(|one| one.count.into()), other.map(|other| other.count.into()));
            let (Some(one), Some(other)) = (one, other) else { continue };
            differ(failed, name, Some(one.failed.into()), Some(other.failed.into()));
            differ(unfinished, name, Some(one.unfinished.into()), Some(other.unfinished.into()));
            differ(retries, name, Some(one.retries.into()), Some(other.retries.into()));
            if tolerance_percent.is_some_and(|percent| is_beyond(one.total_us, other.total_us, percent)) {
                let text = |micros: u64| Some(micros.to_string().into());
                differ(duration, name, text(one.total_us), text(other.total_us));
            }
        }
    }
    let edges: BTreeSet<_> = left.edges.keys().chain(right.edges.keys()).collect();
    for edge in edges {
        let taken = |tree: &Tree| tree.edges.get(edge).map(|count| Value::from(*count));
        differ("edge taken", &format!("{} -> {}", edge.0, edge.1), taken(left), taken(right));
    }
    found
}

fn is_beyond(one: u64, other: u64, percent: u64) -> bool {
    u128::from(one.abs_diff(other)) * 100 > u128::from(one.max(other)) * u128::from(percent)
}

/// In what the states of two runs differ, as far as both are known.
pub fn ends(left: &Chain, right: &Chain) -> Vec<Difference> {
    match (left.current(), right.current()) {
        (Known::State(left, _), Known::State(right, _)) => states(left, right),
        (Known::Unknown(left), Known::Unknown(right)) if left == right => Vec::new(),
        (left, right) => {
            let told = |known: &Known| match known {
                Known::State(..) => Some(json!("known")),
                Known::Unknown(reason) => Some(json!(format!("unknown: {reason}"))),
            };
            vec![Difference { what: "state", name: String::new(), left: told(left), right: told(right) }]
        }
    }
}

/// In what two JSON values differ, by JSON pointer. Lists are compared place by place.
pub fn states(left: &Value, right: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    // The next place is on top; a JSON value is not deeper than it could be read.
    let mut waiting = vec![(String::new(), Some(left), Some(right))];
    while let Some((pointer, left, right)) = waiting.pop() {
        match (left, right) {
            (Some(left), Some(right)) if left == right => {}
            (Some(Value::Object(left)), Some(Value::Object(right))) => {
                let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
                let inner = |name: &String| (format!("{pointer}/{}", escape(name)), left.get(name), right.get(name));
                waiting.extend(names.into_iter().rev().map(inner));
            }
            (Some(Value::Array(left)), Some(Value::Array(right))) => {
                let places = 0..left.len().max(right.len());
                waiting.extend(places.rev().map(|at| (format!("{pointer}/{at}"), left.get(at), right.get(at))));
            }
            (left, right) => {
                found.push(Difference { what: "state", name: pointer, left: left.cloned(), right: right.cloned() });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::span::Span;
    use super::*;
    use proptest::prelude::*;

    fn told(differences: &[Difference]) -> Vec<String> {
        let side = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
        differences
            .iter()
            .map(|of| format!("{} {}: {} {}", of.what, of.name, side(&of.left), side(&of.right)))
            .collect()
    }

    fn node(name: &str, took: i64, status: SpanStatus) -> Span {
        let mut span = Span::begun(SpanKind::Node, name.to_owned(), Some(0));
        span.end(Some(took), took, status);
        span
    }

    #[test]
    fn states_differ_by_pointer_and_in_nothing_else() {
        let left = json!({"a": 1, "b": {"c/d": [1, 2, {"x": null}], "e~": true}, "gone": null, "same": {"x": [1]}});
        let right = json!({"a": 1, "b": {"c/d": [1, 3, {"x": 0}, 4], "e~": false}, "new": [], "same": {"x": [1]}});
        assert_eq!(
            told(&states(&left, &right)),
            [
                "state /b/c~1d/1: 2 3",
                "state /b/c~1d/2/x: null 0",
                "state /b/c~1d/3: - 4",
                "state /b/e~0: true false",
                "state /gone: null -",
                "state /new: - []",
            ]
        );
        assert_eq!(told(&states(&json!(1), &json!([1]))), ["state : 1 [1]"]);
    }

    #[test]
    fn runs_that_differ_in_one_node_differ_in_that_alone() {
        let spans = || vec![node("a", 100, SpanStatus::Done), node("b", 100, SpanStatus::Done)];
        let tree = |spans| Tree { spans, ..Tree::default() };
        let same = tree(spans());
        assert_eq!(runs(&same, &same, Some(0)), []);
        let more = tree([spans(), vec![node("c", 5, SpanStatus::Done)]].concat());
        assert_eq!(told(&runs(&same, &more, None)), ["node executions c: - 1"]);
        let twice = tree([spans(), vec![node("a", 5, SpanStatus::Failed)]].concat());
        assert_eq!(told(&runs(&twice, &same, None)), ["node executions a: 2 1", "node failed a: 1 0"]);
    }

    #[test]
    fn durations_count_only_beyond_the_tolerance() {
        let tree = |took| Tree { spans: vec![node("a", took, SpanStatus::Done)], ..Tree::default() };
        let told = |percent| told(&runs(&tree(100), &tree(90), percent));
        assert!(told(None).is_empty() && told(Some(10)).is_empty());
        assert_eq!(told(Some(9)), [r#"node duration_us a: "100" "90""#]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..4).prop_map(Value::from)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab/~]{1,2}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn each_difference_is_where_it_says(left in any_json(), right in any_json()) {
            let found = states(&left, &right);
            prop_assert_eq!(found.is_empty(), left == right);
            for difference in found {
                prop_assert_eq!(left.pointer(&difference.name), difference.left.as_ref());
                prop_assert_eq!(right.pointer(&difference.name), difference.right.as_ref());
            }
        }
    }
}
