//! `LagMonitor`: the handle of the thread that looks lag and staleness up.
//!
//! In: the end of its thread. Out: metrics and watermarks on the board. It never touches the ingest path;
//! when its thread dies, it stops, and whoever watches it starts it anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Running};

use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Board;
use crate::kafka::connection::KafkaConnection;
use crate::kafka::lag_poller::LagPoller;
use crate::kafka::monitor::KafkaMonitor;
use crate::kafka::stop::Stop;

/// What every generation is made from.
#[derive(Clone, Debug)]
pub struct LagParts {
    /// How to reach Kafka.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// Between looks.
    pub interval: Duration,
    /// Positions and ownership.
    pub board: Board,
    /// Faults and metrics.
    pub monitor: Arc<KafkaMonitor>,
}

/// The actor.
pub struct LagMonitor {
    parts: LagParts,
    stop: Stop,
    pulse: Pulse,
    // Last, so that it reports when everything else is gone.
    guard: Guard,
}

impl std::fmt::Debug for LagMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LagMonitor").finish_non_exhaustive()
    }
}

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ended(String);

supervised!(LagMonitor);

impl LagMonitor {
    /// A new generation.
    pub fn new(parts: LagParts, pulse: Pulse, guard: Guard) -> Self {
        Self { parts, stop: Stop::new(), pulse, guard }
    }

    fn fail(&self, ctx: &mut Context<Self>, why: &str) {
        tracing::error!(why, "the lag monitor cannot go on");
        self.guard.note(why);
        ctx.stop();
    }
}

impl Actor for LagMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let parts = self.parts.clone();
        let poller = LagPoller {
            connection: parts.connection,
            topic: parts.topic,
            interval: parts.interval,
            board: parts.board,
            monitor: parts.monitor,
            stop: self.stop.clone(),
        };
        let addr = ctx.address().downgrade();
        let spawned = std::thread::Builder::new().name("kafka-lag".into()).spawn(move || {
            let why = match catch_unwind(AssertUnwindSafe(|| poller.run())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "panic".to_owned(),
            };
            if let Some(addr) = addr.upgrade() {
                addr.do_send(Ended(why));
            }
        });
        if let Err(error) = spawned {
            self.fail(ctx, &format!("cannot start a thread: {error}"));
        }
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.stop.stop();
        Running::Stop
    }
}

impl Drop for LagMonitor {
    /// Also runs when a handler panics; the thread ends by itself.
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Handler<Ended> for LagMonitor {
    type Result = ();

    fn handle(&mut self, Ended(why): Ended, ctx: &mut Self::Context) {
        self.fail(ctx, &why);
    }
}
