//! A message as JSON, complete: for programs, and for people who ask for everything.
//!
//! Names are those of the contract (`proto/dashstream.proto`), enums by name, 64-bit numbers decimal strings, ids hexadecimal,
//! other bytes base64. Bytes that producers fill with JSON text are shown as that JSON; where they hold none, or numbers that
//! JSON readers would round, they are base64 under the same name with `_base64`. Fields that are empty bytes or absent
//! messages are left out; all others are always there. It must not know who reads it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

use super::item::{Body, Item};
use super::names::event_name;
use crate::wire::telemetry::attribute_value::Value as Attribute;
use crate::wire::telemetry::diff_operation::{OpType, ValueEncoding};
use crate::wire::telemetry::error::Severity;
use crate::wire::telemetry::metric_value::{MetricType, Value as Metric};
use crate::wire::telemetry::token_chunk::FinishReason;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{
    AttributeValue, Checkpoint, CompressionInfo, CompressionType, DiffOperation, Error, ErrorRecord, Event, EventType,
    ExecutionTrace, Header, MessageType, MetricValue, Metrics, NodeExecutionRecord, StateDiff, TokenChunk,
    ToolExecution,
};

/// From here on numbers of JSON may be rounded by who reads them.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The whole message: where it lies, its kind, its header, and its body under the name of its kind.
pub fn message(item: &Item) -> Value {
    let mut fields = Fields::default();
    fields.set("partition", item.place.partition);
    fields.long("offset", item.place.offset);
    fields.set("index", item.place.index);
    if let Some(time) = item.record_time_ms {
        fields.long("record_time_ms", time);
    }
    fields.set("kind", item.body.kind());
    fields.set("header", header(&item.header));
    fields.set(item.body.kind(), body(&item.body));
    fields.done()
}

/// What the message says besides its header.
pub fn body(body: &Body) -> Value {
    match body {
        Body::Event(event) => of_event(event),
        Body::StateDiff(diff) => of_state_diff(diff),
        Body::TokenChunk(chunk) => of_token_chunk(chunk),
        Body::ToolExecution(tool) => of_tool(tool),
        Body::Checkpoint(checkpoint) => of_checkpoint(checkpoint),
        Body::Metrics(metrics) => of_metrics(metrics),
        Body::Error(error) => of_error(error),
        Body::ExecutionTrace(trace) => of_trace(trace),
    }
}

/// Attributes of an event.
pub fn attributes(attributes: &BTreeMap<String, AttributeValue>) -> Value {
    attributes.iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The JSON that bytes hold, if they hold one that keeps its numbers.
pub fn json_text(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(is_exact)
}

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() < EXACT),
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// The fields of a message, while they are gathered.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A number of 64 bits.
    fn long(&mut self, name: &str, number: impl ToString) {
        self.set(name, number.to_string());
    }

    fn id(&mut self, name: &str, bytes: &[u8]) {
        self.set(name, hex(bytes));
    }

    fn base64(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.set(&format!("{name}_base64"), BASE64.encode(bytes));
        }
    }

    /// Bytes that should be JSON text.
    fn json(&mut self, name: &str, bytes: &[u8]) {
        match json_text(bytes) {
            Some(value) => self.set(name, value),
            None => self.base64(name, bytes),
        }
    }

    /// The name of an enum's value, or its number when it has none here.
    fn name(&mut self, name: &str, number: i32, known: Option<&'static str>) {
        self.set(name, known.map_or_else(|| Value::from(number), Value::from));
    }

    fn texts(&mut self, name: &str, texts: &BTreeMap<String, String>) {
        self.set(name, texts.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect::<Value>());
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// A float as it was written: those that JSON has no form for by name.
fn float(number: f64) -> Value {
    let name = if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Number::from_f64(number).map_or_else(|| name.into(), Value::Number)
}

/// The shortest digits that mean the same 32-bit number.
fn float32(number: f32) -> Value {
    float(number.to_string().parse().unwrap_or_else(|_| f64::from(number)))
}

/// A message's header.
pub fn header(header: &Header) -> Value {
    let mut fields = Fields::default();
    fields.id("message_id", &header.message_id);
    fields.long("timestamp_us", header.timestamp_us);
    fields.set("tenant_id", header.tenant_id.as_str());
    fields.set("thread_id", header.thread_id.as_str());
    fields.long("sequence", header.sequence);
    fields.name("type", header.r#type, MessageType::try_from(header.r#type).ok().map(|known| known.as_str_name()));
    fields.id("parent_id", &header.parent_id);
    compression(&mut fields, "compression", header.compression);
    fields.set("schema_version", header.schema_version);
    fields.done()
}

fn compression(fields: &mut Fields, name: &str, number: i32) {
    fields.name(name, number, CompressionType::try_from(number).ok().map(|known| known.as_str_name()));
}

fn of_event(event: &Event) -> Value {
    let mut fields = Fields::default();
    let known = EventType::try_from(event.event_type).ok().map(|known| known.as_str_name());
    fields.name("event_type", event.event_type, known);
    fields.set("node_id", event.node_id.as_str());
    fields.set("attributes", attributes(&event.attributes));
    fields.long("duration_us", event.duration_us);
    fields.set("llm_request_id", event.llm_request_id.as_str());
    fields.done()
}

fn attribute(value: &AttributeValue) -> Value {
    let mut fields = Fields::default();
    match &value.value {
        None => {}
        Some(Attribute::StringValue(text)) => fields.set("string_value", text.as_str()),
        Some(Attribute::IntValue(number)) => fields.long("int_value", number),
        Some(Attribute::FloatValue(number)) => fields.set("float_value", float(*number)),
        Some(Attribute::BoolValue(value)) => fields.set("bool_value", *value),
        Some(Attribute::BytesValue(bytes)) => fields.set("bytes_value", BASE64.encode(bytes)),
        Some(Attribute::ArrayValue(array)) => {
            fields.set("array_value", array.values.iter().map(attribute).collect::<Value>());
        }
        Some(Attribute::MapValue(map)) => fields.set("map_value", attributes(&map.values)),
    }
    fields.done()
}

fn of_state_diff(diff: &StateDiff) -> Value {
    let mut fields = Fields::default();
    fields.id("base_checkpoint_id", &diff.base_checkpoint_id);
    fields.set("operations", diff.operations.iter().map(operation).collect::<Value>());
    fields.id("state_hash", &diff.state_hash);
    fields.json("full_state", &diff.full_state);
    fields.done()
}

fn operation(operation: &DiffOperation) -> Value {
    let mut fields = Fields::default();
    fields.name("op", operation.op, OpType::try_from(operation.op).ok().map(|known| known.as_str_name()));
    fields.set("path", operation.path.as_str());
    let encoding = ValueEncoding::try_from(operation.encoding).ok();
    if encoding == Some(ValueEncoding::Json) {
        fields.json("value", &operation.value);
    } else {
        fields.base64("value", &operation.value);
    }
    fields.set("from", operation.from.as_str());
    fields.name("encoding", operation.encoding, encoding.map(|known| known.as_str_name()));
    fields.done()
}

fn of_token_chunk(chunk: &TokenChunk) -> Value {
    let mut fields = Fields::default();
    fields.set("request_id", chunk.request_id.as_str());
    fields.set("text", chunk.text.as_str());
    fields.set("token_ids", chunk.token_ids.clone());
    fields.set("logprobs", chunk.logprobs.iter().map(|number| float32(*number)).collect::<Value>());
    fields.set("chunk_index", chunk.chunk_index);
    fields.set("is_final", chunk.is_final);
    let reason = FinishReason::try_from(chunk.finish_reason).ok().map(|known| known.as_str_name());
    fields.name("finish_reason", chunk.finish_reason, reason);
    fields.set("model", chunk.model.as_str());
    if let Some(stats) = &chunk.stats {
        let mut inner = Fields::default();
        inner.set("prompt_tokens", stats.prompt_tokens);
        inner.set("completion_tokens", stats.completion_tokens);
        inner.set("total_tokens", stats.total_tokens);
        fields.set("stats", inner.done());
    }
    fields.done()
}

fn of_tool(tool: &ToolExecution) -> Value {
    let mut fields = Fields::default();
    fields.set("call_id", tool.call_id.as_str());
    fields.set("tool_name", tool.tool_name.as_str());
    fields.name("stage", tool.stage, ExecutionStage::try_from(tool.stage).ok().map(|known| known.as_str_name()));
    fields.json("arguments", &tool.arguments);
    fields.json("result", &tool.result);
    fields.set("error", tool.error.as_str());
    if let Some(error) = &tool.error_details {
        let mut details = of_error(error);
        if let (Some(fields), Some(own)) = (details.as_object_mut(), &error.header) {
            fields.insert("header".to_owned(), header(own));
        }
        fields.set("error_details", details);
    }
    fields.long("duration_us", tool.duration_us);
    fields.set("retry_count", tool.retry_count);
    fields.done()
}

fn of_checkpoint(checkpoint: &Checkpoint) -> Value {
    let mut fields = Fields::default();
    fields.id("checkpoint_id", &checkpoint.checkpoint_id);
    // Compressed as compression_info says: then it is no JSON.
    fields.json("state", &checkpoint.state);
    fields.set("state_type", checkpoint.state_type.as_str());
    fields.id("checksum", &checkpoint.checksum);
    fields.set("storage_uri", checkpoint.storage_uri.as_str());
    if let Some(CompressionInfo { r#type, compressed_size, uncompressed_size, compression_ratio }) =
        &checkpoint.compression_info
    {
        let mut inner = Fields::default();
        compression(&mut inner, "type", *r#type);
        inner.long("compressed_size", compressed_size);
        inner.long("uncompressed_size", uncompressed_size);
        inner.set("compression_ratio", float32(*compression_ratio));
        fields.set("compression_info", inner.done());
    }
    fields.texts("metadata", &checkpoint.metadata);
    fields.done()
}

fn of_metrics(metrics: &Metrics) -> Value {
    let mut fields = Fields::default();
    fields.set("scope", metrics.scope.as_str());
    fields.set("scope_id", metrics.scope_id.as_str());
    let all = metrics.metrics.iter().map(|(name, value)| (name.clone(), metric(value)));
    fields.set("metrics", all.collect::<Value>());
    fields.texts("tags", &metrics.tags);
    fields.done()
}

fn metric(metric: &MetricValue) -> Value {
    let mut fields = Fields::default();
    match &metric.value {
        None => {}
        Some(Metric::IntValue(number)) => fields.long("int_value", number),
        Some(Metric::FloatValue(number)) => fields.set("float_value", float(*number)),
        Some(Metric::StringValue(text)) => fields.set("string_value", text.as_str()),
        Some(Metric::BoolValue(value)) => fields.set("bool_value", *value),
        Some(Metric::BytesValue(bytes)) => fields.set("bytes_value", BASE64.encode(bytes)),
    }
    fields.set("unit", metric.unit.as_str());
    fields.name("type", metric.r#type, MetricType::try_from(metric.r#type).ok().map(|known| known.as_str_name()));
    fields.done()
}

fn of_error(error: &Error) -> Value {
    let mut fields = Fields::default();
    fields.set("error_code", error.error_code.as_str());
    fields.set("message", error.message.as_str());
    fields.set("stack_trace", error.stack_trace.as_str());
    fields.texts("context", &error.context);
    fields.name("severity", error.severity, Severity::try_from(error.severity).ok().map(|known| known.as_str_name()));
    fields.set("exception_type", error.exception_type.as_str());
    fields.set("suggestions", error.suggestions.clone());
    fields.done()
}

fn of_trace(trace: &ExecutionTrace) -> Value {
    let mut fields = Fields::default();
    fields.set("thread_id", trace.thread_id.as_str());
    fields.set("execution_id", trace.execution_id.as_str());
    fields.set("nodes_executed", trace.nodes_executed.iter().map(node_record).collect::<Value>());
    fields.long("total_duration_ms", trace.total_duration_ms);
    fields.long("total_tokens", trace.total_tokens);
    fields.set("errors", trace.errors.iter().map(error_record).collect::<Value>());
    fields.set("completed", trace.completed);
    fields.set("started_at", trace.started_at.as_str());
    fields.set("ended_at", trace.ended_at.as_str());
    fields.json("final_state", &trace.final_state);
    let mut metadata = Map::new();
    let mut others = Map::new();
    for (name, bytes) in &trace.metadata {
        match json_text(bytes) {
            Some(value) => metadata.insert(name.clone(), value),
            None => others.insert(name.clone(), BASE64.encode(bytes).into()),
        };
    }
    fields.set("metadata", metadata);
    if !others.is_empty() {
        fields.set("metadata_base64", others);
    }
    fields.done()
}

fn node_record(node: &NodeExecutionRecord) -> Value {
    let mut fields = Fields::default();
    fields.set("node", node.node.as_str());
    fields.long("duration_ms", node.duration_ms);
    fields.long("prompt_tokens", node.prompt_tokens);
    fields.long("completion_tokens", node.completion_tokens);
    fields.long("total_tokens", node.total_tokens);
    fields.set("succeeded", node.succeeded);
    fields.set("started_at", node.started_at.as_str());
    fields.set("ended_at", node.ended_at.as_str());
    fields.json("input", &node.input);
    fields.json("output", &node.output);
    fields.texts("metadata", &node.metadata);
    fields.done()
}

fn error_record(error: &ErrorRecord) -> Value {
    let mut fields = Fields::default();
    fields.set("node", error.node.as_str());
    fields.set("message", error.message.as_str());
    fields.set("error_code", error.error_code.as_str());
    fields.set("timestamp", error.timestamp.as_str());
    fields.set("recovered", error.recovered);
    fields.set("stack_trace", error.stack_trace.as_str());
    fields.done()
}

/// What a message is, in one word: the type of an event, the kind of any other.
pub fn type_name(item: &Item) -> String {
    match &item.body {
        Body::Event(event) => event_name(event.event_type),
        body => body.kind().to_owned(),
    }
}

#[cfg(test)]
mod tests;
