//! Sequence findings per (tenant, thread). Stub: types only.

/// What the check found at one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Sequences are missing: `found - expected` of them.
    Gap {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The last sequence came again.
    Duplicate {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// An older sequence came late.
    Reorder {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The producer began to count again; the thread is re-baselined.
    ProducerRestart {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
}
