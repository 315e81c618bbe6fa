//! The store's answer to a session that asked: the queue is filled from the session's cursors on, under its lock.

use std::sync::MutexGuard;
use std::time::Instant;

use super::v1::gap_name;
use super::{Feed, Forms, Joined, SessionQueue, State};
use crate::pipeline::window::Chunk;
use crate::wire::control::{self, Dialect, From};
use crate::wire::stream::GapReason;
use crate::wire::stream_frame::FrameBuilder;
use crate::wire::ws_frame::{self, Opcode};

/// Bytes of chunks that one answer looks through for a session with a filter. What it passes over fills no queue, so this
/// is what keeps a narrow filter from holding up the store.
const MAX_SCANNED: usize = 4 * 1024 * 1024;

/// The store's answer to a session that asked, under the queue's lock.
#[derive(Debug)]
pub struct Feeder<'a> {
    pub(super) queue: &'a SessionQueue,
    pub(super) state: MutexGuard<'a, State>,
    pub(super) now: Instant,
    pub(super) records: u64,
    pub(super) scanned: usize,
}

impl Feeder<'_> {
    /// Whether the queue takes no more for now, or this answer has looked through enough.
    pub fn is_full(&self) -> bool {
        self.state.is_full(&self.queue.limits) || self.scanned >= MAX_SCANNED
    }

    /// The session's cursor in a partition. One that is new to the session begins at `low`, and the client is told.
    pub fn cursor(&mut self, partition: i32, low: i64) -> i64 {
        if let Some(sent) = self.state.sent(partition) {
            return sent;
        }
        self.state.add(partition, low, self.queue.info.dialect, self.now);
        low
    }

    /// Queues a chunk from the cursor on.
    pub fn chunk(&mut self, chunk: &Chunk) {
        let Some(sent) = self.state.sent(chunk.partition) else { return };
        if chunk.first > sent || chunk.next <= sent {
            return;
        }
        let (dialect, filter) = (self.queue.info.dialect, self.state.filter.as_ref());
        if filter.is_some() {
            self.scanned += chunk.weight();
        }
        let Some((frame, records)) = Forms::default().of(chunk, sent, dialect, filter) else {
            self.state.withhold(chunk.partition, chunk.next, dialect);
            return;
        };
        self.records += u64::from(records);
        self.state.advance(chunk.partition, chunk.next, frame, self.now);
    }

    /// Names `[cursor, low)` as lost to this session; how many offsets that are.
    pub fn gap(&mut self, partition: i32, low: i64, reason: GapReason) -> u64 {
        let Some(sent) = self.state.sent(partition) else { return 0 };
        let frame = match self.queue.info.dialect {
            Dialect::V2 => {
                let mut builder = FrameBuilder::with_capacity(32);
                builder.gap(sent, low, reason);
                builder.seal(partition, sent, low).message
            }
            Dialect::V1 => {
                let mut out = Vec::new();
                // v1 names the last applied offset; a client that never had one is not stale.
                if sent > 0 && self.state.resume.as_ref().is_some_and(|resume| resume.from == From::Cursor) {
                    let stale = control::cursor_stale(partition, sent - 1, low);
                    ws_frame::append(&mut out, Opcode::Text, stale.as_bytes());
                }
                let gap = control::gap_v1(partition, low - sent, gap_name(reason));
                ws_frame::append(&mut out, Opcode::Text, gap.as_bytes());
                out.into()
            }
        };
        self.state.advance(partition, low, frame, self.now);
        low.abs_diff(sent)
    }

    /// Records queued by this feeder.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The session has reached the end everywhere: it is live from here on. Tells the client when that ends a resume.
    pub fn live(mut self, generation: u64) -> Joined {
        let was_live = matches!(self.state.feed, Feed::Live(_));
        if self.state.resume.is_some() {
            // What comes next says where the client stands.
            self.state.tell_all_withheld(self.now);
        }
        self.state.feed = Feed::Live(generation);
        let resume = self.state.resume.take();
        let joined = if let Some(resume) = resume {
            let replayed = resume.replayed + self.records;
            let next: Vec<_> = self.state.positions.iter().map(|p| (p.partition, p.sent)).collect();
            let text = control::replay_complete(resume.from, self.queue.info.dialect, replayed, &next);
            self.state.push(ws_frame::text(&text), self.now);
            Joined::Resumed { replayed, took: self.now.saturating_duration_since(resume.started) }
        } else if was_live {
            Joined::StayedLive
        } else {
            Joined::CaughtUp
        };
        let queue = self.queue;
        drop(self);
        queue.waker.wake();
        joined
    }

    /// The end was not reached: the session asks again once its queue has drained, see [`SessionQueue::ask_if_drained`].
    pub fn behind(mut self) {
        self.state.feed = Feed::Behind { asked: false };
        let records = self.records;
        if let Some(resume) = &mut self.state.resume {
            resume.replayed += records;
        }
        let queue = self.queue;
        drop(self);
        queue.waker.wake();
    }
}
