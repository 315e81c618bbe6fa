//! Whether a stream holds another log than the one that is written: offsets that went back under the same name while nobody
//! looked.
//!
//! Redis refuses entries below its newest one, so the records of the log that is over would stand for those of the new one.
//! What it refuses is therefore looked at, and a stream that says something else is dropped.

use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::redis::{Value, pipe};

use super::block;
use super::connect::Connection;
use super::fault::{Failure, Fault};
use super::writer::Batch;
use crate::pipeline::window::{Chunk, ItemRef};

/// Whether two chunks of one partition have different records at the same offset. What only one of them has proves nothing:
/// compaction takes records away.
fn contradict(one: &Chunk, other: &Chunk) -> bool {
    let (low, next) = (one.first.max(other.first), one.next.min(other.next));
    let records = |chunk: &'_ Chunk| -> Vec<(i64, u64)> {
        let items = chunk.items_from(low).take_while(|(first, ..)| *first < next);
        items
            .filter_map(|(first, _, item)| match item {
                ItemRef::Record(value) => Some((first, xxhash_rust::xxh3::xxh3_64(value))),
                ItemRef::Skip(_) | ItemRef::Gap(_) => None,
            })
            .collect()
    };
    let (ones, others) = (records(one), records(other));
    ones.iter().any(|(offset, hash)| {
        let same_offset = others.binary_search_by_key(offset, |(offset, _)| *offset).ok();
        same_offset.and_then(|index| others.get(index)).is_some_and(|(_, other)| other != hash)
    })
}

/// Looks at the entries that stand where these chunks of a batch were refused, and drops the stream if they are of another log.
///
/// # Errors
/// When it was dropped: everything is to be written again. When Redis does not answer.
pub(super) async fn check(
    connection: &Connection,
    batch: &Batch,
    refused: &[Arc<Chunk>],
    deadline: Instant,
) -> Result<(), Failure> {
    let mut look = pipe();
    look.ignore_errors();
    for chunk in refused {
        // An entry is named by its last offset: the first one at or above an offset covers it, if any does.
        look.cmd("XRANGE").arg(&batch.key).arg(chunk.first).arg("+").arg("COUNT").arg(1);
    }
    let answers = connection.ask(Arc::new(look), deadline).await?;
    for (chunk, answer) in refused.iter().zip(answers) {
        let there = block::entries(answer, batch.partition)?.into_iter().next().and_then(Result::ok);
        if there.is_some_and(|there| contradict(chunk, &there.chunk)) {
            let mut drop_it = pipe();
            drop_it.cmd("UNLINK").arg(&batch.key);
            let dropped = connection.ask(Arc::new(drop_it), deadline).await?;
            if let Some(Value::ServerError(error)) = dropped.first() {
                return Err(Failure::from(error));
            }
            let text =
                "the stream held records of another log under the same offsets; it was dropped and is written anew";
            return Err(Failure::new(Fault::Other, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stream::SkipReason;
    use crate::wire::stream_frame::FrameBuilder;

    /// A record per character from an offset on; a dot is an offset without one.
    fn chunk(first: i64, records: &str) -> Chunk {
        let mut builder = FrameBuilder::new();
        let mut count = 0;
        let mut offset = first;
        for record in records.bytes() {
            if record == b'.' {
                builder.skip(offset, offset + 1, SkipReason::NoRecord);
            } else {
                count += 1;
                builder.record(offset, 0, &[record], &[]);
            }
            offset += 1;
        }
        Chunk::new(0, first, offset, count, builder.seal(0, first, offset))
    }

    #[test]
    fn only_different_records_at_one_offset_are_a_contradiction() {
        for (one, other, differ) in [
            ((0, "abc"), (0, "abc"), false),
            ((0, "abc"), (0, "abx"), true),
            ((0, "abc"), (2, "cde"), false),
            ((0, "abc"), (2, "xde"), true),
            ((0, "abc"), (3, "xyz"), false),
            ((0, "abc"), (9, "xyz"), false),
            ((0, "a.c"), (0, "abc"), false),
            ((0, "a.c"), (0, "abx"), true),
            ((5, "..."), (0, "abcdefgh"), false),
        ] {
            let (one, other) = (chunk(one.0, one.1), chunk(other.0, other.1));
            assert_eq!((contradict(&one, &other), contradict(&other, &one)), (differ, differ));
        }
    }
}
