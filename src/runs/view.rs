//! A run as it stands: what one looks at while it goes on. Of a thread that is used again, the last graph.
//!
//! It must not know a clock or a terminal: how long something has been going on is told up to the last message.

use std::collections::BTreeMap;

use super::run::Run;
use super::span::{SpanKind, SpanStatus};
use super::tree::{Status, Tree};

/// How a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stand {
    /// The graph has it, and it has not begun.
    #[default]
    Waiting,
    /// At least one execution is under way.
    Running,
    /// Its last execution ended well.
    Done,
    /// Its last execution failed.
    Failed,
    /// The graph has ended, and an execution has not.
    Unfinished,
}

impl Stand {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A node as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub stand: Stand,
    /// Executions that have begun.
    pub executions: u64,
    /// Those under way.
    pub running: u64,
    /// Those that failed.
    pub failed: u64,
    /// What those that ended took together, in microseconds.
    pub total_us: u64,
    /// Calls of models and tools under way in it.
    pub calls: Vec<String>,
}

/// A run as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whose.
    pub tenant: String,
    /// Its thread.
    pub thread: String,
    /// Its graph.
    pub graph: String,
    /// How it stands.
    pub status: Status,
    /// When the graph began, in Unix microseconds.
    pub start_us: Option<i64>,
    /// From its beginning to its end, or to the last message, in microseconds.
    pub elapsed_us: Option<u64>,
    /// Its nodes: as they began, then those that have not.
    pub nodes: Vec<NodeView>,
    /// Calls of models and tools under way in no node that is known.
    pub calls: Vec<String>,
    /// Messages that came.
    pub messages: usize,
    /// Messages that are missing by their numbers.
    pub missing: u64,
}

impl View {
    /// Of a run.
    pub fn of(run: &Run, tree: &Tree) -> Self {
        let outermost = tree.outermost();
        let is_shown = |index: usize| match tree.root {
            Some(root) => outermost.get(index) == Some(&root),
            None => true,
        };
        let mut nodes: Vec<NodeView> = Vec::new();
        let mut places = BTreeMap::<&str, usize>::new();
        for (_, span) in tree.of_kind(SpanKind::Node).filter(|(index, _)| is_shown(*index)) {
            let place = *places.entry(&span.name).or_insert(nodes.len());
            if place == nodes.len() {
                nodes.push(NodeView { name: span.name.clone(), ..NodeView::default() });
            }
            let Some(node) = nodes.get_mut(place) else { continue };
            node.executions += 1;
            node.running += u64::from(span.status == SpanStatus::Unfinished);
            node.failed += u64::from(span.status == SpanStatus::Failed);
            node.total_us = node.total_us.saturating_add(span.took().micros().unwrap_or_default());
            node.stand = match span.status {
                _ if node.running > 0 && tree.status.is_over() => Stand::Unfinished,
                _ if node.running > 0 => Stand::Running,
                SpanStatus::Failed => Stand::Failed,
                SpanStatus::Done | SpanStatus::Unfinished => Stand::Done,
            };
        }
        let begun = |name: &String| places.contains_key(name.as_str());
        let waiting = tree.described.iter().filter(|name| !begun(name));
        nodes.extend(waiting.map(|name| NodeView { name: name.clone(), ..NodeView::default() }));
        let calls = calls(tree, &places, &mut nodes, is_shown);
        let root = tree.root.and_then(|root| tree.spans.get(root));
        let times = run.times();
        let start_us = root.and_then(|root| root.start_us).or(times.map(|(first, _)| first));
        let so_far = || Some(times?.1.saturating_sub(start_us?).unsigned_abs());
        let numbers = run.numbers();
        Self {
            tenant: run.tenant().to_owned(),
            thread: run.thread().to_owned(),
            graph: tree.graph.clone(),
            status: tree.status,
            start_us,
            elapsed_us: root.and_then(|root| root.took().micros()).or_else(so_far),
            nodes,
            calls,
            messages: run.len(),
            missing: numbers.missing.iter().fold(0, |sum, missing| sum.saturating_add(missing.count())),
        }
    }
}

/// Hands the calls under way to their nodes; gives those that have none.
fn calls(
    tree: &Tree,
    places: &BTreeMap<&str, usize>,
    nodes: &mut [NodeView],
    is_shown: impl Fn(usize) -> bool,
) -> Vec<String> {
    let mut others = Vec::new();
    for (index, span) in tree.spans.iter().enumerate() {
        let what = match span.kind {
            SpanKind::Llm => "llm",
            SpanKind::Tool => "tool",
            SpanKind::Graph | SpanKind::Node => continue,
        };
        if span.status != SpanStatus::Unfinished || tree.status.is_over() || !is_shown(index) {
            continue;
        }
        let call = format!("{what}:{}", if span.name.is_empty() { "?" } else { &span.name });
        let parent = span.parent.and_then(|parent| tree.spans.get(parent));
        let node =
            parent.filter(|parent| parent.kind == SpanKind::Node).and_then(|node| places.get(node.name.as_str()));
        match node.and_then(|place| nodes.get_mut(*place)) {
            Some(node) => node.calls.push(call),
            None => others.push(call),
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::super::make;
    use super::*;
    use crate::wire::telemetry::EventType;

    fn view(items: &[Item]) -> View {
        let mut run = Run::new("acme", "t", false);
        for item in items {
            run.add(item).unwrap();
        }
        View::of(&run, &Tree::of(&run))
    }

    fn told(view: &View) -> Vec<String> {
        let node = |node: &NodeView| format!("{} {} {}", node.name, node.stand.as_str(), node.executions);
        view.nodes.iter().map(node).collect()
    }

    #[test]
    fn nodes_wait_run_end_and_fail() {
        let schema = r#"{"nodes":[{"name":"a"},{"name":"b"}]}"#;
        let start = make::text(make::event(1, 1_000, EventType::GraphStart, ""), "graph_schema_json", schema);
        let mut items = vec![start];
        assert_eq!(told(&view(&items)), ["a waiting 0", "b waiting 0"]);
        items.push(make::event(2, 1_010, EventType::NodeStart, "b"));
        items.push(make::request(make::event(3, 1_020, EventType::LlmStart, "b"), "r"));
        let running = view(&items);
        assert_eq!(told(&running), ["b running 1", "a waiting 0"]);
        assert_eq!((running.nodes[0].calls.as_slice(), running.elapsed_us), (&["llm:?".to_owned()][..], Some(20)));
        items.push(make::took(make::event(5, 1_030, EventType::NodeEnd, "b"), 20));
        items.push(make::event(6, 1_040, EventType::NodeStart, "a"));
        items.push(make::event(7, 1_050, EventType::NodeError, "a"));
        let view = view(&items);
        assert_eq!(told(&view), ["b done 1", "a failed 1"]);
        assert_eq!((view.missing, view.nodes[0].total_us, view.status), (1, 20, Status::Running));
    }

    #[test]
    fn a_graph_that_is_over_leaves_nothing_running() {
        let items = [
            make::event(1, 1_000, EventType::GraphStart, ""),
            make::event(2, 1_010, EventType::NodeStart, "a"),
            make::request(make::event(3, 1_020, EventType::LlmStart, "a"), "r"),
            make::took(make::event(4, 1_030, EventType::GraphError, ""), 30),
        ];
        let view = view(&items);
        assert_eq!(told(&view), ["a unfinished 1"]);
        assert!(view.nodes[0].calls.is_empty() && view.status == Status::Failed && view.elapsed_us == Some(30));
    }

    #[test]
    fn of_a_thread_that_is_used_again_the_last_graph_is_shown() {
        let items = [
            make::event(1, 1_000, EventType::GraphStart, ""),
            make::event(2, 1_010, EventType::NodeStart, "old"),
            make::event(3, 2_000, EventType::GraphStart, ""),
            make::event(4, 2_010, EventType::NodeStart, "new"),
        ];
        let view = view(&items);
        assert_eq!((told(&view), view.start_us), (vec!["new running 1".to_owned()], Some(2_000)));
    }
}
