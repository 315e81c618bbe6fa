//! Which of many equal events get a log line of their own: the first few of a window; the others are counted, and their
//! number is told with the next line, or by whoever looks when the window is over.
//!
//! It must not know the log or the clock.

use std::time::{Duration, Instant};

/// Keeps a flood of equal events out of the log.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    burst: u32,
    window: Duration,
    since: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl Flood {
    /// At most `burst` events per `window`.
    pub const fn new(burst: u32, window: Duration) -> Self {
        Self { burst, window, since: None, admitted: 0, suppressed: 0 }
    }

    /// Whether an event at `now` gets a line; if so, how many had none since the last that had one.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            self.since = Some(now);
            self.admitted = 0;
        }
        if self.admitted < self.burst {
            self.admitted += 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
            None
        }
    }

    /// How many had no line in a window that is over, if any: so that the end of a flood is told as well.
    pub fn unlogged(&mut self, now: Instant) -> Option<u64> {
        (self.is_over(now) && self.suppressed > 0).then(|| std::mem::take(&mut self.suppressed))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) >= self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_burst_and_every_event_is_told_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut flood = Flood::new(2, Duration::from_secs(1));
        let admitted: Vec<_> = (0..1_000).filter_map(|millis| flood.admit(at(millis))).collect();
        assert_eq!(admitted, [0, 0]);
        assert_eq!(flood.unlogged(at(999)), None, "the window is not over");
        assert_eq!(flood.admit(at(1_000)), Some(998), "the next window reports what was suppressed");
        assert_eq!(flood.admit(at(1_001)), Some(0));
        assert_eq!(flood.admit(at(1_002)), None);
        assert_eq!(flood.admit(start), None, "a racing thread with an earlier instant belongs to the window");
        assert_eq!(flood.unlogged(at(2_000)), Some(2));
        assert_eq!(flood.unlogged(at(2_000)), None);
        assert_eq!(flood.admit(at(2_001)), Some(0));
        assert_eq!(flood.unlogged(at(9_000)), None, "all had a line");
    }
}
