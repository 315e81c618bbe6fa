//! Every field of every kind of message is there, under its name in the contract, and nothing is rounded.

use serde_json::json;

use super::*;
use crate::runs::item::Place;
use crate::wire::telemetry::{AttributeArray, AttributeMap, TokenStats};

fn item(body: Body) -> Item {
    let header = Header {
        message_id: vec![0xab, 0x01],
        timestamp_us: i64::MAX,
        tenant_id: "a".into(),
        thread_id: "t".into(),
        sequence: u64::MAX,
        r#type: MessageType::Event.into(),
        parent_id: vec![],
        compression: 1,
        schema_version: 1,
    };
    Item { place: Place { partition: 3, offset: i64::MAX, index: 2 }, record_time_ms: Some(5), header, body }
}

fn shown(of: Body) -> Value {
    let kind = of.kind();
    let shown = message(&item(of));
    assert_eq!(shown["kind"], kind);
    assert_eq!(serde_json::from_str::<Value>(&shown.to_string()).unwrap(), shown, "it is JSON");
    shown[kind].clone()
}

fn text(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn places_and_headers_are_exact() {
    let shown = message(&item(Body::Event(Event::default())));
    assert_eq!(
        (&shown["partition"], &shown["offset"], &shown["index"], &shown["record_time_ms"]),
        (&json!(3), &json!("9223372036854775807"), &json!(2), &json!("5"))
    );
    let expected = json!({
        "message_id": "ab01", "timestamp_us": "9223372036854775807", "tenant_id": "a", "thread_id": "t",
        "sequence": "18446744073709551615", "type": "MESSAGE_TYPE_EVENT", "parent_id": "",
        "compression": "COMPRESSION_TYPE_ZSTD", "schema_version": 1,
    });
    assert_eq!(shown["header"], expected);
}

#[test]
fn events_keep_every_kind_of_attribute() {
    let value = |value| AttributeValue { value: Some(value) };
    let array = AttributeArray { values: vec![value(Attribute::BoolValue(true)), AttributeValue { value: None }] };
    let map = AttributeMap { values: [("x".to_owned(), value(Attribute::FloatValue(0.1)))].into() };
    let event = Event {
        header: None,
        event_type: EventType::LlmEnd.into(),
        node_id: "n".into(),
        attributes: [
            ("s", Attribute::StringValue("ä\n".into())),
            ("i", Attribute::IntValue(i64::MIN)),
            ("f", Attribute::FloatValue(f64::NEG_INFINITY)),
            ("n", Attribute::FloatValue(f64::NAN)),
            ("b", Attribute::BytesValue(vec![0xff])),
            ("a", Attribute::ArrayValue(array)),
            ("m", Attribute::MapValue(map)),
        ]
        .map(|(name, of)| (name.to_owned(), value(of)))
        .into(),
        duration_us: -1,
        llm_request_id: "r".into(),
    };
    let expected = json!({
        "event_type": "EVENT_TYPE_LLM_END", "node_id": "n", "duration_us": "-1", "llm_request_id": "r",
        "attributes": {
            "s": {"string_value": "ä\n"}, "i": {"int_value": "-9223372036854775808"},
            "f": {"float_value": "-Infinity"}, "n": {"float_value": "NaN"}, "b": {"bytes_value": "/w=="},
            "a": {"array_value": [{"bool_value": true}, {}]}, "m": {"map_value": {"x": {"float_value": 0.1}}},
        },
    });
    assert_eq!(shown(Body::Event(event)), expected);
    let unknown = shown(Body::Event(Event { event_type: 4711, ..Event::default() }));
    assert_eq!((&unknown["event_type"], &unknown["attributes"]), (&json!(4711), &json!({})));
}

#[test]
fn state_diffs_show_their_json() {
    let operation = |op: OpType, value: &[u8], encoding: ValueEncoding| DiffOperation {
        op: op.into(),
        path: "/a".into(),
        value: value.to_vec(),
        from: "/b".into(),
        encoding: encoding.into(),
    };
    let diff = StateDiff {
        header: None,
        base_checkpoint_id: vec![1],
        operations: vec![
            operation(OpType::Replace, br#"{"x":[1]}"#, ValueEncoding::Json),
            operation(OpType::Add, b"{", ValueEncoding::Json),
            operation(OpType::Test, b"1", ValueEncoding::Raw),
            operation(OpType::Remove, b"", ValueEncoding::Json),
        ],
        state_hash: vec![2],
        full_state: b"null".to_vec(),
    };
    let expected = json!({
        "base_checkpoint_id": "01", "state_hash": "02", "full_state": null,
        "operations": [
            {"op": "REPLACE", "path": "/a", "from": "/b", "encoding": "JSON", "value": {"x": [1]}},
            {"op": "ADD", "path": "/a", "from": "/b", "encoding": "JSON", "value_base64": "ew=="},
            {"op": "TEST", "path": "/a", "from": "/b", "encoding": "RAW", "value_base64": "MQ=="},
            {"op": "REMOVE", "path": "/a", "from": "/b", "encoding": "JSON"},
        ],
    });
    assert_eq!(shown(Body::StateDiff(diff)), expected);
    let without = shown(Body::StateDiff(StateDiff::default()));
    assert!(without.get("full_state").is_none(), "what is not there is not null");
}

#[test]
fn json_that_readers_would_round_stays_bytes() {
    for (bytes, kept) in [
        ("18446744073709551615", true),
        ("-9223372036854775808", true),
        ("18446744073709551616", false),
        ("[1e300]", false),
        ("0.25", true),
        ("{\"a\":[9007199254740993]}", true),
        ("", false),
    ] {
        let found = json_text(bytes.as_bytes());
        assert_eq!(found.as_ref().map(Value::to_string), kept.then(|| bytes.to_owned()), "{bytes}");
    }
}

#[test]
fn token_chunks_are_complete() {
    let chunk = TokenChunk {
        header: None,
        request_id: "r".into(),
        text: "to".into(),
        token_ids: vec![u32::MAX],
        logprobs: vec![-0.1, f32::INFINITY],
        chunk_index: 4,
        is_final: true,
        finish_reason: FinishReason::ToolCalls.into(),
        model: "m".into(),
        stats: Some(TokenStats { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 }),
    };
    let expected = json!({
        "request_id": "r", "text": "to", "token_ids": [u32::MAX], "logprobs": [-0.1, "Infinity"], "chunk_index": 4,
        "is_final": true, "finish_reason": "FINISH_REASON_TOOL_CALLS", "model": "m",
        "stats": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    });
    assert_eq!(shown(Body::TokenChunk(chunk)), expected);
}

#[test]
fn tools_and_errors_are_complete() {
    let error = Error {
        header: None,
        error_code: "E".into(),
        message: "m".into(),
        stack_trace: "s".into(),
        context: text(&[("k", "v")]),
        severity: Severity::Fatal.into(),
        exception_type: "X".into(),
        suggestions: vec!["try".into()],
    };
    let expected = json!({
        "error_code": "E", "message": "m", "stack_trace": "s", "context": {"k": "v"}, "severity": "SEVERITY_FATAL",
        "exception_type": "X", "suggestions": ["try"],
    });
    assert_eq!(shown(Body::Error(error.clone())), expected);
    let tool = ToolExecution {
        header: None,
        call_id: "c".into(),
        tool_name: "t".into(),
        stage: ExecutionStage::Failed.into(),
        arguments: br#"{"q":1}"#.to_vec(),
        result: vec![0xff],
        error: "e".into(),
        error_details: Some(error),
        duration_us: 7,
        retry_count: 2,
    };
    let shown = shown(Body::ToolExecution(tool));
    let whole = json!({
        "call_id": "c", "tool_name": "t", "stage": "EXECUTION_STAGE_FAILED", "arguments": {"q": 1}, "result_base64": "/w==",
        "error": "e", "error_details": expected, "duration_us": "7", "retry_count": 2,
    });
    assert_eq!(shown, whole);
}

#[test]
fn checkpoints_and_metrics_are_complete() {
    let checkpoint = Checkpoint {
        header: None,
        checkpoint_id: vec![0xcd],
        state: br#"{"n":1}"#.to_vec(),
        state_type: "S".into(),
        checksum: vec![1],
        storage_uri: "u".into(),
        compression_info: Some(CompressionInfo {
            r#type: 0,
            compressed_size: u64::MAX,
            uncompressed_size: 1,
            compression_ratio: 0.1,
        }),
        metadata: text(&[("k", "v")]),
    };
    let expected = json!({
        "checkpoint_id": "cd", "state": {"n": 1}, "state_type": "S", "checksum": "01", "storage_uri": "u",
        "compression_info": {"type": "COMPRESSION_TYPE_NONE", "compressed_size": "18446744073709551615",
            "uncompressed_size": "1", "compression_ratio": 0.1},
        "metadata": {"k": "v"},
    });
    assert_eq!(shown(Body::Checkpoint(checkpoint)), expected);
    let metric = |value| MetricValue { value, unit: "ms".into(), r#type: MetricType::Gauge.into() };
    let metrics = Metrics {
        header: None,
        scope: "node".into(),
        scope_id: "n".into(),
        metrics: [
            ("i", Some(Metric::IntValue(i64::MAX))),
            ("f", Some(Metric::FloatValue(1.5))),
            ("s", Some(Metric::StringValue("x".into()))),
            ("b", Some(Metric::BoolValue(false))),
            ("y", Some(Metric::BytesValue(vec![1]))),
            ("none", None),
        ]
        .map(|(name, value)| (name.to_owned(), metric(value)))
        .into(),
        tags: text(&[("k", "v")]),
    };
    let with = |name: &str, value: Value| json!({name: value, "unit": "ms", "type": "METRIC_TYPE_GAUGE"});
    let expected = json!({
        "scope": "node", "scope_id": "n", "tags": {"k": "v"},
        "metrics": {
            "i": with("int_value", json!("9223372036854775807")), "f": with("float_value", json!(1.5)),
            "s": with("string_value", json!("x")), "b": with("bool_value", json!(false)),
            "y": with("bytes_value", json!("AQ==")), "none": {"unit": "ms", "type": "METRIC_TYPE_GAUGE"},
        },
    });
    assert_eq!(shown(Body::Metrics(metrics)), expected);
}

#[test]
fn execution_traces_are_complete() {
    let node = NodeExecutionRecord {
        node: "n".into(),
        duration_ms: u64::MAX,
        prompt_tokens: 1,
        completion_tokens: 2,
        total_tokens: 3,
        succeeded: true,
        started_at: "s".into(),
        ended_at: "e".into(),
        input: b"1".to_vec(),
        output: vec![0xff],
        metadata: text(&[("k", "v")]),
    };
    let error = ErrorRecord {
        node: "n".into(),
        message: "m".into(),
        error_code: "E".into(),
        timestamp: "w".into(),
        recovered: true,
        stack_trace: "s".into(),
    };
    let trace = ExecutionTrace {
        header: None,
        thread_id: "t".into(),
        execution_id: "x".into(),
        nodes_executed: vec![node],
        total_duration_ms: 1,
        total_tokens: 2,
        errors: vec![error],
        completed: true,
        started_at: "s".into(),
        ended_at: "e".into(),
        final_state: b"{}".to_vec(),
        metadata: [("j".to_owned(), b"\"x\"".to_vec()), ("b".to_owned(), vec![0xff])].into(),
    };
    let expected = json!({
        "thread_id": "t", "execution_id": "x", "total_duration_ms": "1", "total_tokens": "2", "completed": true,
        "started_at": "s", "ended_at": "e", "final_state": {}, "metadata": {"j": "x"}, "metadata_base64": {"b": "/w=="},
        "nodes_executed": [{"node": "n", "duration_ms": "18446744073709551615", "prompt_tokens": "1",
            "completion_tokens": "2", "total_tokens": "3", "succeeded": true, "started_at": "s", "ended_at": "e",
            "input": 1, "output_base64": "/w==", "metadata": {"k": "v"}}],
        "errors": [{"node": "n", "message": "m", "error_code": "E", "timestamp": "w", "recovered": true, "stack_trace": "s"}],
    });
    assert_eq!(shown(Body::ExecutionTrace(trace)), expected);
}

#[test]
fn a_type_is_named_as_options_take_it() {
    let event = Event { event_type: EventType::NodeEnd.into(), ..Event::default() };
    assert_eq!(type_name(&item(Body::Event(event))), "NODE_END");
    assert_eq!(type_name(&item(Body::Metrics(Metrics::default()))), "metrics");
}
