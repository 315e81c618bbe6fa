//! Several instances in one group: every client of every one gets everything, and the duties move when one goes.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::records::Expect;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;

/// Default member ids: they differ by the port.
fn config(topic: &Topic) -> Config {
    Config::new(topic).unset("KAFKA_GROUP_INSTANCE_ID").set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 2_000)
}

/// Waits until the instances together own each partition once, and each at least `least`.
fn wait_until_owned(instances: &[&Service], least: f64) {
    eventually("every partition to have one owner", BOUND, || {
        let owned: Vec<f64> =
            instances.iter().map(|instance| instance.metric("dashstream_owned_partitions", &[])).collect();
        match owned.iter().sum::<f64>() == f64::from(PARTITIONS) && owned.iter().all(|own| *own >= least) {
            true => Ok(()),
            false => Err(format!("{owned:?}")),
        }
    });
}

fn wait_for_more(client: &Client, records: u64) {
    let before = client.received();
    eventually("more records", BOUND, || match client.received() {
        received if received >= before + records => Ok(()),
        received => Err(format!("{received}, {before} before")),
    });
}

#[test]
fn a_rebalance_is_seen_by_no_client() {
    let topic = Topic::create(services::kafka(), "second", PARTITIONS);
    let config = config(&topic);
    let mut first = Service::start_healthy(&config);
    let of_first: Vec<Client> = (0..2).map(|_| Client::from(first.address(), From::Earliest)).collect();
    let load = Load::start(&topic, 1_000);
    wait_until_owned(&[&first], 1.0);
    wait_for_more(&of_first[0], 1_000);

    // One joins under load.
    let mut second = Service::start_healthy(&config);
    let of_second: Vec<Client> = (0..2).map(|_| Client::from(second.address(), From::Latest)).collect();
    wait_until_owned(&[&first, &second], 1.0);
    wait_for_more(&of_first[0], 1_000);
    wait_for_more(&of_second[0], 1_000);

    // One leaves in order; its clients move over with their cursors.
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit(Duration::from_secs(10)).code(), Some(0));
    let mut moved = of_first;
    for client in &mut moved {
        client.reconnect(second.address());
    }
    wait_until_owned(&[&second], 1.0);
    wait_for_more(&of_second[0], 1_000);

    // One joins again, and the other is killed: duties come back after the session's end, browsers do not wait for it.
    let third = Service::start_healthy(&config);
    let of_third = Client::from(third.address(), From::Latest);
    wait_until_owned(&[&second, &third], 1.0);
    second.kill_nine();
    wait_for_more(&of_third, 1_000);
    wait_until_owned(&[&third], 1.0);

    let published = load.stop();
    topic.wait_until_all_committed(config.group(), BOUND);
    of_third.wait_for_all(&published, BOUND);
    for client in &mut moved {
        client.reconnect(third.address());
        // The third instance began at what was committed: below that its memory may hold nothing.
        client.wait_for_all_but(&published, BOUND, |_, _| true);
    }
}

#[test]
fn a_second_process_with_the_same_member_id_is_refused_and_the_first_goes_on_undisturbed() {
    let topic = Topic::create(services::kafka(), "same-member", 2);
    let config = Config::new(&topic);
    let mut first = Service::start_healthy(&config);
    let client = Client::from(first.address(), From::Earliest);
    let load = Load::start(&topic, 500);
    eventually("the duties of both partitions", BOUND, || match first.metric("dashstream_owned_partitions", &[]) {
        2.0 => Ok(()),
        owned => Err(owned.to_string()),
    });
    wait_for_more(&client, 500);

    let mut second = Service::spawn(&config);
    let status = second.wait_for_exit(Duration::from_secs(20));
    assert!(!status.success(), "{status}");
    assert!(second.log().contains("KAFKA_GROUP_INSTANCE_ID"), "it says what to change");

    assert_eq!(client.closed(), None);
    assert_eq!(first.metric("dashstream_owned_partitions", &[]), 2.0);
    wait_for_more(&client, 500);
    let published = load.stop();
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);
    assert!(first.is_running());
    for actor in first.health()["actors"].as_array().expect("a list of actors") {
        assert_eq!(actor["restarts"], 0, "{actor}");
    }
}

#[test]
fn the_survivor_of_a_kill_writes_every_dead_letter_and_commits_nothing_that_was_not_done() {
    let topic = Topic::create(services::kafka(), "survivor", PARTITIONS);
    let dead_letters = topic.beside("dlq", 2);
    let config = config(&topic);
    let mut first = Service::start_healthy(&config);
    let second = Service::start_healthy(&config);
    wait_until_owned(&[&first, &second], 1.0);
    let client = Client::from(second.address(), From::Earliest);
    let load = Load::start(&topic, 2_000);
    for _ in 0..3 {
        wait_for_more(&client, 2_000);
        first.kill_nine();
        wait_until_owned(&[&second], 1.0);
        wait_for_more(&client, 500);
        first.restart();
        wait_until_owned(&[&first, &second], 1.0);
    }
    first.kill_nine();
    let published = load.stop();
    client.wait_for_all(&published, BOUND);
    topic.wait_until_all_committed(config.group(), BOUND);

    // Each bad record was dealt with before its offset was committed, whoever did it.
    let bad = published.records.values().filter(|sent| sent.expect != Expect::Record);
    let wanted: BTreeSet<String> =
        bad.map(|sent| format!("{}-{}-{}", topic.name, sent.partition, sent.offset)).collect();
    let written: BTreeSet<String> = dead_letters.keys().into_iter().collect();
    let missing: Vec<_> = wanted.difference(&written).collect();
    assert!(missing.is_empty(), "{} of {} letters are missing: {missing:?}", missing.len(), wanted.len());
    assert!(written.is_subset(&wanted), "no letter for a good record");
}
