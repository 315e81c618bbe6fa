//! What operators and the watchdog see of a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Feed, Position, SessionQueue};
use crate::pipeline::filter::Filter;

/// What operators see of a session.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the client calls itself.
    pub client: Option<Arc<str>>,
    /// How it is fed.
    pub feed: Feed,
    /// Queued bytes.
    pub queued_bytes: usize,
    /// Positions per partition.
    pub positions: Vec<Position>,
    /// Offsets sent but not applied; `None` until the client has reported.
    pub apply_lag_messages: Option<u64>,
    /// Age of the oldest of them.
    pub apply_lag: Option<Duration>,
    /// Bytes that the socket took.
    pub sent_bytes: u64,
    /// What it gets; `None`: everything.
    pub filter: Option<Arc<Filter>>,
}

impl Feed {
    /// The name in metrics and in the listing of clients.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Live(_) => "live",
            Self::Behind { .. } => "catching_up",
            Self::Parked => "parked",
            Self::Closing(_) => "closing",
        }
    }
}

/// Bytes a second of the slowest line on which a large record still arrives.
const SLOWEST_LINE: u64 = 64 * 1024;

impl SessionQueue {
    /// What the client calls itself, for operators.
    pub fn set_client(&self, client: &str) {
        self.lock().client = Some(client.into());
    }

    /// What operators see.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let state = self.lock();
        let lag = state.apply_lag.lag(now);
        Snapshot {
            client: state.client.clone(),
            feed: state.feed,
            queued_bytes: state.bytes,
            positions: state.positions.clone(),
            apply_lag_messages: lag.map(|(messages, _)| messages),
            apply_lag: lag.map(|(_, age)| age),
            sent_bytes: self.taken_bytes.load(Ordering::Relaxed),
            filter: state.filter.clone(),
        }
    }

    /// How long the socket has taken nothing although something waits, and how long it has not even asked. It asks only
    /// once all that it was handed has left: what a slow line needs for that is not held against it.
    pub fn stalled(&self, now: Instant) -> (Duration, Duration) {
        let state = self.lock();
        let on_its_way = Duration::from_millis(state.handed_out as u64 * 1000 / SLOWEST_LINE);
        let since = |then| now.saturating_duration_since(then).saturating_sub(on_its_way);
        let unread = if state.bytes == 0 { Duration::ZERO } else { since(state.progress) };
        (unread, since(state.polled))
    }
}
