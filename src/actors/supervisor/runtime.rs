//! Does what a group's state machine decides: starts, stops, asks and gives up its children.
//!
//! It must not decide who is restarted, when, or how often.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::Recipient;

use super::life::{ChildId, Exited};
use super::panic_hook::panic_text;
use super::spec::{ChildSpec, GroupSpec, Running, StartContext};
use super::state::Reporter;
use super::threads::{Thread, Threads};
use super::{Guard, Pulse, Sabotage, StrikeError};
use crate::pipeline::restart::{Beat, Cause, Exceeded, Failure, Group, Watch};

/// A group and its children at work.
pub(super) struct Runtime {
    index: usize,
    pub(super) name: &'static str,
    pub(super) stop_timeout: Duration,
    pub(super) machine: Group,
    threads: Threads,
    slots: Vec<Slot>,
    /// Who failed last, and how: the reason of its siblings, and of an escalation.
    last_failure: String,
    closing: bool,
}

struct Slot {
    spec: ChildSpec,
    live: Option<Live>,
}

/// One generation at work.
struct Live {
    generation: u64,
    running: Running,
    pulse: Pulse,
    thread: Rc<Thread>,
    watch: Watch,
}

impl Live {
    /// What it is called when this generation hangs.
    fn failure(&self, child: usize) -> Failure {
        Failure { child, generation: self.generation, cause: Cause::Hang }
    }
}

impl Runtime {
    pub(super) fn new(index: usize, spec: GroupSpec) -> Self {
        let policies: Vec<_> = spec.children.iter().map(|child| child.policy).collect();
        Self {
            index,
            name: spec.name,
            stop_timeout: spec.stop_timeout,
            machine: Group::new(spec.strategy, spec.intensity, spec.backoff, &policies),
            threads: Threads::default(),
            slots: spec.children.into_iter().map(|spec| Slot { spec, live: None }).collect(),
            last_failure: String::new(),
            closing: false,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.slots.iter().map(|slot| slot.spec.name)
    }

    /// From now on children only stop.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.machine.close();
    }

    /// Lets go of the threads, once all children are gone.
    pub(super) fn release(&mut self) {
        self.threads = Threads::default();
    }

    pub(super) fn start(
        &mut self,
        failure: Failure,
        because: Option<Cause>,
        supervisor: Recipient<Exited>,
        report: &Reporter,
    ) -> Option<Exceeded> {
        let Failure { child, generation, .. } = failure;
        let slot = self.slots.get_mut(child)?;
        report.starting(slot.spec.name, generation, because);
        let pulse = Pulse::new();
        let guard = Guard::new(ChildId { group: self.index, child }, generation, supervisor);
        let started = self.threads.get(slot.spec.thread).map_err(|e| format!("no thread: {e}")).and_then(|thread| {
            let context = StartContext { guard, pulse: pulse.clone(), arbiter: thread.handle(), generation };
            match catch_unwind(AssertUnwindSafe(|| (slot.spec.start)(context))) {
                Ok(Ok(running)) => Ok((running, thread)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(panic) => Err(format!("panicked: {}", panic_text(&*panic))),
            }
        });
        match started {
            Ok((running, thread)) => {
                slot.live = Some(Live { generation, running, pulse, thread, watch: Watch::default() });
                self.machine.started(child);
                report.up(slot.spec.name);
                tracing::info!(actor = slot.spec.name, generation, "actor started");
                None
            }
            Err(error) => {
                // Whatever the factory may have left behind is not ours any more.
                pulse.retire();
                self.fail(&[(failure, format!("did not start: {error}"))], report)
            }
        }
    }

    /// Tells a child to stop.
    pub(super) fn stop(&mut self, child: usize) {
        let Some(live) = self.slots.get_mut(child).and_then(|slot| slot.live.as_mut()) else { return };
        if let Some(stop) = live.running.stop.take()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(stop))
        {
            tracing::error!(panic = panic_text(&*panic), "telling an actor to stop failed");
        }
    }

    /// A generation is gone.
    pub(super) fn exited(&mut self, exited: Exited, report: &Reporter) -> Option<Exceeded> {
        let Exited { id: ChildId { child, .. }, generation, cause, detail } = exited;
        let expected = !self.machine.is_up(child, generation);
        let slot = self.slots.get_mut(child)?;
        if slot.live.take_if(|live| live.generation == generation).is_none() {
            tracing::debug!(actor = slot.spec.name, generation, "an earlier generation is gone");
            return None;
        }
        let what = if cause == Cause::Panic { "panicked" } else { "stopped by itself" };
        let reason = detail.map_or_else(|| what.to_owned(), |detail| format!("{what}: {detail}"));
        let failure = Failure { child, generation, cause };
        if expected {
            if cause == Cause::Panic {
                tracing::warn!(actor = slot.spec.name, generation, reason, "actor failed while it stopped");
            }
            report.down(slot.spec.name, self.sibling_reason());
            return self.machine.failed(&[failure], Instant::now());
        }
        self.fail(&[(failure, reason)], report)
    }

    /// A child has had its time to stop: if it is still there it is given up.
    pub(super) fn overdue(&mut self, child: usize, generation: u64, report: &Reporter) {
        if self.machine.overdue(child, generation) {
            let name = self.abandon(child, report);
            tracing::warn!(actor = name, generation, timeout = ?self.stop_timeout, "actor did not stop in time and is given up");
            report.down(name, self.sibling_reason());
        }
    }

    /// Asks all watched children for a sign of life and gives up those that owe one for too long, together with all who
    /// live on the same thread if that is blocked. `pause` is how long the whole process stood still since the last time.
    pub(super) fn beat(&mut self, now: Instant, pause: Duration, report: &Reporter) -> Option<Exceeded> {
        let mut asked: Vec<Rc<Thread>> = Vec::new();
        let mut blocked: Vec<Rc<Thread>> = Vec::new();
        let mut hung = Vec::new();
        for (child, slot) in self.slots.iter_mut().enumerate() {
            let Some(live) = slot.live.as_mut() else { continue };
            if !asked.iter().any(|thread| Rc::ptr_eq(thread, &live.thread)) {
                live.thread.ask(now, pause);
                asked.push(Rc::clone(&live.thread));
            }
            let Some(timeout) = slot.spec.heartbeat.filter(|_| self.machine.is_up(child, live.generation)) else {
                continue;
            };
            live.watch.forgive(pause);
            match live.watch.tick(live.pulse.touches(), timeout, now) {
                Beat::Ask => (live.running.heartbeat)(),
                Beat::Wait => {}
                Beat::Hung => {
                    hung.push((live.failure(child), format!("hung: no sign of life for {timeout:?}")));
                    if live.thread.silence(now) >= timeout / 2 {
                        blocked.push(Rc::clone(&live.thread));
                    }
                }
            }
        }
        for (child, slot) in self.slots.iter().enumerate() {
            let Some(live) = &slot.live else { continue };
            let failure = live.failure(child);
            let listed = hung.iter().any(|(known, _)| *known == failure) || !self.machine.is_up(child, live.generation);
            if !listed && blocked.iter().any(|thread| Rc::ptr_eq(thread, &live.thread)) {
                hung.push((failure, "hung: its thread is blocked".to_owned()));
            }
        }
        for (failure, _) in &hung {
            self.abandon(failure.child, report);
        }
        self.fail(&hung, report)
    }

    /// Passes a fault on; `None` when the child is not in this group.
    pub(super) fn sabotage(&self, name: &str, fault: Sabotage) -> Option<Result<(), StrikeError>> {
        let slot = self.slots.iter().find(|slot| slot.spec.name == name)?;
        let strike = slot.live.as_ref().and_then(|live| live.running.sabotage.as_ref());
        Some(strike.map(|strike| strike(fault)).ok_or(StrikeError::NotReachable))
    }

    /// The reason of an escalation.
    pub(super) fn describe(&self, exceeded: Exceeded) -> String {
        let Exceeded { intensity, .. } = exceeded;
        format!(
            "group {} failed more than {} times within {:?}; the last was {}",
            self.name, intensity.max_restarts, intensity.window, self.last_failure
        )
    }

    fn fail(&mut self, failures: &[(Failure, String)], report: &Reporter) -> Option<Exceeded> {
        for (failure, reason) in failures {
            let Some(slot) = self.slots.get(failure.child) else { continue };
            tracing::warn!(actor = slot.spec.name, generation = failure.generation, reason, "actor is down");
            report.down(slot.spec.name, Some(reason.clone()));
            self.last_failure = format!("{}: {reason}", slot.spec.name);
        }
        let failures: Vec<_> = failures.iter().map(|(failure, _)| *failure).collect();
        self.machine.failed(&failures, Instant::now())
    }

    /// Leaves a generation behind, and its thread to those who still live on it.
    fn abandon(&mut self, child: usize, report: &Reporter) -> &'static str {
        let Some(slot) = self.slots.get_mut(child) else { return "" };
        if let Some(live) = slot.live.take() {
            live.pulse.retire();
            if self.threads.abandon(&live.thread) {
                report.thread_abandoned();
            }
        }
        slot.spec.name
    }

    fn sibling_reason(&self) -> Option<String> {
        (!self.closing).then(|| format!("stopped because of {}", self.last_failure))
    }
}
