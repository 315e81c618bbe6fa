//! `dashstream dlq`: letters are found, records are published again exactly once and as they were, and what was done is
//! written down.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Client, From};
use crate::harness::dead_letters;
use crate::harness::eventually::eventually;
use crate::harness::producer::{Producer, Published};
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const LIMIT: usize = 64 * 1024;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.json().iter().map(|line| line["key"].as_str().expect("a key").to_owned()).collect()
    }
}

/// Runs `dashstream dlq …` for the letters of a topic.
fn dlq(topic: &Topic, arguments: &[&str]) -> Ran {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .arg("dlq")
        .args(arguments)
        .env_clear()
        .envs([
            ("KAFKA_BROKERS", &*topic.kafka),
            ("KAFKA_TOPIC", &*topic.name),
            ("USER", "tester"),
            ("RUST_LOG", "off"),
        ])
        .output()
        .expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

fn config(topic: &Topic) -> Config {
    Config::new(topic).set("WEBSOCKET_MAX_PAYLOAD_BYTES", LIMIT)
}

fn publish(topic: &Topic, records: impl IntoIterator<Item = Outgoing>) -> Published {
    let on = records.into_iter().map(|record| if record.partition.is_none() { record.on_partition(0) } else { record });
    Producer::new(&topic.kafka).publish(&topic.name, on)
}

fn key(topic: &Topic, partition: i32, offset: i64) -> String {
    format!("{}-{partition}-{offset}", topic.name)
}

#[test]
fn letters_are_listed_by_every_filter_page_by_page_and_inspected() {
    let topic = Topic::create(services::kafka(), "dlq-list", 2);
    let letters = topic.beside("dlq", 2);
    let service = Service::start_healthy(&config(&topic));
    let header = b"a\x1b[31m".as_slice();
    publish(
        &topic,
        [
            records::garbage("red").with_header("colour", header),
            records::of_schema_version("blue", 9),
            records::null("none").on_partition(1),
            records::garbage("green").on_partition(1),
        ],
    );
    topic.wait_until_all_committed(service.config().group(), BOUND);
    eventually("four letters", BOUND, || match letters.watermarks(0).1 + letters.watermarks(1).1 {
        4 => Ok(()),
        there => Err(there.to_string()),
    });
    let committed = topic.committed(service.config().group());
    let all = [key(&topic, 0, 0), key(&topic, 0, 1), key(&topic, 1, 0), key(&topic, 1, 1)];
    let listed = |arguments: &[&str]| {
        let ran = dlq(&topic, &[&["list", "--json"], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let mut keys = ran.keys();
        keys.sort();
        keys
    };
    for (filter, expected) in [
        (&[][..], &all[..]),
        (&["--kind", "invalid_protobuf"], &[all[0].clone(), all[3].clone()]),
        (&["--kind", "schema_version", "--kind", "payload_missing"], &all[1..3]),
        (&["--partition", "1"], &all[2..]),
        (&["--thread", "blue"], &all[1..2]),
        (&["--tenant", "tenant-1"], &all[1..2]),
        (&["--topic", &topic.name], &all),
        (&["--since", "1h"], &all),
        (&["--until", "1h"], &[]),
        (&["--since", "2100-01-01T00:00:00Z"], &[]),
    ] {
        assert_eq!(listed(filter), expected, "{filter:?}");
    }
    // Page by page everything comes once.
    let (mut found, mut from) = (Vec::new(), None::<String>);
    loop {
        let cursor: Vec<&str> = from.as_deref().map_or(Vec::new(), |from| vec!["--from", from]);
        let page = dlq(&topic, &[&["list", "--json", "--limit", "1"], &cursor[..]].concat());
        let Some(last) = page.json().pop() else { break };
        found.extend(page.keys());
        from = Some(last["cursor"].as_str().expect("a cursor").to_owned());
    }
    found.sort();
    assert_eq!(found, all);

    let table = dlq(&topic, &["list", "--limit", "3"]);
    assert!(table.out.contains("KIND") && table.out.contains("more may follow: --from "), "{}", table.out);
    let shown = dlq(&topic, &["inspect", &all[0]]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains("invalid_protobuf") && shown.out.contains("colour: a\\u{1b}[31m"), "{}", shown.out);
    let shown = dlq(&topic, &["inspect", &all[1], "--json"]).json().remove(0);
    assert_eq!((&shown["letter"]["error_type"], &shown["state"]), (&"schema_version".into(), &"open".into()));
    let absent = dlq(&topic, &["inspect", "no-such-letter"]);
    assert!(absent.code == 1 && absent.err.contains("there is no letter no-such-letter"), "{}", absent.err);
    // All of them saw everything, and nobody's place was moved: neither the live group's nor one of the commands' own.
    assert_eq!(topic.committed(service.config().group()), committed);
    for looked_at in [&topic, &letters] {
        assert_eq!(looked_at.committed("dashstream-cli"), BTreeMap::new(), "{}", looked_at.name);
    }
}

#[test]
fn records_are_published_again_once_as_they_were_and_never_in_circles() {
    let topic = Topic::create(services::kafka(), "dlq-replay", 2);
    let letters = topic.beside("dlq", 1);
    let strict = config(&topic);
    let mut service = Service::start_healthy(&strict);
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
    let large = |thread| records::oversized(thread, 2 * LIMIT).with_header("traceparent", trace).on_partition(1);
    let published = publish(&topic, [large("a"), large("b"), records::garbage("bad"), records::null("bad")]);
    dead_letters::wait_for(&letters, 4, BOUND);
    let sizes = || (topic.watermarks(0).1, topic.watermarks(1).1, letters.watermarks(0).1);
    assert_eq!(sizes(), (2, 2, 4));

    // Which ones has to be said, and without --yes nothing is written.
    assert_eq!(dlq(&topic, &["replay", "--yes"]).code, 64);
    let dry = dlq(&topic, &["replay", "--kind", "payload_too_large"]);
    assert_eq!((dry.code, sizes()), (0, (2, 2, 4)), "{}{}", dry.out, dry.err);
    assert!(dry.out.contains("2 would be published, 0 refused; nothing was written"), "{}", dry.out);

    // The service takes larger records now.
    drop(service);
    service = Service::start_healthy(&strict.set("WEBSOCKET_MAX_PAYLOAD_BYTES", 10 * LIMIT));
    let client = Client::from(service.address(), From::Latest);
    let ran = dlq(&topic, &["replay", "--kind", "payload_too_large", "--yes", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.json().iter().all(|line| line["action"] == "published" && line["taken_from"] == "topic"),
        "{}",
        ran.out
    );
    client.wait_until("both records", BOUND, |ledger| match ledger.received {
        2 => Ok(()),
        received => Err(received.to_string()),
    });
    let again = records::read(&topic, 1, 2);
    for ((_, before), after) in published.records.range((1, 0)..).zip(&again) {
        assert_eq!((Some(before.key.as_bytes()), &before.value), (after.key.as_deref(), &after.value));
        let header = |name: &str| after.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..]);
        assert_eq!(header("traceparent"), Some(trace));
        assert_eq!(header("dashstream-replayed-from"), Some(key(&topic, 1, before.offset).as_bytes()));
    }
    // They are settled: a second run finds nothing, and the list says what became of them.
    let second = dlq(&topic, &["replay", "--kind", "payload_too_large", "--yes"]);
    assert!(second.code == 1 && second.err.contains("no open letter"), "{}", second.err);
    let listed = dlq(&topic, &["list", "--all", "--json"]).json();
    let mut states: Vec<&str> = listed.iter().map(|line| line["state"].as_str().expect("a state")).collect();
    // Which partition's letters come first is not promised.
    states.sort_unstable();
    assert_eq!(states, ["open", "open", "replayed", "replayed"]);

    // What cannot be decoded fails again; its second letter is refused unless asked for once more.
    let ran = dlq(&topic, &["replay", "--all", "--yes"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("refused: the record had no payload") && ran.out.contains("1 published, 1 refused"),
        "{}",
        ran.out
    );
    // Four letters, three tombstones, and the letter of the record that failed again.
    eventually("a letter of its second failure", BOUND, || match letters.watermarks(0).1 {
        8 => Ok(()),
        end => Err(end.to_string()),
    });
    let circle = dlq(&topic, &["replay", "--kind", "invalid_protobuf", "--yes"]);
    assert!(
        circle.code == 1 && circle.out.contains("was published again before") && circle.out.contains("--again"),
        "{}",
        circle.out
    );
    assert_eq!(dlq(&topic, &["replay", "--kind", "invalid_protobuf", "--again"]).code, 0);
}

#[test]
fn what_the_topic_has_lost_comes_from_the_letter_or_is_refused_by_name() {
    let topic = Topic::create(services::kafka(), "dlq-lost", 1);
    let letters = topic.beside("dlq", 1);
    let service = Service::start_healthy(&config(&topic).set("DLQ_INCLUDE_FULL_PAYLOAD", "true"));
    let published =
        publish(&topic, [records::garbage("whole"), records::oversized("cut", 600 * 1024), records::good("good", 0)]);
    dead_letters::wait_for(&letters, 2, BOUND);
    drop(service);
    topic.delete_records(0, 2);
    let (whole, cut) = (key(&topic, 0, 0), key(&topic, 0, 1));

    let ran = dlq(&topic, &["replay", "--all", "--yes", "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let lines = ran.json();
    assert_eq!((&lines[0]["key"], &lines[0]["taken_from"]), (&whole.clone().into(), &"letter".into()), "{}", ran.out);
    let reason = lines[1]["reason"].as_str().expect("a reason");
    assert_eq!((&lines[1]["key"], &lines[1]["action"]), (&cut.clone().into(), &"refused".into()));
    assert!(reason.contains("the first 524288 of ") && reason.contains("no longer has it"), "{reason}");
    let again = records::read(&topic, 0, 3);
    let before = &published.records[&(0, 0)];
    assert_eq!((again[0].key.as_deref(), &again[0].value), (Some(before.key.as_bytes()), &before.value));

    // Payloads are shown only when asked for.
    let quiet = dlq(&topic, &["inspect", &whole, "--json"]).json().remove(0);
    assert!(quiet["letter"].get("payload_base64").is_none(), "{quiet}");
    let loud = dlq(&topic, &["inspect", &whole, "--show-payload"]);
    assert!(loud.out.contains("000000  00 ff ff"), "{}", loud.out);

    // What is given up is settled, with who and why.
    assert_eq!(dlq(&topic, &["discard", &cut, "--yes"]).code, 64, "a reason is asked for");
    let dry = dlq(&topic, &["discard", &cut, "--reason", "too old"]);
    assert!(dry.code == 0 && dry.out.contains("1 would be discarded; nothing was written"), "{}", dry.out);
    let did = dlq(&topic, &["discard", &cut, "--reason", "too old", "--yes"]);
    assert!(did.code == 0 && did.out.contains("1 discarded"), "{}{}", did.out, did.err);
    assert!(dlq(&topic, &["list", "--json"]).out.is_empty(), "nothing is open");
    let (_, end) = letters.watermarks(0);
    let tombstone = records::read(&letters, 0, end - 1).remove(0);
    assert_eq!((tombstone.key.as_deref(), &tombstone.value), (Some(cut.as_bytes()), &None));
    let said = |name: &str| {
        let header = tombstone.headers.iter().find(|(found, _)| found == name);
        header.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    assert_eq!(
        (said("dashstream-dlq-action"), said("dashstream-dlq-by")),
        ("discarded".to_owned(), "tester".to_owned())
    );
    assert!(said("dashstream-dlq-note") == "too old" && said("dashstream-dlq-at").ends_with('Z'));
}

#[test]
fn errors_say_what_to_do() {
    let topic = Topic::create(services::kafka(), "dlq-errors", 1);
    let missing = dlq(&topic, &["list"]);
    assert!(
        missing.code == 1 && missing.err.contains("-dlq does not exist; name the right one with --dlq-topic"),
        "{}",
        missing.err
    );
    let away = dlq(&topic, &["list", "--brokers", "127.0.0.1:1"]);
    assert!(away.code == 1 && away.err.contains("check that brokers answer"), "{}", away.err);
    for wrong in [
        &["list", "--kind", "nonsense"][..],
        &["list", "--since", "yesterday"],
        &["list", "--from", "12"],
        &["list", "--limit", "0"],
        &["replay"],
        &["discard", "--all"],
        &["replay", "--all", "key"],
    ] {
        let ran = dlq(&topic, wrong);
        assert!(ran.code == 64 && ran.out.is_empty() && ran.err.starts_with("error: "), "{wrong:?}: {}", ran.err);
    }
    // What is no letter is shown as such, and stops nothing.
    let letters = topic.beside("dlq", 1);
    let stray = Outgoing::new("stray", Some(b"hello".to_vec()), Expect::Record).on_partition(0);
    Producer::new(&letters.kafka).publish(&letters.name, [stray]);
    let listed = dlq(&topic, &["list"]);
    assert!(listed.code == 0 && listed.out.contains("unreadable"), "{}{}", listed.out, listed.err);
    let refused = dlq(&topic, &["replay", "stray", "--yes"]);
    assert!(refused.code == 1 && refused.out.contains("this is no dead letter"), "{}", refused.out);
}
