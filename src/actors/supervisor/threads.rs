//! The threads of a group, made when they are first needed and replaced when one hangs.
//!
//! A thread that hangs cannot be ended from outside: it is left behind, and ends by itself once it runs again and nobody
//! who lives on it is needed any more.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Arbiter, ArbiterHandle};

use super::Pulse;
use crate::pipeline::restart::{Beat, Watch};

/// One thread. It is told to end when the last holder is gone.
#[derive(Debug)]
pub(super) struct Thread {
    arbiter: Arbiter,
    pulse: Pulse,
    watch: RefCell<Watch>,
}

impl Thread {
    pub(super) fn handle(&self) -> ArbiterHandle {
        self.arbiter.handle()
    }

    /// Asks the thread itself for a sign of life, which tells a blocked thread from an actor that is stuck alone.
    pub(super) fn ask(&self, now: Instant, pause: Duration) {
        let mut watch = self.watch.borrow_mut();
        watch.forgive(pause);
        if watch.tick(self.pulse.touches(), Duration::MAX, now) == Beat::Ask {
            let pulse = self.pulse.clone();
            self.arbiter.spawn(async move { pulse.touch() });
        }
    }

    /// How long it has owed an answer.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.watch.borrow().silence(self.pulse.touches(), now)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

/// The threads by name.
#[derive(Debug, Default)]
pub(super) struct Threads(Vec<(&'static str, Rc<Thread>)>);

impl Threads {
    /// The thread of this name.
    pub(super) fn get(&mut self, name: &'static str) -> std::io::Result<Rc<Thread>> {
        self.0.retain(|(_, thread)| thread.arbiter.alive());
        if let Some((_, thread)) = self.0.iter().find(|(known, _)| *known == name) {
            return Ok(Rc::clone(thread));
        }
        let thread = Rc::new(Thread { arbiter: Arbiter::try_new()?, pulse: Pulse::new(), watch: RefCell::default() });
        self.0.push((name, Rc::clone(&thread)));
        Ok(thread)
    }

    /// Whoever is started from now on does not get this thread; true when it was in use until now.
    pub(super) fn abandon(&mut self, thread: &Rc<Thread>) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, known)| !Rc::ptr_eq(known, thread));
        self.0.len() < before
    }
}
