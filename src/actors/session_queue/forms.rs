//! In which form a session gets a chunk: the shared one, or what its dialect and its filter make of it.
//!
//! A form of a whole chunk is made when the first session needs it, and shared by all that follow.

use std::sync::Arc;

use bytes::Bytes;

use super::v1;
use crate::pipeline::filter::Filter;
use crate::pipeline::sieve;
use crate::pipeline::window::Chunk;
use crate::wire::control::Dialect;

/// Filtered forms that are kept for one chunk; sessions beyond get one of their own.
const MAX_FILTERED: usize = 256;

/// A part of a chunk, from a session's cursor on.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// `None`: nothing that has to be told at once.
    pub frame: Option<Bytes>,
    /// Records in it.
    pub records: u32,
    /// The offset after it; the cursor itself when not even the first record may be sent.
    pub next: i64,
}

/// The forms of one chunk.
#[derive(Debug, Default)]
pub struct Forms {
    v1: Option<Bytes>,
    filtered: Vec<(Dialect, Arc<Filter>, Form)>,
}

impl Forms {
    /// The part of `chunk` from `sent` on with at most `max_records`, for one session.
    pub(super) fn of(
        &mut self,
        chunk: &Chunk,
        sent: i64,
        max_records: u32,
        dialect: Dialect,
        filter: Option<&Arc<Filter>>,
    ) -> Form {
        let whole = sent <= chunk.first && chunk.records <= max_records;
        let Some(filter) = filter else { return self.unfiltered(chunk, sent, max_records, dialect, whole) };
        let same = |known: &Dialect, by: &Arc<Filter>| *known == dialect && (Arc::ptr_eq(by, filter) || by == filter);
        if let Some((_, _, form)) = self.filtered.iter().find(|(known, by, _)| whole && same(known, by)) {
            return form.clone();
        }
        let part = sieve::sieve(chunk, sent, max_records, filter);
        let message = |part: &sieve::Part| match dialect {
            Dialect::V2 => sieve::message(chunk, sent, part),
            Dialect::V1 => v1::encode(chunk, sieve::items(chunk, part)).0,
        };
        let frame = (!part.is_blank()).then(|| message(&part));
        let form = Form { frame, records: part.records, next: part.next };
        if whole && self.filtered.len() < MAX_FILTERED {
            self.filtered.push((dialect, Arc::clone(filter), form.clone()));
        }
        form
    }

    fn unfiltered(&mut self, chunk: &Chunk, sent: i64, max_records: u32, dialect: Dialect, whole: bool) -> Form {
        let (frame, records, next) = match dialect {
            Dialect::V2 => chunk.message_of(sent, max_records),
            Dialect::V1 if whole => {
                let frames = self.v1.get_or_insert_with(|| v1::encode(chunk, chunk.items_from(sent)).0);
                (frames.clone(), chunk.records, chunk.next)
            }
            Dialect::V1 => {
                let (until, _) = chunk.end_of(sent, max_records);
                let (frame, records) =
                    v1::encode(chunk, chunk.items_from(sent).take_while(|(first, ..)| *first < until));
                (frame, records, until)
            }
        };
        Form { frame: Some(frame), records, next }
    }
}
