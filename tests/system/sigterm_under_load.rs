//! SIGTERM under load: everything that was taken in is finished, everybody is told, and the next start goes on there.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::dead_letters;
use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
const EXIT_WITHIN: Duration = Duration::from_secs(10);
const GOING_AWAY: Option<u16> = Some(1001);

#[test]
fn sigterm_under_load_drains_commits_and_says_goodbye() {
    let topic = Topic::create(services::kafka(), "sigterm", 4);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic).set("KAFKA_DLQ_TOPIC", &dead_letters.name);
    let mut service = Service::start_healthy(&config);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let v1 = V1Client::connect(service.address(), None);
    let load = Load::start(&topic, 2_000);
    eventually("records to flow", BOUND, || match clients[0].received() {
        received @ 0..5_000 => Err(received.to_string()),
        _ => Ok(()),
    });

    service.signal(Signal::SIGTERM);
    let status = service.wait_for_exit(EXIT_WITHIN);
    assert_eq!(status.code(), Some(0), "{status}");
    for client in &clients {
        assert_eq!(client.wait_until_closed(BOUND).code, GOING_AWAY);
    }
    assert_eq!(v1.wait_until_closed(BOUND).code, GOING_AWAY);

    // What clients have seen was settled before it was theirs, so it is committed: nothing is dealt with twice.
    let committed = topic.committed(config.group());
    for client in &clients {
        client.look(|ledger| {
            for (partition, cursor) in ledger.cursor() {
                let next = committed.get(partition).copied().unwrap_or_default();
                assert!(next >= *cursor, "partition {partition}: {cursor} delivered, {next} committed");
            }
        });
    }

    service.restart();
    for client in &mut clients {
        client.reconnect(service.address());
    }
    let published = load.stop();
    let was_committed = |partition: i32, offset: i64| committed.get(&partition).is_some_and(|next| offset < *next);
    for client in &clients {
        client.wait_for_all_but(&published, BOUND, was_committed);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
}

#[test]
fn those_who_do_not_listen_do_not_hold_the_exit() {
    let topic = Topic::create(services::kafka(), "sigterm-deaf", 4);
    let dead_letters = topic.beside("dlq", 1);
    let config = Config::new(&topic).set("KAFKA_DLQ_TOPIC", &dead_letters.name);
    let mut service = Service::start_healthy(&config);
    let listening = Client::from(service.address(), From::Latest);
    let deaf = Options { receive_buffer: Some(4096), ..Options::default() };
    let deaf: Vec<Client> = (0..3).map(|_| Client::connect(service.address(), deaf.clone())).collect();
    for client in &deaf {
        client.read(Reading::Stopped);
    }
    // Requests that never end.
    let half_open: Vec<TcpStream> =
        ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: x\r\n", "GET /ws HTTP/1.1\r\nUpgrade: web"]
            .into_iter()
            .map(|start| {
                let mut stream = TcpStream::connect(service.address()).expect("a connection");
                stream.write_all(start.as_bytes()).expect("it takes the start");
                stream
            })
            .collect();
    let load = Load::start(&topic, 4_000);
    eventually("records to flow", BOUND, || match listening.received() {
        received @ 0..10_000 => Err(received.to_string()),
        _ => Ok(()),
    });
    service.signal(Signal::SIGTERM);
    let status = service.wait_for_exit(EXIT_WITHIN);
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(listening.wait_until_closed(BOUND).code, GOING_AWAY);
    load.stop();
    drop(half_open);
}

#[test]
fn letters_without_an_answer_are_not_forgotten_by_a_stop() {
    const BAD: usize = 400;
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "sigterm-letters", 1);
    let letters = topic.beside("dlq", 1);
    let config = Config::new(&topic)
        .set("KAFKA_BROKERS", kafka.proxy.address())
        .set("MAX_CONCURRENT_DLQ_SENDS", 5)
        .set("DLQ_SEND_TIMEOUT_SECS", 60);
    let mut service = Service::start_healthy(&config);
    kafka.proxy.set_for("-dlq", Fault::BlackHole);
    Producer::new(&kafka.direct).publish(&topic.name, (0..BAD).map(|_| records::garbage("bad").on_partition(0)));
    eventually("letters to wait", BOUND, || match service.metric("dashstream_dlq_queued", &[]) {
        waiting if waiting > 100.0 => Ok(()),
        waiting => Err(waiting.to_string()),
    });
    service.signal(Signal::SIGTERM);
    let status = service.wait_for_exit(EXIT_WITHIN);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(service.log().contains("dead letters without an answer"), "it is told");

    // What had no answer was not committed, so the next start writes it.
    kafka.proxy.set_for("-dlq", Fault::Healed);
    service.restart();
    topic.wait_until_all_committed(config.group(), BOUND);
    let keys: BTreeSet<String> = dead_letters::read(&letters).into_iter().map(|letter| letter.key).collect();
    assert_eq!(keys.len(), BAD, "every bad record has its letter");
}
