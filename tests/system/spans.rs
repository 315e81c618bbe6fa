//! A collector of traces hears of bad records and resumes; one that never answers harms nobody.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use crate::harness::client::{Client, From, SUBPROTOCOL};
use crate::harness::eventually::eventually;
use crate::harness::load::Mix;
use crate::harness::producer::Producer;
use crate::harness::raw::Raw;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
/// What a stop may take at most, as promised.
const EXIT_BOUND: Duration = Duration::from_secs(10);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector: its address, and the spans that it was told.
pub(crate) fn collector() -> (String, Arc<Mutex<Vec<Span>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let spans = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&spans);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let Some(body) = body(&mut socket) else { continue };
            let request = ExportTraceServiceRequest::decode(&*body).expect("a request");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            told.lock().expect("spans").extend(scopes.flat_map(|scope| scope.spans));
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (address, spans)
}

fn body(socket: &mut TcpStream) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(BOUND)).ok()?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("\r\nx-scope: tests\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(body)
}

pub(crate) fn number(span: &Span, name: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_collector_hears_of_bad_records_and_resumes_in_their_traces() {
    let topic = Topic::create(services::kafka(), "spans", 1);
    let (endpoint, spans) = collector();
    let config = Config::new(&topic)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .set("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=tests");
    let service = Service::start_healthy(&config);
    let context = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
    Producer::new(services::kafka()).publish(
        &topic.name,
        [
            records::garbage("t").with_header("traceparent", context("01").as_bytes()),
            records::good("t", 1).with_header("traceparent", context("01").as_bytes()),
            records::garbage("t").with_header("traceparent", context("00").as_bytes()),
            records::null("t"),
        ]
        .map(|record| record.on_partition(0)),
    );
    let client = Client::from(service.address(), From::Earliest);
    client.wait_until("the stream", BOUND, |ledger| match ledger.records.len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    let headers = [("traceparent", context("01"))];
    let mut raw = Raw::try_open_with(service.address(), Some(SUBPROTOCOL), &headers).expect("a connection");
    raw.say(&json!({"type": "hello", "from": "earliest"}));
    raw.hear_type("replay_complete");

    let told = eventually("three kinds of spans", BOUND, || {
        let told = spans.lock().expect("spans").clone();
        let of = |name: &str| told.iter().filter(|span| span.name == name).count();
        match (of("process record"), of("resume")) {
            (2, 2) => Ok(told),
            other => Err(format!("{other:?}")),
        }
    });
    let record = |offset| {
        let found = told.iter().find(|span| number(span, "messaging.kafka.offset") == Some(offset));
        found.unwrap_or_else(|| panic!("no span of offset {offset}"))
    };
    assert_eq!((hex(&record(0).trace_id), hex(&record(0).parent_span_id)), (TRACE.into(), PARENT.into()));
    assert!(hex(&record(3).trace_id) != TRACE && record(3).parent_span_id.is_empty(), "a trace of its own");
    let resume = told.iter().find(|span| span.name == "resume" && hex(&span.trace_id) == TRACE);
    let resume = resume.expect("a resume in the trace of its client");
    assert_eq!((hex(&resume.parent_span_id), number(resume, "dashstream.replay.records")), (PARENT.into(), Some(1)));
    eventually("all to be counted", BOUND, || {
        match service.metric("dashstream_spans_total", &[r#"result="exported""#]) {
            4.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

#[test]
fn a_collector_that_never_answers_harms_nobody() {
    let topic = Topic::create(services::kafka(), "no-collector", 1);
    let _letters = topic.beside("dlq", 1);
    // Takes connections, and nothing more.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let config = Config::new(&topic).set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let mut service = Service::start_healthy(&config);
    let bad = (0..3_000).map(|_| records::garbage("t").on_partition(0));
    let producer = Producer::new(services::kafka());
    let mut published = producer.publish(&topic.name, bad);
    published.extend(producer.publish(&topic.name, Mix::new(vec![0]).take(2_000)));
    let client = Client::from(service.address(), From::Earliest);
    client.wait_for_all(&published, BOUND);
    eventually("every span to be accounted for", BOUND, || {
        let of = |result: &str| service.metric("dashstream_spans_total", &[&format!("result=\"{result}\"")]);
        match (of("dropped"), of("failed"), of("exported")) {
            (dropped, failed, 0.0) if dropped > 0.0 && failed > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(service.faults().expect("/health answers"), Vec::<String>::new());
    service.signal(Signal::SIGTERM);
    assert!(service.wait_for_exit(EXIT_BOUND).success());
}
