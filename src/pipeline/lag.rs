//! Lag and staleness of a partition, from positions that were looked up elsewhere.
//!
//! Unknown is a value of its own: it is neither zero nor the last thing known. It must not fetch anything.

use std::collections::BTreeMap;

/// What is known about a partition at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// First offset that Kafka has and end of the log, when the look succeeded.
    pub watermarks: Option<(i64, i64)>,
    /// The next offset to be handled, when known.
    pub handled: Option<i64>,
    /// Time of the look, milliseconds of any steady clock.
    pub now_ms: i64,
}

/// What to show for a partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Records that wait.
    pub records: i64,
    /// Seconds since the last progress while records wait, otherwise 0.
    pub age_seconds: f64,
}

/// Remembers per partition when it last moved.
#[derive(Debug, Default)]
pub struct LagTracker {
    partitions: BTreeMap<i32, Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    handled: i64,
    /// When it last moved or had nothing to do.
    since_ms: i64,
    /// Watermarks of the last successful look, and its time.
    seen: Option<(i64, i64, i64)>,
}

/// How many records wait: from the next one to be handled, or the first that Kafka still has, to the end.
pub fn records_behind(handled: i64, low: i64, high: i64) -> i64 {
    high.saturating_sub(handled.max(low)).max(0)
}

impl LagTracker {
    /// Takes a look at a partition. Watermarks that could not be had are taken from the last look while it is younger
    /// than `stale_ms`; without any, or without a position, the lag is unknown.
    pub fn look(&mut self, partition: i32, look: Look, stale_ms: i64) -> Option<Lag> {
        let handled = look.handled?;
        let progress =
            self.partitions.entry(partition).or_insert(Progress { handled, since_ms: look.now_ms, seen: None });
        if progress.handled != handled {
            progress.handled = handled;
            progress.since_ms = look.now_ms;
        }
        if let Some((low, high)) = look.watermarks {
            progress.seen = Some((low, high, look.now_ms));
        }
        let (low, high, seen_ms) = progress.seen?;
        if look.now_ms.saturating_sub(seen_ms) > stale_ms {
            return None;
        }
        let records = records_behind(handled, low, high);
        if records == 0 {
            progress.since_ms = look.now_ms;
        }
        #[allow(clippy::cast_precision_loss, reason = "an age in seconds needs no 53 bits")]
        let age_seconds = look.now_ms.saturating_sub(progress.since_ms).max(0) as f64 / 1000.0;
        Some(Lag { records, age_seconds })
    }

    /// Forgets every partition that `keep` does not name; answers those that were known.
    pub fn retain(&mut self, keep: impl Fn(i32) -> bool) -> Vec<i32> {
        let gone: Vec<i32> = self.partitions.keys().copied().filter(|partition| !keep(*partition)).collect();
        for partition in &gone {
            self.partitions.remove(partition);
        }
        gone
    }
}

/// Whether a partition still reads what was there when it was opened; unknown before it was opened.
pub fn catching_up(end_at_start: Option<i64>, handled: Option<i64>, start: Option<i64>) -> Option<bool> {
    let handled = handled.or(start)?;
    Some(handled < end_at_start?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STALE: i64 = 30_000;

    fn look(tracker: &mut LagTracker, handled: Option<i64>, marks: Option<(i64, i64)>, seconds: i64) -> Option<Lag> {
        tracker.look(0, Look { watermarks: marks, handled, now_ms: seconds * 1000 }, STALE)
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut tracker = LagTracker::default();
        assert_eq!(look(&mut tracker, None, Some((0, 10)), 0), None);
        assert_eq!(look(&mut tracker, Some(10), None, 1), None);
        assert_eq!(look(&mut tracker, Some(10), Some((0, 10)), 2), Some(Lag { records: 0, age_seconds: 0.0 }));
        assert_eq!(look(&mut tracker, Some(10), None, 40), None, "what was seen long ago is not known");
    }

    #[test]
    fn a_stuck_partition_keeps_rising_and_an_idle_one_is_healthy() {
        let mut tracker = LagTracker::default();
        look(&mut tracker, Some(10), Some((0, 10)), 0);
        assert_eq!(look(&mut tracker, Some(10), Some((0, 10)), 3600), Some(Lag { records: 0, age_seconds: 0.0 }));
        assert_eq!(look(&mut tracker, Some(10), Some((0, 11)), 3610), Some(Lag { records: 1, age_seconds: 10.0 }));
        assert_eq!(look(&mut tracker, Some(10), Some((0, 50)), 3670), Some(Lag { records: 40, age_seconds: 70.0 }));
        assert_eq!(look(&mut tracker, Some(10), None, 3680), Some(Lag { records: 40, age_seconds: 80.0 }));
        assert_eq!(look(&mut tracker, Some(20), Some((0, 90)), 3690), Some(Lag { records: 70, age_seconds: 0.0 }));
    }

    #[test]
    fn what_retention_removed_does_not_wait() {
        assert_eq!(records_behind(0, 100, 150), 50);
        assert_eq!(records_behind(160, 100, 150), 0);
        assert_eq!(records_behind(i64::MIN, i64::MIN, i64::MAX), i64::MAX);
    }

    #[test]
    fn a_partition_that_was_given_up_is_forgotten() {
        let mut tracker = LagTracker::default();
        look(&mut tracker, Some(0), Some((0, 5)), 0);
        assert_eq!(tracker.retain(|partition| partition != 0), vec![0]);
        assert_eq!(look(&mut tracker, Some(0), Some((0, 5)), 100), Some(Lag { records: 5, age_seconds: 0.0 }));
    }

    #[test]
    fn catching_up_ends_at_the_end_that_was_there_at_the_start() {
        assert_eq!(catching_up(None, Some(3), Some(0)), None);
        assert_eq!(catching_up(Some(5), None, Some(0)), Some(true));
        assert_eq!(catching_up(Some(5), Some(5), Some(0)), Some(false));
        assert_eq!(catching_up(Some(0), None, Some(0)), Some(false), "an empty log has nothing to catch up with");
    }

    proptest! {
        #[test]
        fn lag_is_never_negative_and_has_an_age_only_while_it_lasts(
            looks in prop::collection::vec((prop::option::of(0..100_i64), prop::option::of((0..50_i64, 0..100_i64))), 1..50),
        ) {
            let mut tracker = LagTracker::default();
            for (second, (handled, marks)) in looks.into_iter().enumerate() {
                if let Some(lag) = look(&mut tracker, handled, marks, i64::try_from(second).unwrap_or(0)) {
                    prop_assert!(lag.records >= 0 && lag.age_seconds >= 0.0);
                    prop_assert!(lag.records > 0 || lag.age_seconds == 0.0);
                }
            }
        }
    }
}
