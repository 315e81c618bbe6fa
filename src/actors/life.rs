//! What a supervised actor holds of its supervision, without knowing it: a sign of life, a last word, a guard.

use std::any::Any;

/// Made anew for each generation.
pub struct Life {
    /// Proves that the actor takes messages.
    pub touch: Box<dyn Fn() + Send>,
    /// Says why the actor is about to stop by itself.
    pub note: Box<dyn Fn(&str) + Send>,
    /// Reports the actor's end when it is dropped with it.
    pub guard: Box<dyn Any + Send>,
}

impl Life {
    /// Of an actor that nobody supervises.
    pub fn detached() -> Self {
        Self { touch: Box::new(|| ()), note: Box::new(|_| ()), guard: Box::new(()) }
    }
}
