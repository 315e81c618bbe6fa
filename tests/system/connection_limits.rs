//! Connection limits hold, and a place that is left is free again, however it was left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, From, Options, Reading, SUBPROTOCOL};
use crate::harness::eventually::eventually;
use crate::harness::load::Mix;
use crate::harness::producer::Producer;
use crate::harness::raw::Raw;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(20);

fn connect(service: &Service) -> Result<Raw, String> {
    Raw::try_open(service.address(), Some(SUBPROTOCOL))
}

/// Waits until exactly `count` more clients are let in; they are gone again afterwards.
#[track_caller]
fn free_places(service: &Service, count: usize) {
    eventually(&format!("{count} free places"), BOUND, || {
        let mut open: Vec<Raw> = Vec::new();
        while let Ok(raw) = connect(service) {
            open.push(raw);
            assert!(open.len() <= count, "more places than there are");
        }
        if open.len() == count { Ok(()) } else { Err(format!("{}", open.len())) }
    });
}

/// What the service answers to a request as it stands, status line and all.
fn answer(service: &Service, request: &str) -> String {
    let mut stream = TcpStream::connect(service.address()).expect("a connection");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("it takes the request");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn upgrade(extra: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

#[test]
fn a_place_is_free_again_however_it_was_left() {
    let topic = Topic::create(services::kafka(), "places", 1);
    let config = Config::new(&topic)
        .set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", 4)
        .set("WEBSOCKET_SEND_TIMEOUT_SECS", 1)
        .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 64 * 1024);
    let service = Service::start_healthy(&config);
    free_places(&service, 4);

    let mut held: Vec<Raw> = (0..4).map(|_| connect(&service).expect("a free place")).collect();
    let refused = answer(&service, &upgrade(""));
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.to_ascii_lowercase().contains("\r\nretry-after: "), "{refused}");
    assert!(service.metric("websocket_rejected_connections_total", &[r#"reason="per_address""#]) >= 1.0);

    // Left without a word.
    drop(held.pop());
    free_places(&service, 1);
    // Closed by the service.
    let mut last = held.pop().expect("one of three");
    for _ in 0..10 {
        last.say(&json!("nonsense"));
    }
    assert_eq!(last.hear_close().code, Some(1008));
    drop(last);
    free_places(&service, 2);
    drop(held);
    free_places(&service, 4);

    // Never became a session.
    for request in [
        "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        upgrade("").replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 6"),
        upgrade("").replace("Sec-WebSocket-Key", "X-Key"),
    ] {
        for _ in 0..5 {
            let status = answer(&service, &request);
            assert!(status.starts_with("HTTP/1.1 4") && !status.starts_with("HTTP/1.1 429"), "{request}: {status}");
        }
    }
    // Asked for it and went away at once.
    for _ in 0..20 {
        let mut stream = TcpStream::connect(service.address()).expect("a connection");
        let _ = stream.write_all(upgrade("").as_bytes());
    }
    free_places(&service, 4);

    // Read nothing until the service gave up.
    let options = Options { receive_buffer: Some(4096), from: From::Earliest, ..Options::default() };
    let stalled = Client::connect(service.address(), options);
    stalled.read(Reading::Stopped);
    Producer::new(services::kafka()).publish(&topic.name, Mix::new(vec![0]).take(8_000));
    eventually("the stalled client to be closed", BOUND, || {
        match service.metric("websocket_send_timeout_total", &[]) {
            0.0 => Err("it is not".to_owned()),
            _ => Ok(()),
        }
    });
    free_places(&service, 4);
}

#[test]
fn the_limit_over_all_addresses_counts_forwarded_ones_too() {
    let topic = Topic::create(services::kafka(), "total", 1);
    let config = Config::new(&topic)
        .set("DASHSTREAM_WEB_MAX_CONNECTIONS", 3)
        .set("WEBSOCKET_MAX_CONNECTIONS_PER_IP", 2)
        .set("WEBSOCKET_TRUSTED_PROXY_IPS", "127.0.0.1/32");
    let service = Service::start_healthy(&config);
    let mut open = Vec::new();
    let mut from = |address: &str| {
        let mut stream = TcpStream::connect(service.address()).expect("a connection");
        stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        stream.write_all(upgrade(&format!("X-Forwarded-For: {address}\r\n")).as_bytes()).expect("it takes the request");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        open.push(stream);
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    assert_eq!([from("192.0.2.1"), from("192.0.2.1")], ["101", "101"]);
    assert_eq!(from("192.0.2.1"), "429", "one address has its share");
    assert_eq!(from("192.0.2.2"), "101", "another one is let in");
    assert_eq!(from("192.0.2.3"), "429", "the service is full");
    for reason in ["per_address", "total"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(service.metric("websocket_rejected_connections_total", &[&label]), 1.0, "{reason}");
    }
}
