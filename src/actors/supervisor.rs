//! Not written yet: only the pulse that actors touch.

/// Shows the supervisor that an actor still takes messages.
#[derive(Clone, Debug, Default)]
pub struct Pulse(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Pulse {
    /// A pulse that nobody watches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Proves that the actor gets on.
    pub fn touch(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether this generation was given up and replaced.
    pub fn retired(&self) -> bool {
        false
    }
}
