//! The account of one resume: what was sent of it, where its pages end, and when it has to stop. Pure.

use std::time::{Duration, Instant};

use super::{Position, QueueLimits};
use crate::wire::control::{From, Progress};

/// One resume, from its request until it is complete or capped.
#[derive(Debug)]
pub(super) struct Replay {
    /// The strategy.
    pub(super) from: From,
    started: Instant,
    replayed: u64,
    pages: u64,
    page_records: u32,
    page_left: u32,
    total_left: u64,
    /// Where the log ended when the resume was asked: progress is told against that.
    targets: Vec<(i32, i64)>,
}

impl Replay {
    /// A resume of which nothing was sent.
    pub(super) fn new(from: From, limits: &QueueLimits, targets: Vec<(i32, i64)>, now: Instant) -> Self {
        Self {
            from,
            started: now,
            replayed: 0,
            pages: 0,
            page_records: limits.page_records.max(1),
            page_left: limits.page_records.max(1),
            total_left: limits.max_total,
            targets,
        }
    }

    /// Records that may be sent before the page or the whole is full.
    pub(super) fn allowance(&self) -> u32 {
        self.page_left.min(u32::try_from(self.total_left).unwrap_or(u32::MAX))
    }

    /// Records are sent, no more than allowed. Whether that ends a page.
    pub(super) fn sent(&mut self, records: u32) -> bool {
        self.replayed += u64::from(records);
        self.total_left = self.total_left.saturating_sub(u64::from(records));
        self.page_left = self.page_left.saturating_sub(records);
        let ends = self.page_left == 0;
        if ends {
            self.pages += 1;
            self.page_left = self.page_records;
        }
        ends
    }

    /// Whether no further record may be sent.
    pub(super) const fn is_capped(&self) -> bool {
        self.total_left == 0
    }

    /// Records sent so far.
    pub(super) const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Time since the request.
    pub(super) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// What the client is told at the end of a page.
    pub(super) fn progress(&self, positions: &[Position]) -> Progress {
        let (mut done, mut remaining) = (0_u64, 0_u64);
        for position in positions {
            let Ok(index) = self.targets.binary_search_by_key(&position.partition, |(partition, _)| *partition) else {
                continue;
            };
            let target = self.targets.get(index).map_or(position.sent, |(_, target)| *target);
            done += position.sent.min(target).saturating_sub(position.start).max(0).unsigned_abs();
            remaining += target.saturating_sub(position.sent).max(0).unsigned_abs();
        }
        let percent = u128::from(done) * 100 / u128::from((done + remaining).max(1));
        Progress { page: self.pages, replayed: self.replayed, remaining, percent: u8::try_from(percent).unwrap_or(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::session_queue::SlowPolicy;

    const LIMITS: QueueLimits =
        QueueLimits { queued_bytes: 1, unapplied_bytes: 1, page_records: 10, max_total: 25, slow: SlowPolicy::CatchUp };

    #[test]
    fn pages_end_at_their_size_and_the_whole_at_its_limit() {
        let mut replay = Replay::new(From::Earliest, &LIMITS, Vec::new(), Instant::now());
        let mut seen = Vec::new();
        while !replay.is_capped() {
            let allowed = replay.allowance().min(4);
            seen.push((allowed, replay.sent(allowed)));
        }
        assert_eq!(
            seen,
            [(4, false), (4, false), (2, true), (4, false), (4, false), (2, true), (4, false), (1, false)]
        );
        assert_eq!((replay.replayed(), replay.allowance()), (25, 0));
    }

    #[test]
    fn progress_is_told_against_the_end_at_the_request() {
        let mut replay = Replay::new(From::Earliest, &LIMITS, vec![(0, 100), (1, 300)], Instant::now());
        replay.sent(10);
        let position = |partition, start, sent| Position { partition, start, sent, applied: start, oldest: false };
        let at = [position(0, 0, 150), position(1, 200, 200), position(7, 0, 5)];
        assert_eq!(replay.progress(&at), Progress { page: 1, replayed: 10, remaining: 100, percent: 50 });
        assert_eq!(replay.progress(&[position(1, 300, 300)]).remaining, 0);
    }
}
