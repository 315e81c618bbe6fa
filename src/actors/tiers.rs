//! The tiers below the memory window, as those who read history see them.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use crate::board::Stream;
use crate::kafka::history::KafkaHistory;
use crate::kafka::resets::KafkaResets;
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

/// Makes resets by hand.
pub trait ManualResets: Send + Sync + std::fmt::Debug {
    /// Hides all that the log holds now: the stream as it is from then on, or in words why it is not done.
    fn reset(&self, within: Duration) -> BoxFuture<'static, Result<Stream, String>>;
}

impl ManualResets for KafkaResets {
    fn reset(&self, within: Duration) -> BoxFuture<'static, Result<Stream, String>> {
        let resets = self.clone();
        Box::pin(async move { resets.reset(within).await })
    }
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
