//! Every call is counted once, whoever tells of it.

use super::super::make;
use super::*;
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::metric_value::Value as MetricKind;
use crate::wire::telemetry::{MetricValue, NodeExecutionRecord};

fn entries(items: &[Item]) -> Vec<Entry> {
    let mut costs = Costs::default();
    items.iter().for_each(|item| costs.add(item).unwrap());
    costs.entries()
}

fn all(entries: &[Entry]) -> Tokens {
    entries.iter().filter_map(Entry::tokens).fold(Tokens::default(), |sum, (tokens, _)| sum.plus(tokens))
}

fn counted(item: Item, input: i64, output: i64) -> Item {
    let item = make::attribute(item, "prompt_tokens", Value::IntValue(input));
    make::attribute(item, "completion_tokens", Value::IntValue(output))
}

fn end(sequence: u64, request: &str, node: &str) -> Item {
    make::text(make::request(make::event(sequence, 10, EventType::LlmEnd, node), request), "model", "m")
}

fn start(sequence: u64, request: &str, node: &str) -> Item {
    let item = make::request(make::event(sequence, 5, EventType::LlmStart, node), request);
    make::attribute(item, "prompt_tokens", Value::IntValue(999))
}

fn metrics(sequence: u64, node: &str, input: i64, output: i64) -> Item {
    let value = |number| MetricValue { value: Some(MetricKind::IntValue(number)), ..MetricValue::default() };
    let cost = MetricValue { value: Some(MetricKind::FloatValue(0.5)), ..MetricValue::default() };
    let metrics = BTreeMap::from([
        ("tokens_prompt".to_owned(), value(input)),
        ("tokens_completion".to_owned(), value(output)),
        ("tokens_total".to_owned(), value(input + output)),
        ("cost_usd".to_owned(), cost),
    ]);
    let metrics = Metrics { scope: "node".to_owned(), scope_id: node.to_owned(), metrics, ..Metrics::default() };
    make::item(sequence, 20, Body::Metrics(metrics))
}

fn trace(nodes: &[(&str, u64, u64)], total_tokens: u64) -> Item {
    let record = |(node, prompt_tokens, completion_tokens): &(&str, u64, u64)| NodeExecutionRecord {
        node: (*node).to_owned(),
        prompt_tokens: *prompt_tokens,
        completion_tokens: *completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        ..NodeExecutionRecord::default()
    };
    let nodes_executed = nodes.iter().map(record).collect();
    make::item(0, 30, Body::ExecutionTrace(ExecutionTrace { nodes_executed, total_tokens, ..Default::default() }))
}

#[test]
fn four_messages_about_one_call_are_one_call() {
    let found = entries(&[
        start(1, "r", "a"),
        make::chunk(2, 6, "r", None),
        make::chunk(3, 7, "r", Some((100, 5))),
        counted(end(4, "r", "a"), 100, 5),
        metrics(5, "a", 100, 5),
        trace(&[("a", 100, 5)], 105),
    ]);
    assert_eq!(all(&found), Tokens { input: 100, output: 5, ..Tokens::default() });
    let calls: Vec<_> = found.iter().filter(|entry| entry.told.is_counted()).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].whose.node.as_str(), calls[0].whose.model.as_str()), ("a", "m"));
    // The cost that only the metrics tell is not lost.
    let cost: Vec<String> = found.iter().filter_map(|entry| Some(entry.told.cost?.to_string())).collect();
    assert_eq!(cost, ["0.50"]);
}

#[test]
fn each_source_counts_where_no_nearer_one_does() {
    let by_chunk = entries(&[make::chunk(1, 6, "r", Some((10, 2))), trace(&[("a", 10, 2)], 12)]);
    assert_eq!((all(&by_chunk).all(), by_chunk.len()), (12, 1));
    let by_metrics = entries(&[start(1, "r", "a"), metrics(2, "a", 10, 2), trace(&[("a", 10, 2), ("b", 1, 1)], 14)]);
    assert_eq!(all(&by_metrics).all(), 14);
    assert_eq!(by_metrics.iter().map(|entry| entry.source).collect::<Vec<_>>(), [Source::Metrics, Source::Trace]);
    let by_total = entries(&[trace(&[], 77)]);
    assert_eq!(all(&by_total), Tokens { unsplit: 77, ..Tokens::default() });
}

#[test]
fn calls_that_nobody_counted_are_unknown_and_a_plan_is_no_count() {
    let found = entries(&[start(1, "r", "a"), end(2, "s", "b"), make::event(3, 1, EventType::LlmRetry, "a")]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|entry| entry.tokens().is_none()));
}

#[test]
fn repeated_sends_are_counted_once() {
    let bare = |item| make::request(item, "");
    let items = [
        counted(end(1, "r", "a"), 10, 1),
        bare(start(2, "", "b")),
        bare(counted(end(3, "", "b"), 20, 2)),
        bare(counted(end(4, "", "b"), 40, 4)),
        metrics(5, "c", 80, 8),
        trace(&[("d", 160, 16)], 176),
    ];
    let found = entries(&items.iter().flat_map(|item| [item.clone(), item.clone()]).collect::<Vec<_>>());
    assert_eq!((all(&found).input, all(&found).output), (310, 31));
    assert_eq!(found.len(), 5);
}

#[test]
fn the_same_request_in_two_threads_is_two_calls() {
    let one = counted(end(1, "r", "a"), 10, 1);
    let mut other = counted(end(1, "r", "a"), 10, 1);
    other.header.thread_id = "u".to_owned();
    let found = entries(&[one, other]);
    assert_eq!((found.len(), all(&found).all()), (2, 22));
}

#[test]
fn the_generated_runs_cost_what_their_calls_ended_with() {
    use crate::generate::{Generator, GeneratorSettings};
    use crate::pipeline::decode::JudgeSettings;
    use prost::Message as _;
    let mut generator = Generator::new(GeneratorSettings::default());
    let mut opener = super::super::item::Opener::new(JudgeSettings::default());
    let (mut items, mut expected, mut calls) = (Vec::new(), 0, 0);
    for offset in 0..6_000 {
        let at = 1_000_000 + generator.next_at_us().cast_signed();
        let made = generator.next_message(at).unwrap();
        let value = [vec![0], made.message.encode_to_vec()].concat();
        opener.open((0, offset), None, Some(&value), &mut items).unwrap();
    }
    for item in &items {
        if let Body::Event(event) = &item.body
            && event.event_type == EventType::LlmEnd as i32
        {
            let count = |name: &str| match event.attributes[name].value {
                Some(Value::IntValue(number)) => number.unsigned_abs(),
                _ => panic!("{name}"),
            };
            expected += count("prompt_tokens") + count("completion_tokens");
            calls += 1;
        }
    }
    let found = entries(&items);
    let of_calls: Vec<_> = found.into_iter().filter(|entry| entry.told.cost.is_some()).collect();
    assert!(calls > 20 && of_calls.len() == calls, "{calls} {}", of_calls.len());
    assert_eq!(all(&of_calls).all(), expected);
}
