//! The part of a chunk that a session with a filter gets: what is withheld becomes skipped ranges, merged with their
//! neighbours, so that the session's cursor goes on exactly.
//!
//! It must not know what the filter looks at, nor which session it is for.

use std::ops::Range;

use bytes::Bytes;

use super::filter::Filter;
use super::window::{Chunk, ItemRef};
use crate::wire::stream::{GapReason, SkipReason};
use crate::wire::stream_frame::{Content, FrameBuilder, Mark};

/// Neighbouring items of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Records, as indices into the chunk's table of contents.
    Records(Range<usize>),
    /// `[first, next)` carries nothing for the session.
    Skip(i64, i64, SkipReason),
    /// `[first, next)` is lost.
    Gap(i64, i64, GapReason),
}

/// The part of a chunk that a session gets, from its cursor on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What lies there, in order and without holes.
    pub runs: Vec<Run>,
    /// Records in it.
    pub records: u32,
    /// The offset after it.
    pub next: i64,
}

impl Part {
    /// Whether there is nothing but skipped offsets, which need not be told at once.
    pub fn is_blank(&self) -> bool {
        self.runs.iter().all(|run| matches!(run, Run::Skip(_, _, SkipReason::Filtered | SkipReason::NoRecord)))
    }
}

/// What the session gets of a chunk from `cursor` on with at most `max_records`. What lies between the last of them and the
/// next record for the session goes with it.
pub fn sieve(chunk: &Chunk, cursor: i64, max_records: u32, filter: &Filter) -> Part {
    let passing = filter.select(chunk);
    let marks = &chunk.sealed().marks;
    let mut part = Part { runs: Vec::new(), records: 0, next: chunk.next };
    let mut record = 0;
    for (index, mark) in marks.iter().enumerate() {
        let next = marks.get(index + 1).map_or(chunk.next, |mark| mark.first);
        let first = mark.first.max(cursor);
        let is_record = matches!(mark.content, Content::Record { .. });
        let passes = is_record && passing.as_ref().is_some_and(|passing| passing.get(record) == Some(&true));
        record += usize::from(is_record);
        if next <= cursor {
            continue;
        }
        match mark.content {
            Content::Record { .. } if passes && part.records == max_records => {
                part.next = first;
                break;
            }
            Content::Record { .. } if passes => {
                part.records += 1;
                match part.runs.last_mut() {
                    Some(Run::Records(range)) => range.end = index + 1,
                    _ => part.runs.push(Run::Records(index..index + 1)),
                }
            }
            Content::Gap(reason) => part.runs.push(Run::Gap(first, next, reason)),
            Content::Record { .. } => skip(&mut part.runs, first, next, SkipReason::Filtered),
            // Whose a bad record is, nobody knows: who must not learn of others does not learn of it.
            Content::Skip(_) if filter.is_restricted() => skip(&mut part.runs, first, next, SkipReason::Filtered),
            Content::Skip(reason) => skip(&mut part.runs, first, next, reason),
        }
    }
    part
}

/// Appends a skip, or extends the last one: offsets without a record and withheld ones are all the same to the client.
fn skip(runs: &mut Vec<Run>, first: i64, next: i64, reason: SkipReason) {
    use SkipReason::{Filtered, NoRecord};
    match runs.last_mut() {
        Some(Run::Skip(_, end, last)) if *last == reason => *end = next,
        Some(Run::Skip(_, end, last @ (Filtered | NoRecord))) if matches!(reason, Filtered | NoRecord) => {
            (*end, *last) = (next, Filtered);
        }
        _ => runs.push(Run::Skip(first, next, reason)),
    }
}

/// The v2 message of a part that was taken at `cursor`.
pub fn message(chunk: &Chunk, cursor: i64, part: &Part) -> Bytes {
    let mut builder = FrameBuilder::new();
    for run in &part.runs {
        match run {
            Run::Records(range) => builder.copy_items(chunk.sealed(), range.start, range.end),
            Run::Skip(first, next, reason) => builder.skip(*first, *next, *reason),
            Run::Gap(first, next, reason) => builder.gap(*first, *next, *reason),
        }
    }
    builder.seal(chunk.partition, cursor.max(chunk.first), part.next).message
}

/// A part item by item: first offset, next offset, and what lies there.
pub fn items<'a>(chunk: &'a Chunk, part: &'a Part) -> impl Iterator<Item = (i64, i64, ItemRef<'a>)> {
    part.runs.iter().flat_map(|run| {
        let (records, range) = match run {
            Run::Records(range) => (range.clone(), None),
            Run::Skip(first, next, reason) => (0..0, Some((*first, *next, ItemRef::Skip(*reason)))),
            Run::Gap(first, next, reason) => (0..0, Some((*first, *next, ItemRef::Gap(*reason)))),
        };
        let record = |mark: &Mark| Some((mark.first, mark.first + 1, ItemRef::Record(chunk.value(mark)?)));
        chunk.sealed().marks.get(records).unwrap_or(&[]).iter().filter_map(record).chain(range)
    })
}
