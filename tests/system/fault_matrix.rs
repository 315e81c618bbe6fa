//! Each fault alone: within 15 s `/health`, a metric and an alert tell it, nothing tells of a fault that is not there, and
//! afterwards all is quiet again.
//!
//! A real Prometheus evaluates the shipped rules. Their windows and waits are made as short as seconds, so that the end of a
//! fault is seen as well; the rules as they are shipped are tested in virtual time by promtool. An alert counts as told
//! once its condition holds.

use std::collections::BTreeSet;
use std::time::Duration;

use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{DashStreamMessage, Event, Header};
use prost::Message as _;
use serde_json::json;

use crate::harness::client::{Client, Options, Reading};
use crate::harness::eventually::{eventually, within};
use crate::harness::producer::Producer;
use crate::harness::prometheus::Prometheus;
use crate::harness::proxy::{Fault as Network, Proxy};
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

/// The promise.
const TOLD_WITHIN: Duration = Duration::from_secs(15);
const BOUND: Duration = Duration::from_secs(60);
/// How far back the rules of the test look.
const WINDOW: &str = "[6s]";
const LIMIT: usize = 64 * 1024;

/// A fault and what must be told of it.
struct Fault {
    name: &'static str,
    cause: fn(&mut Stage),
    end: fn(&mut Stage),
    /// The status and one reason of `/health`, when health is concerned: a client's or a producer's trouble is not the
    /// service's.
    health: Option<(&'static str, &'static str)>,
    /// A metric, with a part of its labels, that differs from before.
    metric: (&'static str, &'static str),
    /// One of these alerts must be told; each of them may be.
    alerts: &'static [&'static str],
    /// Reasons and alerts that may come along, since one follows from the other.
    may: &'static [&'static str],
}

/// What faults are done to.
struct Stage {
    topic: Topic,
    letters: Topic,
    producer: Producer,
    service: Service,
    prometheus: Prometheus,
    proxy: Option<Proxy>,
    clients: Vec<Client>,
}

impl Stage {
    fn new(kafka: &str, proxy: Option<Proxy>, set: fn(Config) -> Config) -> Self {
        let topic = Topic::create(kafka, "fault", 2);
        let letters = topic.beside("dlq", 1);
        let mut config = set(Config::new(&topic).sabotaged())
            .set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1)
            .set("KAFKA_LAG_STALE_PARTITION_SECS", 3)
            .set("DLQ_SEND_TIMEOUT_SECS", 2)
            .set("WEBSOCKET_MAX_PAYLOAD_BYTES", LIMIT)
            .set("WEBSOCKET_SEND_TIMEOUT_SECS", 3)
            .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", LIMIT);
        if let Some(proxy) = &proxy {
            config = config.set("KAFKA_BROKERS", proxy.address());
        }
        let service = Service::start_healthy(&config);
        let prometheus = Prometheus::scraping(&[service.address()], shortened);
        eventually("a scrape, and rules that are evaluated on it", BOUND, || {
            let (targets, active) = (prometheus.values("up == 1")?.len(), prometheus.active_alerts()?);
            if targets == 1 && active.is_empty() { Ok(()) } else { Err(format!("{targets} targets, {active:?}")) }
        });
        Self { topic, letters, producer: Producer::new(kafka), service, prometheus, proxy, clients: Vec::new() }
    }

    fn publish(&self, records: impl IntoIterator<Item = Outgoing>) {
        self.producer.publish(&self.topic.name, records);
    }

    fn good(&self, count: usize) {
        self.publish(
            (0..count).map(|index| records::good_of_size("run-good", 0, 1_000).on_partition((index % 2) as i32)),
        );
    }

    /// A client whose socket holds little.
    fn connect(&mut self, reports_applied: bool) -> &Client {
        let options = Options { reports_applied, receive_buffer: Some(4_096), ..Options::default() };
        self.clients.push(Client::connect(self.service.address(), options));
        self.clients.last().expect("there is one")
    }

    fn network(&self, fault: Network) {
        self.proxy.as_ref().expect("a broker behind a proxy").set(fault);
    }

    fn answer(&self, action: &str) {
        let body = format!(r#"{{"action":"{action}"}}"#);
        let (status, body) = self
            .service
            .post("/admin/ingest/continue", &[("Content-Type", "application/json")], &body)
            .expect("the service answers");
        assert_eq!(status, 200, "{body}");
    }

    /// Causes each fault in turn.
    fn run(&mut self, faults: &[Fault]) {
        // Figures over 120 s stay after a fault; that they go is shown where time can be made up.
        let mut lasting = BTreeSet::new();
        for fault in faults {
            self.one(fault, &lasting);
            let (_, codes) = self.service.verdict().expect("/health answers");
            let left: BTreeSet<String> =
                codes.into_iter().filter(|code| OF_A_WINDOW.contains(&code.as_str())).collect();
            lasting.extend(left);
            // They are asked one after the other, so something may happen in between.
            eventually("health and metrics to agree", BOUND, || self.health_and_metrics_agree());
        }
    }

    /// Two ways to ask must give one answer, and a part is never more than the whole.
    fn health_and_metrics_agree(&self) -> Result<(), String> {
        let (health, metrics) = (self.service.health()["metrics"].clone(), self.service.metrics());
        let health = |field: &str| health[field].as_f64().unwrap_or_else(|| panic!("no {field}"));
        let sum = |name: &str| -> f64 {
            metrics.iter().filter(|(sample, _)| sample.split('{').next() == Some(name)).map(|(_, value)| value).sum()
        };
        for (field, metric) in [
            ("kafka_messages_received", "websocket_kafka_messages_total"),
            ("decode_errors", "websocket_decode_errors_total"),
            ("payload_missing", "websocket_kafka_payload_missing_total"),
            ("infrastructure_errors", "websocket_infrastructure_errors_total"),
            ("send_failed", "websocket_send_failed_total"),
            ("send_timeout", "websocket_send_timeout_total"),
            ("connected_clients", "websocket_connected_clients"),
            ("dropped_messages", "websocket_replay_gap_messages_total"),
        ] {
            if (health(field) - sum(metric)).abs() > 0.5 {
                return Err(format!("{field} is {}, {metric} {}", health(field), sum(metric)));
            }
        }
        assert!(health("decode_errors") <= health("kafka_errors"));
        assert!(health("kafka_errors") <= health("kafka_messages_received"));
        assert!(health("decode_errors_last_120s") <= health("messages_last_120s"));
        assert!(health("payload_missing_last_120s") <= health("decode_errors_last_120s"));
        Ok(())
    }

    fn one(&mut self, fault: &Fault, lasting: &BTreeSet<String>) {
        let (metric, labels) = fault.metric;
        let before = self.service.metric(metric, &[labels]);
        (fault.cause)(self);
        let name = fault.name;
        let (mut status, mut metric_told, mut alert_told) = (fault.health.is_none(), false, false);
        within(&format!("{name} to be told everywhere"), TOLD_WITHIN, || {
            let (found, codes) = self.service.verdict()?;
            status |=
                fault.health.is_some_and(|(wanted, code)| found == wanted && codes.iter().any(|found| found == code));
            metric_told |= (self.service.metric(metric, &[labels]) - before).abs() > f64::EPSILON;
            let active = self.prometheus.active_alerts()?;
            alert_told |= fault.alerts.iter().any(|alert| active.contains(*alert));
            self.nothing_else(fault, &codes, &active, lasting);
            match status && metric_told && alert_told {
                true => Ok(()),
                false => Err(format!(
                    "health {status}, metric {metric_told}, alert {alert_told}: {found} {codes:?} {active:?}"
                )),
            }
        });
        (fault.end)(self);
        eventually(&format!("all to be quiet after {name}"), BOUND, || {
            let (_, codes) = self.service.verdict()?;
            let active = self.prometheus.active_alerts()?;
            let left: Vec<_> = codes.iter().filter(|code| !OF_A_WINDOW.contains(&code.as_str())).collect();
            if left.is_empty() && active.is_empty() { Ok(()) } else { Err(format!("{codes:?} {active:?}")) }
        });
    }

    fn nothing_else(&self, fault: &Fault, codes: &[String], active: &BTreeSet<String>, lasting: &BTreeSet<String>) {
        let of_fault = |told: &str| fault.may.contains(&told) || fault.alerts.contains(&told);
        for code in codes {
            let wanted = fault.health.is_some_and(|(_, wanted)| wanted == code);
            assert!(wanted || of_fault(code) || lasting.contains(code), "{}: /health tells of {code}", fault.name);
        }
        for alert in active {
            assert!(of_fault(alert), "{}: an alert tells of {alert}", fault.name);
        }
    }
}

/// Reasons that rest on figures over 120 s, or are told for a while after.
const OF_A_WINDOW: [&str; 5] =
    ["decode_error_rate", "payload_missing_rate", "dead_letters_lost", "offsets_lost", "actor_restarted"];

/// The shipped rules, with windows and times of seconds.
fn shortened(rules: String) -> String {
    let windows = ["[5m]", "[10m]", "[15m]"].iter().fold(rules, |rules, window| rules.replace(window, WINDOW));
    [
        ("offset_age_seconds) > 120", "offset_age_seconds) > 3"),
        ("offset_age_seconds) > 300", "offset_age_seconds) > 6"),
        ("apply_lag_seconds) > 30", "apply_lag_seconds) > 2"),
    ]
    .iter()
    .fold(windows, |rules, (long, short)| {
        assert!(rules.contains(long), "no rule holds {long}");
        rules.replace(long, short)
    })
}

/// An event of a producer whose clock is an hour ahead.
fn from_the_future() -> Outgoing {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let timestamp_us = i64::try_from(now.as_micros()).expect("a clock before the year 292000") + 3_600_000_000;
    let header = Header { timestamp_us, schema_version: 1, ..Header::default() };
    let event = Event { header: Some(header), ..Event::default() };
    let mut value = vec![0];
    value.extend(DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec());
    Outgoing::new("future", Some(value), Expect::Record)
}

const QUIET: fn(&mut Stage) = |_| ();

#[test]
fn faults_of_kafka() {
    let kafka = services::kafka_behind_proxy();
    let services::KafkaBehindProxy { direct, proxy, .. } = kafka;
    let mut stage = Stage::new(&direct, Some(proxy), |config| config);
    let kafka_alerts = &["KafkaInfraErrorsDetected", "KafkaInfraErrorsCritical"];
    let follows = &[
        "KafkaLagUnknown",
        "OffsetCommitsFailing",
        "NobodyOwnsPartitions",
        "not_in_group",
        "E2ELatencyHigh",
        "KafkaConsumerLagHigh",
        "KafkaPartitionStale",
        "KafkaPartitionStaleCritical",
        "partition_stuck",
    ];
    stage.run(&[
        Fault {
            name: "Kafka down",
            cause: |stage| stage.network(Network::Cut),
            end: |stage| stage.network(Network::Healed),
            health: Some(("reconnecting", "kafka_unreachable")),
            metric: ("websocket_infrastructure_errors_total", ""),
            alerts: kafka_alerts,
            may: follows,
        },
        Fault {
            name: "a reader that gets nothing",
            cause: |stage| {
                stage.proxy.as_ref().expect("a proxy").set_for("-reader", Network::BlackHole);
                stage.good(100);
            },
            end: |stage| stage.proxy.as_ref().expect("a proxy").set_for("-reader", Network::Healed),
            health: Some(("degraded", "partition_stuck")),
            metric: ("websocket_kafka_lag_offset_age_seconds", ""),
            alerts: &["KafkaPartitionStale"],
            may: &["KafkaPartitionStaleCritical", "KafkaInfraErrorsDetected", "E2ELatencyHigh"],
        },
    ]);
}

#[test]
fn faults_of_records_letters_and_actors() {
    let mut stage = Stage::new(services::kafka(), None, |config| config);
    let latency = &["E2ELatencyHigh"];
    stage.run(&[
        Fault {
            name: "producer gaps",
            cause: |stage| stage.publish([1, 2, 9].map(|sequence| records::good("gaps", sequence).on_partition(0))),
            end: QUIET,
            health: None,
            metric: ("dashstream_sequence_gaps_total", ""),
            alerts: &["SequenceGapsDetected"],
            may: latency,
        },
        Fault {
            name: "clock skew",
            cause: |stage| stage.publish([from_the_future()]),
            end: QUIET,
            health: None,
            metric: ("websocket_clock_skew_events_total", ""),
            alerts: &["ClockSkew"],
            may: latency,
        },
        Fault {
            name: "an actor that crashes again and again",
            cause: |stage| {
                for generation in 2..=5 {
                    stage.service.sabotage("LagMonitor", "panic");
                    eventually("another generation", TOLD_WITHIN, || {
                        let now = stage.service.metric("dashstream_actor_generation", &["LagMonitor"]);
                        if now >= f64::from(generation) { Ok(()) } else { Err(now.to_string()) }
                    });
                }
            },
            end: QUIET,
            health: Some(("degraded", "actor_restarted")),
            metric: ("dashstream_actor_restarts_total", "LagMonitor"),
            alerts: &["ActorCrashLoop"],
            may: &["actor_down", "ActorDown"],
        },
        Fault {
            name: "an actor that hangs",
            cause: |stage| stage.service.sabotage("DecodePolicy", "hang"),
            end: QUIET,
            health: Some(("degraded", "actor_restarted")),
            metric: ("dashstream_abandoned_threads_total", ""),
            alerts: &["ActorHung"],
            may: &["actor_down", "ActorDown", "reading_positions", "pipeline_full", "E2ELatencyHigh"],
        },
        Fault {
            name: "records without payload",
            cause: |stage| stage.publish((0..300).map(|_| records::null("none").on_partition(0))),
            end: QUIET,
            health: Some(("degraded", "payload_missing_rate")),
            metric: ("websocket_kafka_payload_missing_total", ""),
            alerts: &["HighPayloadMissingRate"],
            may: latency,
        },
        Fault {
            name: "a flood of poison",
            cause: |stage| stage.publish((0..20_000).map(|index| records::garbage("bad").on_partition(index % 2))),
            end: QUIET,
            health: Some(("degraded", "decode_error_rate")),
            metric: ("websocket_decode_errors_total", "invalid_protobuf"),
            alerts: &["HighDecodeErrorRate"],
            may: &["WebSocketDlqBackpressure", "dead_letters_lost", "E2ELatencyHigh"],
        },
        Fault {
            name: "dead letters that cannot be written",
            cause: |stage| {
                stage.letters.set("max.message.bytes", "100");
                stage.publish((0..50).map(|_| records::garbage("bad").on_partition(0)));
            },
            end: |stage| stage.letters.set("max.message.bytes", "1000000"),
            health: Some(("degraded", "dead_letters_lost")),
            metric: ("websocket_dlq_send_failures_total", ""),
            alerts: &["WebSocketDlqBroken"],
            may: &["HighDecodeErrorRate", "E2ELatencyHigh"],
        },
    ]);
    // It never became untrue that these were counted as faults of records, not of Kafka.
    assert_eq!(stage.service.metric("websocket_infrastructure_errors_total", &[]), 0.0);
}

#[test]
fn faults_of_clients_and_pauses() {
    let mut stage = Stage::new(services::kafka(), None, |config| config.set("KAFKA_ON_DECODE_ERROR", "pause"));
    stage.run(&[
        Fault {
            name: "a browser that does not keep up",
            cause: |stage| {
                // It reads, but has applied nothing so far and says so.
                stage.connect(false).send(&json!({ "type": "applied", "offsets": { "0": "-1", "1": "-1" } }));
                stage.good(500);
            },
            end: |stage| stage.clients.clear(),
            health: None,
            metric: ("websocket_client_apply_lag_messages", ""),
            alerts: &["ClientApplyLagHigh"],
            may: &["SlowClientsDemoted", "E2ELatencyHigh", "KafkaConsumerLagHigh"],
        },
        Fault {
            name: "a stalled client",
            cause: |stage| {
                stage.connect(true).read(Reading::Stopped);
                stage.good(5_000);
            },
            end: |stage| stage.clients.clear(),
            health: None,
            metric: ("websocket_send_timeout_total", ""),
            alerts: &["ClientSendTimeouts"],
            may: &["ClientApplyLagHigh", "SlowClientsDemoted", "E2ELatencyHigh", "KafkaConsumerLagHigh"],
        },
        Fault {
            name: "a pause",
            cause: |stage| stage.publish([records::garbage("bad").on_partition(0)]),
            end: |stage| stage.answer("set_aside"),
            health: Some(("paused", "paused")),
            metric: ("dashstream_paused_partitions", ""),
            alerts: &["IngestPaused"],
            may: &["HighDecodeErrorRate", "E2ELatencyHigh"],
        },
    ]);
    let metrics = &stage.service.health()["metrics"];
    assert!(metrics["send_timeout_last_120s"].as_u64() >= Some(1), "{metrics}");
}
