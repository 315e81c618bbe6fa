//! The register of open sessions: for the store's new generation, the watchdog, the scrape and the shutdown.
//!
//! It is locked when sessions come and go and when somebody looks at all of them, never per record.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::session_queue::{Feed, SessionQueue};
use crate::board::Stream;
use crate::metrics::Metrics;
use crate::wire::close_code::CloseCode;

/// A handle on a session's socket that works while its actor is frozen.
#[derive(Debug)]
pub struct SocketHandle(TcpStream);

impl SocketHandle {
    /// Wraps a duplicate of the socket.
    pub const fn new(socket: TcpStream) -> Self {
        Self(socket)
    }

    /// Ends the connection in both directions.
    pub fn shut_down(&self) {
        // Already closed by the peer is as good.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// How long a client may take nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// While something waits in its queue.
    pub unread: Duration,
    /// With an empty queue: its connection is looked at with each heartbeat at the latest, unless bytes that have left the
    /// queue are stuck in the socket.
    pub unpolled: Duration,
}

/// An open session.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// Its queue.
    pub queue: Arc<SessionQueue>,
    /// Its socket, when known.
    pub socket: Option<Arc<SocketHandle>>,
}

/// All open sessions. Cloning shares the register.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: AtomicU64,
    register: Mutex<Register>,
}

#[derive(Debug, Default)]
struct Register {
    open: BTreeMap<u64, OpenSession>,
    /// All were closed, and so is whoever still comes.
    closed: Option<CloseCode>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Register> {
        self.0.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new session.
    pub fn next_number(&self) -> u64 {
        self.0.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Registers a session until the returned guard is dropped. One that comes after [`Self::close_all`] is closed as the
    /// others were.
    pub fn register(&self, session: OpenSession) -> Registered {
        let number = session.queue.info.session;
        let queue = Arc::clone(&session.queue);
        let closed = {
            let mut register = self.lock();
            register.open.insert(number, session);
            register.closed
        };
        if let Some(code) = closed {
            queue.close(code, Instant::now());
        }
        Registered { sessions: self.clone(), number }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<OpenSession> {
        self.lock().open.values().cloned().collect()
    }

    /// At most `count` of them with a number above `after`, in the order of their numbers.
    pub fn page(&self, after: u64, count: usize) -> Vec<OpenSession> {
        let above = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.lock().open.range(above).take(count).map(|(_, session)| session.clone()).collect()
    }

    /// Tells all that a reset by hand has hidden what lies below these offsets.
    pub fn begin_anew(&self, stream: &Stream, now: Instant) {
        let Some(reset) = &stream.reset else { return };
        let told = stream.as_told();
        for session in self.all() {
            session.queue.begin_anew(&told, &reset.floors, now);
        }
    }

    /// Says good-bye to all, and to whoever comes from now on.
    pub fn close_all(&self, code: CloseCode, now: Instant) {
        self.lock().closed = Some(code);
        for session in self.all() {
            session.queue.close(code, now);
        }
    }

    /// Ends the connection of each session whose socket takes nothing.
    pub fn end_stalled(&self, patience: Patience, now: Instant, metrics: &Metrics) {
        for session in self.all() {
            if session.socket.is_none() && session.queue.close_code().is_some() {
                // All that can be done was done.
                continue;
            }
            let (unread, unpolled) = session.queue.stalled(now);
            if unread >= patience.unread || unpolled >= patience.unpolled {
                metrics.send_timeout.inc();
                tracing::warn!(
                    session = session.queue.info.session,
                    address = %session.queue.info.address,
                    seconds = unread.max(unpolled).as_secs(),
                    "client has not read for too long; ending its connection"
                );
                session.queue.close(CloseCode::SlowClient, now);
                if let Some(socket) = session.socket {
                    socket.shut_down();
                }
            }
        }
    }

    /// Sets the gauges that are sums over sessions.
    pub fn publish(&self, metrics: &Metrics, now: Instant) {
        let (mut idle, mut live, mut behind, mut parked, mut closing) = (0, 0, 0, 0, 0);
        let mut filtered = 0;
        let (mut queued, mut lag_messages, mut lag_seconds) = (0, 0, 0.0_f64);
        for session in self.all() {
            let snapshot = session.queue.snapshot(now);
            match snapshot.feed {
                Feed::Idle => idle += 1,
                Feed::Live(_) => live += 1,
                Feed::Behind { .. } => behind += 1,
                Feed::Parked => parked += 1,
                Feed::Closing(_) => closing += 1,
            }
            filtered += i64::from(snapshot.filter.is_some());
            queued += snapshot.queued_bytes;
            lag_messages += snapshot.apply_lag_messages.unwrap_or(0);
            lag_seconds = lag_seconds.max(snapshot.apply_lag.unwrap_or_default().as_secs_f64());
        }
        metrics.connected_clients.set(idle + live + behind + parked + closing);
        let counts =
            [("idle", idle), ("live", live), ("catching_up", behind), ("parked", parked), ("closing", closing)];
        for (state, count) in counts {
            metrics.sessions.with_label_values(&[state]).set(count);
        }
        metrics.filtered_sessions.set(filtered);
        metrics.queued_bytes.set(i64::try_from(queued).unwrap_or(i64::MAX));
        metrics.apply_lag_messages.set(i64::try_from(lag_messages).unwrap_or(i64::MAX));
        metrics.apply_lag_seconds.set(lag_seconds);
    }
}

/// Takes the session off the register on drop, so that a slot cannot leak.
#[derive(Debug)]
pub struct Registered {
    sessions: Sessions,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.lock().open.remove(&self.number);
    }
}
