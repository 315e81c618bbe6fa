//! What rounds promise while a partition does not answer, with a mock broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::{HistoryParts, KafkaHistory};
use crate::board::{Board, Epoch};
use crate::kafka::connection::KafkaConnection;
use crate::kafka::monitor::KafkaMonitor;
use crate::kafka::settings::IngestSettings;
use crate::metrics::Metrics;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::page::PageRequest;

const TOPIC: &str = "t";
const RECORDS: u32 = 10;
const EPOCH: &str = "c/t/-";

fn history(mock: &MockCluster<'_, impl rdkafka::ClientContext>, partitions: i32) -> KafkaHistory {
    let brokers = mock.bootstrap_servers();
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a producer");
    for number in 0..RECORDS {
        for partition in 0..partitions {
            let value = number.to_string();
            producer.send(BaseRecord::<(), _>::to(TOPIC).payload(&value).partition(partition)).unwrap();
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let board = Board::new();
    board.open_epoch(Epoch { number: 1, name: EPOCH.into() });
    (0..partitions).for_each(|partition| board.opened(partition).fetched.set(i64::from(RECORDS)));
    let connection =
        KafkaConnection { brokers, client_id: "test".into(), security: Default::default(), address_family: None };
    KafkaHistory::start(HistoryParts {
        kafka: IngestSettings::new(connection, TOPIC, "g", "i"),
        judge: JudgeSettings::default(),
        readers: 1,
        cache_bytes: 0,
        board,
        monitor: Arc::new(KafkaMonitor::new(Arc::new(Metrics::new().unwrap()))),
    })
    .unwrap()
}

fn request(partition: i32) -> PageRequest {
    PageRequest {
        epoch: 1,
        epoch_name: EPOCH.into(),
        partition,
        from: 0,
        until: i64::from(RECORDS),
        max_records: RECORDS,
        max_bytes: 1 << 20,
    }
}

#[tokio::test]
async fn a_partition_without_a_leader_holds_up_no_page_of_another_and_is_read_when_it_has_one() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 3, 1).unwrap();
    let history = history(&mock, 3);
    mock.partition_leader(TOPIC, 1, None).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let all = i64::from(RECORDS);
    let requests: Vec<_> = (0..3).map(request).collect();
    {
        // As one round, and once more while the round of the partition without a leader is under way.
        let hung = history.page(&requests[1], deadline);
        let others = async {
            for _ in 0..2 {
                let pages = tokio::join!(history.page(&requests[0], deadline), history.page(&requests[2], deadline));
                assert_eq!((pages.0.unwrap().next(), pages.1.unwrap().next()), (Some(all), Some(all)));
            }
            mock.partition_leader(TOPIC, 1, Some(1)).unwrap();
        };
        let (hung, ()) = tokio::join!(hung, others);
        assert_eq!(hung.unwrap().next(), Some(all));
    }
    history.stop();
}
