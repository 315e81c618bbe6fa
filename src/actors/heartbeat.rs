//! The v2 heartbeat frame: built at most once per second and shared by all sessions.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::board::Board;
use crate::wire::{control, ws_frame};

const MAX_AGE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Built {
    at: Instant,
    /// What everybody gets who may see everything.
    frame: Bytes,
    /// Healthy or not, without the reasons.
    status: Value,
}

/// Builds and keeps the frame.
pub struct HeartbeatSource {
    board: Board,
    ingest: Box<dyn Fn() -> Value + Send + Sync>,
    built: Mutex<Option<Built>>,
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
        self.built(now).frame
    }

    /// The frame for a session that must not learn of others: it holds `next`, the ends that the session knows.
    pub fn restricted(&self, next: &[(i32, i64)], now: Instant) -> Bytes {
        let ingest = json!({"status": self.built(now).status, "reasons": []});
        ws_frame::text(&control::heartbeat(unix_ms(), next, &ingest))
    }

    fn built(&self, now: Instant) -> Built {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = &*built
            && now.saturating_duration_since(built.at) < MAX_AGE
        {
            return built.clone();
        }
        let next: Vec<_> = self
            .board
            .partitions()
            .iter()
            .filter_map(|partition| Some((partition.partition, partition.stored.get()?)))
            .collect();
        let ingest = (self.ingest)();
        let frame = ws_frame::text(&control::heartbeat(unix_ms(), &next, &ingest));
        let status = ingest.get("status").cloned().unwrap_or_default();
        built.insert(Built { at: now, frame, status }).clone()
    }
}

fn unix_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
