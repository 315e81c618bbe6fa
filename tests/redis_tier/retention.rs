//! History is trimmed by count, bytes and age, whichever comes first, and no key is without an end.

use std::time::Duration;

use dashstream::pipeline::retention::Bounds;

use crate::support::{Process, Server, WIDE, chunk_of, chunks, eventually, offsets, run, with_bounds};

#[test]
fn the_newest_offsets_are_kept_to_the_number() {
    let server = Server::start(&[]);
    run(async {
        for size in [1, 10, 25] {
            server.ask(&["FLUSHALL"]);
            let mut process = Process::new(&with_bounds(&server.url(), Bounds { offsets: 50, ..WIDE }));
            for part in 0..4 {
                process.write(chunks(part * 50, part * 50 + 50, size)).await.unwrap();
            }
            let bounds = process.bounds().await.unwrap();
            assert_eq!((bounds.low, bounds.next), (150, 200), "chunks of {size}");
            let page = process.page(0).await.unwrap();
            assert_eq!((offsets(&page, 0), page.low), ((150..200).collect(), Some(150)));
            assert!(process.writer.used_ratio() > 0.9, "{}", process.writer.used_ratio());
            assert_eq!(process.metrics.redis_emptied.get(), 0, "what was trimmed was not lost");
        }
    });
}

#[test]
fn bytes_are_bounded_also_over_restarts() {
    let server = Server::start(&[]);
    run(async {
        let bounds = Bounds { bytes: 1_000_000, ..WIDE };
        for generation in 0..4_i64 {
            let mut process = Process::new(&with_bounds(&server.url(), bounds));
            for block in 0..15 {
                let first = (generation * 15 + block) * 10;
                process.write(vec![chunk_of(0, first, first + 10, 5_000)]).await.unwrap();
                let kept = process.bounds().await.unwrap();
                let bytes = (kept.next - kept.low) * 5_016;
                assert!(bytes <= 1_250_000, "{bytes} bytes in generation {generation}");
                assert!(generation < 2 || bytes >= 700_000, "{bytes} bytes in generation {generation}");
            }
        }
    });
}

#[test]
fn what_is_too_old_goes_and_every_key_expires() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&with_bounds(&server.url(), Bounds { age_ms: 1_500, ..WIDE }));
        process.write(chunks(0, 100, 10)).await.unwrap();
        let keys = server.keys();
        assert_eq!(keys.len(), 1);
        assert!(keys.iter().all(|(_, left)| (1..=1_500).contains(left)), "{keys:?}");
        // Writes go on, so that the key lives, but its oldest part does not.
        let (mut at, mut low) = (100, 0);
        while low < 100 {
            process.write(chunks(at, at + 10, 10)).await.unwrap();
            at += 10;
            assert!(server.keys().iter().all(|(_, left)| *left > 0));
            low = process.bounds().await.unwrap().low;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(at < 100_000, "the oldest part never goes");
        }
        eventually("the key to expire after the last write", || server.keys().is_empty().then_some(()));
        assert_eq!(process.bounds().await, None);
        process.write(chunks(at, at + 10, 10)).await.unwrap();
        assert_eq!(process.metrics.redis_emptied.get(), 0, "what has expired was not lost");
    });
}

#[test]
fn what_a_server_evicts_is_noticed_and_writing_goes_on() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "64"]);
    run(async {
        let mut process = Process::new(&with_bounds(&server.url(), WIDE));
        let mut at = 0;
        // As much as it is given room for, many times over, in two streams: one is evicted for the other.
        server.ask(&["CONFIG", "SET", "maxmemory", "6mb"]);
        while process.metrics.redis_emptied.get() == 0 {
            for partition in [0, 1] {
                let _full_meanwhile = process.write(vec![chunk_of(partition, at, at + 10, 100_000)]).await;
            }
            at += 10;
            assert!(at < 10_000, "nothing was evicted, or nobody noticed");
        }
        assert!(server.keys().iter().all(|(_, left)| *left > 0));
    });
}
