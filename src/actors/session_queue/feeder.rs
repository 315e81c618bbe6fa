//! The store's answer to a session that asked: the queue is filled from the session's cursors on, under its lock.

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::replay::Replay;
use super::threads::ThreadReplay;
use super::v1::gap_name;
use super::{Feed, Forms, Joined, SessionQueue, State};
use crate::actors::resumes::Ended;
use crate::pipeline::window::Chunk;
use crate::wire::control::{self, Complete, Dialect, From, ResetReason};
use crate::wire::stream::{GapReason, SkipReason};
use crate::wire::stream_frame::FrameBuilder;
use crate::wire::ws_frame::{self, Opcode};

/// Bytes of chunks that one answer looks through for a session with a filter. What it passes over fills no queue, so this
/// is what keeps a narrow filter from holding up the store.
const MAX_SCANNED: usize = 4 * 1024 * 1024;

/// Bytes, unpacked, that one answer of the store looks through for a session that asked for threads. Nobody shares that work,
/// and between two answers the store has its turn with what is live.
pub(super) const MAX_LOOKED_THROUGH: usize = 256 * 1024;

/// The store's answer to a session that asked, under the queue's lock.
#[derive(Debug)]
pub struct Feeder<'a> {
    pub(super) queue: &'a SessionQueue,
    pub(super) state: MutexGuard<'a, State>,
    pub(super) now: Instant,
    pub(super) records: u64,
    pub(super) scanned: usize,
    /// Bytes that may still be looked through for threads.
    pub(super) left: usize,
}

impl Feeder<'_> {
    /// Whether the queue takes no more for now, or this answer has looked through enough.
    pub fn is_full(&self) -> bool {
        self.state.is_full(&self.queue.limits) || self.scanned >= MAX_SCANNED || self.left == 0
    }

    /// The session's cursor in a partition; `None` when it is none of the client's. One that is new to the session begins
    /// at `low`, or where its client was in it, and the client is told.
    pub fn cursor(&mut self, partition: i32, low: i64) -> Option<i64> {
        if let Some(sent) = self.state.sent(partition) {
            return Some(sent);
        }
        if self.state.hides(partition) {
            return None;
        }
        self.state.add(partition, low, self.queue.info.dialect, self.now);
        self.state.sent(partition)
    }

    /// Queues a chunk from the cursor on, in pages, as far as the resume may go.
    pub fn chunk(&mut self, chunk: &Chunk) -> Fed {
        let mut fed = Fed { moved: false, capped: false };
        let mut forms = Forms::default();
        if self.state.filter.is_some() || self.state.threads.is_some() {
            self.scanned += chunk.weight();
        }
        loop {
            let Some(sent) = self.state.sent(chunk.partition) else { return fed };
            if chunk.first > sent || chunk.next <= sent || self.left == 0 {
                return fed;
            }
            let allowance = self.state.resume.as_ref().map_or(u32::MAX, Replay::allowance);
            let dialect = self.queue.info.dialect;
            let State { threads, filter, .. } = &mut *self.state;
            let form = match threads.as_mut().filter(|threads| threads.applies(chunk.partition, sent)) {
                Some(threads) => threads.form(chunk, sent, allowance, filter.as_deref(), &mut self.left),
                None => forms.of(chunk, sent, allowance, dialect, filter.as_ref()),
            };
            let records = form.records;
            if form.next <= sent {
                fed.capped = true;
                return fed;
            }
            fed.moved = true;
            self.records += u64::from(records);
            self.state.take(chunk.partition, form, dialect, self.now);
            if self.state.resume.as_mut().is_some_and(|resume| resume.sent(records)) {
                self.end_page();
            }
        }
    }

    /// The boundary of a page, with the progress so far; v1 has no frame for it.
    fn end_page(&mut self) {
        if self.queue.info.dialect == Dialect::V2
            && let Some(resume) = &self.state.resume
        {
            let text = control::replay_progress(&resume.progress(&self.state.positions));
            self.state.push(ws_frame::text(&text), self.now);
        }
    }

    /// Whether its resume may not send any further record.
    pub fn is_capped(&self) -> bool {
        self.state.resume.as_ref().is_some_and(Replay::is_capped)
    }

    /// Whether what it missed is to be named as a gap, instead of being sent.
    pub fn skips_to_live(&self) -> bool {
        self.state.skips_to_live
    }

    /// Whether this session's client can ask on, so that a limit or an outage need not cost it a gap.
    pub fn can_ask_on(&self) -> bool {
        self.queue.info.dialect == Dialect::V2 && self.state.resume.is_some()
    }

    /// Names `[cursor, low)` as lost to this session; how many offsets that are.
    pub fn gap(&mut self, partition: i32, low: i64, reason: GapReason) -> u64 {
        let Some(sent) = self.state.sent(partition).filter(|sent| *sent < low) else { return 0 };
        if reason == GapReason::Retention && self.state.begins_with_oldest(partition) {
            self.skip(partition, sent, low);
            return 0;
        }
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
        if reason == GapReason::Retention && self.queue.info.dialect == Dialect::V2 {
            let epoch = &self.state.epoch;
            let text = control::cursor_reset(partition, ResetReason::Retention, epoch, low);
            self.state.push(ws_frame::text(&text), self.now);
        }
        low.abs_diff(sent)
    }

    /// Nothing was ever kept for this session in `[sent, low)`.
    fn skip(&mut self, partition: i32, sent: i64, low: i64) {
        let frame = match self.queue.info.dialect {
            Dialect::V2 => {
                let mut builder = FrameBuilder::with_capacity(32);
                builder.skip(sent, low, SkipReason::NoRecord);
                builder.seal(partition, sent, low).message
            }
            Dialect::V1 => bytes::Bytes::new(),
        };
        self.state.advance(partition, low, frame, self.now);
    }

    /// Gaps in threads that were told since this was last asked, and sequences named in them.
    pub fn take_thread_gaps(&mut self) -> (u64, u64) {
        self.state.threads.as_mut().map(ThreadReplay::take_gaps).unwrap_or_default()
    }

    /// Records queued by this feeder.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The session has reached the end everywhere: it is live from here on. Tells the client when that ends a resume.
    pub fn live(mut self, generation: u64) -> Joined {
        let was_live = matches!(self.state.feed, Feed::Live(_));
        self.state.feed = Feed::Live(generation);
        self.state.skips_to_live = false;
        let joined = match self.end_resume(false) {
            Some(ended) => Joined::Resumed(ended),
            None if was_live => Joined::StayedLive,
            None => Joined::CaughtUp,
        };
        self.wake();
        joined
    }

    /// The resume ends with more to come: the client is told, and gets nothing more until it asks on.
    pub fn park(mut self) -> Ended {
        self.state.feed = Feed::Parked;
        let ended = self.end_resume(true).unwrap_or_default();
        self.wake();
        ended
    }

    /// v1, whose clients cannot ask on: the resume is over, and what it did not send was named; live comes next.
    pub fn live_capped(mut self, generation: u64) -> Ended {
        self.state.feed = Feed::Live(generation);
        let ended = self.end_resume(true).unwrap_or_default();
        self.wake();
        ended
    }

    fn end_resume(&mut self, capped: bool) -> Option<Ended> {
        let resume = self.state.resume.take()?;
        let threads = self.state.threads.take().is_some();
        // The end says where the client stands.
        self.state.tell_all_withheld(self.now);
        let next: Vec<_> = self.state.positions.iter().map(|p| (p.partition, p.sent)).collect();
        let (from, replayed, epoch) = (resume.from, resume.replayed(), Arc::clone(&self.state.epoch));
        let complete = Complete { from, replayed, next_offsets: &next, epoch: &epoch, capped, threads };
        let text = control::replay_complete(&complete, self.queue.info.dialect);
        self.state.push(ws_frame::text(&text), self.now);
        Some(Ended { replayed, took: resume.took(self.now), threads })
    }

    /// Tells the client something in passing.
    pub fn tell(&mut self, text: &str) {
        self.state.push(ws_frame::text(text), self.now);
    }

    /// The queue is full before the end was reached, or there is more to ask for: it asks again once it has drained, see
    /// [`SessionQueue::ask_if_drained`].
    pub fn behind(mut self) {
        self.state.feed = Feed::Behind { asked: false };
        self.wake();
    }

    /// History has to be read first. The ticket opens the queue for it.
    pub fn await_history(mut self) -> u64 {
        self.state.feed = Feed::Behind { asked: true };
        self.state.ticket += 1;
        let ticket = self.state.ticket;
        self.wake();
        ticket
    }

    /// Everything below was queued, for a partition that the session knows.
    pub fn sent(&self, partition: i32) -> Option<i64> {
        self.state.sent(partition)
    }

    /// Closes the queue again; the socket is told that there is something.
    pub fn wake(self) {
        let queue = self.queue;
        drop(self);
        queue.waker.wake();
    }
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Something of it was queued.
    pub moved: bool,
    /// More of it than the resume may send is left.
    pub capped: bool,
}
