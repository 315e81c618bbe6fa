//! The memory window: the newest chunks of every partition under one byte budget and one record bound.
//!
//! Per partition it covers `[low, next)` without holes. The oldest chunk of all goes first, whichever partition it
//! belongs to. It must not know sessions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::assemble::Misaligned;
use super::tags::{Reading, Tags};
use crate::wire::stream_frame::{Content, FrameBuilder, Mark, Sealed};

/// A contiguous range of one partition, encoded once and shared by everyone.
#[derive(Debug)]
pub struct Chunk {
    /// The partition.
    pub partition: i32,
    /// The first offset covered.
    pub first: i64,
    /// The offset after the last one covered.
    pub next: i64,
    /// How many records it holds.
    pub records: u32,
    sealed: Sealed,
    /// Made by the first filter that looks at the chunk.
    tags: OnceLock<Tags>,
}

impl Chunk {
    /// A chunk that covers `[first, next)`.
    pub const fn new(partition: i32, first: i64, next: i64, records: u32, sealed: Sealed) -> Self {
        Self { partition, first, next, records, sealed, tags: OnceLock::new() }
    }

    /// The v2 WebSocket message of the whole chunk.
    pub const fn message(&self) -> &Bytes {
        &self.sealed.message
    }

    /// The whole frame with its table of contents.
    pub(super) const fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The values of its records, in their order.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.sealed.marks.iter().filter_map(|mark| self.value(mark))
    }

    /// The value at one of its marks, if a record lies there.
    pub(super) fn value(&self, mark: &Mark) -> Option<&[u8]> {
        match mark.content {
            Content::Record { start, len } => self.sealed.message.get(start as usize..(start + len) as usize),
            Content::Skip(_) | Content::Gap(_) => None,
        }
    }

    /// Whose its records are. Read once, whoever asks; `reading` is the same in the whole process.
    pub fn tags(&self, reading: Reading) -> &Tags {
        self.tags.get_or_init(|| Tags::read(self.values(), reading))
    }

    /// The memory that it holds, in bytes. Tags are not in it: they come later, and are bounded on their own.
    pub fn weight(&self) -> usize {
        self.sealed.message.len() + self.sealed.marks.capacity() * size_of::<Mark>() + size_of::<Self>() + 64
    }

    /// The v2 message of the part from `cursor` on, and how many records it holds.
    pub fn message_from(&self, cursor: i64) -> (Bytes, u32) {
        let (message, records, _) = self.message_of(cursor, u32::MAX);
        (message, records)
    }

    /// The v2 message of the part from `cursor` on with at most `max_records`, how many records it holds, and the offset
    /// after it. What lies between the last of them and the next record goes with it; nothing at all is an empty message.
    pub fn message_of(&self, cursor: i64, max_records: u32) -> (Bytes, u32, i64) {
        let cursor = cursor.max(self.first);
        if cursor == self.first && self.records <= max_records {
            return (self.message().clone(), self.records, self.next);
        }
        let (until, until_index) = self.end_of(cursor, max_records);
        if until <= cursor {
            return (Bytes::new(), 0, cursor);
        }
        let marks = &self.sealed.marks;
        // The item that holds the cursor: it can only be cut when it is a range.
        let after = marks.partition_point(|mark| mark.first <= cursor);
        let holds = after.saturating_sub(1);
        let mut builder = FrameBuilder::with_capacity(self.message().len());
        let whole_from = match marks.get(holds) {
            Some(mark) if mark.first < cursor => {
                let end = marks.get(after).map_or(self.next, |mark| mark.first);
                match mark.content {
                    Content::Skip(reason) => builder.skip(cursor, end, reason),
                    Content::Gap(reason) => builder.gap(cursor, end, reason),
                    Content::Record { .. } => {}
                }
                after
            }
            _ => holds,
        };
        let records = marks.get(whole_from..until_index).map_or(0, count_records);
        builder.copy_items(&self.sealed, whole_from, until_index);
        (builder.seal(self.partition, cursor, until).message, records, until)
    }

    /// The offset after the part from `cursor` on with at most `max_records`, and the index of the first item after it.
    pub fn end_of(&self, cursor: i64, max_records: u32) -> (i64, usize) {
        let marks = &self.sealed.marks;
        let from = marks.partition_point(|mark| mark.first < cursor);
        let rest = marks.iter().enumerate().skip(from);
        let mut records = rest.filter(|(_, mark)| matches!(mark.content, Content::Record { .. }));
        records.nth(max_records as usize).map_or((self.next, marks.len()), |(index, mark)| (mark.first, index))
    }

    /// A chunk of what this one holds in `[from, until)`, with at most `max_records` records; it ends before the first record
    /// that is too many. `None` when nothing is left of it.
    pub fn part(&self, from: i64, until: i64, max_records: u32) -> Option<Self> {
        let first = self.first.max(from);
        let marks = &self.sealed.marks;
        let mut builder = FrameBuilder::new();
        let (mut next, mut records) = (first, 0);
        // Whole items are copied in one piece.
        let mut whole = 0..0;
        for (index, mark) in marks.iter().enumerate() {
            let end = marks.get(index + 1).map_or(self.next, |mark| mark.first);
            if end <= first {
                continue;
            }
            if mark.first >= until {
                break;
            }
            match mark.content {
                Content::Record { .. } if records == max_records => break,
                Content::Record { .. } => {
                    records += 1;
                    whole = if whole.is_empty() { index..index + 1 } else { whole.start..index + 1 };
                }
                Content::Skip(_) | Content::Gap(_) => {
                    builder.copy_items(&self.sealed, whole.start, whole.end);
                    whole = 0..0;
                    let (first, end) = (mark.first.max(first), end.min(until));
                    match mark.content {
                        Content::Gap(reason) => builder.gap(first, end, reason),
                        Content::Skip(reason) => builder.skip(first, end, reason),
                        Content::Record { .. } => {}
                    }
                }
            }
            next = end.min(until);
        }
        builder.copy_items(&self.sealed, whole.start, whole.end);
        (next > first)
            .then(|| Self::new(self.partition, first, next, records, builder.seal(self.partition, first, next)))
    }

    /// The items from `cursor` on: first offset, next offset, and what lies there.
    pub fn items_from(&self, cursor: i64) -> impl Iterator<Item = (i64, i64, ItemRef<'_>)> {
        let marks = &self.sealed.marks;
        marks.iter().enumerate().filter_map(move |(index, mark)| {
            let next = marks.get(index + 1).map_or(self.next, |mark| mark.first);
            let item = match mark.content {
                Content::Record { start, len } => {
                    ItemRef::Record(self.sealed.message.get(start as usize..(start + len) as usize)?)
                }
                Content::Skip(reason) => ItemRef::Skip(reason),
                Content::Gap(reason) => ItemRef::Gap(reason),
            };
            (next > cursor).then(|| (mark.first.max(cursor), next, item))
        })
    }

    /// The first offset that is kept when the oldest `records` records are left out.
    fn floor_without(&self, records: u32) -> i64 {
        let is_record = |mark: &&Mark| matches!(mark.content, Content::Record { .. });
        self.sealed.marks.iter().filter(is_record).nth(records as usize).map_or(self.next, |mark| mark.first)
    }
}

fn count_records(marks: &[Mark]) -> u32 {
    let records = marks.iter().filter(|mark| matches!(mark.content, Content::Record { .. })).count();
    u32::try_from(records).unwrap_or(u32::MAX)
}

/// What lies at a range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemRef<'a> {
    /// A record's value.
    Record(&'a [u8]),
    /// Nothing for the client.
    Skip(crate::wire::stream::SkipReason),
    /// Lost.
    Gap(crate::wire::stream::GapReason),
}

#[derive(Debug)]
struct PartitionWindow {
    low: i64,
    next: i64,
    chunks: VecDeque<Arc<Chunk>>,
}

/// What the window has at a cursor.
#[derive(Clone, Debug)]
pub enum Read {
    /// The cursor lies below the window, which begins here.
    Below(i64),
    /// A chunk that holds the cursor.
    Chunk(Arc<Chunk>),
    /// Nothing yet: the cursor has reached the end, or lies beyond it.
    End,
}

/// The window over all partitions.
#[derive(Debug)]
pub struct Window {
    max_bytes: usize,
    max_records: usize,
    bytes: usize,
    records: usize,
    partitions: BTreeMap<i32, PartitionWindow>,
    /// The partition of each chunk, oldest first.
    order: VecDeque<i32>,
    /// Records of the oldest chunk that no longer count as kept.
    dropped_of_oldest: u32,
}

impl Window {
    /// An empty window of at most `max_bytes` and `max_records`. The newest chunk is kept even when it alone is larger.
    pub const fn new(max_bytes: usize, max_records: usize) -> Self {
        Self {
            max_bytes,
            max_records,
            bytes: 0,
            records: 0,
            partitions: BTreeMap::new(),
            order: VecDeque::new(),
            dropped_of_oldest: 0,
        }
    }

    /// Begins a partition at `start`, unless it is there already.
    pub fn open(&mut self, partition: i32, start: i64) {
        let empty = PartitionWindow { low: start, next: start, chunks: VecDeque::new() };
        self.partitions.entry(partition).or_insert(empty);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.max_bytes, self.max_records);
    }

    /// Bytes held.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records held.
    pub const fn records(&self) -> usize {
        self.records - self.dropped_of_oldest as usize
    }

    /// How much of the bound that is nearest is used, from 0 to about 1.
    pub fn used_ratio(&self) -> f64 {
        let bytes = self.bytes as f64 / self.max_bytes.max(1) as f64;
        bytes.max(self.records() as f64 / self.max_records.max(1) as f64)
    }

    /// Partition, first offset kept and end, ascending by partition.
    pub fn bounds(&self) -> impl Iterator<Item = (i32, i64, i64)> {
        self.partitions.iter().map(|(partition, window)| (*partition, window.low, window.next))
    }

    /// First offset kept and end of a partition.
    pub fn bounds_of(&self, partition: i32) -> Option<(i64, i64)> {
        self.partitions.get(&partition).map(|window| (window.low, window.next))
    }

    /// Appends a chunk and makes room for it.
    ///
    /// # Errors
    /// When it does not begin where its partition ends; nothing changes then.
    pub fn append(&mut self, chunk: Arc<Chunk>) -> Result<(), Misaligned> {
        let window = self.partitions.entry(chunk.partition).or_insert_with(|| PartitionWindow {
            low: chunk.first,
            next: chunk.first,
            chunks: VecDeque::new(),
        });
        if chunk.first != window.next {
            return Err(Misaligned { expected: window.next, found: chunk.first });
        }
        window.next = chunk.next;
        self.bytes += chunk.weight();
        self.records += chunk.records as usize;
        self.order.push_back(chunk.partition);
        window.chunks.push_back(chunk);
        self.make_room();
        Ok(())
    }

    /// What there is at `cursor`. An unknown partition has nothing.
    pub fn read(&self, partition: i32, cursor: i64) -> Read {
        let Some(window) = self.partitions.get(&partition) else { return Read::End };
        if cursor < window.low {
            return Read::Below(window.low);
        }
        let index = window.chunks.partition_point(|chunk| chunk.next <= cursor);
        window.chunks.get(index).map_or(Read::End, |chunk| Read::Chunk(Arc::clone(chunk)))
    }

    fn make_room(&mut self) {
        while self.order.len() > 1 {
            let Some(oldest) = self.oldest() else { return };
            let whole = oldest.records as usize;
            let over_bytes = self.bytes > self.max_bytes;
            if !over_bytes && self.records.saturating_sub(whole) < self.max_records {
                break;
            }
            self.drop_oldest();
        }
        if self.records > self.max_records
            && let Some(oldest) = self.oldest()
        {
            self.dropped_of_oldest = u32::try_from(self.records - self.max_records).unwrap_or(u32::MAX);
            let floor = oldest.floor_without(self.dropped_of_oldest);
            if let Some(window) = self.partitions.get_mut(&oldest.partition) {
                window.low = window.low.max(floor);
            }
        }
    }

    fn oldest(&self) -> Option<Arc<Chunk>> {
        let partition = self.order.front()?;
        self.partitions.get(partition)?.chunks.front().cloned()
    }

    fn drop_oldest(&mut self) {
        let Some(partition) = self.order.pop_front() else { return };
        self.dropped_of_oldest = 0;
        if let Some(window) = self.partitions.get_mut(&partition)
            && let Some(chunk) = window.chunks.pop_front()
        {
            window.low = chunk.next;
            self.bytes -= chunk.weight();
            self.records -= chunk.records as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stream::{Frame, SkipReason, item};
    use proptest::prelude::*;
    use prost::Message;

    fn chunk(partition: i32, first: i64, records: i64, value: usize) -> Arc<Chunk> {
        let mut builder = FrameBuilder::with_capacity(0);
        for offset in first..first + records {
            builder.record(offset, 0, &vec![1; value], &[]);
        }
        let next = first + records;
        Arc::new(Chunk::new(
            partition,
            first,
            next,
            u32::try_from(records).unwrap(),
            builder.seal(partition, first, next),
        ))
    }

    #[test]
    fn the_newest_records_are_kept_to_the_exact_number() {
        for size in [1, 3, 7, 20, 33] {
            let mut window = Window::new(usize::MAX, 20);
            window.open(0, 0);
            let mut offset = 0;
            while offset < 100 {
                window.append(chunk(0, offset, size.min(100 - offset), 10)).unwrap();
                offset += size.min(100 - offset);
                assert_eq!(window.records(), 20.min(usize::try_from(offset).unwrap()), "chunks of {size}");
                assert_eq!(window.bounds_of(0), Some(((offset - 20).max(0), offset)));
            }
        }
    }

    #[test]
    fn the_byte_budget_is_shared_and_the_oldest_goes_first() {
        let weight = chunk(1, 3, 1, 1000).weight();
        let mut window = Window::new(weight * 4, usize::MAX);
        for (partition, first) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)] {
            window.append(chunk(partition, first, 1, 1000)).unwrap();
            assert!(window.bytes() <= weight * 4);
        }
        assert_eq!(window.bounds().collect::<Vec<_>>(), vec![(0, 2, 2), (1, 0, 4)]);
        assert!(matches!(window.read(0, 0), Read::Below(2)));
        assert!(matches!(window.read(0, 2), Read::End));
        assert!(matches!(window.read(1, 9), Read::End));
    }

    #[test]
    fn one_chunk_over_the_budget_is_kept_alone() {
        let mut window = Window::new(10, 5);
        window.append(chunk(0, 0, 3, 1000)).unwrap();
        window.append(chunk(0, 3, 3, 1000)).unwrap();
        assert_eq!(window.bounds_of(0), Some((3, 6)));
    }

    #[test]
    fn a_chunk_that_does_not_touch_is_refused() {
        let mut window = Window::new(usize::MAX, usize::MAX);
        window.open(0, 5);
        assert_eq!(window.append(chunk(0, 6, 1, 1)), Err(Misaligned { expected: 5, found: 6 }));
        assert_eq!(window.append(chunk(0, 4, 1, 1)), Err(Misaligned { expected: 5, found: 4 }));
        window.append(chunk(0, 5, 1, 1)).unwrap();
    }

    #[test]
    fn a_part_ends_before_the_first_record_too_many() {
        let mut builder = FrameBuilder::with_capacity(0);
        builder.record(10, 0, b"a", &[]);
        builder.skip(11, 14, SkipReason::NoRecord);
        builder.record(14, 0, b"b", &[]);
        builder.record(15, 0, b"c", &[]);
        builder.skip(16, 20, SkipReason::NoRecord);
        let chunk = Chunk::new(2, 10, 20, 3, builder.seal(2, 10, 20));
        let table = [
            ((10, 0), (0, 10)),
            ((10, 1), (1, 14)),
            ((10, 2), (2, 15)),
            ((10, 3), (3, 20)),
            ((11, 0), (0, 14)),
            ((12, 0), (0, 14)),
            ((12, 1), (1, 15)),
            ((14, 0), (0, 14)),
            ((15, 1), (1, 20)),
            ((16, 0), (0, 20)),
            ((18, 9), (0, 20)),
        ];
        for ((cursor, max), (records, next)) in table {
            let (message, got, until) = chunk.message_of(cursor, max);
            assert_eq!((got, until), (records, next), "{cursor} {max}");
            assert_eq!(message.is_empty(), until == cursor);
            if !message.is_empty() {
                let frame = Frame::decode(&message[2..]).unwrap();
                assert_eq!((frame.first_offset, frame.next_offset), (cursor, next));
                let count = frame.items.iter().filter(|item| matches!(item.kind, Some(item::Kind::Record(_)))).count();
                assert_eq!(count, records as usize);
            }
        }
    }

    proptest! {
        /// From any cursor, both ways of reading give exactly the offsets from the cursor on.
        #[test]
        fn a_part_of_a_chunk_covers_exactly_the_rest(
            runs in proptest::collection::vec((any::<bool>(), 1..4_i64), 1..12),
            from in 0..40_i64,
        ) {
            let mut builder = FrameBuilder::with_capacity(0);
            let (mut at, mut records) = (100, 0);
            for (record, len) in &runs {
                if *record {
                    for offset in at..at + len { builder.record(offset, 0, &offset.to_be_bytes(), &[]); records += 1; }
                } else {
                    builder.skip(at, at + len, SkipReason::NoRecord);
                }
                at += len;
            }
            let chunk = Chunk::new(4, 100, at, records, builder.seal(4, 100, at));
            let cursor = (95 + from).min(at - 1);
            let (message, count) = chunk.message_from(cursor);
            let start = match message[1] { 126 => 4, 127 => 10, _ => 2 };
            let frame = Frame::decode(&message[start..]).unwrap();
            prop_assert_eq!(frame.first_offset, cursor.max(100));
            prop_assert_eq!(frame.next_offset, at);
            let mut position = frame.first_offset;
            let mut seen = 0;
            for (item, (first, next, item_ref)) in frame.items.iter().zip(chunk.items_from(cursor)) {
                prop_assert_eq!(first, position);
                match item.kind.as_ref().unwrap() {
                    item::Kind::Record(record) => {
                        prop_assert_eq!(record.offset, first);
                        prop_assert_eq!(ItemRef::Record(&record.value), item_ref);
                        prop_assert_eq!(&record.value[..], &first.to_be_bytes()[..]);
                        seen += 1;
                    }
                    item::Kind::Skip(skip) => prop_assert_eq!((skip.first_offset, skip.next_offset), (first, next)),
                    item::Kind::Gap(_) => prop_assert!(false),
                }
                position = next;
            }
            prop_assert_eq!(position, at);
            prop_assert_eq!(seen, count);
            prop_assert_eq!(frame.items.len(), chunk.items_from(cursor).count());
        }
    }
}
