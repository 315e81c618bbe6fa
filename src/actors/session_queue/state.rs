//! What the lock of a session's queue guards: frames and cursors together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::replay::Replay;
use super::threads::ThreadReplay;
use super::{Feed, Position, QueueLimits};
use crate::board::Epoch;
use crate::pipeline::apply_lag::ApplyLag;
use crate::pipeline::filter::Filter;
use crate::wire::control::{self, Dialect};
use crate::wire::ws_frame;

/// How much of a queue goes to the socket at a time, give or take a frame.
const TURN_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct State {
    pub(super) frames: VecDeque<Bytes>,
    /// Of the frames, and of those handed out.
    pub(super) bytes: usize,
    /// Bytes on their way to the socket: handed out, and not yet asked for more.
    pub(super) handed_out: usize,
    pub(super) feed: Feed,
    /// Name of the epoch that the positions belong to.
    pub(super) epoch: Arc<str>,
    pub(super) epoch_number: u64,
    pub(super) positions: Vec<Position>,
    /// Where the client goes on in partitions that are not known yet.
    pub(super) later: Vec<(i32, i64)>,
    pub(super) resume: Option<Replay>,
    /// Changes whenever an answer that is on its way must not count any more.
    pub(super) ticket: u64,
    /// Missed what is named as a gap when the store answers.
    pub(super) skips_to_live: bool,
    /// When the socket last took something, or the queue stopped being empty.
    pub(super) progress: Instant,
    /// When the socket last had room.
    pub(super) polled: Instant,
    pub(super) apply_lag: ApplyLag,
    /// What the session gets; `None`: everything.
    pub(super) filter: Option<Arc<Filter>>,
    /// Partitions whose cursor went on over withheld offsets, and the first of these.
    pub(super) withheld: BTreeMap<i32, i64>,
    /// Bytes that were queued after data was queued last: what a chunk may go over the bound is not held against answers.
    pub(super) data_top: usize,
    /// It asked for threads, and is not through with them.
    pub(super) threads: Option<ThreadReplay>,
    /// What the client calls itself.
    pub(super) client: Option<Arc<str>>,
}

impl State {
    /// From now on the positions belong to this epoch.
    pub(super) fn enter(&mut self, epoch: &Epoch) {
        self.epoch = epoch.name.as_str().into();
        self.epoch_number = epoch.number;
    }

    /// Moves frames of about [`TURN_BYTES`] to `turn`; how many bytes that are.
    pub(super) fn hand_out(&mut self, turn: &mut VecDeque<Bytes>) -> usize {
        if self.bytes <= TURN_BYTES {
            std::mem::swap(&mut self.frames, turn);
            self.handed_out = self.bytes;
        } else {
            while self.handed_out < TURN_BYTES
                && let Some(frame) = self.frames.pop_front()
            {
                self.handed_out += frame.len();
                turn.push_back(frame);
            }
        }
        self.handed_out
    }

    pub(super) fn push(&mut self, frame: Bytes, now: Instant) {
        if frame.is_empty() {
            return;
        }
        if self.bytes == 0 {
            self.progress = now;
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(super) fn is_full(&self, limits: &QueueLimits) -> bool {
        self.bytes >= limits.queued_bytes || self.apply_lag.unapplied_bytes() >= limits.unapplied_bytes
    }

    /// Whether the store is to be asked now; notes that it is.
    pub(super) fn wants_more(&mut self, limits: &QueueLimits) -> bool {
        let wants = self.feed == (Feed::Behind { asked: false })
            && self.bytes <= limits.queued_bytes / 4
            && self.apply_lag.unapplied_bytes() <= limits.unapplied_bytes / 2;
        if wants {
            self.feed = Feed::Behind { asked: true };
        }
        wants
    }

    /// Whether the client must not even know that there is this partition.
    pub(super) fn hides(&self, partition: i32) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.grant().shows(partition))
    }

    pub(super) fn sent(&self, partition: i32) -> Option<i64> {
        let index = self.positions.binary_search_by_key(&partition, |position| position.partition).ok()?;
        self.positions.get(index).map(|position| position.sent)
    }

    /// Whether nothing was sent yet of a partition that began at the oldest that is kept.
    pub(super) fn begins_with_oldest(&self, partition: i32) -> bool {
        let position = self.positions.iter().find(|position| position.partition == partition);
        position.is_some_and(|position| position.oldest && position.sent == position.start)
    }

    /// A partition that is new to the session begins at `start`, unless its client has had something of it elsewhere.
    pub(super) fn add(&mut self, partition: i32, start: i64, dialect: Dialect, now: Instant) {
        let at = self.later.iter().position(|(later, _)| *later == partition);
        let start = at.map_or(start, |at| self.later.swap_remove(at).1);
        let position = Position::at(start, partition);
        let at = self.positions.partition_point(|position| position.partition < partition);
        self.positions.insert(at, position);
        if dialect == Dialect::V2 {
            self.push(ws_frame::text(&control::partition_added(partition, start)), now);
        }
    }

    /// Queues data that brings a partition to `next`.
    pub(super) fn advance(&mut self, partition: i32, next: i64, frame: Bytes, now: Instant) {
        self.tell_withheld(partition, now);
        if let Ok(index) = self.positions.binary_search_by_key(&partition, |position| position.partition)
            && let Some(position) = self.positions.get_mut(index)
        {
            let offsets = next.abs_diff(position.sent);
            position.sent = next;
            self.apply_lag.sent(offsets, frame.len(), now);
        }
        self.push(frame, now);
        self.data_top = self.bytes;
    }
}
