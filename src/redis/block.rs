//! One chunk as one entry of a stream, and back. What is read is checked as if a stranger had written it.

use std::sync::Arc;

use bytes::Bytes;
use deadpool_redis::redis::{Cmd, Value, cmd};

use super::fault::{Failure, Fault};
use crate::pipeline::window::Chunk;
use crate::wire::stream_parse;

/// How entries are written by this version. Others are taken for absent.
const VERSION: &str = "1";
/// Largest entry that is read: a record of the largest size that can be configured, and what surrounds it.
const MAX_ENTRY_BYTES: usize = (1 << 30) + (1 << 20);

/// A chunk, and when it was written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) chunk: Arc<Chunk>,
    pub(super) written_ms: i64,
}

/// The command that appends a chunk. The id is its last offset: offsets up to the largest one fit, since ids are unsigned.
pub(super) fn append(key: &str, chunk: &Chunk, now_ms: i64) -> Cmd {
    let mut command = cmd("XADD");
    command
        .arg(key)
        .arg(format!("{}-1", chunk.next - 1))
        .arg("v")
        .arg(VERSION)
        .arg("f")
        .arg(chunk.first)
        .arg("n")
        .arg(chunk.records)
        .arg("t")
        .arg(now_ms)
        .arg("b")
        .arg(&chunk.message()[..]);
    command
}

/// The entries of an `XRANGE` or `XREVRANGE`, in its order. Those that are damaged or of another version are failures of
/// their own: what they cover is not there.
pub(super) fn entries(reply: Value, partition: i32) -> Result<Vec<Result<Entry, Failure>>, Failure> {
    match reply {
        Value::Array(entries) => Ok(entries.into_iter().map(|entry| read(entry, partition)).collect()),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(Failure::from(&error)),
        _ => Err(corrupt("a range that is no list")),
    }
}

fn corrupt(what: &str) -> Failure {
    Failure::new(Fault::Corrupt, format!("an entry of the stream cannot be used: {what}"))
}

fn read(entry: Value, partition: i32) -> Result<Entry, Failure> {
    let Value::Array(entry) = entry else { return Err(corrupt("not a pair")) };
    let mut parts = entry.into_iter();
    let (Some(id), Some(Value::Array(fields)), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(corrupt("not an id with fields"));
    };
    let last = match &id {
        Value::BulkString(id) => std::str::from_utf8(id).ok().and_then(|id| id.split_once('-')),
        _ => None,
    };
    let last: i64 = last.and_then(|(last, _)| last.parse().ok()).ok_or_else(|| corrupt("its id is no offset"))?;
    let (mut version, mut first, mut records, mut written_ms, mut frame) = (None, None, None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next()) {
        match &name[..] {
            b"v" => version = Some(value),
            b"f" => first = number(&value),
            b"n" => records = number(&value),
            b"t" => written_ms = number(&value),
            b"b" => frame = Some(value),
            _ => {}
        }
    }
    if version.as_deref() != Some(VERSION.as_bytes()) {
        return Err(corrupt("another version has written it"));
    }
    let (Some(first), Some(records), Some(written_ms), Some(frame)) = (first, records, written_ms, frame) else {
        return Err(corrupt("a field is missing"));
    };
    let parsed = stream_parse::parse(Bytes::from(frame), MAX_ENTRY_BYTES).map_err(|e| corrupt(&e.to_string()))?;
    let said = (partition, first, last.checked_add(1), records);
    if said != (parsed.partition, parsed.first, Some(parsed.next), i64::from(parsed.records)) {
        return Err(corrupt("its fields and its frame contradict each other"));
    }
    if parsed.next == parsed.first {
        return Err(corrupt("it covers nothing"));
    }
    let chunk = Chunk::new(partition, parsed.first, parsed.next, parsed.records, parsed.sealed);
    Ok(Entry { chunk: Arc::new(chunk), written_ms })
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stream::SkipReason;
    use crate::wire::stream_frame::FrameBuilder;
    use proptest::prelude::*;

    pub(crate) fn chunk(partition: i32, first: i64, records: i64) -> Chunk {
        let mut builder = FrameBuilder::new();
        for offset in first..first + records {
            builder.record(offset, 5, &offset.to_be_bytes(), &[]);
        }
        builder.skip(first + records, first + records + 2, SkipReason::NoRecord);
        let next = first + records + 2;
        Chunk::new(partition, first, next, u32::try_from(records).unwrap(), builder.seal(partition, first, next))
    }

    /// What Redis answers for an entry that this command has written.
    fn stored(command: &Cmd) -> Vec<Value> {
        let text = command.args_iter().skip(1).map(|arg| match arg {
            deadpool_redis::redis::Arg::Simple(bytes) => Value::BulkString(bytes.to_vec()),
            _ => panic!("an argument without bytes"),
        });
        text.collect()
    }

    fn reply(mut stored: Vec<Value>) -> Value {
        let fields = stored.split_off(2);
        Value::Array(vec![Value::Array(vec![stored.remove(1), Value::Array(fields)])])
    }

    proptest! {
        #[test]
        fn a_chunk_comes_back_as_it_was(
            first in prop_oneof![0..9_i64, (1_i64 << 53)..(1 << 53) + 9, (i64::MAX - 60)..(i64::MAX - 50)],
            records in 0..30_i64,
            partition in 0..900_i32,
        ) {
            let chunk = chunk(partition, first, records);
            let reply = reply(stored(&append("k", &chunk, 77)));
            let entry = entries(reply.clone(), partition).unwrap().remove(0).unwrap();
            prop_assert_eq!(entry.written_ms, 77);
            prop_assert_eq!((entry.chunk.first, entry.chunk.next, entry.chunk.records), (chunk.first, chunk.next, chunk.records));
            prop_assert_eq!(entry.chunk.message(), chunk.message());
            prop_assert!(entry.chunk.items_from(first).eq(chunk.items_from(first)));
            prop_assert!(entries(reply, partition + 1).unwrap()[0].is_err(), "of another partition");
        }

        #[test]
        fn a_damaged_entry_is_a_failure_of_its_own(
            field in 0..11_usize, damage in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let good = chunk(1, 40, 3);
            let mut damaged = stored(&append("k", &good, 77));
            // The names of fields may be anything; then a field is missing. The time may be any number.
            if field != 8 {
                damaged[1 + field] = Value::BulkString(damage);
                let read = entries(reply(damaged), 1).unwrap();
                prop_assert!(read[0].is_err() || read[0].as_ref().unwrap().chunk.message() == good.message());
            }
        }
    }

    #[test]
    fn replies_of_any_shape_are_refused() {
        for value in [Value::Int(1), Value::Okay, Value::BulkString(b"x".to_vec())] {
            assert!(entries(value.clone(), 0).is_err());
            assert!(entries(Value::Array(vec![value.clone()]), 0).unwrap()[0].is_err());
            assert!(entries(Value::Array(vec![Value::Array(vec![value.clone(), value])]), 0).unwrap()[0].is_err());
        }
        assert!(entries(Value::Array(vec![]), 0).unwrap().is_empty());
    }
}
