//! How often a client may do something: a number of times per period.
//!
//! It must not know what is counted, nor the clock.

use std::time::{Duration, Instant};

/// The count of the current period.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    times: u32,
    period: Duration,
    since: Instant,
    used: u32,
}

impl Allowance {
    /// Nothing is used up yet.
    pub const fn new((times, period): (u32, Duration), now: Instant) -> Self {
        Self { times, period, since: now, used: 0 }
    }

    /// Counts one more; whether that is too much for this period.
    pub fn exceeded(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= self.period {
            (self.since, self.used) = (now, 0);
        }
        self.used = self.used.saturating_add(1);
        self.used > self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_comes_back_with_the_next_period() {
        let start = Instant::now();
        let mut allowance = Allowance::new((2, Duration::from_secs(1)), start);
        let later = |ms| start + Duration::from_millis(ms);
        let said = [0, 1, 2, 999, 1_000, 1_001, 1_002, 60_000].map(|ms| allowance.exceeded(later(ms)));
        assert_eq!(said, [false, false, true, true, false, false, true, false]);
    }
}
