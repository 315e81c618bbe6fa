//! The v2 data frame: encodes a `dashstream.stream.v2.Frame` as one complete WebSocket message, in a single pass.
//!
//! Items are written as they arrive, behind a reserve that later takes the headers, so that no byte of a payload is moved
//! twice. It must not know windows or sessions.
#![allow(
    clippy::cast_possible_truncation,
    reason = "positions in a frame fit 32 bits: it is sealed at about 1 MiB, or holds one record, which is at most 1 GiB"
)]

use bytes::Bytes;

use super::stream::{FindingKind, GapReason, SkipReason};
use super::varint::put_varint;
use super::ws_frame::{self, Opcode};

/// Room for the WebSocket header and the frame's own fields: 10 + 3 × (tag + 10-byte varint).
const RESERVE: usize = ws_frame::MAX_HEADER + 3 * 11;

/// A finding to be written with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingItem {
    /// What was found.
    pub kind: FindingKind,
    /// Index of the inner event in an event batch.
    pub event_index: u32,
    /// The sequence that should have come.
    pub expected: u64,
    /// The sequence that came.
    pub found: u64,
}

/// Where one item lies in a sealed frame, and what it is. The item ends where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its first offset.
    pub first: i64,
    /// End of the item in bytes from the start of the message.
    pub end: u32,
    /// What it is.
    pub content: Content,
}

/// What an item holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A record, and where its value lies in the message.
    Record {
        /// Start of the value in bytes from the start of the message.
        start: u32,
        /// Length of the value.
        len: u32,
    },
    /// A range without a record for the client.
    Skip(SkipReason),
    /// A lost range.
    Gap(GapReason),
}

/// A finished frame: one WebSocket message, and its table of contents.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The complete WebSocket message.
    pub message: Bytes,
    /// Where the first item begins.
    pub items_start: u32,
    /// The items in offset order.
    pub marks: Vec<Mark>,
}

/// Builds one frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl FrameBuilder {
    /// A builder that allocates with its first item.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), marks: Vec::new() }
    }

    /// A builder with room for `capacity` bytes of items.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(RESERVE + capacity), marks: Vec::new() }
    }

    /// Bytes of items so far.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(RESERVE)
    }

    /// The buffer, with the reserve in front.
    fn open(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.resize(RESERVE, 0);
        }
        &mut self.bytes
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Items so far.
    pub fn items(&self) -> usize {
        self.marks.len()
    }

    /// Appends a record.
    pub fn record(&mut self, offset: i64, timestamp_ms: i64, value: &[u8], findings: &[FindingItem]) {
        let findings_len: usize = findings.iter().map(|finding| nested(finding_len(finding))).sum();
        let record_len = int_field(offset) + int_field(timestamp_ms) + bytes_field(value.len()) + findings_len;
        let out = self.open();
        item_header(out, 0x0a, record_len);
        put_int(out, 0x08, offset);
        put_int(out, 0x10, timestamp_ms);
        if !value.is_empty() {
            out.push(0x1a);
            put_varint(out, value.len() as u64);
        }
        let start = out.len() as u32;
        out.extend_from_slice(value);
        for finding in findings {
            out.push(0x22);
            put_varint(out, finding_len(finding) as u64);
            put_int(out, 0x08, i64::from(finding.kind as i32));
            put_int(out, 0x10, i64::from(finding.event_index));
            put_int(out, 0x18, finding.expected.cast_signed());
            put_int(out, 0x20, finding.found.cast_signed());
        }
        let end = out.len() as u32;
        self.marks.push(Mark { first: offset, end, content: Content::Record { start, len: value.len() as u32 } });
    }

    /// Appends a range that carries nothing.
    pub fn skip(&mut self, first: i64, next: i64, reason: SkipReason) {
        self.range(0x12, first, next, reason as i32, Content::Skip(reason));
    }

    /// Appends a lost range.
    pub fn gap(&mut self, first: i64, next: i64, reason: GapReason) {
        self.range(0x1a, first, next, reason as i32, Content::Gap(reason));
    }

    fn range(&mut self, tag: u8, first: i64, next: i64, reason: i32, content: Content) {
        let reason = i64::from(reason);
        let len = int_field(first) + int_field(next) + int_field(reason);
        let out = self.open();
        item_header(out, tag, len);
        put_int(out, 0x08, first);
        put_int(out, 0x10, next);
        put_int(out, 0x18, reason);
        let end = out.len() as u32;
        self.marks.push(Mark { first, end, content });
    }

    /// Appends items of another sealed frame as they are: `marks[from..to]` of it.
    #[allow(clippy::indexing_slicing, reason = "marks lie within the frame that they were made for")]
    pub fn copy_items(&mut self, other: &Sealed, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let start = if from == 0 { other.items_start } else { other.marks[from - 1].end } as usize;
        let base = self.open().len() as u32;
        let moved = |position: u32| position - start as u32 + base;
        self.bytes.extend_from_slice(&other.message[start..other.marks[to - 1].end as usize]);
        self.marks.extend(other.marks[from..to].iter().map(|mark| Mark {
            end: moved(mark.end),
            content: match mark.content {
                Content::Record { start, len } => Content::Record { start: moved(start), len },
                content => content,
            },
            ..*mark
        }));
    }

    /// Finishes the frame as covering `[first, next)` of `partition`.
    #[allow(
        clippy::indexing_slicing,
        reason = "three tagged numbers are 33 bytes at most, and room for them was reserved"
    )]
    pub fn seal(mut self, partition: i32, first: i64, next: i64) -> Sealed {
        self.open();
        let mut fields = [0_u8; 33];
        let mut fields_len = 0;
        for (tag, value) in [(0x08, i64::from(partition)), (0x10, first), (0x18, next)] {
            if value != 0 {
                fields[fields_len] = tag;
                fields_len += 1;
                let mut rest = value.cast_unsigned();
                while rest >= 0x80 {
                    fields[fields_len] = (rest as u8) | 0x80;
                    fields_len += 1;
                    rest >>= 7;
                }
                fields[fields_len] = rest as u8;
                fields_len += 1;
            }
        }
        let payload = fields_len + self.len();
        let (ws, ws_len) = ws_frame::header(Opcode::Binary, payload);
        let start = RESERVE - fields_len - ws_len;
        self.bytes[start..start + ws_len].copy_from_slice(&ws[..ws_len]);
        self.bytes[start + ws_len..RESERVE].copy_from_slice(&fields[..fields_len]);
        // A window keeps the frame for long: room that was reserved but not used would be memory nobody counts.
        if self.bytes.capacity() > self.bytes.len() + self.bytes.len() / 8 {
            self.bytes.shrink_to_fit();
        }
        self.marks.shrink_to_fit();
        let shift = start as u32;
        for mark in &mut self.marks {
            mark.end -= shift;
            if let Content::Record { start, .. } = &mut mark.content {
                *start -= shift;
            }
        }
        Sealed {
            message: Bytes::from(self.bytes).slice(start..),
            items_start: (RESERVE - start) as u32,
            marks: self.marks,
        }
    }
}

const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

const fn int_field(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value.cast_unsigned()) }
}

const fn nested(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

const fn bytes_field(len: usize) -> usize {
    if len == 0 { 0 } else { nested(len) }
}

fn finding_len(finding: &FindingItem) -> usize {
    int_field(i64::from(finding.kind as i32))
        + int_field(i64::from(finding.event_index))
        + int_field(finding.expected.cast_signed())
        + int_field(finding.found.cast_signed())
}

/// `items` (field 4) of the frame, then the chosen kind of the item.
fn item_header(out: &mut Vec<u8>, kind_tag: u8, len: usize) {
    out.push(0x22);
    put_varint(out, nested(len) as u64);
    out.push(kind_tag);
    put_varint(out, len as u64);
}

fn put_int(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{Finding, Frame, Gap, Item, Record, Skip, item::Kind};
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn payload(message: &[u8]) -> &[u8] {
        match message[1] {
            126 => &message[4..],
            127 => &message[10..],
            _ => &message[2..],
        }
    }

    fn item() -> impl Strategy<Value = (Kind, i64)> {
        let offset = prop_oneof![0..100_i64, (i64::MAX - 100)..(i64::MAX - 50), (1_i64 << 53)..(1 << 53) + 9];
        prop_oneof![
            (offset.clone(), any::<i64>(), proptest::collection::vec(any::<u8>(), 0..300), 0..3_usize, any::<u64>())
                .prop_map(|(offset, timestamp_ms, value, findings, n)| {
                    let finding = Finding { kind: 1, event_index: n as u32, expected: n, found: n / 2 };
                    let record =
                        Record { offset, timestamp_ms, value: value.into(), findings: vec![finding; findings] };
                    (Kind::Record(record), offset)
                }),
            (offset.clone(), 1..9_i64).prop_map(|(first_offset, len)| {
                let skip = Skip { first_offset, next_offset: first_offset + len, reason: 15 };
                (Kind::Skip(skip), first_offset)
            }),
            (offset, 1..9_i64).prop_map(|(first_offset, len)| {
                (Kind::Gap(Gap { first_offset, next_offset: first_offset + len, reason: 2 }), first_offset)
            }),
        ]
    }

    fn build(items: &[(Kind, i64)]) -> FrameBuilder {
        let mut builder = FrameBuilder::with_capacity(64);
        for (kind, _) in items {
            match kind {
                Kind::Record(r) => {
                    let findings: Vec<_> = r
                        .findings
                        .iter()
                        .map(|f| FindingItem {
                            kind: f.kind(),
                            event_index: f.event_index,
                            expected: f.expected,
                            found: f.found,
                        })
                        .collect();
                    builder.record(r.offset, r.timestamp_ms, &r.value, &findings);
                }
                Kind::Skip(s) => builder.skip(s.first_offset, s.next_offset, s.reason()),
                Kind::Gap(g) => builder.gap(g.first_offset, g.next_offset, g.reason()),
            }
        }
        builder
    }

    fn expected(partition: i32, first_offset: i64, next_offset: i64, items: &[(Kind, i64)]) -> Frame {
        let items = items.iter().map(|(kind, _)| Item { kind: Some(kind.clone()) }).collect();
        Frame { partition, first_offset, next_offset, items }
    }

    proptest! {
        #[test]
        fn a_frame_is_byte_for_byte_what_protobuf_says(
            items in proptest::collection::vec(item(), 0..20),
            partition in 0..5000_i32,
            first in 0..i64::MAX,
            cut in 0..20_usize,
        ) {
            let sealed = build(&items).seal(partition, first, first);
            let want = expected(partition, first, first, &items);
            prop_assert_eq!(payload(&sealed.message), &want.encode_to_vec()[..]);
            for (mark, (kind, offset)) in sealed.marks.iter().zip(&items) {
                prop_assert_eq!(mark.first, *offset);
                if let (Content::Record { start, len }, Kind::Record(record)) = (mark.content, kind) {
                    prop_assert_eq!(&sealed.message[start as usize..(start + len) as usize], &record.value[..]);
                }
            }
            let cut = cut.min(items.len());
            let mut tail = FrameBuilder::with_capacity(0);
            tail.copy_items(&sealed, cut, items.len());
            let tail = tail.seal(partition, 7, 9);
            prop_assert_eq!(payload(&tail.message), &expected(partition, 7, 9, &items[cut..]).encode_to_vec()[..]);
            for (mark, (_, offset)) in tail.marks.iter().zip(&items[cut..]) {
                prop_assert_eq!(mark.first, *offset);
            }
        }
    }

    #[test]
    fn a_frame_of_every_header_length_is_whole() {
        for value_len in [0, 1, 50, 110, 125, 126, 127, 300, 65_000, 65_535, 65_536, 70_000] {
            let mut builder = FrameBuilder::with_capacity(0);
            builder.record(1, 2, &vec![7; value_len], &[]);
            let sealed = builder.seal(3, 1, 2);
            let frame = Frame::decode(payload(&sealed.message)).unwrap();
            assert_eq!((frame.partition, frame.first_offset, frame.next_offset), (3, 1, 2));
        }
    }
}
