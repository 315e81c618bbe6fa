//! The spans of a run: which node ran in which graph, which calls of models and tools lie in which execution.
//!
//! What belongs together is decided by what producers send, in this order: the id of the message that opened it
//! (`parent_id`), the id of the call, the duration that the end tells (among several open executions of one node, the one that
//! began that long ago), and at last the execution of that name that began last. A graph that starts while another is
//! open lies in it when its name differs and a node is open; otherwise the other one was left behind. It must not know Kafka.

mod calls;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fact::{EventFact, Fact};
use super::run::{Note, Run};
use super::span::{Span, SpanKind, SpanStatus};
use super::trace;
use crate::wire::telemetry::{EventType, ExecutionTrace};

/// So deep spans may lie in each other.
const MAX_DEPTH: usize = 48;

/// How a run stands, in the words of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// No end has been seen.
    #[default]
    Running,
    /// It waits for a person.
    Waiting,
    /// Its graph has ended.
    Completed,
    /// Its graph has ended with an error.
    Failed,
}

impl Status {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more is to be expected.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// The spans of a run.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// In the order in which they were first heard of.
    pub spans: Vec<Span>,
    /// The outermost graph that was heard of last.
    pub root: Option<usize>,
    /// How the run stands.
    pub status: Status,
    /// The name of its last graph; empty when nobody told it.
    pub graph: String,
    /// The nodes that its last graph has by its description.
    pub described: Vec<String>,
    /// Edges taken, with how often.
    pub edges: BTreeMap<(String, String), u64>,
}

impl Tree {
    /// The spans of these messages.
    pub fn of(run: &Run) -> Self {
        let mut builder = Builder::default();
        for note in run.ordered() {
            builder.take(note);
        }
        builder.finish()
    }

    /// The spans in each span, and those in none.
    pub fn children(&self) -> (Vec<Vec<usize>>, Vec<usize>) {
        let mut children = vec![Vec::new(); self.spans.len()];
        let mut roots = Vec::new();
        for (index, span) in self.spans.iter().enumerate() {
            match span.parent.and_then(|parent| children.get_mut(parent)) {
                Some(list) => list.push(index),
                None => roots.push(index),
            }
        }
        (children, roots)
    }

    /// The outermost span around each one.
    pub fn outermost(&self) -> Vec<usize> {
        let (children, roots) = self.children();
        let mut outermost: Vec<usize> = (0..self.spans.len()).collect();
        let mut waiting: Vec<(usize, usize)> = roots.into_iter().map(|root| (root, root)).collect();
        while let Some((index, root)) = waiting.pop() {
            if let Some(of) = outermost.get_mut(index) {
                *of = root;
            }
            waiting.extend(children.get(index).into_iter().flatten().map(|child| (*child, root)));
        }
        outermost
    }

    /// Spans of a kind.
    pub fn of_kind(&self, kind: SpanKind) -> impl Iterator<Item = (usize, &Span)> {
        self.spans.iter().enumerate().filter(move |(_, span)| span.kind == kind)
    }
}

#[derive(Debug, Default)]
struct Builder {
    tree: Tree,
    /// Graphs that have begun and not ended, the innermost last.
    graphs: Vec<usize>,
    /// Executions of nodes that have begun and not ended, and the same by name.
    nodes: BTreeSet<usize>,
    named: HashMap<String, BTreeSet<usize>>,
    /// The last execution of each node.
    last: HashMap<String, usize>,
    /// Calls that tell no id and have not ended.
    loose: Vec<usize>,
    /// Spans by the id of the message that opened them.
    by_message: HashMap<Vec<u8>, usize>,
    requests: HashMap<String, usize>,
    calls: HashMap<String, usize>,
    waiting: bool,
    /// The outermost graph that was heard of last.
    root: Option<usize>,
    traces: Vec<(Option<usize>, ExecutionTrace)>,
    /// How deep each span lies, when it was first heard of.
    depths: Vec<usize>,
}

impl Builder {
    fn take(&mut self, note: &Note) {
        match &note.fact {
            Fact::Event(event) => self.event(note, event),
            Fact::Chunk { request, model, is_final } => self.chunk(note, request, model, *is_final),
            Fact::Tool(tool) => self.tool(note, tool),
            Fact::Trace(trace) => self.traces.push((self.root, (**trace).clone())),
            Fact::Diff(_) | Fact::Checkpoint(_) | Fact::Error(_) | Fact::Other => {}
        }
    }

    fn event(&mut self, note: &Note, event: &EventFact) {
        match event.kind().unwrap_or_default() {
            EventType::GraphStart => self.graph_start(note, event),
            EventType::GraphEnd => self.graph_end(note, event, SpanStatus::Done),
            EventType::GraphError if !event.is_alert => self.graph_end(note, event, SpanStatus::Failed),
            EventType::NodeStart => {
                let index = self.node(note, event, note.time_us);
                self.nodes.insert(index);
                self.named.entry(event.node.clone()).or_default().insert(index);
            }
            EventType::NodeEnd => self.node_end(note, event, SpanStatus::Done),
            EventType::NodeError => self.node_end(note, event, SpanStatus::Failed),
            EventType::LlmStart => drop(self.llm(note, event)),
            EventType::LlmRetry => {
                if let Some(span) = self.llm(note, event) {
                    span.retries = span.retries.saturating_add(1);
                }
            }
            EventType::LlmEnd => self.llm_end(note, event, SpanStatus::Done),
            EventType::LlmError => self.llm_end(note, event, SpanStatus::Failed),
            EventType::ToolStart => drop(self.tool_of_event(note, event)),
            EventType::ToolEnd => self.tool_end(note, event, SpanStatus::Done),
            EventType::ToolError => self.tool_end(note, event, SpanStatus::Failed),
            EventType::HumanInterrupt => self.waiting = true,
            EventType::HumanResume => self.waiting = false,
            EventType::EdgeTraversal | EventType::ConditionalBranch => {
                *self.tree.edges.entry((event.node.clone(), event.to.clone())).or_default() += 1;
            }
            _ => {}
        }
    }

    fn graph_start(&mut self, note: &Note, event: &EventFact) {
        let outer = self.graphs.last().and_then(|outer| self.tree.spans.get(*outer));
        let differs = outer.is_some_and(|outer| outer.name != event.graph);
        let inside = self.by_parent_id(note).or_else(|| self.nodes.last().copied().filter(|_| differs));
        if inside.is_none() {
            self.graphs.clear();
            self.nodes.clear();
            self.named.clear();
            self.waiting = false;
            self.tree.graph.clone_from(&event.graph);
            self.tree.described.clone_from(&event.nodes);
        }
        let index = self.push(note, Span::begun(SpanKind::Graph, event.graph.clone(), note.time_us), inside);
        if inside.is_none() {
            self.root = Some(index);
        }
        self.graphs.push(index);
    }

    /// The end of the innermost graph. An error may come before the end that settles the matter.
    fn graph_end(&mut self, note: &Note, event: &EventFact, status: SpanStatus) {
        let index = match self.by_parent_id(note).or_else(|| self.graphs.last().copied()).or(self.root) {
            Some(index) => index,
            None => {
                let index = self.push(note, Span::begun(SpanKind::Graph, event.graph.clone(), None), None);
                self.root = Some(index);
                index
            }
        };
        // What began in it has no end any more.
        self.graphs.retain(|graph| *graph < index);
        for left in self.nodes.split_off(&index) {
            self.forget(left);
        }
        if let Some(span) = self.tree.spans.get_mut(index) {
            span.end(note.time_us, event.duration_us, status);
            span.error.clone_from(&event.error);
        }
        self.waiting = false;
    }

    fn node(&mut self, note: &Note, event: &EventFact, start_us: Option<i64>) -> usize {
        let parent = self.by_parent_id(note).or_else(|| self.graphs.last().copied());
        let index = self.push(note, Span::begun(SpanKind::Node, event.node.clone(), start_us), parent);
        self.last.insert(event.node.clone(), index);
        index
    }

    fn node_end(&mut self, note: &Note, event: &EventFact, status: SpanStatus) {
        let open = self.named.get(&event.node).filter(|open| !open.is_empty());
        let by_id = || self.by_parent_id(note).filter(|index| open.is_some_and(|open| open.contains(index)));
        // An end behind an error is of the execution that had it.
        let failed_before = || {
            let last = self.last.get(&event.node).copied()?;
            let span = self.tree.spans.get(last)?;
            (span.status == SpanStatus::Failed && status == SpanStatus::Done).then_some(last)
        };
        let known = by_id().or_else(|| self.began_so_long_ago(open?, note, event)).or_else(failed_before);
        let index = known.unwrap_or_else(|| self.node(note, event, None));
        self.nodes.remove(&index);
        self.forget(index);
        if let Some(span) = self.tree.spans.get_mut(index) {
            span.end(note.time_us, event.duration_us, status);
            if !event.error.is_empty() {
                span.error.clone_from(&event.error);
            }
        }
    }

    /// The execution is no longer among the open ones of its name.
    fn forget(&mut self, index: usize) {
        let name = self.tree.spans.get(index).map(|span| span.name.as_str());
        if let Some(open) = name.and_then(|name| self.named.get_mut(name)) {
            open.remove(&index);
        }
    }

    /// Of several open executions the one that the duration points to; without a duration the last.
    fn began_so_long_ago(&self, open: &BTreeSet<usize>, note: &Note, event: &EventFact) -> Option<usize> {
        let began = note.time_us.filter(|_| event.duration_us > 0).map(|end| end.saturating_sub(event.duration_us));
        let Some(began) = began else { return open.last().copied() };
        let distance = |index: &usize| {
            let start = self.tree.spans.get(*index).and_then(|span| span.start_us);
            start.map_or(u64::MAX, |start| start.abs_diff(began))
        };
        // Of equals the last: `min_by_key` keeps the first.
        open.iter().rev().copied().min_by_key(distance)
    }

    fn push(&mut self, note: &Note, span: Span, parent: Option<usize>) -> usize {
        let index = self.tree.spans.len();
        let depth = |index: usize| self.depths.get(index).copied().unwrap_or_default();
        // Deeper than anybody nests: beside what it lies in.
        let above = |parent: usize| self.tree.spans.get(parent).and_then(|parent| parent.parent);
        let parent = parent.and_then(|parent| if depth(parent) < MAX_DEPTH { Some(parent) } else { above(parent) });
        self.depths.push(parent.map_or(0, |parent| depth(parent) + 1));
        self.tree.spans.push(Span { parent, ..span });
        if !note.message_id.is_empty() {
            self.by_message.entry(note.message_id.clone()).or_insert(index);
        }
        index
    }

    fn by_parent_id(&self, note: &Note) -> Option<usize> {
        self.by_message.get(&note.parent_id).copied().filter(|_| !note.parent_id.is_empty())
    }

    /// Where a call lies: in the last open execution of its node; without a name, in the only open one there is.
    fn home(&self, node: &str) -> Option<usize> {
        let named = || self.named.get(node).and_then(BTreeSet::last);
        let only = || self.nodes.first().filter(|_| self.nodes.len() == 1);
        let home = if node.is_empty() { only() } else { named() };
        home.or_else(|| self.graphs.last()).copied()
    }

    fn finish(mut self) -> Tree {
        let traced = trace::complete(&mut self.tree.spans, &self.traces);
        self.root = self.root.or(traced);
        let root = self.root.and_then(|root| self.tree.spans.get(root));
        self.tree.root = self.root;
        self.tree.status = match root.map(|root| root.status) {
            Some(SpanStatus::Done) => Status::Completed,
            Some(SpanStatus::Failed) => Status::Failed,
            _ if self.waiting => Status::Waiting,
            _ => Status::Running,
        };
        self.tree
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
