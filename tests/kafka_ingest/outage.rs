//! Outages of the cluster. They hit every other test that runs against it, so they are asked for by name.

use std::process::Command;
use std::time::{Duration, Instant};

use super::support::{Cluster, Instance, eventually, topic};

fn signal(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[test]
#[ignore = "stops the broker whose process id is in DASHSTREAM_TEST_KAFKA_PID"]
fn a_hung_cluster_is_seen_within_15_seconds_and_nothing_is_lost() {
    let (Some(cluster), Ok(pid)) = (Cluster::from_env(), std::env::var("DASHSTREAM_TEST_KAFKA_PID")) else { return };
    let topic = topic("hang");
    cluster.create_topic(&topic, 4);
    let instance = Instance::start(cluster.settings(&topic, "a"));
    cluster.produce(&topic, 4, (0..400).map(|_| b"x".to_vec()));
    eventually("settled", || instance.has_committed(100));
    signal(&pid, "-STOP");
    let hung = Instant::now();
    let silent = || instance.monitor.status().contact_age.is_some_and(|age| age > Duration::from_secs(5));
    eventually("the silence is known", silent);
    println!("silence known after {:?}: {:?}", hung.elapsed(), instance.monitor.status());
    assert!(hung.elapsed() < Duration::from_secs(15));
    eventually("longer than the session", || hung.elapsed() > Duration::from_secs(14));
    println!("{:?}", instance.monitor.status().last_fault);
    signal(&pid, "-CONT");
    let back = Instant::now();
    cluster.produce(&topic, 4, (0..400).map(|_| b"y".to_vec()));
    eventually("all records", || instance.received(1) == 800);
    println!("records after {:?}", back.elapsed());
    eventually("duties", || instance.owned().len() == 4);
    eventually("commits", || instance.has_committed(200));
    println!("commits after {:?}", back.elapsed());
    assert!(instance.refused.lock().unwrap().is_none());
    println!("infrastructure errors: {}", instance.metrics.infrastructure_errors.get());
}

#[test]
#[ignore = "somebody else must kill and start the broker meanwhile"]
fn a_restarted_cluster_is_used_again() {
    let Some(cluster) = Cluster::from_env() else { return };
    let topic = topic("restart");
    cluster.create_topic(&topic, 4);
    let instance = Instance::start(cluster.settings(&topic, "a"));
    let (mut sent, start) = (0, Instant::now());
    while start.elapsed() < Duration::from_secs(30) {
        // Waits as long as the cluster is away.
        cluster.produce(&topic, 4, (0..400).map(|_| b"x".to_vec()));
        sent += 400;
        std::thread::sleep(Duration::from_millis(100));
    }
    let back = Instant::now();
    eventually("all records", || instance.received(1) >= sent);
    println!("{sent} records after {:?}", back.elapsed());
    eventually("commits", || {
        let done =
            |p: &dashstream::board::PartitionBoard| p.committed.get().is_some_and(|c| p.fetched.get() == Some(c));
        instance.owned().len() == 4 && instance.board.partitions().iter().all(|p| done(p))
    });
    println!("commits after {:?}; {:?}", back.elapsed(), instance.monitor.status());
    assert_eq!(instance.board.epoch_number(), 1);
    assert!(instance.metrics.infrastructure_errors.get() > 0, "there was no outage");
}
