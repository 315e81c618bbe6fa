//! How one session is served: from its cursors on through the window, until it is live or has to wait.
//!
//! It must not know how chunks come into the window.

use std::sync::Arc;
use std::time::Instant;

use super::{FanOut, Partition};
use crate::actors::resumes;
use crate::actors::session_queue::{Feeder, Joined, SessionQueue};
use crate::messages::{Below, ReadHistory};
use crate::pipeline::window::Read;
use crate::spans::ResumeEnd;
use crate::wire::stream::GapReason;

impl FanOut {
    /// Fills a session's queue from its cursors on; once it has reached the end everywhere it is live, in the same turn.
    /// What lies below the window is left to the readers of history.
    pub fn serve(&mut self, queue: &Arc<SessionQueue>, now: Instant) {
        if self.partitions.is_empty() {
            self.early.push(Arc::clone(queue));
            return;
        }
        match queue.epoch_number() {
            // It has learned of the new log first, or the store has to.
            Some(number) if number > self.epoch || number < self.epoch && !self.place_anew(queue, now) => {
                self.early.push(Arc::clone(queue));
                return;
            }
            _ => {}
        }
        let Some(mut feeder) = queue.feeder(now) else { return };
        let mut capped = false;
        let mut below = Vec::new();
        loop {
            let mut moved = false;
            // One chunk per partition and turn, so that none waits for another's backlog.
            for (partition, low, next) in self.window.bounds() {
                let Some(cursor) = feeder.cursor(partition, low) else { continue };
                if feeder.is_full() {
                    self.metrics.delivered_records.inc_by(feeder.records());
                    feeder.behind();
                    queue.ask_if_drained();
                    return;
                }
                if feeder.skips_to_live() {
                    self.metrics.lost(feeder.gap(partition, next, GapReason::SkippedToLive));
                    continue;
                }
                match self.window.read(partition, cursor) {
                    Read::Below(low) => below.push(Below { partition, until: low }),
                    Read::Chunk(chunk) => {
                        let fed = feeder.chunk(&chunk);
                        moved |= fed.moved;
                        capped |= fed.capped;
                    }
                    Read::End => {}
                }
            }
            if !moved || !below.is_empty() {
                break;
            }
        }
        self.metrics.delivered_records.inc_by(feeder.records());
        let (gaps, missing) = feeder.take_thread_gaps();
        self.metrics.lost_of_threads(gaps, missing);
        capped |= feeder.is_capped() && !below.is_empty();
        if capped {
            self.cap(queue, feeder);
        } else if !below.is_empty() {
            let ticket = feeder.await_history();
            self.wanted.push(ReadHistory { queue: Arc::clone(queue), ticket, epoch: self.epoch, below });
        } else {
            let joined = feeder.live(self.generation);
            self.joined(queue, joined);
        }
    }

    /// Tells a session that its positions are of a log that is over, and places it in the one that is served. False when
    /// that one is over as well.
    pub(super) fn place_anew(&self, queue: &Arc<SessionQueue>, now: Instant) -> bool {
        let stream = self.board.stream();
        if stream.epoch.number != self.epoch {
            return false;
        }
        // All of it is new to a client, also what this instance has not read because the group has committed beyond it.
        let start = |(partition, found): (&i32, &Partition)| {
            let start = found.board.start.get()?;
            let oldest = found.board.low_watermark.get().map_or(start, |low| low.min(start));
            Some((*partition, oldest.max(stream.floor(*partition))))
        };
        let starts: Vec<_> = self.partitions.iter().filter_map(start).collect();
        queue.reset(&stream.as_told(), &starts, now);
        queue.heed_reset(&stream, &self.board, now);
        true
    }

    /// A resume met its limit. A client that can ask on is left where it is; for one that cannot, the rest is named as lost.
    fn cap(&mut self, queue: &Arc<SessionQueue>, mut feeder: Feeder<'_>) {
        if feeder.can_ask_on() {
            let ended = feeder.park();
            self.joined(queue, Joined::Capped(ended));
            return;
        }
        for (partition, _, next) in self.window.bounds() {
            self.metrics.lost(feeder.gap(partition, next, GapReason::SkippedToLive));
        }
        let ended = feeder.live_capped(self.generation);
        self.joined(queue, Joined::Capped(ended));
    }

    /// Counts how a session was answered, and takes it to the live ones unless it is parked.
    fn joined(&mut self, queue: &Arc<SessionQueue>, joined: Joined) {
        let ended = |ended, end| {
            self.metrics.memory_hits.inc();
            resumes::count(&queue.info, &ended, end, &self.metrics, &self.spans);
        };
        match joined {
            Joined::Resumed(resume) => ended(resume, ResumeEnd::Live),
            Joined::Capped(resume) => ended(resume, ResumeEnd::Capped),
            Joined::CaughtUp => self.metrics.promotions.inc(),
            Joined::StayedLive => {}
        }
        if queue.is_live(self.generation) && !self.live.iter().any(|live| Arc::ptr_eq(live, queue)) {
            self.live.push(Arc::clone(queue));
        }
    }
}
