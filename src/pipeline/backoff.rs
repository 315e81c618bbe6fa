//! Exponential backoff with jitter: attempt and a random number in, delay out.

use std::time::Duration;

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the first retry.
    pub base: Duration,
    /// No delay is longer than this, jitter included.
    pub max: Duration,
}

impl Backoff {
    /// The delay before retry number `attempt` (0 is the first): doubled each time, then between half and all of it by
    /// `random` (0.0 to 1.0), so that peers that failed together do not come back together.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_never_beyond() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };
        let full: Vec<_> = (0..8).map(|attempt| backoff.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(5));
        assert_eq!(backoff.delay(0, 0.0), Duration::from_millis(50));
    }
}
