//! The supervisor: starts actors, notices when they die or hang, restarts those who belong together, and gives up when it
//! happens too often. It must not know what its children do.
//!
//! In: deaths ([`Guard`]), its own ticks, [`Stop`], [`Strike`]. Out: [`Heartbeat`](crate::messages::Heartbeat),
//! [`Halt`](crate::messages::Halt), the children's [`SupervisorState`], metrics, one escalation.
//!
//! A generation is an actor, its [`Guard`] and its [`Pulse`], all made anew by the child's factory. A thread that hangs
//! cannot be ended, so its children are given up: their deaths are ignored from then on, their pulse says so to them, and
//! the next generation gets a fresh thread. The decisions are in [`crate::pipeline::restart`].

mod life;

mod panic_hook;

mod runtime;

mod sabotage;

mod spec;

mod state;

mod threads;

pub use life::{Guard, Pulse};
pub use panic_hook::{install_panic_hook, panic_text};
pub use sabotage::Sabotage;
pub(crate) use sabotage::supervised;
pub use spec::{ChildSpec, GroupSpec, Running, StartContext, StartError, SupervisorSpec};
pub use state::{ChildStatus, SupervisorState};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle};
use tokio::sync::oneshot;

use self::life::Exited;
use self::runtime::Runtime;
use self::state::Reporter;
use crate::pipeline::restart::{self, Action, Cause, Exceeded, Failure};

/// Stops all children in reverse order, each within its group's deadline, and answers when they are gone. Also during an
/// escalation, and again afterwards.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// Makes an actor suffer a fault. For tests of the whole service.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StrikeError>")]
pub struct Strike {
    /// The actor's name.
    pub actor: String,
    /// The fault.
    pub fault: Sabotage,
}

/// Why nobody was struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrikeError {
    /// The service was not started for such tests.
    #[error("sabotage is not allowed in this process")]
    NotAllowed,
    /// Nobody has this name.
    #[error("no actor has this name")]
    Unknown,
    /// It is down, or takes no faults.
    #[error("the actor is down or cannot be sabotaged")]
    NotReachable,
}

/// The actor. It needs an arbiter on which nobody else can block.
pub struct Supervisor {
    groups: Vec<Runtime>,
    heartbeat_interval: Duration,
    report: Reporter,
    escalate: Option<Box<dyn FnOnce(String) + Send>>,
    allow_sabotage: bool,
    closing: bool,
    waiting: Vec<oneshot::Sender<()>>,
    last_tick: Instant,
    ticks: Option<SpawnHandle>,
}

impl Supervisor {
    /// A supervisor; the children are started when it is.
    pub fn new(spec: SupervisorSpec) -> Self {
        let groups: Vec<_> =
            spec.groups.into_iter().enumerate().map(|(index, group)| Runtime::new(index, group)).collect();
        let report = Reporter::new(spec.state, spec.metrics, groups.iter().flat_map(Runtime::names));
        Self {
            groups,
            heartbeat_interval: spec.heartbeat_interval,
            report,
            escalate: Some(spec.escalate),
            allow_sabotage: spec.allow_sabotage,
            closing: false,
            waiting: Vec::new(),
            last_tick: Instant::now(),
            ticks: None,
        }
    }

    /// Performs what the groups decide until nobody has anything to do. On the way down the groups come one after the
    /// other, last first.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        let mut passed = None;
        while passed != Some(self.closing) {
            let closing = self.closing;
            passed = Some(closing);
            for step in 0..self.groups.len() {
                let index = if closing { self.groups.len() - 1 - step } else { step };
                if !self.advance_group(index, ctx) {
                    break;
                }
            }
        }
        if self.closing && self.groups.iter().all(|group| group.machine.is_stopped()) {
            self.finish(ctx);
        }
    }

    /// False when the other groups have to wait.
    fn advance_group(&mut self, index: usize, ctx: &mut Context<Self>) -> bool {
        let closing = self.closing;
        let Some(group) = self.groups.get_mut(index) else { return false };
        if closing {
            group.close();
        }
        while let Some(action) = group.machine.next(Instant::now(), fastrand::f64()) {
            match action {
                Action::Start { child, generation, because } => {
                    let failure = Failure { child, generation, cause: Cause::StartFailure };
                    let exceeded = group.start(failure, because, ctx.address().recipient(), &self.report);
                    if let Some(exceeded) = exceeded {
                        self.give_up(index, exceeded);
                        return false;
                    }
                }
                Action::Stop { child, generation } => {
                    group.stop(child);
                    ctx.run_later(group.stop_timeout, move |this, ctx| {
                        if let Some(group) = this.groups.get_mut(index) {
                            group.overdue(child, generation, &this.report);
                        }
                        this.advance(ctx);
                    });
                }
                Action::Wait { unit, round, delay } => {
                    tracing::info!(group = group.name, delay_ms = delay.as_millis(), "restart after a wait");
                    ctx.run_later(delay, move |this, ctx| {
                        if let Some(group) = this.groups.get_mut(index) {
                            group.machine.resume(unit, round);
                        }
                        this.advance(ctx);
                    });
                }
            }
        }
        !closing || group.machine.is_stopped()
    }

    /// Past the intensity: everything is stopped and the application is told, once.
    fn give_up(&mut self, group: usize, exceeded: Exceeded) {
        self.closing = true;
        let (Some(escalate), Some(group)) = (self.escalate.take(), self.groups.get(group)) else { return };
        let reason = group.describe(exceeded);
        tracing::error!(reason, "the supervisor gives up");
        self.report.escalated(&reason);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| escalate(reason))) {
            tracing::error!(panic = panic_text(&*panic), "the escalation failed");
        }
    }

    fn finish(&mut self, ctx: &mut Context<Self>) {
        if let Some(ticks) = self.ticks.take() {
            ctx.cancel_future(ticks);
        }
        for group in &mut self.groups {
            group.release();
        }
        for waiting in self.waiting.drain(..) {
            // Whoever asked may be gone.
            let _ = waiting.send(());
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let pause = restart::pause(now.saturating_duration_since(self.last_tick), self.heartbeat_interval);
        self.last_tick = now;
        for index in 0..self.groups.len() {
            let exceeded = self.groups.get_mut(index).and_then(|group| group.beat(now, pause, &self.report));
            if let Some(exceeded) = exceeded {
                self.give_up(index, exceeded);
            }
        }
        self.advance(ctx);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.last_tick = Instant::now();
        self.ticks = Some(ctx.run_interval(self.heartbeat_interval, Self::tick));
        self.advance(ctx);
    }
}

impl Handler<Exited> for Supervisor {
    type Result = ();

    fn handle(&mut self, exited: Exited, ctx: &mut Self::Context) {
        let index = exited.id.group;
        let exceeded = self.groups.get_mut(index).and_then(|group| group.exited(exited, &self.report));
        if let Some(exceeded) = exceeded {
            self.give_up(index, exceeded);
        }
        self.advance(ctx);
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        let (done, stopped) = oneshot::channel();
        self.closing = true;
        self.waiting.push(done);
        self.advance(ctx);
        Box::pin(async move {
            // A supervisor that is gone has no children left to wait for.
            let _ = stopped.await;
        })
    }
}

impl Handler<Strike> for Supervisor {
    type Result = Result<(), StrikeError>;

    fn handle(&mut self, strike: Strike, _: &mut Self::Context) -> Self::Result {
        if !self.allow_sabotage {
            return Err(StrikeError::NotAllowed);
        }
        tracing::warn!(actor = strike.actor, fault = ?strike.fault, "sabotage");
        let mut struck = self.groups.iter().filter_map(|group| group.sabotage(&strike.actor, strike.fault));
        struck.next().unwrap_or(Err(StrikeError::Unknown))
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("closing", &self.closing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
