//! The tiers below the memory window, as those who read history see them.

use std::time::Instant;

use futures_util::future::BoxFuture;

use crate::kafka::history::KafkaHistory;
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::redis::reader::RedisTier;

/// A tier below the memory window.
pub trait HistoryTier: Send + Sync + std::fmt::Debug {
    /// A page, at most the deadline away.
    fn page(&self, request: PageRequest, deadline: Instant) -> BoxFuture<'static, Result<Page, TierError>>;
}

/// Where a time begins in the log.
pub trait LogTimes: Send + Sync + std::fmt::Debug {
    /// Partition and first offset at `time_ms` or later, of all partitions.
    fn offsets_at(
        &self,
        epoch: u64,
        time_ms: i64,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Vec<(i32, i64)>, TierError>>;
}

impl HistoryTier for KafkaHistory {
    fn page(&self, request: PageRequest, deadline: Instant) -> BoxFuture<'static, Result<Page, TierError>> {
        let history = self.clone();
        Box::pin(async move { history.page(&request, deadline).await })
    }
}

impl HistoryTier for RedisTier {
    fn page(&self, request: PageRequest, deadline: Instant) -> BoxFuture<'static, Result<Page, TierError>> {
        let tier = self.clone();
        Box::pin(async move { tier.page(&request, deadline).await })
    }
}

impl LogTimes for KafkaHistory {
    fn offsets_at(
        &self,
        epoch: u64,
        time_ms: i64,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Vec<(i32, i64)>, TierError>> {
        let history = self.clone();
        Box::pin(async move { history.offsets_at(epoch, time_ms, deadline).await })
    }
}
