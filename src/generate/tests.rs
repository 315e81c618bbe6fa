//! Promises of the generator: repeatable, numbered, ordered, whole, and believable in shape.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use sha2::{Digest, Sha256};

use super::message::header;
use super::records::{Records, Source};
use super::*;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::tool_execution::ExecutionStage;
use crate::wire::telemetry::{DiffOperation, EventType, Header, StateDiff, diff_operation::OpType};

const EPOCH_US: i64 = 1_790_000_000_000_000;

fn generate(seed: u64, count: usize) -> Vec<(u64, Generated)> {
    let mut generator = Generator::new(GeneratorSettings { seed, ..Default::default() });
    (0..count)
        .map(|_| {
            let at_us = generator.next_at_us();
            (at_us, generator.next_message(EPOCH_US + at_us as i64).unwrap())
        })
        .collect()
}

fn numbered(message: &DashStreamMessage) -> Vec<Header> {
    match message.message.as_ref().unwrap() {
        Message::EventBatch(batch) => batch.events.iter().filter_map(|event| event.header.clone()).collect(),
        _ => header(message).into_iter().filter(|header| header.sequence > 0).cloned().collect(),
    }
}

fn event_type(message: &DashStreamMessage) -> Option<EventType> {
    match message.message.as_ref().unwrap() {
        Message::Event(event) => EventType::try_from(event.event_type).ok(),
        _ => None,
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let digest = |seed| {
        let mut hash = Sha256::new();
        for (at_us, generated) in generate(seed, 3_000) {
            hash.update(at_us.to_be_bytes());
            hash.update(generated.message.encode_to_vec());
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
    assert_eq!(digest(42), "8dc6f37079221f0b", "changed on purpose? then change this as well");
}

#[test]
fn every_thread_counts_from_one_without_a_gap_and_time_never_goes_back() {
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut last_at = 0;
    for (at_us, generated) in generate(1, 50_000) {
        assert!(at_us >= last_at);
        last_at = at_us;
        let head = header(&generated.message).unwrap();
        assert_eq!(head.thread_id, *generated.thread);
        assert_eq!(head.message_id.len(), 16);
        assert_eq!((head.message_id[6] >> 4, head.message_id[8] >> 6), (4, 2), "UUIDv4");
        assert_eq!(head.schema_version, 1);
        assert_eq!(head.timestamp_us, EPOCH_US + at_us as i64);
        for head in numbered(&generated.message) {
            let expected = next.entry(head.thread_id.clone()).or_insert(1);
            assert_eq!(head.sequence, *expected, "{}", head.thread_id);
            *expected += 1;
        }
    }
    assert!(next.len() > 50, "{} threads", next.len());
}

#[test]
fn a_producer_whose_clock_is_off_is_off_by_the_same_for_as_long_as_its_thread_lives() {
    let settings = GeneratorSettings { seed: 3, clock_skew: 0.5, ..Default::default() };
    let mut generator = Generator::new(settings);
    let (mut skews, mut next): (BTreeMap<String, i64>, BTreeMap<String, u64>) = Default::default();
    for _ in 0..20_000 {
        let sent_us = EPOCH_US + generator.next_at_us() as i64;
        let generated = generator.next_message(sent_us).unwrap();
        let head = header(&generated.message).unwrap();
        let skew = head.timestamp_us - sent_us;
        assert_eq!(*skews.entry(head.thread_id.clone()).or_insert(skew), skew, "{}", head.thread_id);
        for head in numbered(&generated.message) {
            let expected = next.entry(head.thread_id.clone()).or_insert(1);
            assert_eq!(head.sequence, *expected, "its numbers do not depend on its clock");
            *expected += 1;
        }
    }
    let of = |range: std::ops::RangeInclusive<i64>| skews.values().filter(|skew| range.contains(skew)).count();
    let (behind, right, ahead) = (of(-600_000_000..=-1), of(0..=0), of(1..=600_000_000));
    assert_eq!(behind + right + ahead, skews.len());
    assert!(behind > 3 && right > 3 && ahead > 3, "{behind} behind, {right} right, {ahead} ahead");
}

#[test]
fn everything_that_producers_send_comes_up() {
    let (mut kinds, mut events, mut stages) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut tenants = BTreeSet::new();
    let mut traces = [0, 0];
    for (_, generated) in generate(3, 60_000) {
        let head = header(&generated.message).unwrap();
        kinds.insert(head.r#type);
        tenants.insert(head.tenant_id.clone());
        events.extend(event_type(&generated.message).map(|kind| kind as i32));
        match generated.message.message.unwrap() {
            Message::ToolExecution(tool) => drop(stages.insert(tool.stage)),
            Message::ExecutionTrace(trace) => traces[usize::from(trace.completed)] += 1,
            _ => {}
        }
    }
    assert_eq!(kinds, (1..=9).collect());
    assert_eq!(stages, (ExecutionStage::Requested as i32..=ExecutionStage::Retrying as i32).collect());
    assert_eq!(tenants.len(), 3);
    assert!(traces[0] > 0 && traces[1] > traces[0] * 3, "failed and completed runs: {traces:?}");
    let never = [EventType::CheckpointSave, EventType::CheckpointLoad, EventType::CheckpointDelete];
    for kind in (0..=91).filter_map(|number| EventType::try_from(number).ok()) {
        let batched = [EventType::Unspecified, EventType::NodeSubstep];
        let optimizer = [EventType::OptimizationStart, EventType::OptimizationEnd];
        let absent = [&never[..], &batched[..], &optimizer[..]].concat();
        assert_eq!(events.contains(&(kind as i32)), !absent.contains(&kind), "{kind:?}");
    }
}

/// Applies a patch the way a reader must, with code of its own.
fn apply(state: &mut serde_json::Value, diff: &StateDiff) {
    if !diff.full_state.is_empty() {
        *state = serde_json::from_slice(&diff.full_state).unwrap();
        return;
    }
    for DiffOperation { op, path, value, .. } in &diff.operations {
        let (parent, last) = path.rsplit_once('/').unwrap();
        let parent = state.pointer_mut(parent).unwrap();
        let value = || serde_json::from_slice(value).unwrap();
        match (OpType::try_from(*op).unwrap(), parent) {
            (OpType::Remove, serde_json::Value::Object(object)) => drop(object.remove(last).unwrap()),
            (_, serde_json::Value::Object(object)) => drop(object.insert(last.to_owned(), value())),
            (OpType::Add, serde_json::Value::Array(list)) => list.insert(last.parse().unwrap(), value()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn diffs_and_checkpoints_rebuild_the_state_and_match_its_hash() {
    let mut states: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    let mut checkpoints: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut diffs, mut full, mut compressed) = (0, 0, 0);
    for (_, generated) in generate(5, 30_000) {
        let thread = generated.thread.to_string();
        match generated.message.message.unwrap() {
            Message::Event(event) if event.event_type == EventType::GraphStart as i32 => {
                let Some(crate::wire::telemetry::attribute_value::Value::StringValue(initial)) =
                    event.attributes["initial_state_json"].value.clone()
                else {
                    panic!("no initial state")
                };
                states.insert(thread.clone(), serde_json::from_str(&initial).unwrap());
                checkpoints.remove(&thread);
                for name in ["graph_manifest", "graph_schema_json"] {
                    let Some(crate::wire::telemetry::attribute_value::Value::StringValue(text)) =
                        event.attributes[name].value.clone()
                    else {
                        panic!("no {name}")
                    };
                    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
                }
            }
            Message::StateDiff(diff) => {
                let state = states.get_mut(&thread).unwrap();
                apply(state, &diff);
                assert_eq!(Sha256::digest(state.to_string()).to_vec(), diff.state_hash);
                assert_eq!(diff.base_checkpoint_id, checkpoints.get(&thread).cloned().unwrap_or_default());
                diffs += 1;
                full += usize::from(!diff.full_state.is_empty());
            }
            Message::Checkpoint(checkpoint) => {
                let state = match checkpoint.compression_info {
                    Some(info) => {
                        compressed += 1;
                        assert_eq!(info.compressed_size, checkpoint.state.len() as u64);
                        zstd::bulk::decompress(&checkpoint.state, usize::try_from(info.uncompressed_size).unwrap())
                            .unwrap()
                    }
                    None => checkpoint.state,
                };
                assert_eq!(Sha256::digest(&state).to_vec(), checkpoint.checksum);
                assert_eq!(String::from_utf8(state).unwrap(), states[&thread].to_string());
                checkpoints.insert(thread, checkpoint.checkpoint_id);
            }
            _ => {}
        }
    }
    assert!(diffs > 500 && compressed > 100, "{diffs} diffs, {full} full, {compressed} compressed");
}

#[test]
fn token_chunks_of_a_request_run_from_zero_to_one_final_with_stats() {
    let mut chunks: BTreeMap<String, u32> = BTreeMap::new();
    let mut finished = BTreeSet::new();
    for (_, generated) in generate(6, 20_000) {
        let Some(Message::TokenChunk(chunk)) = generated.message.message else { continue };
        let next = chunks.entry(chunk.request_id.clone()).or_default();
        assert_eq!(chunk.chunk_index, *next);
        *next += 1;
        assert!(!finished.contains(&chunk.request_id) && !chunk.text.is_empty());
        assert_eq!(chunk.is_final, chunk.stats.is_some());
        if chunk.is_final {
            let stats = chunk.stats.unwrap();
            assert_eq!(stats.total_tokens, stats.prompt_tokens + stats.completion_tokens);
            finished.insert(chunk.request_id);
        }
    }
    assert!(finished.len() > 100);
}

#[test]
fn started_nodes_end_and_runs_end_with_a_trace() {
    let mut open: BTreeMap<String, BTreeMap<String, i32>> = BTreeMap::new();
    let mut traces = 0;
    for (_, generated) in generate(9, 30_000) {
        let thread = generated.thread.to_string();
        match (event_type(&generated.message), generated.message.message.unwrap()) {
            (Some(EventType::GraphStart), _) => {
                assert!(open.insert(thread.clone(), BTreeMap::new()).is_none(), "{thread} was still running");
            }
            (Some(EventType::NodeStart), Message::Event(event)) => {
                *open.get_mut(&thread).unwrap().entry(event.node_id).or_default() += 1;
            }
            (Some(EventType::NodeEnd | EventType::NodeError), Message::Event(event)) => {
                *open.get_mut(&thread).unwrap().get_mut(&event.node_id).unwrap() -= 1;
            }
            (_, Message::ExecutionTrace(trace)) => {
                let nodes = open.remove(&thread).unwrap();
                assert!(nodes.values().all(|running| *running == 0), "{nodes:?}");
                assert_eq!(trace.thread_id, thread);
                assert!(trace.completed || !trace.errors.is_empty());
                assert!(trace.started_at.starts_with("2026-") && trace.ended_at > trace.started_at);
                traces += 1;
            }
            _ => {}
        }
    }
    assert!(traces > 50, "{traces} runs ended");
}

#[test]
fn records_are_of_the_size_that_producers_send() {
    let source = Source::Runs { generator: GeneratorSettings::default(), defects: Default::default() };
    let mut records = Records::new(&source).unwrap();
    let mut sizes = Vec::new();
    let mut framings = [0, 0];
    for _ in 0..20_000 {
        let at_us = records.next_at_us();
        let value = records.next_record(EPOCH_US + at_us as i64).unwrap().value.unwrap();
        framings[usize::from(value[0])] += 1;
        sizes.push(value.len());
    }
    sizes.sort_unstable();
    assert!(sizes[0] > 60 && sizes[10_000] < 512 && sizes[19_999] < 16_384, "{} {}", sizes[0], sizes[19_999]);
    assert!(framings[0] > 0 && framings[1] > 500, "{framings:?}");
}
