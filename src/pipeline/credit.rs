//! The byte credit of records in flight between Kafka and the last stage.
//!
//! One gate bounds the whole pipeline: the reader charges what a batch really weighs, the charge rides inside the batch,
//! and dropping it anywhere (also by an unwinding panic) gives it back. It must not know what it bounds.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The gate. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Credit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    charged: Mutex<Charged>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Charged {
    bytes: usize,
    /// Permits of an earlier one do not count.
    generation: u64,
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
    generation: u64,
}

impl Credit {
    /// A gate that lets new work in while less than `limit` bytes are charged.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, charged: Mutex::default(), freed: Condvar::new() }))
    }

    /// Waits until there is credit, at most `timeout`; true when there is. The next batch may then overdraw once, so the
    /// bound is the limit plus one batch.
    pub fn wait(&self, timeout: Duration) -> bool {
        let (charged, _) = self
            .0
            .freed
            .wait_timeout_while(self.lock(), timeout, |charged| charged.bytes >= self.0.limit)
            .unwrap_or_else(PoisonError::into_inner);
        charged.bytes < self.0.limit
    }

    /// Charges `bytes`.
    pub fn charge(&self, bytes: usize) -> Permit {
        let mut charged = self.lock();
        charged.bytes += bytes;
        Permit(Arc::new(Charge { gate: Arc::clone(&self.0), bytes, generation: charged.generation }))
    }

    /// Writes off what is charged: the batches lie with somebody who was given up and may never let go of them.
    pub fn write_off(&self) {
        let mut charged = self.lock();
        *charged = Charged { bytes: 0, generation: charged.generation + 1 };
        drop(charged);
        self.0.freed.notify_all();
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.lock().bytes
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    fn lock(&self) -> MutexGuard<'_, Charged> {
        self.0.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut charged = self.gate.charged.lock().unwrap_or_else(PoisonError::into_inner);
        if charged.generation != self.generation {
            return;
        }
        let was_full = charged.bytes >= self.gate.limit;
        charged.bytes = charged.bytes.saturating_sub(self.bytes);
        if was_full && charged.bytes < self.gate.limit {
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

    #[test]
    fn what_was_written_off_is_not_given_back_twice() {
        let credit = Credit::new(100);
        let lost = credit.charge(100);
        credit.write_off();
        assert!(credit.wait(Duration::ZERO), "a stage that hangs for ever does not stop the next one");
        let held = credit.charge(30);
        drop(lost);
        assert_eq!(credit.used(), 30);
        drop(held);
        assert_eq!(credit.used(), 0);
    }
}
