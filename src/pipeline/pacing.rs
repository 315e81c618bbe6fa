//! When to flush: at once while the stream is sparse, once per interval while it is dense.
//!
//! One write per client and wake is what costs, so a dense stream is flushed in steps, and in longer ones the more there is to
//! write: the writes of all together stay under a rate that leaves the processor room. It must not know what is flushed.

use std::time::{Duration, Instant};

/// What a step leaves for each client that it wakes: 100,000 wakes a second at most.
const PER_CLIENT: Duration = Duration::from_micros(10);
/// What it leaves for each record that one client gets.
const PER_DELIVERY: Duration = Duration::from_micros(1);
/// The longest step, unless the interval itself is longer: what a person still takes for live.
const LONGEST: Duration = Duration::from_millis(25);

/// The decision about something that waits to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Now.
    Now,
    /// Not before this time.
    At(Instant),
}

/// What a flush reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Clients that it woke, at most.
    pub clients: usize,
    /// Records, once for each client that got it.
    pub deliveries: u64,
}

impl Reached {
    fn cost(self) -> Duration {
        let times = |each: Duration, count: u64| each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let clients = times(PER_CLIENT, self.clients.try_into().unwrap_or(u64::MAX));
        clients.saturating_add(times(PER_DELIVERY, self.deliveries))
    }
}

/// Keeps flushes at least `interval` apart, and further when they reach much.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    interval: Duration,
    due: Option<Instant>,
}

impl Pacer {
    /// A pacer that has not flushed yet.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, due: None }
    }

    /// What to do with what waits now.
    pub fn decide(&self, now: Instant) -> Flush {
        match self.due {
            Some(due) if due > now => Flush::At(due),
            _ => Flush::Now,
        }
    }

    /// A flush was made.
    pub fn flushed(&mut self, now: Instant, reached: Reached) {
        self.due = now.checked_add(self.interval.max(reached.cost().min(LONGEST)));
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
        pacer.flushed(at(0), Reached { clients: 1, deliveries: 1 });
        assert_eq!(pacer.decide(at(1)), Flush::At(at(5)));
        assert_eq!(pacer.decide(at(4)), Flush::At(at(5)));
        assert_eq!(pacer.decide(at(5)), Flush::Now);
        pacer.flushed(at(5), Reached { clients: 1, deliveries: 1 });
        assert_eq!(pacer.decide(at(100)), Flush::Now);
    }

    #[test]
    fn much_to_write_gets_longer_steps_up_to_a_bound_and_sparse_still_goes_at_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (interval_ms, clients, deliveries, step_ms) in [
            (5, 0, 0, 5),
            (5, 500, 0, 5),
            (5, 1_000, 0, 10),
            (5, 1_000, 4_000, 14),
            (5, 0, 8_000, 8),
            (5, 10_000, 0, 25),
            (5, 1_000, u64::MAX, 25),
            (5, usize::MAX, 0, 25),
            (40, 10_000, 10_000, 40),
            (0, 100, 0, 1),
        ] {
            let mut pacer = Pacer::new(Duration::from_millis(interval_ms));
            assert_eq!(pacer.decide(at(0)), Flush::Now, "the first");
            pacer.flushed(at(0), Reached { clients, deliveries });
            assert_eq!(pacer.decide(start), Flush::At(at(step_ms)), "{clients} clients, {deliveries} deliveries");
            assert_eq!(pacer.decide(at(step_ms)), Flush::Now, "{clients} clients, {deliveries} deliveries");
        }
    }
}
