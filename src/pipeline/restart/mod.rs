//! Supervision as decisions: what a death means, who is restarted with whom, how often, and when to give up.
//!
//! The vocabulary is the usual one of supervision trees. [`Group`] is the state machine, [`Watch`] tells a hung child
//! from a busy one. It must not know what a child is, nor how one is started, stopped or asked.

mod group;

mod watch;

pub use group::{Action, Exceeded, Failure, Group};
pub use watch::{Beat, Watch, pause};

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When a child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Always.
    Permanent,
    /// Unless it stopped by itself in good order.
    Transient,
    /// Never; its death does not concern the others.
    Temporary,
}

impl Policy {
    /// Whether a child that is down for this cause is wanted back. A sibling's restart only ever brings back who was
    /// wanted before, except that a temporary child is never started twice.
    pub const fn restarts_after(self, cause: Cause) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !matches!(cause, Cause::Stop),
            Self::Temporary => false,
        }
    }
}

/// Who is restarted with a child that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody.
    OneForOne,
    /// Those listed after it.
    RestForOne,
}

/// Why a child is down. Also the value of the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It panicked.
    Panic,
    /// It ended by itself.
    Stop,
    /// It did not answer heartbeats, or did not stop when told to.
    Hang,
    /// It could not be started.
    StartFailure,
    /// It was stopped because a child that it belongs to failed.
    Sibling,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::Panic, Self::Stop, Self::Hang, Self::StartFailure, Self::Sibling];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Stop => "stop",
            Self::Hang => "hang",
            Self::StartFailure => "start_failure",
            Self::Sibling => "sibling",
        }
    }
}

/// How many rounds of restarts are tolerated; one more escalates. One failure starts one round, however many children
/// it takes along; further failures before the round is over belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Rounds within the window.
    pub max_restarts: u32,
    /// The window, sliding.
    pub window: Duration,
}

/// The rounds within the window. Bounded by the intensity.
#[derive(Debug)]
struct History {
    intensity: Intensity,
    rounds: VecDeque<Instant>,
}

impl History {
    fn new(intensity: Intensity) -> Self {
        Self { intensity, rounds: VecDeque::new() }
    }

    /// Notes a round; true when there are more than the intensity allows.
    fn exceeded_by(&mut self, now: Instant) -> bool {
        let window = self.intensity.window;
        while self.rounds.front().is_some_and(|round| now.saturating_duration_since(*round) >= window) {
            self.rounds.pop_front();
        }
        if self.rounds.len() >= self.intensity.max_restarts as usize {
            return true;
        }
        self.rounds.push_back(now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_only_one_more_than_the_maximum_exceeds_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = History::new(Intensity { max_restarts: 3, window: Duration::from_secs(1) });
        assert_eq!([0, 100, 200].map(|ms| history.exceeded_by(at(ms))), [false; 3]);
        assert!(history.exceeded_by(at(999)));
        assert!(!history.exceeded_by(at(1000)), "the first round has left the window");
        assert!(history.exceeded_by(at(1050)));
        assert!(History::new(Intensity { max_restarts: 0, window: Duration::from_secs(1) }).exceeded_by(start));
    }

    #[test]
    fn policies_differ_only_in_who_comes_back() {
        for cause in Cause::ALL {
            assert!(Policy::Permanent.restarts_after(cause));
            assert!(!Policy::Temporary.restarts_after(cause));
            assert_eq!(Policy::Transient.restarts_after(cause), cause != Cause::Stop);
        }
    }
}
