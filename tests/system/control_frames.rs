//! What clients say that they should not: one clear answer each, the session goes on, or it ends by a stated rule.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::Producer;
use crate::harness::raw::{Heard, Raw};
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const MIB: usize = 1024 * 1024;
const BOUND: Duration = Duration::from_secs(20);

fn service(what: &str) -> (Topic, Service) {
    let topic = Topic::create(services::kafka(), what, 1);
    let service = Service::start_healthy(&Config::new(&topic));
    (topic, service)
}

/// Says hello, or resumes, and waits for the end of that.
fn begin(raw: &mut Raw, dialect: &str) {
    let kind = if dialect == "v1" { "resume" } else { "hello" };
    raw.say(&json!({ "type": kind, "from": "latest" }));
    raw.hear_type("replay_complete");
}

#[test]
fn a_bad_frame_is_answered_by_one_error_and_the_session_goes_on() {
    let (_topic, service) = service("bad-frames");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let long_key = json!({ "type": "é".repeat(2_000) }).to_string();
    let cursor = |map: Value| json!({ "type": "resume", "from": "cursor", "lastOffsetsByPartition": map }).to_string();
    let many: serde_json::Map<_, _> = (0..10_001).map(|number| (number.to_string(), json!("1"))).collect();
    let cases: Vec<(String, &str)> = vec![
        ("{".into(), "invalid_json"),
        ("".into(), "invalid_json"),
        ("[]".into(), "invalid_json"),
        ("null".into(), "invalid_json"),
        (deep, "invalid_json"),
        ("{}".into(), "unknown_type"),
        (r#"{"type":"subscribe"}"#.into(), "unknown_type"),
        (r#"{"type":7}"#.into(), "unknown_type"),
        (long_key, "unknown_type"),
        (r#"{"type":"cursor_reset"}"#.into(), "unsupported"),
        (r#"{"type":"resume","mode":"run"}"#.into(), "invalid_field"),
        (r#"{"type":"resume","from":"yesterday"}"#.into(), "invalid_field"),
        (r#"{"type":"resume","from":"latest","default":"soon"}"#.into(), "invalid_field"),
        (r#"{"type":"resume","from":"cursor"}"#.into(), "empty_cursor"),
        (cursor(json!({})), "empty_cursor"),
        (cursor(Value::Null), "empty_cursor"),
        (cursor(json!([])), "invalid_field"),
        (cursor(json!({ "zero": "1" })), "invalid_field"),
        (cursor(json!({ "-1": "1" })), "invalid_field"),
        (cursor(json!({ "2147483648": "1" })), "invalid_field"),
        (cursor(json!({ "0": "-2" })), "invalid_field"),
        (cursor(json!({ "0": "1.5" })), "invalid_field"),
        (cursor(json!({ "0": 1.5 })), "invalid_field"),
        (cursor(json!({ "0": "07" })), "invalid_field"),
        (cursor(json!({ "0": 9_007_199_254_740_992_u64 })), "invalid_field"),
        (cursor(json!({ "0": "9223372036854775807" })), "invalid_field"),
        (cursor(json!({ "0": "9223372036854775808" })), "invalid_field"),
        (cursor(Value::Object(many)), "too_large"),
    ];
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        begin(&mut raw, dialect);
        for (frame, code) in &cases {
            raw.send(Message::text(frame.clone()));
            raw.say(&json!({ "type": "ping" }));
            let shown = frame.chars().take(80).collect::<String>();
            let error = raw.hear_text();
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!("error"), &json!(code)),
                "{dialect}: {shown}: {error}"
            );
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty() && text.len() <= 256), "{error}");
            assert_eq!(raw.hear_text()["type"], "pong", "{dialect}: one error for {shown}");
        }
    }
    let mut v1 = Raw::v1(service.address());
    v1.say(&json!({ "type": "hello", "from": "latest" }));
    assert_eq!(v1.hear_text()["code"], "unknown_type", "v1 knows no hello");
    v1.say(&json!({ "type": "resume", "mode": "thread" }));
    assert_eq!(v1.hear_text()["code"], "empty_cursor", "no thread is named");
    let mut v2 = Raw::v2(service.address());
    v2.say(&json!({ "type": "hello" }));
    assert_eq!(v2.hear_text()["field"], "from");
    v2.say(&json!({ "type": "resume", "mode": "thread" }));
    assert_eq!(v2.hear_text()["code"], "unsupported", "v2 has positions and filters");
    v2.say(&json!({ "type": "applied" }));
    assert_eq!(v2.hear_text()["field"], "offsets");
    begin(&mut v2, "v2");
}

#[test]
fn bytes_that_are_no_text_are_one_bad_frame_whole_or_in_parts() {
    let (_topic, service) = service("no-text");
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        begin(&mut raw, dialect);
        let refused = |raw: &mut Raw, code: &str| {
            raw.say(&json!({ "type": "ping" }));
            assert_eq!(raw.hear_text()["code"], code, "{dialect}");
            assert_eq!(raw.hear_text()["type"], "pong", "{dialect}: one error");
        };
        raw.send(Message::binary(vec![1, 2, 3]));
        refused(&mut raw, "unsupported");
        for (part, last) in [(&b"{\"type\""[..], false), (b":\"ping\"", false), (b"}", true)] {
            let opcode = if part.starts_with(b"{") { Data::Binary } else { Data::Continue };
            raw.send_part(part, opcode, last);
        }
        refused(&mut raw, "unsupported");
        raw.send_part(b"\xff\xfe", Data::Text, true);
        refused(&mut raw, "invalid_json");
        raw.send_part(b"{\"type\":\"\xff", Data::Text, false);
        raw.send_part(b"\"}", Data::Continue, true);
        refused(&mut raw, "invalid_json");
    }
}

#[test]
fn a_message_in_parts_is_a_message_wherever_it_is_cut() {
    let (_topic, service) = service("parts");
    let hello = json!({ "type": "resume", "from": "latest", "client": "Zoë 🦀" }).to_string().into_bytes();
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        let crab = hello.iter().position(|byte| *byte == 0xf0).expect("a crab");
        // At the ends, and within a character.
        for cut in [0, 1, crab + 1, crab + 3, hello.len()] {
            raw.send_part(&hello[..cut], Data::Text, false);
            raw.send(Message::Ping(vec![1].into()));
            raw.send_part(b"", Data::Continue, false);
            raw.send_part(&hello[cut..], Data::Continue, true);
            assert_eq!(raw.hear_type("replay_complete")["totalReplayed"], 0, "{dialect}, cut at {cut}");
        }
    }
}

#[test]
fn ten_bad_frames_in_a_row_end_the_session_and_nine_do_not() {
    let (_topic, service) = service("ten");
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        begin(&mut raw, dialect);
        for _ in 0..3 {
            for _ in 0..9 {
                raw.send(Message::text("nonsense"));
                assert_eq!(raw.hear_text()["code"], "invalid_json", "{dialect}");
            }
            raw.say(&json!({ "type": "ping" }));
            assert_eq!(raw.hear_text()["type"], "pong", "{dialect}");
        }
        for _ in 0..10 {
            raw.send(Message::text("nonsense"));
        }
        for _ in 0..10 {
            assert_eq!(raw.hear_text()["code"], "invalid_json", "{dialect}");
        }
        assert_eq!(raw.hear_close().code, Some(1008), "{dialect}");
    }
    assert_eq!(service.metric("dashstream_sessions_closed_total", &[r#"reason="policy_violation""#]), 2.0);
}

#[test]
fn a_flood_of_frames_is_refused_and_the_next_second_is_a_new_one() {
    let (_topic, service) = service("flood");
    let mut raw = Raw::v2(service.address());
    begin(&mut raw, "v2");
    eventually("a second with a limit", BOUND, || {
        for _ in 0..105 {
            raw.say(&json!({ "type": "ping" }));
        }
        let answers: Vec<Value> = (0..105).map(|_| raw.hear_text()).collect();
        let refused = answers.iter().filter(|answer| answer["code"] == "rate_limited").count();
        // A slow machine spreads them over two seconds, and then nothing is over the limit.
        if refused > 0 { Ok(()) } else { Err("all were taken".to_owned()) }
    });
    throughout("the second passes", Duration::from_secs(1), || Ok(()));
    raw.say(&json!({ "type": "ping" }));
    assert_eq!(raw.hear_text()["type"], "pong");
}

#[test]
fn resumes_that_come_too_often_are_refused_and_the_stream_goes_on() {
    let (topic, service) = service("resumes");
    let producer = Producer::new(services::kafka());
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        begin(&mut raw, dialect);
        let mut taken = 1;
        // A slow machine spreads them over several of the spans for which they are counted.
        let refused = loop {
            raw.say(&json!({ "type": "resume", "from": "latest" }));
            let answer = loop {
                let text = raw.hear_text();
                if text["type"] != "welcome" {
                    break text;
                }
            };
            if answer["type"] != "replay_complete" {
                break answer;
            }
            taken += 1;
            assert!(taken < 200, "{dialect}: all were taken");
        };
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("rate_limited")), "{dialect}");
        assert!(taken >= 20, "{dialect}: {taken} were taken");
        producer.publish(&topic.name, [records::good("t", 0)]);
        while !matches!(raw.hear(), Heard::Binary(_)) {}
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_header_and_costs_no_memory() {
    let (_topic, mut service) = service("oversized");
    let before = service.memory();
    let send = |raw: &mut Raw, parts: &[usize]| {
        for (index, size) in parts.iter().enumerate() {
            let opcode = if index == 0 { Data::Text } else { Data::Continue };
            raw.send_part(&vec![b'a'; *size], opcode, index + 1 == parts.len());
        }
    };
    for (dialect, mut raw) in Raw::of_each_dialect(service.address()) {
        begin(&mut raw, dialect);
        // At the limit it is only nonsense.
        send(&mut raw, &[MIB]);
        assert_eq!(raw.hear_text()["code"], "invalid_json", "{dialect}");
        send(&mut raw, &[MIB / 2, MIB / 2]);
        assert_eq!(raw.hear_text()["code"], "invalid_json", "{dialect}");
        for parts in [&[MIB + 1][..], &[64 * MIB], &[MIB / 2, MIB / 2, 1]] {
            let mut raw = if dialect == "v1" { Raw::v1(service.address()) } else { Raw::v2(service.address()) };
            send(&mut raw, parts);
            assert_eq!(raw.hear_close().code, Some(1009), "{dialect}: {parts:?}");
        }
        // It is still there, and serves.
        raw.say(&json!({ "type": "ping" }));
        assert_eq!(raw.hear_text()["type"], "pong", "{dialect}");
    }
    assert_eq!(service.metric("websocket_control_oversized_total", &[]), 6.0);
    let grown = service.memory().saturating_sub(before);
    assert!(grown < 24 * MIB as u64, "memory grew by {grown} bytes");
    assert!(service.is_running());
}

#[test]
fn who_says_no_hello_is_closed_and_who_says_nothing_at_all_too() {
    let topic = Topic::create(services::kafka(), "silence", 1);
    let config = Config::new(&topic)
        .set("DASHSTREAM_WEB_HELLO_TIMEOUT_SECS", 1)
        .set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1)
        .set("DASHSTREAM_WEB_IDLE_TIMEOUT_SECS", 2);
    let service = Service::start_healthy(&config);

    let (start, mut no_hello) = (Instant::now(), Raw::v2(service.address()));
    no_hello.say(&json!({ "type": "ping" }));
    assert_eq!(no_hello.hear_close().code, Some(4500));
    assert!(start.elapsed() >= Duration::from_secs(1));

    // The library answers pings while it is asked for messages, as browsers do by themselves: these stay.
    let mut quiet = Raw::of_each_dialect(service.address());
    begin(&mut quiet[1].1, "v2");
    // These do not even look: no pong, no word.
    let mut deaf = Raw::of_each_dialect(service.address());
    begin(&mut deaf[1].1, "v2");
    throughout("both hear nothing but heartbeats", Duration::from_secs(5), || {
        for (dialect, raw) in &mut quiet {
            match raw.hear_within(Duration::from_millis(50)) {
                None => {}
                Some(Heard::Text(text)) if *dialect == "v2" && text["type"] == "heartbeat" => {}
                Some(heard) => return Err(format!("{dialect}: {heard:?}")),
            }
        }
        Ok(())
    });
    for (dialect, raw) in &mut deaf {
        assert_eq!(raw.hear_close().code, Some(4000), "{dialect}");
    }
    for (reason, count) in [("hello_timeout", 1.0), ("idle_timeout", 2.0)] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(service.metric("dashstream_sessions_closed_total", &[&label]), count, "{reason}");
    }
}
