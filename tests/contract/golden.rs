//! The golden files: what the service writes is what they say, and what they say is what it reads.

use std::path::{Path, PathBuf};

use dashstream::pipeline::decode::{Judge, JudgeSettings, Verdict};
use dashstream::wire::close_code::CloseCode;
use dashstream::wire::control::{
    self, Begin, Complete, Dialect, ErrorCode, FrameError, From, Progress, ResetReason, Welcome,
};
use dashstream::wire::stream::{FindingKind, Frame, GapReason, SkipReason};
use dashstream::wire::stream_frame::{FindingItem, FrameBuilder};
use dashstream::wire::telemetry::{self, dash_stream_message::Message};
use prost::Message as _;
use serde_json::{Map, Value, json};

const BEYOND_DOUBLES: i64 = (1 << 53) + 1;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/golden").join(name)
}

/// Compares with the file, or writes it.
fn golden(name: &str, bytes: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path(name), bytes).unwrap();
    }
    let file = std::fs::read(path(name)).unwrap_or_default();
    assert!(file == bytes, "proto/golden/{name} differs from what the service writes (UPDATE_GOLDEN=1 rewrites it)");
}

fn golden_json(name: &str, value: &Value) {
    golden(name, format!("{value:#}\n").as_bytes());
}

fn event(thread: &str, sequence: u64) -> telemetry::Event {
    telemetry::Event {
        header: Some(telemetry::Header {
            message_id: (0..16).collect(),
            timestamp_us: 1_790_000_000_000_001,
            tenant_id: "tenant-a".into(),
            thread_id: thread.into(),
            sequence,
            r#type: telemetry::MessageType::Event.into(),
            schema_version: 1,
            ..Default::default()
        }),
        event_type: telemetry::EventType::NodeStart.into(),
        node_id: "plan".into(),
        ..Default::default()
    }
}

fn plain_event() -> Vec<u8> {
    let message = telemetry::DashStreamMessage { message: Some(Message::Event(event("thread-1", 7))) };
    [&[0][..], &message.encode_to_vec()].concat()
}

fn zstd_batch() -> Vec<u8> {
    let batch = telemetry::EventBatch { header: None, events: vec![event("thread-1", 8), event("thread-2", 1)] };
    let message = telemetry::DashStreamMessage { message: Some(Message::EventBatch(batch)) };
    [&[1][..], &zstd::bulk::compress(&message.encode_to_vec(), 3).unwrap()].concat()
}

#[test]
fn a_frame_with_every_kind_of_item() {
    let first = BEYOND_DOUBLES;
    let mut builder = FrameBuilder::new();
    let finding = FindingItem { kind: FindingKind::Gap, event_index: 0, expected: 5, found: 7 };
    builder.gap(first, first + 3, GapReason::Retention);
    builder.record(first + 3, 1_790_000_000_001, &plain_event(), &[finding]);
    builder.skip(first + 4, first + 6, SkipReason::NoRecord);
    builder.skip(first + 6, first + 7, SkipReason::InvalidProtobuf);
    builder.record(first + 7, 0, &zstd_batch(), &[]);
    let sealed = builder.seal(3, first, first + 8);
    let payload = &sealed.message[4..];
    assert_eq!(sealed.message[1], 126, "the example is longer than 125 bytes");
    golden("frame.bin", payload);
    let frame = Frame::decode(payload).unwrap();
    let text = |offset: i64| offset.to_string();
    let said = json!({
        "partition": frame.partition,
        "firstOffset": text(frame.first_offset),
        "nextOffset": text(frame.next_offset),
        "items": [
            {"kind": "gap", "firstOffset": text(first), "nextOffset": text(first + 3), "reason": "retention"},
            {"kind": "record", "offset": text(first + 3), "timestampMs": "1790000000001", "file": "record_plain_event.bin",
             "findings": [{"kind": "gap", "eventIndex": 0, "expected": "5", "found": "7"}]},
            {"kind": "skip", "firstOffset": text(first + 4), "nextOffset": text(first + 6), "reason": "no_record"},
            {"kind": "skip", "firstOffset": text(first + 6), "nextOffset": text(first + 7), "reason": "invalid_protobuf"},
            {"kind": "record", "offset": text(first + 7), "timestampMs": "0", "file": "record_zstd_batch.bin", "findings": []},
        ],
    });
    golden_json("frame.json", &said);
}

#[test]
fn record_values_are_delivered_as_they_are() {
    for (name, value, items) in
        [("record_plain_event.bin", plain_event(), 1), ("record_zstd_batch.bin", zstd_batch(), 2)]
    {
        golden(name, &value);
        let mut found = Vec::new();
        let verdict = Judge::new(JudgeSettings::default(), 1).judge(Some(&value), &mut found);
        assert!(matches!(verdict, Verdict::Deliver(_)), "{name}: {verdict:?}");
        assert_eq!(found.len(), items, "{name}");
    }
}

#[test]
fn every_text_frame_of_the_server() {
    let offset = BEYOND_DOUBLES;
    let welcome = Welcome {
        session: 1,
        epoch: "cluster/topic/id",
        topic: "topic",
        resume_namespace: "v2_abc",
        heartbeat_ms: 15_000,
        idle_timeout_ms: 60_000,
    };
    let begins = [Begin { partition: 0, from: offset, low: 0, next: offset }];
    let error = FrameError { code: ErrorCode::InvalidField, message: "a message".into(), field: Some("from") };
    let mut cursor = Vec::new();
    control::write_cursor_v1(&mut cursor, 3, offset);
    let reason = json!({"code": "actor_down", "detail": "ReplayStore is down"});
    let ingest = json!({"status": "degraded", "reasons": [reason]});
    let epoch = "cluster/topic/id";
    let next_offsets = &[(0, offset), (1, 0)];
    let complete = Complete { from: From::Cursor, replayed: 2, next_offsets, epoch, capped: true, threads: false };
    let next_offsets = &[(0, offset)];
    let complete_v1 = Complete { from: From::Earliest, next_offsets, capped: false, ..complete };
    let of_threads = Complete { threads: true, ..complete_v1 };
    let progress = Progress { page: 3, replayed: 3_000, remaining: offset.unsigned_abs(), percent: 42 };
    let frames = [
        ("v2 welcome", control::welcome(&welcome, &begins)),
        ("v2 replay_complete", control::replay_complete(&complete, Dialect::V2)),
        ("v2 replay_progress", control::replay_progress(&progress)),
        ("v2 heartbeat", control::heartbeat(1_790_000_000_001, &[(0, offset)], &ingest)),
        ("v2 partition_added", control::partition_added(4, 0)),
        ("v2 cursor_reset", control::cursor_reset(0, ResetReason::TopicRecreated, "cluster/topic/id2", 0)),
        ("v2 cursor_reset beyond_end", control::cursor_reset(0, ResetReason::BeyondEnd, "cluster/topic/id", offset)),
        (
            "v2 cursor_reset manual_reset",
            control::cursor_reset(0, ResetReason::ManualReset, "cluster/topic/id@07", offset),
        ),
        ("v1 replay_complete", control::replay_complete(&complete_v1, Dialect::V1)),
        ("v1 replay_complete of threads", control::replay_complete(&of_threads, Dialect::V1)),
        ("v1 cursor", String::from_utf8(cursor).unwrap()),
        ("v1 cursor_stale", control::cursor_stale(0, 1, offset)),
        ("v1 gap", control::gap_v1(0, 10, "retention")),
        ("v1 gap of a thread", control::gap_of_thread("run-1", 3)),
        ("pong", control::PONG.to_owned()),
        ("error", error.to_json()),
    ];
    let frames: Map<_, _> =
        frames.into_iter().map(|(name, text)| (name.to_owned(), serde_json::from_str(&text).unwrap())).collect();
    golden_json("control.json", &frames.into());
}

#[test]
fn every_close_code() {
    let codes: Map<_, _> = CloseCode::ALL.iter().map(|code| (code.name().to_owned(), code.code().into())).collect();
    golden_json("close_codes.json", &codes.into());
}
