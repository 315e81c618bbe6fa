//! One run of a graph on one thread: carries the plan out and stamps every message with its header.
//!
//! Time comes from outside with every step. It must not know other runs, or Kafka.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use serde_json::{Value, json};

use super::graph::{Case, Graph};
use super::message::event;
use super::plan::{Act, Deed, NodeDone, NodeFailed, Planner, micros};
use super::stamp::{Stamp, Thread, iso};
use super::state::{State, patch_size, sha256};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{
    Checkpoint, CompressionInfo, CompressionType, DashStreamMessage, DiffOperation, ErrorRecord, EventBatch, EventType,
    ExecutionTrace, MessageType, NodeExecutionRecord, StateDiff,
};

/// Every so many diffs the full state is sent.
const CHECKPOINT_INTERVAL: u32 = 3;
/// States of this size and more are compressed in checkpoints, in bytes.
const CHECKPOINT_COMPRESSION: usize = 512;

/// A run under way.
#[derive(Debug)]
pub struct Run {
    graph: &'static Graph,
    case: &'static Case,
    request: &'static str,
    acts: VecDeque<Act>,
    state: State,
    checkpoint_id: Vec<u8>,
    diffs: u32,
    trace: ExecutionTrace,
    started_us: i64,
    completed: bool,
}

impl Run {
    /// Plans a run. `turn` counts the runs of the thread from 0.
    pub fn new(graph: &'static Graph, case: &'static Case, turn: u32, failure_rate: f64, rng: &mut Rng) -> Self {
        let request = if turn == 0 { case.request } else { case.follow_up };
        let acts = Planner::new(graph, case, failure_rate, rng).plan().into();
        let state = json!({
            "request": request, "subject": case.subject, "turn": turn, "locale": "en-GB",
            "budget": {"max_tokens": 40_000, "spent_tokens": 0},
            "messages": [{"role": "user", "content": request}],
        });
        Self {
            graph,
            case,
            request,
            acts,
            state: State::new(state),
            checkpoint_id: Vec::new(),
            diffs: 0,
            trace: ExecutionTrace::default(),
            started_us: 0,
            completed: false,
        }
    }

    /// When the next step is due, in microseconds since the start of the run; `None` when the run is over.
    pub fn next_at_us(&self) -> Option<u64> {
        self.acts.front().map(|act| act.at_us)
    }

    /// Whether it reached its end.
    pub const fn completed(&self) -> bool {
        self.completed
    }

    /// Takes the next step at `timestamp_us` (Unix) and appends the messages that it sends.
    pub fn step(
        &mut self,
        thread: &mut Thread,
        timestamp_us: i64,
        rng: &mut Rng,
        out: &mut VecDeque<DashStreamMessage>,
    ) {
        let Some(act) = self.acts.pop_front() else { return };
        let mut stamp = Stamp { thread, timestamp_us, rng };
        match act.deed {
            Deed::Start => self.start(&mut stamp, out),
            Deed::Send(mut message) => {
                // Quality is judged per thread, which the plan does not know.
                if let Message::Metrics(metrics) = &mut *message
                    && metrics.scope_id.is_empty()
                {
                    metrics.scope_id = stamp.thread.id.to_string();
                }
                out.push_back(stamp.message(*message));
            }
            Deed::Batch(mut events) => {
                for event in &mut events {
                    event.header = Some(stamp.header(MessageType::Event, true));
                }
                out.push_back(stamp.message(Message::EventBatch(EventBatch { header: None, events })));
            }
            Deed::NodeDone(done) => self.node_done(*done, &mut stamp, out),
            Deed::NodeFailed(failed) => self.node_failed(*failed, &mut stamp, out),
            Deed::Finish { completed } => self.finish(completed, act.at_us, &mut stamp, out),
        }
    }

    fn start(&mut self, stamp: &mut Stamp<'_>, out: &mut VecDeque<DashStreamMessage>) {
        self.started_us = stamp.timestamp_us;
        let now = iso(stamp.timestamp_us);
        self.trace.execution_id = stamp.uuid_text();
        self.trace.started_at.clone_from(&now);
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let initial = String::from_utf8(self.state.canonical()).unwrap_or_default();
        let started = event(
            EventType::GraphStart,
            "",
            [
                ("graph_manifest", self.graph.manifest_json().to_string().into()),
                ("graph_schema_json", self.graph.schema_json(&now).to_string().into()),
                ("schema_id", self.graph.schema_id().into()),
                ("graph_entry_point", self.graph.entry.into()),
                ("graph_name", self.graph.name.into()),
                ("graph_node_count", count(self.graph.nodes.len()).into()),
                ("graph_edge_count", count(self.graph.edges.len()).into()),
                ("initial_state_json", initial.into()),
            ],
        );
        out.push_back(stamp.message(Message::Event(started)));
    }

    fn node_done(&mut self, done: NodeDone, stamp: &mut Stamp<'_>, out: &mut VecDeque<DashStreamMessage>) {
        let input: serde_json::Map<_, _> = done
            .node
            .reads
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), self.state.get(field)?.clone())))
            .collect();
        let operations: Vec<_> = done.changes.into_iter().filter_map(|change| self.state.apply(change)).collect();
        let output = self.state.get(done.node.writes).map(Value::to_string).unwrap_or_default();
        self.diff(operations, stamp, out);
        let mut ended = event(
            EventType::NodeEnd,
            done.node.name,
            [("config_version", 1.into()), ("config_hash", done.node.config().1.into())],
        );
        ended.duration_us = micros(done.duration_us);
        out.push_back(stamp.message(Message::Event(ended)));
        self.record(done.node.name, done.duration_us, stamp.timestamp_us, true);
        if let Some(record) = self.trace.nodes_executed.last_mut() {
            record.prompt_tokens = done.prompt_tokens.into();
            record.completion_tokens = done.completion_tokens.into();
            record.total_tokens = record.prompt_tokens + record.completion_tokens;
            record.input = Value::Object(input).to_string().into_bytes();
            record.output = output.into_bytes();
            self.trace.total_tokens += record.total_tokens;
        }
    }

    /// The patch from the state before, or the state itself when that is smaller; now and then a checkpoint.
    fn diff(&mut self, operations: Vec<DiffOperation>, stamp: &mut Stamp<'_>, out: &mut VecDeque<DashStreamMessage>) {
        let full = self.state.canonical();
        let state_hash = sha256(&full);
        let too_large = patch_size(&operations) > full.len() * 11 / 10;
        let diff = StateDiff {
            header: None,
            base_checkpoint_id: self.checkpoint_id.clone(),
            operations: if too_large { Vec::new() } else { operations },
            state_hash: state_hash.clone(),
            full_state: if too_large { full.clone() } else { Vec::new() },
        };
        out.push_back(stamp.message(Message::StateDiff(diff)));
        self.diffs += 1;
        if !self.diffs.is_multiple_of(CHECKPOINT_INTERVAL) {
            return;
        }
        self.checkpoint_id = stamp.uuid().to_vec();
        let (state, compression_info) = compress_state(full);
        let checkpoint = Checkpoint {
            header: None,
            checkpoint_id: self.checkpoint_id.clone(),
            state,
            state_type: "serde_json::Value".to_owned(),
            checksum: state_hash,
            storage_uri: String::new(),
            compression_info,
            metadata: BTreeMap::new(),
        };
        out.push_back(stamp.message(Message::Checkpoint(checkpoint)));
    }

    fn node_failed(&mut self, failed: NodeFailed, stamp: &mut Stamp<'_>, out: &mut VecDeque<DashStreamMessage>) {
        let NodeFailed { node, duration_us, failure, recovered } = failed;
        out.push_back(stamp.message(Message::Error(failure.to_error(node.name))));
        let mut told = event(
            EventType::NodeError,
            node.name,
            [
                ("error", failure.message.as_str().into()),
                ("error_code", failure.code.into()),
                ("recovered", recovered.into()),
            ],
        );
        told.duration_us = micros(duration_us);
        out.push_back(stamp.message(Message::Event(told)));
        self.record(node.name, duration_us, stamp.timestamp_us, false);
        self.trace.errors.push(ErrorRecord {
            node: node.name.to_owned(),
            message: failure.message,
            error_code: failure.code.to_owned(),
            timestamp: iso(stamp.timestamp_us),
            recovered,
            stack_trace: failure.stack_trace,
        });
    }

    fn record(&mut self, node: &str, duration_us: u64, ended_us: i64, succeeded: bool) {
        self.trace.nodes_executed.push(NodeExecutionRecord {
            node: node.to_owned(),
            duration_ms: duration_us / 1_000,
            succeeded,
            started_at: iso(ended_us.saturating_sub(micros(duration_us))),
            ended_at: iso(ended_us),
            ..Default::default()
        });
    }

    fn finish(
        &mut self,
        completed: bool,
        duration_us: u64,
        stamp: &mut Stamp<'_>,
        out: &mut VecDeque<DashStreamMessage>,
    ) {
        self.completed = completed;
        let mut ended = if completed {
            self.diff(Vec::new(), stamp, out);
            event(EventType::GraphEnd, "", [])
        } else {
            let error = self.trace.errors.last().map_or("failed", |error| error.message.as_str());
            event(EventType::GraphError, "", [("error", error.into())])
        };
        ended.duration_us = micros(duration_us);
        out.push_back(stamp.message(Message::Event(ended)));
        let mut trace = std::mem::take(&mut self.trace);
        trace.thread_id = stamp.thread.id.to_string();
        trace.total_duration_ms = duration_us / 1_000;
        trace.completed = completed;
        trace.ended_at = iso(stamp.timestamp_us);
        trace.final_state = self.state.canonical();
        trace.metadata = BTreeMap::from([
            ("graph".to_owned(), json!(self.graph.name).to_string().into_bytes()),
            ("subject".to_owned(), json!(self.case.subject).to_string().into_bytes()),
            ("request".to_owned(), json!(self.request).to_string().into_bytes()),
        ]);
        out.push_back(stamp.message(Message::ExecutionTrace(trace)));
    }
}

fn compress_state(state: Vec<u8>) -> (Vec<u8>, Option<CompressionInfo>) {
    if state.len() < CHECKPOINT_COMPRESSION {
        return (state, None);
    }
    let Ok(compressed) = zstd::bulk::compress(&state, 3) else { return (state, None) };
    let info = CompressionInfo {
        r#type: CompressionType::Zstd.into(),
        compressed_size: compressed.len() as u64,
        uncompressed_size: state.len() as u64,
        compression_ratio: compressed.len() as f32 / state.len() as f32,
    };
    (compressed, Some(info))
}
