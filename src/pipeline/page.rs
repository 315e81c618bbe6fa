//! A page of history: what is asked of a tier below the memory window, and what a tier answers.
//!
//! It must not know which tier answers, nor who asks.

use std::sync::Arc;

use super::window::Chunk;

/// What is asked of a tier: the records of one partition from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Number of the epoch in this process; a tier refuses one that is over.
    pub epoch: u64,
    /// Name of the epoch, the same in every process.
    pub epoch_name: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset wanted.
    pub from: i64,
    /// The offset after the last one wanted: usually where the memory window begins.
    pub until: i64,
    /// At most this many records; a tier may go over it by one chunk.
    pub max_records: u32,
    /// At most this many bytes of records; a tier may go over it by one chunk.
    pub max_bytes: usize,
}

/// What a tier has of it.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Contiguous chunks. The first one covers `from`, or begins at `low` when that is set. Empty: the tier has nothing there.
    pub chunks: Vec<Arc<Chunk>>,
    /// The first offset above `from` that the tier has, when `from` itself is missing there.
    pub low: Option<i64>,
}

impl Page {
    /// The offset after the last one covered.
    pub fn next(&self) -> Option<i64> {
        self.chunks.last().map(|chunk| chunk.next)
    }
}

/// Why a tier gave no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// It did not answer within the deadline.
    #[error("no answer in time")]
    Timeout,
    /// It cannot be asked now.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The epoch of the request is over.
    #[error("the epoch is over")]
    EpochOver,
}
