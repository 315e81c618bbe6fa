//! How fast dead letters are sent: many at a time while they land, one now and then while they do not.
//!
//! Where every letter matters, a dead-letter topic that cannot be written must not be stormed: after a failure one letter
//! at a time asks whether it is back, after growing waits, and the first that lands opens the way for all.

use std::time::Instant;

use super::backoff::Backoff;

/// The pace of one publisher.
#[derive(Debug)]
pub struct Pace {
    max_in_flight: usize,
    /// Waits between tries while nothing lands; `None`: every letter has one chance, so there is nothing to wait for.
    probing: Option<Backoff>,
    /// Failures since the last letter that landed.
    failures: u32,
    not_before: Option<Instant>,
}

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One more letter may be sent.
    Send,
    /// Not before this time.
    At(Instant),
    /// Not before one of those on their way is decided.
    Full,
}

impl Pace {
    /// At most `max_in_flight` letters at a time.
    pub const fn new(max_in_flight: usize, probing: Option<Backoff>) -> Self {
        Self { max_in_flight, probing, failures: 0, not_before: None }
    }

    /// What may be done with `in_flight` letters on their way.
    pub fn turn(&self, in_flight: usize, now: Instant) -> Turn {
        let limit = if self.failures == 0 { self.max_in_flight } else { 1 };
        match self.not_before {
            _ if in_flight >= limit => Turn::Full,
            Some(at) if at > now => Turn::At(at),
            _ => Turn::Send,
        }
    }

    /// A letter landed.
    pub const fn landed(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// A letter failed, by no fault of its own. `random` is from 0.0 to 1.0.
    pub fn failed(&mut self, now: Instant, random: f64) {
        let Some(backoff) = self.probing else { return };
        // Those that were sent together fail together, and count as one.
        if self.not_before.is_none_or(|at| at <= now) {
            self.not_before = Some(now + backoff.delay(self.failures, random));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };

    #[test]
    fn many_at_a_time_while_they_land() {
        let mut pace = Pace::new(3, Some(BACKOFF));
        let now = Instant::now();
        assert_eq!([0, 2, 3].map(|n| pace.turn(n, now)), [Turn::Send, Turn::Send, Turn::Full]);
        pace.landed();
        assert_eq!(pace.turn(2, now), Turn::Send);
    }

    #[test]
    fn one_at_a_time_after_growing_waits_while_they_do_not_and_all_when_one_lands() {
        let mut pace = Pace::new(100, Some(BACKOFF));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            // A whole window fails together.
            (0..100).for_each(|_| pace.failed(now, 1.0));
            let Turn::At(at) = pace.turn(0, now) else { panic!("it has to wait") };
            assert_eq!(pace.turn(1, at), Turn::Full);
            assert_eq!(pace.turn(0, at), Turn::Send);
            waits.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pace.landed();
        assert_eq!(pace.turn(99, now), Turn::Send);
    }

    #[test]
    fn where_every_letter_has_one_chance_failures_change_nothing() {
        let mut pace = Pace::new(2, None);
        let now = Instant::now();
        pace.failed(now, 1.0);
        assert_eq!(pace.turn(1, now), Turn::Send);
    }
}
