//! What cannot be processed, looked at closely: letters, operators, faults. The whole matrix is in `unprocessable_matrix`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::client::{Client, From};
use crate::harness::contract::Judged as _;
use crate::harness::dead_letters::{self, Letter};
use crate::harness::eventually::{eventually, throughout};
use crate::harness::producer::{Producer, Published, Sent};
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const LIMIT: usize = 64 * 1024;
const MODES: [&str; 2] = ["best_effort", "fail_closed"];
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Every kind that a record can cause, with a record that causes it.
fn every_kind() -> Vec<(&'static str, Outgoing)> {
    let thread = "run-bad";
    vec![
        ("payload_missing", records::null(thread)),
        ("payload_too_large", records::oversized(thread, 2 * LIMIT)),
        ("unknown_framing", records::unknown_framing(thread)),
        ("decompression_failed", records::broken_zstd(thread)),
        ("decompressed_too_large", records::bomb(thread, 2 * LIMIT)),
        ("invalid_protobuf", records::garbage(thread)),
        ("schema_version", records::of_schema_version(thread, 99)),
    ]
}

/// A good record before each bad one, and one at the end.
fn publish(topic: &Topic) -> Published {
    let header = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut all = Vec::new();
    for (_, bad) in every_kind() {
        all.push(records::good("run-good", 0));
        all.push(bad.with_header("traceparent", header.as_bytes()));
    }
    all.push(records::good("run-good", 0));
    Producer::new(&topic.kafka).publish(&topic.name, all.into_iter().map(|record| record.on_partition(0)))
}

fn config(topic: &Topic, policy: &str, mode: &str) -> Config {
    Config::new(topic)
        .set("KAFKA_ON_DECODE_ERROR", policy)
        .set("DLQ_MODE", mode)
        .set("WEBSOCKET_MAX_PAYLOAD_BYTES", LIMIT)
        .set("DLQ_SEND_TIMEOUT_SECS", 2)
}

fn errors(service: &Service, kind: &str) -> f64 {
    service.metric("websocket_decode_errors_total", &[&format!("error_type=\"{kind}\"")])
}

fn messages(service: &Service, status: &str) -> f64 {
    service.metric("websocket_kafka_messages_total", &[&format!("status=\"{status}\"")])
}

fn send_failures(service: &Service, reason: &str) -> f64 {
    service.metric("websocket_dlq_send_failures_total", &[&format!("reason=\"{reason}\"")])
}

fn reasons(health: &Value) -> BTreeSet<&str> {
    health["reasons"].as_array().into_iter().flatten().filter_map(|reason| reason["code"].as_str()).collect()
}

#[track_caller]
fn wait_for_reason(service: &Service, reason: &str, is_there: bool) -> Value {
    eventually(&format!("reason {reason}: {is_there}"), BOUND, || {
        let health = service.try_health()?;
        if reasons(&health).contains(reason) == is_there { Ok(health) } else { Err(health.to_string()) }
    })
}

/// The fields of a letter, except those that other tests look at.
#[track_caller]
fn check_letter(letter: &Letter, sent: &Sent, kind: &str, config: &Config, policy: &str) {
    use sha2::{Digest as _, Sha256};
    let topic = config.get("KAFKA_TOPIC");
    assert_eq!(letter.key, format!("{topic}-0-{}", sent.offset));
    let value = sent.value.as_deref().unwrap_or_default();
    let digest: String = Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect();
    let decodable = kind == "schema_version";
    let expected = json!({
        "kafka_topic": topic, "kafka_partition": 0, "kafka_offset": sent.offset, "consumer_group": config.group(),
        "error_type": kind, "policy": policy, "payload_size": value.len(), "payload_sha256": digest,
        "payload_truncated": false, "payload_base64": null, "trace_id": TRACE, "record_key_base64": "cnVuLWJhZA==",
        "thread_id": if decodable { json!("run-bad") } else { Value::Null },
        "tenant_id": if decodable { json!("tenant-1") } else { Value::Null },
    });
    for (field, expected) in expected.as_object().expect("an object") {
        assert_eq!(letter.json[field], *expected, "{kind}: {field}");
    }
    for field in ["error", "timestamp", "instance"] {
        assert!(letter.json[field].as_str().is_some_and(|text| !text.is_empty()), "{kind}: {field}");
    }
    assert!(letter.json["record_timestamp_ms"].is_i64(), "{kind}: record_timestamp_ms");
    assert_eq!(letter.json["record_headers"][0]["name"], "traceparent", "{kind}: record_headers");
    assert!(letter.headers.contains_key("traceparent"), "{kind}: the headers of the record go along");
}

fn bad(published: &Published) -> Vec<&Sent> {
    published.records.values().filter(|sent| sent.key == "run-bad").collect()
}

#[test]
fn skipped_records_are_counted_lettered_committed_and_do_not_come_back() {
    for mode in MODES {
        let topic = Topic::create(services::kafka(), "skip", 1);
        let letters = topic.beside("dlq", 1);
        let config = config(&topic, "skip", mode).set("KAFKA_LAG_CHECK_INTERVAL_SECS", 1);
        let mut service = Service::start_healthy(&config);
        let mut client = Client::from(service.address(), From::Earliest);
        let mut published = publish(&topic);

        client.wait_for_all(&published, BOUND);
        topic.wait_until_all_committed(config.group(), BOUND);
        for (kind, _) in every_kind() {
            assert_eq!(errors(&service, kind), 1.0, "{mode}: {kind}");
        }
        assert_eq!((messages(&service, "success"), messages(&service, "error")), (8.0, 7.0), "{mode}");
        assert_eq!(service.metric("websocket_kafka_payload_missing_total", &[]), 1.0, "{mode}");
        let written = dead_letters::wait_for(&letters, 7, BOUND);
        for ((letter, sent), (kind, _)) in written.iter().zip(bad(&published)).zip(every_kind()) {
            check_letter(letter, sent, kind, &config, "skip");
        }
        assert_eq!(service.metric("dashstream_dlq_queued", &[]), 0.0);
        let health = &service.health()["metrics"];
        let recent = ["messages", "decode_errors", "payload_missing"].map(|what| &health[format!("{what}_last_120s")]);
        assert_eq!(recent, [&json!(15), &json!(7), &json!(1)], "{health}");
        eventually("no lag behind them", BOUND, || {
            match service.metrics().get(r#"websocket_kafka_consumer_lag{partition="0"}"#) {
                Some(0.0) => Ok(()),
                lag => Err(format!("{lag:?}")),
            }
        });

        service.signal(Signal::SIGTERM);
        assert_eq!(service.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
        service.restart();
        service.wait_until_healthy(BOUND);
        client.reconnect(service.address());
        let more = Producer::new(&topic.kafka).publish(&topic.name, [records::good("run-good", 0).on_partition(0)]);
        published.extend(more);
        client.wait_for_all(&published, BOUND);
        assert_eq!((messages(&service, "success"), messages(&service, "error")), (1.0, 0.0), "{mode}");
        dead_letters::wait_for(&letters, 7, BOUND);
    }
}

/// Waits until the service stands still at an offset.
#[track_caller]
fn wait_until_paused(service: &Service, offset: i64, kind: &str) {
    eventually(&format!("a pause at {offset}"), BOUND, || {
        let health = service.try_health()?;
        let paused = &health["paused"][0];
        let place = (paused["offset"].as_str(), paused["kind"].as_str());
        let here = health["status"] == "paused" && place == (Some(offset.to_string().as_str()), Some(kind));
        let decides = paused["partition"] == 0 && paused["decided_by"] == "operator";
        if here && decides { Ok(()) } else { Err(health.to_string()) }
    });
    assert_eq!(service.metric("dashstream_paused_partitions", &[]), 1.0);
    let (status, body) = service.get("/ready").expect("/ready answers");
    assert_eq!(status, 200, "{body}");
}

#[track_caller]
fn has_not_passed(client: &Client, offset: i64) {
    let cursor = client.look(|ledger| ledger.cursor.get(&0).copied());
    assert_eq!(cursor, Some(offset), "nothing from the record on is delivered");
}

/// Answers by the command line; its standard output.
fn answer(service: &Service, how: &str) -> Result<String, String> {
    let url = format!("http://{}", service.address());
    let output = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(["ingest", "continue", how, "--url", &url])
        .env_clear()
        .output()
        .expect("the binary can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn a_pause_stands_still_at_every_kind_also_after_a_restart_until_an_operator_decides() {
    for mode in MODES {
        let topic = Topic::create(services::kafka(), "pause", 1);
        let letters = topic.beside("dlq", 1);
        let config = config(&topic, "pause", mode);
        let published = publish(&topic);
        let mut service = Service::start(&config);
        let mut client = Client::from(service.address(), From::Earliest);
        let mut written = 0;
        for (sent, (kind, _)) in bad(&published).into_iter().zip(every_kind()) {
            wait_until_paused(&service, sent.offset, kind);
            client.wait_until("all before the record", BOUND, |ledger| match ledger.cursor.get(&0) {
                Some(cursor) if *cursor == sent.offset => Ok(()),
                cursor => Err(format!("{cursor:?}")),
            });
            written += 1;
            let letter = dead_letters::wait_for(&letters, written, BOUND).pop().expect("one at least");
            check_letter(&letter, sent, kind, &config, "pause");
            topic.wait_until_committed(config.group(), sent.offset, BOUND);
            assert_eq!(errors(&service, kind), 1.0, "{mode}: {kind}");

            // A restart meets the same record: it is not reclassified, and one letter more says so. Once is enough here.
            if written == 1 {
                service.restart();
                client.reconnect(service.address());
                wait_until_paused(&service, sent.offset, kind);
                written += 1;
                dead_letters::wait_for(&letters, written, BOUND);
                has_not_passed(&client, sent.offset);
                assert_eq!(topic.committed(config.group()).get(&0), Some(&sent.offset));
                assert_eq!((messages(&service, "error"), errors(&service, kind)), (1.0, 1.0), "{mode}: {kind}");
            }

            // A retry changes nothing, and writes no second letter.
            answer(&service, "--retry").expect("it is paused");
            wait_until_paused(&service, sent.offset, kind);
            has_not_passed(&client, sent.offset);

            let told = answer(&service, "--set-aside").expect("it is paused");
            assert_eq!(told, format!("partition 0, offset {} ({kind}): set_aside\n", sent.offset));
            client.wait_until("what lies behind the record", BOUND, |ledger| match ledger.cursor.get(&0) {
                Some(cursor) if *cursor > sent.offset => Ok(()),
                cursor => Err(format!("{cursor:?}")),
            });
            assert!(service.log().contains("an operator decided about a record"));
            assert_eq!(errors(&service, kind), 1.0, "counted once");
        }
        client.wait_for_all(&published, BOUND);
        topic.wait_until_all_committed(config.group(), BOUND);
        service.wait_until_healthy(BOUND);
        assert!(answer(&service, "--retry").is_err_and(|error| error.contains("409")));
        dead_letters::wait_for(&letters, written, BOUND);
    }
}

#[test]
fn a_pause_keeps_browsers_connected_tells_them_and_stops_the_whole_consumer() {
    let topic = Topic::create(services::kafka(), "pause-wide", 2);
    let letters = topic.beside("dlq", 1);
    let config = config(&topic, "pause", "best_effort")
        .set("DASHSTREAM_WEB_HEARTBEAT_SECS", 1)
        .set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 2_000);
    let service = Service::start_healthy(&config);
    let owned = || service.metric("dashstream_owned_partitions", &[]);
    eventually(
        "the duties of both partitions",
        BOUND,
        || if owned() == 2.0 { Ok(()) } else { Err(owned().to_string()) },
    );
    let client = Client::from(service.address(), From::Earliest);
    let producer = Producer::new(&topic.kafka);
    let mut published = producer.publish(&topic.name, [records::garbage("run-bad").on_partition(0)]);
    wait_until_paused(&service, 0, "invalid_protobuf");
    dead_letters::wait_for(&letters, 1, BOUND);

    let good = |partition| (0..200).map(move |_| records::good("run-good", 0).on_partition(partition));
    published.extend(producer.publish(&topic.name, good(0).chain(good(1))));
    // Longer than the group waits for a member that it does not hear of.
    throughout("a pause", Duration::from_secs(5), || match (client.received(), owned()) {
        (0, 2.0) if client.closed().is_none() => Ok(()),
        seen => Err(format!("(records, owned partitions) {seen:?}, {:?}", client.closed())),
    });
    eventually("a heartbeat that tells it", BOUND, || {
        let beats = client.texts("heartbeat");
        let told = beats.iter().any(|beat| beat.to_string().contains(r#""status":"paused""#));
        if told { Ok(()) } else { Err(format!("{:?}", beats.last())) }
    });
    // Nobody but this machine may decide, and no page on it.
    let foreign = [("Origin", "http://example.com"), ("Content-Type", "application/json")];
    assert_eq!(
        service.post("/admin/ingest/continue", &foreign, r#"{"action":"set_aside"}"#).expect("an answer").0,
        415
    );
    wait_until_paused(&service, 0, "invalid_protobuf");

    answer(&service, "--set-aside").expect("it is paused");
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    service.wait_until_healthy(BOUND);
    dead_letters::wait_for(&letters, 1, BOUND);
}

#[test]
fn a_pause_survives_the_death_of_every_actor_and_nothing_slips_past() {
    let topic = Topic::create(services::kafka(), "pause-death", 1);
    let letters = topic.beside("dlq", 1);
    let config = config(&topic, "pause", "fail_closed").set("DASHSTREAM_SUPERVISOR_MAX_RESTARTS", 100).sabotaged();
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let row = [records::good("run-good", 0), records::garbage("run-bad")]
        .into_iter()
        .chain((0..2_000).map(|_| records::good("run-good", 0)));
    let published = Producer::new(&topic.kafka).publish(&topic.name, row.map(|record| record.on_partition(0)));
    wait_until_paused(&service, 1, "invalid_protobuf");
    for actor in ["KafkaIngest", "DecodePolicy", "SequenceTracker", "ReplayStore", "DlqPublisher"] {
        let label = format!("actor=\"{actor}\"");
        let generation = service.metric("dashstream_actor_generation", &[&label]);
        service.sabotage(actor, "panic");
        eventually("a new generation", BOUND, || match service.metric("dashstream_actor_generation", &[&label]) {
            now if now > generation => Ok(()),
            now => Err(now.to_string()),
        });
        wait_until_paused(&service, 1, "invalid_protobuf");
        eventually("the commit before the record", BOUND, || {
            match service.health()["partitions"]["0"]["stored"].as_str() {
                Some("1") => Ok(()),
                stored => Err(format!("{stored:?}")),
            }
        });
        has_not_passed(&client, 1);
    }
    topic.wait_until_committed(config.group(), 1, BOUND);
    // The same process has written it once.
    dead_letters::wait_for(&letters, 1, BOUND);
    answer(&service, "--set-aside").expect("it is paused");
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    dead_letters::wait_for(&letters, 1, BOUND);
}

#[test]
fn a_pause_ends_when_its_record_or_its_topic_is_gone() {
    let topic = Topic::create(services::kafka(), "pause-gone", 1);
    let _letters = topic.beside("dlq", 1);
    let config = config(&topic, "pause", "best_effort");
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let producer = Producer::new(&topic.kafka);
    let row = || [records::good("run-good", 0), records::null("run-bad"), records::good("run-good", 0)];
    let on = |records: [Outgoing; 3]| records.map(|record| record.on_partition(0));
    let mut published = producer.publish(&topic.name, on(row()));
    wait_until_paused(&service, 1, "payload_missing");

    // Retention passes the record: asked to go on, it tells the loss and goes on behind it.
    topic.delete_records(0, 2);
    answer(&service, "--retry").expect("it is paused");
    client.wait_for_all_but(&published, BOUND, |_, offset| offset == 1);
    topic.wait_until_all_committed(config.group(), BOUND);

    // The topic is made anew: what nobody decided about is gone with the old one.
    published.extend(producer.publish(&topic.name, on(row())));
    wait_until_paused(&service, 4, "payload_missing");
    topic.recreate(1);
    let again = Producer::new(&topic.kafka).publish(&topic.name, [records::good("run-good", 0).on_partition(0)]);
    client.wait_until("the new log", BOUND, |ledger| match (ledger.resets.len(), ledger.cursor.get(&0)) {
        (1, Some(1)) => ledger.compare(&again, |_, _| false),
        seen => Err(format!("{seen:?}")),
    });
    wait_for_reason(&service, "paused", false);
}

#[test]
fn other_instances_wait_at_the_same_record_until_its_owner_has_passed_it() {
    let topic = Topic::create(services::kafka(), "pause-two", 2);
    let letters = topic.beside("dlq", 1);
    let config = config(&topic, "pause", "best_effort")
        .unset("KAFKA_GROUP_INSTANCE_ID")
        .set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 2_000);
    let instances = [Service::start_healthy(&config), Service::start_healthy(&config)];
    eventually("one partition each", BOUND, || {
        let owned = [0, 1].map(|index: usize| instances[index].metric("dashstream_owned_partitions", &[]));
        if owned == [1.0, 1.0] { Ok(()) } else { Err(format!("{owned:?}")) }
    });
    let clients = [0, 1].map(|index: usize| Client::from(instances[index].address(), From::Earliest));
    // One bad record in each partition, so that each instance decides about one and waits for the other.
    let row = |partition| {
        let good = || records::good("run-good", 0).on_partition(partition);
        [good(), records::garbage("run-bad").on_partition(partition), good()]
    };
    let published = Producer::new(&topic.kafka).publish(&topic.name, row(0).into_iter().chain(row(1)));
    for instance in &instances {
        wait_for_reason(instance, "paused", true);
    }
    for client in &clients {
        assert!(client.look(|ledger| ledger.cursor.values().all(|cursor| *cursor <= 1)));
    }
    answer(&instances[0], "--set-aside").expect("it is paused");
    // Now it waits for the other one, which was not asked yet.
    wait_for_reason(&instances[0], "waiting_for_owner", true);
    answer(&instances[1], "--set-aside").expect("it is paused");
    for client in &clients {
        client.wait_for_all(&published, BOUND);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
    let keys: BTreeSet<String> =
        dead_letters::wait_for(&letters, 2, BOUND).into_iter().map(|letter| letter.key).collect();
    assert_eq!(keys.len(), 2, "the decision is made once per record");
}

#[test]
fn without_a_dead_letter_topic_best_effort_goes_on_and_counts_the_loss() {
    let topic = Topic::create(services::kafka(), "no-dlq", 1);
    // It is what an operator gets who has not decided.
    let config = config(&topic, "skip", "best_effort").unset("DLQ_MODE").unset("KAFKA_ON_DECODE_ERROR");
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let published = publish(&topic);
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    wait_for_reason(&service, "dead_letters_lost", true);
    let lost = ["timeout", "kafka_error", "backpressure"].map(|reason| send_failures(&service, reason));
    assert_eq!((lost.iter().sum::<f64>(), lost[2]), (7.0, 0.0));
    assert_eq!(service.metric("dashstream_dlq_lost_total", &[]), 7.0);
}

/// How the topic of dead letters becomes unwritable.
#[derive(Clone, Copy, Debug)]
enum Unwritable {
    Missing,
    TooSmall,
}

#[test]
fn fail_closed_holds_while_letters_cannot_be_written_and_goes_on_by_itself() {
    for how in [Unwritable::Missing, Unwritable::TooSmall] {
        let topic = Topic::create(services::kafka(), "blocked", 1);
        let small = matches!(how, Unwritable::TooSmall).then(|| topic.beside("dlq", 1));
        if let Some(letters) = &small {
            letters.set("max.message.bytes", "100");
        }
        let config = config(&topic, "skip", "fail_closed");
        let mut service = Service::start_healthy(&config);
        let client = Client::from(service.address(), From::Earliest);
        let published = publish(&topic);

        // Browsers get everything; the offset of the first bad record stays.
        client.wait_for_all(&published, BOUND);
        let health = wait_for_reason(&service, "dead_letters_blocked", true);
        assert_eq!(health["status"], "degraded", "{health}");
        eventually("every letter to be blocked", BOUND, || {
            match service.metric("dashstream_dlq_blocked_letters", &[]) {
                7.0 => Ok(()),
                letters => Err(letters.to_string()),
            }
        });
        topic.wait_until_committed(config.group(), 1, BOUND);
        let before = send_failures(&service, "timeout") + send_failures(&service, "kafka_error");
        eventually("another round", BOUND, || {
            let now = send_failures(&service, "timeout") + send_failures(&service, "kafka_error");
            if now > before { Ok(()) } else { Err(now.to_string()) }
        });
        assert_eq!(
            (send_failures(&service, "backpressure"), service.metric("dashstream_dlq_lost_total", &[])),
            (0.0, 0.0)
        );
        assert_eq!(topic.committed(config.group()).get(&0), Some(&1));

        if matches!(how, Unwritable::TooSmall) {
            // A stop does not commit past what is undecided, and is in time.
            service.signal(Signal::SIGTERM);
            assert_eq!(service.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
            assert_eq!(topic.committed(config.group()).get(&0), Some(&1));
            service.restart();
            wait_for_reason(&service, "dead_letters_blocked", true);
        }
        let letters = match small {
            Some(letters) => {
                letters.set("max.message.bytes", "1000000");
                letters
            }
            None => topic.beside("dlq", 1),
        };
        topic.wait_until_all_committed(config.group(), BOUND);
        wait_for_reason(&service, "dead_letters_blocked", false);
        let keys: Vec<String> =
            dead_letters::wait_for(&letters, 7, BOUND).into_iter().map(|letter| letter.key).collect();
        let expected: BTreeSet<String> =
            bad(&published).iter().map(|sent| format!("{}-0-{}", topic.name, sent.offset)).collect();
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected, "{how:?}");
    }
}

#[test]
fn fail_closed_reads_no_further_than_letters_have_room_and_loses_none() {
    let topic = Topic::create(services::kafka(), "no-room", 1);
    let config = config(&topic, "skip", "fail_closed")
        .set("DASHSTREAM_DLQ_QUEUE_LETTERS", 10)
        .set("MAX_CONCURRENT_DLQ_SENDS", 5)
        .set("DASHSTREAM_KAFKA_IN_FLIGHT_BYTES", 64 * 1024)
        .set("DASHSTREAM_KAFKA_BATCH_MAX_BYTES", 16 * 1024)
        .set("DASHSTREAM_SUPERVISOR_HEARTBEAT_TIMEOUT_SECS", 2)
        .sabotaged();
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let record = |index| match index % 2 {
        0 => records::good_of_size("run-good", 0, 1_000),
        _ => records::oversized("run-bad", LIMIT + index),
    };
    let published =
        Producer::new(&topic.kafka).publish(&topic.name, (0..400).map(|index| record(index).on_partition(0)));
    // The reader stops by itself; that is no hang, so nobody is restarted.
    wait_for_reason(&service, "dead_letters_blocked", true);
    wait_for_reason(&service, "pipeline_full", true);
    let read = messages(&service, "error");
    assert!((10.0..200.0).contains(&read), "{read} bad records were read");
    throughout("a full queue", Duration::from_secs(4), || match messages(&service, "error") {
        now if now == read => Ok(()),
        now => Err(format!("{now} bad records were read, {read} before")),
    });
    assert_eq!(service.metric("dashstream_actor_restarts_total", &[]), 0.0);
    assert!(client.closed().is_none() && client.received() > 0);

    // The publisher dies meanwhile: what it had on its way is not settled.
    service.sabotage("DlqPublisher", "panic");
    eventually("a new publisher", BOUND, || match service.metric("dashstream_actor_generation", &["DlqPublisher"]) {
        generation if generation >= 2.0 => Ok(()),
        generation => Err(generation.to_string()),
    });
    assert_eq!(topic.committed(config.group()).get(&0), Some(&1));

    let letters = topic.beside("dlq", 1);
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    let keys: BTreeSet<String> = dead_letters::read(&letters).into_iter().map(|letter| letter.key).collect();
    assert_eq!(keys.len(), 200, "every bad record has its letter");
    assert_eq!((send_failures(&service, "backpressure"), service.metric("dashstream_dlq_lost_total", &[])), (0.0, 0.0));
}

#[test]
fn a_burst_of_bad_records_loses_no_letter() {
    let topic = Topic::create(services::kafka(), "burst", 4);
    let letters = topic.beside("dlq", 1);
    let config = config(&topic, "skip", "best_effort");
    let service = Service::start_healthy(&config);
    let bad = (0..4_000).map(|index| records::garbage("run-bad").on_partition(index % 4));
    Producer::new(&topic.kafka).publish(&topic.name, bad);
    topic.wait_until_all_committed(config.group(), BOUND);
    dead_letters::wait_for(&letters, 4_000, BOUND);
    assert_eq!(service.metric("websocket_dlq_send_failures_total", &[]), 0.0);
}

#[test]
fn records_far_over_the_limit_do_not_stay_in_memory() {
    const MIB: u64 = 1024 * 1024;
    let topic = Topic::create(services::kafka(), "giants", 1);
    let letters = topic.beside("dlq", 1);
    let service =
        Service::start_healthy(&config(&topic, "skip", "best_effort").set("DLQ_INCLUDE_FULL_PAYLOAD", "true"));
    let client = Client::from(service.address(), From::Earliest);
    let producer = Producer::new(&topic.kafka);
    let mut published = producer.publish(&topic.name, [records::oversized("run-bad", 8 << 20)]);
    dead_letters::wait_for(&letters, 1, BOUND);
    let before = service.memory();
    // 240 MiB of them.
    for _ in 0..10 {
        published.extend(producer.publish(&topic.name, (0..3).map(|_| records::oversized("run-bad", 8 << 20))));
    }
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(service.config().group(), BOUND);
    assert_eq!(errors(&service, "payload_too_large"), 31.0);
    // What is refused for its size alone is among those that are counted: a rate is never more than the whole.
    let health = &service.health()["metrics"];
    assert_eq!((&health["kafka_messages_received"], &health["decode_errors"]), (&json!(31), &json!(31)), "{health}");
    assert_eq!(health["messages_last_120s"], health["decode_errors_last_120s"], "{health}");
    let grown = service.memory().saturating_sub(before) / MIB;
    assert!(grown < 100, "memory grew by {grown} MiB");
}

/// Publishes rounds of bad records, more of them than letters can be written. Answers the resident bytes after each round.
fn flood(rounds: usize, each: usize) -> Vec<u64> {
    let topic = Topic::create(services::kafka(), "flood", 4);
    let _letters = topic.beside("dlq", 1);
    let config = config(&topic, "skip", "best_effort")
        .set("DLQ_INCLUDE_FULL_PAYLOAD", "true")
        .set("MAX_CONCURRENT_DLQ_SENDS", 1)
        .set("DASHSTREAM_DLQ_QUEUE_LETTERS", 500)
        .set("DLQ_SEND_TIMEOUT_SECS", 60);
    let service = Service::start_healthy(&config);
    let client = Client::from(service.address(), From::Earliest);
    let producer = Producer::new(&topic.kafka);
    let mut memory = Vec::new();
    let mut published = Published::default();
    for round in 1..=rounds {
        let partition = |index| i32::try_from(index % 4).expect("small");
        let bad = (0..each).map(|index| records::garbage("run-bad").on_partition(partition(index)));
        producer.publish(&topic.name, bad);
        let good = (0..4).map(|partition| records::good("run-good", 0).on_partition(partition));
        published = producer.publish(&topic.name, good);
        let sent = (round * each) as f64;
        eventually("the round to be judged", BOUND * 2, || match messages(&service, "error") {
            judged if judged >= sent => Ok(()),
            judged => Err(judged.to_string()),
        });
        memory.push(service.memory());
    }
    client.wait_until("what came last", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
    topic.wait_until_all_committed(config.group(), BOUND);
    let accounted = || {
        let sent = service.metric("websocket_dlq_sends_total", &[]);
        let lost = service.metric("dashstream_dlq_lost_total", &[]);
        (sent + lost, lost)
    };
    eventually("each letter to be sent or counted", BOUND, || match accounted() {
        (all, _) if all == (rounds * each) as f64 => Ok(()),
        counted => Err(format!("{counted:?}")),
    });
    let (_, lost) = accounted();
    assert_eq!(send_failures(&service, "backpressure"), lost, "nothing was lost for another reason");
    assert!(lost > 0.0, "this was no flood");
    let log = service.log().lines().count();
    assert!(log < 500, "{log} lines of log: a flood of records is no flood of lines");
    memory
}

#[test]
fn a_flood_of_bad_records_is_skipped_and_every_letter_is_written_or_counted() {
    flood(1, 50_000);
}

/// Takes minutes: `scripts/services run -- cargo test --test system -- --ignored a_million_bad_records`.
#[test]
#[ignore = "takes minutes; see CONTRIBUTING.md"]
fn a_million_bad_records_leave_memory_flat_and_every_one_is_accounted_for() {
    let memory = flood(10, 100_000);
    assert!(memory[9] < memory[2] + 64 * 1024 * 1024, "resident bytes per round: {memory:?}");
}
