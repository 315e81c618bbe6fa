//! A message in one line: when, whose, what, how long, and a hint of what it says.
//!
//! It must not know the terminal: texts are as they came, to be escaped and cut by whoever shows them.

use time::OffsetDateTime;

use super::item::{Body, Item};
use super::json::{hex, json_text, type_name};
use crate::wire::telemetry::attribute_value::Value as Attribute;
use crate::wire::telemetry::diff_operation::OpType;
use crate::wire::telemetry::error::Severity;
use crate::wire::telemetry::metric_value::Value as Metric;
use crate::wire::telemetry::token_chunk::FinishReason;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{AttributeValue, Event, EventType, Metrics, StateDiff, ToolExecution};

/// Attributes that say what went wrong or what is being done, before all others.
const TELLING: [&str; 8] =
    ["error", "error_message", "message", "thought", "substep_name", "tool_name", "model", "next"];
/// How many attributes, operations or metrics a hint names.
const NAMED: usize = 4;
/// Longer texts in a hint are cut here already.
const HINT_CHARS: usize = 200;

/// The time of a message in Unix microseconds: its producer's; where it says none, that of its record.
pub fn time_us(item: &Item) -> Option<i64> {
    let own = Some(item.header.timestamp_us).filter(|time| *time != 0);
    own.or_else(|| item.record_time_ms.and_then(|time| time.checked_mul(1_000)))
}

/// RFC 3339 in UTC, always with milliseconds, so that lines are aligned. `-` for a time out of the calendar.
pub fn clock(unix_us: Option<i64>) -> String {
    let time = unix_us.and_then(|us| OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000).ok());
    let Some(time) = time.filter(|time| (0..=9_999).contains(&time.year())) else { return "-".to_owned() };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// `PARTITION:OFFSET`, for an event of a batch but the first with its number in it.
pub fn place(item: &Item) -> String {
    let place = item.place;
    let number = if place.index > 0 { format!("#{}", place.index) } else { String::new() };
    format!("{}:{}{number}", place.partition, place.offset)
}

/// How long something took, in the unit that fits.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn duration(us: i64) -> String {
    match us.unsigned_abs() {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.2}s", us as f64 / 1e6),
    }
}

/// How long what the message tells of took, in microseconds; `None`: it does not say.
pub fn duration_us(item: &Item) -> Option<i64> {
    let us = match &item.body {
        Body::Event(event) => event.duration_us,
        Body::ToolExecution(tool) => tool.duration_us,
        Body::ExecutionTrace(trace) => i64::try_from(trace.total_duration_ms.saturating_mul(1_000)).unwrap_or(i64::MAX),
        _ => 0,
    };
    (us != 0).then_some(us)
}

/// What the message is: its type, of a tool with the stage.
pub fn what(item: &Item) -> String {
    match &item.body {
        Body::ToolExecution(tool) => match ExecutionStage::try_from(tool.stage) {
            Ok(ExecutionStage::Unspecified) | Err(_) => type_name(item),
            Ok(stage) => {
                format!(
                    "{}:{}",
                    type_name(item),
                    stage.as_str_name().trim_start_matches("EXECUTION_STAGE_").to_lowercase()
                )
            }
        },
        _ => type_name(item),
    }
}

/// Who it is about: a node, a tool, a model; empty when it does not say.
pub fn subject(item: &Item) -> &str {
    match &item.body {
        Body::Event(event) if event.node_id.is_empty() => text_of(event, "tool_name").unwrap_or_default(),
        Body::Event(event) => &event.node_id,
        Body::TokenChunk(chunk) => &chunk.model,
        Body::ToolExecution(tool) => &tool.tool_name,
        Body::Checkpoint(checkpoint) => &checkpoint.state_type,
        Body::Metrics(metrics) if metrics.scope_id.is_empty() => &metrics.scope,
        Body::Metrics(metrics) => &metrics.scope_id,
        Body::Error(error) => &error.exception_type,
        Body::StateDiff(_) => "",
        Body::ExecutionTrace(trace) => &trace.execution_id,
    }
}

/// Whether the message tells that something failed.
pub fn is_error(item: &Item) -> bool {
    match &item.body {
        Body::Event(event) => matches!(
            EventType::try_from(event.event_type),
            Ok(EventType::GraphError | EventType::NodeError | EventType::LlmError | EventType::ToolError)
        ),
        Body::Error(error) => {
            !matches!(Severity::try_from(error.severity), Ok(Severity::Debug | Severity::Info | Severity::Warning))
        }
        Body::ToolExecution(tool) => tool.stage == i32::from(ExecutionStage::Failed),
        _ => false,
    }
}

/// A short hint of what it says; may be empty.
pub fn hint(item: &Item) -> String {
    let hint = match &item.body {
        Body::Event(event) => of_event(event),
        Body::StateDiff(diff) => of_state_diff(diff),
        Body::TokenChunk(chunk) => {
            let reason = FinishReason::try_from(chunk.finish_reason).unwrap_or(FinishReason::None);
            let end = reason.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase();
            let end = if chunk.is_final { format!(" (final: {end})") } else { String::new() };
            format!("{:?}{end}", cut(&chunk.text))
        }
        Body::ToolExecution(tool) => of_tool(tool),
        Body::Checkpoint(checkpoint) => {
            format!("{} ({} bytes)", hex(&checkpoint.checkpoint_id), checkpoint.state.len())
        }
        Body::Metrics(metrics) => of_metrics(metrics),
        Body::Error(error) => {
            let severity = Severity::try_from(error.severity).unwrap_or(Severity::Unspecified);
            let severity = severity.as_str_name().trim_start_matches("SEVERITY_").to_lowercase();
            let parts = [severity.as_str(), &error.error_code, &error.message];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        }
        Body::ExecutionTrace(trace) => {
            let outcome = if trace.completed { "completed" } else { "not completed" };
            let (nodes, errors) = (trace.nodes_executed.len(), trace.errors.len());
            format!("{outcome}, {nodes} nodes, {errors} errors, {} tokens", trace.total_tokens)
        }
    };
    cut(&hint).to_owned()
}

fn of_event(event: &Event) -> String {
    let telling = TELLING.iter().filter_map(|name| event.attributes.get_key_value(*name));
    let others = event.attributes.iter().filter(|(name, _)| !TELLING.contains(&name.as_str()));
    let named: Vec<String> = telling
        .chain(others)
        .filter_map(|(name, value)| Some(format!("{name}={}", attribute(value)?)))
        .take(NAMED)
        .collect();
    named.join(" ")
}

/// A plain value; lists and maps by their size.
fn attribute(value: &AttributeValue) -> Option<String> {
    Some(match value.value.as_ref()? {
        Attribute::StringValue(text) => cut(text).to_owned(),
        Attribute::IntValue(number) => number.to_string(),
        Attribute::FloatValue(number) => number.to_string(),
        Attribute::BoolValue(value) => value.to_string(),
        Attribute::BytesValue(bytes) => format!("({} bytes)", bytes.len()),
        Attribute::ArrayValue(array) => format!("[{}]", array.values.len()),
        Attribute::MapValue(map) => format!("{{{}}}", map.values.len()),
    })
}

fn text_of<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    match event.attributes.get(name)?.value.as_ref()? {
        Attribute::StringValue(text) => Some(text),
        _ => None,
    }
}

fn of_state_diff(diff: &StateDiff) -> String {
    let full = (!diff.full_state.is_empty()).then(|| format!("full state, {} bytes", diff.full_state.len()));
    let named = diff.operations.iter().take(NAMED).map(|operation| {
        let op = OpType::try_from(operation.op).map_or("?", |known| known.as_str_name()).to_lowercase();
        format!("{op} {}", operation.path)
    });
    let more = diff.operations.len().saturating_sub(NAMED);
    let more = (more > 0).then(|| format!("{more} more"));
    full.into_iter().chain(named).chain(more).collect::<Vec<_>>().join(", ")
}

fn of_tool(tool: &ToolExecution) -> String {
    if !tool.error.is_empty() {
        return tool.error.clone();
    }
    let (name, bytes) = if tool.result.is_empty() { ("", &tool.arguments) } else { ("→ ", &tool.result) };
    let shown = json_text(bytes).map(|json| json.to_string());
    let shown =
        shown.unwrap_or_else(|| if bytes.is_empty() { String::new() } else { format!("({} bytes)", bytes.len()) });
    if shown.is_empty() { shown } else { format!("{name}{}", cut(&shown)) }
}

fn of_metrics(metrics: &Metrics) -> String {
    let value = |value: &Metric| match value {
        Metric::IntValue(number) => number.to_string(),
        Metric::FloatValue(number) => number.to_string(),
        Metric::StringValue(text) => cut(text).to_owned(),
        Metric::BoolValue(value) => value.to_string(),
        Metric::BytesValue(bytes) => format!("({} bytes)", bytes.len()),
    };
    let named = metrics
        .metrics
        .iter()
        .filter_map(|(name, metric)| Some(format!("{name}={}{}", value(metric.value.as_ref()?), cut(&metric.unit))));
    named.take(NAMED).collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, never within a character.
fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(HINT_CHARS).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::item::Place;
    use crate::wire::telemetry::{Checkpoint, DiffOperation, Error, ExecutionTrace, Header, MetricValue, TokenChunk};

    fn item(body: Body) -> Item {
        Item { place: Place::default(), record_time_ms: Some(1), header: Header::default(), body }
    }

    fn event(attributes: &[(&str, Attribute)]) -> Body {
        let attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), AttributeValue { value: Some(value.clone()) }));
        Body::Event(Event { attributes: attributes.collect(), ..Event::default() })
    }

    #[test]
    fn times_are_those_of_the_producer_with_milliseconds() {
        let mut of = item(event(&[]));
        assert_eq!(clock(time_us(&of)), "1970-01-01T00:00:00.001Z");
        of.header.timestamp_us = 1_769_860_800_120_999;
        assert_eq!(clock(time_us(&of)), "2026-01-31T12:00:00.120Z");
        for outside in [Some(i64::MAX), Some(i64::MIN), None] {
            assert_eq!(clock(outside), "-");
        }
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        let shown = [0, 999, 1_500, 59_940, 1_500_000, -7].map(duration);
        assert_eq!(shown, ["0us", "999us", "1.5ms", "59.9ms", "1.50s", "-7us"]);
        assert_eq!(duration(i64::MIN), "-9223372036854.78s");
        let trace = ExecutionTrace { total_duration_ms: u64::MAX, ..ExecutionTrace::default() };
        assert_eq!(duration_us(&item(Body::ExecutionTrace(trace))), Some(i64::MAX));
        assert_eq!(duration_us(&item(event(&[]))), None);
    }

    #[test]
    fn events_of_a_batch_have_places_of_their_own() {
        let mut of = item(event(&[]));
        of.place = Place { partition: 3, offset: 17, index: 0 };
        assert_eq!(place(&of), "3:17");
        of.place.index = 2;
        assert_eq!(place(&of), "3:17#2");
    }

    #[test]
    fn a_hint_begins_with_what_tells_most_and_is_bounded() {
        let text = |text: &str| Attribute::StringValue(text.to_owned());
        let hint_of = |body| hint(&item(body));
        let all = [
            ("a", Attribute::IntValue(1)),
            ("b", Attribute::BytesValue(vec![1, 2])),
            ("c", Attribute::BoolValue(true)),
            ("d", Attribute::BoolValue(true)),
            ("error", text("timeout")),
        ];
        assert_eq!(hint_of(event(&all)), "error=timeout a=1 b=(2 bytes) c=true");
        assert_eq!(hint_of(event(&[("x", text(&"ä".repeat(10_000)))])).chars().count(), HINT_CHARS);
        assert_eq!(hint_of(event(&[])), "");
        let chunk = TokenChunk { text: "a\nb".into(), is_final: true, finish_reason: 1, ..TokenChunk::default() };
        assert_eq!(hint_of(Body::TokenChunk(chunk)), "\"a\\nb\" (final: stop)");
        let operation = |op: OpType| DiffOperation { op: op.into(), path: "/a".into(), ..DiffOperation::default() };
        let operations = [OpType::Add, OpType::Remove, OpType::Add, OpType::Add, OpType::Add].map(operation).to_vec();
        let diff = StateDiff { operations, full_state: b"{}".to_vec(), ..StateDiff::default() };
        assert_eq!(hint_of(Body::StateDiff(diff)), "full state, 2 bytes, add /a, remove /a, add /a, add /a, 1 more");
        let error = Error { error_code: "E1".into(), message: "broken".into(), severity: 4, ..Error::default() };
        assert_eq!(hint_of(Body::Error(error)), "error E1 broken");
        let checkpoint = Checkpoint { checkpoint_id: vec![0xab], state: vec![0; 3], ..Checkpoint::default() };
        assert_eq!(hint_of(Body::Checkpoint(checkpoint)), "ab (3 bytes)");
        let cost = MetricValue { value: Some(Metric::FloatValue(0.5)), unit: "usd".into(), ..MetricValue::default() };
        let metrics = Metrics { metrics: [("cost".to_owned(), cost)].into(), ..Metrics::default() };
        assert_eq!(hint_of(Body::Metrics(metrics)), "cost=0.5usd");
        assert_eq!(
            hint_of(Body::ExecutionTrace(ExecutionTrace::default())),
            "not completed, 0 nodes, 0 errors, 0 tokens"
        );
    }

    #[test]
    fn tools_show_their_stage_and_their_error_or_result() {
        let of = |stage: ExecutionStage, result: &[u8], error: &str| {
            item(Body::ToolExecution(ToolExecution {
                tool_name: "search".into(),
                stage: stage.into(),
                arguments: b"{}".to_vec(),
                result: result.to_vec(),
                error: error.into(),
                ..ToolExecution::default()
            }))
        };
        let failed = of(ExecutionStage::Failed, b"1", "no answer");
        assert_eq!(
            (what(&failed), subject(&failed), hint(&failed)),
            ("tool_execution:failed".into(), "search", "no answer".into())
        );
        assert_eq!(hint(&of(ExecutionStage::Completed, b"[1]", "")), "→ [1]");
        assert_eq!(hint(&of(ExecutionStage::Completed, &[0xff], "")), "→ (1 bytes)");
        assert_eq!(hint(&of(ExecutionStage::Started, b"", "")), "{}");
        assert_eq!(what(&of(ExecutionStage::Unspecified, b"", "")), "tool_execution");
        assert!(is_error(&failed) && !is_error(&of(ExecutionStage::Started, b"", "")));
    }

    #[test]
    fn what_failed_is_told_from_what_only_warns() {
        let of_type = |event_type: EventType| {
            is_error(&item(Body::Event(Event { event_type: event_type.into(), ..Event::default() })))
        };
        assert!(
            [EventType::GraphError, EventType::NodeError, EventType::LlmError, EventType::ToolError].map(of_type)
                == [true; 4]
        );
        assert!(!of_type(EventType::NodeWarning) && !of_type(EventType::LlmRetry));
        let of_severity = |severity: i32| is_error(&item(Body::Error(Error { severity, ..Error::default() })));
        assert_eq!([0, 1, 2, 3, 4, 5].map(of_severity), [true, false, false, false, true, true]);
    }
}
