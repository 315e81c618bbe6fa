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

/// What the session gets of a chunk from `cursor` on, which lies below the chunk's end. `None`: nothing but skipped
/// offsets that need not be told at once.
pub fn sieve(chunk: &Chunk, cursor: i64, filter: &Filter) -> Option<Vec<Run>> {
    let passing = filter.select(chunk);
    let marks = &chunk.sealed().marks;
    let mut runs: Vec<Run> = Vec::new();
    let mut record = 0;
    for (index, mark) in marks.iter().enumerate() {
        let next = marks.get(index + 1).map_or(chunk.next, |mark| mark.first);
        let first = mark.first.max(cursor);
        let passes = match mark.content {
            Content::Record { .. } => {
                record += 1;
                passing.as_ref().is_some_and(|passing| passing.get(record - 1) == Some(&true))
            }
            Content::Skip(_) | Content::Gap(_) => false,
        };
        if next <= cursor {
            continue;
        }
        match mark.content {
            Content::Record { .. } if passes => match runs.last_mut() {
                Some(Run::Records(range)) => range.end = index + 1,
                _ => runs.push(Run::Records(index..index + 1)),
            },
            Content::Gap(reason) => runs.push(Run::Gap(first, next, reason)),
            Content::Record { .. } => skip(&mut runs, first, next, SkipReason::Filtered),
            // Whose a bad record is, nobody knows: who must not learn of others does not learn of it.
            Content::Skip(_) if filter.is_restricted() => skip(&mut runs, first, next, SkipReason::Filtered),
            Content::Skip(reason) => skip(&mut runs, first, next, reason),
        }
    }
    let blank = |run: &Run| matches!(run, Run::Skip(_, _, SkipReason::Filtered | SkipReason::NoRecord));
    (!runs.iter().all(blank)).then_some(runs)
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

/// The v2 message of the runs, which begin at `cursor` or at the chunk's first offset, and how many records it holds.
pub fn message(chunk: &Chunk, cursor: i64, runs: &[Run]) -> (Bytes, u32) {
    let mut builder = FrameBuilder::new();
    let mut records = 0;
    for run in runs {
        match run {
            Run::Records(range) => {
                records += range.len();
                builder.copy_items(chunk.sealed(), range.clone());
            }
            Run::Skip(first, next, reason) => builder.skip(*first, *next, *reason),
            Run::Gap(first, next, reason) => builder.gap(*first, *next, *reason),
        }
    }
    let sealed = builder.seal(chunk.partition, cursor.max(chunk.first), chunk.next);
    (sealed.message, u32::try_from(records).unwrap_or(u32::MAX))
}

/// The runs item by item: first offset, next offset, and what lies there.
pub fn items<'a>(chunk: &'a Chunk, runs: &'a [Run]) -> impl Iterator<Item = (i64, i64, ItemRef<'a>)> {
    runs.iter().flat_map(|run| {
        let (records, range) = match run {
            Run::Records(range) => (range.clone(), None),
            Run::Skip(first, next, reason) => (0..0, Some((*first, *next, ItemRef::Skip(*reason)))),
            Run::Gap(first, next, reason) => (0..0, Some((*first, *next, ItemRef::Gap(*reason)))),
        };
        let record = |mark: &Mark| Some((mark.first, mark.first + 1, ItemRef::Record(chunk.value(mark)?)));
        chunk.sealed().marks.get(records).unwrap_or(&[]).iter().filter_map(record).chain(range)
    })
}
