//! The numbers of one thread: which come in order, and what the others mean.
//!
//! A *line* is one producer's count. Its highest number so far decides:
//! - the next number is in order; a higher one is a gap, and the line goes on from there;
//! - the highest again is a duplicate;
//! - a lower one that the line is known to miss is a reorder; one that it has had is a duplicate. This is known for the
//!   last [`WINDOW`] numbers;
//! - 1 is a restart of the producer: nobody counts back to the start. (Unless the line began with 2: then 1 is late.)
//! - any other lower number, older than the window or than the line itself, is a reorder; but when [`RESTART_RUN`] of
//!   them come one after the other, this is a restart whose beginning was missed.
//!
//! After a restart the line before it is remembered by its highest number, and goes on in silence when exactly its next
//! number comes. So neither a producer that still flushes while its successor counts, nor a batch that was redelivered in
//! part and looked like a restart, makes findings without end: each restart is found once.
//!
//! Limits. A redelivery that begins with 1 is told as a restart, since it looks the same. A restart that lost its first
//! numbers is told as up to two reorders and a restart; if it falls into the window, as duplicates until the window is
//! passed. A gap in front of exactly the number that the line before would have next is not seen. More than two
//! producers that count the same thread at the same time are told as gaps and reorders. A loss at the end of a thread
//! cannot be seen.

use super::Finding;

/// How many of the last numbers are known one by one.
pub(super) const WINDOW: u64 = 64;
/// How many consecutive unknown lower numbers are a restart.
pub(super) const RESTART_RUN: u8 = 3;

/// One producer's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    high: u64,
    /// The lowest number of the line that was seen.
    floor: u64,
    /// Bit n: `high - n` was seen.
    seen: u64,
}

impl Line {
    const fn new(sequence: u64) -> Self {
        Self { high: sequence, floor: sequence, seen: 1 }
    }

    fn advance(&mut self, sequence: u64) {
        let by = sequence - self.high;
        self.seen = if by < WINDOW { self.seen << by | 1 } else { 1 };
        self.high = sequence;
    }
}

/// The state of a thread.
#[derive(Debug)]
pub(super) struct Thread {
    line: Line,
    /// The highest number of the other line, before the last restart; 0 for none. It may be higher or lower than ours: when
    /// it goes on, the lines change places.
    before: u64,
    /// The last of a run of unknown lower numbers, 0 for none.
    low: u64,
    /// The length of that run.
    run: u8,
}

impl Thread {
    /// A thread whose first number is its baseline.
    pub(super) const fn new(sequence: u64) -> Self {
        Self { line: Line::new(sequence), before: 0, low: 0, run: 0 }
    }

    /// Judges the next number, at least 1.
    #[inline]
    pub(super) fn check(&mut self, found: u64) -> Option<Finding> {
        if found > self.line.high && found - self.line.high == 1 {
            self.line.advance(found);
            if found == self.before {
                // Overtaken: that line is over.
                self.before = 0;
            }
            return None;
        }
        self.out_of_order(found)
    }

    fn out_of_order(&mut self, found: u64) -> Option<Finding> {
        let high = self.line.high;
        let expected = high.saturating_add(1);
        if found == high || found == self.before {
            return Some(Finding::Duplicate { expected, found });
        }
        if self.before != 0 && found == self.before.saturating_add(1) {
            self.before = high;
            self.line = Line::new(found);
            return None;
        }
        if found > high {
            if (high..found).contains(&self.before) {
                self.before = 0;
            }
            self.line.advance(found);
            return Some(Finding::Gap { expected, found });
        }
        Some(self.lower(expected, found))
    }

    fn lower(&mut self, expected: u64, found: u64) -> Finding {
        let back = self.line.high - found;
        let known = back < WINDOW;
        if known && found.saturating_add(1) == self.line.floor {
            self.line.floor = found;
            self.line.seen |= 1 << back;
            return Finding::Reorder { expected, found };
        }
        if found == 1 {
            return self.restart(Line::new(1), expected);
        }
        if known && found >= self.line.floor {
            if self.line.seen >> back & 1 == 1 {
                return Finding::Duplicate { expected, found };
            }
            self.line.seen |= 1 << back;
            return Finding::Reorder { expected, found };
        }
        self.run = if self.low.checked_add(1) == Some(found) { self.run + 1 } else { 1 };
        self.low = found;
        if self.run < RESTART_RUN {
            return Finding::Reorder { expected, found };
        }
        let seen = (1 << RESTART_RUN) - 1;
        self.restart(Line { high: found, floor: found + 1 - u64::from(RESTART_RUN), seen }, expected)
    }

    fn restart(&mut self, line: Line, expected: u64) -> Finding {
        self.before = self.line.high;
        self.line = line;
        self.low = 0;
        self.run = 0;
        Finding::ProducerRestart { expected, found: line.high }
    }
}
