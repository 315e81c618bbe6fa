//! The byte credit of records in flight between Kafka and the last stage.
//!
//! One gate bounds the whole pipeline: the reader charges what a batch really weighs, the charge rides inside the batch,
//! and dropping it anywhere (also by an unwinding panic) gives it back. It must not know what it bounds.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The gate. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Credit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// Bytes charged to a batch; given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit(
    /// Held, never read.
    #[allow(dead_code, reason = "what matters is when it is dropped")]
    Arc<Charge>,
);

#[derive(Debug)]
struct Charge {
    gate: Arc<Inner>,
    bytes: usize,
}

impl Credit {
    /// A gate that lets new work in while less than `limit` bytes are charged.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, used: Mutex::new(0), freed: Condvar::new() }))
    }

    /// Waits until there is credit, at most `timeout`; true when there is. The next batch may then overdraw once, so the
    /// bound is the limit plus one batch.
    pub fn wait(&self, timeout: Duration) -> bool {
        let used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, _) = self
            .0
            .freed
            .wait_timeout_while(used, timeout, |used| *used >= self.0.limit)
            .unwrap_or_else(PoisonError::into_inner);
        *used < self.0.limit
    }

    /// Charges `bytes`.
    pub fn charge(&self, bytes: usize) -> Permit {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        Permit(Arc::new(Charge { gate: Arc::clone(&self.0), bytes }))
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.gate.used.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = *used >= self.gate.limit;
        *used = used.saturating_sub(self.bytes);
        if was_full && *used < self.gate.limit {
            self.gate.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_opens_when_a_permit_is_dropped_by_a_panic() {
        let credit = Credit::new(100);
        let permit = credit.charge(150);
        assert!(!credit.wait(Duration::ZERO));
        let result = std::thread::spawn(move || {
            let _held = permit;
            panic!("a stage fails while it holds a batch");
        })
        .join();
        assert!(result.is_err());
        assert!(credit.wait(Duration::ZERO));
        assert_eq!(credit.used(), 0);
    }
}
