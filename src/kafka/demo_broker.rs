//! A Kafka broker inside this process, for the demo: librdkafka's mock cluster.
//!
//! Memory only, on a random port of 127.0.0.1. It keeps 5 MiB per partition and drops the oldest, finds no offsets by time,
//! answers neither CreateTopics nor DescribeTopics, and ends with its owner.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

use super::mock_ffi::set_initial_rebalance_delay;

/// The demo has one member per group: nobody else is worth waiting for.
const INITIAL_REBALANCE_DELAY: Duration = Duration::from_millis(50);
/// The dead letters of the demo are few.
const DLQ_PARTITIONS: i32 = 1;

/// A running broker; it ends when this is dropped.
pub struct DemoBroker {
    owner: BaseProducer,
    bootstrap: String,
}

impl std::fmt::Debug for DemoBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoBroker").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

/// The broker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoBrokerError {
    /// The mock cluster did not start.
    #[error("cannot start the in-process broker")]
    Start(#[source] KafkaError),
    /// The client has no mock cluster.
    #[error("the Kafka library was built without its in-process broker")]
    Missing,
    /// A topic was refused.
    #[error("cannot create topic {topic} with {partitions} partitions on the in-process broker")]
    CreateTopic {
        /// Its name.
        topic: String,
        /// How many partitions were asked for.
        partitions: i32,
        /// Why.
        source: KafkaError,
    },
}

impl DemoBroker {
    /// Starts a broker with two topics: `topic`, and `dlq_topic` for dead letters.
    ///
    /// # Errors
    /// When the broker does not start, or a topic's name or partition count is refused.
    pub fn start(topic: &str, partitions: i32, dlq_topic: &str) -> Result<Self, DemoBrokerError> {
        let owner: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set("client.id", "dashstream-demo-broker")
            .create()
            .map_err(DemoBrokerError::Start)?;
        set_initial_rebalance_delay(owner.client(), INITIAL_REBALANCE_DELAY);
        let cluster = owner.client().mock_cluster().ok_or(DemoBrokerError::Missing)?;
        for (topic, partitions) in [(topic, partitions), (dlq_topic, DLQ_PARTITIONS)] {
            cluster.create_topic(topic, partitions, 1).map_err(|source| DemoBrokerError::CreateTopic {
                topic: topic.to_owned(),
                partitions,
                source,
            })?;
        }
        let bootstrap = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self { owner, bootstrap })
    }

    /// `host:port`, for every client in this process or another.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Takes the broker off the network, or brings it back: for tests of what happens then.
    ///
    /// # Errors
    /// When the mock cluster refuses.
    pub fn set_reachable(&self, reachable: bool) -> Result<(), DemoBrokerError> {
        let cluster = self.owner.client().mock_cluster().ok_or(DemoBrokerError::Missing)?;
        if reachable { cluster.broker_up(1) } else { cluster.broker_down(1) }.map_err(DemoBrokerError::Start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::generate::GeneratorSettings;
    use crate::generate::defects::Defects;
    use crate::generate::flat::FlatSettings;
    use crate::generate::records::Source;
    use crate::kafka::connection::KafkaConnection;
    use crate::kafka::load_producer::{LoadReport, LoadSettings, Pace, run};

    fn load(broker: &DemoBroker, source: Source, pace: Pace, count: u64) -> LoadReport {
        let settings = LoadSettings {
            connection: connection(broker),
            topic: "runs".to_owned(),
            create_partitions: None,
            source,
            pace,
            count: Some(count),
            progress_interval: Duration::from_secs(1),
        };
        run(&settings, &CancellationToken::new(), &mut |_| {}).unwrap()
    }

    fn connection(broker: &DemoBroker) -> KafkaConnection {
        KafkaConnection {
            brokers: broker.bootstrap().to_owned(),
            client_id: "test".to_owned(),
            security: Default::default(),
            address_family: None,
        }
    }

    /// Reads `count` records as a group member: partition and length of the value, by key.
    fn read(broker: &DemoBroker, count: usize) -> BTreeMap<Vec<u8>, Vec<(i32, Option<usize>)>> {
        let consumer: BaseConsumer = connection(broker)
            .client_config("reader")
            .set("group.id", "readers")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&["runs"]).unwrap();
        let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut left = count;
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} records missing");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            let record = (message.partition(), message.payload().map(<[u8]>::len));
            by_key.entry(message.key().unwrap_or_default().to_vec()).or_default().push(record);
            left -= 1;
        }
        by_key
    }

    #[test]
    fn a_group_reads_what_was_loaded_within_a_second_and_a_thread_stays_on_its_partition() {
        let broker = DemoBroker::start("runs", 8, "runs-dlq").unwrap();
        let flat = FlatSettings { seed: 1, threads: 100, size: 200, compressed: false, thread_prefix: "t".to_owned() };
        let report = load(&broker, Source::Flat(flat), Pace::Unlimited, 5_000);
        assert_eq!((report.records, report.bytes, report.failed), (5_000, 1_000_000, 0));
        let started = Instant::now();
        let by_key = read(&broker, 5_000);
        assert!(started.elapsed() < Duration::from_secs(2), "the first rebalance took {:?}", started.elapsed());
        assert_eq!(by_key.len(), 100);
        for records in by_key.values() {
            assert_eq!(records.len(), 50);
            assert!(records.iter().all(|record| record.0 == records[0].0));
        }
        let partitions: std::collections::BTreeSet<_> = by_key.values().map(|records| records[0].0).collect();
        assert_eq!(partitions.len(), 8);
    }

    #[test]
    fn runs_arrive_at_the_asked_rate_with_their_defects() {
        let broker = DemoBroker::start("runs", 2, "runs-dlq").unwrap();
        let defects = Defects { null: 0.1, ..Default::default() };
        let source = Source::Runs { generator: GeneratorSettings::default(), defects };
        let report = load(&broker, source, Pace::Rate(1_000.0), 1_000);
        assert_eq!((report.records, report.failed), (1_000, 0));
        assert!((0.99..3.0).contains(&report.seconds), "{}", report.seconds);
        let nulls = read(&broker, 1_000).values().flatten().filter(|record| record.1.is_none()).count();
        assert!((50..200).contains(&nulls), "{nulls}");
    }

    #[test]
    fn a_stop_ends_the_load_and_everything_sent_is_acknowledged() {
        let broker = DemoBroker::start("runs", 1, "runs-dlq").unwrap();
        let source = Source::Runs { generator: GeneratorSettings::default(), defects: Defects::default() };
        let stop = CancellationToken::new();
        let settings = LoadSettings {
            connection: connection(&broker),
            topic: "runs".to_owned(),
            create_partitions: None,
            source,
            pace: Pace::OwnTime(20.0),
            count: None,
            progress_interval: Duration::from_millis(20),
        };
        let report = run(&settings, &stop, &mut |progress| {
            if progress.records > 100 {
                stop.cancel();
            }
        })
        .unwrap();
        assert!(report.records > 100 && report.failed == 0, "{report:?}");
        read(&broker, usize::try_from(report.records).unwrap());
    }

    #[test]
    fn a_stop_while_the_broker_is_gone_ends_in_time_and_counts_what_was_not_acknowledged() {
        let broker = DemoBroker::start("runs", 1, "runs-dlq").unwrap();
        broker.set_reachable(false).unwrap();
        let flat = FlatSettings { seed: 1, threads: 1, size: 200, compressed: false, thread_prefix: "t".to_owned() };
        let settings = LoadSettings {
            connection: connection(&broker),
            topic: "runs".to_owned(),
            create_partitions: None,
            source: Source::Flat(flat),
            pace: Pace::Rate(100.0),
            count: None,
            progress_interval: Duration::from_millis(300),
        };
        let stop = CancellationToken::new();
        let started = Instant::now();
        let report = run(&settings, &stop, &mut |_| stop.cancel()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert!(report.records == 0 && report.failed > 0 && report.last_error.is_some(), "{report:?}");
    }
}
