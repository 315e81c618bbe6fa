//! Sessions that do not get everything: their filter, and the offsets that were withheld from them.
//!
//! The cursor goes on over withheld offsets at once; a v2 client is told of them with the next data of the partition, or
//! with the next heartbeat. So a client with a narrow filter is not woken for every chunk of others, and one that must not
//! see others does not see when they write.

use std::sync::Arc;
use std::time::Instant;

use super::forms::Form;
use super::state::State;
use super::{Feed, SessionQueue};
use crate::pipeline::filter::Filter;
use crate::wire::control::{self, Dialect};
use crate::wire::stream::SkipReason;
use crate::wire::stream_frame::FrameBuilder;
use crate::wire::ws_frame;

impl SessionQueue {
    /// What the session gets from its cursors on; what is queued was chosen before. `announce` tells the client from where
    /// on it holds.
    pub fn set_filter(&self, filter: Option<Arc<Filter>>, announce: bool, now: Instant) {
        {
            let mut state = self.lock();
            if matches!(state.feed, Feed::Closing(_)) {
                return;
            }
            state.tell_all_withheld(now);
            state.filter = filter;
            if announce {
                let next: Vec<_> = state.positions.iter().map(|p| (p.partition, p.sent)).collect();
                state.push(ws_frame::text(&control::filter_applied(&next)), now);
            }
        }
        self.waker.wake();
    }

    /// Tells the client how far its cursors went on over offsets that were withheld from it.
    pub fn tell_withheld(&self, now: Instant) {
        let told = self.lock().tell_all_withheld(now);
        if told {
            self.waker.wake();
        }
    }

    /// Per partition the end of what the client was told.
    pub fn told_ends(&self) -> Vec<(i32, i64)> {
        let state = self.lock();
        state.positions.iter().map(|p| (p.partition, state.told(p.partition, p.sent))).collect()
    }
}

impl State {
    /// Queues a part of a chunk, or lets the cursor go on over it.
    pub(super) fn take(&mut self, partition: i32, form: Form, dialect: Dialect, now: Instant) {
        match form.frame {
            Some(frame) => self.advance(partition, form.next, frame, now),
            None => self.withhold(partition, form.next, dialect),
        }
    }

    fn withhold(&mut self, partition: i32, next: i64, dialect: Dialect) {
        if let Ok(index) = self.positions.binary_search_by_key(&partition, |position| position.partition)
            && let Some(position) = self.positions.get_mut(index)
        {
            // v1 has no frame for it.
            if dialect == Dialect::V2 {
                self.withheld.entry(partition).or_insert(position.sent);
            }
            position.sent = next;
        }
    }

    /// The end of what the client was told of a partition whose cursor stands at `sent`.
    pub(super) fn told(&self, partition: i32, sent: i64) -> i64 {
        self.withheld.get(&partition).copied().unwrap_or(sent)
    }

    /// Tells of the offsets withheld before the next data of a partition.
    pub(super) fn tell_withheld(&mut self, partition: i32, now: Instant) {
        let Some(first) = self.withheld.remove(&partition) else { return };
        let Some(next) = self.sent(partition).filter(|next| *next > first) else { return };
        let mut builder = FrameBuilder::with_capacity(32);
        builder.skip(first, next, SkipReason::Filtered);
        let frame = builder.seal(partition, first, next).message;
        self.apply_lag.sent(next.abs_diff(first), frame.len(), now);
        self.push(frame, now);
    }

    /// The same for all partitions; whether there was anything to tell.
    pub(super) fn tell_all_withheld(&mut self, now: Instant) -> bool {
        let partitions: Vec<i32> = self.withheld.keys().copied().collect();
        for partition in &partitions {
            self.tell_withheld(*partition, now);
        }
        !partitions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::actors::bell::Wakes;
    use std::collections::VecDeque;
    use std::net::{IpAddr, Ipv4Addr};
    use std::task::{Context, Poll, Waker};

    use prost::Message as _;

    use super::super::{Beginning, Forms, Joined, Offer, QueueLimits, Request, SessionInfo, SlowPolicy};
    use super::*;
    use crate::actors::link::Link;
    use crate::actors::resumes::Ended;
    use crate::board::Epoch;
    use crate::pipeline::filter::Grant;
    use crate::pipeline::tags::Reading;
    use crate::pipeline::window::Chunk;
    use crate::wire::control::From;
    use crate::wire::filter::FilterRequest;
    use crate::wire::telemetry::dash_stream_message::Message;
    use crate::wire::telemetry::{DashStreamMessage, Event, Header};

    fn epoch(number: u64, name: &str) -> Epoch {
        Epoch { number, name: name.to_owned() }
    }

    const BEGINNING: Beginning = Beginning { partition: 0, from: 0, end: 0, oldest: false };

    fn queue(dialect: Dialect) -> Arc<SessionQueue> {
        let now = Instant::now();
        let info =
            SessionInfo { session: 1, dialect, address: IpAddr::V4(Ipv4Addr::LOCALHOST), opened: now, trace: None };
        let limits = QueueLimits {
            queued_bytes: 1 << 20,
            unapplied_bytes: 1 << 20,
            page_records: 1_000,
            max_total: 10_000,
            slow: SlowPolicy::CatchUp,
        };
        Arc::new(SessionQueue::new(info, limits, Link::default()))
    }

    fn of(tenant: &str) -> Option<Arc<Filter>> {
        let request = FilterRequest { tenants: Some(vec![tenant.to_owned()]), ..FilterRequest::default() };
        Filter::new(Some(&request), &Grant::ALL, Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 })
    }

    /// One record per tenant, from `first` on, with `len` bytes of content each.
    fn chunk(first: i64, tenants: &[&str], len: usize) -> Chunk {
        let mut builder = FrameBuilder::new();
        for (offset, tenant) in (first..).zip(tenants) {
            let header = Header { tenant_id: (*tenant).to_owned(), ..Header::default() };
            let event = Event { header: Some(header), node_id: "x".repeat(len), ..Event::default() };
            let message = DashStreamMessage { message: Some(Message::Event(event)) };
            builder.record(offset, 0, &[vec![0], message.encode_to_vec()].concat(), &[]);
        }
        let next = first + tenants.len() as i64;
        Chunk::new(0, first, next, u32::try_from(tenants.len()).unwrap(), builder.seal(0, first, next))
    }

    fn frames(queue: &Arc<SessionQueue>) -> usize {
        let cx = Context::from_waker(Waker::noop());
        let mut turn = VecDeque::new();
        let mut count = 0;
        while queue.poll_frames(&cx, &mut turn) == Poll::Ready(true) {
            count += turn.drain(..).count();
        }
        count
    }

    #[test]
    fn a_client_is_not_woken_for_others_and_is_told_at_once_when_it_is_asked_or_gets_something() {
        let queue = queue(Dialect::V2);
        let now = Instant::now();
        queue.set_filter(of("a"), false, now);
        queue.begin(&epoch(1, "e"), &[BEGINNING], None, now);
        assert_eq!(queue.feeder(now).unwrap().live(1), Joined::CaughtUp);
        let offer = |first, tenants: &[&str]| {
            queue.offer(&[Arc::new(chunk(first, tenants, 1))], &mut [Forms::default()], 1, &mut Wakes::default(), now)
        };
        for first in 0..100 {
            offer(first, &["b"]);
        }
        assert_eq!((frames(&queue), queue.told_ends()), (0, vec![(0, 0)]));
        assert_eq!(queue.snapshot(now).positions[0].sent, 100);
        assert_eq!(queue.applied(&[(0, 50)], now).unwrap().0, 0, "what was not told cannot be applied");
        queue.tell_withheld(now);
        assert_eq!((frames(&queue), queue.told_ends()), (1, vec![(0, 100)]));
        queue.tell_withheld(now);
        assert_eq!(frames(&queue), 0, "nothing is told twice");
        offer(100, &["b"]);
        offer(101, &["b", "a"]);
        assert_eq!(frames(&queue), 2, "first what was withheld, then the record");
        assert_eq!(queue.applied(&[(0, 102)], now).unwrap().0, 0, "all that was told is applied");
    }

    #[test]
    fn a_partition_that_is_none_of_the_clients_does_not_exist_for_it() {
        let reading = Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 };
        let grant = Grant { partitions: Some([1].into()), ..Grant::ALL };
        let now = Instant::now();
        for dialect in [Dialect::V1, Dialect::V2] {
            let queue = queue(dialect);
            queue.set_filter(Filter::new(None, &grant, reading), false, now);
            queue.begin(&epoch(1, "e"), &[Beginning { partition: 1, ..BEGINNING }], None, now);
            let mut feeder = queue.feeder(now).unwrap();
            assert_eq!([feeder.cursor(0, 5), feeder.cursor(1, 5)], [None, Some(0)]);
            feeder.chunk(&chunk(0, &["a"], 1));
            assert_eq!(feeder.live(1), Joined::CaughtUp);
            queue.add_partition(2, 0, now);
            let of_others = Arc::new(chunk(0, &["a", "b"], 1));
            assert_eq!(
                queue.offer(&[of_others], &mut [Forms::default()], 1, &mut Wakes::default(), now),
                Offer::Taken(0)
            );
            queue.tell_withheld(now);
            assert_eq!((frames(&queue), queue.told_ends()), (0, vec![(1, 0)]), "{dialect:?}");
            assert!(queue.is_live(1), "it is not too slow for what it does not get");
            queue.reset(&epoch(2, "f"), &[(0, 0), (1, 7)], now);
            assert_eq!((frames(&queue), queue.told_ends()), (1, vec![(1, 7)]), "{dialect:?}");
        }
    }

    #[test]
    fn a_partition_that_is_heard_of_later_goes_on_where_its_client_was() {
        let now = Instant::now();
        let later = vec![(2, 40), (3, 7)];
        let request = || Request { later: later.clone(), ..Request::new(From::Cursor) };
        // Whoever hears of it first: the store, or the one that tells of new partitions.
        let from_the_store = queue(Dialect::V2);
        from_the_store.begin(&epoch(1, "e"), &[BEGINNING], request(), now);
        let mut feeder = from_the_store.feeder(now).unwrap();
        assert_eq!([2, 2, 3, 4].map(|partition| feeder.cursor(partition, 5)), [40, 40, 7, 5].map(Some));
        drop(feeder);
        let told = queue(Dialect::V2);
        told.begin(&epoch(1, "e"), &[BEGINNING], request(), now);
        told.add_partition(2, 5, now);
        assert_eq!(told.told_ends(), vec![(0, 0), (2, 40)]);
        // Offsets of a log that is over mean nothing in the next one.
        told.reset(&epoch(2, "f"), &[(0, 0)], now);
        told.add_partition(3, 5, now);
        assert_eq!(told.told_ends(), vec![(0, 0), (3, 5)]);
        told.begin(&epoch(2, "f"), &[BEGINNING], request(), now);
        told.begin(&epoch(2, "f"), &[BEGINNING], Request::new(From::Earliest), now);
        told.add_partition(3, 5, now);
        assert_eq!(told.told_ends(), vec![(0, 0), (3, 5)], "the client has asked for something else since");
    }

    #[test]
    fn v1_is_told_nothing_of_what_is_withheld() {
        let queue = queue(Dialect::V1);
        let now = Instant::now();
        queue.set_filter(of("a"), false, now);
        queue.begin(&epoch(1, "e"), &[BEGINNING], None, now);
        assert_eq!(queue.feeder(now).unwrap().live(1), Joined::CaughtUp);
        queue.offer(&[Arc::new(chunk(0, &["b", "b"], 1))], &mut [Forms::default()], 1, &mut Wakes::default(), now);
        queue.tell_withheld(now);
        assert_eq!((frames(&queue), queue.told_ends()), (0, vec![(0, 2)]));
    }

    #[test]
    fn a_narrow_filter_takes_the_store_in_turns_and_ends_live() {
        let queue = queue(Dialect::V2);
        let now = Instant::now();
        queue.set_filter(of("a"), false, now);
        queue.begin(&epoch(1, "e"), &[BEGINNING], Request::new(From::Earliest), now);
        let chunks: Vec<_> = (0..200).map(|first| chunk(first, &["b"], 60_000)).collect();
        let (mut at, mut turns) = (0, 0);
        loop {
            let mut feeder = queue.feeder(now).unwrap();
            turns += 1;
            while at < chunks.len() && !feeder.is_full() {
                feeder.chunk(&chunks[at]);
                at += 1;
            }
            if at == chunks.len() {
                assert!(matches!(feeder.live(1), Joined::Resumed(Ended { replayed: 0, .. })));
                break;
            }
            feeder.behind();
            queue.ask_if_drained();
            assert_eq!(queue.snapshot(now).feed, Feed::Behind { asked: true }, "it asks again by itself");
        }
        assert_eq!(turns, 3, "12 MB in turns of 4 MiB");
        assert_eq!(frames(&queue), 2, "one skip, and replay_complete");
    }

    #[test]
    fn sessions_with_the_same_filter_share_a_frame() {
        let chunk = chunk(0, &["a", "b"], 10);
        let mut forms = Forms::default();
        let frame = |forms: &mut Forms, tenant: &str, dialect| {
            let form = forms.of(&chunk, 0, u32::MAX, dialect, of(tenant).as_ref());
            form.frame.map(|frame| (frame.as_ptr(), form.records))
        };
        let first = frame(&mut forms, "a", Dialect::V2);
        assert_eq!(first.map(|(_, records)| records), Some(1));
        assert_eq!(first, frame(&mut forms, "a", Dialect::V2));
        assert_ne!(first, frame(&mut forms, "a", Dialect::V1));
        assert_ne!(first, frame(&mut forms, "b", Dialect::V2));
        assert_eq!(frame(&mut forms, "c", Dialect::V2), None);
    }
}
