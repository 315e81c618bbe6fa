//! In which form a session gets a chunk: the shared one, or what its dialect and its filter make of it.
//!
//! A form is made when the first session needs it and shared by all that begin at the chunk's start.

use std::sync::Arc;

use bytes::Bytes;

use super::v1;
use crate::pipeline::filter::Filter;
use crate::pipeline::sieve;
use crate::pipeline::window::Chunk;
use crate::wire::control::Dialect;

/// Filtered forms that are kept for one chunk; sessions beyond get one of their own.
const MAX_FILTERED: usize = 256;

/// A frame and how many records it holds; `None`: nothing that has to be told at once.
pub(super) type Form = Option<(Bytes, u32)>;

/// The forms of one chunk.
#[derive(Debug, Default)]
pub struct Forms {
    v1: Option<Bytes>,
    filtered: Vec<(Dialect, Arc<Filter>, Form)>,
}

impl Forms {
    /// The part of `chunk` from `sent` on, for one session.
    pub(super) fn of(&mut self, chunk: &Chunk, sent: i64, dialect: Dialect, filter: Option<&Arc<Filter>>) -> Form {
        let whole = sent <= chunk.first;
        let Some(filter) = filter else {
            return Some(match dialect {
                Dialect::V2 => chunk.message_from(sent),
                Dialect::V1 if whole => {
                    let frames = self.v1.get_or_insert_with(|| v1::encode(chunk, chunk.items_from(sent)).0);
                    (frames.clone(), chunk.records)
                }
                Dialect::V1 => v1::encode(chunk, chunk.items_from(sent)),
            });
        };
        let same = |(known, by, _): &&(Dialect, Arc<Filter>, Form)| {
            *known == dialect && (Arc::ptr_eq(by, filter) || by == filter)
        };
        if let Some((_, _, form)) = self.filtered.iter().find(|known| whole && same(known)) {
            return form.clone();
        }
        let form = sieve::sieve(chunk, sent, filter).map(|runs| match dialect {
            Dialect::V2 => sieve::message(chunk, sent, &runs),
            Dialect::V1 => v1::encode(chunk, sieve::items(chunk, &runs)),
        });
        if whole && self.filtered.len() < MAX_FILTERED {
            self.filtered.push((dialect, Arc::clone(filter), form.clone()));
        }
        form
    }
}
