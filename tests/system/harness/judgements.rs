//! Judgements of quality as producers in the field write them.

use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::metric_value::Value;
use dashstream::wire::telemetry::{DashStreamMessage, Header, MessageType, MetricValue, Metrics};
use prost::Message as _;

use super::records::{Expect, Outgoing};

/// A judgement with an id of its own. A number is written as it is given: with a fraction or whole.
pub fn judgement(thread: &str, values: &[(&str, Value)], tags: &[(&str, &str)]) -> Outgoing {
    of_scope("quality", thread, values, tags)
}

/// Measurements of any scope.
pub fn of_scope(scope: &str, thread: &str, values: &[(&str, Value)], tags: &[(&str, &str)]) -> Outgoing {
    let value = |value: &Value| MetricValue { value: Some(value.clone()), ..MetricValue::default() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let metrics = Metrics {
        header: Some(Header {
            message_id: fastrand::u128(1..).to_le_bytes().to_vec(),
            timestamp_us: i64::try_from(now.as_micros()).expect("before the year 290,000"),
            tenant_id: "acme".into(),
            thread_id: thread.into(),
            r#type: MessageType::Metrics.into(),
            schema_version: 1,
            ..Header::default()
        }),
        scope: scope.into(),
        metrics: values.iter().map(|(name, found)| ((*name).to_owned(), value(found))).collect(),
        tags: tags.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect(),
        ..Metrics::default()
    };
    let message = DashStreamMessage { message: Some(Message::Metrics(metrics)) };
    let value = [vec![0x00], message.encode_to_vec()].concat();
    Outgoing::new(thread, Some(value), Expect::Record)
}

/// A judgement that says no more than that it is one.
pub fn bare(thread: &str) -> Outgoing {
    judgement(thread, &[], &[])
}

/// Judgements of a round of which every family of the exporter has something to count.
pub fn of_every_kind(round: u64) -> Vec<Outgoing> {
    let thread = format!("thread-{round}");
    let values = |passed: bool| {
        [
            ("quality_score", Value::FloatValue(0.75)),
            ("accuracy", Value::FloatValue(0.8)),
            ("relevance", Value::FloatValue(0.7)),
            ("completeness", Value::FloatValue(0.75)),
            ("passed", Value::BoolValue(passed)),
            ("latency_ms", Value::IntValue(120)),
            ("retry_count", Value::IntValue(1)),
            ("turn_number", Value::IntValue(2)),
        ]
    };
    let tags =
        [("model", "gpt-4o"), ("category", "Complex"), ("application_type", "librarian"), ("low_relevance", "true")];
    vec![judgement(&thread, &values(true), &tags), judgement(&thread, &values(false), &tags), bare(&thread)]
}
