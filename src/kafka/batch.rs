//! Builds the batches of one partition: contiguous coverage, one arena, every byte copied once.
//!
//! It must not know Kafka's client: records come as slices.

use bytes::Bytes;

use crate::pipeline::record::{LossReason, Origin, RawBatch, RawRecord, Span};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub records: usize,
    /// Bytes of keys, values and headers; one record may be larger.
    pub bytes: usize,
}

/// The open batch of one partition, and where its coverage goes on.
#[derive(Debug)]
pub struct BatchBuilder {
    partition: i32,
    /// End of what earlier batches covered.
    covered: i64,
    /// End of what the open batch covers.
    position: i64,
    records: Vec<RawRecord>,
    arena: Vec<u8>,
    /// Bytes and records of the last batch: what the next one will probably need.
    expected: (usize, usize),
}

/// A record as the client shows it.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in Unix milliseconds, 0 for none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

impl BatchBuilder {
    /// Nothing is covered before `first`.
    pub fn new(partition: i32, first: i64) -> Self {
        Self { partition, covered: first, position: first, records: Vec::new(), arena: Vec::new(), expected: (0, 0) }
    }

    /// The next offset that is expected.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Whether nothing waits to be handed over.
    pub fn is_empty(&self) -> bool {
        self.position == self.covered
    }

    /// Bytes in the open batch.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Takes a record; its headers are appended to the arena by `headers`. An offset that is already covered is passed
    /// over: it comes when a position was set anew. Answers whether the batch is full.
    pub fn push(&mut self, record: RecordView<'_>, headers: impl FnOnce(&mut Vec<u8>), limits: BatchLimits) -> bool {
        if record.offset < self.position {
            return false;
        }
        if self.records.is_empty() {
            self.arena.reserve(self.expected.0);
            self.records.reserve(self.expected.1);
        }
        let key = record.key.map(|key| append(&mut self.arena, key));
        let value = record.value.map(|value| append(&mut self.arena, value));
        let start = self.arena.len();
        headers(&mut self.arena);
        let headers = span(start, self.arena.len() - start);
        let RecordView { offset, timestamp_ms, .. } = record;
        self.records.push(RawRecord { offset, timestamp_ms, key, value, headers });
        self.position = offset.saturating_add(1);
        self.records.len() >= limits.records || self.arena.len() >= limits.bytes
    }

    /// Covers offsets up to `position` that hold no record.
    pub fn cover(&mut self, position: i64) {
        self.position = self.position.max(position);
    }

    /// Hands the open batch over, with its weight in bytes; `None` when nothing waits.
    pub fn finish(&mut self, epoch: u64, lost: Option<LossReason>) -> Option<(RawBatch, usize)> {
        if self.is_empty() {
            return None;
        }
        let origin = Origin { epoch, partition: self.partition, first: self.covered, next: self.position };
        self.covered = self.position;
        self.expected = (self.arena.len(), self.records.len());
        let mut arena = std::mem::take(&mut self.arena);
        let mut records = std::mem::take(&mut self.records);
        // What was expected of a busy moment must not be held by a quiet one.
        if arena.capacity() > 2 * arena.len() {
            arena.shrink_to_fit();
        }
        if records.capacity() > 2 * records.len() {
            records.shrink_to_fit();
        }
        let weight = arena.capacity() + records.capacity() * size_of::<RawRecord>() + size_of::<RawBatch>();
        Some((RawBatch { origin, lost, records, arena: Bytes::from(arena) }, weight))
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    span(start, bytes.len())
}

/// Kafka's own limit of a record is below 2 GiB and a batch ends at its byte limit, so the numbers fit; if they ever did
/// not, the span would lie outside the arena and read as empty.
fn span(start: usize, len: usize) -> Span {
    Span { start: u32::try_from(start).unwrap_or(u32::MAX), len: u32::try_from(len).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::record::{decode_headers, encode_header};

    const LIMITS: BatchLimits = BatchLimits { records: 4, bytes: 64 };

    fn view(offset: i64, value: &[u8]) -> RecordView<'_> {
        RecordView { offset, timestamp_ms: 1, key: Some(b"k"), value: Some(value) }
    }

    #[test]
    fn a_record_keeps_every_byte() {
        let mut builder = BatchBuilder::new(3, 10);
        builder.push(view(10, b"value"), |arena| encode_header(arena, "h", None), LIMITS);
        let null = RecordView { offset: 11, timestamp_ms: 0, key: None, value: None };
        builder.push(null, |_| (), LIMITS);
        let (batch, weight) = builder.finish(2, None).unwrap();
        assert_eq!(batch.origin, Origin { epoch: 2, partition: 3, first: 10, next: 12 });
        assert_eq!(batch.records[0].key.unwrap().of(&batch.arena), b"k");
        assert_eq!(batch.records[0].value.unwrap().of(&batch.arena), b"value");
        let headers: Vec<_> = decode_headers(batch.records[0].headers.of(&batch.arena)).collect();
        assert_eq!(headers, vec![("h", None)]);
        assert_eq!((batch.records[1].key, batch.records[1].value), (None, None));
        assert!(weight >= batch.arena.len());
        assert!(builder.finish(2, None).is_none());
    }

    proptest! {
        /// Whatever holes the log has and however often records come again, batches follow each other without a seam.
        #[test]
        fn coverage_is_contiguous_and_free_of_duplicates(
            offsets in prop::collection::vec(0..200_i64, 1..80), sizes in prop::collection::vec(0..40_usize, 80),
        ) {
            let mut builder = BatchBuilder::new(0, 5);
            let mut batches = Vec::new();
            for (offset, size) in offsets.iter().zip(sizes) {
                if builder.push(view(*offset, &vec![7; size]), |_| (), LIMITS) {
                    batches.extend(builder.finish(1, None));
                }
            }
            builder.cover(250);
            batches.extend(builder.finish(1, None));
            let mut next = 5;
            let mut seen = Vec::new();
            for (batch, _) in &batches {
                prop_assert_eq!(batch.origin.first, next);
                next = batch.origin.next;
                prop_assert!(batch.records.len() <= LIMITS.records);
                for record in &batch.records {
                    prop_assert!((batch.origin.first..batch.origin.next).contains(&record.offset));
                    seen.push(record.offset);
                }
            }
            prop_assert_eq!(next, 250);
            prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
