//! What the outside may know of the children: a snapshot for health, and the metrics.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use crate::metrics::Metrics;
use crate::pipeline::restart::Cause;

/// The state of all children. Cloning shares it; it outlives the supervisor.
#[derive(Clone, Debug, Default)]
pub struct SupervisorState(Arc<RwLock<Snapshot>>);

#[derive(Debug, Default)]
struct Snapshot {
    children: Vec<ChildStatus>,
    escalated: Option<String>,
}

/// The state of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// The actor's name.
    pub name: &'static str,
    /// Whether it runs.
    pub up: bool,
    /// The number of its last start; 0 before the first.
    pub generation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// Why the last generation ended, in words.
    pub last_reason: Option<String>,
    /// Since when it runs or is down.
    pub since: SystemTime,
}

impl SupervisorState {
    /// All children, in the order in which they are started.
    pub fn children(&self) -> Vec<ChildStatus> {
        self.read().children.clone()
    }

    /// One child by its name.
    pub fn child(&self, name: &str) -> Option<ChildStatus> {
        self.read().children.iter().find(|child| child.name == name).cloned()
    }

    /// Why the supervisor gave up, if it did.
    pub fn escalated(&self) -> Option<String> {
        self.read().escalated.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who writes the state.
#[derive(Debug)]
pub(super) struct Reporter {
    state: SupervisorState,
    metrics: Arc<Metrics>,
}

impl Reporter {
    /// Makes all series exist before their first event.
    pub(super) fn new(
        state: SupervisorState,
        metrics: Arc<Metrics>,
        names: impl Iterator<Item = &'static str>,
    ) -> Self {
        let status = |name| ChildStatus {
            name,
            up: false,
            generation: 0,
            restarts: 0,
            last_reason: None,
            since: SystemTime::now(),
        };
        let children: Vec<_> = names.map(status).collect();
        for child in &children {
            metrics.actor_up.with_label_values(&[child.name]).set(0);
            metrics.actor_generation.with_label_values(&[child.name]).set(0);
            for cause in Cause::ALL {
                metrics.actor_restarts.with_label_values(&[child.name, cause.as_str()]);
            }
        }
        state.0.write().unwrap_or_else(PoisonError::into_inner).children = children;
        Self { state, metrics }
    }

    /// A generation is being started, for this reason if it is not the first.
    pub(super) fn starting(&self, name: &'static str, generation: u64, because: Option<Cause>) {
        self.metrics.actor_generation.with_label_values(&[name]).set(i64::try_from(generation).unwrap_or(i64::MAX));
        if let Some(cause) = because {
            self.metrics.actor_restarts.with_label_values(&[name, cause.as_str()]).inc();
        }
        self.change(name, |child| {
            child.generation = generation;
            child.restarts += u64::from(because.is_some());
        });
    }

    /// The generation runs.
    pub(super) fn up(&self, name: &'static str) {
        self.metrics.actor_up.with_label_values(&[name]).set(1);
        self.change(name, |child| child.turn(true));
    }

    /// The generation is gone; without a reason when it was told to go.
    pub(super) fn down(&self, name: &'static str, reason: Option<String>) {
        self.metrics.actor_up.with_label_values(&[name]).set(0);
        self.change(name, |child| {
            child.turn(false);
            child.last_reason = reason.or(child.last_reason.take());
        });
    }

    /// A thread was left behind.
    pub(super) fn thread_abandoned(&self) {
        self.metrics.abandoned_threads.inc();
    }

    /// The supervisor gives up.
    pub(super) fn escalated(&self, reason: &str) {
        self.state.0.write().unwrap_or_else(PoisonError::into_inner).escalated = Some(reason.to_owned());
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ChildStatus)) {
        let mut snapshot = self.state.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = snapshot.children.iter_mut().find(|child| child.name == name) {
            change(child);
        }
    }
}

impl ChildStatus {
    fn turn(&mut self, up: bool) {
        if self.up != up {
            self.up = up;
            self.since = SystemTime::now();
        }
    }
}
