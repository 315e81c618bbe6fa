//! Redis hangs, dies, is slow, full, read-only or refuses: every case ends within its deadline, has a name and is over when
//! it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashstream::pipeline::page::TierError;
use dashstream::redis::fault::Fault;
use dashstream::redis::settings::RedisSettings;

use crate::support::{Process, Server, chunk, chunks, offsets, request, run, settings};
use dashstream::torture::proxy::Proxy;

const DEADLINE: Duration = Duration::from_millis(700);
/// Far above the deadline: machines are busy. Far below a hang.
const SOON: Duration = Duration::from_secs(10);

fn hasty(url: &str) -> RedisSettings {
    RedisSettings { connect_timeout: DEADLINE, response_timeout: DEADLINE, ..settings(url) }
}

fn behind_proxy(server: &Server) -> (Proxy, String) {
    let proxy = Proxy::start().expect("a free port");
    proxy.forward_to(&format!("127.0.0.1:{}", server.port));
    let url = format!("redis://{}", proxy.address());
    (proxy, url)
}

/// The proxy's commands block; this is how a test on the same thread waits for them.
fn apply(command: impl FnOnce() + Send) {
    std::thread::scope(|scope| drop(scope.spawn(command).join()));
}

#[test]
fn a_server_that_hangs_costs_its_deadline_and_nothing_else() {
    let server = Server::start(&[]);
    let (proxy, url) = behind_proxy(&server);
    run(async {
        let mut process = Process::new(&hasty(&url));
        process.write(chunks(0, 50, 10)).await.unwrap();
        process.page(0).await.unwrap();
        apply(|| proxy.black_hole());
        for round in 1..=2 {
            let begun = Instant::now();
            let failure = process.write_within(vec![chunk(50, 60)], DEADLINE).await.unwrap_err();
            assert_eq!(failure.fault, Fault::Timeout, "{failure}");
            assert_eq!(process.page_of(&request(0), DEADLINE).await.unwrap_err(), TierError::Timeout);
            process.writer.ping(Instant::now() + DEADLINE).await;
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            let timeouts = |operation| process.metrics.redis_timeouts.with_label_values(&[operation]).get();
            assert_eq!((timeouts("write"), timeouts("read")), (round * 2, round));
            assert_eq!(process.state.failing().unwrap().failure.fault, Fault::Timeout);
        }
        apply(|| proxy.heal());
        // The one that was cut off may have arrived: it is written once all the same.
        while process.write(vec![chunk(50, 60)]).await.is_err() {}
        process.writer.ping(Instant::now() + SOON).await;
        assert!(process.state.is_up());
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0), (0..60).collect::<Vec<_>>());
    });
}

#[test]
fn a_server_that_is_gone_is_told_at_once_and_found_again() {
    let mut server = Server::start(&[]);
    let url = server.url();
    run(async {
        let mut process = Process::new(&settings(&url));
        process.write(chunks(0, 50, 10)).await.unwrap();
        process.page(0).await.unwrap();
        server.kill();
        for _ in 0..2 {
            let begun = Instant::now();
            let failure = process.write(vec![chunk(50, 60)]).await.unwrap_err();
            assert_eq!(failure.fault, Fault::Unreachable, "{failure}");
            assert!(matches!(process.page(0).await.unwrap_err(), TierError::Unavailable(_)));
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        }
        assert!(!process.state.is_up());
        server.restart();
        while process.write(vec![chunk(60, 70)]).await.is_err() {}
        let page = process.page(0).await.unwrap();
        assert_eq!((offsets(&page, 0), page.low), ((60..70).collect(), Some(60)), "it came back empty");
    });
}

#[test]
fn latency_is_seen_in_its_histogram() {
    let server = Server::start(&[]);
    let (proxy, url) = behind_proxy(&server);
    run(async {
        let mut process = Process::new(&settings(&url));
        process.write(chunks(0, 50, 10)).await.unwrap();
        apply(|| proxy.delay(Duration::from_millis(100)));
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0).len(), 50);
        let histogram = process.metrics.redis_latency.with_label_values(&["read"]);
        assert!(histogram.get_sample_sum() >= 200.0, "{} ms", histogram.get_sample_sum());
    });
}

#[test]
fn a_full_server_is_named_and_goes_on_when_it_has_room() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    // Less than it needs for itself.
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        let failure = process.write(chunks(0, 10, 10)).await.unwrap_err();
        assert_eq!(failure.fault, Fault::OutOfMemory, "{failure}");
        assert!(process.page(0).await.unwrap().chunks.is_empty(), "reading works");
        // An answer shows that the server is there, not that it has room.
        process.writer.ping(Instant::now() + SOON).await;
        assert_eq!(process.state.failing().unwrap().failure.fault, Fault::OutOfMemory);
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        process.write(chunks(0, 10, 10)).await.unwrap();
        assert_eq!(offsets(&process.page(0).await.unwrap(), 0).len(), 10);
    });
}

#[test]
fn each_refusal_has_a_name() {
    let server = Server::start(&[]);
    let refuses = |setup: &[&str], fault: Fault| {
        run(async {
            server.ask(setup);
            let mut process = Process::new(&settings(&server.url()));
            let failure = process.write(vec![chunk(0, 10)]).await.unwrap_err();
            assert_eq!(failure.fault, fault, "{setup:?}: {failure}");
            let counted = process.metrics.redis_errors_by_type.with_label_values(&[fault.as_str()]).get();
            assert_eq!((counted, process.metrics.redis_write_failures.get()), (1, 1));
        });
    };
    refuses(&["CONFIG", "SET", "min-replicas-to-write", "3"], Fault::RefusesWrites);
    server.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    refuses(&["REPLICAOF", "127.0.0.1", "1"], Fault::ReadOnly);
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    refuses(&["ACL", "SETUSER", "default", "-xadd"], Fault::Authentication);
    server.ask(&["ACL", "SETUSER", "default", "+xadd"]);
    let closed = Server::start(&["--requirepass", "right"]);
    for (credentials, works) in [("", false), (":wrong@", false), (":right@", true)] {
        run(async {
            let url = format!("redis://{credentials}127.0.0.1:{}", closed.port);
            let result = Process::new(&settings(&url)).write(vec![chunk(0, 10)]).await;
            assert_eq!(result.is_ok(), works, "{result:?}");
            if let Err(failure) = result {
                assert_eq!(failure.fault, Fault::Authentication, "{failure}");
                assert!(!failure.text.contains("wrong@"), "{failure}");
            }
        });
    }
}

#[test]
fn a_thousand_records_are_read_within_the_budget_beside_other_traffic() {
    let server = Server::start(&[]);
    run(async {
        let mut process = Process::new(&settings(&server.url()));
        process.write(chunks(0, 2_000, 10)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (mut client, stop) = (server.client(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let mut pipe = deadpool_redis::redis::pipe();
                        for _ in 0..50 {
                            pipe.cmd("SET").arg(format!("other{worker}")).arg(vec![0_u8; 10_000]).ignore();
                        }
                        let _: Result<(), _> = pipe.query(&mut client);
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        let (mut position, mut found) = (0, 0);
        while found < 1_000 {
            let page = process.page(position).await.unwrap();
            found += offsets(&page, position).len();
            position = page.next().unwrap();
        }
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(took < SOON, "{took:?}");
    });
}
