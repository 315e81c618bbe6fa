//! The v2 heartbeat frame: built at most once per second and shared by all sessions.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;

use crate::board::Board;
use crate::wire::{control, ws_frame};

const MAX_AGE: Duration = Duration::from_secs(1);

/// Builds and keeps the frame.
pub struct HeartbeatSource {
    board: Board,
    ingest: Box<dyn Fn() -> Value + Send + Sync>,
    built: Mutex<Option<(Instant, Bytes)>>,
}

impl std::fmt::Debug for HeartbeatSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeartbeatSource").finish_non_exhaustive()
    }
}

impl HeartbeatSource {
    /// A source that asks `ingest` for the state of the pipeline.
    pub fn new(board: Board, ingest: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        Self { board, ingest: Box::new(ingest), built: Mutex::new(None) }
    }

    /// The frame of about now.
    pub fn frame(&self, now: Instant) -> Bytes {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, frame)) = &*built
            && now.saturating_duration_since(*at) < MAX_AGE
        {
            return frame.clone();
        }
        let next: Vec<_> = self
            .board
            .partitions()
            .iter()
            .filter_map(|partition| Some((partition.partition, partition.stored.get()?)))
            .collect();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        let frame = ws_frame::text(&control::heartbeat(millis, &next, &(self.ingest)()));
        *built = Some((now, frame.clone()));
        frame
    }
}
