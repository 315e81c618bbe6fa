//! What a collector hears, and that one that is away is nobody's trouble.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span as Heard;
use prost::Message as _;

use super::*;
use crate::config::secret::SecretUrl;
use crate::pipeline::decode::{Explanation, Kind};
use crate::pipeline::record::{RawRecord, Span as Place, encode_header};

const BOUND: Duration = Duration::from_secs(60);
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// A collector, and what it is told: path, authorization, spans.
fn collector(status: &'static str) -> (String, mpsc::Receiver<(String, ExportTraceServiceRequest)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let Some((head, body)) = request(&mut socket) else { continue };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes());
            if tell.send((head, ExportTraceServiceRequest::decode(&*body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, told)
}

fn request(socket: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = socket.read(&mut buffer).ok().filter(|length| *length > 0)?;
        read.extend_from_slice(&buffer[..length]);
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.expect("a length");
        while read.len() < end + 4 + length {
            let more = socket.read(&mut buffer).ok().filter(|more| *more > 0)?;
            read.extend_from_slice(&buffer[..more]);
        }
        return Some((head, read[end + 4..].to_vec()));
    }
}

fn spans(endpoint: &str) -> (Spans, Metrics) {
    let metrics = Metrics::new().unwrap();
    let settings = CollectorSettings { endpoint: SecretUrl::new(endpoint), instance: "here".into() };
    (Spans::to(&settings, &metrics).unwrap(), metrics)
}

fn count(metrics: &Metrics, result: &str) -> u64 {
    metrics.spans.with_label_values(&[result]).get()
}

/// Tells of a bad record at `offset`.
fn tell(spans: &Spans, offset: i64, traceparent: Option<&str>) {
    let context = LetterContext {
        topic: "events".into(),
        consumer_group: "group".into(),
        policy: "skip".into(),
        instance: "here".into(),
        include_payload: false,
    };
    let mut arena = Vec::new();
    if let Some(value) = traceparent {
        encode_header(&mut arena, "traceparent", Some(value.as_bytes()));
    }
    let headers = Place { start: 0, len: u32::try_from(arena.len()).unwrap() };
    let record = RawRecord { offset, timestamp_ms: 0, key: None, value: None, headers };
    let explanation = Explanation { error: "no value".into(), ..Explanation::default() };
    let rejected = Rejected {
        partition: 3,
        record: &record,
        arena: &arena,
        kind: Kind::PayloadMissing,
        explanation: &explanation,
    };
    spans.unprocessable(&context, &rejected, 1_700_000_000_123);
}

fn texts(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> Vec<(String, String)> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let text = |value: Option<&Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        (attribute.key.clone(), text(attribute.value.as_ref().and_then(|value| value.value.as_ref())))
    };
    attributes.iter().map(pair).collect()
}

fn has(span: &Heard, name: &str, value: &str) -> bool {
    texts(&span.attributes).contains(&(name.to_owned(), value.to_owned()))
}

#[actix::test]
async fn a_collector_hears_of_bad_records_and_resumes_in_the_trace_that_they_come_from() {
    let (address, told) = collector("200 OK");
    let (spans, metrics) = spans(&format!("http://user:pass@{address}/base/"));
    tell(&spans, 7, Some(&format!("{PARENT}-01")));
    tell(&spans, 8, Some(&format!("{PARENT}-00")));
    tell(&spans, 9, None);
    let took = Duration::from_millis(1_500);
    let parent = TraceParent::parse(&format!("{PARENT}-01"));
    for (end, replayed) in [(ResumeEnd::Capped, 12), (ResumeEnd::TimedOut, 3)] {
        spans.resumed(&Resumed { session: 4, parent, protocol: "v2", replayed, end, took });
    }
    spans.finish(BOUND).await;
    assert_eq!([count(&metrics, "exported"), count(&metrics, "failed"), count(&metrics, "dropped")], [4, 0, 0]);

    let (head, request) = told.recv_timeout(BOUND).unwrap();
    assert!(head.starts_with("POST /base/v1/traces HTTP/1.1"), "{head}");
    assert!(head.to_ascii_lowercase().contains("authorization: basic "), "{head}");
    assert!(head.contains("application/x-protobuf"), "{head}");
    let of_resource = texts(&request.resource_spans[0].resource.as_ref().unwrap().attributes);
    assert!(of_resource.contains(&("service.name".into(), "dashstream".into())), "{of_resource:?}");
    assert!(of_resource.contains(&("service.instance.id".into(), "here".into())), "{of_resource:?}");
    let heard = &request.resource_spans[0].scope_spans[0].spans;
    assert_eq!(heard.len(), 4, "a trace that nobody records has no spans here either");
    let (trace, parent) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128, 0x00f0_67aa_0ba9_02b7_u64);
    for span in [&heard[0], &heard[2], &heard[3]] {
        assert_eq!((&*span.trace_id, &*span.parent_span_id), (&trace.to_be_bytes()[..], &parent.to_be_bytes()[..]));
    }
    assert!(heard[1].trace_id != trace.to_be_bytes() && heard[1].parent_span_id.is_empty(), "a trace of its own");
    let record = &heard[0];
    assert_eq!((record.name.as_str(), record.start_time_unix_nano), ("process record", 1_700_000_000_123_000_000));
    assert_eq!(record.status.as_ref().map(|status| (status.code, status.message.as_str())), Some((2, "no value")));
    for (name, value) in [
        ("messaging.destination.name", "events"),
        ("messaging.destination.partition.id", "3"),
        ("messaging.kafka.offset", "7"),
        ("error.type", "payload_missing"),
    ] {
        assert!(has(record, name, value), "{name}: {record:?}");
    }
    let resume = &heard[2];
    assert_eq!(resume.end_time_unix_nano - resume.start_time_unix_nano, 1_500_000_000);
    assert!(resume.name == "resume" && has(resume, "dashstream.replay.records", "12"), "{resume:?}");
    assert!(has(resume, "dashstream.replay.capped", "true"), "{resume:?}");
    let failed = &heard[3];
    assert_eq!(failed.status.as_ref().map(|status| status.code), Some(2), "{failed:?}");
    for (name, value) in
        [("dashstream.replay.records", "3"), ("dashstream.replay.capped", "false"), ("error.type", "timeout")]
    {
        assert!(has(failed, name, value), "{name}: {failed:?}");
    }
}

#[actix::test]
async fn a_collector_that_hangs_or_refuses_holds_nobody_and_every_span_is_counted() {
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = silent.local_addr().unwrap().to_string();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (refusing, _told) = collector("500 Internal Server Error");
    for (address, kind) in [(hanging, "hangs"), (nobody, "is away"), (refusing, "refuses")] {
        let (spans, metrics) = spans(&format!("http://{address}"));
        let begin = Instant::now();
        for offset in 0..10_000 {
            tell(&spans, offset, None);
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "nobody waits for a collector that {kind}");
        let accounted = || count(&metrics, "failed") + count(&metrics, "dropped");
        assert!(count(&metrics, "dropped") > 0, "a collector that {kind}");
        while kind != "hangs" && accounted() < 10_000 {
            assert!(begin.elapsed() < BOUND, "a collector that {kind}: {}", accounted());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begin = Instant::now();
        spans.finish(Duration::from_millis(200)).await;
        assert!(begin.elapsed() < Duration::from_secs(15), "nor at the end, when it {kind}");
        assert_eq!(count(&metrics, "exported"), 0);
    }
}

#[test]
fn an_address_that_cannot_be_used_is_refused_without_saying_who_may_use_it() {
    let settings = CollectorSettings { endpoint: SecretUrl::new("http://user:pa ss@h/"), instance: "here".into() };
    let refused = Spans::to(&settings, &Metrics::new().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("telemetry.otlp_endpoint") && !refused.contains("ss@"), "{refused}");
}

#[test]
fn without_a_collector_there_is_nothing() {
    let spans = Spans::default();
    tell(&spans, 1, None);
    assert!(spans.0.is_none());
}
