//! How far a browser's application is behind what was sent to it, in records, bytes and time.
//!
//! A browser takes from its socket whatever comes and queues it without limit, so only its own reports tell what it has
//! dealt with. Marks on the way, a bounded number of them, turn a report of offsets into bytes and age; between two marks
//! both are rounded up. A client that never reports is not measured. It must not know partitions or sessions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Marks kept; with more on the way, age and bytes are told by the older ones.
const MAX_MARKS: usize = 256;
const MARK_INTERVAL: Duration = Duration::from_millis(250);
const MARK_BYTES: u64 = 64 * 1024;

/// What was sent up to some moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// When the first of what lies between the mark before and this one was sent.
    since: Instant,
    offsets: u64,
    bytes: u64,
}

/// Totals of one session, counted from its start.
#[derive(Debug, Default)]
pub struct ApplyLag {
    sent_offsets: u64,
    sent_bytes: u64,
    /// `None` until the client has reported.
    applied_offsets: Option<u64>,
    applied_bytes: u64,
    marks: VecDeque<Mark>,
}

impl ApplyLag {
    /// Data of `bytes` that cover `offsets` go out.
    pub fn sent(&mut self, offsets: u64, bytes: usize, now: Instant) {
        self.sent_offsets += offsets;
        self.sent_bytes += bytes as u64;
        if self.applied_offsets.is_none() {
            return;
        }
        let (offsets, bytes) = (self.sent_offsets, self.sent_bytes);
        let before = self.marks.len().checked_sub(2).and_then(|index| self.marks.get(index)).map(|mark| mark.bytes);
        let before = before.unwrap_or(self.applied_bytes);
        let crowded = self.marks.len() >= MAX_MARKS;
        match self.marks.back_mut() {
            Some(last)
                if crowded
                    || now.saturating_duration_since(last.since) < MARK_INTERVAL
                        && bytes.saturating_sub(before) < MARK_BYTES =>
            {
                last.offsets = offsets;
                last.bytes = bytes;
            }
            _ => self.marks.push_back(Mark { since: now, offsets, bytes }),
        }
    }

    /// The client has applied `offsets` since its start.
    pub fn applied(&mut self, offsets: u64, now: Instant) {
        if self.applied_offsets.is_none() && offsets < self.sent_offsets {
            // The first report: nobody knows when what is not applied was sent.
            self.marks.push_back(Mark { since: now, offsets: self.sent_offsets, bytes: self.sent_bytes });
        }
        self.applied_offsets = Some(offsets);
        while let Some(mark) = self.marks.front().filter(|mark| mark.offsets <= offsets) {
            self.applied_bytes = mark.bytes;
            self.marks.pop_front();
        }
        if offsets >= self.sent_offsets {
            self.applied_bytes = self.sent_bytes;
        }
    }

    /// Offsets that start again: what was sent counts for nothing.
    pub fn reset(&mut self) {
        let reports = self.applied_offsets.map(|_| 0);
        *self = Self { applied_offsets: reports, ..Self::default() };
    }

    /// Offsets sent but not applied, and for how long the oldest of them; `None` until the client has reported.
    pub fn lag(&self, now: Instant) -> Option<(u64, Duration)> {
        let offsets = self.sent_offsets.saturating_sub(self.applied_offsets?);
        let age = match self.marks.front() {
            Some(mark) if offsets > 0 => now.saturating_duration_since(mark.since),
            _ => Duration::ZERO,
        };
        Some((offsets, age))
    }

    /// Bytes sent but not applied; 0 until the client has reported.
    pub fn unapplied_bytes(&self) -> usize {
        let bytes = if self.applied_offsets.is_some() { self.sent_bytes - self.applied_bytes } else { 0 };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_never_reports_is_not_measured() {
        let (start, mut lag) = (Instant::now(), ApplyLag::default());
        lag.sent(1_000, 1_000_000, start);
        assert_eq!((lag.lag(start), lag.unapplied_bytes()), (None, 0));
        lag.applied(1_000, start);
        assert_eq!((lag.lag(start), lag.unapplied_bytes()), (Some((0, Duration::ZERO)), 0));
    }

    #[test]
    fn age_is_that_of_the_oldest_that_is_not_applied() {
        let (start, mut lag) = (Instant::now(), ApplyLag::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        lag.applied(0, start);
        for second in 0..5 {
            lag.sent(10, 1_000, at(second));
        }
        assert_eq!(lag.lag(at(5)), Some((50, Duration::from_secs(5))));
        lag.applied(20, at(5));
        assert_eq!((lag.lag(at(5)), lag.unapplied_bytes()), (Some((30, Duration::from_secs(3))), 3_000));
        lag.applied(50, at(6));
        assert_eq!((lag.lag(at(9)), lag.unapplied_bytes()), (Some((0, Duration::ZERO)), 0));
        lag.reset();
        lag.sent(1, 7, at(9));
        assert_eq!((lag.lag(at(9)), lag.unapplied_bytes()), (Some((1, Duration::ZERO)), 7));
    }

    proptest! {
        /// Never less than what is not applied, and memory stays bounded.
        #[test]
        fn bytes_are_never_understated(
            steps in proptest::collection::vec((1..50_u64, 1..200_000_usize, 0..400_u64, 0..100_u64), 1..600),
        ) {
            let (mut now, mut lag) = (Instant::now(), ApplyLag::default());
            lag.applied(0, now);
            let (mut sent, mut applied) = (Vec::new(), 0);
            for (offsets, bytes, millis, catches_up) in steps {
                now += Duration::from_millis(millis);
                lag.sent(offsets, bytes, now);
                sent.push((offsets, bytes as u64));
                let total: u64 = sent.iter().map(|(offsets, _)| offsets).sum();
                applied = (applied + catches_up).min(total);
                lag.applied(applied, now);
                let (mut end, mut unapplied) = (0, 0);
                for (offsets, bytes) in &sent {
                    end += offsets;
                    if end > applied { unapplied += bytes; }
                }
                prop_assert!(lag.unapplied_bytes() as u64 >= unapplied);
                prop_assert!(lag.marks.len() <= MAX_MARKS);
                prop_assert_eq!(lag.unapplied_bytes() == 0, applied == total);
                prop_assert_eq!(lag.lag(now).unwrap().0, total - applied);
            }
        }
    }
}
