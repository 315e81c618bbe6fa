//! The state machine of a group: failures in, actions out.
//!
//! Children are started in the order of the list and stopped in the reverse order, each only when the one before it is
//! gone. A group falls into units that are restarted on their own: one unit per child for one-for-one, otherwise a single
//! one. Every unit goes round `starting → running → halting → waiting → starting`. The caller performs the actions,
//! reports what came of them, and asks again until there is nothing to do.

use std::time::{Duration, Instant};

use super::{Cause, History, Intensity, Policy, Strategy};
use crate::pipeline::backoff::Backoff;

/// What the caller is to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Start this child, and report with [`Group::started`] or [`Group::failed`] before asking for the next action.
    Start {
        /// Index in the group.
        child: usize,
        /// The number of the start, 1 for the first.
        generation: u64,
        /// Why the generation before is gone; none at the first start.
        because: Option<Cause>,
    },
    /// Tell this child to stop, and report with [`Group::failed`] when it is gone or [`Group::overdue`] when it is late.
    Stop {
        /// Index in the group.
        child: usize,
        /// The generation that is to stop.
        generation: u64,
    },
    /// Call [`Group::resume`] with the same numbers after the delay.
    Wait {
        /// Index of the unit that waits.
        unit: usize,
        /// The round of restarts.
        round: u64,
        /// How long.
        delay: Duration,
    },
}

/// A generation that is gone or given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index in the group.
    pub child: usize,
    /// The generation.
    pub generation: u64,
    /// Why.
    pub cause: Cause,
}

/// The intensity is exceeded: time to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub intensity: Intensity,
    /// The failure that was one too many.
    pub last: Failure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Not running, and wanted.
    Down,
    /// The caller is starting it.
    Starting,
    Up,
    Stopping,
    /// Not running, and not wanted any more.
    Ended,
}

#[derive(Debug)]
struct Child {
    policy: Policy,
    life: Life,
    generation: u64,
    /// Why the last generation is gone.
    cause: Option<Cause>,
}

impl Child {
    /// What becomes of a child that was told to stop.
    fn gone(&self) -> Life {
        if self.policy == Policy::Temporary { Life::Ended } else { Life::Down }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running {
        since: Instant,
    },
    /// Stopping the children from this index on.
    Halting {
        from: usize,
    },
    Waiting,
    Stopped,
}

#[derive(Debug)]
struct Unit {
    first: usize,
    end: usize,
    phase: Phase,
    round: u64,
    /// Waits since the unit last ran for a whole window.
    attempt: u32,
}

/// A group of children under one strategy and one intensity.
#[derive(Debug)]
pub struct Group {
    backoff: Backoff,
    history: History,
    children: Vec<Child>,
    units: Vec<Unit>,
    closing: bool,
}

impl Group {
    /// A group whose children are all to be started, in this order.
    pub fn new(strategy: Strategy, intensity: Intensity, backoff: Backoff, policies: &[Policy]) -> Self {
        let unit = |first, end| Unit { first, end, phase: Phase::Starting, round: 0, attempt: 0 };
        let units = match strategy {
            Strategy::OneForOne => (0..policies.len()).map(|child| unit(child, child + 1)).collect(),
            Strategy::RestForOne => vec![unit(0, policies.len())],
        };
        let child = |policy| Child { policy, life: Life::Down, generation: 0, cause: None };
        let children = policies.iter().copied().map(child).collect();
        Self { backoff, history: History::new(intensity), children, units, closing: false }
    }

    /// The next thing to do, if any. `random` (0.0 to 1.0) is the jitter of a wait.
    pub fn next(&mut self, now: Instant, random: f64) -> Option<Action> {
        for index in 0..self.units.len() {
            let index = if self.closing { self.units.len() - 1 - index } else { index };
            let action = self.step(index, now, random);
            // On the way down a unit begins to stop when the later ones are gone.
            if action.is_some() || (self.closing && self.units.get(index).is_some_and(|u| u.phase != Phase::Stopped)) {
                return action;
            }
        }
        None
    }

    /// The child that was to be started runs.
    pub fn started(&mut self, child: usize) {
        if let Some(child) = self.children.get_mut(child)
            && child.life == Life::Starting
        {
            child.life = Life::Up;
        }
    }

    /// Children are gone, given up, or could not be started. What belongs to an old generation is ignored, and so is the
    /// end of a child that was told to stop. Failures that are seen together are one round.
    pub fn failed(&mut self, failures: &[Failure], now: Instant) -> Option<Exceeded> {
        let mut exceeded = None;
        for unit in 0..self.units.len() {
            let mut first: Option<Failure> = None;
            for failure in failures {
                if self.unit_holds(unit, failure.child)
                    && self.take_down(failure)
                    && first.is_none_or(|f| failure.child < f.child)
                {
                    first = Some(*failure);
                }
            }
            if let Some(failure) = first {
                exceeded = self.begin_round(unit, failure, now).or(exceeded);
            }
        }
        exceeded
    }

    /// The time to stop is over; true when that generation has not stopped yet and is now taken for gone.
    pub fn overdue(&mut self, child: usize, generation: u64) -> bool {
        match self.children.get_mut(child) {
            Some(child) if child.life == Life::Stopping && child.generation == generation => {
                child.life = child.gone();
                true
            }
            _ => false,
        }
    }

    /// The wait of this round is over. A round that was overtaken by another one is ignored.
    pub fn resume(&mut self, unit: usize, round: u64) {
        if let Some(unit) = self.units.get_mut(unit)
            && unit.phase == Phase::Waiting
            && unit.round == round
        {
            unit.phase = Phase::Starting;
        }
    }

    /// Begins to stop all children, in reverse order, for good.
    pub fn close(&mut self) {
        self.closing = true;
        for unit in &mut self.units {
            if unit.phase != Phase::Stopped {
                unit.phase = Phase::Halting { from: unit.first };
            }
        }
    }

    /// Whether a closed group has nothing left to stop.
    pub fn is_stopped(&self) -> bool {
        self.closing && self.units.iter().all(|unit| unit.phase == Phase::Stopped)
    }

    /// Whether this generation of the child is the one that runs.
    pub fn is_up(&self, child: usize, generation: u64) -> bool {
        self.children.get(child).is_some_and(|c| c.life == Life::Up && c.generation == generation)
    }

    fn unit_holds(&self, unit: usize, child: usize) -> bool {
        self.units.get(unit).is_some_and(|unit| (unit.first..unit.end).contains(&child))
    }

    /// Marks a child as gone; true when that is a failure that calls for a restart.
    fn take_down(&mut self, failure: &Failure) -> bool {
        let Some(child) = self.children.get_mut(failure.child) else { return false };
        if child.generation != failure.generation {
            return false;
        }
        match child.life {
            Life::Down | Life::Ended => false,
            Life::Stopping => {
                child.life = child.gone();
                false
            }
            Life::Starting | Life::Up => {
                child.cause = Some(failure.cause);
                let wanted = child.policy.restarts_after(failure.cause);
                child.life = if wanted { Life::Down } else { Life::Ended };
                wanted
            }
        }
    }

    fn begin_round(&mut self, unit: usize, failure: Failure, now: Instant) -> Option<Exceeded> {
        let window = self.history.intensity.window;
        let unit = self.units.get_mut(unit)?;
        let from = failure.child;
        match unit.phase {
            Phase::Stopped => return None,
            Phase::Halting { from: already } => {
                unit.phase = Phase::Halting { from: from.min(already) };
                return None;
            }
            Phase::Waiting => {
                unit.phase = Phase::Halting { from };
                return None;
            }
            Phase::Running { since } if now.saturating_duration_since(since) >= window => unit.attempt = 0,
            Phase::Running { .. } | Phase::Starting => {}
        }
        unit.phase = Phase::Halting { from };
        self.history.exceeded_by(now).then_some(Exceeded { intensity: self.history.intensity, last: failure })
    }

    fn step(&mut self, index: usize, now: Instant, random: f64) -> Option<Action> {
        let unit = self.units.get_mut(index)?;
        match unit.phase {
            Phase::Running { .. } | Phase::Waiting | Phase::Stopped => None,
            Phase::Starting => {
                let members = self.children.get_mut(unit.first..unit.end)?;
                let Some((at, child)) = members.iter_mut().enumerate().find(|(_, c)| c.life == Life::Down) else {
                    unit.phase = Phase::Running { since: now };
                    return None;
                };
                child.life = Life::Starting;
                child.generation += 1;
                let because = child.cause.take();
                Some(Action::Start { child: unit.first + at, generation: child.generation, because })
            }
            Phase::Halting { from } => {
                let members = self.children.get_mut(from..unit.end)?;
                let running = |life| matches!(life, Life::Up | Life::Stopping);
                if let Some((at, child)) = members.iter_mut().enumerate().rfind(|(_, c)| running(c.life)) {
                    if child.life == Life::Stopping {
                        return None;
                    }
                    child.cause = Some(Cause::Sibling);
                    child.life = Life::Stopping;
                    return Some(Action::Stop { child: from + at, generation: child.generation });
                }
                if self.closing {
                    unit.phase = Phase::Stopped;
                    return None;
                }
                let delay = self.backoff.delay(unit.attempt, random);
                unit.attempt = unit.attempt.saturating_add(1);
                unit.round += 1;
                unit.phase = Phase::Waiting;
                Some(Action::Wait { unit: index, round: unit.round, delay })
            }
        }
    }
}

#[cfg(test)]
mod tests;
