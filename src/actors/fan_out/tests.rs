//! Sessions whose answers take the store long, beside those that are live.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll, Waker};

use prost::Message as _;

use super::*;
use crate::actors::link::Link;
use crate::actors::session_queue::{Beginning, Feed, QueueLimits, Request, SessionInfo, SlowPolicy};
use crate::actors::sessions::OpenSession;
use crate::board::Epoch;
use crate::messages::{Decoded, PartitionStart};
use crate::pipeline::credit::Credit;
use crate::pipeline::decode::{Meta, Verdict};
use crate::pipeline::record::{Origin, RawBatch, RawRecord, Span};
use crate::pipeline::tags::Reading;
use crate::pipeline::threads::ThreadCursor;
use crate::wire::control::Dialect;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{DashStreamMessage, Event, Header};

const READING: Reading = Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 };

/// A record of `thread`, next to nothing in Kafka and `len` bytes when it is unpacked.
fn value(thread: &str, sequence: u64, len: usize) -> Vec<u8> {
    let header = Some(Header { thread_id: thread.to_owned(), sequence, ..Header::default() });
    let event = Event { header, node_id: "x".repeat(len), ..Event::default() };
    let content = DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec();
    [vec![1], zstd::bulk::compress(&content, 3).unwrap()].concat()
}

fn tracked(first: i64, values: &[Vec<u8>]) -> Tracked {
    let mut arena = Vec::new();
    let mut records = Vec::new();
    for (offset, value) in (first..).zip(values) {
        let span = |start, len| Span { start: u32::try_from(start).unwrap(), len: u32::try_from(len).unwrap() };
        let value = (span(arena.len(), value.len()), arena.extend_from_slice(value)).0;
        records.push(RawRecord { offset, timestamp_ms: 0, key: None, value: Some(value), headers: span(0, 0) });
    }
    let good = Verdict::Deliver(Meta { message_type: 1, items_start: 0, items_len: 0, timestamp_us: 0 });
    let origin = Origin { epoch: 1, partition: 0, first, next: first + i64::try_from(values.len()).unwrap() };
    let batch = RawBatch { origin, lost: None, records, arena: arena.into() };
    let verdicts = vec![good; values.len()];
    let permit = Credit::new(1).charge(1);
    Tracked {
        decoded: Decoded { batch, verdicts, items: Vec::new(), duty_term: 0, held: Vec::new(), permit },
        findings: Vec::new(),
    }
}

fn session(number: u64, dialect: Dialect, now: Instant) -> Arc<SessionQueue> {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let info = SessionInfo { session: number, dialect, address, opened: now, trace: None };
    let (queued_bytes, unapplied_bytes, slow) = (1 << 20, 1 << 20, SlowPolicy::CatchUp);
    let limits = QueueLimits { queued_bytes, unapplied_bytes, page_records: 1_000, max_total: 10_000, slow };
    Arc::new(SessionQueue::new(info, limits, Link::default()))
}

fn sent(queue: &SessionQueue, now: Instant) -> i64 {
    queue.snapshot(now).positions[0].sent
}

#[test]
fn a_new_log_begins_at_its_oldest_record_wherever_this_instance_reads_it() {
    let (now, board, metrics) = (Instant::now(), Board::new(), Arc::new(Metrics::new().unwrap()));
    let window = Window::new(1 << 30, usize::MAX);
    let sessions = Sessions::default();
    let mut store = FanOut::new(1, window, sessions.clone(), board.clone(), metrics);
    let mut open = |number: u64, start: i64, low: Option<i64>| {
        let epoch = Epoch { number, name: number.to_string() };
        board.open_epoch(epoch.clone());
        let partition = board.opened(0);
        partition.start.set(start);
        low.into_iter().for_each(|low| partition.low_watermark.set(low));
        let partitions = vec![PartitionStart { partition: 0, start }];
        store.open(&PartitionsOpened { epoch: epoch.clone(), partitions }, now);
        epoch
    };
    let epoch = open(1, 5, Some(5));
    let queue = session(1, Dialect::V2, now);
    let _registered = sessions.register(OpenSession { queue: Arc::clone(&queue), socket: None });
    queue.begin(&epoch, &[Beginning { partition: 0, from: 9, end: 9, oldest: false }], None, now);
    // The group has committed 267 before this instance heard of the new log.
    for (number, low, begins) in [(2, Some(0), 0), (3, Some(40), 40), (4, None, 267)] {
        open(number, 267, low);
        assert_eq!((queue.epoch_number(), sent(&queue, now)), (Some(number), begins));
    }
}

#[test]
fn those_who_ask_for_threads_take_the_store_in_turns_and_what_is_live_goes_on_between_them() {
    const BACKLOG: usize = 60;
    const ASKING: u64 = 20;
    let (now, board, metrics) = (Instant::now(), Board::new(), Arc::new(Metrics::new().unwrap()));
    let epoch = Epoch { number: 1, name: "e".into() };
    board.open_epoch(epoch.clone());
    board.opened(0);
    let window = Window::new(1 << 30, usize::MAX);
    let mut store = FanOut::new(1, window, Sessions::default(), board, Arc::clone(&metrics));
    store.open(
        &PartitionsOpened { epoch: epoch.clone(), partitions: vec![PartitionStart { partition: 0, start: 0 }] },
        now,
    );
    let mut backlog: Vec<_> = (1..BACKLOG as u64).map(|sequence| value("other", sequence, 200_000)).collect();
    backlog.push(value("wanted", 1, 200_000));
    let mut end = i64::try_from(BACKLOG).unwrap();
    store.take(tracked(0, &backlog), now).unwrap();
    store.flush(now).unwrap();

    let start = |from| Beginning { partition: 0, from, end, oldest: false };
    let live = session(0, Dialect::V2, now);
    live.begin(&epoch, &[start(end)], None, now);
    store.serve(&live, now);
    let mut mailbox = VecDeque::new();
    for number in 1..=ASKING {
        let queue = session(number, Dialect::V1, now);
        let threads = ThreadCursor::new([("wanted".to_owned(), 0)], READING);
        queue.begin(&epoch, &[start(0)], Request::of_threads(threads), now);
        mailbox.push_back(queue);
    }
    let asking: Vec<_> = mailbox.iter().cloned().collect();
    while let Some(queue) = mailbox.pop_front() {
        let before = sent(&queue, now);
        store.serve(&queue, now);
        let moved = sent(&queue, now).min(i64::try_from(BACKLOG).unwrap()) - before;
        assert!(moved <= 2, "{moved} records of 200 kB in one turn");
        store.take(tracked(end, &[value("other", 1_000, 1)]), now).unwrap();
        store.flush(now).unwrap();
        end += 1;
        assert_eq!(sent(&live, now), end, "what is live is delivered after each turn");
        // Its client reads.
        let mut frames = VecDeque::new();
        while queue.poll_frames(&Context::from_waker(Waker::noop()), &mut frames) == Poll::Ready(true) {
            frames.clear();
        }
        if queue.snapshot(now).feed == (Feed::Behind { asked: true }) {
            mailbox.push_back(queue);
        }
    }
    assert!(asking.iter().all(|queue| queue.is_live(1) && sent(queue, now) == end));
    let replayed = metrics.replay_messages.with_label_values(&["thread"]).get();
    assert!(replayed >= ASKING, "each has the one that it wanted, and what came while it was served: {replayed}");
}
