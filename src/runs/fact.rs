//! What a message says about its run, without what is only payload: texts, prompts, results.
//!
//! It must not know other messages.

use std::collections::BTreeMap;

use super::item::Body;
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{AttributeValue, Checkpoint, Event, EventType, ExecutionTrace, StateDiff};

/// Names and reasons are kept up to so many characters.
const MAX_TEXT: usize = 300;
/// As many nodes of a graph are known from its description.
const MAX_NODES: usize = 1_000;

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A step.
    Event(Box<EventFact>),
    /// A piece of a model's answer.
    Chunk {
        /// Of which call.
        request: String,
        /// Of which model.
        model: String,
        /// Whether it is the last.
        is_final: bool,
    },
    /// A stage of a tool's call.
    Tool(Box<ToolFact>),
    /// A change of the state; kept where states are asked for.
    Diff(Box<StateDiff>),
    /// A state; kept where states are asked for.
    Checkpoint(Box<Checkpoint>),
    /// The whole run, as its producer sums it up.
    Trace(Box<ExecutionTrace>),
    /// Something went wrong.
    Error(String),
    /// It is there.
    Other,
}

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFact {
    /// Its type.
    pub event_type: i32,
    /// Its node.
    pub node: String,
    /// As it was sent.
    pub duration_us: i64,
    /// Which call of a model.
    pub request: String,
    /// Which model.
    pub model: String,
    /// Which tool.
    pub tool: String,
    /// Which call of the tool.
    pub call: String,
    /// What went wrong.
    pub error: String,
    /// Which graph.
    pub graph: String,
    /// Where an edge leads.
    pub to: String,
    /// The nodes that the graph has by its description.
    pub nodes: Vec<String>,
    /// JSON text of the state at the start; kept where states are asked for.
    pub initial_state: Option<String>,
    /// Whether it is a monitor's remark, which does not end the graph.
    pub is_alert: bool,
}

/// What a stage of a tool's call says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolFact {
    /// Which call.
    pub call: String,
    /// Of which tool.
    pub tool: String,
    /// How far it is.
    pub stage: ExecutionStage,
    /// What went wrong.
    pub error: String,
    /// As it was sent.
    pub duration_us: i64,
    /// How often it was tried again.
    pub retries: u32,
}

impl EventFact {
    /// Its type, if it is known.
    pub fn kind(&self) -> Option<EventType> {
        EventType::try_from(self.event_type).ok()
    }
}

impl Fact {
    /// What the message says.
    pub fn of(body: &Body, keeps_states: bool) -> Self {
        match body {
            Body::Event(event) => Self::Event(Box::new(of_event(event, keeps_states))),
            Body::TokenChunk(chunk) => {
                Self::Chunk { request: cut(&chunk.request_id), model: cut(&chunk.model), is_final: chunk.is_final }
            }
            Body::ToolExecution(tool) => Self::Tool(Box::new(ToolFact {
                call: cut(&tool.call_id),
                tool: cut(&tool.tool_name),
                stage: ExecutionStage::try_from(tool.stage).unwrap_or_default(),
                error: cut(&tool.error),
                duration_us: tool.duration_us,
                retries: tool.retry_count,
            })),
            Body::StateDiff(diff) if keeps_states => Self::Diff(Box::new(diff.clone())),
            Body::Checkpoint(checkpoint) if keeps_states => Self::Checkpoint(Box::new(checkpoint.clone())),
            Body::ExecutionTrace(trace) => Self::Trace(Box::new(of_trace(trace, keeps_states))),
            Body::Error(error) => Self::Error(cut(&error.message)),
            Body::StateDiff(_) | Body::Checkpoint(_) | Body::Metrics(_) => Self::Other,
        }
    }

    /// Roughly what it holds.
    pub fn bytes(&self) -> usize {
        use prost::Message as _;
        match self {
            Self::Event(event) => {
                let texts = [&event.node, &event.request, &event.model, &event.tool, &event.call, &event.error];
                let nodes: usize = event.nodes.iter().map(|node| node.len() + size_of::<String>()).sum();
                let state = event.initial_state.as_ref().map_or(0, String::len);
                size_of::<EventFact>() + texts.iter().map(|text| text.len()).sum::<usize>() + nodes + state
            }
            Self::Chunk { request, model, .. } => request.len() + model.len(),
            Self::Tool(tool) => size_of::<ToolFact>() + tool.call.len() + tool.tool.len() + tool.error.len(),
            Self::Diff(diff) => diff.encoded_len() * 2,
            Self::Checkpoint(checkpoint) => checkpoint.encoded_len(),
            Self::Trace(trace) => trace.encoded_len() * 2,
            Self::Error(text) => text.len(),
            Self::Other => 0,
        }
    }
}

fn of_event(event: &Event, keeps_states: bool) -> EventFact {
    let attributes = &event.attributes;
    let any = |names: &[&str]| names.iter().find_map(|name| text(attributes, name)).map(cut).unwrap_or_default();
    let is_start = event.event_type == EventType::GraphStart as i32;
    EventFact {
        event_type: event.event_type,
        node: cut(&event.node_id),
        duration_us: event.duration_us,
        request: cut(&event.llm_request_id),
        model: any(&["model", "model_name"]),
        tool: any(&["tool_name", "tool"]),
        call: any(&["call_id", "tool_call_id"]),
        error: any(&["error", "error_message"]),
        graph: any(&["graph_name"]),
        to: any(&["to"]),
        nodes: if is_start { described_nodes(attributes) } else { Vec::new() },
        initial_state: text(attributes, "initial_state_json").filter(|_| is_start && keeps_states).map(str::to_owned),
        is_alert: attributes.contains_key("alert_type"),
    }
}

/// The text of an attribute.
pub fn text<'a>(attributes: &'a BTreeMap<String, AttributeValue>, name: &str) -> Option<&'a str> {
    match attributes.get(name)?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// From whichever description of the graph came through.
fn described_nodes(attributes: &BTreeMap<String, AttributeValue>) -> Vec<String> {
    let parsed = |name| text(attributes, name).and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let schema = parsed("graph_schema_json");
    let nodes = schema.as_ref().and_then(|schema| schema.get("nodes")?.as_array());
    if let Some(nodes) = nodes {
        let names = nodes.iter().filter_map(|node| node.get("name")?.as_str());
        return names.take(MAX_NODES).map(cut).collect();
    }
    let manifest = parsed("graph_manifest");
    let nodes = manifest.as_ref().and_then(|manifest| manifest.get("nodes")?.as_object());
    nodes.map(|nodes| nodes.keys().take(MAX_NODES).map(|name| cut(name)).collect()).unwrap_or_default()
}

fn of_trace(trace: &ExecutionTrace, keeps_states: bool) -> ExecutionTrace {
    let mut trace = trace.clone();
    trace.metadata.clear();
    for node in &mut trace.nodes_executed {
        node.input.clear();
        node.output.clear();
        node.metadata.clear();
    }
    for error in &mut trace.errors {
        error.stack_trace.clear();
    }
    if !keeps_states {
        trace.final_state.clear();
    }
    trace
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(name: &str, json: &str) -> EventFact {
        let value = AttributeValue { value: Some(Value::StringValue(json.to_owned())) };
        let attributes = BTreeMap::from([(name.to_owned(), value)]);
        of_event(&Event { event_type: EventType::GraphStart.into(), attributes, ..Event::default() }, true)
    }

    #[test]
    fn nodes_are_known_from_either_description_of_a_graph() {
        assert_eq!(start("graph_schema_json", r#"{"nodes":[{"name":"b"},{"name":"a"},{}]}"#).nodes, ["b", "a"]);
        assert_eq!(start("graph_manifest", r#"{"nodes":{"a":{},"b":{}}}"#).nodes, ["a", "b"]);
        for bad in ["", "[]", r#"{"nodes":7}"#] {
            assert!(start("graph_schema_json", bad).nodes.is_empty() && start("graph_manifest", bad).nodes.is_empty());
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ä".repeat(MAX_TEXT + 1);
        assert_eq!(cut(&long).chars().count(), MAX_TEXT + 1);
        assert!(cut(&long).ends_with('…'));
        let exact = "ä".repeat(MAX_TEXT);
        assert_eq!(cut(&exact), exact);
    }
}
