//! What the calls of models used and cost, each call once.
//!
//! Several messages tell of one call: its end, the last piece of its answer, the metrics of its node, the summary of the run.
//! The nearest one counts. Metrics of a node are used only where no call of that node was counted, a summary only where
//! neither was. Calls that nobody counted are told as unknown; nothing is estimated. It must not know Kafka.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::fact::text;
use super::item::{Body, Item};
use super::tokens::{Tokens, Told};
use crate::wire::telemetry::{Event, EventType, ExecutionTrace, Metrics};

/// As many calls are held.
const MAX_CALLS: usize = 1_000_000;

/// There are more calls than are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {MAX_CALLS} calls in the window; narrow it with --since and --until, or name a --thread")]
pub struct TooMany;

/// Whose tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// The tenant.
    pub tenant: String,
    /// The thread.
    pub thread: String,
    /// The node; empty when nobody said.
    pub node: String,
    /// The model; empty when nobody said.
    pub model: String,
}

/// Which message the figures are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The call's own messages.
    Call,
    /// Metrics of its node.
    Metrics,
    /// The summary of the run.
    Trace,
}

/// One call, or the figures of several that nobody told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub whose: Whose,
    /// Where the figures come from.
    pub source: Source,
    /// What is told of it.
    pub told: Told,
}

impl Entry {
    /// The tokens, and whether all of them are told.
    pub fn tokens(&self) -> Option<(Tokens, bool)> {
        self.told.tokens()
    }
}

type ThreadNumber = usize;

#[derive(Clone, Debug, Default)]
struct Call {
    thread: ThreadNumber,
    node: String,
    model: String,
    by_event: Told,
    by_chunk: Told,
    by_metrics: Told,
}

impl Call {
    fn told(&self) -> Told {
        self.by_event.or(self.by_chunk).or(self.by_metrics)
    }
}

#[derive(Clone, Debug)]
struct Measured {
    thread: ThreadNumber,
    node: String,
    model: String,
    is_node: bool,
    told: Told,
}

#[derive(Clone, Debug)]
struct Traced {
    thread: ThreadNumber,
    nodes: Vec<(String, Told)>,
    total: Told,
}

/// The calls so far.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    threads: Vec<(String, String)>,
    numbers: HashMap<(String, String), ThreadNumber>,
    calls: Vec<Call>,
    by_request: HashMap<(ThreadNumber, String), usize>,
    /// Calls without an id that have begun and not ended, by node.
    open: HashMap<(ThreadNumber, String), Vec<usize>>,
    measured: Vec<Measured>,
    traces: Vec<Traced>,
    seen: HashSet<(ThreadNumber, u64, Vec<u8>)>,
}

impl Costs {
    /// Takes a message in.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn add(&mut self, item: &Item) -> Result<(), TooMany> {
        match &item.body {
            Body::Event(event) => self.event(item, event),
            Body::TokenChunk(chunk) => {
                let told = chunk.stats.as_ref().map(Told::of_stats).filter(Told::is_counted);
                let thread = self.thread(item, "");
                let call = self.call(thread, &chunk.request_id);
                if call.model.is_empty() {
                    call.model.clone_from(&chunk.model);
                }
                // A count that comes with a piece in between is of the answer so far: the last one holds.
                call.by_chunk = told.unwrap_or(call.by_chunk);
            }
            Body::Metrics(metrics) => self.metrics(item, metrics),
            Body::ExecutionTrace(trace) => self.trace(item, trace),
            Body::StateDiff(_) | Body::ToolExecution(_) | Body::Checkpoint(_) | Body::Error(_) => {}
        }
        let held = self.calls.len() + self.measured.len() + self.traces.len() + self.seen.len();
        if held > MAX_CALLS { Err(TooMany) } else { Ok(()) }
    }

    fn thread(&mut self, item: &Item, own: &str) -> ThreadNumber {
        let thread = if item.header.thread_id.is_empty() { own } else { &item.header.thread_id };
        let key = (item.header.tenant_id.clone(), thread.to_owned());
        *self.numbers.entry(key.clone()).or_insert_with(|| {
            self.threads.push(key);
            self.threads.len() - 1
        })
    }

    fn call(&mut self, thread: ThreadNumber, request: &str) -> &mut Call {
        let next = self.calls.len();
        let index = *self.by_request.entry((thread, request.to_owned())).or_insert(next);
        self.calls_mut(index, thread)
    }

    fn calls_mut(&mut self, index: usize, thread: ThreadNumber) -> &mut Call {
        if index >= self.calls.len() {
            self.calls.push(Call { thread, ..Call::default() });
        }
        let last = self.calls.len() - 1;
        #[allow(clippy::indexing_slicing, reason = "there is at least one, and the index is at most that of the last")]
        &mut self.calls[index.min(last)]
    }

    /// Whether this message was not here before: for those that name no call.
    fn is_new(&mut self, thread: ThreadNumber, item: &Item) -> bool {
        let header = &item.header;
        match (header.message_id.is_empty(), header.sequence) {
            (true, 0) => true,
            (true, sequence) => self.seen.insert((thread, sequence, header.timestamp_us.to_be_bytes().to_vec())),
            (false, _) => self.seen.insert((thread, 0, header.message_id.clone())),
        }
    }

    fn event(&mut self, item: &Item, event: &Event) {
        let kind = EventType::try_from(event.event_type).unwrap_or_default();
        let is_end = matches!(kind, EventType::LlmEnd | EventType::LlmError);
        if !is_end && !matches!(kind, EventType::LlmStart | EventType::LlmRetry) {
            return;
        }
        let thread = self.thread(item, "");
        let call = if event.llm_request_id.is_empty() {
            // A retry is not another call.
            if kind == EventType::LlmRetry || !self.is_new(thread, item) {
                return;
            }
            let next = self.calls.len();
            let open = self.open.entry((thread, event.node_id.clone())).or_default();
            let index = if is_end { open.pop().unwrap_or(next) } else { next };
            if !is_end {
                open.push(index);
            }
            self.calls_mut(index, thread)
        } else {
            self.call(thread, &event.llm_request_id)
        };
        if !event.node_id.is_empty() {
            call.node.clone_from(&event.node_id);
        }
        if let Some(model) = text(&event.attributes, "model").or_else(|| text(&event.attributes, "model_name")) {
            model.clone_into(&mut call.model);
        }
        // What is counted before the answer is a plan.
        if is_end {
            call.by_event = Told::of_attributes(&event.attributes).or(call.by_event);
        }
    }

    fn metrics(&mut self, item: &Item, metrics: &Metrics) {
        let told = Told::of_metrics(&metrics.metrics);
        if !told.is_counted() && told.cost.is_none() {
            return;
        }
        let thread = self.thread(item, "");
        let tag = |name: &str| metrics.tags.get(name).filter(|tag| !tag.is_empty());
        if let Some(request) = tag("llm_request_id").or_else(|| tag("request_id")) {
            self.call(thread, request).by_metrics = told;
        } else if self.is_new(thread, item) {
            let is_node = metrics.scope == "node";
            // The id of another scope is no node.
            let node = if is_node { metrics.scope_id.clone() } else { String::new() };
            let model = tag("model").cloned().unwrap_or_default();
            self.measured.push(Measured { thread, node, model, is_node, told });
        }
    }

    fn trace(&mut self, item: &Item, trace: &ExecutionTrace) {
        let thread = self.thread(item, &trace.thread_id);
        if self.is_new(thread, item) {
            let nodes = trace.nodes_executed.iter().map(|record| (record.node.clone(), Told::of_record(record)));
            let nodes = nodes.filter(|(_, told)| told.is_counted()).collect();
            let total = Told::of_total(trace.total_tokens);
            self.traces.push(Traced { thread, nodes, total });
        }
    }

    /// Every call once.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut used = Used::default();
        for call in &self.calls {
            let told = call.told();
            used.take(call.thread, &call.node, &told);
            entries.push(self.entry(call.thread, &call.node, &call.model, Source::Call, told));
        }
        self.add_metrics(&mut entries, &mut used);
        self.add_traces(&mut entries, &used);
        // What others counted for a node is no longer unknown.
        let counted: HashSet<(String, String, String)> = entries
            .iter()
            .filter(|entry| entry.source != Source::Call && entry.told.is_counted())
            .map(|entry| (entry.whose.tenant.clone(), entry.whose.thread.clone(), entry.whose.node.clone()))
            .collect();
        entries.retain(|entry| {
            let whose = &entry.whose;
            let node = (whose.tenant.clone(), whose.thread.clone(), whose.node.clone());
            entry.told.is_counted() || entry.told.cost.is_some() || !counted.contains(&node)
        });
        entries
    }

    /// Tokens where no call of the node was counted, costs where none has one.
    fn add_metrics(&self, entries: &mut Vec<Entry>, used: &mut Used) {
        let before = used.clone();
        for is_node in [true, false] {
            for measured in self.measured.iter().filter(|measured| measured.is_node == is_node) {
                let (thread, node) = (measured.thread, measured.node.as_str());
                let (tokens, cost) = match is_node {
                    true => before.of_node(thread, node),
                    // Of a wider scope: only where nothing nearer is known.
                    false => (used.tokens.contains_key(&thread), used.costs.contains_key(&thread)),
                };
                let mut told = if tokens { measured.told.cost_alone() } else { measured.told };
                if cost {
                    told.cost = None;
                }
                if !told.is_counted() && told.cost.is_none() {
                    continue;
                }
                if is_node {
                    used.take(thread, node, &told);
                }
                entries.push(self.entry(thread, node, &measured.model, Source::Metrics, told));
            }
        }
        for measured in self.measured.iter().filter(|measured| !measured.is_node) {
            used.take(measured.thread, "", &measured.told);
        }
    }

    fn add_traces(&self, entries: &mut Vec<Entry>, used: &Used) {
        for Traced { thread, nodes, total } in &self.traces {
            for (node, told) in nodes.iter().filter(|(node, _)| !used.of_node(*thread, node).0) {
                entries.push(self.entry(*thread, node, "", Source::Trace, *told));
            }
            if nodes.is_empty() && total.is_counted() && !used.tokens.contains_key(thread) {
                entries.push(self.entry(*thread, "", "", Source::Trace, *total));
            }
        }
    }

    fn entry(&self, thread: ThreadNumber, node: &str, model: &str, source: Source, told: Told) -> Entry {
        let (tenant, thread) = self.threads.get(thread).cloned().unwrap_or_default();
        Entry { whose: Whose { tenant, thread, node: node.to_owned(), model: model.to_owned() }, source, told }
    }
}

/// For which nodes of which threads something is known. A call whose node nobody told may be of any.
#[derive(Clone, Debug, Default)]
struct Used {
    tokens: BTreeMap<ThreadNumber, HashSet<String>>,
    costs: BTreeMap<ThreadNumber, HashSet<String>>,
}

impl Used {
    fn take(&mut self, thread: ThreadNumber, node: &str, told: &Told) {
        if told.is_counted() {
            self.tokens.entry(thread).or_default().insert(node.to_owned());
        }
        if told.cost.is_some() {
            self.costs.entry(thread).or_default().insert(node.to_owned());
        }
    }

    /// Whether tokens, and whether costs of this node are known, or may be.
    fn of_node(&self, thread: ThreadNumber, node: &str) -> (bool, bool) {
        let has = |of: &BTreeMap<ThreadNumber, HashSet<String>>| {
            of.get(&thread).is_some_and(|nodes| nodes.contains(node) || nodes.contains(""))
        };
        (has(&self.tokens), has(&self.costs))
    }
}

#[cfg(test)]
#[path = "costs_tests.rs"]
mod tests;
