//! Reads an encoded v2 frame back into its table of contents, without copying a payload.
//!
//! It takes exactly what [`super::stream_frame`] writes and nothing else: the bytes come from a store that others can
//! write to, so every length is checked before it is used and every offset against its neighbours. It must not know where
//! the bytes lay.
#![allow(clippy::cast_possible_truncation, reason = "the length of the message is checked to fit 32 bits first")]

use bytes::Bytes;

use super::stream::{GapReason, SkipReason};
use super::stream_frame::{Content, Mark, Sealed};
use super::ws_frame::{self, Opcode};

/// What a frame says of itself, and its table of contents.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The partition.
    pub partition: i32,
    /// The first offset covered.
    pub first: i64,
    /// The offset after the last one covered.
    pub next: i64,
    /// How many records it holds.
    pub records: u32,
    /// The message and its items.
    pub sealed: Sealed,
}

/// Why bytes are no frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is larger than allowed.
    #[error("the frame is too large")]
    TooLarge,
    /// It is not one unfragmented binary WebSocket message.
    #[error("the message has no valid header")]
    Header,
    /// It ends within a value.
    #[error("the frame ends early")]
    Truncated,
    /// A tag, a length or a value is none that is written.
    #[error("the frame is malformed at byte {0}")]
    Malformed(usize),
    /// Items do not touch each other, or do not cover what the frame says.
    #[error("the items of the frame do not cover it")]
    Coverage,
}

/// Reads a complete WebSocket message of at most `max_bytes`.
///
/// # Errors
/// When it is not exactly one frame as it is written here, or its items do not cover it without a hole.
pub fn parse(message: Bytes, max_bytes: usize) -> Result<Parsed, ParseError> {
    if message.len() > max_bytes || u32::try_from(message.len()).is_err() {
        return Err(ParseError::TooLarge);
    }
    let mut input = Input { bytes: &message, at: payload_start(&message)? };
    let partition = i32::try_from(input.int(0x08)?).map_err(|_| input.malformed())?;
    let first = input.offset(0x10)?;
    let next = input.offset(0x18)?;
    if partition < 0 || first > next {
        return Err(ParseError::Coverage);
    }
    let items_start = input.at as u32;
    let mut marks: Vec<Mark> = Vec::new();
    let (mut position, mut records) = (first, 0_u32);
    while input.at < message.len() {
        let (mark, end) = input.item()?;
        if mark.first != position {
            return Err(ParseError::Coverage);
        }
        position = end;
        records += u32::from(matches!(mark.content, Content::Record { .. }));
        marks.push(mark);
    }
    if position != next {
        return Err(ParseError::Coverage);
    }
    marks.shrink_to_fit();
    Ok(Parsed { partition, first, next, records, sealed: Sealed { message, items_start, marks } })
}

/// Where the payload of an unfragmented, unmasked binary message begins that is as long as its header says.
fn payload_start(message: &[u8]) -> Result<usize, ParseError> {
    let header_of = |len: usize| {
        let (bytes, header_len) = ws_frame::header(Opcode::Binary, message.len().checked_sub(len)?);
        (header_len == len && message.get(..len) == bytes.get(..len)).then_some(len)
    };
    [2, 4, ws_frame::MAX_HEADER].into_iter().find_map(header_of).ok_or(ParseError::Header)
}

/// A place in the bytes, which only moves on.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn malformed(&self) -> ParseError {
        ParseError::Malformed(self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, tag: u8) -> Result<(), ParseError> {
        match self.peek() {
            Some(found) if found == tag => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(self.malformed()),
            None => Err(ParseError::Truncated),
        }
    }

    fn varint(&mut self) -> Result<u64, ParseError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.peek().ok_or(ParseError::Truncated)?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(self.malformed());
            }
            self.at += 1;
            value |= bits << shift;
            if byte < 0x80 {
                // A last byte of zero says nothing; it is not written.
                return if byte == 0 && shift > 0 { Err(self.malformed()) } else { Ok(value) };
            }
        }
        Err(self.malformed())
    }

    /// A number whose field is left out when it is zero.
    fn int(&mut self, tag: u8) -> Result<i64, ParseError> {
        if self.peek() != Some(tag) {
            return Ok(0);
        }
        self.at += 1;
        match self.varint()?.cast_signed() {
            0 => Err(self.malformed()),
            value => Ok(value),
        }
    }

    fn offset(&mut self, tag: u8) -> Result<i64, ParseError> {
        let value = self.int(tag)?;
        if value < 0 { Err(self.malformed()) } else { Ok(value) }
    }

    /// A length, checked against what is left; gives where the value ends.
    fn end_of_value(&mut self, limit: usize) -> Result<usize, ParseError> {
        let len = usize::try_from(self.varint()?).map_err(|_| ParseError::Truncated)?;
        match self.at.checked_add(len) {
            Some(end) if end <= limit => Ok(end),
            _ => Err(ParseError::Truncated),
        }
    }

    fn reached(&self, end: usize) -> Result<(), ParseError> {
        if self.at == end { Ok(()) } else { Err(self.malformed()) }
    }

    /// One item, and the offset after the last one that it covers.
    fn item(&mut self) -> Result<(Mark, i64), ParseError> {
        self.expect(0x22)?;
        let end = self.end_of_value(self.bytes.len())?;
        let kind = self.peek().ok_or(ParseError::Truncated)?;
        self.at += 1;
        let inner = self.end_of_value(end)?;
        if inner != end {
            return Err(self.malformed());
        }
        let (first, next, content) = match kind {
            0x0a => self.record(end)?,
            0x12 => {
                let (first, next, reason) = self.range()?;
                (first, next, Content::Skip(SkipReason::try_from(reason).map_err(|_| self.malformed())?))
            }
            0x1a => {
                let (first, next, reason) = self.range()?;
                (first, next, Content::Gap(GapReason::try_from(reason).map_err(|_| self.malformed())?))
            }
            _ => return Err(self.malformed()),
        };
        self.reached(end)?;
        if next <= first {
            return Err(ParseError::Coverage);
        }
        Ok((Mark { first, end: end as u32, content }, next))
    }

    fn range(&mut self) -> Result<(i64, i64, i32), ParseError> {
        let (first, next) = (self.offset(0x08)?, self.offset(0x10)?);
        let reason = i32::try_from(self.int(0x18)?).map_err(|_| self.malformed())?;
        Ok((first, next, reason))
    }

    fn record(&mut self, end: usize) -> Result<(i64, i64, Content), ParseError> {
        let offset = self.offset(0x08)?;
        let next = offset.checked_add(1).ok_or(ParseError::Coverage)?;
        self.int(0x10)?;
        let (start, value_end) = if self.at < end && self.peek() == Some(0x1a) {
            self.at += 1;
            let value_end = self.end_of_value(end)?;
            if value_end == self.at {
                return Err(self.malformed());
            }
            (self.at, value_end)
        } else {
            (self.at, self.at)
        };
        self.at = value_end;
        while self.at < end {
            self.expect(0x22)?;
            let finding_end = self.end_of_value(end)?;
            for tag in [0x08, 0x10, 0x18, 0x20] {
                if self.at < finding_end {
                    self.int(tag)?;
                }
            }
            self.reached(finding_end)?;
        }
        Ok((offset, next, Content::Record { start: start as u32, len: (value_end - start) as u32 }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{FindingKind, Frame, item::Kind};
    use super::super::stream_frame::{FindingItem, FrameBuilder};
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    /// What a frame is built of: runs of records, skips and gaps that touch each other.
    #[derive(Clone, Debug)]
    enum Run {
        Record(Vec<u8>, i64, u8),
        Skip(i64),
        Gap(i64),
    }

    fn run() -> impl Strategy<Value = Run> {
        prop_oneof![
            (proptest::collection::vec(any::<u8>(), 0..200), any::<i64>(), 0..3_u8)
                .prop_map(|(value, time, findings)| Run::Record(value, time, findings)),
            (1..50_i64).prop_map(Run::Skip),
            (1..50_i64).prop_map(Run::Gap),
        ]
    }

    fn build(partition: i32, first: i64, runs: &[Run]) -> (Sealed, i64) {
        let mut builder = FrameBuilder::new();
        let mut at = first;
        for run in runs {
            match run {
                Run::Record(value, time, findings) => {
                    let finding = FindingItem {
                        kind: FindingKind::Gap,
                        event_index: u32::from(*findings),
                        expected: u64::MAX,
                        found: 0,
                    };
                    builder.record(at, *time, value, &vec![finding; usize::from(*findings)]);
                    at += 1;
                }
                Run::Skip(len) => {
                    builder.skip(at, at + len, SkipReason::NoRecord);
                    at += len;
                }
                Run::Gap(len) => {
                    builder.gap(at, at + len, GapReason::Retention);
                    at += len;
                }
            }
        }
        (builder.seal(partition, first, at), at)
    }

    fn first() -> impl Strategy<Value = i64> {
        prop_oneof![0..100_i64, (1_i64 << 53)..(1 << 53) + 9, (i64::MAX - 2_000)..(i64::MAX - 1_900)]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back_exactly(
            partition in 0..5_000_i32,
            first in first(),
            runs in proptest::collection::vec(run(), 0..20),
        ) {
            let (sealed, next) = build(partition, first, &runs);
            let parsed = parse(sealed.message.clone(), usize::MAX).unwrap();
            prop_assert_eq!((parsed.partition, parsed.first, parsed.next), (partition, first, next));
            prop_assert_eq!(parsed.sealed.items_start, sealed.items_start);
            prop_assert_eq!(&parsed.sealed.marks, &sealed.marks);
            // A value of the message is what an independent decoder says.
            let start = match sealed.message[1] { 126 => 4, 127 => 10, _ => 2 };
            let frame = Frame::decode(&sealed.message[start..]).unwrap();
            prop_assert_eq!(frame.items.len(), parsed.sealed.marks.len());
            for (item, mark) in frame.items.iter().zip(&parsed.sealed.marks) {
                if let (Some(Kind::Record(record)), Content::Record { start, len }) = (&item.kind, mark.content) {
                    prop_assert_eq!(&sealed.message[start as usize..(start + len) as usize], &record.value[..]);
                }
            }
            let records = frame.items.iter().filter(|item| matches!(item.kind, Some(Kind::Record(_)))).count();
            prop_assert_eq!(parsed.records as usize, records);
        }

        /// However a valid frame is damaged, it is refused or still covers its range; it never panics.
        #[test]
        fn damage_is_refused_or_harmless(
            runs in proptest::collection::vec(run(), 1..10),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let (sealed, _) = build(3, 40, &runs);
            let mut bytes = sealed.message.to_vec();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            if let Ok(parsed) = parse(bytes.clone().into(), usize::MAX) {
                let mut position = parsed.first;
                let ends = parsed.sealed.marks.iter().skip(1).map(|mark| mark.first).chain([parsed.next]);
                for (mark, end) in parsed.sealed.marks.iter().zip(ends) {
                    prop_assert_eq!(mark.first, position);
                    prop_assert!(end > mark.first);
                    if let Content::Record { start, len } = mark.content {
                        prop_assert!((start + len) as usize <= bytes.len());
                    }
                    position = end;
                }
                prop_assert_eq!(position, parsed.next);
            }
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(parse(bytes.into(), usize::MAX).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(bytes.clone().into(), usize::MAX);
            let mut framed = vec![0x82, 126];
            framed.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
            framed.extend(bytes);
            let _ = parse(framed.into(), usize::MAX);
        }
    }

    #[test]
    fn a_frame_of_every_header_length_is_read() {
        for value_len in [0, 1, 100, 125, 126, 300, 65_000, 65_536, 70_000] {
            let (sealed, _) = build(1, 7, &[Run::Record(vec![9; value_len], 1, 0)]);
            let parsed = parse(sealed.message.clone(), usize::MAX).unwrap();
            assert_eq!(parsed.sealed.marks, sealed.marks);
            assert_eq!(parse(sealed.message.clone(), sealed.message.len() - 1).unwrap_err(), ParseError::TooLarge);
        }
    }

    #[test]
    fn holes_overlaps_and_a_false_count_are_refused() {
        let range = |from: i64, to: i64, first: i64, next: i64| {
            let mut builder = FrameBuilder::new();
            builder.skip(from, to, SkipReason::NoRecord);
            parse(builder.seal(0, first, next).message, usize::MAX).map(drop)
        };
        assert_eq!(range(5, 9, 5, 9), Ok(()));
        assert_eq!(range(6, 9, 5, 9), Err(ParseError::Coverage));
        assert_eq!(range(5, 8, 5, 9), Err(ParseError::Coverage));
        assert_eq!(range(5, 5, 5, 5), Err(ParseError::Coverage));
        assert_eq!(range(9, 5, 9, 5), Err(ParseError::Coverage));
        let mut builder = FrameBuilder::new();
        builder.record(i64::MAX, 0, b"x", &[]);
        assert_eq!(parse(builder.seal(0, i64::MAX, i64::MAX).message, 99).unwrap_err(), ParseError::Coverage);
    }
}
