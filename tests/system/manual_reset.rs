//! An operator has the stream begin anew: everybody is told, and nobody is given what lies before, at any instance, whatever
//! they ask for, also after a restart.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::client::{Client, From};
use crate::harness::contract::{Judged as _, Ledger};
use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);

/// `dashstream ingest reset`: whether it succeeded, and what it printed on both outputs.
fn reset(service: &Service, topic: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(["ingest", "reset", "--topic", topic, "--url", &format!("http://{}", service.address())])
        .env_clear()
        .output()
        .expect("the binary can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn floors(service: &Service) -> BTreeMap<i32, i64> {
    let epoch = service.epoch();
    assert!(epoch.contains('@'), "{epoch}");
    let client = Client::from(service.address(), From::Earliest);
    client.look(|ledger| ledger.began.clone())
}

fn was_reset(ledger: &Ledger, partitions: usize) -> Result<BTreeMap<i32, i64>, String> {
    let told: BTreeMap<i32, i64> =
        ledger.resets.iter().filter(|r| r.reason == "manual_reset").map(|r| (r.partition, r.next_offset)).collect();
    match told.len() == partitions {
        true => Ok(told),
        false => Err(format!("{:?}", ledger.resets)),
    }
}

#[test]
fn after_a_reset_nobody_is_given_what_lies_before_it() {
    let topic = Topic::create(services::kafka(), "reset", 2);
    let config = Config::new(&topic).unset("KAFKA_GROUP_INSTANCE_ID").set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 2_000);
    let mut first = Service::start_healthy(&config);
    let second = Service::start_healthy(&config);
    let before = second.epoch();
    let connected = [Client::from(first.address(), From::Earliest), Client::from(second.address(), From::Earliest)];
    let mut away = Client::from(second.address(), From::Earliest);
    let v1 = V1Client::connect(second.address(), Some(&json!({ "type": "resume", "from": "earliest" })));
    let load = Load::start(&topic, 1_000);
    for client in connected.iter().chain([&away]) {
        eventually("records", BOUND, || match client.received() {
            0..=1_000 => Err(client.received().to_string()),
            _ => Ok(()),
        });
    }
    away.disconnect();
    let old_cursor = away.look(|ledger| ledger.last_offsets());

    let (done, said) = reset(&first, "another-topic");
    assert!(!done && said.contains("409"), "{said}");
    assert_eq!(first.epoch(), before);
    // In the middle of the stream.
    let (done, said) = reset(&first, &topic.name);
    assert!(done, "{said}");
    let epoch = first.epoch();
    assert!(epoch.starts_with(&format!("{before}@")) && said.contains(&epoch), "{epoch}: {said}");
    assert!(first.log().contains("the stream was reset by an operator"), "it is in the log");

    let told = connected[0].wait_until("the reset", BOUND, |ledger| was_reset(ledger, 2));
    assert!(told.values().all(|floor| *floor > 0), "{told:?}");
    for (partition, floor) in &told {
        assert!(said.contains(&format!("partition {partition} begins at offset {floor}")), "{said}");
    }
    let told_there = connected[1].wait_until("the reset at the other instance", BOUND, |ledger| was_reset(ledger, 2));
    assert_eq!(told_there, told);
    eventually("the reset at the v1 client", BOUND, || {
        v1.look(|seen| match seen.texts.iter().filter(|text| text["reason"] == "manual_reset").count() {
            2 => Ok(()),
            count => Err(format!("{count}: {:?}", seen.closed)),
        })
    });
    assert_eq!(second.epoch(), epoch);
    assert_eq!((floors(&first), floors(&second)), (told.clone(), told.clone()), "earliest begins there");
    // Whoever comes back with what they had is told then.
    away.reconnect(second.address());
    assert_eq!(away.wait_until("the reset of who was away", BOUND, |ledger| was_reset(ledger, 2)), told);
    let late =
        V1Client::connect(first.address(), Some(&json!({ "type": "resume", "lastOffsetsByPartition": old_cursor })));
    let time = Client::connect_to(first.address(), &json!({ "type": "hello", "from": "time", "time": "1" }));
    assert_eq!(time.look(|ledger| ledger.began.clone()), told);
    eventually("the late v1 client to be live", BOUND, || match late.look(|seen| seen.records.len()) {
        0..=100 => Err("few records".to_owned()),
        _ => Ok(()),
    });
    late.look(|seen| assert!(seen.records.keys().all(|(partition, offset)| *offset >= told[partition])));

    // It holds over a restart.
    first.restart();
    first.wait_until_healthy(BOUND);
    eventually("the epoch to be known again", BOUND, || match first.epoch() {
        found if found == epoch => Ok(()),
        found => Err(found),
    });
    assert_eq!(floors(&first), told);
    let fresh = Client::from(first.address(), From::Earliest);
    let published = load.stop();
    fresh.wait_for_all(&published, BOUND);
    for client in [&connected[1], &away] {
        client.wait_until("the end", BOUND, |ledger| ledger.has_reached_the_end_of(&published));
        client.look(|ledger| {
            assert_eq!(ledger.began, told);
            ledger.compare(&published, |_, _| false).expect("everything from the reset on");
        });
    }
    topic.wait_until_all_committed(config.group(), BOUND);
}
