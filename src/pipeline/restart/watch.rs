//! Tells a hung child from a busy or an idle one.
//!
//! A child is only ever late with an answer: the time runs from the question, so that one that has nothing to do is
//! never suspected. It must not know how one asks.

use std::time::{Duration, Instant};

/// What to do at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Ask for a sign of life.
    Ask,
    /// The answer is still in time.
    Wait,
    /// The answer is overdue.
    Hung,
}

/// The questions to one generation of a child. At most one is open, so that a hung child's mailbox does not fill.
#[derive(Debug, Default)]
pub struct Watch {
    seen: u64,
    asked: Option<Instant>,
}

impl Watch {
    /// The decision at `now`; `touches` counts the child's signs of life so far.
    pub fn tick(&mut self, touches: u64, timeout: Duration, now: Instant) -> Beat {
        match self.asked {
            Some(asked) if touches == self.seen => {
                if now.saturating_duration_since(asked) >= timeout {
                    Beat::Hung
                } else {
                    Beat::Wait
                }
            }
            _ => {
                self.seen = touches;
                self.asked = Some(now);
                Beat::Ask
            }
        }
    }

    /// How long the open question has been open; nothing when it was answered.
    pub fn silence(&self, touches: u64, now: Instant) -> Duration {
        let asked = self.asked.filter(|_| touches == self.seen);
        asked.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked))
    }

    /// Takes time off the open question, because nobody could answer: the whole process did not run.
    pub fn forgive(&mut self, pause: Duration) {
        self.asked = self.asked.and_then(|asked| asked.checked_add(pause));
    }
}

/// How long the process did not run, judged by a tick that came late: all beyond twice the interval.
pub fn pause(since_last_tick: Duration, interval: Duration) -> Duration {
    if since_last_tick > interval * 2 { since_last_tick.saturating_sub(interval) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_idle_child_that_answers_is_never_suspected() {
        let (start, mut watch) = (Instant::now(), Watch::default());
        for second in 0..10_000_u32 {
            assert_eq!(watch.tick(u64::from(second), 3 * SECOND, start + second * SECOND), Beat::Ask, "{second}");
        }
    }

    #[test]
    fn an_unanswered_question_is_asked_once_and_is_overdue_after_the_timeout() {
        let (start, mut watch) = (Instant::now(), Watch::default());
        let beats: Vec<_> = (0..5).map(|second| watch.tick(7, 3 * SECOND, start + second * SECOND)).collect();
        assert_eq!(beats, [Beat::Ask, Beat::Wait, Beat::Wait, Beat::Hung, Beat::Hung]);
        assert_eq!(watch.silence(7, start + 4 * SECOND), 4 * SECOND);
        assert_eq!(watch.silence(8, start + 4 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_busy_child_that_touches_its_pulse_in_between_is_not_hung() {
        let (start, mut watch) = (Instant::now(), Watch::default());
        assert_eq!(watch.tick(0, 3 * SECOND, start), Beat::Ask);
        assert_eq!(watch.tick(1, 3 * SECOND, start + 5 * SECOND), Beat::Ask);
        assert_eq!(watch.tick(1, 3 * SECOND, start + 7 * SECOND), Beat::Wait);
    }

    #[test]
    fn a_process_that_was_stopped_for_minutes_does_not_take_its_children_for_hung() {
        let (start, mut watch) = (Instant::now(), Watch::default());
        assert_eq!(watch.tick(0, 3 * SECOND, start), Beat::Ask);
        watch.forgive(pause(300 * SECOND, SECOND));
        assert_eq!(watch.tick(0, 3 * SECOND, start + 300 * SECOND), Beat::Wait);
        assert_eq!(watch.tick(0, 3 * SECOND, start + 303 * SECOND), Beat::Hung);
        assert_eq!(pause(2 * SECOND, SECOND), Duration::ZERO);
    }
}
