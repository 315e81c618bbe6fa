//! The reader's speed beside that of a bare poll loop on the same topic, in the same run.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dashstream::kafka::identity::ProcessIdentity;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::support::{Cluster, Instance, eventually, topic};

const PARTITIONS: i32 = 8;

/// Processor time of this process, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn measured(what: &str, records: u64, work: impl FnOnce()) {
    let (start, before) = (Instant::now(), cpu());
    work();
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    let count = records as f64;
    println!("{what}: {:.0} records/s, {:.2} µs CPU a record ({wall:.2} s)", count / wall, cpu * 1e6 / count);
}

fn bare(cluster: &Cluster, topic: &str, records: u64) {
    let mut config = cluster.config();
    for (key, value) in [
        ("group.id", "bare"),
        ("enable.auto.commit", "false"),
        ("queued.min.messages", "100000"),
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.queue.backoff.ms", "10"),
    ] {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, PARTITIONS - 1);
    list.set_all_offsets(Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut seen = 0;
    while seen < records {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            message.unwrap();
            seen += 1;
        }
    }
}

#[test]
#[ignore = "takes a minute and wants an idle machine: SPEED_RECORDS, SPEED_BYTES"]
fn the_reader_keeps_up_with_a_bare_poll_loop() {
    let Some(cluster) = Cluster::from_env() else { return };
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (records, bytes) = (number("SPEED_RECORDS", 1_000_000), number("SPEED_BYTES", 1024));
    let topic = topic("speed");
    cluster.create_topic(&topic, PARTITIONS);
    let value: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
    cluster.produce(&topic, PARTITIONS, (0..records).map(|_| value.clone()));
    bare(&cluster, &topic, records);
    for round in 0..3 {
        measured("bare poll loop", records, || bare(&cluster, &topic, records));
        let settings = cluster.settings(&topic, &format!("speed-{round}"));
        let settings = dashstream::kafka::settings::IngestSettings { group: format!("{topic}-{round}"), ..settings };
        let mut instance = None;
        measured("reader to settled", records, || {
            let started = Instance::start_as(settings, ProcessIdentity::current(), false);
            eventually("all records", || {
                let settled = started.board.partitions().iter().filter_map(|p| p.settled.get()).sum::<i64>();
                settled.unsigned_abs() == records
            });
            instance = Some(started);
        });
        let instance = instance.unwrap();
        let batches = instance.batches.load(Ordering::Relaxed);
        println!("{:.0} records a batch", instance.counted.load(Ordering::Relaxed) as f64 / batches as f64);
        instance.vanish();
    }
    cluster.delete_topic(&topic);
}
