//! v1 sessions that asked for threads instead of positions: up to where the log ended at the request they get the records
//! of these threads after the sequences that they have, and everything from there on.

use crate::pipeline::filter::Filter;
use crate::pipeline::threads::ThreadCursor;
use crate::pipeline::window::{Chunk, ItemRef};
use crate::wire::control;
use crate::wire::ws_frame::{self, Opcode};

use super::forms::Form;
use super::v1::gap_name;

/// What is left of such a request.
#[derive(Debug)]
pub(super) struct ThreadReplay {
    cursor: ThreadCursor,
    /// Ends of the log at the request, ascending by partition.
    targets: Vec<(i32, i64)>,
    gaps: u64,
    missing: u64,
}

impl ThreadReplay {
    pub(super) const fn new(cursor: ThreadCursor, targets: Vec<(i32, i64)>) -> Self {
        Self { cursor, targets, gaps: 0, missing: 0 }
    }

    /// Whether a session that stands at `sent` is still to get threads only.
    pub(super) fn applies(&self, partition: i32, sent: i64) -> bool {
        sent < self.target(partition)
    }

    /// Partitions that are new since the request have no history.
    fn target(&self, partition: i32) -> i64 {
        let index = self.targets.binary_search_by_key(&partition, |(known, _)| *known).ok();
        index.and_then(|index| self.targets.get(index)).map_or(i64::MIN, |(_, target)| *target)
    }

    /// Gaps told since this was last asked, and sequences named in them.
    pub(super) fn take_gaps(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.gaps), std::mem::take(&mut self.missing))
    }

    /// The part of `chunk` from `sent` on with at most `max_records`, and no further than the end of the log at the request.
    /// It ends when it has looked through `left` bytes, which it counts down; the last record may go over that.
    pub(super) fn form(
        &mut self,
        chunk: &Chunk,
        sent: i64,
        max_records: u32,
        filter: Option<&Filter>,
        left: &mut usize,
    ) -> Form {
        let until = self.target(chunk.partition);
        let passing = filter.map(|filter| filter.select(chunk));
        let passes = |index: usize| match &passing {
            None => true,
            Some(passing) => passing.as_ref().is_some_and(|passing| passing.get(index) == Some(&true)),
        };
        let mut form = Form { frame: None, records: 0, next: chunk.next.min(until) };
        let (mut out, mut text, mut index) = (Vec::new(), Vec::with_capacity(64), 0);
        for (first, next, item) in chunk.items_from(chunk.first) {
            let of_filter = passes(index);
            index += usize::from(matches!(item, ItemRef::Record(_)));
            if first >= until {
                break;
            }
            if next <= sent {
                continue;
            }
            match item {
                ItemRef::Record(value) if of_filter => {
                    if *left == 0 {
                        form.next = first;
                        break;
                    }
                    let found = self.cursor.find(value);
                    *left = left.saturating_sub(self.cursor.take_looked_through());
                    let Some(found) = found else { continue };
                    if form.records == max_records {
                        form.next = first;
                        break;
                    }
                    form.records += 1;
                    for missing in self.cursor.give(&found) {
                        self.gaps += 1;
                        self.missing = self.missing.saturating_add(missing.count);
                        let gap = control::gap_of_thread(&missing.thread, missing.count);
                        ws_frame::append(&mut out, Opcode::Text, gap.as_bytes());
                    }
                    text.clear();
                    control::write_cursor_v1(&mut text, chunk.partition, first);
                    ws_frame::append(&mut out, Opcode::Text, &text);
                    ws_frame::append(&mut out, Opcode::Binary, value);
                }
                ItemRef::Gap(reason) => {
                    let count = next.min(until) - first.max(sent);
                    let gap = control::gap_v1(chunk.partition, count, gap_name(reason));
                    ws_frame::append(&mut out, Opcode::Text, gap.as_bytes());
                }
                // Whose a bad record is, nobody knows.
                ItemRef::Record(_) | ItemRef::Skip(_) => {}
            }
        }
        form.frame = (!out.is_empty()).then(|| out.into());
        form
    }
}
