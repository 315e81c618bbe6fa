//! Turns judged batches into chunks: contiguous frames of one partition, encoded once for all clients.
//!
//! Every offset of the batch becomes part of exactly one item: a record, a skip (no record there, or set aside by its
//! kind) or a gap (lost). It must not know who reads the chunks or when they are flushed.

use super::decode::{Kind, Verdict};
use super::record::{LossReason, RawBatch};
use super::sequence::{Finding, RecordFinding};
use super::window::Chunk;
use crate::wire::stream::{FindingKind, GapReason, SkipReason};
use crate::wire::stream_frame::{FindingItem, FrameBuilder};

/// A chunk is sealed as soon as its items weigh this many bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// What a batch holds, as the assembler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The records.
    pub batch: &'a RawBatch,
    /// One verdict per record.
    pub verdicts: &'a [Verdict],
    /// Findings in record order.
    pub findings: &'a [RecordFinding],
}

/// The open chunk of one partition.
#[derive(Debug)]
pub struct Assembler {
    partition: i32,
    first: i64,
    next: i64,
    records: u32,
    builder: FrameBuilder,
    /// The last item when it is a skip that the next offsets may extend.
    open_skip: Option<(i64, SkipReason)>,
}

impl Assembler {
    /// An empty chunk that begins at `first`.
    pub fn new(partition: i32, first: i64) -> Self {
        let builder = FrameBuilder::new();
        Self { partition, first, next: first, records: 0, builder, open_skip: None }
    }

    /// The offset after the last one taken.
    pub const fn next(&self) -> i64 {
        self.next
    }

    /// Whether there is nothing to seal.
    pub const fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Takes what the batch holds from [`Self::next`] on, and hands out each chunk that is full. Offsets below were taken
    /// before and are left out.
    ///
    /// # Errors
    /// When the batch begins above [`Self::next`]: taking it would leave a hole. Nothing is taken then.
    pub fn take(&mut self, judged: Judged<'_>, mut full: impl FnMut(Chunk)) -> Result<(), Misaligned> {
        let origin = judged.batch.origin;
        if origin.first > self.next {
            return Err(Misaligned { expected: self.next, found: origin.first });
        }
        let mut findings = judged.findings;
        let mut items = Vec::new();
        let mut lost = judged.batch.lost;
        for (index, (record, verdict)) in judged.batch.records.iter().zip(judged.verdicts).enumerate() {
            let mine = findings.iter().take_while(|finding| finding.record as usize <= index).count();
            let (current, later) = findings.split_at(mine);
            findings = later;
            if record.offset < self.next {
                lost = None;
                continue;
            }
            self.empty_until(record.offset, lost.take());
            match verdict {
                Verdict::Deliver(_) => {
                    items.clear();
                    items.extend(current.iter().map(finding_item));
                    let value = record.value.map_or(&[][..], |span| span.of(&judged.batch.arena));
                    self.make_room(judged.batch.arena.len());
                    self.close_skip();
                    self.builder.record(record.offset, record.timestamp_ms, value, &items);
                    self.records += 1;
                }
                Verdict::Unprocessable(kind) => self.extend_skip(record.offset, skip_reason(*kind)),
            }
            self.next = record.offset + 1;
            if self.builder.len() >= CHUNK_BYTES
                && let Some(chunk) = self.seal()
            {
                full(chunk);
            }
        }
        self.empty_until(origin.next, lost);
        Ok(())
    }

    /// Seals what was taken since the last time.
    pub fn seal(&mut self) -> Option<Chunk> {
        if self.is_empty() {
            return None;
        }
        self.close_skip();
        let builder = std::mem::replace(&mut self.builder, FrameBuilder::new());
        let (first, records) = (self.first, self.records);
        self.first = self.next;
        self.records = 0;
        Some(Chunk::new(self.partition, first, self.next, records, builder.seal(self.partition, first, self.next)))
    }

    /// Reserves once per chunk what the batch can fill of it, instead of growing record by record.
    fn make_room(&mut self, batch_bytes: usize) {
        if self.builder.is_empty() {
            self.builder = FrameBuilder::with_capacity((batch_bytes + batch_bytes / 8).min(CHUNK_BYTES + 4096));
        }
    }

    fn empty_until(&mut self, offset: i64, lost: Option<LossReason>) {
        if offset <= self.next {
            return;
        }
        match lost {
            Some(LossReason::Retention) => {
                self.close_skip();
                self.builder.gap(self.next, offset, GapReason::Retention);
            }
            None => self.extend_skip(self.next, SkipReason::NoRecord),
        }
        self.next = offset;
    }

    /// Begins a skip at `first`, or goes on with the one that is open when the reason is the same.
    fn extend_skip(&mut self, first: i64, reason: SkipReason) {
        if self.open_skip.is_none_or(|(_, open)| open != reason) {
            self.close_skip();
            self.open_skip = Some((first, reason));
        }
    }

    fn close_skip(&mut self) {
        if let Some((first, reason)) = self.open_skip.take() {
            self.builder.skip(first, self.next, reason);
        }
    }
}

/// Two neighbours do not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected offset {expected}, got {found}")]
pub struct Misaligned {
    /// Where the next one had to begin.
    pub expected: i64,
    /// Where it begins.
    pub found: i64,
}

const fn skip_reason(kind: Kind) -> SkipReason {
    match kind {
        Kind::PayloadMissing => SkipReason::PayloadMissing,
        Kind::PayloadTooLarge => SkipReason::PayloadTooLarge,
        Kind::UnknownFraming => SkipReason::UnknownFraming,
        Kind::DecompressionFailed => SkipReason::DecompressionFailed,
        Kind::DecompressedTooLarge => SkipReason::DecompressedTooLarge,
        Kind::InvalidProtobuf => SkipReason::InvalidProtobuf,
        Kind::SchemaVersion => SkipReason::SchemaVersion,
        Kind::Internal => SkipReason::Internal,
    }
}

const fn finding_item(found: &RecordFinding) -> FindingItem {
    let (kind, expected, found_sequence) = match found.finding {
        Finding::Gap { expected, found } => (FindingKind::Gap, expected, found),
        Finding::Duplicate { expected, found } => (FindingKind::Duplicate, expected, found),
        Finding::Reorder { expected, found } => (FindingKind::Reorder, expected, found),
        Finding::ProducerRestart { expected, found } => (FindingKind::ProducerRestart, expected, found),
    };
    FindingItem { kind, event_index: found.event_index, expected, found: found_sequence }
}

#[cfg(test)]
mod tests {
    use super::super::decode::Meta;
    use super::super::record::{Origin, RawRecord, Span};
    use super::*;
    use crate::wire::stream::{Frame, item};
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    const GOOD: Verdict = Verdict::Deliver(Meta { message_type: 1, items_start: 0, items_len: 0, timestamp_us: 0 });

    /// Offsets with their verdicts, as one batch that covers `[first, next)`.
    fn batch(
        first: i64,
        next: i64,
        lost: Option<LossReason>,
        offsets: &[(i64, Option<Kind>)],
    ) -> (RawBatch, Vec<Verdict>) {
        let span = Span { start: 0, len: 4 };
        let records = offsets
            .iter()
            .map(|(offset, _)| RawRecord {
                offset: *offset,
                timestamp_ms: 1,
                key: None,
                value: Some(span),
                headers: Span { start: 0, len: 0 },
            })
            .collect();
        let verdicts = offsets.iter().map(|(_, bad)| bad.map_or(GOOD, Verdict::Unprocessable)).collect();
        let origin = Origin { epoch: 1, partition: 2, first, next };
        (RawBatch { origin, lost, records, arena: Bytes::from_static(b"\0abc") }, verdicts)
    }

    fn decode(chunk: &Chunk) -> Frame {
        let message = chunk.message();
        let start = match message[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        Frame::decode(&message[start..]).unwrap()
    }

    /// `r5` a record, `s6-8:15` a skip, `g0-4` a gap; checks on the way that the items touch each other.
    fn text(frame: &Frame) -> String {
        let mut at = frame.first_offset;
        let mut out = Vec::new();
        for item in &frame.items {
            let (first, next, shown) = match item.kind.as_ref().unwrap() {
                item::Kind::Record(r) => (r.offset, r.offset + 1, format!("r{}", r.offset)),
                item::Kind::Skip(s) => {
                    (s.first_offset, s.next_offset, format!("s{}-{}:{}", s.first_offset, s.next_offset, s.reason))
                }
                item::Kind::Gap(g) => (g.first_offset, g.next_offset, format!("g{}-{}", g.first_offset, g.next_offset)),
            };
            assert_eq!(first, at, "items touch each other");
            at = next;
            out.push(shown);
        }
        assert_eq!(at, frame.next_offset, "the last item ends the frame");
        out.join(" ")
    }

    fn assemble(assembler: &mut Assembler, (batch, verdicts): &(RawBatch, Vec<Verdict>)) -> Result<(), Misaligned> {
        assembler.take(Judged { batch, verdicts, findings: &[] }, |_| panic!("far from full"))
    }

    #[test]
    fn every_offset_is_a_record_a_skip_or_a_gap() {
        let mut assembler = Assembler::new(2, 0);
        let bad = Some(Kind::InvalidProtobuf);
        let lost = Some(LossReason::Retention);
        assemble(&mut assembler, &batch(0, 9, lost, &[(4, None), (5, bad), (6, bad), (8, None)])).unwrap();
        assemble(&mut assembler, &batch(9, 14, None, &[(9, bad), (10, Some(Kind::SchemaVersion))])).unwrap();
        assemble(&mut assembler, &batch(14, 15, None, &[])).unwrap();
        let chunk = assembler.seal().unwrap();
        assert_eq!(text(&decode(&chunk)), "g0-4 r4 s5-7:15 s7-8:1 r8 s9-10:15 s10-11:16 s11-15:1");
        assert_eq!((chunk.first, chunk.next, chunk.records), (0, 15, 2));
        assert!(assembler.seal().is_none());
    }

    #[test]
    fn what_was_taken_is_not_taken_again_and_a_hole_is_refused() {
        let mut assembler = Assembler::new(2, 5);
        assemble(&mut assembler, &batch(0, 8, None, &[(3, None), (5, None), (7, None)])).unwrap();
        assemble(&mut assembler, &batch(0, 8, None, &[(3, None), (5, None), (7, None)])).unwrap();
        assert_eq!(
            assemble(&mut assembler, &batch(9, 10, None, &[(9, None)])),
            Err(Misaligned { expected: 8, found: 9 })
        );
        assert_eq!(text(&decode(&assembler.seal().unwrap())), "r5 s6-7:1 r7");
    }

    proptest! {
        /// However a log is cut into batches, re-read and sealed, the frames cover it once and in order.
        #[test]
        fn any_cut_of_a_log_covers_it_exactly(
            log in proptest::collection::vec((0..3_i64, 0..4_u8), 1..60),
            cuts in proptest::collection::vec((1..7_usize, any::<bool>(), 0..3_usize), 1..60),
        ) {
            let mut offset = 0;
            let records: Vec<(i64, Option<Kind>)> = log
                .iter()
                .map(|(hole, kind)| {
                    offset += hole;
                    let record = (offset, match kind { 0 => Some(Kind::InvalidProtobuf), 1 => Some(Kind::PayloadMissing), _ => None });
                    offset += 1;
                    record
                })
                .collect();
            let mut assembler = Assembler::new(2, 0);
            let mut frames = Vec::new();
            let (mut taken, mut position) = (0, 0);
            for (len, seal, back) in cuts.iter().cycle().take(400) {
                if taken == records.len() { break; }
                let from = taken.saturating_sub(*back);
                let to = (taken + len).min(records.len());
                let first = if from == taken { position } else { records[from].0.min(position) };
                let next = records[to - 1].0 + 1;
                assemble(&mut assembler, &batch(first, next, None, &records[from..to])).unwrap();
                taken = to;
                position = next;
                if *seal { frames.extend(assembler.seal().map(|chunk| decode(&chunk))); }
            }
            frames.extend(assembler.seal().map(|chunk| decode(&chunk)));
            let mut at = 0;
            let mut delivered = Vec::new();
            for frame in &frames {
                prop_assert_eq!(frame.first_offset, at);
                text(frame);
                at = frame.next_offset;
                for item in &frame.items {
                    if let Some(item::Kind::Record(record)) = &item.kind { delivered.push(record.offset); }
                }
            }
            let want: Vec<i64> = records[..taken].iter().filter(|(_, bad)| bad.is_none()).map(|(o, _)| *o).collect();
            prop_assert_eq!(delivered, want);
            prop_assert_eq!(at, position);
        }
    }
}
