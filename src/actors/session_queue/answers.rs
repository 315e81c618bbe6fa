//! Control frames in order with the data.
//!
//! An answer is owed: it is queued also when the data has filled the queue, within a bound of its own, and a client that
//! asks on without reading its answers is closed. What the server says unasked can wait for the next time.

use std::time::Instant;

use bytes::Bytes;

use super::{Feed, SessionQueue};
use crate::wire::close_code::CloseCode;
use crate::wire::ws_frame;

/// Bytes of answers that may wait behind a queue that data has filled.
const ANSWER_BYTES: usize = 64 * 1024;

impl SessionQueue {
    /// Queues an answer. A client that leaves too many of them unread is closed as too slow.
    pub fn answer(&self, frame: Bytes, now: Instant) {
        {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Closing(_)) {
                return;
            }
            let bound = state.data_top.max(self.limits.queued_bytes).saturating_add(ANSWER_BYTES);
            if state.bytes.saturating_add(frame.len()) <= bound {
                state.push(frame, now);
            } else {
                let code = CloseCode::SlowClient;
                state.push(ws_frame::close(code.code(), code.name()), now);
                state.feed = Feed::Closing(code);
            }
        }
        self.waker.wake();
    }

    /// Queues what nobody has asked for; false when the session is closing or its queue is full.
    pub fn mention(&self, frame: Bytes, now: Instant) -> bool {
        let taken = {
            let mut state = self.lock();
            let taken = !matches!(state.feed, Feed::Closing(_)) && state.bytes < self.limits.queued_bytes;
            if taken {
                state.push(frame, now);
            }
            taken
        };
        if taken {
            self.waker.wake();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::super::{QueueLimits, SessionInfo, SlowPolicy};
    use super::*;
    use crate::actors::link::Link;
    use crate::wire::control::Dialect;

    const BOUND: usize = 1_000;

    fn queue() -> Arc<SessionQueue> {
        let now = Instant::now();
        let info =
            SessionInfo { session: 1, dialect: Dialect::V2, address: IpAddr::V4(Ipv4Addr::LOCALHOST), opened: now };
        let limits = QueueLimits {
            queued_bytes: BOUND,
            unapplied_bytes: BOUND,
            page_records: 1_000,
            max_total: 10_000,
            slow: SlowPolicy::CatchUp,
        };
        Arc::new(SessionQueue::new(info, limits, Link::default()))
    }

    fn frame(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[test]
    fn an_answer_finds_room_in_a_queue_that_data_has_filled() {
        let now = Instant::now();
        for data in [BOUND, BOUND + 20_000_000] {
            let queue = queue();
            queue.lock().advance(0, 1, frame(data), now);
            assert!(!queue.mention(frame(10), now), "unasked frames wait for the next time");
            queue.answer(frame(10), now);
            assert_eq!(queue.close_code(), None);
            assert_eq!(queue.snapshot(now).queued_bytes, data + 10);
        }
    }

    #[test]
    fn a_client_that_leaves_its_answers_unread_is_closed_with_a_code() {
        let now = Instant::now();
        let queue = queue();
        let mut answers = 0;
        while queue.close_code().is_none() {
            queue.answer(frame(100), now);
            answers += 1;
            assert!(answers < 1_000, "it goes on for ever");
        }
        assert_eq!(queue.close_code(), Some(CloseCode::SlowClient));
        assert!(queue.snapshot(now).queued_bytes <= BOUND + ANSWER_BYTES + 100);
        // All that was answered is still sent, then the close frame.
        let (mut turn, mut frames) = (VecDeque::new(), Vec::new());
        let cx = Context::from_waker(Waker::noop());
        while queue.poll_frames(&cx, &mut turn) == std::task::Poll::Ready(true) {
            frames.extend(turn.drain(..));
        }
        assert_eq!(frames.len(), answers);
        assert_eq!(frames.last(), Some(&ws_frame::close(4001, "slow_client")));
    }

    #[test]
    fn a_client_that_reads_is_never_closed_by_its_answers() {
        let now = Instant::now();
        let queue = queue();
        let cx = Context::from_waker(Waker::noop());
        let mut turn = VecDeque::new();
        for _ in 0..10_000 {
            queue.answer(frame(100), now);
            let _ = queue.poll_frames(&cx, &mut turn);
            turn.clear();
        }
        assert_eq!(queue.close_code(), None);
    }
}
