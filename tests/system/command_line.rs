//! The commands that read the topic and show it: every message once, from the right place, and nobody is disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dashstream::wire::telemetry::DashStreamMessage;
use dashstream::wire::telemetry::dash_stream_message::Message;
use nix::sys::signal::Signal;
use prost::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::harness::client::{Client, From};
use crate::harness::command::{Live, done, run, variables};
use crate::harness::producer::{Producer, Published};
use crate::harness::records::{self, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::run_commands::{tellers, told_of};

const BOUND: Duration = Duration::from_secs(60);

/// Every command that reads the topic and ends by itself, and what it is given so that its output names the thread.
const READERS: [(&str, &[&str]); 3] =
    [("tail", &["-B", "--no-follow"]), ("replay", &[]), ("export", &["--format", "jsonl"])];

fn publish(topic: &Topic, records: impl IntoIterator<Item = Outgoing>) -> Published {
    Producer::new(&topic.kafka).publish(&topic.name, records)
}

/// Where each message of the topic lies, and its number in the header: as `--json` shows it.
fn places(messages: &[Value]) -> Vec<(i64, String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let place = |message: &Value| {
        let partition = message["partition"].as_i64().expect("a number");
        (partition, text(&message["offset"]), text(&message["header"]["sequence"]))
    };
    messages.iter().map(place).collect()
}

#[test]
fn tail_prints_exactly_a_line_for_each_of_five_messages_also_of_a_batch() {
    let topic = Topic::create(services::kafka(), "tail", 1);
    publish(&topic, [records::good("before", 1)]);
    let mut tail = Live::start_until(&["tail"], &variables(&topic), "following");
    publish(&topic, [records::good("t", 1), records::zstd("t", 2, 2_000), records::batch("t", 3, 3)]);
    tail.wait_for_lines(5);
    // One partition: when the last one has come, nothing else comes for those before it.
    publish(&topic, [records::garbage("t"), records::good("last", 1)]);
    let lines = tail.wait_for_lines(6);
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let places: Vec<_> = cells.iter().map(|cells| (cells[1], cells[2], cells[3], cells[4], cells[5])).collect();
    let of = |place, thread| (place, thread, "NODE_END", "research", "1.5ms");
    let expected =
        [of("0:1", "t"), of("0:2", "t"), of("0:3", "t"), of("0:3#1", "t"), of("0:3#2", "t"), of("0:5", "last")];
    assert_eq!(places, expected);
    assert!(cells.iter().all(|cells| cells[0].len() == 24 && cells[0].ends_with('Z')), "{cells:?}");
    let bad = tail.wait_for_note("cannot be read");
    assert!(bad.contains("partition 0, offset 4") && bad.contains("invalid_protobuf"), "{bad}");
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.wait_for_exit(), Some(0));
    assert_eq!(tail.lines().len(), 6);
    assert!(tail.wait_for_note("not shown").contains("1 invalid_protobuf"));
}

#[test]
fn tail_shows_what_is_asked_for_and_counts_what_it_prints() {
    let topic = Topic::create(services::kafka(), "asked", 2);
    let mut all = records::of_each_kind("kinds");
    all.extend((1..=5).map(|number| records::good("t", number)));
    all.push(records::of_tenant("acme", "a", 1, true));
    publish(&topic, all);
    let tail = |arguments: &[&str]| {
        let arguments = [&["tail", "--no-follow", "--json"], arguments].concat();
        done(&arguments, &variables(&topic)).json()
    };
    assert_eq!(tail(&[]).len(), 15);
    assert_eq!(tail(&["--thread", "t", "-n", "3"]).len(), 3, "three that are shown, whatever was passed over");
    assert_eq!(tail(&["--tenant", "acme"])[0]["header"]["thread_id"], "a");
    let kinds = |arguments: &[&str]| -> BTreeSet<String> {
        tail(arguments).iter().map(|message| message["kind"].as_str().expect("a kind").to_owned()).collect()
    };
    assert_eq!(kinds(&["--type", "error,StateDiff"]), ["error", "state_diff"].map(str::to_owned).into());
    assert_eq!(kinds(&["--type", "NODE_END"]), ["event".to_owned()].into());
    assert_eq!(tail(&["--type", "node-end"]).len(), 7, "six single ones and one of a batch");
    assert_eq!((tail(&["--since", "1h"]).len(), tail(&["--until", "1h"]).len()), (15, 0));
    let refused = run(&["tail", "--type", "NODE_STAR"], &variables(&topic));
    assert!(refused.code == 64 && refused.err.contains("did you mean NODE_START?"), "{}", refused.err);
    // A reader that has seen enough is no failure, and ends the command.
    let mut followed = Live::start_until(&["tail", "-B", "-n", "15"], &variables(&topic), "following");
    assert_eq!(followed.wait_for_exit(), Some(0));
    assert_eq!(followed.lines().len(), 15);
}

#[test]
fn replay_of_a_finished_run_is_what_was_produced() {
    let topic = Topic::create(services::kafka(), "replay", 3);
    // A record that was sent late, and others' records among them.
    let numbers = [1, 2, 4, 3, 5, 6];
    let run: Vec<Outgoing> = numbers.iter().map(|number| records::good_of_size("run", *number, 300)).collect();
    let others = (1..=20).map(|number| records::good(&format!("other-{}", number % 4), number));
    let published = publish(&topic, run.into_iter().chain(others));
    let mut produced: Vec<(u64, Vec<u8>, Value)> = published
        .records
        .values()
        .filter(|sent| sent.key == "run")
        .map(|sent| {
            let value = sent.value.as_ref().expect("a value");
            let message = DashStreamMessage::decode(&value[1..]).expect("a message").message;
            let Some(Message::Event(event)) = message else { panic!("an event") };
            let header = event.header.expect("a header");
            let text = match event.attributes["text"].value.as_ref() {
                Some(dashstream::wire::telemetry::attribute_value::Value::StringValue(text)) => text.clone(),
                other => panic!("{other:?}"),
            };
            (header.sequence, header.message_id, Value::from(text))
        })
        .collect();
    produced.sort_by_key(|(sequence, ..)| *sequence);
    let replayed = done(&["replay", "--thread", "run", "--json"], &variables(&topic)).json();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected: Vec<_> =
        produced.iter().map(|(sequence, id, text)| (sequence.to_string(), hex(id), text.clone())).collect();
    let found: Vec<_> = replayed
        .iter()
        .map(|message| {
            let header = &message["header"];
            let text = message["event"]["attributes"]["text"]["string_value"].clone();
            let of = |name: &str| header[name].as_str().expect("a text").to_owned();
            (of("sequence"), of("message_id"), text)
        })
        .collect();
    assert_eq!(found, expected);
    let all = done(&["replay"], &variables(&topic));
    assert_eq!((all.out.lines().count(), all.err.contains("26 messages")), (26, true), "{}", all.err);
    let nobody = run_code(&["replay", "--thread", "nobody"], &topic);
    assert!(nobody.0 == 1 && nobody.1.contains("no message that is meant"), "{nobody:?}");
    let nowhere = run_code(&["replay", "--thread", "run", "--from-checkpoint", "00ff"], &topic);
    assert!(nowhere.0 == 1 && nowhere.1.contains("00ff"), "{nowhere:?}");
    let blind = run_code(&["replay", "--pause-on-error"], &topic);
    assert!(blind.0 == 64 && blind.1.contains("terminal"), "{blind:?}");
}

fn run_code(arguments: &[&str], topic: &Topic) -> (i32, String) {
    let ran = run(arguments, &variables(topic));
    (ran.code, ran.err)
}

#[test]
fn replay_keeps_the_pace_and_begins_behind_a_checkpoint() {
    use dashstream::wire::telemetry as t;
    let topic = Topic::create(services::kafka(), "pace", 1);
    let message = |sequence: u64, at_ms: i64, checkpoint: Option<u8>| {
        let header = t::Header {
            thread_id: "run".into(),
            sequence,
            timestamp_us: 1_769_860_800_000_000 + at_ms * 1_000,
            schema_version: 1,
            ..t::Header::default()
        };
        let header = Some(header);
        let message = match checkpoint {
            Some(id) => Message::Checkpoint(t::Checkpoint { header, checkpoint_id: vec![id], ..Default::default() }),
            None => Message::Event(t::Event { header, event_type: 10, ..Default::default() }),
        };
        let value = [vec![0], DashStreamMessage { message: Some(message) }.encode_to_vec()].concat();
        Outgoing::new("run", Some(value), records::Expect::Record)
    };
    let run = [
        message(1, 0, None),
        message(2, 1, Some(0xab)),
        message(3, 10, None),
        message(4, 20, Some(0xcd)),
        message(5, 2_010, None),
    ];
    publish(&topic, run);
    let replay = |arguments: &[&str]| {
        let arguments = [&["replay", "--thread", "run", "--json"], arguments].concat();
        let ran = done(&arguments, &variables(&topic)).json();
        places(&ran).into_iter().map(|(_, _, number)| number).collect::<Vec<_>>()
    };
    assert_eq!(replay(&["--from-checkpoint", "AB"]), ["3", "4", "5"]);
    assert_eq!(replay(&["--from-checkpoint", "cd"]), ["5"]);
    let begun = Instant::now();
    assert_eq!(replay(&["--speed", "1"]), ["1", "2", "3", "4", "5"]);
    assert!(begun.elapsed() >= Duration::from_millis(2_010), "{:?}", begun.elapsed());
    // At a hundredth of the speed the last one is minutes away; a signal ends the wait.
    let arguments = ["replay", "--thread", "run", "--speed", "0.01"];
    let mut slow = Live::start(&arguments, &variables(&topic));
    slow.wait_for_lines(4);
    slow.signal(Signal::SIGTERM);
    assert_eq!(slow.wait_for_exit(), Some(0));
    assert_eq!(slow.lines().len(), 4);
}

#[test]
fn an_export_read_again_has_as_many_messages_as_were_produced_in_each_form() {
    let topic = Topic::create(services::kafka(), "export", 3);
    let mut all = records::of_each_kind("run");
    all.extend((1..=30).map(|number| records::zstd("run", number, 3_000)));
    all.push(records::batch("run", 31, 7));
    all.extend((1..=5).map(|number| records::good("other", number)));
    publish(&topic, all);
    let (of_run, of_all) = (9 + 30 + 7, 9 + 30 + 7 + 5);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out");
    let path = path.to_str().expect("a readable path");
    let export = |arguments: &[&str]| done(&[&["export"], arguments].concat(), &variables(&topic));

    let json: Value = serde_json::from_str(&export(&["--thread", "run"]).out).expect("standard output is JSON alone");
    assert_eq!(json.as_array().expect("an array").len(), of_run);
    let told = export(&["--pretty", "-o", path]);
    assert!(told.out.is_empty() && told.err.contains(&format!("{of_all} messages")), "{told:?}");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON");
    let kinds: BTreeSet<&str> =
        json.as_array().expect("an array").iter().map(|message| message["kind"].as_str().expect("a kind")).collect();
    assert_eq!((json.as_array().expect("an array").len(), kinds.len()), (of_all, 8));

    let refused = run_code(&["export", "-o", path, "--format", "jsonl"], &topic);
    assert!(refused.0 == 1 && refused.1.contains("--force"), "{refused:?}");
    export(&["-o", path, "--format", "jsonl", "--force"]);
    let lines = std::fs::read_to_string(path).expect("the file");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), of_all);

    let table = export(&["--format", "csv", "--thread", "run"]).out;
    // What these records say holds no line ends.
    let rows: Vec<&str> = table.split_terminator("\r\n").collect();
    assert_eq!((rows.len(), rows[0].starts_with("partition,offset,")), (1 + of_run, true));
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(names.len(), 1, "nothing is left beside the file");

    let empty = export(&["--thread", "nobody"]);
    assert!(empty.out == "[]\n" && empty.err.contains("empty"), "{empty:?}");
    assert_eq!(run_code(&["export", "--format", "csv", "--pretty"], &topic).0, 64);
}

#[test]
fn commands_side_by_side_see_everything_and_leave_a_live_group_as_it_is() {
    let topic = Topic::create(services::kafka(), "beside", 3);
    let config = Config::new(&topic);
    let service = Service::start_healthy(&config);
    let group = config.group();
    let tails = [(); 2].map(|()| Live::start_until(&["tail", "--json"], &variables(&topic), "following"));
    let published = publish(
        &topic,
        (1..=60).map(|number| records::good(&format!("t{}", number % 7), number).on_partition(number as i32 % 3)),
    );
    topic.wait_until_all_committed(group, BOUND);
    let committed = topic.committed(group);
    let expected: BTreeSet<(i64, String)> =
        published.records.keys().map(|(partition, offset)| (i64::from(*partition), offset.to_string())).collect();
    for tail in &tails {
        let lines = tail.wait_for_lines(60);
        let messages: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let seen: BTreeSet<_> =
            places(&messages).into_iter().map(|(partition, offset, _)| (partition, offset)).collect();
        assert_eq!((seen, lines.len()), (expected.clone(), 60));
    }
    for (command, arguments) in READERS {
        let ran = done(&[&[command], arguments].concat(), &variables(&topic));
        assert_eq!(ran.out.lines().count(), 60, "{command}");
    }
    assert_eq!(topic.committed(group), committed, "nothing was committed for the group");
    assert_eq!(topic.committed("dashstream-cli"), BTreeMap::new(), "nor for another one");
    assert_eq!(service.verdict().expect("a verdict").0, "healthy", "no member was put out");
}

#[test]
fn brokers_and_topic_come_from_variables_and_options_win() {
    let topic = Topic::create(services::kafka(), "variables", 2);
    let other = Topic::create(services::kafka(), "other", 1);
    publish(&topic, [records::good("thread-of-the-one", 1)]);
    publish(&other, [records::good("thread-of-the-other", 1)]);
    let none = "127.0.0.1:1".to_owned();
    for (command, arguments) in READERS {
        let run = |options: &[&str], brokers: &str, of: &str| {
            let variables = [("KAFKA_BROKERS", brokers.to_owned()), ("KAFKA_TOPIC", of.to_owned())];
            done(&[&[command], arguments, options].concat(), &variables).out
        };
        let by_variables = run(&[], &topic.kafka, &topic.name);
        assert!(by_variables.contains("thread-of-the-one"), "{command}: {by_variables}");
        for (brokers, name) in [("--brokers", "--topic"), ("-b", "-t"), ("--bootstrap-servers", "--topic")] {
            let by_options = run(&[brokers, &topic.kafka, name, &other.name], &none, &topic.name);
            assert!(by_options.contains("thread-of-the-other"), "{command}: {by_options}");
            assert!(!by_options.contains("thread-of-the-one"), "{command}: {by_options}");
        }
    }
}

#[test]
fn commands_and_service_share_the_default_topic() {
    for (command, _) in READERS {
        let help = done(&[command, "--help"], &[]).out;
        assert!(help.contains("[default: dashstream-quality]"), "{command}: {help}");
    }
    let topic = Topic { name: "dashstream-quality".into(), kafka: services::kafka().to_owned() };
    topic.create_now(1);
    let service = Service::start_healthy(&Config::new(&topic).unset("KAFKA_TOPIC"));
    let browser = Client::from(service.address(), From::Earliest);
    let brokers = [("KAFKA_BROKERS", topic.kafka.clone())];
    let tail = Live::start_until(&["tail"], &brokers, "following dashstream-quality");
    let published = publish(&topic, told_of("seen-by-all"));
    browser.wait_for_all(&published, BOUND);
    assert!(tail.wait_for_lines(1)[0].contains("seen-by-all"));
    for (command, arguments) in READERS {
        assert!(done(&[&[command], arguments].concat(), &brokers).out.contains("seen-by-all"), "{command}");
    }
    for arguments in tellers("seen-by-all") {
        assert!(done(&arguments, &brokers).out.contains("seen-by-all"), "{arguments:?}");
    }
    let watch = Live::start(&["watch", "--json"], &brokers);
    assert!(watch.wait_for_lines(1)[0].contains("seen-by-all"));
}

#[test]
fn a_message_in_each_of_eight_partitions_is_seen_by_every_command() {
    let topic = Topic::create(services::kafka(), "eight", 8);
    let tail = Live::start_until(&["tail"], &variables(&topic), "8 partitions");
    let threads: Vec<String> = (0..8).map(|number| format!("thread-{number}")).collect();
    publish(&topic, (0..8).map(|number| records::good(&threads[number as usize], 1).on_partition(number)));
    let live = tail.wait_for_lines(8).join("\n");
    for (command, arguments) in READERS {
        let out = done(&[&[command], arguments].concat(), &variables(&topic)).out;
        assert!(threads.iter().all(|thread| out.contains(thread) && live.contains(thread)), "{command}: {out} {live}");
    }
}

#[test]
fn what_retention_took_before_it_was_read_is_named() {
    let topic = Topic::create(services::kafka(), "retention", 1);
    let mut tail = Live::start_until(&["tail", "--json"], &variables(&topic), "following");
    tail.signal(Signal::SIGSTOP);
    publish(&topic, (1..=100).map(|number| records::good("t", number)));
    topic.delete_records(0, 90);
    tail.signal(Signal::SIGCONT);
    let note = tail.wait_for_note("lost, retention");
    // Everything is shown or named, and nothing both: what was under way when the command stood still has come.
    let numbers: Vec<i64> = note
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().expect("a number"))
        .collect();
    let [partition, from, to] = numbers[..] else { panic!("{note}") };
    assert_eq!((partition, to), (0, 89), "{note}");
    let lines = tail.wait_for_lines(usize::try_from(from + 10).expect("few"));
    let messages: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let shown: Vec<String> = places(&messages).into_iter().map(|(_, offset, _)| offset).collect();
    let expected: Vec<String> = (0..from).chain(90..100).map(|offset| offset.to_string()).collect();
    assert_eq!(shown, expected, "{note}");
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.wait_for_exit(), Some(0));
    let lost = tail.wait_for_note("not shown");
    assert!(lost.contains(&format!(": {}", 90 - from)), "{lost}");
}

#[test]
fn reading_ends_where_the_log_ends_without_a_record() {
    let topic = Topic::create(services::kafka(), "markers", 2);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &topic.kafka)
        .set("transactional.id", &topic.name)
        .create()
        .expect("valid producer settings");
    producer.init_transactions(BOUND).expect("transactions");
    for (number, commits) in [(1, true), (2, false), (3, true), (4, false)] {
        producer.begin_transaction().expect("a transaction");
        let record = records::good("t", number);
        let value = record.value.expect("a value");
        producer.send(BaseRecord::to(&topic.name).key("t").payload(&value[..]).partition(0)).expect("it is taken");
        producer.flush(BOUND).expect("it is sent");
        if commits { producer.commit_transaction(BOUND) } else { producer.abort_transaction(BOUND) }.expect("its end");
    }
    assert_eq!(topic.watermarks(0), (0, 8));
    for (command, arguments) in READERS {
        let ran = done(&[&[command], arguments].concat(), &variables(&topic));
        assert_eq!(ran.out.lines().count(), 2, "{command}: {ran:?}");
    }
    topic.delete_records(0, 8);
    assert_eq!(done(&["export"], &variables(&topic)).out, "[]\n", "a log that has nothing left");
}

#[test]
fn a_tail_follows_a_topic_that_grows_or_is_made_anew() {
    let topic = Topic::create(services::kafka(), "grows", 1);
    let tail = Live::start_until(&["tail"], &variables(&topic), "following");
    publish(&topic, (1..=3).map(|number| records::good("old", number)));
    tail.wait_for_lines(3);
    topic.grow(2);
    publish(&topic, [records::good("grown", 1).on_partition(1)]);
    assert!(tail.wait_for_lines(4)[3].contains("grown"));
    topic.recreate(1);
    publish(&topic, [records::good("anew", 1)]);
    assert!(tail.wait_for_lines(5)[4].contains("anew"));
    tail.wait_for_note("anew");
}

#[test]
fn what_cannot_be_read_is_said_within_half_a_minute() {
    let topic = Topic::planned(services::kafka(), "missing");
    for (command, arguments) in READERS {
        let ran = run(&[&[command], arguments].concat(), &variables(&topic));
        assert!(ran.code == 1 && ran.err.contains("does not exist") && ran.out.is_empty(), "{command}: {ran:?}");
    }
    let begun = Instant::now();
    let away = [("KAFKA_BROKERS", "127.0.0.1:1".to_owned())];
    let ran = run(&["export"], &away);
    assert!(ran.code == 1 && ran.err.contains("KAFKA_BROKERS") && ran.out.is_empty(), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_tail_waits_for_brokers_that_are_away_and_goes_on() {
    let kafka = services::kafka_behind_proxy();
    let topic = Topic::create(&kafka.direct, "away", 1);
    let behind = [("KAFKA_BROKERS", kafka.proxy.address()), ("KAFKA_TOPIC", topic.name.clone())];
    let tail = Live::start_until(&["tail"], &behind, "following");
    publish(&topic, [records::good("before", 1)]);
    tail.wait_for_lines(1);
    kafka.proxy.cut();
    tail.wait_for_note("waiting until");
    publish(&topic, [records::good("meanwhile", 2)]);
    kafka.proxy.heal();
    assert!(tail.wait_for_lines(2)[1].contains("meanwhile"));
    tail.wait_for_note("answers again");
    assert_eq!(tail.notes().iter().filter(|note| note.contains("waiting until")).count(), 1, "it is said once");
}
