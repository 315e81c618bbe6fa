//! A reset by hand, for a session that has begun: it goes on at the first offsets that are visible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Feed, Position, SessionQueue};
use crate::board::{Board, Epoch, Stream};
use crate::messages::Join;
use crate::wire::control::{self, ResetReason};
use crate::wire::ws_frame;

impl SessionQueue {
    /// A reset by hand that came while the session was being placed in `placed_in` has missed it.
    pub fn heed_reset(self: &Arc<Self>, placed_in: &Stream, board: &Board, now: Instant) {
        let stream = board.stream();
        if stream != *placed_in
            && let Some(reset) = &stream.reset
        {
            self.begin_anew(&stream.as_told(), &reset.floors, now);
        }
    }

    /// Places every partition that is listed at its offset, and tells the client. Done once per epoch name, and
    /// only for a session of this very log: one of an older log is placed by the store.
    pub fn begin_anew(self: &Arc<Self>, epoch: &Epoch, floors: &BTreeMap<i32, i64>, now: Instant) {
        let ask = {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Idle | Feed::Closing(_))
                || state.epoch_number != epoch.number
                || *state.epoch == *epoch.name
            {
                return;
            }
            let shown: Vec<_> = floors.iter().filter(|(partition, _)| !state.hides(**partition)).collect();
            for (partition, floor) in shown {
                state.withheld.remove(partition);
                let frame = control::cursor_reset(*partition, ResetReason::ManualReset, &epoch.name, *floor);
                state.push(ws_frame::text(&frame), now);
                let place = Position::at(*floor, *partition);
                match state.positions.binary_search_by_key(partition, |position| position.partition) {
                    Ok(index) => state.positions.splice(index..=index, [place]).for_each(drop),
                    Err(index) => state.positions.insert(index, place),
                }
            }
            state.later.clear();
            state.ticket += 1;
            state.enter(epoch);
            state.threads = None;
            state.apply_lag.reset();
            let served = matches!(state.feed, Feed::Live(_) | Feed::Behind { .. });
            if served {
                state.feed = Feed::Behind { asked: true };
            }
            served
        };
        self.waker.wake();
        if ask {
            self.join.send(Join { queue: Arc::clone(self) });
        }
    }
}
