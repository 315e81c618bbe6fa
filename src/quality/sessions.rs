//! How many turns each session took: known when it is over, which is when nothing came of it for a while.
//!
//! Time is an argument, so that silence alone ends a session; nothing here waits for the next event. Both the sessions that are
//! under way and those that are over are bounded. It must not know how turns are counted.

use std::time::Duration;

use hashlink::LinkedHashMap;
use xxhash_rust::xxh3::xxh3_128;

/// The sessions under way, the longest idle first.
#[derive(Debug)]
pub struct Sessions {
    open: LinkedHashMap<u128, Open>,
    /// Sessions that are over: what still comes of them belongs to a session that was counted.
    over: LinkedHashMap<u128, ()>,
    timeout: Duration,
    limit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    turns: u64,
    touched: Duration,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its session goes on.
    Noted,
    /// Its session was over and counted; this turn came too late.
    Late,
    /// Its session goes on; to make room another one was ended before its time, with so many turns.
    Ended(u64),
}

impl Sessions {
    /// Sessions end after `timeout` without a turn; at most `limit` are under way.
    pub fn new(timeout: Duration, limit: usize) -> Self {
        Self { open: LinkedHashMap::new(), over: LinkedHashMap::new(), timeout, limit: limit.max(1) }
    }

    /// A turn of a session, at `now`. Turns may come in any order: the highest number counts.
    pub fn turn(&mut self, session: u128, number: u64, now: Duration) -> Turn {
        if let Some(open) = self.open.to_back(&session) {
            open.turns = open.turns.max(number);
            open.touched = open.touched.max(now);
            return Turn::Noted;
        }
        if self.over.contains_key(&session) {
            return Turn::Late;
        }
        let room = if self.open.len() < self.limit { None } else { self.open.pop_front() };
        self.open.insert(session, Open { turns: number, touched: now });
        match room {
            Some((ended, Open { turns, .. })) => {
                self.end(ended);
                Turn::Ended(turns)
            }
            None => Turn::Noted,
        }
    }

    /// Ends what was idle for too long at `now`: the number of turns of each.
    pub fn sweep(&mut self, now: Duration) -> Vec<u64> {
        let mut ended = Vec::new();
        while let Some((_, open)) = self.open.front()
            && now.saturating_sub(open.touched) >= self.timeout
        {
            let Some((session, open)) = self.open.pop_front() else { break };
            self.end(session);
            ended.push(open.turns);
        }
        ended
    }

    /// Ends all of them: nobody will be there to see their end.
    pub fn flush(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.open.pop_front()).map(|(_, open)| open.turns).collect()
    }

    /// Sessions under way.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn end(&mut self, session: u128) {
        if self.over.len() >= self.limit {
            self.over.pop_front();
        }
        self.over.insert(session, ());
    }
}

/// What a session is known by: its tenant and thread.
pub fn key(tenant: &str, thread: &str) -> u128 {
    let length = u64::try_from(tenant.len()).unwrap_or(u64::MAX).to_le_bytes();
    xxh3_128(&[&length[..], tenant.as_bytes(), thread.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_alone_ends_a_session_once() {
        let mut sessions = Sessions::new(TIMEOUT, 10);
        assert_eq!(sessions.turn(1, 2, at(0)), Turn::Noted);
        assert_eq!(sessions.turn(1, 5, at(10)), Turn::Noted);
        assert_eq!(sessions.turn(1, 3, at(20)), Turn::Noted, "out of order");
        assert_eq!(sessions.turn(2, 1, at(30)), Turn::Noted);
        assert_eq!(sessions.sweep(at(319)), Vec::<u64>::new());
        assert_eq!(sessions.sweep(at(320)), vec![5]);
        assert_eq!(sessions.turn(1, 6, at(321)), Turn::Late, "it was counted");
        assert_eq!(sessions.sweep(at(10_000)), vec![1]);
        assert!(sessions.is_empty() && sessions.flush().is_empty());
    }

    #[test]
    fn a_session_that_goes_on_outlives_one_that_began_later() {
        let mut sessions = Sessions::new(TIMEOUT, 10);
        sessions.turn(1, 1, at(0));
        sessions.turn(2, 9, at(1));
        sessions.turn(1, 2, at(200));
        assert_eq!(sessions.sweep(at(301)), vec![9]);
        assert_eq!(sessions.flush(), vec![2]);
    }

    #[test]
    fn without_room_the_longest_idle_ends() {
        let mut sessions = Sessions::new(TIMEOUT, 2);
        sessions.turn(1, 7, at(0));
        sessions.turn(2, 8, at(1));
        sessions.turn(1, 9, at(2));
        assert_eq!(sessions.turn(3, 1, at(3)), Turn::Ended(8));
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn tenant_and_thread_are_told_apart_wherever_one_ends() {
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(key("a", "b"), key("b", "a"));
    }

    proptest! {
        #[test]
        fn every_session_is_counted_once_with_its_highest_turn_and_memory_is_bounded(
            steps in prop::collection::vec((0_u128..20, 0_u64..50, 0_u64..200), 1..200),
        ) {
            // As much room as there are sessions: nobody is ended early or forgotten.
            let mut sessions = Sessions::new(TIMEOUT, 20);
            let (mut now, mut counted, mut begun) = (Duration::ZERO, 0, std::collections::BTreeSet::new());
            for (session, turn, pause) in steps {
                now += Duration::from_secs(pause);
                counted += sessions.sweep(now).len();
                let noted = sessions.turn(session, turn, now);
                prop_assert_eq!(noted == Turn::Late, begun.contains(&session) && sessions.over.contains_key(&session));
                begun.insert(session);
                prop_assert!(sessions.len() <= 20 && sessions.over.len() <= 20);
            }
            counted += sessions.flush().len();
            prop_assert_eq!(counted, begun.len());
        }
    }
}
