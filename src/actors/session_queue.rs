//! One session's outgoing queue: the one structure that an actor shares with the outside.
//!
//! A WebSocket actor is frozen while its client does not read, so data flows beside its mailbox: the store pushes frames
//! that were encoded once, the connection pulls them when the socket has room. The queue holds the session's
//! cursors, and nothing enters that does not touch them: the last gate before the socket refuses a hole. A queue that is
//! full leaves the live set and asks the store again once it has drained; nothing is dropped. It must not know where
//! frames come from.

mod anew;
mod answers;
mod feeder;
mod filtered;
mod forms;
mod look;
mod replay;
mod request;
mod state;
mod threads;
mod v1;

use feeder::MAX_LOOKED_THROUGH;
pub use feeder::{Fed, Feeder};
pub use forms::Forms;
pub use look::Snapshot;
pub use request::{Beginning, Request};

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use self::replay::Replay;
use self::state::State;
use self::threads::ThreadReplay;
use super::bell::{Bell, Wakes};
use super::link::Link;
use super::resumes::Ended;
use crate::board::Epoch;
use crate::messages::Join;
use crate::pipeline::apply_lag::ApplyLag;
use crate::pipeline::trace_parent::TraceParent;
use crate::pipeline::window::Chunk;
use crate::wire::close_code::CloseCode;
use crate::wire::control::{self, Dialect, ResetReason};
use crate::wire::ws_frame;

/// What may wait for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes that its socket has not taken, plus one chunk.
    pub queued_bytes: usize,
    /// Bytes that it has not reported as applied, plus one chunk; for clients that report.
    pub unapplied_bytes: usize,
    /// Records of a replay page, over all partitions.
    pub page_records: u32,
    /// Records of one resume.
    pub max_total: u64,
    /// What becomes of a live session that does not keep up.
    pub slow: SlowPolicy,
}

/// What becomes of a live session whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It pulls from its cursor at its own pace, and is live again when it has caught up.
    CatchUp,
    /// What it missed is named as a gap once it has drained, and it is live again.
    SkipToLive,
    /// It is closed; it comes back with its cursor.
    Disconnect,
}

/// What stays the same for a session's life.
#[derive(Debug)]
pub struct SessionInfo {
    /// Number of the session in this process.
    pub session: u64,
    /// The protocol spoken.
    pub dialect: Dialect,
    /// Where the client comes from.
    pub address: IpAddr,
    /// When it connected.
    pub opened: Instant,
    /// The span that its connection belongs to, as the client says.
    pub trace: Option<TraceParent>,
}

/// The queue.
#[derive(Debug)]
pub struct SessionQueue {
    /// Who this is.
    pub info: SessionInfo,
    limits: QueueLimits,
    join: Link<Join>,
    waker: AtomicWaker,
    /// Of the thread that serves the session.
    bell: Option<Bell>,
    state: Mutex<State>,
    /// Bytes that the socket took so far.
    taken_bytes: AtomicU64,
}

/// How the session gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// No start position yet.
    Idle,
    /// In the live set of the store with this generation.
    Live(u64),
    /// Catching up: asks the store whenever it has drained.
    Behind {
        /// Whether the store was asked and has not answered yet.
        asked: bool,
    },
    /// Its resume was capped: nothing more is sent until it asks on.
    Parked,
    /// Nothing more is taken; what is queued is still sent.
    Closing(CloseCode),
}

/// Where the session stands in one partition. Offsets are "next" positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// Where the session began.
    pub start: i64,
    /// Everything below was queued or sent, or withheld by the session's filter.
    pub sent: i64,
    /// Everything below was applied by the client, as it says.
    pub applied: i64,
    /// It began at the oldest that was kept, wherever that is: what retention took before it was sent is no loss.
    pub oldest: bool,
}

impl Position {
    const fn at(start: i64, partition: i32) -> Self {
        Self { partition, start, sent: start, applied: start, oldest: false }
    }
}

/// How a session came to be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// A resume ended.
    Resumed(Ended),
    /// It had been too slow and has caught up.
    CaughtUp,
    /// It was live already.
    StayedLive,
    /// A resume met its limit with more to come.
    Capped(Ended),
}

/// What became of chunks that were offered to a live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// They are queued, with this many records.
    Taken(u64),
    /// The session is too slow, or a chunk does not touch its cursor: it catches up by asking. So many records were queued
    /// before.
    Behind(u64),
    /// The session takes nothing more from this store.
    Gone,
}

impl SessionQueue {
    /// An idle queue.
    pub fn new(info: SessionInfo, limits: QueueLimits, join: Link<Join>) -> Self {
        let state = State {
            frames: VecDeque::new(),
            bytes: 0,
            handed_out: 0,
            feed: Feed::Idle,
            epoch: Arc::default(),
            epoch_number: 0,
            positions: Vec::new(),
            later: Vec::new(),
            resume: None,
            ticket: 0,
            skips_to_live: false,
            progress: info.opened,
            polled: info.opened,
            apply_lag: ApplyLag::default(),
            filter: None,
            withheld: BTreeMap::new(),
            data_top: 0,
            threads: None,
            client: None,
        };
        Self {
            info,
            limits,
            join,
            waker: AtomicWaker::new(),
            bell: None,
            state: Mutex::new(state),
            taken_bytes: AtomicU64::new(0),
        }
    }

    /// The same, woken together with the other sessions of its thread.
    #[must_use]
    pub fn with_bell(self, bell: Bell) -> Self {
        Self { bell: Some(bell), ..self }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins, or begins anew, at `starts`; what is queued and not yet taken is dropped. The store is asked at once. Without
    /// a request, for a client that asked for nothing, no `replay_complete` answers it.
    pub fn begin(
        self: &Arc<Self>,
        epoch: &Epoch,
        starts: &[Beginning],
        request: impl Into<Option<Request>>,
        now: Instant,
    ) {
        let (request, first, later) = match request.into() {
            Some(Request { from, threads, first, later }) => (Some((from, threads)), first, later),
            None => (None, Vec::new(), Vec::new()),
        };
        {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Closing(_)) {
                return;
            }
            state.frames.clear();
            state.bytes = state.handed_out;
            state.progress = now;
            state.enter(epoch);
            let position =
                |start: &Beginning| Position { oldest: start.oldest, ..Position::at(start.from, start.partition) };
            state.positions = starts.iter().map(position).collect();
            state.positions.sort_unstable_by_key(|position| position.partition);
            state.later = later;
            state.withheld.clear();
            state.apply_lag = ApplyLag::default();
            let mut targets: Vec<_> = starts.iter().map(|start| (start.partition, start.end)).collect();
            targets.sort_unstable();
            let (from, threads) = request.map_or((None, None), |(from, threads)| (Some(from), threads));
            state.threads = threads.map(|cursor| ThreadReplay::new(cursor, targets.clone()));
            state.resume = from.map(|from| Replay::new(from, &self.limits, targets, now));
            state.ticket += 1;
            state.skips_to_live = false;
            state.feed = Feed::Behind { asked: true };
            for frame in first {
                state.push(frame, now);
            }
        }
        self.waker.wake();
        self.join.send(Join { queue: Arc::clone(self) });
    }

    /// Says good-bye: after what is queued comes the close frame, then the end.
    pub fn close(&self, code: CloseCode, now: Instant) {
        {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Closing(_)) {
                return;
            }
            state.push(ws_frame::close(code.code(), code.name()), now);
            state.feed = Feed::Closing(code);
        }
        self.waker.wake();
    }

    /// With which code the session is closing, if it is.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self.lock().feed {
            Feed::Closing(code) => Some(code),
            _ => None,
        }
    }

    /// Offers the live stream's next chunks, at one lock and one wake. `forms` holds, per chunk, what sessions share of it;
    /// `wakes` takes whom to wake.
    pub fn offer(
        &self,
        chunks: &[Arc<Chunk>],
        forms: &mut [Forms],
        generation: u64,
        wakes: &mut Wakes,
        now: Instant,
    ) -> Offer {
        let mut taken = 0;
        let nothing_new;
        {
            let mut state = self.lock();
            if state.feed != Feed::Live(generation) {
                return Offer::Gone;
            }
            let before = state.bytes;
            for (chunk, forms) in chunks.iter().zip(forms) {
                match self.take(&mut state, chunk, forms, now) {
                    Some(records) => taken += u64::from(records),
                    None => {
                        self.demote(&mut state, now);
                        drop(state);
                        self.waker.wake();
                        return Offer::Behind(taken);
                    }
                }
            }
            nothing_new = state.bytes == before;
        }
        if !nothing_new && let Some(waker) = self.waker.take() {
            wakes.add(self.bell.as_ref(), waker);
        }
        Offer::Taken(taken)
    }

    fn demote(&self, state: &mut State, now: Instant) {
        match self.limits.slow {
            SlowPolicy::Disconnect if state.is_full(&self.limits) => {
                let code = CloseCode::SlowClient;
                state.push(ws_frame::close(code.code(), code.name()), now);
                state.feed = Feed::Closing(code);
            }
            policy => {
                state.skips_to_live = policy == SlowPolicy::SkipToLive && state.is_full(&self.limits);
                state.feed = Feed::Behind { asked: false };
            }
        }
    }

    /// Queues a live chunk, unless the session is too slow or the chunk does not touch its cursor.
    fn take(&self, state: &mut State, chunk: &Chunk, forms: &mut Forms, now: Instant) -> Option<u32> {
        let Some(sent) = state.sent(chunk.partition) else { return state.hides(chunk.partition).then_some(0) };
        if chunk.next <= sent {
            return Some(0);
        }
        if chunk.first > sent || state.is_full(&self.limits) {
            return None;
        }
        let form = forms.of(chunk, sent, u32::MAX, self.info.dialect, state.filter.as_ref());
        let records = form.records;
        state.take(chunk.partition, form, self.info.dialect, now);
        Some(records)
    }

    /// Whether it is in the live set of the store with this generation.
    pub fn is_live(&self, generation: u64) -> bool {
        self.lock().feed == Feed::Live(generation)
    }

    /// Asks the store when the queue has room. Called after a demotion, in case the socket drained it meanwhile, and after an
    /// answer that ended before the queue was full.
    pub fn ask_if_drained(self: &Arc<Self>) {
        let ask = self.lock().wants_more(&self.limits);
        if ask {
            self.join.send(Join { queue: Arc::clone(self) });
        }
    }

    /// Opens the queue for the store's answer; `None` when it does not want one.
    pub fn feeder(&self, now: Instant) -> Option<Feeder<'_>> {
        let state = self.lock();
        match state.feed {
            Feed::Idle | Feed::Parked | Feed::Closing(_) => None,
            Feed::Live(_) | Feed::Behind { .. } => {
                Some(Feeder { queue: self, state, now, records: 0, scanned: 0, left: MAX_LOOKED_THROUGH })
            }
        }
    }

    /// Asks the store once more, for a session whose answer may have got lost with an actor.
    pub fn ask_again(self: &Arc<Self>) {
        if matches!(self.lock().feed, Feed::Behind { asked: true }) {
            self.join.send(Join { queue: Arc::clone(self) });
        }
    }

    /// Opens the queue for pages of history that were asked for under `ticket`; `None` when they are not wanted any more.
    pub fn history_feeder(&self, ticket: u64, now: Instant) -> Option<Feeder<'_>> {
        let state = self.lock();
        let wanted = state.ticket == ticket && state.feed == (Feed::Behind { asked: true });
        // A page ends by itself, and the store does not wait for it.
        wanted.then_some(Feeder { queue: self, state, now, records: 0, scanned: 0, left: usize::MAX })
    }

    /// The number of the epoch that its positions belong to; `None` before it has any.
    pub fn epoch_number(&self) -> Option<u64> {
        let state = self.lock();
        (state.feed != Feed::Idle).then_some(state.epoch_number)
    }

    /// Offsets start again in every partition. The session goes on at `starts`, unless it began in this epoch.
    pub fn reset(&self, epoch: &Epoch, starts: &[(i32, i64)], now: Instant) {
        {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Idle | Feed::Closing(_)) || state.epoch_number >= epoch.number {
                return;
            }
            state.positions.clear();
            state.later.clear();
            state.withheld.clear();
            state.threads = None;
            let shown: Vec<_> = starts.iter().filter(|(partition, _)| !state.hides(*partition)).collect();
            for (partition, start) in shown {
                let frame = control::cursor_reset(*partition, ResetReason::TopicRecreated, &epoch.name, *start);
                state.push(ws_frame::text(&frame), now);
                state.positions.push(Position::at(*start, *partition));
            }
            state.ticket += 1;
            state.enter(epoch);
            state.positions.sort_unstable_by_key(|position| position.partition);
            state.apply_lag.reset();
        }
        self.waker.wake();
    }

    /// The topic has a new partition: the session has it from `start` on, or from where its client was in it, however late
    /// it gets to it.
    pub fn add_partition(&self, partition: i32, start: i64, now: Instant) {
        {
            let mut state = self.lock();
            let not_now = matches!(state.feed, Feed::Idle | Feed::Parked | Feed::Closing(_));
            if not_now || state.sent(partition).is_some() || state.hides(partition) {
                return;
            }
            state.add(partition, start, self.info.dialect, now);
        }
        self.waker.wake();
    }

    /// Takes a client's report of its last applied offsets: how far it is behind now. What was never sent is not believed.
    /// A session that waited for it asks the store.
    pub fn applied(self: &Arc<Self>, offsets: &[(i32, i64)], now: Instant) -> Option<(u64, Duration)> {
        let (lag, ask) = {
            let mut state = self.lock();
            for (partition, offset) in offsets {
                let withheld_from = state.withheld.get(partition).copied().unwrap_or(i64::MAX);
                if let Ok(index) = state.positions.binary_search_by_key(partition, |position| position.partition)
                    && let Some(position) = state.positions.get_mut(index)
                    && offset.saturating_add(1) <= position.sent.min(withheld_from)
                {
                    position.applied = position.applied.max(offset + 1);
                }
            }
            let applied = state.positions.iter().map(|p| p.applied.abs_diff(p.start)).sum();
            state.apply_lag.applied(applied, now);
            (state.apply_lag.lag(now), state.wants_more(&self.limits))
        };
        if ask {
            self.join.send(Join { queue: Arc::clone(self) });
        }
        lag
    }

    /// Moves the next frames for the socket to `turn`, which the socket has emptied; false at the end of a closed session.
    ///
    /// They count as queued until the next call: only then has the socket taken them.
    pub fn poll_frames(self: &Arc<Self>, cx: &Context<'_>, turn: &mut VecDeque<Bytes>) -> Poll<bool> {
        // Registered first: a frame that comes between the look and the registration must wake us.
        self.waker.register(cx.waker());
        let (poll, ask) = {
            let mut state = self.lock();
            let now = Instant::now();
            state.polled = now;
            state.bytes -= std::mem::take(&mut state.handed_out);
            state.progress = now;
            let poll = if !state.frames.is_empty() {
                let bytes = state.hand_out(turn);
                self.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                Poll::Ready(true)
            } else if matches!(state.feed, Feed::Closing(_)) {
                Poll::Ready(false)
            } else {
                Poll::Pending
            };
            (poll, state.wants_more(&self.limits))
        };
        if ask {
            self.join.send(Join { queue: Arc::clone(self) });
        }
        poll
    }
}
