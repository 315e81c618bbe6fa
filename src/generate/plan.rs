//! What happens in one run, and when: a walk through the graph with all its chances drawn.
//!
//! The plan is a list of deeds in order of time, counted from the start of the run. It must not know thread, tenant,
//! sequence or state: those belong to the one who carries the plan out.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::graph::{Case, END, EdgeKind, Graph, Node, NodeKind};
use super::message::{counter, event, flag, gauge, pairs};
use super::state::Change;
use super::work::{Failure, Work};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{Event, EventType, Metrics};

/// How often a node may run in one run.
const VISITS_MAX: u32 = 3;

/// One deed and its time.
#[derive(Debug)]
pub struct Act {
    /// Microseconds since the start of the run.
    pub at_us: u64,
    /// What is done.
    pub deed: Deed,
}

/// What is done.
#[derive(Debug)]
pub enum Deed {
    /// The run begins.
    Start,
    /// A message is sent as it is.
    Send(Box<Message>),
    /// Events are sent together in one record.
    Batch(Vec<Event>),
    /// A node has finished: the state changes.
    NodeDone(Box<NodeDone>),
    /// A node has failed.
    NodeFailed(Box<NodeFailed>),
    /// The run ends.
    Finish {
        /// Whether it reached its end.
        completed: bool,
    },
}

/// A node has finished.
#[derive(Debug)]
pub struct NodeDone {
    /// Which.
    pub node: &'static Node,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// What it changed.
    pub changes: Vec<Change>,
    /// Tokens that it read.
    pub prompt_tokens: u32,
    /// Tokens that it wrote.
    pub completion_tokens: u32,
}

/// A node has failed.
#[derive(Debug)]
pub struct NodeFailed {
    /// Which.
    pub node: &'static Node,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Why.
    pub failure: Failure,
    /// Whether the run goes on without it.
    pub recovered: bool,
}

/// Draws one run.
#[derive(Debug)]
pub struct Planner<'a> {
    /// The graph that is run.
    pub graph: &'static Graph,
    /// What the run is about.
    pub case: &'static Case,
    /// Chance of each thing that can go wrong, 0 to 1.
    pub failure_rate: f64,
    /// The chances.
    pub rng: &'a mut Rng,
    acts: Vec<Act>,
    visits: BTreeMap<&'static str, u32>,
}

impl<'a> Planner<'a> {
    /// A planner for one run.
    pub const fn new(graph: &'static Graph, case: &'static Case, failure_rate: f64, rng: &'a mut Rng) -> Self {
        Self { graph, case, failure_rate, rng, acts: Vec::new(), visits: BTreeMap::new() }
    }

    /// The run, in order of time.
    pub fn plan(mut self) -> Vec<Act> {
        self.push(0, Deed::Start);
        let loaded =
            event(EventType::MemoryLoad, self.graph.entry, [("scope", "thread".into()), ("entries", 3.into())]);
        let start = self.between(8, 25);
        self.event(start, loaded);
        match self.walk(start) {
            Ok(at) => self.finish(at),
            Err(at) => self.push(at + 3_000, Deed::Finish { completed: false }),
        }
        // Stable: what was planned first at the same microsecond comes first.
        self.acts.sort_by_key(|act| act.at_us);
        self.acts
    }

    /// Plans a deed.
    pub fn push(&mut self, at_us: u64, deed: Deed) {
        self.acts.push(Act { at_us, deed });
    }

    /// Plans an event and gives its time back.
    pub fn event(&mut self, at_us: u64, event: Event) -> u64 {
        self.push(at_us, Deed::Send(Box::new(Message::Event(event))));
        at_us
    }

    /// A random number of milliseconds, as microseconds.
    pub fn between(&mut self, low_ms: u64, high_ms: u64) -> u64 {
        self.rng.u64(low_ms * 1_000..=high_ms * 1_000)
    }

    /// Whether something of this chance happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    /// One of several; the empty text when there is none.
    pub fn choose(&mut self, texts: &'static [&'static str]) -> &'static str {
        let index = self.rng.usize(..texts.len().max(1));
        texts.get(index).copied().unwrap_or_default()
    }

    fn walk(&mut self, mut at: u64) -> Result<u64, u64> {
        let mut current = self.graph.node(self.graph.entry);
        while let Some(node) = current {
            at = self.visit(node, at, false)?;
            let edges: Vec<_> = self.graph.edges_from(node.name).collect();
            let target = match edges.first().map(|edge| edge.kind) {
                Some(EdgeKind::Parallel) => {
                    let (joined, target) = self.fork(edges.iter().map(|edge| edge.to).collect(), at)?;
                    at = joined;
                    target
                }
                Some(EdgeKind::Conditional(_)) => self.decide(node, at),
                Some(EdgeKind::Direct) | None => edges.first().map_or(END, |edge| edge.to),
            };
            at += self.between(1, 6);
            if !matches!(edges.first().map(|edge| edge.kind), Some(EdgeKind::Parallel | EdgeKind::Conditional(_))) {
                self.traverse(node.name, target, at);
            }
            current = self.graph.node(target);
        }
        Ok(at)
    }

    fn traverse(&mut self, from: &str, to: &str, at: u64) {
        self.event(at, event(EventType::EdgeTraversal, from, [("from", from.into()), ("to", to.into())]));
    }

    /// Chooses among the conditional edges by weight, but never a node that ran often enough.
    fn decide(&mut self, node: &'static Node, at: u64) -> &'static str {
        let options: Vec<_> = self
            .graph
            .edges_from(node.name)
            .filter_map(|edge| match edge.kind {
                EdgeKind::Conditional(weight) => Some((edge, weight)),
                EdgeKind::Direct | EdgeKind::Parallel => None,
            })
            .filter(|(edge, _)| self.visits.get(edge.to).copied().unwrap_or_default() < VISITS_MAX)
            .collect();
        let total: u32 = options.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.u32(..total.max(1));
        for (edge, weight) in options {
            if drawn < weight {
                let branch = event(
                    EventType::ConditionalBranch,
                    node.name,
                    [("from", edge.from.into()), ("to", edge.to.into()), ("condition", edge.label.into())],
                );
                self.event(at + 500, branch);
                return edge.to;
            }
            drawn -= weight;
        }
        END
    }

    /// Runs branches side by side up to the node that joins them. A branch that fails is left out.
    fn fork(&mut self, branches: Vec<&'static str>, at: u64) -> Result<(u64, &'static str), u64> {
        let names = branches.join(",");
        self.event(at + 400, event(EventType::ParallelStart, &names, [("branches", (branches.len() as i64).into())]));
        let (mut end, mut join, mut succeeded) = (at, END, 0_i64);
        for branch in branches {
            let mut branch_at = at + 600 + self.between(0, 12);
            let mut current = self.graph.node(branch);
            while let Some(node) = current {
                let done = self.visit(node, branch_at, true);
                branch_at = done.unwrap_or_else(|failed_at| failed_at);
                let target = self.graph.edges_from(node.name).next().map_or(END, |edge| edge.to);
                current = self.graph.node(target).filter(|next| next.kind != NodeKind::Aggregator);
                if current.is_none() {
                    join = target;
                    succeeded += i64::from(done.is_ok());
                    if done.is_ok() {
                        self.traverse(node.name, target, branch_at + 300);
                    }
                }
                if done.is_err() {
                    break;
                }
            }
            end = end.max(branch_at);
        }
        end += self.between(1, 4);
        let mut ended = event(EventType::ParallelEnd, &names, [("succeeded", succeeded.into())]);
        ended.duration_us = micros(end - at);
        self.event(end, ended);
        if succeeded == 0 { Err(end) } else { Ok((end, join)) }
    }

    fn visit(&mut self, node: &'static Node, at: u64, recoverable: bool) -> Result<u64, u64> {
        *self.visits.entry(node.name).or_default() += 1;
        let (_, hash) = node.config();
        let started = event(
            EventType::NodeStart,
            node.name,
            [
                ("config_version", 1.into()),
                ("config_hash", hash.into()),
                ("config_updated_by", "release-pipeline".into()),
            ],
        );
        self.event(at, started);
        match self.work(node, at) {
            Ok(Work { end_us, changes, prompt_tokens, completion_tokens }) => {
                let duration_us = end_us - at;
                let done = NodeDone { node, duration_us, changes, prompt_tokens, completion_tokens };
                self.push(end_us, Deed::NodeDone(Box::new(done)));
                Ok(end_us)
            }
            Err(failure) => {
                let end_us = failure.at_us;
                let failed = NodeFailed { node, duration_us: end_us - at, failure, recovered: recoverable };
                self.push(end_us, Deed::NodeFailed(Box::new(failed)));
                Err(end_us)
            }
        }
    }

    fn finish(&mut self, at: u64) {
        let saved = event(EventType::MemorySave, "", [("scope", "thread".into()), ("entries", 4.into())]);
        let at = self.event(at + 2_000, saved);
        let low = self.chance(self.failure_rate * 0.5);
        let mut score = |low_score: f64| {
            let floor = if low { low_score - 0.4 } else { low_score };
            ((floor + self.rng.f64() * (0.99 - low_score)) * 1000.0).round() / 1000.0
        };
        let scores = [("accuracy", score(0.88)), ("relevance", score(0.9)), ("completeness", score(0.84))];
        let quality = (scores.iter().map(|(_, score)| score).sum::<f64>() / 3.0 * 1000.0).round() / 1000.0;
        let mut metrics: BTreeMap<_, _> =
            scores.iter().map(|(name, score)| ((*name).to_owned(), gauge(*score, "score"))).collect();
        metrics.insert("quality_score".to_owned(), gauge(quality, "score"));
        metrics.insert("passed".to_owned(), flag(quality >= 0.8));
        metrics.insert("issues".to_owned(), counter(u64::from(low), "count"));
        let tags = pairs([("graph", self.graph.name.to_owned()), ("judge", "atlas-judge-1".to_owned())]);
        let metrics = Metrics { header: None, scope: "quality".to_owned(), scope_id: String::new(), metrics, tags };
        self.push(at + 4_000, Deed::Send(Box::new(Message::Metrics(metrics))));
        if quality < 0.8 {
            let alert = event(
                EventType::GraphError,
                "quality_monitor",
                [
                    ("alert_type", "LOW_QUALITY".into()),
                    ("quality_score", quality.into()),
                    ("threshold", 0.8.into()),
                    ("issues", vec!["low_completeness".into()].into()),
                ],
            );
            self.event(at + 4_500, alert);
        }
        self.push(at + 6_000, Deed::Finish { completed: true });
    }
}

/// A duration as the wire has it.
pub fn micros(duration_us: u64) -> i64 {
    i64::try_from(duration_us).unwrap_or(i64::MAX)
}
