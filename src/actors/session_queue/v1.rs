//! The v1 form of a chunk: a `cursor` frame and a binary frame per record, a `gap` frame for whatever is not delivered.

use bytes::Bytes;

use crate::pipeline::window::{Chunk, ItemRef};
use crate::wire::control;
use crate::wire::stream::{GapReason, SkipReason};
use crate::wire::ws_frame::{self, Opcode};

/// Items of a chunk (first offset, next offset, what lies there), and how many records that are. Offsets without a record
/// carry nothing to tell.
pub(super) fn encode<'a>(chunk: &Chunk, items: impl Iterator<Item = (i64, i64, ItemRef<'a>)>) -> (Bytes, u32) {
    let mut records = 0;
    let mut out = Vec::with_capacity(chunk.message().len() + chunk.records as usize * 48);
    let mut text = Vec::with_capacity(64);
    for (first, next, item) in items {
        match item {
            ItemRef::Record(value) => {
                records += 1;
                text.clear();
                control::write_cursor_v1(&mut text, chunk.partition, first);
                ws_frame::append(&mut out, Opcode::Text, &text);
                ws_frame::append(&mut out, Opcode::Binary, value);
            }
            ItemRef::Skip(SkipReason::NoRecord | SkipReason::Filtered) => {}
            ItemRef::Skip(reason) => {
                let gap = control::gap_v1(chunk.partition, next - first, skip_name(reason));
                ws_frame::append(&mut out, Opcode::Text, gap.as_bytes());
            }
            ItemRef::Gap(reason) => {
                let gap = control::gap_v1(chunk.partition, next - first, gap_name(reason));
                ws_frame::append(&mut out, Opcode::Text, gap.as_bytes());
            }
        }
    }
    (out.into(), records)
}

pub(super) const fn gap_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Unspecified => "unspecified",
        GapReason::Retention => "retention",
        GapReason::Unavailable => "unavailable",
        GapReason::SkippedToLive => "skipped_to_live",
    }
}

const fn skip_name(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Unspecified => "unspecified",
        SkipReason::NoRecord => "no_record",
        SkipReason::Filtered => "filtered",
        SkipReason::PayloadMissing => "payload_missing",
        SkipReason::PayloadTooLarge => "payload_too_large",
        SkipReason::UnknownFraming => "unknown_framing",
        SkipReason::DecompressionFailed => "decompression_failed",
        SkipReason::DecompressedTooLarge => "decompressed_too_large",
        SkipReason::InvalidProtobuf => "invalid_protobuf",
        SkipReason::SchemaVersion => "schema_version",
        SkipReason::Internal => "internal",
    }
}
