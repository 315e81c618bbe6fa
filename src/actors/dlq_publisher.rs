//! Publishes dead letters to Kafka: retries, and decides the fate of each.
//!
//! In: [`PublishDeadLetter`], [`Drain`], [`Heartbeat`]. Out: `Settled`, by the letter's ticket. How many letters are on
//! their way is bounded by the tickets, before a letter is even written. It must not know why a record is bad.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, ResponseFuture, WrapFuture as _};

use super::dlq_ticket::Tickets;
use super::supervisor::Pulse;
use crate::kafka::dlq_producer::{DlqProducer, SendError};
use crate::messages::{Heartbeat, PublishDeadLetter};
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::dead_letter::{DeadLetter, Loss};
use crate::pipeline::flood::Flood;
use crate::pipeline::record::decode_headers;

/// How often lost letters are summed up in the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Lost letters that get a line of their own before that.
const LOG_FIRST: u32 = 3;

/// How a letter is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DlqRetry {
    /// Tries after the first one.
    pub retries: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

impl Default for DlqRetry {
    fn default() -> Self {
        Self { retries: 3, backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) } }
    }
}

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct DlqPublisherDeps {
    /// Sends to Kafka.
    pub producer: Arc<DlqProducer>,
    /// The tickets that the letters carry; asked whether all letters are done.
    pub tickets: Tickets,
    /// How often a letter is tried.
    pub retry: DlqRetry,
    /// Where retries are counted.
    pub metrics: Arc<Metrics>,
    /// Touched at each heartbeat.
    pub pulse: Pulse,
}

/// The actor.
#[derive(Debug)]
pub struct DlqPublisher {
    deps: DlqPublisherDeps,
    flood: Flood,
}

/// Asks to finish the letters on their way, at most until the deadline. Answers how many are still undecided then.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "usize")]
pub struct Drain {
    /// How long it may take.
    pub deadline: Duration,
}

impl DlqPublisher {
    /// A publisher with nothing on its way.
    pub fn new(deps: DlqPublisherDeps) -> Self {
        Self { deps, flood: Flood::new(LOG_FIRST) }
    }

    fn log_lost(&mut self, letter: &DeadLetter, loss: Loss, error: &SendError) {
        if self.flood.note() {
            tracing::warn!(record = letter.key, kind = letter.kind.as_str(), reason = loss.as_str(), %error, "dead letter lost");
        }
    }
}

impl Actor for DlqPublisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOG_PERIOD, |this, _| {
            if let Some(letters) = this.flood.end_period() {
                tracing::warn!(letters, "more dead letters lost");
            }
        });
    }
}

impl Handler<PublishDeadLetter> for DlqPublisher {
    type Result = ();

    fn handle(&mut self, message: PublishDeadLetter, ctx: &mut Self::Context) {
        let PublishDeadLetter { letter, ticket } = message;
        let DlqPublisherDeps { producer, metrics, retry, .. } = self.deps.clone();
        let sending = async move {
            let result = deliver(&producer, &metrics, retry, &letter).await;
            (letter, ticket, result)
        };
        ctx.spawn(actix::ActorFutureExt::map(
            sending.into_actor(self),
            |(letter, ticket, result), this, _| match result {
                Ok(()) => ticket.landed(letter.kind),
                Err(error) => {
                    let loss = if error.timed_out { Loss::Timeout } else { Loss::KafkaError };
                    this.log_lost(&letter, loss, &error);
                    ticket.lost(loss);
                }
            },
        ));
    }
}

impl Handler<Drain> for DlqPublisher {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        let tickets = self.deps.tickets.clone();
        Box::pin(async move {
            match tokio::time::timeout(deadline, tickets.all_back()).await {
                Ok(()) => 0,
                Err(_elapsed) => tickets.out(),
            }
        })
    }
}

impl Handler<Heartbeat> for DlqPublisher {
    type Result = ();

    fn handle(&mut self, _: Heartbeat, _: &mut Self::Context) {
        self.deps.pulse.touch();
    }
}

/// Tries until Kafka has the letter, the error is final, or the tries are used up.
async fn deliver(
    producer: &DlqProducer,
    metrics: &Metrics,
    retry: DlqRetry,
    letter: &DeadLetter,
) -> Result<(), SendError> {
    let mut attempt = 0;
    loop {
        let error = match producer.send(&letter.key, &letter.json, decode_headers(&letter.headers)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !error.retryable || attempt >= retry.retries {
            return Err(error);
        }
        metrics.dlq_retries.inc();
        tokio::time::sleep(retry.backoff.delay(attempt, fastrand::f64())).await;
        attempt += 1;
    }
}
