//! `dashstream inspect`, `diff`, `profile`, `flamegraph`, `costs` and `watch` tell of runs what was published about them: runs made
//! by hand, with durations, tokens and nodes that one can add up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dashstream::wire::telemetry::attribute_value::Value as Attribute;
use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::diff_operation::OpType;
use dashstream::wire::telemetry::{
    AttributeValue, Checkpoint, DashStreamMessage, DiffOperation, Event, EventBatch, EventType, Header, StateDiff,
    TokenChunk, TokenStats,
};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::command::{self, Live, Ran, variables};
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records::{self, Expect, Outgoing};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
/// When all runs begin: 2026-01-31T12:00:00Z.
const START_US: i64 = 1_769_860_800_000_000;

fn dashstream(topic: &Topic, arguments: &[&str]) -> Ran {
    command::run(arguments, &variables(topic))
}

#[track_caller]
fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err))
}

/// A run that is being made: each message has the next number and an id of its own.
struct Maker {
    thread: String,
    sequence: u64,
    messages: Vec<Message>,
}

impl Maker {
    fn new(thread: &str) -> Self {
        Self { thread: thread.to_owned(), sequence: 0, messages: Vec::new() }
    }

    fn header(&mut self, at_us: i64) -> Option<Header> {
        self.sequence += 1;
        let id = Sha256::digest(format!("{} {}", self.thread, self.sequence));
        Some(Header {
            message_id: id[..16].to_vec(),
            timestamp_us: START_US + at_us,
            tenant_id: "acme".into(),
            thread_id: self.thread.clone(),
            sequence: self.sequence,
            schema_version: 1,
            ..Header::default()
        })
    }

    fn event(&mut self, at_us: i64, kind: EventType, node: &str) -> &mut Event {
        let header = self.header(at_us);
        self.messages.push(Message::Event(Event {
            header,
            event_type: kind.into(),
            node_id: node.into(),
            ..Event::default()
        }));
        match self.messages.last_mut() {
            Some(Message::Event(event)) => event,
            _ => unreachable!("it was just pushed"),
        }
    }

    fn node(&mut self, from_us: i64, took_us: i64, name: &str) {
        self.event(from_us, EventType::NodeStart, name);
        self.event(from_us + took_us, EventType::NodeEnd, name).duration_us = took_us;
    }

    fn call(&mut self, from_us: i64, took_us: i64, node: &str, (request, model): (&str, &str), tokens: (i64, i64)) {
        let text = |text: &str| AttributeValue { value: Some(Attribute::StringValue(text.into())) };
        let number = |number| AttributeValue { value: Some(Attribute::IntValue(number)) };
        let start = self.event(from_us, EventType::LlmStart, node);
        start.llm_request_id = request.into();
        start.attributes.insert("model".into(), text(model));
        let header = self.header(from_us + took_us);
        let count = |tokens: i64| u32::try_from(tokens).expect("few");
        let (prompt_tokens, completion_tokens) = (count(tokens.0), count(tokens.1));
        let stats = TokenStats { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
        self.messages.push(Message::TokenChunk(TokenChunk {
            header,
            request_id: request.into(),
            model: model.into(),
            is_final: true,
            stats: Some(stats),
            ..TokenChunk::default()
        }));
        let end = self.event(from_us + took_us, EventType::LlmEnd, node);
        end.llm_request_id = request.into();
        end.duration_us = took_us;
        end.attributes = BTreeMap::from([
            ("model".into(), text(model)),
            ("prompt_tokens".into(), number(tokens.0)),
            ("completion_tokens".into(), number(tokens.1)),
            ("cost_usd".into(), AttributeValue { value: Some(Attribute::FloatValue(0.1)) }),
        ]);
    }

    fn graph_start(&mut self, state: &Value) {
        let event = self.event(0, EventType::GraphStart, "");
        let text = |text: String| AttributeValue { value: Some(Attribute::StringValue(text)) };
        let schema = json!({"nodes": [{"name": "plan"}, {"name": "write"}]});
        event.attributes.insert("graph_name".into(), text("essay".into()));
        event.attributes.insert("graph_schema_json".into(), text(schema.to_string()));
        event.attributes.insert("initial_state_json".into(), text(state.to_string()));
    }

    fn set(&mut self, at_us: i64, field: &str, value: &Value, after: &Value) {
        let header = self.header(at_us);
        let operation = DiffOperation {
            op: OpType::Add.into(),
            path: format!("/{field}"),
            value: value.to_string().into_bytes(),
            ..DiffOperation::default()
        };
        let state_hash = Sha256::digest(after.to_string()).to_vec();
        let operations = vec![operation];
        self.messages.push(Message::StateDiff(StateDiff { header, operations, state_hash, ..StateDiff::default() }));
    }

    fn checkpoint(&mut self, at_us: i64, id: u8, state: &Value) {
        let header = self.header(at_us);
        self.messages.push(Message::Checkpoint(Checkpoint {
            header,
            checkpoint_id: vec![id; 16],
            state: state.to_string().into_bytes(),
            checksum: Sha256::digest(state.to_string()).to_vec(),
            ..Checkpoint::default()
        }));
    }

    fn graph_end(&mut self, took_us: i64) {
        self.event(took_us, EventType::GraphEnd, "").duration_us = took_us;
    }

    /// Takes the last message back.
    fn take_back(&mut self) {
        self.messages.pop();
        self.sequence -= 1;
    }

    /// One record per message.
    fn records(self) -> Vec<Outgoing> {
        let thread = self.thread;
        self.messages.into_iter().map(|message| record(&thread, message)).collect()
    }

    /// The same with all events in a row packed together, as producers do it that batch.
    fn batched(self) -> Vec<Outgoing> {
        let (thread, mut records, mut events) = (self.thread, Vec::new(), Vec::new());
        let pack = |events: &mut Vec<Event>, records: &mut Vec<Outgoing>| {
            if !events.is_empty() {
                let header = Header { message_id: vec![9], thread_id: thread.clone(), ..Header::default() };
                let batch = EventBatch { header: Some(header), events: std::mem::take(events) };
                records.push(record(&thread, Message::EventBatch(batch)));
            }
        };
        for message in self.messages {
            match message {
                Message::Event(event) => events.push(event),
                other => {
                    pack(&mut events, &mut records);
                    records.push(record(&thread, other));
                }
            }
        }
        pack(&mut events, &mut records);
        records
    }
}

fn record(thread: &str, message: Message) -> Outgoing {
    let value = [vec![0], DashStreamMessage { message: Some(message) }.encode_to_vec()].concat();
    Outgoing::new(thread, Some(value), Expect::Record)
}

fn publish(topic: &Topic, records: Vec<Outgoing>) {
    Producer::new(&topic.kafka).publish(&topic.name, records);
}

/// 10 ms: plan 2 ms; two executions of research side by side, 3 ms each, with a call of 1 ms in each; write 1.5 ms.
fn essay(thread: &str) -> Maker {
    let (first, last) = (json!({"topic": "tea"}), json!({"text": "short", "topic": "tea"}));
    let mut run = Maker::new(thread);
    run.graph_start(&first);
    run.node(500, 2_000, "plan");
    run.checkpoint(2_600, 1, &first);
    run.event(3_000, EventType::NodeStart, "research");
    run.event(3_100, EventType::NodeStart, "research");
    run.call(3_200, 1_000, "research", ("r1", "atlas"), (1_000, 20));
    run.call(4_500, 1_000, "research", ("r2", "atlas"), (500, 10));
    run.event(6_000, EventType::NodeEnd, "research").duration_us = 3_000;
    run.event(6_100, EventType::NodeEnd, "research").duration_us = 3_000;
    run.node(7_000, 1_500, "write");
    run.set(8_600, "text", &json!("short"), &last);
    run.checkpoint(8_700, 2, &last);
    run.graph_end(10_000);
    run
}

#[test]
fn inspect_prints_what_was_produced() {
    let topic = Topic::create(services::kafka(), "inspect", 2);
    let mut records = essay("run-1").records();
    // One is lost, one is sent twice.
    let lost = records.remove(2);
    records.push(records[0].clone());
    publish(&topic, records);
    publish(&topic, essay("run-2").batched());

    let listed = dashstream(&topic, &["inspect", "--json"]);
    let threads: BTreeSet<String> = listed
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| format!("{} {} {} {}", line["thread"], line["status"], line["graph"], line["start_us"]))
        .collect();
    let line = |thread: &str| format!("\"{thread}\" \"completed\" \"essay\" \"{START_US}\"");
    assert_eq!(threads, BTreeSet::from([line("run-1"), line("run-2")]));

    let told = json(&dashstream(&topic, &["inspect", "run-1", "--json"]));
    for (field, expected) in [
        ("tenant", json!("acme")),
        ("thread", json!("run-1")),
        ("graph", json!("essay")),
        ("status", json!("completed")),
        ("start_us", json!(START_US.to_string())),
        ("end_us", json!((START_US + 10_000).to_string())),
        ("duration_us", json!("10000")),
        ("repeated", json!(1)),
        ("missing", json!([{"first": "3", "last": "3"}])),
        ("complete", json!(true)),
    ] {
        assert_eq!(told[field], expected, "{field}: {told}");
    }
    let text = dashstream(&topic, &["inspect", "--thread", "run-1", "--detailed"]);
    assert!(text.out.contains("1, numbers 3") && text.out.contains("2026-01-31T12:00:00.000Z"), "{}", text.out);
    assert_eq!(text.out.lines().filter(|line| line.contains("NODE_START")).count(), 5, "{}", text.out);
    let batched = json(&dashstream(&topic, &["inspect", "run-2", "--json"]));
    assert_eq!((&batched["missing"], &batched["events"]["NODE_START"]), (&json!([]), &json!(4)), "{batched}");
    let plan = batched["nodes"].as_array().expect("nodes").iter().find(|node| node["name"] == "plan");
    assert_eq!(plan.expect("the node")["total_us"], "2000");

    // A message by its id, and the one that lies at its place: as it was produced.
    let lost_id = header_of(&lost).message_id;
    assert_eq!(dashstream(&topic, &["inspect", "--message", &hex(&lost_id)]).code, 1);
    let id = Sha256::digest("run-1 15")[..16].to_vec();
    let message = json(&dashstream(&topic, &["inspect", "--message", &hex(&id), "--json"]));
    assert_eq!(message["header"]["sequence"], "15", "{message}");
    let place = format!("{}:{}", message["partition"], message["offset"].as_str().expect("an offset"));
    let same = json(&dashstream(&topic, &["inspect", "--message", &place, "--json"]));
    assert_eq!(same, message);
    assert_eq!(message["header"]["message_id"], hex(&id));
    assert_eq!(message["header"]["timestamp_us"], (START_US + 7_000).to_string());
    assert_eq!(
        (&message["event"]["event_type"], &message["event"]["node_id"]),
        (&json!("EVENT_TYPE_NODE_START"), &json!("write"))
    );

    let unknown = dashstream(&topic, &["inspect", "nobody"]);
    assert!(unknown.code == 1 && unknown.err.contains("no message of thread nobody"), "{}", unknown.err);
}

fn header_of(record: &Outgoing) -> Header {
    let value = record.value.as_ref().expect("a value");
    match DashStreamMessage::decode(&value[1..]).expect("a message").message {
        Some(Message::Event(event)) => event.header.expect("a header"),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn diff_reports_what_differs_and_nothing_else() {
    let topic = Topic::create(services::kafka(), "diff", 2);
    publish(&topic, essay("run-1").records());
    publish(&topic, essay("run-2").batched());
    let mut other = essay("run-3");
    other.take_back();
    other.node(8_800, 100, "review");
    let state = json!({"score": 7, "text": "short", "topic": "tea"});
    other.set(9_000, "score", &json!(7), &state);
    other.graph_end(10_000);
    publish(&topic, other.records());

    let same = dashstream(&topic, &["diff", "--thread", "run-1", "--with", "run-2", "--durations", "--tolerance", "0"]);
    assert_eq!((same.code, same.out.as_str()), (0, "no difference\n"), "{}", same.err);
    let differs = dashstream(&topic, &["diff", "--thread", "run-1", "--with", "run-3", "--json"]);
    assert_eq!(differs.code, 1, "{}", differs.err);
    assert_eq!(
        json(&differs)["differences"],
        json!([
            {"what": "node executions", "name": "review", "right": 1},
            {"what": "state", "name": "/score", "right": 7},
        ])
    );
    let [one, two] = [1_u8, 2].map(|id| hex(&[id; 16]));
    let states = ["diff", "--thread", "run-1", "--checkpoint1", &one, "--checkpoint2", &two, "--json"];
    let states = dashstream(&topic, &states);
    assert_eq!(
        (states.code, &json(&states)["differences"]),
        (1, &json!([{"what": "state", "name": "/text", "right": "short"}]))
    );
    let missing = dashstream(&topic, &["diff", "--thread", "run-1", "--checkpoint1", &one, "--checkpoint2", "ff"]);
    assert!(missing.code == 2 && missing.err.contains("has no checkpoint ff"), "{}", missing.err);
    let usage = dashstream(&topic, &["diff", "--thread", "run-1"]);
    assert!(usage.code == 64 && usage.err.contains("--with"), "{}", usage.err);
}

#[test]
fn a_state_that_cannot_be_rebuilt_is_told_and_not_guessed() {
    let topic = Topic::create(services::kafka(), "broken", 1);
    publish(&topic, essay("run-1").records());
    let mut broken = essay("run-2");
    // The last change is of a state that nobody has.
    broken.take_back();
    broken.set(9_000, "more", &json!(1), &json!({"other": "state"}));
    broken.graph_end(10_000);
    publish(&topic, broken.records());
    let ran = dashstream(&topic, &["diff", "--thread", "run-1", "--with", "run-2", "--json"]);
    let differences = json(&ran)["differences"].clone();
    assert_eq!(differences.as_array().map(Vec::len), Some(1), "{differences}");
    let told = differences[0]["right"].as_str().expect("a reason");
    assert!(told.starts_with("unknown: the hash of the patched state differs"), "{told}");
    assert!(ran.err.contains("cannot be told"), "{}", ran.err);
}

#[test]
fn profile_adds_up_to_the_durations_that_were_produced() {
    let topic = Topic::create(services::kafka(), "profile", 2);
    publish(&topic, essay("run-1").records());
    publish(&topic, essay("run-2").batched());
    for thread in ["run-1", "run-2"] {
        let told = json(&dashstream(&topic, &["profile", "--thread", thread, "--json"]));
        assert_eq!((&told["graphs"]["total_us"], &told["nodes_us"]), (&json!("10000"), &json!("9500")), "{told}");
        let row = |rows: &str, name: &str| {
            let rows = told[rows].as_array().expect("rows");
            rows.iter().find(|row| row["name"] == name).cloned().expect("the row")
        };
        let research = row("nodes", "research");
        for (field, expected) in [
            ("count", json!(2)),
            ("total_us", json!("6000")),
            ("average_us", json!("3000")),
            ("min_us", json!("3000")),
            ("max_us", json!("3000")),
            ("self_us", json!("4000")),
        ] {
            assert_eq!(research[field], expected, "{thread} {field}: {research}");
        }
        assert_eq!(row("models", "atlas")["total_us"], "2000");
        // Plan, both executions of research as long as one of them ran, write.
        assert_eq!(told["graphs"]["self_us"], (10_000 - 2_000 - 3_100 - 1_500).to_string());
    }
    let text = dashstream(&topic, &["profile", "--thread", "run-1", "--detailed", "--top", "1"]).out;
    assert!(text.contains("research") && !text.contains("write") && text.contains("60.0%"), "{text}");
}

#[test]
fn a_flame_graph_names_every_node_that_was_produced() {
    let topic = Topic::create(services::kafka(), "flame", 1);
    let mut run = essay("run-1");
    run.take_back();
    run.event(9_000, EventType::NodeStart, "left; behind");
    run.graph_end(10_000);
    publish(&topic, run.batched());
    let folded = dashstream(&topic, &["flamegraph", "--thread", "run-1"]).out;
    let mut stacks = BTreeMap::new();
    for line in folded.lines() {
        let (stack, micros) = line.rsplit_once(' ').expect("a stack and its time");
        assert!(!stack.contains(' '), "{line}");
        stacks.insert(stack, micros.parse::<u64>().expect("microseconds"));
    }
    let expected = BTreeMap::from([
        ("essay", 3_400),
        ("essay;plan", 2_000),
        ("essay;research", 4_000),
        ("essay;research;llm:atlas", 2_000),
        ("essay;write", 1_500),
        ("essay;left%3B%20behind", 0),
    ]);
    assert_eq!(stacks, expected);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.svg");
    let file = path.to_str().expect("a path");
    let ran = dashstream(&topic, &["flamegraph", "--thread", "run-1", "-o", file]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let svg = std::fs::read_to_string(&path).expect("the file");
    let texts = texts_of_xml(&svg);
    for name in ["essay", "plan", "research", "write", "left; behind", "llm:atlas"] {
        assert!(texts.iter().any(|text| text.contains(name)), "{name}: {texts:?}");
    }
    let again = dashstream(&topic, &["flamegraph", "--thread", "run-1", "-o", file]);
    assert!(again.code == 1 && again.err.contains("--force"), "{}", again.err);
}

/// The texts of a well-formed document; fails at one that is not.
fn texts_of_xml(xml: &str) -> Vec<String> {
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("a declaration");
    while let Some(at) = rest.find('<') {
        let text = rest[..at].trim();
        assert!(!text.contains('>') && !text.replace("&amp;", "").replace("&lt;", "").contains("& "), "{text}");
        if !text.is_empty() {
            texts.push(text.to_owned());
        }
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2) && !tag.contains('<'), "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().expect("a name").to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?}");
    texts
}

#[test]
fn costs_are_the_sums_that_were_produced() {
    let topic = Topic::create(services::kafka(), "costs", 2);
    publish(&topic, essay("run-1").records());
    publish(&topic, essay("run-2").batched());
    let mut other = Maker::new("run-3");
    other.call(0, 10, "sum", ("r1", "mini"), (7, 3));
    other.event(20, EventType::LlmStart, "sum").llm_request_id = "lost".into();
    // Everything twice, as after a lost acknowledgement.
    let records = other.records();
    publish(&topic, [records.clone(), records].concat());

    let prices = ["--price", "atlas=3,15", "--input-cost-per-million", "0.25", "--output-cost-per-million", "1.25"];
    let arguments = [&["costs", "--json", "--by-model", "--by-node", "--by-thread"][..], &prices[..]].concat();
    let told = json(&dashstream(&topic, &arguments));
    for (field, expected) in [
        ("calls", json!(5)),
        ("unknown_calls", json!(1)),
        ("input_tokens", json!("3007")),
        ("output_tokens", json!("63")),
        ("sent_cost_usd", json!("0.50")),
        // 3000 at 3, 60 at 15, 7 at 0.25, 3 at 1.25: millionths.
        ("priced_cost_usd", json!("0.0099055")),
    ] {
        assert_eq!(told["total"][field], expected, "{field}: {told}");
    }
    let groups = told["groups"].as_array().expect("groups");
    let group = |thread: &str, model: &str| {
        let is_it = |group: &&Value| group["thread"] == thread && group["model"] == model;
        groups.iter().find(is_it).cloned().unwrap_or_else(|| panic!("{thread} {model}: {told}"))
    };
    assert_eq!(group("run-2", "atlas")["input_tokens"], "1500");
    assert_eq!(group("run-3", "mini")["node"], "sum");
    assert_eq!(group("run-3", "")["unknown_calls"], 1);
    let one = json(&dashstream(&topic, &["costs", "--thread", "run-3", "--json"]));
    assert_eq!((&one["total"]["input_tokens"], &one["total"]["unpriced_calls"]), (&json!("7"), &json!(1)));
    let text = dashstream(&topic, &["costs", "--by-tenant"]).out;
    assert!(text.contains("acme") && text.contains("1 calls tell no tokens"), "{text}");
}

/// Waits for a line of standard output with this text.
#[track_caller]
fn wait_for(live: &Live, part: &str) {
    eventually(&format!("a line with {part:?}"), BOUND, || match live.lines() {
        lines if lines.iter().any(|line| line.contains(part)) => Ok(()),
        lines => Err(format!("{lines:#?} {:#?}", live.notes())),
    });
}

#[test]
fn watch_changes_when_nodes_start_and_end() {
    let topic = Topic::create(services::kafka(), "watch", 2);
    let mut run = Maker::new("run-1");
    let mut step = |topic: &Topic, change: &dyn Fn(&mut Maker)| {
        change(&mut run);
        let records = std::mem::take(&mut run.messages).into_iter().map(|message| record("run-1", message));
        publish(topic, records.collect());
    };
    step(&topic, &|run| run.graph_start(&json!({"topic": "tea"})));
    let mut lines =
        Live::start(&["watch", "--thread", "run-1", "--until-done", "--refresh-ms", "20"], &variables(&topic));
    let mut snapshots = Live::start(&["watch", "--json", "--until-done"], &variables(&topic));
    wait_for(&lines, "essay running (thread run-1, tenant acme)");
    wait_for(&lines, "node plan: waiting");
    wait_for(&snapshots, r#""status":"running""#);
    step(&topic, &|run| {
        run.event(100, EventType::NodeStart, "plan");
    });
    wait_for(&lines, "node plan: running, 1 runs");
    step(&topic, &|run| run.event(2_100, EventType::NodeEnd, "plan").duration_us = 2_000);
    wait_for(&lines, "node plan: done, 1 runs, 0 failed, 2.0ms");
    step(&topic, &|run| {
        run.event(3_000, EventType::NodeStart, "write");
        run.event(3_100, EventType::LlmStart, "write").llm_request_id = "r".into();
        run.set(3_200, "draft", &json!(1), &json!({"draft": 1, "topic": "tea"}));
        // One is lost.
        run.sequence += 1;
    });
    wait_for(&lines, "llm:?");
    wait_for(&lines, "state: draft changed");
    step(&topic, &|run| {
        run.event(4_000, EventType::NodeError, "write");
    });
    wait_for(&lines, "node write: failed, 1 runs, 1 failed");
    wait_for(&lines, "1 MESSAGES MISSING");
    step(&topic, &|run| {
        run.event(5_000, EventType::GraphError, "");
    });
    wait_for(&lines, "essay failed");
    assert_eq!((lines.wait_for_exit(), snapshots.wait_for_exit()), (Some(1), Some(1)));
    wait_for(&snapshots, r#""status":"failed""#);
    let last: Value = serde_json::from_str(snapshots.lines().last().expect("a snapshot")).expect("JSON");
    assert_eq!(
        (&last["thread"], &last["missing"], &last["nodes"][1]["state"]),
        (&json!("run-1"), &json!("1"), &json!("failed"))
    );
}

/// Each command that tells of runs and ends by itself, as it names a thread in what it prints.
pub fn tellers(thread: &str) -> [Vec<&str>; 5] {
    [
        vec!["inspect", thread],
        vec!["profile", "--thread", thread],
        vec!["flamegraph", "--format", "svg", "--thread", thread],
        vec!["diff", "--json", "--thread", thread, "--with", thread],
        vec!["costs", "--by-thread"],
    ]
}

/// What each of them has something to say about.
pub fn told_of(thread: &str) -> [Outgoing; 2] {
    [records::good(thread, 1), records::of_type(thread, EventType::LlmEnd)]
}

#[test]
fn brokers_and_topic_of_every_command_come_from_variables_and_options_win() {
    let topic = Topic::create(services::kafka(), "variables", 2);
    let other = Topic::create(services::kafka(), "other", 1);
    publish(&topic, told_of("thread-of-the-one").to_vec());
    publish(&other, told_of("thread-of-the-other").to_vec());
    let nowhere = [("KAFKA_BROKERS", "127.0.0.1:1".to_owned()), ("KAFKA_TOPIC", topic.name.clone())];
    let options = ["--brokers", &topic.kafka, "--topic", &other.name];
    let asked = |arguments: Vec<&'static str>| -> Vec<&str> { arguments.into_iter().chain(options).collect() };
    for (of_one, of_other) in tellers("thread-of-the-one").into_iter().zip(tellers("thread-of-the-other")) {
        let by_variables = command::done(&of_one, &variables(&topic)).out;
        assert!(by_variables.contains("thread-of-the-one"), "{of_one:?}: {by_variables}");
        let by_options = command::done(&asked(of_other), &nowhere).out;
        assert!(by_options.contains("thread-of-the-other"), "{of_one:?}: {by_options}");
        assert!(!by_options.contains("thread-of-the-one"), "{of_one:?}: {by_options}");
        let help = command::done(&[of_one[0], "--help"], &[]).out;
        assert!(help.contains("[default: dashstream-quality]"), "{help}");
    }
    let watch = Live::start(&["watch", "--json"], &variables(&topic));
    assert!(watch.wait_for_lines(1)[0].contains("thread-of-the-one"));
    let watch = Live::start(&asked(vec!["watch", "--json"]), &nowhere);
    assert!(watch.wait_for_lines(1)[0].contains("thread-of-the-other"));
    assert!(command::done(&["watch", "--help"], &[]).out.contains("[default: dashstream-quality]"));
}

#[test]
fn a_run_in_each_of_eight_partitions_is_told_of_by_every_command() {
    let topic = Topic::create(services::kafka(), "eight", 8);
    let threads: Vec<String> = (0..8).map(|number| format!("thread-{number}")).collect();
    for (partition, thread) in (0..).zip(&threads) {
        publish(&topic, told_of(thread).map(|record| record.on_partition(partition)).to_vec());
    }
    for thread in &threads {
        for arguments in tellers(thread) {
            let out = command::done(&arguments, &variables(&topic)).out;
            assert!(out.contains(thread), "{arguments:?}: {out}");
        }
        let watch = Live::start(&["watch", "--json", "--thread", thread], &variables(&topic));
        assert!(watch.wait_for_lines(1)[0].contains(thread));
    }
    let listed = command::done(&["inspect"], &variables(&topic)).out;
    assert!(threads.iter().all(|thread| listed.contains(thread)), "{listed}");
}
