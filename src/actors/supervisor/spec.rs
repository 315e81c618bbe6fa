//! What the supervisor is told: groups of children, and how each child is started.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, Context, Handler};

use super::{Guard, Pulse, Sabotage, SupervisorState};
use crate::messages::{Halt, Heartbeat};
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::restart::{Intensity, Policy, Strategy};

/// Everything that is supervised.
pub struct SupervisorSpec {
    /// The groups, started in this order and stopped in the reverse order: downstream first.
    pub groups: Vec<GroupSpec>,
    /// How often children are asked for a sign of life. Much shorter than the shortest heartbeat timeout.
    pub heartbeat_interval: Duration,
    /// Where the children's state is published.
    pub state: SupervisorState,
    /// Where restarts are counted.
    pub metrics: Arc<Metrics>,
    /// Called once when a group fails too often, with the reason; all children are being stopped by then.
    pub escalate: Box<dyn FnOnce(String) + Send>,
    /// Whether [`Strike`](super::Strike) is obeyed. Only ever true in tests.
    pub allow_sabotage: bool,
}

/// Children that are restarted under one strategy and one intensity.
pub struct GroupSpec {
    /// For logs and the escalation's reason.
    pub name: &'static str,
    /// Who is restarted with whom.
    pub strategy: Strategy,
    /// How many restarts are tolerated. More rounds must fit into its window than the backoff leaves room for, or a
    /// crash loop goes on for ever.
    pub intensity: Intensity,
    /// The wait before each restart.
    pub backoff: Backoff,
    /// How long a child may take to stop; after that it is given up like one that hangs.
    pub stop_timeout: Duration,
    /// The children, downstream first.
    pub children: Vec<ChildSpec>,
}

/// One child.
pub struct ChildSpec {
    /// The actor's name in health, metrics and logs.
    pub name: &'static str,
    /// When it is restarted.
    pub policy: Policy,
    /// How long it may leave a heartbeat unanswered before it is taken for hung; `None` is not watched by itself.
    pub heartbeat: Option<Duration>,
    /// The name of its thread within the group. Children with the same name share one, and hang together when one of
    /// them blocks it.
    pub thread: &'static str,
    /// Starts a new generation from fresh state. It must be quick and must not block; a panic in it is a start failure.
    pub start: Box<dyn FnMut(StartContext) -> Result<Running, StartError> + Send>,
}

/// What a new generation is given.
#[derive(Debug)]
pub struct StartContext {
    /// To be moved into the actor.
    pub guard: Guard,
    /// To be touched by the actor.
    pub pulse: Pulse,
    /// The thread on which to start it.
    pub arbiter: ArbiterHandle,
    /// Its number; 1 is the first.
    pub generation: u64,
}

/// How to reach a generation. It holds the actor's address, so the actor lives as long as the supervisor wants.
pub struct Running {
    pub(super) stop: Option<Box<dyn FnOnce() + Send>>,
    pub(super) heartbeat: Box<dyn Fn() + Send>,
    pub(super) sabotage: Option<Box<dyn Fn(Sabotage) + Send>>,
}

impl Running {
    /// Reached by these two functions, neither of which may block.
    pub fn new(stop: impl FnOnce() + Send + 'static, heartbeat: impl Fn() + Send + 'static) -> Self {
        Self { stop: Some(Box::new(stop)), heartbeat: Box::new(heartbeat), sabotage: None }
    }

    /// Reached by the usual messages.
    pub fn of<A>(addr: &Addr<A>) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Halt> + Handler<Heartbeat> + Handler<Sabotage>,
    {
        let (halt, beat, strike) = (addr.clone(), addr.clone(), addr.clone());
        Self {
            stop: Some(Box::new(move || halt.do_send(Halt))),
            heartbeat: Box::new(move || beat.do_send(Heartbeat)),
            sabotage: Some(Box::new(move |fault| strike.do_send(fault))),
        }
    }
}

/// Why a generation could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl std::fmt::Debug for SupervisorSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorSpec").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GroupSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupSpec").field("name", &self.name).field("children", &self.children).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
