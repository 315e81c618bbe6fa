//! When to flush: at once while the stream is sparse, once per interval while it is dense.
//!
//! One write per client and wake is what costs, so a dense stream is flushed in steps. It must not know what is flushed.

use std::time::{Duration, Instant};

/// The decision about something that waits to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Now.
    Now,
    /// Not before this time.
    At(Instant),
}

/// Keeps flushes at least `interval` apart.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    interval: Duration,
    last: Option<Instant>,
}

impl Pacer {
    /// A pacer that has not flushed yet. A zero interval flushes at once always.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// What to do with what waits now.
    pub fn decide(&self, now: Instant) -> Flush {
        match self.last.and_then(|last| last.checked_add(self.interval)) {
            Some(due) if due > now => Flush::At(due),
            _ => Flush::Now,
        }
    }

    /// A flush was made.
    pub const fn flushed(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_goes_at_once_and_dense_goes_in_steps() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacer = Pacer::new(Duration::from_millis(5));
        assert_eq!(pacer.decide(at(0)), Flush::Now);
        pacer.flushed(at(0));
        assert_eq!(pacer.decide(at(1)), Flush::At(at(5)));
        assert_eq!(pacer.decide(at(4)), Flush::At(at(5)));
        assert_eq!(pacer.decide(at(5)), Flush::Now);
        pacer.flushed(at(5));
        assert_eq!(pacer.decide(at(100)), Flush::Now);
    }
}
