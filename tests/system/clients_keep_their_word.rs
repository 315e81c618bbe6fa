//! The test clients against a made-up service: they say what clients say, and a broken promise fails the test.

use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use dashstream::wire::stream::item::Kind;
use dashstream::wire::stream::{Frame, Item, Record};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr};

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::contract::Fingerprint;
use crate::harness::eventually::{eventually, throughout};
use crate::harness::v1_client::V1Client;

const SOON: Duration = Duration::from_secs(10);

type Connection = WebSocket<TcpStream>;

/// A service that does what the script says, one connection after the other. Gives its address.
fn made_up_service(script: impl Fn(usize, &mut Connection) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let Ok(mut connection) = accept_hdr(stream, agree) else { continue };
            script(count, &mut connection);
        }
    });
    address
}

/// Agrees to the subprotocol that the client asks for.
#[allow(clippy::result_large_err, reason = "the library's type")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if let Some(wanted) = request.headers().get("sec-websocket-protocol") {
        response.headers_mut().insert("sec-websocket-protocol", wanted.clone());
    }
    Ok(response)
}

fn say(connection: &mut Connection, message: &Value) {
    let _ = connection.send(Message::text(message.to_string()));
}

/// The next text frame; null when the connection has ended.
fn hear(connection: &mut Connection) -> Value {
    while let Ok(message) = connection.read() {
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).expect("clients speak JSON");
        }
    }
    Value::Null
}

fn welcome(from: i64) -> Value {
    let position = json!({ "from": from.to_string(), "low": "0", "next": "100" });
    json!({ "type": "welcome", "epoch": "e1", "partitions": { "3": position } })
}

fn records(first: i64, next: i64) -> Message {
    let record = |offset: i64| Record { offset, value: Bytes::from(offset.to_string()), ..Record::default() };
    let items = (first..next).map(|offset| Item { kind: Some(Kind::Record(record(offset))) }).collect();
    let frame = Frame { partition: 3, first_offset: first, next_offset: next, items };
    Message::binary(frame.encode_to_vec())
}

fn received(client: &Client, count: u64) {
    eventually("the records", SOON, || match client.received() {
        received if received >= count => Ok(()),
        received => Err(received.to_string()),
    });
}

#[test]
fn a_client_reports_what_it_applied_and_goes_on_at_its_cursor() {
    let (heard, hears) = mpsc::channel();
    let address = made_up_service(move |count, connection| {
        let start = if count == 0 { 40 } else { 42 };
        heard.send(hear(connection)).expect("the test listens");
        say(connection, &welcome(start));
        let _ = connection.send(records(start, start + 2));
        heard.send(hear(connection)).expect("the test listens");
        if count == 1 {
            let _ = connection.close(Some(CloseFrame { code: CloseCode::Away, reason: "bye".into() }));
            while connection.read().is_ok() {}
        }
    });
    let mut client = Client::from(&address, From::Latest);
    received(&client, 2);
    let next = || hears.recv_timeout(SOON).expect("the service heard something");
    let first = next();
    assert_eq!((&first["type"], &first["from"]), (&json!("hello"), &json!("latest")));
    // A report of the start, before any record, is as good.
    assert_eq!(next()["type"], "applied");

    client.reconnect(&address);
    received(&client, 4);
    let again = next();
    assert_eq!((&again["from"], &again["epoch"]), (&json!("cursor"), &json!("e1")));
    assert_eq!(again["lastOffsetsByPartition"], json!({ "3": "41" }));
    let closed = client.wait_until_closed(SOON);
    assert_eq!((closed.code, closed.reason.as_str()), (Some(1001), "bye"));
    client.look(|ledger| {
        assert_eq!((ledger.cursor()[&3], ledger.began[&3]), (44, 40));
        assert_eq!(ledger.records[&(3, 43)], Fingerprint::of(b"43"));
    });
}

#[test]
fn a_hole_fails_the_test_at_the_next_look_and_when_nobody_looks() {
    let address = made_up_service(|_, connection| {
        hear(connection);
        say(connection, &welcome(0));
        let _ = connection.send(records(1, 2));
        while connection.read().is_ok() {}
    });
    for looks in [true, false] {
        let failure = catch_unwind(AssertUnwindSafe(|| {
            let client = Client::from(&address, From::Earliest);
            if looks {
                received(&client, 2);
            } else {
                // Not a look: the client says what it has to say when it is dropped.
                throughout("time passes", Duration::from_millis(200), || Ok(()));
            }
        }));
        let message = *failure.expect_err("it fails").downcast::<String>().expect("a text");
        assert!(message.contains("a hole") && message.contains("partition 3"), "{message}");
    }
}

/// `dashstream torture` for a second: its exit code, and its report.
fn torture(addresses: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashstream"));
    command
        .args(["torture", "--seed", "5", "--clients", "1", "--seconds", "1", "--patience", "2", "--json"])
        .env_clear();
    for address in addresses {
        command.args(["--at", address]);
    }
    let output = command.output().expect("the binary can be run");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn torture_tells_a_service_that_breaks_its_promise() {
    // The third record is kept back.
    let address = made_up_service(|_, connection| {
        hear(connection);
        say(connection, &welcome(0));
        let _ = connection.send(records(0, 2));
        let _ = connection.send(records(3, 4));
        while connection.read().is_ok() {}
    });
    let (code, report) = torture(&[&address]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report["violations"].as_u64() > Some(0), "{report}");
    assert!(report["first_violations"][0].as_str().expect("in words").contains("a hole"), "{report}");
    assert_eq!(report["seed"], "5");
    // Nobody there is no report.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    assert_eq!(torture(&[&free.to_string()]), (Some(1), Value::Null));
}

#[test]
fn a_client_that_stops_reading_leaves_everything_in_the_socket() {
    let (sent, is_sent) = mpsc::channel();
    let address = made_up_service(move |_, connection| {
        hear(connection);
        say(connection, &welcome(0));
        sent.send(()).expect("the test listens");
        for first in 0..10 {
            let _ = connection.send(records(first, first + 1));
        }
        while connection.read().is_ok() {}
    });
    let options = Options { reading: Reading::Stopped, receive_buffer: Some(4096), ..Options::default() };
    let client = Client::connect(&address, options);
    is_sent.recv_timeout(SOON).expect("the service has begun");
    throughout("reading is stopped", Duration::from_millis(300), || match client.received() {
        0 => Ok(()),
        received => Err(received.to_string()),
    });
    client.read(Reading::Fast);
    received(&client, 10);
}

#[test]
fn a_v1_client_insists_on_pairs_and_on_rising_offsets() {
    let cursor = |offset: i64| {
        Message::text(json!({ "type": "cursor", "partition": 0, "offset": offset.to_string() }).to_string())
    };
    let value = || Message::binary(Bytes::from_static(b"value"));
    let other = || Message::text(json!({ "type": "pong" }).to_string());
    let sequences: Vec<(bool, Vec<Message>)> = vec![
        (true, vec![cursor(5), value(), other(), cursor(9), value()]),
        (false, vec![cursor(5), value(), value()]),
        (false, vec![value()]),
        (false, vec![cursor(5), cursor(6)]),
        (false, vec![cursor(5), other()]),
        (false, vec![cursor(5), value(), cursor(5)]),
        (false, vec![cursor(5), value(), cursor(4)]),
        (false, vec![Message::text(json!({ "type": "cursor", "partition": 0, "offset": 5 }).to_string())]),
    ];
    let expected: Vec<bool> = sequences.iter().map(|(good, _)| *good).collect();
    let address = made_up_service(move |count, connection| {
        for message in &sequences[count].1 {
            let _ = connection.send(message.clone());
        }
        let _ = connection.close(None);
        while connection.read().is_ok() {}
    });
    for (index, good) in expected.into_iter().enumerate() {
        let outcome = catch_unwind(|| {
            let client = V1Client::connect(&address, None);
            client.wait_until_closed(SOON);
        });
        assert_eq!(outcome.is_ok(), good, "sequence {index}");
    }
}
