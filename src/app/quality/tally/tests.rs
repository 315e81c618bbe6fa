//! Records in, samples of the scrape out.

use std::collections::BTreeMap;

use prost::Message as _;

use super::*;
use crate::metrics::quality::Buckets;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::metric_value::Value;
use crate::wire::telemetry::{DashStreamMessage, Event, EventBatch, EventType, Header, MetricValue, Metrics};

struct Bench {
    tally: Tally,
    metrics: Arc<QualityMetrics>,
    offset: i64,
}

fn buckets() -> Buckets {
    let bounds = vec![1.0, 2.0, 5.0, 10.0, 50.0];
    Buckets {
        scores: bounds.clone(),
        latency_ms: bounds.clone(),
        duration_seconds: bounds.clone(),
        retries: bounds.clone(),
        turns: bounds.clone(),
        scrape_seconds: bounds,
    }
}

impl Bench {
    fn new(session_timeout: Duration) -> Self {
        let metrics = Arc::new(QualityMetrics::new(&buckets()).unwrap());
        let settings =
            TallySettings { judge: JudgeSettings::default(), session_timeout, max_sessions: 2, remembered: 1_000 };
        Self { tally: Tally::new(settings, Arc::clone(&metrics)), metrics, offset: 0 }
    }

    fn record(&mut self, value: Option<&[u8]>) {
        self.offset += 1;
        self.at(self.offset, value);
    }

    fn at(&mut self, offset: i64, value: Option<&[u8]>) {
        self.tally.record(GroupRecord { partition: 0, offset, time_ms: Some(7_000), value });
    }

    fn samples(&self) -> BTreeMap<String, f64> {
        let text = self.metrics.encode().unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    fn sample(&self, name: &str) -> Option<f64> {
        self.samples().get(name).copied()
    }
}

fn header(id: u8, time_us: i64) -> Header {
    Header {
        message_id: if id == 0 { Vec::new() } else { vec![id; 16] },
        timestamp_us: time_us,
        thread_id: "t".into(),
        ..Header::default()
    }
}

fn framed(message: Message) -> Vec<u8> {
    [vec![0], DashStreamMessage { message: Some(message) }.encode_to_vec()].concat()
}

fn judged(header: Option<Header>, values: &[(&str, Value)], tags: &[(&str, &str)]) -> Vec<u8> {
    let value = |value: &Value| MetricValue { value: Some(value.clone()), ..MetricValue::default() };
    framed(Message::Metrics(Metrics {
        header,
        scope: "quality".into(),
        metrics: values.iter().map(|(name, found)| ((*name).to_owned(), value(found))).collect(),
        tags: tags.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect(),
        ..Metrics::default()
    }))
}

fn score(value: f64) -> [(&'static str, Value); 1] {
    [("quality_score", Value::FloatValue(value))]
}

#[test]
fn averages_are_averages_and_the_gauge_is_the_newest_and_not_the_last_read() {
    let mut bench = Bench::new(Duration::from_secs(300));
    assert_eq!(bench.sample("dashstream_quality_monitor_quality_score"), None, "nothing is known");
    for number in (1..=9).rev() {
        let value = judged(Some(header(number, i64::from(number))), &score(f64::from(number)), &[("model", "o3")]);
        bench.record(Some(&value));
    }
    let samples = bench.samples();
    for name in
        ["dashstream_quality_scores_X{dimension=\"score\"}", "dashstream_quality_score_by_model_X{model=\"o3\"}"]
    {
        let of = |part: &str| samples[&name.replace('X', part)];
        assert_eq!((of("sum"), of("count"), of("sum") / of("count")), (45.0, 9.0, 5.0));
    }
    assert_eq!(samples["dashstream_quality_monitor_quality_score"], 9.0, "9 has the newest time, 1 was read last");
    assert_eq!(samples["dashstream_exporter_last_event_timestamp_seconds"], 9e-6);
    assert!(samples["dashstream_exporter_gauges_last_update_timestamp_seconds"] > 1.7e9, "by the clock");
    assert!(!samples.contains_key("dashstream_quality_accuracy"), "nobody told any");
}

#[test]
fn an_event_without_a_verdict_is_no_failure_and_all_add_up() {
    let mut bench = Bench::new(Duration::from_secs(300));
    for (id, passed) in [(1, Some(true)), (2, Some(false)), (3, None), (4, None)] {
        let values: Vec<_> = passed.map(|passed| ("passed", Value::BoolValue(passed))).into_iter().collect();
        bench.record(Some(&judged(Some(header(id, 1)), &values, &[("category", "edge")])));
    }
    let samples = bench.samples();
    let of = |name: &str| samples[&format!("dashstream_quality_monitor_queries_{name}")];
    assert_eq!((of("total"), of("passed_total"), of("unjudged_total")), (4.0, 1.0, 2.0));
    assert_eq!((of("failed_total{category=\"Edge\"}"), of("failed_total{category=\"Unknown\"}")), (1.0, 0.0));
    assert_eq!(samples["dashstream_query_latency_ms_count"], 0.0, "no latency was told");
}

#[test]
fn every_record_has_one_outcome_and_a_message_is_counted_once() {
    let mut bench = Bench::new(Duration::from_secs(300));
    let good = judged(Some(header(1, 1)), &score(0.5), &[]);
    let nameless = judged(Some(header(0, 1)), &score(0.5), &[]);
    bench.record(Some(&good));
    bench.record(Some(&good));
    bench.at(100, Some(&nameless));
    bench.at(100, Some(&nameless));
    bench.at(101, Some(&nameless));
    bench.record(Some(&judged(None, &score(0.5), &[])));
    bench.record(Some(&framed(Message::Metrics(Metrics { scope: "llm".into(), ..Metrics::default() }))));
    let event = |event_type: EventType| Event {
        event_type: event_type.into(),
        duration_us: 1_500_000,
        header: Some(header(0, 1)),
        ..Event::default()
    };
    let events = vec![event(EventType::NodeStart), event(EventType::NodeEnd), event(EventType::NodeEnd)];
    bench.record(Some(&framed(Message::EventBatch(EventBatch { header: Some(header(9, 1)), events }))));
    bench.record(None);
    bench.record(Some(&[]));
    bench.record(Some(&[0, 0xff]));
    bench.record(Some(&[9, 9]));
    let future = Header { schema_version: 2, ..header(8, 1) };
    bench.record(Some(&judged(Some(future), &score(0.5), &[])));

    let samples = bench.samples();
    let outcome = |name: &str| samples[&format!("dashstream_exporter_messages_total{{outcome=\"{name}\"}}")];
    assert_eq!((outcome("counted"), outcome("duplicate"), outcome("undecodable")), (3.0, 2.0, 5.0));
    assert_eq!((outcome("missing_header"), outcome("wrong_scope"), outcome("other_message")), (1.0, 1.0, 1.0));
    let outcomes = samples.iter().filter(|(name, _)| name.starts_with("dashstream_exporter_messages_total"));
    assert_eq!(outcomes.map(|(_, value)| value).sum::<f64>(), samples["dashstream_exporter_messages_received_total"]);
    let failed = |kind: &str| samples[&format!("dashstream_exporter_messages_failed_total{{error_type=\"{kind}\"}}")];
    assert_eq!((failed("payload_missing"), failed("invalid_protobuf")), (2.0, 1.0));
    assert_eq!((failed("unknown_framing"), failed("schema_version")), (1.0, 1.0));
    assert_eq!(samples["dashstream_exporter_kafka_payload_missing_total"], 2.0);
    assert_eq!(samples["dashstream_run_events_total{event_type=\"NODE_END\"}"], 2.0);
    assert_eq!(samples["dashstream_node_duration_seconds_sum{status=\"finished\"}"], 3.0);
    assert_eq!(samples["dashstream_quality_monitor_queries_total"], 3.0);
}

#[test]
fn sessions_end_by_silence_and_without_a_thread_at_once() {
    let mut bench = Bench::new(Duration::ZERO);
    let turn = |id: u8, thread: &str, turn: i64| {
        let header = Header { thread_id: thread.into(), ..header(id, 1) };
        judged(Some(header), &[("turn_number", Value::IntValue(turn))], &[])
    };
    bench.record(Some(&turn(1, "a", 3)));
    bench.record(Some(&turn(2, "a", 7)));
    bench.record(Some(&turn(3, "", 2)));
    assert_eq!(bench.sample("dashstream_turns_by_session_count"), Some(1.0), "the one without a thread");
    bench.tally.turn();
    assert_eq!(bench.sample("dashstream_turns_by_session_sum"), Some(9.0));
    bench.record(Some(&turn(4, "a", 8)));
    assert_eq!(bench.sample("dashstream_exporter_late_turns_total"), Some(1.0));
    for (id, thread) in [(5, "b"), (6, "c"), (7, "d")] {
        bench.record(Some(&turn(id, thread, 1)));
    }
    assert_eq!(bench.sample("dashstream_exporter_sessions_evicted_total"), Some(1.0));
    bench.tally.end();
    assert_eq!(bench.sample("dashstream_turns_by_session_count"), Some(5.0));
}

#[test]
fn librarians_are_counted_apart() {
    let mut bench = Bench::new(Duration::from_secs(300));
    let values = [
        ("latency_ms", Value::IntValue(1_500)),
        ("passed", Value::BoolValue(true)),
        ("turn_number", Value::IntValue(4)),
    ];
    bench.record(Some(&judged(Some(header(1, 1)), &values, &[("application_type", "librarian")])));
    bench.record(Some(&judged(Some(header(2, 1)), &values, &[("application_type", "chat")])));
    let samples = bench.samples();
    assert_eq!(samples["dashstream_librarian_requests_total"], 1.0);
    assert_eq!(samples["dashstream_librarian_tests_total{status=\"passed\"}"], 1.0);
    assert_eq!(samples["dashstream_librarian_request_duration_seconds_sum"], 1.5);
    assert_eq!(samples["dashstream_librarian_iterations"], 4.0);
    assert_eq!(samples["dashstream_query_latency_ms_sum"], 3_000.0);
}

#[test]
fn a_time_in_the_future_is_taken_for_now_and_a_missing_one_for_that_of_the_record() {
    let mut bench = Bench::new(Duration::from_secs(300));
    bench.record(Some(&judged(Some(header(1, 0)), &score(0.1), &[])));
    assert_eq!(bench.sample("dashstream_exporter_last_event_timestamp_seconds"), Some(7.0), "the record's");
    bench.record(Some(&judged(Some(header(2, i64::MAX)), &score(0.2), &[])));
    let now = bench.sample("dashstream_exporter_last_event_timestamp_seconds").unwrap();
    assert!((now - seconds(now_us())).abs() < 600.0, "{now}");
}
