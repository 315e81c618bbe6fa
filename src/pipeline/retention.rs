//! What a store of limited size keeps of one partition: a ledger of what was written, and from where on it may stay.
//!
//! It must not know the store. Sizes are those of the encoded chunks; times are Unix milliseconds.

use std::collections::VecDeque;

/// Parts into which each bound is divided: the ledger is that coarse, and no longer than that.
const PARTS: u64 = 128;
/// Parts into which history that somebody else wrote is divided.
const FOREIGN_PARTS: u32 = 16;

/// How much is kept of a partition, whichever bound is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Offsets.
    pub offsets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds.
    pub age_ms: u64,
}

/// What is there already, when the ledger begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// First offset.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
    /// When the first part was written.
    pub first_ms: i64,
    /// When the last part was written.
    pub last_ms: i64,
    /// Bytes altogether.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first: i64,
    next: i64,
    bytes: u64,
    oldest_ms: i64,
    newest_ms: i64,
}

/// The ledger of one partition.
#[derive(Clone, Debug)]
pub struct Ledger {
    bounds: Bounds,
    segments: VecDeque<Segment>,
    bytes: u64,
}

impl Ledger {
    /// A ledger of a store that has nothing, or what `existing` says. The latter is taken as if it had been written evenly.
    pub fn new(bounds: Bounds, existing: Option<Existing>) -> Self {
        let mut ledger = Self { bounds, segments: VecDeque::new(), bytes: 0 };
        if let Some(Existing { first, next, first_ms, last_ms, bytes }) =
            existing.filter(|known| known.first < known.next)
        {
            let between = |from: i64, to: i64, part: u32| {
                let span = i128::from(to) - i128::from(from);
                i64::try_from(i128::from(from) + span * i128::from(part) / i128::from(FOREIGN_PARTS)).unwrap_or(to)
            };
            for part in 0..FOREIGN_PARTS {
                let segment = Segment {
                    first: between(first, next, part),
                    next: between(first, next, part + 1),
                    bytes: bytes / u64::from(FOREIGN_PARTS),
                    oldest_ms: between(first_ms, last_ms, part),
                    newest_ms: between(first_ms, last_ms, part + 1),
                };
                if segment.first < segment.next {
                    ledger.bytes += segment.bytes;
                    ledger.segments.push_back(segment);
                }
            }
        }
        ledger
    }

    /// Bytes held.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest part was written.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.segments.front().map(|segment| segment.oldest_ms)
    }

    /// `[first, next)` was written. What lies below the end so far was there before.
    pub fn add(&mut self, first: i64, next: i64, bytes: u64, now_ms: i64) {
        if self.segments.back().is_some_and(|last| next <= last.next) {
            return;
        }
        self.bytes += bytes;
        let bounds = self.bounds;
        if let Some(last) = self.segments.back_mut() {
            let fits = last.bytes + bytes <= bounds.bytes / PARTS
                && next.abs_diff(last.first) <= bounds.offsets / PARTS
                && now_ms.saturating_sub(last.oldest_ms) <= i64::try_from(bounds.age_ms / PARTS).unwrap_or(i64::MAX);
            if fits {
                last.next = next;
                last.bytes += bytes;
                last.newest_ms = now_ms;
                return;
            }
        }
        self.segments.push_back(Segment { first, next, bytes, oldest_ms: now_ms, newest_ms: now_ms });
    }

    /// Drops what is over a bound. Answers the offset below which nothing needs to be kept.
    pub fn trim(&mut self, now_ms: i64) -> Option<i64> {
        let end = self.segments.back()?.next;
        let enough = end.saturating_sub(i64::try_from(self.bounds.offsets).unwrap_or(i64::MAX));
        let age = i64::try_from(self.bounds.age_ms).unwrap_or(i64::MAX);
        // The newest part stays even when it alone is too large or too old.
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && (self.bytes > self.bounds.bytes
                || oldest.newest_ms.saturating_add(age) <= now_ms
                || oldest.next <= enough)
        {
            self.bytes -= oldest.bytes;
            self.segments.pop_front();
        }
        let oldest = self.segments.front_mut()?;
        oldest.first = oldest.first.max(enough);
        Some(oldest.first)
    }

    /// Whether the store has to have something of what was written so far, when all that ends below `floor` is dropped now.
    pub fn should_hold(&self, floor: i64, now_ms: i64) -> bool {
        let age = i64::try_from(self.bounds.age_ms).unwrap_or(i64::MAX);
        let kept = |newest: &Segment| newest.next > floor && newest.newest_ms.saturating_add(age) > now_ms;
        self.segments.back().is_some_and(kept)
    }

    /// How much of the bound that is nearest is used, from 0 to about 1.
    pub fn used_ratio(&self) -> f64 {
        let (Some(oldest), Some(newest)) = (self.segments.front(), self.segments.back()) else { return 0.0 };
        let offsets = newest.next.abs_diff(oldest.first) as f64 / self.bounds.offsets.max(1) as f64;
        offsets.max(self.bytes as f64 / self.bounds.bytes.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WIDE: Bounds = Bounds { offsets: u64::MAX, bytes: u64::MAX, age_ms: u64::MAX };

    #[test]
    fn each_bound_alone_decides_what_stays() {
        for (bounds, floor) in [
            (Bounds { offsets: 50, ..WIDE }, 150),
            (Bounds { bytes: 3_000, ..WIDE }, 170),
            (Bounds { age_ms: 40, ..WIDE }, 160),
            (WIDE, 0),
        ] {
            let mut ledger = Ledger::new(bounds, None);
            let mut kept = None;
            for (block, first) in (0_i64..).zip((0..200).step_by(10)) {
                ledger.add(first, first + 10, 1_000, block * 10);
                kept = ledger.trim(block * 10);
            }
            assert_eq!(kept, Some(floor), "{bounds:?}");
        }
    }

    #[test]
    fn a_store_must_hold_what_is_neither_trimmed_nor_too_old() {
        let mut ledger = Ledger::new(Bounds { age_ms: 40, ..WIDE }, None);
        assert!(!ledger.should_hold(0, 0), "nothing was written");
        ledger.add(0, 10, 1, 100);
        for (floor, now_ms, holds) in [(0, 100, true), (9, 139, true), (10, 100, false), (0, 140, false)] {
            assert_eq!(ledger.should_hold(floor, now_ms), holds, "{floor} {now_ms}");
        }
    }

    #[test]
    fn history_of_another_process_is_trimmed_bit_by_bit() {
        let bounds = Bounds { bytes: 1_600, ..WIDE };
        let existing = Existing { first: 0, next: 1_600, first_ms: 0, last_ms: 1_600, bytes: 1_600 };
        let mut ledger = Ledger::new(bounds, Some(existing));
        assert!((ledger.used_ratio() - 1.0).abs() < 0.01);
        ledger.add(1_600, 1_700, 100, 2_000);
        assert_eq!(ledger.trim(2_000), Some(100));
        ledger.add(1_000, 1_700, 999, 2_000);
        assert_eq!(ledger.bytes(), 1_600, "what was there before is not counted twice");
    }

    proptest! {
        /// The ledger stays short, the floor rises, the newest offsets stay, and no more bytes than allowed.
        #[test]
        fn the_ledger_is_bounded_and_never_goes_back(
            blocks in proptest::collection::vec((1..30_i64, 1..2_000_u64, 0..500_i64), 1..400),
            offsets in 1..2_000_u64, bytes in 2_000..100_000_u64, age_ms in 1..20_000_u64,
        ) {
            let bounds = Bounds { offsets, bytes, age_ms };
            let mut ledger = Ledger::new(bounds, None);
            let (mut at, mut now, mut floor) = (i64::MAX - 20_000, 0, 0);
            for (len, size, pause) in blocks {
                now += pause;
                ledger.add(at, at + len, size, now);
                at += len;
                let kept = ledger.trim(now).unwrap();
                prop_assert!(kept >= floor && kept < at);
                prop_assert!(at.abs_diff(kept) <= offsets);
                prop_assert!(ledger.bytes() <= bytes);
                prop_assert!(ledger.segments.len() <= 3 * 130 + 2);
                floor = kept;
            }
        }
    }
}
