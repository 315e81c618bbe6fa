//! The threads of a group, made when they are first needed and replaced when one hangs.
//!
//! A thread that hangs cannot be ended from outside: it is left behind, and ends by itself once it runs again and nobody
//! who lives on it is needed any more.

use std::rc::Rc;

use actix::{Arbiter, ArbiterHandle};

/// One thread. It is told to end when the last holder is gone.
#[derive(Debug)]
pub(super) struct Thread(Arbiter);

impl Thread {
    pub(super) fn handle(&self) -> ArbiterHandle {
        self.0.handle()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The threads by name.
#[derive(Debug, Default)]
pub(super) struct Threads(Vec<(&'static str, Rc<Thread>)>);

impl Threads {
    /// The thread of this name.
    pub(super) fn get(&mut self, name: &'static str) -> std::io::Result<Rc<Thread>> {
        self.0.retain(|(_, thread)| thread.0.alive());
        if let Some((_, thread)) = self.0.iter().find(|(known, _)| *known == name) {
            return Ok(Rc::clone(thread));
        }
        let thread = Rc::new(Thread(Arbiter::try_new()?));
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
