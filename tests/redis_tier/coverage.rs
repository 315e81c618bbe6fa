//! What is read is what was written: each offset once, and no hole that is not told.

use std::time::Duration;

use dashstream::board::Epoch;
use dashstream::pipeline::page::{PageRequest, TierError};
use deadpool_redis::redis::Value;

use crate::support::{
    EPOCH, PATIENCE, Process, Server, chunk, chunk_of, chunks, eventually, offsets, request, run, settings,
};

#[test]
fn every_record_comes_back_from_any_cursor_in_a_handful_of_calls() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(5, 5_005, 37)).await.unwrap();
        for cursor in [5, 6, 41, 42, 4_000, 5_004] {
            let (mut position, mut found) = (cursor, Vec::new());
            while let Some(next) = process
                .page(position)
                .await
                .map(|page| {
                    found.extend(offsets(&page, position));
                    page.next()
                })
                .unwrap()
            {
                position = next;
            }
            assert_eq!(found, (cursor..5_005).collect::<Vec<_>>(), "from {cursor}");
        }
        assert_eq!(process.page(5_005).await.unwrap().chunks.len(), 0);
        let bounds = process.bounds().await.unwrap();
        assert_eq!((bounds.low, bounds.next), (5, 5_005));

        let searches: u64 = ["keys", "scan"].iter().map(|command| server.calls(command)).sum();
        assert_eq!(searches, 0, "a stream is found by its name");
        server.ask(&["CONFIG", "RESETSTAT"]);
        let page = process.page(100).await.unwrap();
        assert!(offsets(&page, 100).len() >= 1_000);
        assert_eq!((server.calls("xrange"), server.calls("get")), (2, 0), "a handful for a page of 1,000 records");
    });
}

/// An answer is not bounded by Redis, so it has to be by the question.
#[test]
fn what_earlier_pages_were_like_lets_no_later_answer_be_huge() {
    const SPARSE: i64 = 1_000;
    const DENSE: i64 = 60;
    const EACH: usize = 500_000;
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(0, SPARSE, 1)).await.unwrap();
        let dense = (SPARSE..SPARSE + DENSE).map(|at| chunk_of(0, at, at + 1, EACH)).collect();
        process.write(dense).await.unwrap();
        let wanted = |from| PageRequest { max_bytes: 1 << 20, ..request(from) };
        let mut position = 0;
        while position < SPARSE {
            let until = PageRequest { until: SPARSE, ..wanted(position) };
            position = process.page_of(&until, PATIENCE).await.unwrap().next().unwrap();
        }
        let before = server.bytes_sent();
        let page = process.page_of(&wanted(SPARSE), PATIENCE).await.unwrap();
        assert!(page.next().is_some_and(|next| next >= SPARSE + 2));
        let sent = server.bytes_sent() - before;
        assert!(sent < 12 * EACH as u64, "{sent} bytes for a page of 1 MiB; all of it would have been {}", 60 * EACH);
    });
}

#[test]
fn page_sizes_hits_and_misses_are_counted() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(0, 137, 10)).await.unwrap();
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0).len(), 137);
        let metrics = &process.metrics;
        assert_eq!(
            (metrics.redis_page_records.get_sample_sum(), metrics.redis_page_records.get_sample_count()),
            (137.0, 1)
        );
        assert_eq!((metrics.redis_hits.get(), metrics.redis_misses.get()), (1, 0));
        process.page(137).await.unwrap();
        assert_eq!((metrics.redis_hits.get(), metrics.redis_misses.get()), (1, 1));
        assert_eq!(metrics.redis_latency.with_label_values(&["read"]).get_sample_count(), 2);
        assert_eq!(metrics.redis_latency.with_label_values(&["write"]).get_sample_count(), 1);
    });
}

#[test]
fn a_page_keeps_to_its_bounds_by_one_chunk() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        let large = (0..40).map(|at| chunk_of(0, at * 2, at * 2 + 2, 100_000)).collect();
        process.write(large).await.unwrap();
        for (max_records, max_bytes, until) in
            [(10, usize::MAX, i64::MAX), (1_000, 1_000_000, i64::MAX), (1_000, usize::MAX, 25), (1, 1, i64::MAX)]
        {
            let request = PageRequest { max_records, max_bytes, until, ..request(7) };
            for _ in 0..2 {
                let page = process.page_of(&request, PATIENCE).await.unwrap();
                let last = page.chunks.last().unwrap();
                let (mut records, mut bytes) = (0, 0);
                for chunk in &page.chunks {
                    assert!(records < max_records && bytes < max_bytes && chunk.first < until);
                    records += chunk.records;
                    bytes += chunk.weight();
                }
                let full = records >= max_records || bytes >= max_bytes || last.next >= until;
                assert!(full || records * 2 >= max_records || bytes * 2 >= max_bytes, "{request:?}: {records} records");
            }
        }
    });
}

#[test]
fn a_hole_is_told_and_never_served() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(vec![chunk(10, 20), chunk(20, 30), chunk(35, 40), chunk(40, 41)]).await.unwrap();
        let page = process.page(12).await.unwrap();
        assert_eq!((offsets(&page, 12), page.low), ((12..30).collect(), None));
        let page = process.page(30).await.unwrap();
        assert_eq!((offsets(&page, 30), page.low), ((35..41).collect(), Some(35)));
        let page = process.page(0).await.unwrap();
        assert_eq!((offsets(&page, 0), page.low), ((10..30).collect(), Some(10)));
    });
}

#[test]
fn writing_again_changes_nothing_and_is_no_failure() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        for _ in 0..3 {
            process.write(chunks(0, 100, 10)).await.unwrap();
        }
        assert_eq!(server.ask(&["XLEN", &process.key(0)]), Value::Int(10));
        let blocks = |result| process.metrics.redis_blocks.with_label_values(&[result]).get();
        assert_eq!((blocks("written"), blocks("known")), (10, 20));
        assert_eq!(process.metrics.redis_errors.get(), 0);
    });
}

#[test]
fn another_instance_goes_on_with_other_boundaries() {
    let server = Server::start(&[]);
    run(async {
        let mut before = Process::new(&settings(&server.url()));
        before.write(chunks(0, 100, 10)).await.unwrap();
        // What was committed lies below what was written: it begins there, and cuts elsewhere.
        let mut after = Process::new(&settings(&server.url()));
        after.write(chunks(73, 250, 17)).await.unwrap();
        // The one before wakes up once more.
        before.write(chunks(100, 140, 10)).await.unwrap();
        for (process, cursor) in [(&before, 0), (&after, 0), (&after, 95), (&after, 105)] {
            assert_eq!(offsets(&process.page(cursor).await.unwrap(), cursor), (cursor..250).collect::<Vec<_>>());
        }
    });
}

#[test]
fn the_largest_offsets_are_exact() {
    let server = Server::start(&[]);
    run(async {
        for first in [(1_i64 << 53) - 3, i64::MAX - 20] {
            server.ask(&["FLUSHALL"]);
            let mut process = Process::new(&settings(&server.url()));
            process.write(chunks(first, first + 20, 7)).await.unwrap();
            for cursor in [first, first + 7, first + 19] {
                let page = process.page(cursor).await.unwrap();
                assert_eq!(offsets(&page, cursor), (cursor..first + 20).collect::<Vec<_>>());
            }
            assert_eq!(process.bounds().await.unwrap().next, first + 20);
        }
    });
}

#[test]
fn nothing_of_another_epoch_is_read() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(0, 50, 10)).await.unwrap();
        let old = request(0);
        process.board.open_epoch(Epoch { number: 2, name: "cluster/topic/id2".into() });
        assert_eq!(process.page_of(&old, PATIENCE).await.unwrap_err(), TierError::EpochOver);
        let new = PageRequest { epoch: 2, epoch_name: "cluster/topic/id2".into(), ..old.clone() };
        assert!(process.page_of(&new, PATIENCE).await.unwrap().chunks.is_empty());
        // Offsets that begin again under the same name, and a log without a name of its own.
        for (number, name) in [(3, EPOCH), (4, "cluster/topic/-")] {
            process.board.open_epoch(Epoch { number, name: name.into() });
            let request = PageRequest { epoch: number, epoch_name: name.into(), ..old.clone() };
            assert!(process.page_of(&request, PATIENCE).await.unwrap().chunks.is_empty(), "{name}");
        }
        // A page that was asked for before the topic was made anew and is answered after.
        let process = Process::new(&settings(&server.url()));
        process.page(0).await.unwrap();
        server.ask(&["CLIENT", "PAUSE", "300", "ALL"]);
        let (board, tier) = (process.board.clone(), process.tier.clone());
        let asked = tokio::spawn(async move { tier.page(&request(0), std::time::Instant::now() + PATIENCE).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        board.open_epoch(Epoch { number: 2, name: "cluster/topic/id2".into() });
        assert_eq!(asked.await.unwrap().unwrap_err(), TierError::EpochOver);
    });
}

#[test]
fn entries_of_strangers_are_holes_and_counted() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(vec![chunk(0, 10)]).await.unwrap();
        let key = process.key(0);
        server.ask(&["XADD", &key, "14-1", "v", "1", "f", "10", "n", "5", "t", "1", "b", "junk"]);
        server.ask(&["XADD", &key, "19-1", "v", "2", "f", "15"]);
        server.ask(&["XADD", &key, "20-1", "what", "ever"]);
        process.write(vec![chunk(21, 30)]).await.unwrap();
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0), (0..10).collect::<Vec<_>>());
        let page = process.page(10).await.unwrap();
        assert_eq!((offsets(&page, 10), page.low), ((21..30).collect(), Some(21)));
        assert!(process.metrics.redis_errors_by_type.with_label_values(&["corrupt"]).get() >= 3);
        // A key of another type is a failure with a name, not a panic.
        server.ask(&["DEL", &key]);
        server.ask(&["SET", &key, "x"]);
        assert!(matches!(process.page(0).await.unwrap_err(), TierError::Unavailable(_)));
        assert!(process.write(vec![chunk(30, 40)]).await.is_err());
    });
}

#[test]
fn a_flushed_server_is_empty_and_goes_on() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(0, 100, 10)).await.unwrap();
        server.ask(&["FLUSHALL"]);
        assert!(process.page(0).await.unwrap().chunks.is_empty());
        assert_eq!(process.bounds().await, None);
        process.write(chunks(100, 120, 10)).await.unwrap();
        let page = process.page(0).await.unwrap();
        assert_eq!((offsets(&page, 0), page.low), ((100..120).collect(), Some(100)));
        assert_eq!((process.metrics.redis_emptied.get(), process.metrics.redis_errors.get()), (1, 0), "it is noticed");
        process.write(chunks(120, 130, 10)).await.unwrap();
        assert_eq!(process.metrics.redis_emptied.get(), 1, "once");
        eventually("a time to live", || server.keys().iter().all(|(_, left)| *left > 0).then_some(()));
    });
}

#[test]
fn a_stream_of_a_log_whose_offsets_went_back_is_dropped_and_written_anew() {
    let server = Server::start(&[]);
    run(async {
        let settings = settings(&server.url());
        // A hundred records of a log that lost all but the first forty, while no service looked.
        let old = |first, next| chunk_of(0, first, next, 3);
        let mut before = Process::new(&settings);
        before.write(vec![chunk(0, 40), old(40, 70), old(70, 100)]).await.unwrap();
        let mut after = Process::new(&settings);
        // What both logs have alike is no contradiction, whatever its boundaries.
        after.write(chunks(0, 40, 7)).await.unwrap();
        assert_eq!(after.bounds().await.unwrap().next, 100);
        let failure = after.write(chunks(40, 60, 7)).await.unwrap_err();
        assert!(failure.text.contains("another log"), "{failure:?}");
        assert_eq!(after.page(0).await.unwrap().chunks.len(), 0, "nothing of it is served any more");
        after.write(chunks(40, 60, 7)).await.unwrap();
        let page = after.page(0).await.unwrap();
        assert_eq!((page.low, offsets(&page, 0)), (Some(40), (40..60).collect()));
        assert!(page.chunks.iter().all(|chunk| chunk.weight() < old(40, 70).weight()));
    });
}
