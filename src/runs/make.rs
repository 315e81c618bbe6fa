//! Messages for the tests of this folder, with times and numbers that one can read.

use super::item::{Body, Item, Place};
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{AttributeValue, Event, EventType, Header, TokenChunk, TokenStats, ToolExecution};

thread_local! {
    static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
}

/// A message with an id of its own, behind those made before.
pub(super) fn item(sequence: u64, timestamp_us: i64, body: Body) -> Item {
    let number = NEXT.replace(NEXT.get() + 1);
    let header = Header {
        message_id: u128::from(number).to_be_bytes().to_vec(),
        timestamp_us,
        tenant_id: "acme".to_owned(),
        thread_id: "t".to_owned(),
        sequence,
        ..Header::default()
    };
    let place = Place { partition: 0, offset: number.cast_signed(), index: 0 };
    Item { place, record_time_ms: None, header, body }
}

pub(super) fn without_id(mut item: Item) -> Item {
    item.header.message_id.clear();
    item
}

pub(super) fn event(sequence: u64, timestamp_us: i64, kind: EventType, node: &str) -> Item {
    item(
        sequence,
        timestamp_us,
        Body::Event(Event { event_type: kind.into(), node_id: node.to_owned(), ..Event::default() }),
    )
}

/// Changes the event of an item.
pub(super) fn with(mut item: Item, change: impl FnOnce(&mut Event)) -> Item {
    if let Body::Event(event) = &mut item.body {
        change(event);
    }
    item
}

/// With the duration that its producer measured.
pub(super) fn took(item: Item, duration_us: i64) -> Item {
    with(item, |event| event.duration_us = duration_us)
}

/// With an attribute.
pub(super) fn attribute(item: Item, name: &str, value: Value) -> Item {
    with(item, |event| {
        event.attributes.insert(name.to_owned(), AttributeValue { value: Some(value) });
    })
}

/// With a text attribute.
pub(super) fn text(item: Item, name: &str, text: &str) -> Item {
    attribute(item, name, Value::StringValue(text.to_owned()))
}

/// Of a call of a model.
pub(super) fn request(item: Item, id: &str) -> Item {
    with(item, |event| event.llm_request_id = id.to_owned())
}

pub(super) fn tool(sequence: u64, timestamp_us: i64, call: &str, stage: ExecutionStage) -> Item {
    let tool = ToolExecution {
        call_id: call.to_owned(),
        tool_name: "search".to_owned(),
        stage: stage.into(),
        ..ToolExecution::default()
    };
    item(sequence, timestamp_us, Body::ToolExecution(tool))
}

/// A piece of an answer; the last one tells the counts.
pub(super) fn chunk(sequence: u64, timestamp_us: i64, request: &str, counts: Option<(u32, u32)>) -> Item {
    let stats = counts.map(|(prompt_tokens, completion_tokens)| TokenStats {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
    });
    let chunk = TokenChunk {
        request_id: request.to_owned(),
        model: "m".to_owned(),
        is_final: stats.is_some(),
        stats,
        ..TokenChunk::default()
    };
    item(sequence, timestamp_us, Body::TokenChunk(chunk))
}
