//! The exporter of quality on a real Kafka: what producers judge is what a scrape shows, once, from wherever it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use dashstream::metrics::quality::QualityMetrics;
use dashstream::wire::telemetry::metric_value::Value;
use nix::sys::signal::Signal;
use serde_json::Value as Json;

use crate::harness::eventually::{eventually, within};
use crate::harness::judgements::{bare, judgement, of_every_kind, of_scope};
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use dashstream::torture::proxy::Fault;

const BOUND: Duration = Duration::from_secs(60);
const EXIT_WITHIN: Duration = Duration::from_secs(10);
const RECEIVED: &str = "dashstream_exporter_messages_received_total";
const JUDGED: &str = "dashstream_quality_monitor_queries_total";
const LAG: &str = "dashstream_exporter_kafka_consumer_lag";

/// Waits until a sample has a value.
#[track_caller]
fn wait_for(exporter: &Service, sample: &str, value: f64) {
    eventually(&format!("{sample} to be {value}"), BOUND, || match exporter.metrics().get(sample) {
        Some(found) if (found - value).abs() < 1e-9 => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

/// Waits until everything that lies in the topic was received and committed.
#[track_caller]
fn wait_until_read(exporter: &Service, topic: &Topic) {
    topic.wait_until_all_committed(group(exporter), BOUND);
    wait_for(exporter, LAG, 0.0);
}

fn group(exporter: &Service) -> &str {
    exporter.config().get("DASHSTREAM_QUALITY_GROUP_ID")
}

fn health(exporter: &Service) -> Result<Json, String> {
    let (status, body) = exporter.get("/health")?;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).map_err(|error| error.to_string())
}

#[track_caller]
fn wait_for_status(exporter: &Service, status: &str, bound: Duration) {
    within(&format!("/health to say {status}"), bound, || match health(exporter)? {
        health if health["status"] == status => Ok(()),
        health => Err(health.to_string()),
    });
}

#[test]
fn known_judgements_are_what_a_scrape_shows() {
    let topic = Topic::create(services::kafka(), "judged", 4);
    let exporter = Service::start(&Config::quality_exporter(&topic));
    let latencies = [10, 20, 30].into_iter().enumerate().map(|(at, latency)| {
        let values = [("latency_ms", Value::IntValue(latency)), ("quality_accuracy", Value::FloatValue(0.25))];
        judgement("t", &values, &[("model", "gpt-4o-mini")]).on_partition(i32::try_from(at).expect("small"))
    });
    let scores = (1..=9).map(|number| {
        let passed = ("passed", Value::BoolValue(number > 2));
        judgement("t", &[("quality_score", Value::IntValue(number)), passed], &[("category", "Simple")]).on_partition(3)
    });
    let turns = [("turn_number", Value::IntValue(4)), ("retry_count", Value::IntValue(2))];
    let more =
        [judgement("s", &turns, &[("app_type", "librarian")]), of_scope("llm", "t", &[], &[]), records::good("t", 1)];
    Producer::new(&topic.kafka).publish(&topic.name, latencies.chain(scores).chain(more));
    wait_until_read(&exporter, &topic);

    let samples = exporter.metrics();
    let of = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("no sample {name}"));
    assert_eq!((of(JUDGED), of(RECEIVED)), (13.0, 15.0));
    assert_eq!(of("dashstream_quality_monitor_queries_passed_total"), 7.0);
    assert_eq!(of("dashstream_quality_monitor_queries_failed_total{category=\"Simple\"}"), 2.0);
    assert_eq!(of("dashstream_quality_monitor_queries_unjudged_total"), 4.0);
    assert_eq!((of("dashstream_query_latency_ms_count"), of("dashstream_query_latency_ms_sum")), (3.0, 60.0));
    for (bound, count) in [("10", 1.0), ("50", 3.0), ("30000", 3.0), ("+Inf", 3.0)] {
        assert_eq!(of(&format!("dashstream_query_latency_ms_bucket{{le=\"{bound}\"}}")), count, "{bound}");
    }
    assert_eq!(of("dashstream_latency_by_model_ms_sum{model=\"gpt-4o-mini\"}"), 60.0);
    assert_eq!(of("dashstream_queries_by_model_total{model=\"gpt-4o-mini\"}"), 3.0);
    let (sum, count) = (
        of("dashstream_quality_scores_sum{dimension=\"score\"}"),
        of("dashstream_quality_scores_count{dimension=\"score\"}"),
    );
    assert_eq!((sum / count, count), (5.0, 9.0), "the mean of 1 to 9");
    assert_eq!(of("dashstream_quality_monitor_quality_score"), 9.0, "the newest");
    assert_eq!(of("dashstream_quality_accuracy"), 0.25);
    assert!(!samples.contains_key("dashstream_quality_relevance"), "nobody told any: that is not zero");
    assert_eq!(of("dashstream_librarian_requests_total"), 1.0);
    assert_eq!(of("dashstream_quality_retry_count_sum{status=\"unjudged\"}"), 2.0);
    assert_eq!(of("dashstream_exporter_messages_wrong_scope_total"), 1.0);
    assert_eq!(of("dashstream_exporter_messages_by_kind_total{kind=\"event\"}"), 1.0);
    assert_eq!(of("dashstream_exporter_owned_partitions"), 4.0);

    // Once everything is known, the scrape has every family of the table, and no other.
    Producer::new(&topic.kafka).publish(&topic.name, of_every_kind(1));
    wait_until_read(&exporter, &topic);
    let (_, text) = exporter.get("/metrics").expect("/metrics answers");
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<&str> = QualityMetrics::TABLE.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, declared);
    let page = include_str!("../../docs/QUALITY_EXPORTER.md");
    assert!(declared.iter().all(|name| page.contains(&format!("\n| `{name}` | "))), "the page has a row for each");
    for (path, status) in [("/ready", 200), ("/live", 200), ("/nothing", 404)] {
        assert_eq!(exporter.get(path).expect("an answer").0, status, "{path}");
    }
}

#[test]
fn a_new_group_begins_with_all_that_is_retained_unless_it_is_told_otherwise() {
    for (reset, old) in [(None, 100.0), (Some("earliest"), 100.0), (Some("latest"), 0.0)] {
        let topic = Topic::create(services::kafka(), "retained", 3);
        let producer = Producer::new(&topic.kafka);
        producer.publish(&topic.name, (0..100).map(|number| bare(&format!("thread-{number}"))));
        let config = Config::quality_exporter(&topic);
        let config = reset.into_iter().fold(config, |config, reset| config.set("KAFKA_AUTO_OFFSET_RESET", reset));
        let exporter = Service::start(&config);
        wait_for(&exporter, LAG, 0.0);
        wait_for(&exporter, JUDGED, old);
        // What comes now is counted wherever it began. A start at the end has no other sign, so this is tried until it is seen.
        let mut new = 0.0;
        eventually("a new judgement to be counted", BOUND, || {
            producer.publish(&topic.name, [bare("new").on_partition(1)]);
            new += 1.0;
            let counted = exporter.metric(JUDGED, &[]);
            if counted > old { Ok(()) } else { Err(counted.to_string()) }
        });
        match reset {
            Some("latest") => assert!(exporter.metric(JUDGED, &[]) <= new, "none of the hundred"),
            _ => wait_for(&exporter, JUDGED, old + new),
        }
        let log = exporter.log();
        let start =
            log.lines().find(|line| line.contains("the exporter of quality starts")).expect("a line about the start");
        for told in [&topic.kafka, &topic.name, group(&exporter), "plaintext", reset.unwrap_or("earliest")] {
            assert!(start.contains(told), "{told} is missing in: {start}");
        }
    }
}

#[test]
fn every_partition_is_counted() {
    let topic = Topic::create(services::kafka(), "spread", 8);
    let exporter = Service::start(&Config::quality_exporter(&topic));
    let producer = Producer::new(&topic.kafka);
    producer.publish(&topic.name, (0..8).map(|partition| bare("t").on_partition(partition)));
    wait_for(&exporter, JUDGED, 8.0);
    wait_for(&exporter, LAG, 0.0);
    let lags =
        exporter.metrics().keys().filter(|name| name.starts_with("dashstream_exporter_kafka_partition_lag{")).count();
    assert_eq!(lags, 8);
}

#[test]
fn a_restart_goes_on_without_counting_twice_and_a_message_that_comes_again_is_a_duplicate() {
    let topic = Topic::create(services::kafka(), "again", 2);
    let mut exporter = Service::start(&Config::quality_exporter(&topic));
    let producer = Producer::new(&topic.kafka);
    let twice = bare("t").on_partition(0);
    producer.publish(&topic.name, (0..50).map(|_| bare("t")).chain([twice.clone(), twice.on_partition(1)]));
    wait_until_read(&exporter, &topic);
    assert_eq!(exporter.metric(JUDGED, &[]), 51.0);
    assert_eq!(exporter.metric("dashstream_exporter_messages_total", &["outcome=\"duplicate\""]), 1.0);

    exporter.signal(Signal::SIGTERM);
    let status = exporter.wait_for_exit(EXIT_WITHIN);
    assert!(status.success(), "{status}");
    producer.publish(&topic.name, (0..7).map(|_| bare("t")));
    exporter.restart();
    wait_until_read(&exporter, &topic);
    assert_eq!((exporter.metric(RECEIVED, &[]), exporter.metric(JUDGED, &[])), (7.0, 7.0));

    // Two of one group share the partitions, and each record is counted by one of them.
    let other = Service::start(exporter.config());
    eventually("each to have a partition", BOUND, || {
        let owned = [&exporter, &other].map(|one| one.metric("dashstream_exporter_owned_partitions", &[]));
        if owned == [1.0, 1.0] { Ok(()) } else { Err(format!("{owned:?}")) }
    });
    producer.publish(&topic.name, (0..20).map(|number| bare("t").on_partition(number % 2)));
    wait_for(&exporter, JUDGED, 17.0);
    wait_for(&other, JUDGED, 10.0);
}

#[test]
fn records_that_cannot_be_processed_are_counted_by_kind_as_the_service_judges_them() {
    const LIMIT: usize = 100_000;
    let topic = Topic::create(services::kafka(), "bad", 1);
    let config = Config::quality_exporter(&topic).set("WEBSOCKET_MAX_PAYLOAD_BYTES", LIMIT);
    let exporter = Service::start(&config);
    // Only a service can be told to fail at a record.
    let causes: Vec<_> = records::every_cause("t", LIMIT)
        .into_iter()
        .map(|(_, record)| record)
        .filter(|record| record.expect != records::sabotaged("t").expect)
        .chain([records::null("t"), records::null("t")])
        .collect();
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for record in &causes {
        let records::Expect::Skip(reason) = record.expect else { panic!("a bad record") };
        let kind = reason.as_str_name().trim_start_matches("SKIP_REASON_").to_lowercase();
        *expected.entry(kind).or_default() += 1.0;
    }
    assert!(expected.len() >= 7, "{expected:?}");
    let bad = causes.len() as f64;
    Producer::new(&topic.kafka).publish(&topic.name, causes.into_iter().chain([bare("t")]));
    wait_for(&exporter, JUDGED, 1.0);
    let counted: BTreeMap<String, f64> = exporter
        .metrics()
        .into_iter()
        .filter_map(|(name, value)| {
            let kind =
                name.strip_prefix("dashstream_exporter_messages_failed_total{error_type=\"")?.strip_suffix("\"}")?;
            (value > 0.0).then(|| (kind.to_owned(), value))
        })
        .collect();
    assert_eq!(counted, expected);
    assert_eq!(exporter.metric("dashstream_exporter_kafka_payload_missing_total", &[]), expected["payload_missing"]);
    assert_eq!(exporter.metric("dashstream_exporter_messages_total", &["outcome=\"undecodable\""]), bad);
    assert_eq!(exporter.metric("dashstream_exporter_messages_total", &[]), exporter.metric(RECEIVED, &[]));
    assert!(exporter.memory() < 300 << 20, "bombs cost no memory: {}", exporter.memory());
}

#[test]
fn a_session_is_counted_by_silence_alone() {
    let topic = Topic::create(services::kafka(), "session", 1);
    let exporter = Service::start(&Config::quality_exporter(&topic).set("PROMETHEUS_SESSION_TIMEOUT_SECS", 1));
    let turn = |number| judgement("t", &[("turn_number", Value::IntValue(number))], &[]);
    Producer::new(&topic.kafka).publish(&topic.name, (1..=6).map(turn));
    wait_for(&exporter, "dashstream_turns_by_session_count", 1.0);
    assert_eq!(exporter.metric("dashstream_turns_by_session_sum", &[]), 6.0);
    assert_eq!(exporter.metric("dashstream_exporter_open_sessions", &[]), 0.0);
}

#[test]
fn lag_tracks_a_known_backlog_and_a_lag_client_that_hangs_does_not_stop_the_reading() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "behind", 3);
    let config = Config::quality_exporter(&topic).set("KAFKA_BROKERS", kafka.proxy.address());
    // The group waits while the reader is held up.
    let exporter = Service::start(&config.set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 120_000));
    wait_for(&exporter, LAG, 0.0);
    let producer = Producer::new(&kafka.direct);
    let publish = |count: usize| drop(producer.publish(&topic.name, (0..count).map(|_| bare("t").on_partition(0))));

    kafka.proxy.set_for("exporter-lag", Fault::BlackHole);
    publish(100);
    wait_for(&exporter, JUDGED, 100.0);
    eventually("lag to be unknown", BOUND, || match exporter.metrics().get(LAG) {
        None => Ok(()),
        Some(lag) => Err(lag.to_string()),
    });
    publish(100);
    wait_for(&exporter, JUDGED, 200.0);
    kafka.proxy.set_for("exporter-lag", Fault::Healed);
    wait_for(&exporter, LAG, 0.0);

    kafka.proxy.set_for("exporter-reader", Fault::BlackHole);
    publish(1_234);
    wait_for(&exporter, LAG, 1_234.0);
    wait_for(&exporter, "dashstream_exporter_kafka_partition_lag{partition=\"0\"}", 1_234.0);
    wait_for(&exporter, "dashstream_exporter_kafka_partition_lag{partition=\"1\"}", 0.0);
    kafka.proxy.set_for("exporter-reader", Fault::Healed);
    wait_for(&exporter, LAG, 0.0);
    wait_for(&exporter, JUDGED, 1_434.0);
}

#[test]
fn a_kafka_that_stands_still_shows_in_health_and_is_found_again() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "still", 1);
    kafka.proxy.cut();
    let config = Config::quality_exporter(&topic).set("KAFKA_BROKERS", kafka.proxy.address());
    let mut exporter = Service::start(&config);
    assert_eq!(health(&exporter).expect("/health answers")["status"], "starting");
    assert_eq!(exporter.get("/ready").expect("an answer").0, 503);
    kafka.proxy.heal();
    wait_for_status(&exporter, "healthy", BOUND);
    Producer::new(&kafka.direct).publish(&topic.name, (0..10).map(|_| bare("t")));
    wait_for(&exporter, JUDGED, 10.0);

    kafka.proxy.black_hole();
    wait_for_status(&exporter, "reconnecting", BOUND);
    assert_eq!(exporter.get("/ready").expect("an answer").0, 503);
    assert_eq!(exporter.get("/live").expect("an answer").0, 200);
    assert!(!exporter.metrics().contains_key(LAG), "nobody knows");
    assert!(exporter.metric("dashstream_exporter_kafka_errors_by_type_total", &[]) > 0.0);
    Producer::new(&kafka.direct).publish(&topic.name, (0..10).map(|_| bare("t")));
    kafka.proxy.heal();
    wait_for_status(&exporter, "healthy", BOUND);
    wait_for(&exporter, JUDGED, 20.0);

    // And a Kafka that hangs does not hold the end up.
    kafka.proxy.black_hole();
    exporter.signal(Signal::SIGINT);
    let status = exporter.wait_for_exit(EXIT_WITHIN);
    assert!(status.success(), "{status}");
}

#[test]
fn a_topic_that_does_not_exist_is_told_and_waited_for() {
    let topic = Topic::planned(services::kafka(), "to-come");
    let exporter = Service::start(&Config::quality_exporter(&topic));
    eventually("/health to name the topic", BOUND, || match health(&exporter)? {
        health if health["reasons"][0]["code"] == "topic_missing" => Ok(()),
        health => Err(health.to_string()),
    });
    topic.create_now(2);
    Producer::new(&topic.kafka).publish(&topic.name, [bare("t")]);
    wait_for(&exporter, JUDGED, 1.0);
    wait_for_status(&exporter, "healthy", BOUND);
}

#[test]
fn command_line_service_and_exporter_share_the_default_topic_and_no_group() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic { name: "dashstream-quality".into(), kafka: kafka.direct };
    topic.create_now(2);
    let service = Service::start_healthy(&Config::new(&topic).unset("KAFKA_TOPIC").unset("KAFKA_DLQ_TOPIC"));
    let unset = ["KAFKA_TOPIC", "KAFKA_GROUP_ID", "DASHSTREAM_QUALITY_GROUP_ID"];
    let config = unset.iter().fold(Config::quality_exporter(&topic), |config, name| config.unset(name));
    let exporter = Service::start(&config);
    let output = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(["generate", "--count", "30", "--unlimited", "--brokers", &topic.kafka])
        .env_clear()
        .output()
        .expect("the binary can be run");
    assert!(output.status.success(), "{output:?}");
    Producer::new(&topic.kafka).publish(&topic.name, [bare("t")]);
    wait_for(&exporter, RECEIVED, 31.0);
    eventually("the service to have them", BOUND, || {
        match service.metric("websocket_kafka_messages_total", &["status=\"success\""]) {
            31.0 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    topic.wait_until_all_committed("dashstream-quality-exporter", BOUND);
    topic.wait_until_all_committed(service.config().group(), BOUND);
}
