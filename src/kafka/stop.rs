//! A stop signal that every wait of a thread ends with.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The signal. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Not stopped yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops everybody who looks or waits.
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether it was given.
    pub fn is_stopped(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; true when it was given before `timeout` was over.
    pub fn wait(&self, timeout: Duration) -> bool {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) =
            self.0.1.wait_timeout_while(stopped, timeout, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        *stopped
    }
}
