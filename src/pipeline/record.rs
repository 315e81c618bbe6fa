//! Records as they came from Kafka: one arena of bytes per batch, and spans into it.
//!
//! A batch belongs to one partition and covers `[first, next)` without holes: offsets that hold no record are part of
//! the coverage. It must not know Kafka's client, and never copies a payload twice.

use bytes::Bytes;

/// A byte range in a batch's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it starts, in bytes from the start of the arena.
    pub start: u32,
    /// How long it is, in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes of this span, or none at all when it lies outside the arena.
    pub fn of(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize;
        arena.get(start..start + self.len as usize).unwrap_or(&[])
    }
}

/// One Kafka record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Kafka's record timestamp in Unix milliseconds, 0 when there is none.
    pub timestamp_ms: i64,
    /// The key, if the record has one.
    pub key: Option<Span>,
    /// The value; `None` is a null value.
    pub value: Option<Span>,
    /// The headers, encoded by [`encode_header`]; empty when there are none.
    pub headers: Span,
}

/// Why a range at the start of a batch could not be read from Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// Kafka's retention has passed it.
    Retention,
}

/// The position of a batch: which log, which partition, and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The epoch of the topic, counted up by this process whenever offsets start again.
    pub epoch: u64,
    /// The partition.
    pub partition: i32,
    /// The first offset covered.
    pub first: i64,
    /// The offset after the last one covered.
    pub next: i64,
}

/// What the reader hands to the pipeline: contiguous coverage of one partition.
#[derive(Debug)]
pub struct RawBatch {
    /// Where it comes from.
    pub origin: Origin,
    /// When set, `[origin.first, first record or origin.next)` is lost for this reason; otherwise offsets without a
    /// record are compacted away or transaction markers.
    pub lost: Option<LossReason>,
    /// The records in offset order.
    pub records: Vec<RawRecord>,
    /// The bytes that the records point into.
    pub arena: Bytes,
}

impl RawBatch {
    /// Replaces values of records, by their index in the batch. One that finds no place in the arena leaves nothing: what
    /// was to be replaced must not go on.
    pub fn replace(&mut self, values: Vec<(usize, Vec<u8>)>) {
        if values.is_empty() {
            return;
        }
        let mut arena =
            Vec::with_capacity(self.arena.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
        arena.extend_from_slice(&self.arena);
        for (index, value) in values {
            let place = u32::try_from(arena.len()).ok().zip(u32::try_from(value.len()).ok());
            if let Some(record) = self.records.get_mut(index) {
                record.value = place.map(|(start, len)| Span { start, len });
                arena.extend_from_slice(&value);
            }
        }
        self.arena = arena.into();
    }
}

/// Appends one header to an arena: name length, name, value length (`u32::MAX` for null), value; lengths little-endian.
pub fn encode_header(arena: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    arena.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    arena.extend_from_slice(name.as_bytes());
    match value {
        Some(value) => {
            arena.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
            arena.extend_from_slice(value);
        }
        None => arena.extend_from_slice(&u32::MAX.to_le_bytes()),
    }
}

/// Walks the headers that [`encode_header`] wrote; ends at the first byte that does not fit.
pub fn decode_headers(mut bytes: &[u8]) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, tail) = bytes.split_at_checked(len)?;
        *bytes = tail;
        Some(head)
    }
    fn length(bytes: &mut &[u8]) -> Option<u32> {
        take(bytes, 4)?.try_into().ok().map(u32::from_le_bytes)
    }
    std::iter::from_fn(move || {
        let name_len = length(&mut bytes)? as usize;
        let name = std::str::from_utf8(take(&mut bytes, name_len)?).ok()?;
        let value = match length(&mut bytes)? {
            u32::MAX => None,
            len => Some(take(&mut bytes, len as usize)?),
        };
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_written() {
        let mut arena = Vec::new();
        encode_header(&mut arena, "traceparent", Some(b"00-abc"));
        encode_header(&mut arena, "null", None);
        encode_header(&mut arena, "", Some(b""));
        let headers: Vec<_> = decode_headers(&arena).collect();
        assert_eq!(headers, vec![("traceparent", Some(&b"00-abc"[..])), ("null", None), ("", Some(&b""[..]))]);
    }

    #[test]
    fn cut_headers_end_without_a_panic() {
        let mut arena = Vec::new();
        encode_header(&mut arena, "name", Some(b"value"));
        for cut in 0..arena.len() {
            assert_eq!(decode_headers(&arena[..cut]).count(), 0, "cut at {cut}");
        }
    }
}
