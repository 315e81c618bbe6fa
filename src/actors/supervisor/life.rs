//! How a child is watched: a guard that reports its end, and a pulse that proves that it takes messages.
//!
//! Both are made anew for each generation. They must not know what the supervisor does about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use actix::{Message, Recipient};

use super::panic_hook;
use crate::pipeline::restart::Cause;

/// Which child, by its place in the list of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChildId {
    pub(super) group: usize,
    pub(super) child: usize,
}

/// A generation is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Exited {
    pub(super) id: ChildId,
    pub(super) generation: u64,
    pub(super) cause: Cause,
    pub(super) detail: Option<String>,
}

/// Reports the end of its actor when it is dropped, by panic or in good order. Move it into the actor, as the last field:
/// fields are dropped in order, and what the next generation needs must be free by then. The mailbox is closed, and what
/// lies in it is dropped, right after the report.
#[derive(Debug)]
pub struct Guard {
    report: Option<(ChildId, u64, Recipient<Exited>)>,
    note: Mutex<Option<String>>,
}

impl Guard {
    pub(super) fn new(id: ChildId, generation: u64, supervisor: Recipient<Exited>) -> Self {
        Self { report: Some((id, generation, supervisor)), note: Mutex::new(None) }
    }

    /// A guard that reports to nobody, for an actor that nobody supervises.
    pub fn detached() -> Self {
        Self { report: None, note: Mutex::new(None) }
    }

    /// Says why the actor is about to stop by itself; shown as its last reason.
    pub fn note(&self, reason: impl Into<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.into());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some((id, generation, supervisor)) = self.report.take() else { return };
        let note = self.note.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (cause, detail) = if std::thread::panicking() {
            (Cause::Panic, panic_hook::last_panic().or(note))
        } else {
            (Cause::Stop, note)
        };
        supervisor.do_send(Exited { id, generation, cause, detail });
    }
}

/// The sign of life of one generation. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    touches: AtomicU64,
    retired: AtomicBool,
}

impl Pulse {
    /// A pulse that nobody watches, for an actor that nobody supervises.
    pub fn new() -> Self {
        Self::default()
    }

    /// Proves that the actor gets on: at each heartbeat, and within work that takes seconds.
    pub fn touch(&self) {
        self.0.touches.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this generation was given up and replaced. One that comes back from a hang must not act on what it still
    /// has in its mailbox: handlers of messages that change something shared begin with this question.
    pub fn retired(&self) -> bool {
        self.0.retired.load(Ordering::Acquire)
    }

    pub(crate) fn touches(&self) -> u64 {
        self.0.touches.load(Ordering::Relaxed)
    }

    pub(crate) fn retire(&self) {
        self.0.retired.store(true, Ordering::Release);
    }
}
