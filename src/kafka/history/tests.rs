//! What one partition's reading, the cache and the queue promise, without a broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy;
use prost::Message as _;
use tokio::sync::{Semaphore, oneshot};

use super::cache::Cache;
use super::partition::{Judging, PartitionRead};
use super::queue::{Answer, Offsets, PageJob, Queue, Taken, place};
use crate::kafka::batch::RecordView;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::pipeline::window::{Chunk, ItemRef};
use crate::wire::stream::SkipReason;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{DashStreamMessage, Event};

type Answered<T> = oneshot::Receiver<Result<T, TierError>>;

fn answer<T>() -> (Answer<T>, Answered<T>) {
    let (sender, receiver) = oneshot::channel();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Answer::new(sender, permit), receiver)
}

fn request(partition: i32, from: i64, until: i64, max_records: u32) -> PageRequest {
    PageRequest { epoch: 1, epoch_name: "c/t/a".into(), partition, from, until, max_records, max_bytes: 1 << 20 }
}

fn job(request: PageRequest) -> (PageJob, Answered<Page>) {
    let (answer, answered) = answer();
    (PageJob { request, deadline: Instant::now() + Duration::from_secs(60), put_back: 0, answer }, answered)
}

/// Good values, and every third one garbage.
fn value(offset: i64) -> Vec<u8> {
    if offset % 3 == 1 {
        return b"?garbage".to_vec();
    }
    let event = Event { node_id: offset.to_string(), ..Event::default() };
    [vec![0], DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec()].concat()
}

fn view(offset: i64, value: &[u8]) -> RecordView<'_> {
    RecordView { offset, timestamp_ms: 1, key: Some(b"k"), value: Some(value) }
}

/// What lies at each offset of `[from, next)`: a record's value, or why there is none.
fn cells(chunks: &[Arc<Chunk>]) -> Vec<(i64, Result<Vec<u8>, SkipReason>)> {
    let mut cells = Vec::new();
    for chunk in chunks {
        for (first, next, item) in chunk.items_from(chunk.first) {
            for offset in first..next {
                let cell = match item {
                    ItemRef::Record(value) => Ok(value.to_vec()),
                    ItemRef::Skip(reason) => Err(reason),
                    ItemRef::Gap(reason) => panic!("a gap: {reason:?}"),
                };
                cells.push((offset, cell));
            }
        }
    }
    cells
}

/// The same, as it has to be for a log that has these offsets.
fn cell(log: &[i64], offset: i64) -> (i64, Result<Vec<u8>, SkipReason>) {
    let cell = match log.binary_search(&offset) {
        Err(_) => Err(SkipReason::NoRecord),
        Ok(_) if offset % 3 == 1 => Err(SkipReason::UnknownFraming),
        Ok(_) => Ok(value(offset)),
    };
    (offset, cell)
}

fn judging() -> Judging {
    Judging::new(JudgeSettings::default())
}

/// Where a log begins that is used in a test: also beyond what a double holds exactly.
fn base() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0_i64), Just((1_i64 << 53) - 20), Just(i64::MAX - 2_000)]
}

/// Offsets of records, from `base` on.
fn log() -> impl Strategy<Value = (i64, Vec<i64>)> {
    (base(), prop::collection::vec(0..4_i64, 1..80)).prop_map(|(base, holes)| {
        let mut at = base;
        let place = |hole: &i64| {
            at += hole + 1;
            at - 1
        };
        (base, holes.iter().map(place).collect())
    })
}

/// Reads a page of a log as a round does: the client begins at the first record from the position on.
fn read(log: &[i64], request: PageRequest, known_end: i64, ahead: usize) -> (Page, Vec<Arc<Chunk>>) {
    let (job, mut answered) = job(request);
    let (mut judging, mut read) = (judging(), PartitionRead::new(job, known_end, ahead));
    let position = read.position();
    for offset in log.iter().filter(|offset| **offset >= position) {
        read.take(&mut judging, view(*offset, &value(*offset)));
    }
    read.end_of_log(&mut judging);
    let all = read.chunks().to_vec();
    read.answer(&Ok(()));
    (answered.try_recv().unwrap().unwrap(), all)
}

proptest! {
    /// Pages that are read one after the other cover a log once, whatever holes it has and however they are cut.
    #[test]
    fn pages_cover_a_log_once_and_keep_their_bounds(
        (base, log) in log(), skip in 0..20_i64, max_records in 1..30_u32, small: bool, ahead in prop_oneof![Just(0), 1..500_usize],
    ) {
        let end = log[log.len() - 1] + 3;
        let (mut cursor, mut found) = (base + skip, Vec::new());
        let until = end - 1;
        let max_bytes = if small { 40 } else { 1 << 20 };
        let mut pages = 0;
        while cursor < until {
            let asked = PageRequest { max_bytes, ..request(0, cursor, until, max_records) };
            let (page, all) = read(&log, asked, end, ahead);
            let of_page = cells(&page.chunks);
            let taken = of_page.iter().filter(|(offset, _)| log.binary_search(offset).is_ok()).count();
            prop_assert!(taken <= max_records as usize);
            prop_assert_eq!(&cells(&all)[..of_page.len()], &of_page[..], "what is read ahead comes after the page");
            prop_assert!(ahead > 0 || all.len() == page.chunks.len());
            let next = page.next().unwrap();
            prop_assert!(next > cursor && next <= until);
            let bytes: usize = log.iter().filter(|o| (cursor..next).contains(*o)).map(|o| value(*o).len()).sum();
            let full = taken == max_records as usize || bytes >= max_bytes;
            prop_assert!(full || next == until, "a page ends because it is full, or all is read");
            found.extend(of_page);
            cursor = next;
            pages += 1;
        }
        prop_assert!(pages <= log.len() + 2);
        let want: Vec<_> = ((base + skip)..until).map(|offset| cell(&log, offset)).collect();
        prop_assert_eq!(found, want);
    }

    /// Whatever is kept, in any order: what the cache gives lies where it was asked for, is what the log holds, and is
    /// within the bounds.
    #[test]
    fn the_cache_gives_what_the_log_holds(
        (base, log) in log(),
        kept in prop::collection::vec((0..150_i64, 1..60_u32), 1..20),
        asked in prop::collection::vec((0..200_i64, 1..100_i64, 1..40_u32), 1..20),
        max_bytes in prop_oneof![Just(1_usize << 20), 1_000..20_000_usize],
    ) {
        let end = log[log.len() - 1] + 1;
        let mut cache = Cache::new(max_bytes);
        for (from, max_records) in kept {
            if base + from < end {
                for chunk in read(&log, request(0, base + from, end, max_records), end, 0).1 {
                    cache.keep(1, &chunk);
                }
            }
            prop_assert!(cache.bytes() <= max_bytes);
        }
        for (from, len, max_records) in asked {
            let request = request(0, base + from, (base + from).saturating_add(len), max_records);
            let Some(page) = cache.page(&request) else { continue };
            let found = cells(&page.chunks);
            let next = page.next().unwrap();
            prop_assert!(next <= request.until);
            let want: Vec<_> = (request.from..next).map(|offset| cell(&log, offset)).collect();
            prop_assert_eq!(&found, &want);
            prop_assert!(page.chunks.iter().map(|chunk| chunk.records).sum::<u32>() <= max_records);
        }
    }
}

#[test]
fn what_is_kept_is_given_to_others_until_it_is_too_much_or_another_epoch() {
    let log: Vec<i64> = (0..1_000).collect();
    let chunk = |from: i64| read(&log, request(0, from, from + 100, 100), 1_000, 0).1.remove(0);
    let weight = chunk(0).weight();
    let mut cache = Cache::new(weight * 7 / 2);
    for from in [0, 100, 200] {
        cache.keep(1, &chunk(from));
    }
    let has = |cache: &mut Cache, from: i64| cache.page(&request(0, from, from + 100, 100)).is_some();
    assert!(has(&mut cache, 0) && has(&mut cache, 100) && has(&mut cache, 200));
    assert!(cache.page(&request(1, 0, 100, 100)).is_none(), "another partition");
    // Chunk 0 is used again, so 100 is the oldest one.
    assert!(has(&mut cache, 0));
    cache.keep(1, &chunk(300));
    assert!(has(&mut cache, 0) && !has(&mut cache, 100) && has(&mut cache, 200) && has(&mut cache, 300));
    let whole = cache.page(&request(0, 0, 100, 100)).unwrap();
    let again = cache.page(&request(0, 0, 100, 100)).unwrap();
    assert!(Arc::ptr_eq(&whole.chunks[0], &again.chunks[0]), "whole chunks are shared");
    assert!(cache.page(&request(0, 90, 190, 100)).is_none(), "a tenth of a page is no help");
    assert_eq!(cache.page(&request(0, 40, 140, 60)).unwrap().next(), Some(100));
    cache.keep(2, &chunk(0));
    assert!(!has(&mut cache, 0), "the epoch of the request is over");
    assert_eq!(cache.bytes(), weight);
    cache.keep(1, &chunk(100));
    assert_eq!(cache.bytes(), weight, "nothing of an old epoch is kept");
    let mut off = Cache::new(0);
    off.keep(1, &chunk(0));
    assert!(off.bytes() == 0 && !has(&mut off, 0));
}

#[test]
fn a_position_outside_of_the_log_is_told_apart() {
    let cases = [
        ("retention has passed it", 5, 20, (10, 30), Ok(Some(10))),
        ("retention has taken all", 5, 20, (30, 30), Ok(Some(30))),
        ("it lies beyond what anybody has read", 50, 20, (0, 30), Ok(None)),
        ("the log is shorter than what was read", 15, 20, (0, 10), Err(TierError::EpochOver)),
    ];
    for (what, from, known_end, (low, high), want) in cases {
        let (job, mut answered) = job(request(0, from, 100, 10));
        let mut read = PartitionRead::new(job, known_end, 0);
        assert!(read.out_of_log(&mut judging(), low, high) && read.is_closed(), "{what}");
        read.answer(&Ok(()));
        let answer = answered.try_recv().unwrap();
        assert!(answer.as_ref().is_ok_and(|page| page.chunks.is_empty()) || answer.is_err(), "{what}");
        assert_eq!(answer.map(|page| page.low), want, "{what}");
    }
    let mut read = PartitionRead::new(job(request(0, 15, 100, 10)).0, 20, 0);
    assert!(!read.out_of_log(&mut judging(), 0, 20) && !read.is_closed(), "it is in the log");
    // Retention came while the page was read: what was read is the page.
    let (job, mut answered) = job(request(0, 3, 100, 10));
    let mut read = PartitionRead::new(job, 100, 0);
    (3..6).for_each(|offset| read.take(&mut judging(), view(offset, &value(offset))));
    assert!(read.out_of_log(&mut judging(), 50, 100));
    read.answer(&Ok(()));
    let page = answered.try_recv().unwrap().unwrap();
    assert_eq!((page.next(), page.low), (Some(6), None));
}

#[test]
fn a_reading_that_fails_or_is_late_gives_no_page() {
    let taken = || {
        let (job, answered) = job(request(0, 0, 100, 10));
        let mut read = PartitionRead::new(job, 100, 0);
        read.take(&mut judging(), view(0, &value(0)));
        (read, answered)
    };
    let (mut read, mut answered) = taken();
    read.answer(&Ok(()));
    assert_eq!(answered.try_recv().unwrap().err(), Some(TierError::Timeout));
    let (mut read, mut answered) = taken();
    read.close(&mut judging());
    read.answer(&Err(TierError::EpochOver));
    assert_eq!(answered.try_recv().unwrap().err(), Some(TierError::EpochOver));
    let (mut read, mut answered) = taken();
    read.fail(&mut judging(), TierError::Unavailable("away".into()));
    assert!(read.chunks().is_empty(), "nothing of it is kept");
    read.answer(&Ok(()));
    assert_eq!(answered.try_recv().unwrap().err(), Some(TierError::Unavailable("away".into())));
    let (read, answered) = taken();
    drop(answered);
    assert!(!read.is_wanted());
}

const NOW: Duration = Duration::ZERO;

fn taken(queue: &Queue) -> Vec<(i32, i64)> {
    match queue.take(NOW) {
        Taken::Pages(jobs) => jobs.iter().map(|job| (job.request.partition, job.request.from)).collect(),
        Taken::Nothing => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_of_different_partitions_are_taken_together_and_the_same_page_once() {
    let queue = Queue::default();
    let mut waiting = Vec::new();
    let mut push = |request: PageRequest| {
        let (job, answered) = job(request);
        queue.push_page(job);
        waiting.push(answered);
    };
    for (partition, from) in [(0, 0), (1, 0), (0, 0), (0, 50), (2, 7), (1, 0)] {
        push(request(partition, from, 100, 10));
    }
    push(PageRequest { epoch: 2, ..request(5, 0, 100, 10) });
    assert_eq!(taken(&queue), vec![(0, 0), (1, 0), (2, 7)]);
    assert_eq!(taken(&queue), vec![(0, 50)], "what somebody reads right now is left");
    assert_eq!(taken(&queue), vec![(5, 0)], "another epoch is another round");
    assert!(taken(&queue).is_empty());
    queue.done(&[(1, 0, 0)]);
    assert_eq!(taken(&queue), vec![(0, 0)]);
    queue.done(&[(1, 1, 0)]);
    assert_eq!(taken(&queue), vec![(1, 0)]);
    assert_eq!(place(&request(3, 4, 9, 1)), (1, 3, 4));
}

#[test]
fn a_page_that_was_left_unread_waits_behind_the_others_and_is_read_apart_from_them() {
    let queue = Queue::default();
    let (unread, answered) = job(request(0, 0, 100, 10));
    let mut read = PartitionRead::new(unread, 100, 0);
    read.take(&mut judging(), view(0, &value(0)));
    let again = read.give_back().unwrap();
    assert_eq!((again.put_back, &again.request), (1, &request(0, 0, 100, 10)));
    assert!(read.give_back().is_none() && !read.is_wanted() && !queue.is_waited_for());
    queue.push_page(again);
    let mut waiting = vec![answered];
    for partition in 1..3 {
        let (job, answered) = job(request(partition, 0, 100, 10));
        queue.push_page(job);
        waiting.push(answered);
    }
    assert!(queue.is_waited_for());
    assert_eq!(taken(&queue), vec![(0, 0)]);
    assert_eq!(taken(&queue), vec![(1, 0), (2, 0)]);
    let late = PageJob { deadline: Instant::now(), ..job(request(0, 0, 100, 10)).0 };
    assert!(PartitionRead::new(late, 100, 0).give_back().is_none(), "there is no time left for another round");
}

#[test]
fn a_round_has_bounds_and_nobody_is_passed_over() {
    let queue = Queue::default();
    let mut waiting = Vec::new();
    for partition in 0..200 {
        let (job, answered) = job(PageRequest { max_bytes: 1, ..request(partition, 0, 9, 1) });
        queue.push_page(job);
        waiting.push(answered);
    }
    let rounds: Vec<usize> = (0..5).map(|_| taken(&queue).len()).collect();
    assert_eq!(rounds, vec![64, 64, 64, 8, 0]);
    for partition in 0..3 {
        let (job, answered) = job(PageRequest { max_bytes: 6 << 20, ..request(partition, 1, 9, 1) });
        queue.push_page(job);
        waiting.push(answered);
    }
    assert_eq!(taken(&queue), vec![(0, 1)], "two of them are too many bytes");
}

#[test]
fn whom_nobody_waits_for_is_dropped_and_a_close_answers_all() {
    let queue = Queue::default();
    let (gone, answered) = job(request(0, 0, 9, 1));
    queue.push_page(gone);
    drop(answered);
    assert!(matches!(queue.take(NOW), Taken::Nothing));
    let (sender, mut offsets) = answer();
    queue.push_offsets(Offsets { epoch: 1, time_ms: 0, deadline: Instant::now(), answer: sender });
    let (left, mut page) = job(request(0, 0, 9, 1));
    queue.push_page(left);
    assert!(matches!(queue.take(NOW), Taken::Offsets(Offsets { epoch: 1, .. })));
    assert!(offsets.try_recv().is_err());
    queue.close();
    assert!(matches!(queue.take(NOW), Taken::Closed));
    assert!(matches!(page.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    let (late, mut answered) = job(request(0, 0, 9, 1));
    queue.push_page(late);
    assert!(matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
}

proptest! {
    /// A part of a chunk holds exactly the offsets that were asked for, up to the last record that fits.
    #[test]
    fn a_part_of_a_chunk_is_what_lies_there(
        (base, log) in log(), from in 0..200_i64, len in 0..200_i64, max_records in 0..40_u32, whole in any::<bool>(),
    ) {
        let end = log[log.len() - 1] + 1;
        let (_, all) = read(&log, request(0, base, end, u32::MAX), end, 0);
        for chunk in all {
            let (from, until) = if whole { (i64::MIN, i64::MAX) } else { (base + from, (base + from).saturating_add(len)) };
            let first = chunk.first.max(from);
            let good = |offset: &i64| cell(&log, *offset).1.is_ok();
            let end = (first..chunk.next.min(until)).filter(good).nth(max_records as usize);
            let end = end.unwrap_or(chunk.next.min(until));
            match chunk.part(from, until, max_records) {
                Some(part) => {
                    prop_assert_eq!((part.partition, part.first, part.next), (chunk.partition, first, end));
                    let want: Vec<_> = (first..end).map(|offset| cell(&log, offset)).collect();
                    let part = Arc::new(part);
                    prop_assert_eq!(cells(std::slice::from_ref(&part)), want);
                    prop_assert_eq!(part.records as usize, (first..end).filter(good).count());
                }
                None => prop_assert!(end <= first),
            }
        }
    }
}
