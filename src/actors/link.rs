//! A link to an actor that may be restarted: the current address, published anew by each generation.
//!
//! Senders ask at the moment of sending; sessions can also wait for a change. It must not know any actor.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};
use tokio::sync::watch;

/// The current address for messages of type `M`. Cloning shares it.
pub struct Link<M: Message + Send>
where
    M::Result: Send,
{
    current: watch::Sender<Option<Recipient<M>>>,
}

impl<M: Message + Send> Clone for Link<M>
where
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self { current: self.current.clone() }
    }
}

impl<M: Message + Send> std::fmt::Debug for Link<M>
where
    M::Result: Send,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("connected", &self.current.borrow().is_some()).finish()
    }
}

impl<M: Message + Send> Default for Link<M>
where
    M::Result: Send,
{
    fn default() -> Self {
        Self { current: watch::Sender::new(None) }
    }
}

impl<M: Message + Send + 'static> Link<M>
where
    M::Result: Send,
{
    /// Publishes the address of a new generation.
    pub fn publish<A>(&self, addr: &Addr<A>)
    where
        A: Actor + Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.current.send_replace(Some(addr.clone().recipient()));
    }

    /// The current address.
    pub fn current(&self) -> Option<Recipient<M>> {
        self.current.borrow().clone()
    }

    /// Sends to the current address; false when nobody is there. A message to an actor that is just dying is lost like
    /// everything else in its mailbox.
    pub fn send(&self, message: M) -> bool {
        match &*self.current.borrow() {
            Some(recipient) if recipient.connected() => {
                recipient.do_send(message);
                true
            }
            _ => false,
        }
    }

    /// Follows the address.
    pub fn follow(&self) -> watch::Receiver<Option<Recipient<M>>> {
        self.current.subscribe()
    }
}
