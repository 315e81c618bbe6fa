//! Each fault alone: `/health`, metrics and alerts tell it within 15 s, nothing tells of a fault that is not there, and
//! afterwards all is quiet again. How that is judged is in `stage`.

mod stage;

use std::time::Duration;

use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{DashStreamMessage, Event, Header};
use prost::Message as _;
use serde_json::json;

use self::stage::{Fault, NOTHING_TO_END, Stage};
use crate::harness::client::Reading;
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::service::Config;
use crate::harness::{services, unique_name};
use dashstream::torture::proxy::{Fault as Network, Proxy};

/// Bytes of a session's queue, and of the queue to Redis: full at once.
const SMALL: usize = 64 * 1024;

#[test]
fn each_fault_alone_is_told_everywhere_and_no_other_and_all_clears() {
    // Most of the time is waiting, so the stages stand side by side.
    std::thread::scope(|scope| {
        for stage in [kafka, redis, records_and_letters, producers_and_actors, clients, pauses] {
            scope.spawn(stage);
        }
    });
}

fn network(proxy: Option<&Proxy>, fault: Network) {
    proxy.expect("this stage has a proxy").set(fault);
}

fn kafka() {
    let broker = services::kafka_behind_proxy();
    let services::KafkaBehindProxy { direct, proxy, .. } = broker;
    let set = |config: Config| config.set("KAFKA_BROKERS", proxy.address()).set("KAFKA_LAG_STALE_PARTITION_SECS", 4);
    let mut stage = Stage::new(&direct, set);
    stage.kafka = Some(proxy);
    stage.suffer(&[
        Fault {
            name: "Kafka down",
            cause: |stage| network(stage.kafka.as_ref(), Network::Cut),
            end: |stage| network(stage.kafka.as_ref(), Network::Healed),
            health: Some(("reconnecting", "kafka_unreachable")),
            metrics: &[
                ("websocket_infrastructure_errors_total", ""),
                ("websocket_kafka_errors_by_type_total", "down"),
                ("websocket_kafka_lag_poll_failures_total", ""),
            ],
            alerts: &["KafkaInfraErrorsDetected|KafkaInfraErrorsCritical"],
            may: &["not_in_group", "KafkaLagUnknown", "OffsetCommitsFailing", "NobodyOwnsPartitions"],
        },
        Fault {
            name: "Kafka slow",
            cause: |stage| {
                network(stage.kafka.as_ref(), Network::Delay(Duration::from_millis(1_200)));
                stage.good(100);
            },
            end: |stage| network(stage.kafka.as_ref(), Network::Healed),
            health: None,
            metrics: &[("websocket_e2e_latency_ms_sum", ""), ("websocket_kafka_lag_poll_duration_seconds_sum", "")],
            alerts: &["E2ELatencyHigh"],
            // Deadlines of questions may run out, and what waits for an answer looks as if it stood still.
            may: &["KafkaInfraErrorsDetected", "KafkaInfraErrorsCritical", "KafkaPartitionStale", "partition_stuck"],
        },
        Fault {
            name: "a stuck consumer",
            cause: |stage| {
                stage.kafka.as_ref().expect("a proxy").set_for("-reader", Network::BlackHole);
                stage.good(100);
            },
            end: |stage| stage.kafka.as_ref().expect("a proxy").set_for("-reader", Network::Healed),
            health: Some(("degraded", "partition_stuck")),
            metrics: &[("websocket_kafka_lag_offset_age_seconds", ""), ("websocket_kafka_consumer_lag", "")],
            alerts: &["KafkaPartitionStale", "KafkaPartitionStaleCritical"],
            may: &["KafkaInfraErrorsDetected"],
        },
    ]);
}

fn redis() {
    let services::RedisBehindProxy { url, proxy } = services::redis_behind_proxy();
    let set = |config: Config| {
        config
            .set("REDIS_URL", url)
            .set("DASHSTREAM_REDIS_KEY_PREFIX", unique_name("fault"))
            .set("DASHSTREAM_REDIS_RESPONSE_TIMEOUT_MS", 500)
            .set("DASHSTREAM_REDIS_QUEUE_BYTES", SMALL)
            .set("DLQ_MODE", "fail_closed")
    };
    let mut stage = Stage::new(services::kafka(), set);
    stage.redis = Some(proxy);
    stage.suffer(&[
        Fault {
            name: "Redis down",
            cause: |stage| network(stage.redis.as_ref(), Network::Cut),
            end: |stage| network(stage.redis.as_ref(), Network::Healed),
            health: Some(("degraded", "redis_unreachable")),
            metrics: &[
                ("dashstream_redis_up", ""),
                ("dashstream_websocket_redis_errors_total", ""),
                ("dashstream_redis_errors_by_type_total", "unreachable"),
            ],
            alerts: &["WebSocketRedisErrors"],
            may: &[],
        },
        Fault {
            name: "Redis hung, under load",
            cause: |stage| {
                network(stage.redis.as_ref(), Network::BlackHole);
                stage.good(500);
            },
            end: |stage| network(stage.redis.as_ref(), Network::Healed),
            health: Some(("degraded", "redis_unreachable")),
            metrics: &[
                ("dashstream_redis_up", ""),
                ("dashstream_redis_timeouts_total", ""),
                ("replay_buffer_redis_write_dropped_total", ""),
            ],
            alerts: &["WebSocketRedisErrors", "ReplayBufferRedisWritesDropped"],
            // What is dropped before it is tried does not fail.
            may: &["redis_writes_dropped", "ReplayBufferRedisWriteFailures"],
        },
        Fault {
            name: "dead letters that cannot be written, and hold offsets",
            cause: |stage| {
                stage.letters.set("max.message.bytes", "100");
                stage.publish((0..20).map(|_| records::garbage("bad").on_partition(0)));
            },
            end: |stage| stage.letters.set("max.message.bytes", "1000000"),
            health: Some(("degraded", "dead_letters_blocked")),
            metrics: &[("dashstream_dlq_blocked_letters", ""), ("websocket_dlq_send_failures_total", "kafka_error")],
            alerts: &["WebSocketDlqBroken", "DeadLettersBlocked"],
            may: &["HighDecodeErrorRate", "decode_error_rate"],
        },
    ]);
    assert_eq!(stage.service.metric("dashstream_dlq_lost_total", &[]), 0.0);
}

fn records_and_letters() {
    // One letter at a time, and little room for more: a flood is more than can be written.
    let set = |config: Config| config.set("MAX_CONCURRENT_DLQ_SENDS", 1).set("DASHSTREAM_DLQ_QUEUE_LETTERS", 100);
    let mut stage = Stage::new(services::kafka(), set);
    stage.suffer(&[
        Fault {
            name: "records without payload",
            cause: |stage| {
                stage.good(500);
                stage.publish((0..90).map(|_| records::null("none").on_partition(0)));
            },
            end: NOTHING_TO_END,
            health: Some(("degraded", "payload_missing_rate")),
            metrics: &[
                ("websocket_kafka_payload_missing_total", ""),
                ("websocket_decode_errors_total", "payload_missing"),
                ("websocket_kafka_messages_total", "error"),
            ],
            alerts: &["HighPayloadMissingRate"],
            may: &[],
        },
        Fault {
            name: "dead letters that cannot be written, and are lost",
            cause: |stage| {
                stage.letters.set("max.message.bytes", "100");
                stage.publish((0..50).map(|_| records::null("none").on_partition(0)));
            },
            end: |stage| stage.letters.set("max.message.bytes", "1000000"),
            health: Some(("degraded", "dead_letters_lost")),
            metrics: &[("websocket_dlq_send_failures_total", "kafka_error"), ("dashstream_dlq_lost_total", "")],
            alerts: &["WebSocketDlqBroken"],
            may: &["HighPayloadMissingRate"],
        },
        Fault {
            name: "a flood of poison",
            cause: |stage| stage.publish((0..20_000).map(|index| records::garbage("bad").on_partition(index % 2))),
            end: NOTHING_TO_END,
            health: Some(("degraded", "decode_error_rate")),
            metrics: &[
                ("websocket_decode_errors_total", "invalid_protobuf"),
                ("websocket_dlq_send_failures_total", "backpressure"),
            ],
            alerts: &["HighDecodeErrorRate", "WebSocketDlqBackpressure"],
            may: &["dead_letters_lost", "KafkaConsumerLagHigh"],
        },
    ]);
}

fn producers_and_actors() {
    // Long enough that only a real hang is one, also on a busy machine.
    let set = |config: Config| config.sabotaged().set("DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS", 6);
    let mut stage = Stage::new(services::kafka(), set);
    stage.suffer(&[
        Fault {
            name: "producer gaps",
            cause: |stage| {
                let thread = unique_name("gaps");
                stage.publish([1, 2, 9].map(|sequence| records::good(&thread, sequence).on_partition(0)));
            },
            end: NOTHING_TO_END,
            health: None,
            metrics: &[("dashstream_sequence_gaps_total", ""), ("dashstream_sequence_gap_size_sum", "")],
            alerts: &["SequenceGapsDetected"],
            may: &[],
        },
        Fault {
            name: "clock skew",
            cause: |stage| stage.publish([from_the_future()]),
            end: NOTHING_TO_END,
            health: None,
            metrics: &[("websocket_clock_skew_events_total", "")],
            alerts: &["ClockSkew"],
            may: &[],
        },
        Fault {
            name: "an actor that crashes again and again",
            cause: |stage| stage.crash_again_and_again("LagMonitor"),
            end: NOTHING_TO_END,
            health: Some(("degraded", "actor_restarted")),
            metrics: &[
                ("dashstream_actor_restarts_total", "LagMonitor"),
                ("dashstream_actor_generation", "LagMonitor"),
            ],
            alerts: &["ActorCrashLoop"],
            may: &["actor_down", "ActorDown"],
        },
        Fault {
            name: "an actor that hangs",
            cause: |stage| stage.service.sabotage("DecodePolicy", "hang"),
            end: NOTHING_TO_END,
            health: Some(("degraded", "actor_restarted")),
            metrics: &[("dashstream_abandoned_threads_total", ""), ("dashstream_actor_restarts_total", "hang")],
            alerts: &["ActorHung"],
            // The stages before it are restarted along with it, the membership in the group among them.
            may: &["actor_down", "ActorDown", "reading_positions", "ActorCrashLoop", "NobodyOwnsPartitions"],
        },
    ]);
}

fn clients() {
    let set =
        |config: Config| config.set("WEBSOCKET_SEND_TIMEOUT_SECS", 3).set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", SMALL);
    let mut stage = Stage::new(services::kafka(), set);
    stage.suffer(&[
        Fault {
            name: "a slow client",
            cause: |stage| {
                // It reads, but has applied nothing so far and says so.
                stage.connect(false).send(&json!({ "type": "applied", "offsets": { "0": "-1", "1": "-1" } }));
                stage.good(500);
            },
            end: |stage| stage.clients.clear(),
            health: None,
            metrics: &[("websocket_client_apply_lag_messages", ""), ("websocket_client_apply_lag_seconds", "")],
            alerts: &["ClientApplyLagHigh"],
            may: &["SlowClientsDemoted"],
        },
        Fault {
            name: "a stalled client",
            cause: |stage| {
                stage.connect(true).read(Reading::Stopped);
                stage.good(5_000);
            },
            end: |stage| stage.clients.clear(),
            health: None,
            metrics: &[("websocket_send_timeout_total", ""), ("dashstream_sessions_closed_total", "slow_client")],
            alerts: &["ClientSendTimeouts"],
            may: &["ClientApplyLagHigh", "SlowClientsDemoted"],
        },
    ]);
    let metrics = &stage.service.health()["metrics"];
    assert!(metrics["send_timeout_last_120s"].as_u64() >= Some(1), "{metrics}");
}

fn pauses() {
    let mut stage = Stage::new(services::kafka(), |config| config.set("KAFKA_ON_DECODE_ERROR", "pause"));
    stage.suffer(&[Fault {
        name: "a pause",
        cause: |stage| stage.publish([records::garbage("bad").on_partition(0)]),
        end: |stage| stage.set_aside(),
        health: Some(("paused", "paused")),
        metrics: &[("dashstream_paused_partitions", ""), ("websocket_decode_errors_total", "invalid_protobuf")],
        alerts: &["IngestPaused"],
        // What waits behind the record is no standstill, and no other alert.
        may: &[],
    }]);
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
