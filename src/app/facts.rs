//! What health rests on, gathered where it lives.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::actors::supervisor::SupervisorState;
use crate::board::Board;
use crate::pauses::{Pause, Pauses};
use crate::pipeline::health::{ActorFacts, StandsAt};

pub(super) fn stands_at(pauses: &Pauses) -> Vec<StandsAt> {
    let stands = |pause: &Pause| StandsAt {
        partition: pause.partition,
        offset: pause.offset,
        kind: pause.kind.as_str(),
        ours: pause.ours,
        since: pause.since.elapsed(),
    };
    pauses.all().iter().filter(|pause| pause.stands()).map(stands).collect()
}

/// Whether nothing at all is read because an operator has to answer: then nothing else is stuck.
pub(super) fn holds_all(pauses: &Pauses, alone: bool) -> bool {
    !alone && pauses.all().iter().any(|pause| pause.ours)
}

/// Owned partitions that are not paused, and whose log goes on while nothing of it was handled for longer than `stale`.
pub(super) fn stuck(board: &Board, pauses: &Pauses, started: Instant, stale: Duration) -> Vec<i32> {
    let paused: Vec<i32> = pauses.all().iter().map(|pause| pause.partition).collect();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    board
        .partitions()
        .iter()
        .filter(|partition| {
            let behind = partition.high_watermark.get() > partition.stored.get();
            let last_ms = partition.last_record_ms.load(Ordering::Relaxed);
            let age = match u128::try_from(last_ms) {
                Ok(last_ms) if last_ms > 0 => {
                    Duration::from_millis(u64::try_from(now_ms.saturating_sub(last_ms)).unwrap_or(u64::MAX))
                }
                _ => started.elapsed(),
            };
            partition.duty_term.load(Ordering::Relaxed) != 0
                && behind
                && age > stale
                && !paused.contains(&partition.partition)
        })
        .map(|partition| partition.partition)
        .collect()
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
