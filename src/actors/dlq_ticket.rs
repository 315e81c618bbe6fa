//! Tickets for dead letters: how many may be on their way, and that every one of them settles its record.
//!
//! A ticket rides inside the letter's message. However the letter ends (acknowledged, lost, dropped with a mailbox by a
//! panic), the ticket counts it once and settles the record, so that no offset waits for ever and no flood of bad records
//! fills the memory. It must not know the letter or Kafka.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::Link;
use crate::messages::Settled;
use crate::metrics::Metrics;
use crate::pipeline::dead_letter::Loss;
use crate::pipeline::decode::Kind;

/// The tickets of the process. Cloning shares them; they outlive every actor.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Semaphore>,
    max: u32,
    settled: Link<Settled>,
    metrics: Arc<Metrics>,
}

/// The right to have one letter on its way.
#[derive(Debug)]
pub struct Ticket {
    tickets: Tickets,
    /// What is settled with the letter; `None` once that is done.
    settles: Option<Settled>,
    _slot: OwnedSemaphorePermit,
}

impl Tickets {
    /// At most `max` letters on their way; records are reported as settled through `settled`.
    pub fn new(max: u32, settled: Link<Settled>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { slots: Arc::new(Semaphore::new(max as usize)), max, settled, metrics }))
    }

    /// A ticket for a letter that settles `settles`, unless too many are out. Who gets none has to call [`Self::refuse`] or
    /// wait.
    pub fn take(&self, settles: Settled) -> Option<Ticket> {
        let slot = Arc::clone(&self.0.slots).try_acquire_owned().ok()?;
        self.0.metrics.dlq_in_flight.inc();
        Some(Ticket { tickets: self.clone(), settles: Some(settles), _slot: slot })
    }

    /// Counts a letter that is given up because no ticket, or nobody to send it, was there.
    pub fn refuse(&self) {
        self.count_loss(Loss::Backpressure);
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        (self.0.max as usize).saturating_sub(self.0.slots.available_permits())
    }

    /// Waits until none is out. Nobody gets a ticket meanwhile.
    pub async fn all_back(&self) {
        // The semaphore is never closed, so the wait ends only with success.
        let _all = self.0.slots.acquire_many(self.0.max).await;
    }

    fn count_loss(&self, loss: Loss) {
        self.0.metrics.dlq_send_failures.with_label_values(&[loss.as_str()]).inc();
    }
}

impl Ticket {
    /// Kafka has the letter.
    pub fn landed(mut self, kind: Kind) {
        self.tickets.0.metrics.dlq_sends.with_label_values(&[kind.as_str()]).inc();
        self.settle();
    }

    /// The letter is given up.
    pub fn lost(mut self, loss: Loss) {
        self.give_up(loss);
    }

    /// What best effort means, in one place: the loss is counted and the record is settled all the same.
    fn give_up(&mut self, loss: Loss) {
        self.tickets.count_loss(loss);
        self.settle();
    }

    fn settle(&mut self) {
        if let Some(settled) = self.settles.take() {
            // When nobody is there, the restarted reader begins at the last commit and meets the record again.
            let _delivered = self.tickets.0.settled.send(settled);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Dropped on the way: with the mailbox or a future of a publisher that died.
        if self.settles.is_some() {
            self.give_up(Loss::KafkaError);
        }
        self.tickets.0.metrics.dlq_in_flight.dec();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use actix::{Actor, Addr, Context, Handler, Message};
    use tokio::sync::mpsc;

    use super::*;
    use crate::pipeline::record::Origin;

    /// An actor that hands on what it gets.
    pub(crate) struct Inbox<M>(mpsc::UnboundedSender<M>);

    #[allow(clippy::disallowed_methods, reason = "a test reads all that it causes")]
    impl<M: Message<Result = ()> + Send + Unpin + 'static> Inbox<M> {
        pub(crate) fn start() -> (Addr<Self>, mpsc::UnboundedReceiver<M>) {
            let (sender, receiver) = mpsc::unbounded_channel();
            (Actor::start(Self(sender)), receiver)
        }
    }

    impl<M: Unpin + 'static> Actor for Inbox<M> {
        type Context = Context<Self>;
    }

    impl<M: Message<Result = ()> + Send + Unpin + 'static> Handler<M> for Inbox<M> {
        type Result = ();

        fn handle(&mut self, message: M, _: &mut Self::Context) {
            let _gone = self.0.send(message);
        }
    }

    /// The next message, at most 10 s away.
    pub(crate) async fn next<M>(receiver: &mut mpsc::UnboundedReceiver<M>) -> M {
        tokio::time::timeout(std::time::Duration::from_secs(10), receiver.recv()).await.unwrap().unwrap()
    }

    pub(crate) fn settles(offset: i64) -> Settled {
        let origin = Origin { epoch: 1, partition: 0, first: offset, next: offset + 1 };
        Settled { origin, except: Vec::new(), duty_term: 1 }
    }

    #[actix::test]
    async fn a_ticket_settles_once_however_it_ends() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (inbox, mut settled) = Inbox::start();
        let link = Link::default();
        link.publish(&inbox);
        let tickets = Tickets::new(3, link, Arc::clone(&metrics));
        let [landed, lost, dropped] = [0, 1, 2].map(|offset| tickets.take(settles(offset)).unwrap());
        assert!(tickets.take(settles(3)).is_none());
        assert_eq!((tickets.out(), metrics.dlq_in_flight.get()), (3, 3));
        landed.landed(Kind::PayloadMissing);
        lost.lost(Loss::Timeout);
        drop(dropped);
        tickets.all_back().await;
        assert_eq!((tickets.out(), metrics.dlq_in_flight.get()), (0, 0));
        for offset in 0..3 {
            assert_eq!(next(&mut settled).await.origin.first, offset);
        }
        assert!(settled.try_recv().is_err());
        assert_eq!(metrics.dlq_sends.with_label_values(&["payload_missing"]).get(), 1);
        let losses = Loss::ALL.map(|loss| metrics.dlq_send_failures.with_label_values(&[loss.as_str()]).get());
        assert_eq!(losses, [1, 1, 0]);
    }
}
