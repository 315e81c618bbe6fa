//! `dashstream torture`: scenarios that break everything, against a real Kafka and Redis, and clients that misbehave against
//! running instances.
//!
//! A few scenarios run with the other tests. `DASHSTREAM_TORTURE_SEEDS=1-200` chooses the ones of the test that is run by
//! hand, see CONTRIBUTING.md; one seed runs one scenario again.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dashstream::torture::plan::{Fault, plan};
use serde_json::{Value, json};

use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(90);
const PARTITIONS: usize = 3;
/// Records per second.
const RATE: u64 = 1_000;
/// Between them they have every fault.
const FEW: [u64; 3] = [3, 48, 167];
const MANY: &str = "1-200";

/// Carries scenarios out by the command line; none breaks a promise, and nothing is left out.
fn scenarios_keep_the_promise(seeds: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashstream"));
    command.args(["torture", "--scenarios", seeds, "--clients", "4", "--patience", "90", "--json"]);
    let kept = ["PATH", "LLVM_PROFILE_FILE"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let own = [("KAFKA_BROKERS", services::kafka()), ("REDIS_URL", services::redis()), ("RUST_LOG", "warn")];
    command.env_clear().envs(kept).envs(own).stdout(Stdio::piped());
    let mut running = command.spawn().expect("the binary can be run");
    let mut broken = Vec::new();
    for line in BufReader::new(running.stdout.take().expect("a pipe")).lines() {
        let outcome: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        println!("{outcome}");
        assert_eq!(outcome["left_out"], json!([]), "scripts/setup installs what is missing");
        assert!(outcome["published"].as_u64() > Some(500) && outcome["records"].as_u64() > Some(1_000), "{outcome}");
        if outcome["violations"] != 0 {
            broken.push(format!("{}: {}", outcome["scenario"], outcome["first_violations"]));
        }
    }
    let status = running.wait().expect("it ends");
    assert!(status.success() && broken.is_empty(), "{status}, {broken:#?}");
}

#[test]
fn a_few_scenarios_keep_the_promise() {
    let planned = |seed: &u64| plan(*seed, 1).into_iter().flat_map(|step| step.troubles).map(|trouble| trouble.fault);
    let planned: BTreeSet<Fault> = FEW.iter().flat_map(planned).collect();
    assert_eq!(planned, Fault::ALL.into(), "each fault is in one of the few");
    scenarios_keep_the_promise(&FEW.map(|seed| seed.to_string()).join(","));
}

#[test]
#[ignore = "takes half an hour; see CONTRIBUTING.md"]
fn many_scenarios_keep_the_promise() {
    scenarios_keep_the_promise(&std::env::var("DASHSTREAM_TORTURE_SEEDS").unwrap_or_else(|_| MANY.to_owned()));
}

#[test]
fn clients_that_misbehave_by_the_command_line_are_given_everything_by_two_instances() {
    let topic = Topic::create(services::kafka(), "torture", PARTITIONS as i32);
    let instances = two_instances(&topic);
    let load = Load::start(&topic, RATE);
    let report = tortured(&instances, 6, 8, || ());
    let published = load.stop();
    let each = report["records"].as_u64().expect("a number") / 6;
    assert!((500..=published.len() as u64).contains(&each), "{each} records at each client, {}", published.len());
    assert!(report["connections"].as_u64() > Some(6) && report["faults"].as_object().is_some_and(|f| f.len() >= 4));
}

#[test]
fn clients_that_misbehave_while_the_topic_is_made_anew_are_all_told_and_given_the_new_log() {
    let topic = Topic::create(services::kafka(), "torture-anew", PARTITIONS as i32);
    let instances = two_instances(&topic);
    let old = Load::start(&topic, RATE);
    let (mut new, begun) = (None, Instant::now());
    let report = tortured(&instances, 4, 24, || {
        let delivered = || instances[0].metric("dashstream_delivered_records_total", &[]);
        eventually("clients to have something of the old log", BOUND, || match delivered() {
            0.0 => Err("nobody has".to_owned()),
            _ => Ok(()),
        });
        drop(old.stop());
        topic.recreate(PARTITIONS as i32);
        new = Some((Load::start_as("anew", &topic, RATE), begun.elapsed()));
    });
    let (new, made_after) = new.expect("it was made anew");
    drop(new.stop());
    println!("made anew after {made_after:?}");
    // A machine that took most of the time for that leaves none to tell anybody.
    let told = report["resets"]["topic_recreated"].as_u64();
    assert!(told >= Some(PARTITIONS as u64) || made_after > Duration::from_secs(8), "{report}");
}

fn two_instances(topic: &Topic) -> [Service; 2] {
    let config = Config::new(topic)
        .unset("KAFKA_GROUP_INSTANCE_ID")
        .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 64 * 1024)
        .set("REPLAY_BUFFER_MEMORY_SIZE", 500);
    [Service::start_healthy(&config), Service::start_healthy(&config)]
}

/// What `dashstream torture` reports of a run in which something happens; no promise was broken.
fn tortured(instances: &[Service], clients: u32, seconds: u32, meanwhile: impl FnOnce()) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashstream"));
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    command.args(["torture", "--seed", "1", "--clients", &clients, "--seconds", &seconds, "--patience", "60"]);
    command.arg("--json").env_clear().stdout(Stdio::piped());
    for instance in instances {
        command.args(["--at", instance.address()]);
    }
    let running = command.spawn().expect("the binary can be run");
    meanwhile();
    let output = running.wait_with_output().expect("its output can be read");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    println!("{report}");
    assert_eq!((output.status.code(), &report["violations"]), (Some(0), &json!(0)), "{report}");
    report
}
