//! Short ways to build telemetry messages without a header. The header is stamped on when they are sent.

use std::collections::BTreeMap;

use crate::wire::telemetry::attribute_value::Value as Attribute;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::metric_value::{MetricType, Value as Metric};
use crate::wire::telemetry::{
    AttributeArray, AttributeValue, CompressionType, DashStreamMessage, Event, EventType, Header, MessageType,
    MetricValue,
};

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self { value: Some(Attribute::StringValue(text.to_owned())) }
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self { value: Some(Attribute::StringValue(text)) }
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self { value: Some(Attribute::IntValue(number)) }
    }
}

impl From<f64> for AttributeValue {
    fn from(number: f64) -> Self {
        Self { value: Some(Attribute::FloatValue(number)) }
    }
}

impl From<bool> for AttributeValue {
    fn from(truth: bool) -> Self {
        Self { value: Some(Attribute::BoolValue(truth)) }
    }
}

impl From<Vec<AttributeValue>> for AttributeValue {
    fn from(values: Vec<AttributeValue>) -> Self {
        Self { value: Some(Attribute::ArrayValue(AttributeArray { values })) }
    }
}

/// An event of a node.
pub fn event<const N: usize>(kind: EventType, node: &str, attributes: [(&str, AttributeValue); N]) -> Event {
    Event {
        header: None,
        event_type: kind.into(),
        node_id: node.to_owned(),
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        duration_us: 0,
        llm_request_id: String::new(),
    }
}

/// A gauge with a unit.
pub fn gauge(value: f64, unit: &str) -> MetricValue {
    MetricValue { unit: unit.to_owned(), r#type: MetricType::Gauge.into(), value: Some(Metric::FloatValue(value)) }
}

/// A counter with a unit.
pub fn counter(value: u64, unit: &str) -> MetricValue {
    let value = Some(Metric::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    MetricValue { unit: unit.to_owned(), r#type: MetricType::Counter.into(), value }
}

/// A yes or no.
pub fn flag(value: bool) -> MetricValue {
    MetricValue { unit: String::new(), r#type: MetricType::Unspecified.into(), value: Some(Metric::BoolValue(value)) }
}

/// Text pairs as a map.
pub fn pairs<const N: usize>(entries: [(&str, String); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The type that the header must tell for this message.
pub const fn message_type(message: &Message) -> MessageType {
    match message {
        Message::Event(_) => MessageType::Event,
        Message::StateDiff(_) => MessageType::StateDiff,
        Message::TokenChunk(_) => MessageType::TokenChunk,
        Message::ToolExecution(_) => MessageType::ToolExecution,
        Message::Checkpoint(_) => MessageType::Checkpoint,
        Message::Metrics(_) => MessageType::Metrics,
        Message::Error(_) => MessageType::Error,
        Message::EventBatch(_) => MessageType::EventBatch,
        Message::ExecutionTrace(_) => MessageType::ExecutionTrace,
    }
}

/// Where the header of a message is.
pub const fn header_mut(message: &mut Message) -> &mut Option<Header> {
    match message {
        Message::Event(body) => &mut body.header,
        Message::StateDiff(body) => &mut body.header,
        Message::TokenChunk(body) => &mut body.header,
        Message::ToolExecution(body) => &mut body.header,
        Message::Checkpoint(body) => &mut body.header,
        Message::Metrics(body) => &mut body.header,
        Message::Error(body) => &mut body.header,
        Message::EventBatch(body) => &mut body.header,
        Message::ExecutionTrace(body) => &mut body.header,
    }
}

/// The header of a message, if it has one.
pub fn header(message: &DashStreamMessage) -> Option<&Header> {
    match message.message.as_ref()? {
        Message::Event(body) => body.header.as_ref(),
        Message::StateDiff(body) => body.header.as_ref(),
        Message::TokenChunk(body) => body.header.as_ref(),
        Message::ToolExecution(body) => body.header.as_ref(),
        Message::Checkpoint(body) => body.header.as_ref(),
        Message::Metrics(body) => body.header.as_ref(),
        Message::Error(body) => body.header.as_ref(),
        Message::EventBatch(body) => body.header.as_ref(),
        Message::ExecutionTrace(body) => body.header.as_ref(),
    }
}

/// Says in every header of the message, inner events included, how the record is compressed.
pub fn set_compression(message: &mut DashStreamMessage, compression: CompressionType) {
    let Some(message) = message.message.as_mut() else { return };
    if let Some(header) = header_mut(message) {
        header.compression = compression.into();
    }
    if let Message::EventBatch(batch) = message {
        for header in batch.events.iter_mut().filter_map(|event| event.header.as_mut()) {
            header.compression = compression.into();
        }
    }
}
