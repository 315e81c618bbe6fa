//! What waits, what goes, and when records are settled.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::actors::letter_queue::tests::{Inbox, next};
use crate::pipeline::credit::Credit;
use crate::pipeline::record::Origin;
use crate::wire::stream_frame::FrameBuilder;

const ALL: TakeLimits = TakeLimits { chunks: usize::MAX, bytes: usize::MAX };
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };

fn limits(durability: ReplayDurability, chunks: usize) -> RedisQueueLimits {
    RedisQueueLimits { durability, bytes: 1 << 20, chunks, backoff: BACKOFF }
}

fn epoch(number: u64) -> Epoch {
    Epoch { number, name: format!("c/t/{number}") }
}

fn chunk(partition: i32, first: i64, next: i64) -> Arc<Chunk> {
    let mut builder = FrameBuilder::new();
    for offset in first..next {
        builder.record(offset, 0, b"value", &[]);
    }
    let records = u32::try_from(next - first).unwrap();
    Arc::new(Chunk::new(partition, first, next, records, builder.seal(partition, first, next)))
}

fn settled(first: i64, next: i64) -> Settled {
    Settled { origin: Origin { epoch: 1, partition: 0, first, next }, except: Vec::new(), duty_term: 1 }
}

fn queue(limits: RedisQueueLimits) -> (RedisQueue, Link<Settled>, Arc<Metrics>) {
    let (link, metrics) = (Link::default(), Arc::new(Metrics::new().unwrap()));
    let queue = RedisQueue::new(limits, Link::default(), link.clone(), Arc::clone(&metrics));
    queue.open_epoch(&epoch(1));
    (queue, link, metrics)
}

/// Partition, first and next of what is lent.
fn lend(queue: &RedisQueue, now: Instant) -> Vec<(i32, i64, i64)> {
    let lent = queue.lend(now, ALL).map_or_else(Vec::new, |(_, lent)| lent);
    lent.iter().flat_map(|lent| lent.chunks.iter().map(|c| (lent.partition, c.first, c.next))).collect()
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts_its_records() {
    let (queue, _, metrics) = queue(limits(ReplayDurability::BestEffort, 3));
    queue.begin(0, 1, 0);
    queue.begin(1, 2, 0);
    for at in 0..4 {
        queue.push(chunk(0, at * 10, at * 10 + 10));
        queue.push(chunk(1, at * 10, at * 10 + 10));
    }
    assert_eq!((queue.waiting(), metrics.redis_queued_blocks.get()), (3, 3));
    assert_eq!(metrics.redis_write_dropped.get(), 50);
    assert_eq!(lend(&queue, Instant::now()), [(0, 30, 40), (1, 20, 30), (1, 30, 40)]);
    queue.push(chunk(0, 40, 50));
    assert_eq!(metrics.redis_write_dropped.get(), 60, "what is on its way stays, the newcomer goes");
    queue.written(&epoch(1), 0);
    queue.written(&epoch(1), 1);
    assert_eq!((queue.waiting(), metrics.redis_queued_bytes.get()), (0, 0));
    assert!(queue.has(0, 50) && !queue.has(0, 51));
}

#[test]
fn a_partition_with_a_backlog_keeps_no_other_from_its_turn() {
    let (queue, ..) = queue(limits(ReplayDurability::BestEffort, 1_000));
    for partition in 0..3 {
        queue.begin(partition, 1, 0);
        for at in 0..20 {
            queue.push(chunk(partition, at * 10, at * 10 + 10));
        }
    }
    let batch = TakeLimits { chunks: 5, bytes: chunk(0, 90, 100).weight() * 4 };
    let mut served = Vec::new();
    for _ in 0..6 {
        let (epoch, lent) = queue.lend(Instant::now(), batch).unwrap();
        for LentChunks { partition, .. } in lent {
            served.push(partition);
            queue.written(&epoch, partition);
        }
    }
    for partition in 0..3 {
        let turns = served.iter().filter(|served| **served == partition).count();
        assert!(turns >= 2, "{served:?}");
    }
}

#[test]
fn bytes_are_bounded_too() {
    let bytes = chunk(0, 40, 50).weight() * 2;
    let (queue, _, metrics) = queue(RedisQueueLimits { bytes, ..limits(ReplayDurability::BestEffort, 1_000) });
    queue.begin(0, 1, 0);
    for at in 0..5 {
        queue.push(chunk(0, at * 10, at * 10 + 10));
        assert!(metrics.redis_queued_bytes.get() <= i64::try_from(bytes).unwrap());
    }
    assert_eq!((queue.waiting(), metrics.redis_write_dropped.get()), (2, 30));
}

#[test]
fn a_partition_that_fails_waits_alone_and_longer_each_time() {
    let (queue, ..) = queue(limits(ReplayDurability::BestEffort, 100));
    queue.begin(0, 1, 0);
    queue.begin(1, 2, 0);
    queue.push(chunk(0, 0, 10));
    queue.push(chunk(1, 0, 10));
    let now = Instant::now();
    assert_eq!(lend(&queue, now).len(), 2);
    assert!(lend(&queue, now).is_empty(), "one batch of a partition is on its way at a time");
    queue.failed(&epoch(1), 0, now, 1.0);
    queue.written(&epoch(1), 1);
    assert!(queue.has_failures());
    queue.push(chunk(1, 10, 20));
    assert_eq!(lend(&queue, now), [(1, 10, 20)]);
    assert_eq!(queue.next_due(), Some(now + BACKOFF.base));
    assert_eq!(lend(&queue, now + BACKOFF.base), [(0, 0, 10)]);
    queue.failed(&epoch(1), 0, now, 1.0);
    assert_eq!(queue.next_due(), Some(now + BACKOFF.base * 2));
    assert_eq!(lend(&queue, now + BACKOFF.max), [(0, 0, 10)]);
    queue.written(&epoch(1), 0);
    assert_eq!((queue.has_failures(), queue.next_due()), (false, None));
}

#[test]
fn what_a_dead_writer_had_on_its_way_is_lent_again_and_another_epoch_ends_it() {
    let (queue, ..) = queue(limits(ReplayDurability::BestEffort, 100));
    queue.begin(0, 1, 0);
    queue.push(chunk(0, 0, 10));
    let now = Instant::now();
    assert_eq!(lend(&queue, now), [(0, 0, 10)]);
    queue.take_back();
    assert_eq!(lend(&queue, now), [(0, 0, 10)]);
    queue.open_epoch(&epoch(2));
    queue.begin(0, 2, 0);
    queue.push(chunk(0, 0, 5));
    // The answer to a write of the old epoch says nothing about the new one.
    queue.written(&epoch(1), 0);
    queue.failed(&epoch(1), 0, now, 1.0);
    assert!(!queue.has(0, 5));
    assert_eq!(lend(&queue, now), [(0, 0, 5)]);
}

#[actix::test]
async fn when_redis_is_required_records_are_settled_with_it_and_hold_their_credit_until_then() {
    let (queue, link, metrics) = queue(limits(ReplayDurability::Required, 1));
    let (inbox, mut reports) = Inbox::start();
    link.publish(&inbox);
    let credit = Credit::new(1_000);
    queue.begin(0, 1, 100);
    // Live records, and below them some that are read again.
    for (first, next) in [(200, 210), (100, 150), (150, 200)] {
        queue.push(chunk(0, first, next));
        queue.owe(settled(first, next), credit.charge(100));
    }
    assert_eq!((credit.used(), metrics.redis_write_dropped.get()), (300, 0), "nothing is dropped, whatever the bounds");
    let now = Instant::now();
    assert_eq!(lend(&queue, now).len(), 3);
    queue.failed(&epoch(1), 0, now, 1.0);
    assert_eq!(credit.used(), 300);
    let one = TakeLimits { chunks: 2, bytes: usize::MAX };
    queue.lend(now + BACKOFF.max, one).unwrap();
    queue.written(&epoch(1), 0);
    assert_eq!(credit.used(), 100);
    for range in [(100, 150), (150, 200)] {
        let report = next(&mut reports).await;
        assert_eq!((report.origin.first, report.origin.next), range);
    }
    assert_eq!(lend(&queue, now), [(0, 200, 210)]);
    queue.written(&epoch(1), 0);
    assert_eq!(next(&mut reports).await.origin.first, 200);
    // Redis has it already: settled at once.
    queue.owe(settled(190, 210), credit.charge(1));
    assert_eq!(next(&mut reports).await.origin.first, 190);
    assert_eq!(credit.used(), 0);
    // A new store reads again what its predecessor owed.
    queue.push(chunk(0, 210, 220));
    queue.owe(settled(210, 220), credit.charge(5));
    queue.forget_owed();
    assert_eq!(credit.used(), 0);
}

#[actix::test]
async fn a_stop_waits_until_nothing_waits() {
    let (queue, ..) = queue(limits(ReplayDurability::BestEffort, 100));
    queue.all_written().await;
    queue.begin(0, 1, 0);
    queue.push(chunk(0, 0, 10));
    let waiting = queue.clone();
    let stop = actix::spawn(async move { waiting.all_written().await });
    tokio::task::yield_now().await;
    assert!(!stop.is_finished());
    lend(&queue, Instant::now());
    queue.written(&epoch(1), 0);
    stop.await.unwrap();
}

proptest! {
    /// Whatever arrives and fails: what is lent of a partition rises, and the bounds hold.
    #[test]
    fn the_bounds_hold_and_offsets_rise(
        steps in proptest::collection::vec((0..5_u8, 0..3_i32, 1..9_i64), 1..200), chunks in 1..12_usize,
    ) {
        let (queue, _, metrics) = queue(limits(ReplayDurability::BestEffort, chunks));
        let mut ends = [0_i64; 3];
        let mut written = [0_i64; 3];
        let mut records = 0_u64;
        let mut lent: Vec<LentChunks> = Vec::new();
        let now = Instant::now();
        for (step, partition, len) in steps {
            let lane = usize::try_from(partition).unwrap();
            match step {
                0..3 => {
                    queue.begin(partition, 1, 0);
                    let on_their_way: usize = lent.iter().map(|lent| lent.chunks.len()).sum();
                    queue.push(chunk(partition, ends[lane], ends[lane] + len));
                    ends[lane] += len;
                    prop_assert!(queue.waiting() <= chunks.max(on_their_way));
                }
                3 => {
                    let more = queue.lend(now + BACKOFF.max, ALL).map_or_else(Vec::new, |(_, lent)| lent);
                    for LentChunks { partition, chunks } in &more {
                        let end = written[usize::try_from(*partition).unwrap()];
                        prop_assert!(chunks.iter().all(|chunk| chunk.first >= end));
                        prop_assert!(chunks.windows(2).all(|pair| pair[0].next <= pair[1].first));
                    }
                    lent.extend(more);
                }
                _ => if let Some(one) = lent.pop() {
                    if len > 4 {
                        queue.failed(&epoch(1), one.partition, now, 0.5);
                    } else {
                        queue.written(&epoch(1), one.partition);
                        records += one.chunks.iter().map(|chunk| u64::from(chunk.records)).sum::<u64>();
                        written[usize::try_from(one.partition).unwrap()] = one.chunks.last().unwrap().next;
                    }
                },
            }
        }
        while let Some(one) = lent.pop() {
            queue.failed(&epoch(1), one.partition, now, 0.5);
        }
        let waits: u64 = queue.lend(now + BACKOFF.max, ALL).map_or(0, |(_, lent)| {
            lent.iter().flat_map(|lent| &lent.chunks).map(|chunk| u64::from(chunk.records)).sum()
        });
        let pushed = ends.iter().sum::<i64>().unsigned_abs();
        prop_assert_eq!(records + waits + metrics.redis_write_dropped.get(), pushed, "each record is written, waits or is counted");
    }
}
