//! Every cause × {skip, pause of the consumer, pause of the partition} × {best_effort, fail_closed} × {running, restart,
//! rebalance}: one table, one function. Each cause has a partition of its own, so that all of them are met at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dashstream::wire::stream::SkipReason;
use serde_json::Value;

use crate::harness::client::{Client, From};
use crate::harness::dead_letters;
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::records::{self, Expect};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(90);
const LIMIT: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Skip,
    PauseConsumer,
    PausePartition,
}

impl Policy {
    fn set(self, config: Config) -> Config {
        match self {
            Self::Skip => config.set("KAFKA_ON_DECODE_ERROR", "skip"),
            Self::PauseConsumer => config.set("KAFKA_ON_DECODE_ERROR", "pause"),
            Self::PausePartition => {
                config.set("KAFKA_ON_DECODE_ERROR", "pause").set("DASHSTREAM_DECODE_PAUSE_SCOPE", "partition")
            }
        }
    }
}

#[test]
fn skip_best_effort() {
    row(Policy::Skip, "best_effort");
}

#[test]
fn skip_fail_closed() {
    row(Policy::Skip, "fail_closed");
}

#[test]
fn pause_of_the_consumer_best_effort() {
    row(Policy::PauseConsumer, "best_effort");
}

#[test]
fn pause_of_the_consumer_fail_closed() {
    row(Policy::PauseConsumer, "fail_closed");
}

#[test]
fn pause_of_the_partition_best_effort() {
    row(Policy::PausePartition, "best_effort");
}

#[test]
fn pause_of_the_partition_fail_closed() {
    row(Policy::PausePartition, "fail_closed");
}

/// What one row is about.
struct Row {
    policy: Policy,
    topic: Topic,
    letters: Topic,
    group: String,
    published: Published,
    /// By partition: what was done to the record at offset 1, and the kind that it must be told to be.
    causes: BTreeMap<i32, (&'static str, &'static str)>,
}

/// Offset of the bad record in each partition: a good one before it, and one behind it.
const BAD: i64 = 1;

fn row(policy: Policy, mode: &str) {
    let causes = records::every_cause("run-bad", LIMIT);
    let partitions = i32::try_from(causes.len()).expect("few");
    let topic = Topic::create(services::kafka(), "matrix", partitions);
    let letters = topic.beside("dlq", 1);
    let config = policy
        .set(Config::new(&topic).sabotaged())
        .set("DLQ_MODE", mode)
        .set("WEBSOCKET_MAX_PAYLOAD_BYTES", LIMIT)
        .set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 3_000);
    let group = config.group().to_owned();
    let kinds = (0..).zip(&causes).map(|(partition, (cause, record))| (partition, (*cause, kind_of(record.expect))));
    let kinds = kinds.collect();
    let mut row = Row { policy, topic, letters, group, published: Published::default(), causes: kinds };
    row.publish();

    let mut first = Service::start(&config);
    let mut client = Client::from(first.address(), From::Earliest);
    row.stands_or_goes_on("running", &first, &client);

    first.restart();
    client.reconnect(first.address());
    row.publish_more();
    row.stands_or_goes_on("after a restart", &first, &client);

    let second = Service::start(&config.set("KAFKA_GROUP_INSTANCE_ID", "second"));
    eventually("both to own partitions", BOUND, || {
        let owned = [&first, &second].map(|service| service.metric("dashstream_owned_partitions", &[]));
        if owned.iter().all(|owned| *owned > 0.0) { Ok(()) } else { Err(format!("{owned:?}")) }
    });
    drop(first);
    client.reconnect(second.address());
    eventually("the second one to own all", BOUND, || {
        let owned = second.metric("dashstream_owned_partitions", &[]);
        if owned == f64::from(partitions) { Ok(()) } else { Err(owned.to_string()) }
    });
    row.publish_more();
    row.stands_or_goes_on("after a rebalance", &second, &client);

    row.set_all_aside(&second);
    client.wait_for_all(&row.published, BOUND);
    row.topic.wait_until_all_committed(&row.group, BOUND);
    row.check_letters();
    row.check_counts(&second);
}

impl Row {
    /// In each partition a good record, a bad one, and a good one.
    fn publish(&mut self) {
        let good = |partition| records::good("run-good", 0).on_partition(partition);
        let causes = (0..).zip(records::every_cause("run-bad", LIMIT));
        let records =
            causes.flat_map(|(partition, (_, bad))| [good(partition), bad.on_partition(partition), good(partition)]);
        self.published.extend(Producer::new(&self.topic.kafka).publish(&self.topic.name, records));
    }

    /// Where nothing stands still, every phase gets bad records of its own.
    fn publish_more(&mut self) {
        if self.policy == Policy::Skip {
            self.publish();
        }
    }

    /// With `skip` everything has passed. With a pause nothing has that lies behind a bad record, and whoever stands says so.
    fn stands_or_goes_on(&self, when: &str, service: &Service, client: &Client) {
        if self.policy == Policy::Skip {
            client.wait_for_all(&self.published, BOUND);
            self.topic.wait_until_all_committed(&self.group, BOUND);
            return;
        }
        eventually(&format!("{when}, {:?} to stand", self.policy), BOUND, || {
            let health = service.try_health()?;
            let standing = standing(&health);
            let enough = match self.policy {
                Policy::PausePartition => standing.len() == self.causes.len(),
                _ => !standing.is_empty(),
            };
            let right = standing.iter().all(|(partition, (offset, kind, by))| {
                (*offset, kind.as_str(), by.as_str()) == (BAD, self.causes[partition].1, "operator")
            });
            if health["status"] == "paused" && enough && right { Ok(()) } else { Err(health.to_string()) }
        });
        let committed = self.topic.committed(&self.group);
        assert!(committed.values().all(|offset| *offset <= BAD), "{when}: {committed:?}");
        assert!(client.closed().is_none(), "{when}: browsers stay connected");
        client.look(|ledger| {
            let passed: Vec<_> = ledger.cursor.iter().filter(|(_, cursor)| **cursor > BAD).collect();
            assert!(passed.is_empty(), "{when}: delivered past the records: {passed:?}");
        });
    }

    /// Answers until nobody is asked any more.
    fn set_all_aside(&self, service: &Service) {
        if self.policy == Policy::Skip {
            return;
        }
        let mut told = BTreeSet::new();
        eventually("every record to be set aside", BOUND, || {
            let json = [("Content-Type", "application/json")];
            let (_, body) = service.post("/admin/ingest/continue", &json, r#"{"action":"set_aside"}"#)?;
            let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
            told.extend(
                answer["continued"].as_array().into_iter().flatten().filter_map(|one| one["partition"].as_i64()),
            );
            if told.len() == self.causes.len() { Ok(()) } else { Err(format!("{told:?}")) }
        });
    }

    /// One key per bad record, whatever happened; each letter says which record it was and what was wrong.
    fn check_letters(&self) {
        let bad = self.published.records.iter().filter(|(_, sent)| sent.expect != Expect::Record);
        let bad: BTreeMap<String, _> = bad
            .map(|((partition, offset), sent)| (format!("{}-{partition}-{offset}", self.topic.name), sent))
            .collect();
        let mut found = BTreeMap::new();
        eventually("a letter about every record", BOUND, || {
            found = dead_letters::read(&self.letters).into_iter().map(|letter| (letter.key.clone(), letter)).collect();
            if found.len() == bad.len() { Ok(()) } else { Err(format!("{:?}", found.keys())) }
        });
        for (key, sent) in bad {
            let letter = &found[&key].json;
            let size = sent.value.as_ref().map_or(0, bytes::Bytes::len);
            assert_eq!(letter["error_type"], kind_of(sent.expect), "{letter}");
            assert_eq!(
                (&letter["kafka_offset"], &letter["payload_size"]),
                (&sent.offset.into(), &size.into()),
                "{letter}"
            );
        }
    }

    /// The last instance has judged each record once, however often it has read it.
    fn check_counts(&self, service: &Service) {
        let mut kinds = BTreeMap::<&str, f64>::new();
        for (_, kind) in self.causes.values() {
            *kinds.entry(kind).or_default() += 1.0;
        }
        for (kind, records) in kinds {
            let label = format!("error_type=\"{kind}\"");
            assert_eq!(service.metric("websocket_decode_errors_total", &[&label]), records, "{kind}");
        }
        assert_eq!(service.metric("dashstream_dlq_lost_total", &[]), 0.0);
    }
}

/// Where `/health` says that ingest stands: partition to offset, kind, and who decides.
fn standing(health: &Value) -> BTreeMap<i32, (i64, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |paused: &Value| {
        let partition = i32::try_from(paused["partition"].as_i64()?).ok()?;
        Some((partition, (text(&paused["offset"]).parse().ok()?, text(&paused["kind"]), text(&paused["decided_by"]))))
    };
    health["paused"].as_array().into_iter().flatten().filter_map(one).collect()
}

/// The kind that a record must be told to be, by the skip that clients must see.
fn kind_of(expect: Expect) -> &'static str {
    match expect {
        Expect::Skip(SkipReason::PayloadMissing) => "payload_missing",
        Expect::Skip(SkipReason::PayloadTooLarge) => "payload_too_large",
        Expect::Skip(SkipReason::UnknownFraming) => "unknown_framing",
        Expect::Skip(SkipReason::DecompressionFailed) => "decompression_failed",
        Expect::Skip(SkipReason::DecompressedTooLarge) => "decompressed_too_large",
        Expect::Skip(SkipReason::InvalidProtobuf) => "invalid_protobuf",
        Expect::Skip(SkipReason::SchemaVersion) => "schema_version",
        Expect::Skip(SkipReason::Internal) => "internal",
        other => panic!("{other:?} is no fault of a record"),
    }
}
