//! Faults on demand, so that tests of the real service can hurt each actor under load.
//!
//! The supervisor passes a fault on only if it was started with sabotage allowed, which takes a deliberate setting.

use std::time::Duration;

use actix::{Actor, ActorContext, Context, Message};

use super::Pulse;

/// Longest hang: a forgotten one must not hold a thread for ever.
const HANG_MAX: Duration = Duration::from_secs(600);
/// How often a hanging actor looks whether it was given up.
const HANG_STEP: Duration = Duration::from_millis(20);

/// The fault that an actor is to suffer in its own handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Sabotage {
    /// It panics.
    Panic,
    /// It blocks its thread until it is given up; then it comes back to life, as real hangs do.
    Hang,
    /// It stops by itself.
    Stop,
}

impl Sabotage {
    /// The fault by its name in the test endpoint: `panic`, `hang` or `stop`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "panic" => Some(Self::Panic),
            "hang" => Some(Self::Hang),
            "stop" => Some(Self::Stop),
            _ => None,
        }
    }

    /// Does it, inside the actor's handler.
    #[allow(clippy::panic, reason = "a panic is what was asked for")]
    pub fn strike<A: Actor<Context = Context<A>>>(self, pulse: &Pulse, ctx: &mut Context<A>) {
        match self {
            Self::Panic => panic!("sabotage"),
            Self::Stop => ctx.stop(),
            Self::Hang => {
                let mut left = HANG_MAX;
                while !pulse.retired() && !left.is_zero() {
                    std::thread::sleep(HANG_STEP);
                    left = left.saturating_sub(HANG_STEP);
                }
            }
        }
    }
}

/// Implements what the supervisor sends, for an actor with a field `pulse`: all of `Heartbeat`, `Halt` and `Sabotage`, or
/// those that are named, where the actor has handlers of its own.
macro_rules! supervised {
    ($actor:ty) => { $crate::actors::supervisor::supervised!($actor: Heartbeat, Halt, Sabotage); };
    ($actor:ty: $($message:ident),+) => { $( $crate::actors::supervisor::supervised!(@$message $actor); )+ };
    (@Heartbeat $actor:ty) => {
        impl actix::Handler<$crate::messages::Heartbeat> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::messages::Heartbeat, _: &mut Self::Context) {
                self.pulse.touch();
            }
        }
    };
    (@Halt $actor:ty) => {
        impl actix::Handler<$crate::messages::Halt> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::messages::Halt, ctx: &mut Self::Context) {
                actix::ActorContext::stop(ctx);
            }
        }
    };
    (@Sabotage $actor:ty) => {
        impl actix::Handler<$crate::actors::supervisor::Sabotage> for $actor {
            type Result = ();

            fn handle(&mut self, fault: $crate::actors::supervisor::Sabotage, ctx: &mut Self::Context) {
                fault.strike(&self.pulse, ctx);
            }
        }
    };
}

pub(crate) use supervised;
