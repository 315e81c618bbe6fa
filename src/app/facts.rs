//! What health rests on, gathered where it lives.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::actors::supervisor::SupervisorState;
use crate::board::{Board, PartitionBoard};
use crate::pauses::{Pause, Pauses};
use crate::pipeline::health::{ActorFacts, StandsAt};
use crate::pipeline::lag::{LagTracker, Look};

pub(super) fn stands_at(pauses: &Pauses) -> Vec<StandsAt> {
    let stands = |pause: &Pause| StandsAt {
        partition: pause.partition,
        offset: pause.offset,
        kind: pause.kind,
        ours: pause.ours,
        since: pause.since.elapsed(),
    };
    pauses.all().iter().filter(|pause| pause.stands()).map(stands).collect()
}

/// Whether nothing at all is read because an operator has to answer: then nothing else is stuck.
pub(super) fn holds_all(pauses: &Pauses, alone: bool) -> bool {
    !alone && pauses.all().iter().any(|pause| pause.ours)
}

/// Notices partitions that lie behind and do not move. It remembers since when, so it wants to be asked about once a second.
pub(super) struct Standstill {
    tracker: Mutex<LagTracker>,
    started: Instant,
    stale: Duration,
}

impl Standstill {
    /// `stale`: how long nothing may be handled of what waits.
    pub(super) fn new(stale: Duration) -> Self {
        Self { tracker: Mutex::default(), started: Instant::now(), stale }
    }

    /// Owned partitions that nobody has paused, and whose log goes on while nothing of it was handled for too long.
    pub(super) fn stuck(&self, board: &Board, pauses: &Pauses, all_held: bool, now: Instant) -> Vec<i32> {
        let paused: Vec<i32> = pauses.all().iter().map(|pause| pause.partition).collect();
        let elapsed = now.saturating_duration_since(self.started);
        let now_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let should_move = |board: &PartitionBoard| {
            !all_held && board.duty_term.load(Ordering::Relaxed) != 0 && !paused.contains(&board.partition)
        };
        let partitions: Vec<_> = board.partitions().into_iter().filter(|board| should_move(board)).collect();
        let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        tracker.retain(|known| partitions.iter().any(|board| board.partition == known));
        let mut is_stuck = |board: &PartitionBoard| {
            let watermarks = board.low_watermark.get().zip(board.high_watermark.get());
            let look = Look { watermarks, handled: board.stored.get().or_else(|| board.start.get()), now_ms };
            let lag = tracker.look(board.partition, look, i64::MAX);
            lag.is_some_and(|lag| lag.age_seconds > self.stale.as_secs_f64())
        };
        partitions.iter().filter(|board| is_stuck(board)).map(|board| board.partition).collect()
    }
}

pub(super) fn actor_facts(state: &SupervisorState) -> Vec<ActorFacts> {
    state
        .children()
        .iter()
        .map(|child| ActorFacts {
            name: child.name,
            up: child.up || child.generation == 0,
            restarted: (child.restarts > 0).then(|| child.since.elapsed().unwrap_or_default()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Epoch;

    const NONE: [i32; 0] = [];

    #[test]
    fn what_was_idle_for_long_is_not_stuck_when_records_come() {
        let board = Board::new();
        board.open_epoch(Epoch { number: 1, name: "e".to_owned() });
        let partition = board.opened(0);
        partition.duty_term.store(1, Ordering::Relaxed);
        partition.low_watermark.set(0);
        partition.high_watermark.set(10);
        partition.stored.set(10);
        let (pauses, standstill) = (Pauses::default(), Standstill::new(Duration::from_secs(60)));
        let stuck =
            |held, second| standstill.stuck(&board, &pauses, held, standstill.started + Duration::from_secs(second));
        assert_eq!(stuck(false, 0), NONE);
        assert_eq!(stuck(false, 3600), NONE, "nothing waits");
        partition.high_watermark.set(20);
        assert_eq!(stuck(false, 3601), NONE, "they have just come");
        assert_eq!(stuck(false, 3661), [0]);
        assert_eq!(stuck(true, 3662), NONE, "an operator is waited for");
        assert_eq!(stuck(false, 3663), NONE, "it has just been allowed to go on");
        assert_eq!(stuck(false, 3724), [0]);
        partition.stored.set(15);
        assert_eq!(stuck(false, 3725), NONE);
    }
}
