//! Topics are made, found and deleted through the door that every command takes: TLS and a password.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use dashstream::config::secret::Secret;
use dashstream::kafka::connection::KafkaConnection;
use dashstream::kafka::security::{KafkaSecurityConfig, SaslMechanism, SecurityProtocol};
use dashstream::kafka::topics::{Ensured, TopicAdmin, TopicError};
use dashstream::pipeline::topic_plan::{Difference, Profile, TopicPlan};
use dashstream::wire::telemetry::EventType;
use serde_json::{Value, json};

use crate::harness::authority::Authority;
use crate::harness::eventually::eventually;
use crate::harness::producer::Producer;
use crate::harness::records;
use crate::harness::service::{Config, Service};
use crate::harness::services::{self, SecureKafka};
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);

/// A broker for the tests of this file, and the authority that its certificate is of.
struct Door {
    authority: Authority,
    kafka: SecureKafka,
}

impl Door {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Door> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::new();
            let broker = authority.sign(&["127.0.0.1"]);
            authority.write("broker.pem", &format!("{}{}", broker.key, broker.certificate));
            let kafka = services::secure_kafka(authority.folder());
            Self { authority, kafka }
        })
    }

    /// What lets a command in.
    fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("KAFKA_BROKERS", self.kafka.sasl_ssl.clone()),
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl".into()),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256".into()),
            ("KAFKA_SASL_USERNAME", "alice".into()),
            ("KAFKA_SASL_PASSWORD", "SCRAM-SHA-256-secret".into()),
            ("KAFKA_SSL_CA_LOCATION", self.authority.path("ca.pem")),
        ]
    }

    fn admin(&self, password: &str) -> TopicAdmin {
        let connection = KafkaConnection {
            brokers: self.kafka.sasl_ssl.clone(),
            client_id: "test".into(),
            security: KafkaSecurityConfig {
                protocol: SecurityProtocol::SaslSsl,
                sasl_mechanism: Some(SaslMechanism::ScramSha256),
                sasl_username: "alice".into(),
                sasl_password: Secret::new(password),
                ssl_ca_location: self.authority.path("ca.pem"),
                ..KafkaSecurityConfig::default()
            },
            address_family: None,
        };
        TopicAdmin::new(&connection).expect("settings that can be used")
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }
}

/// Runs a command with these variables alone.
fn dashstream(arguments: &[&str], variables: &[(&str, String)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_dashstream"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn topics_are_created_found_counted_and_deleted_over_sasl_ssl() {
    let door = Door::shared();
    let admin = door.admin("SCRAM-SHA-256-secret");
    // What others made is found.
    let others: Vec<Topic> = (0..3).map(|_| Topic::create(&door.kafka.direct, "other", 1)).collect();
    let listed: BTreeSet<String> = admin.list().expect("a list").into_iter().map(|topic| topic.name).collect();
    assert!(others.iter().all(|topic| listed.contains(&topic.name)), "{listed:?}");

    // Judged by a client that does not share the library: the topic is there with all that the plan says, then it is not.
    let topic = Topic::planned(&door.kafka.direct, "made");
    let name = topic.name.as_str();
    assert_eq!(
        (admin.exists(name).expect("an answer"), admin.partition_count(name).expect("an answer")),
        (false, None)
    );
    assert_eq!(admin.describe(name).expect("an answer"), None);
    let mut plan = TopicPlan::telemetry(name, Profile::Default);
    plan.partitions = 7;
    assert!(admin.create(&plan).expect("it is created"));
    assert_eq!(topic.partitions().len(), 7);
    assert_eq!(
        (admin.exists(name).expect("an answer"), admin.partition_count(name).expect("an answer")),
        (true, Some(7))
    );
    let found = admin.describe(name).expect("an answer").expect("the topic");
    assert!(found.id.is_some() && found.partitions.iter().all(|partition| partition.in_sync == partition.replicas));
    let own: BTreeMap<_, _> =
        found.settings.iter().filter(|found| found.own).map(|found| (&*found.name, &*found.value)).collect();
    let asked: BTreeMap<_, _> = plan.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(own, asked);
    assert!(!admin.create(&TopicPlan::plain(name, 9)).expect("it existed"));
    assert_eq!(topic.partitions().len(), 7, "a topic that exists is left as it is");
    assert!(admin.delete(name).expect("it is deleted"));
    assert!(!admin.exists(name).expect("an answer") && !admin.delete(name).expect("a missing topic is no failure"));

    // What cannot be done is told with its reason.
    let refused = admin.create(&TopicPlan::plain(name, 1).with_replicas(3)).expect_err("there is one broker");
    assert!(refused.to_string().contains("fewer brokers than the replicas"), "{refused}");
    let refused = admin.create(&TopicPlan::plain("a b", 1)).expect_err("no such name is allowed");
    assert!(refused.to_string().contains("does not allow such a name"), "{refused}");
    let shut = door.admin("wrong").exists(name).expect_err("nobody knows");
    assert!(shut.to_string().contains("KAFKA_SASL_PASSWORD"), "{shut}");
    assert!(matches!(shut, TopicError::Kafka { .. }) && !shut.to_string().contains("wrong"), "{shut}");
}

#[test]
fn topics_with_dead_letters_are_ensured_over_sasl_ssl_as_often_as_one_likes() {
    let door = Door::shared();
    let admin = door.admin("SCRAM-SHA-256-secret");
    let topic = Topic::planned(&door.kafka.direct, "ensured");
    let letters = Topic { name: format!("{}-dlq", topic.name), kafka: topic.kafka.clone() };
    let telemetry = TopicPlan::telemetry(&topic.name, Profile::Default);
    let dead_letters = TopicPlan::dead_letters(&letters.name, Profile::Default);
    for created in [true, false, false] {
        let ensured = admin.ensure_topics_with_dlq(&telemetry, &dead_letters).expect("both topics");
        let expected =
            [&topic, &letters].map(|of| Ensured { topic: of.name.clone(), created, differences: Vec::new() });
        assert_eq!(ensured, expected);
        assert_eq!((topic.partitions().len(), letters.partitions().len()), (10, 3));
    }

    // A command names both by the rule of the service, and tells in what they fall short, without changing them.
    let other = Topic::create_with(&door.kafka.direct, "short", 2, &[("cleanup.policy", "compact")]);
    let other_letters = Topic { name: format!("{}-dlq", other.name), kafka: other.kafka.clone() };
    let variables = [&door.variables()[..], &[("KAFKA_TOPIC", other.name.clone())]].concat();
    let ensure = ["topics", "ensure", "--profile", "dev", "--retention", "12h", "--json"];
    for created in [true, false] {
        let ran = dashstream(&ensure, &variables);
        let lines = ran.json();
        assert_eq!((ran.code, lines.len()), (1, 2), "{}", ran.err);
        assert_eq!((&lines[0]["topic"], &lines[0]["created"]), (&json!(other.name), &json!(false)));
        let told = lines[0]["differences"].to_string();
        assert!(told.contains("2 of 3 partitions") && told.contains("compact, not delete"), "{told}");
        assert_eq!(lines[1], json!({"topic": other_letters.name, "created": created, "differences": []}));
    }
    assert_eq!(other.partitions().len(), 2);
    let ensured = admin.ensure(&TopicPlan::telemetry(&other.name, Profile::Dev)).expect("an answer");
    assert_eq!(ensured.differences[0], Difference::Partitions { wanted: 3, partitions: 2 });
    assert_eq!(ensured.differences.len(), 2);
    other.delete();
    let ran = dashstream(&ensure, &variables);
    assert_eq!((ran.code, &ran.json()[0]["created"]), (0, &json!(true)), "{}", ran.err);
    let found = admin.describe(&other.name).expect("an answer").expect("the topic");
    let retention = found.settings.iter().find(|found| found.name == "retention.ms").expect("a retention");
    assert_eq!((retention.value.as_str(), retention.own), ("43200000", true));
}

/// Whether a command meets Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meets {
    Kafka,
    Nobody,
    /// A running service.
    Service,
    /// A broker of its own.
    Itself,
}

/// Every command there is. Who adds one says here whether it meets Kafka, and if so has it run below.
const COMMANDS: [(&str, Meets); 29] = [
    ("check-config", Meets::Nobody),
    ("completions", Meets::Nobody),
    ("costs", Meets::Kafka),
    ("default-config", Meets::Nobody),
    ("demo", Meets::Itself),
    ("diff", Meets::Kafka),
    ("dlq discard", Meets::Kafka),
    ("dlq inspect", Meets::Kafka),
    ("dlq list", Meets::Kafka),
    ("dlq replay", Meets::Kafka),
    ("export", Meets::Kafka),
    ("flamegraph", Meets::Kafka),
    ("generate", Meets::Kafka),
    ("ingest continue", Meets::Service),
    ("ingest reset", Meets::Service),
    ("inspect", Meets::Kafka),
    ("man", Meets::Nobody),
    ("profile", Meets::Kafka),
    ("quality-exporter", Meets::Kafka),
    ("replay", Meets::Kafka),
    ("serve", Meets::Kafka),
    ("tail", Meets::Kafka),
    ("topics delete", Meets::Kafka),
    ("topics describe", Meets::Kafka),
    ("topics ensure", Meets::Kafka),
    ("topics list", Meets::Kafka),
    ("topology", Meets::Nobody),
    ("torture", Meets::Kafka),
    ("watch", Meets::Kafka),
];

/// Commands that read what was generated and end by themselves.
const READERS: [(&str, &[&str]); 3] =
    [("export", &["--format", "jsonl"]), ("replay", &[]), ("tail", &["--from-beginning", "--no-follow"])];

/// The commands that have no commands below them, and whether they can be told where Kafka is.
fn leaves(command: &clap::Command, above: &str, told: bool, found: &mut BTreeMap<String, bool>) {
    for below in command.get_subcommands() {
        let path = format!("{above} {}", below.get_name()).trim_start().to_owned();
        let told = told || below.get_arguments().any(|argument| argument.get_long() == Some("brokers"));
        match below.has_subcommands() {
            true => leaves(below, &path, told, found),
            false => drop(found.insert(path, told)),
        }
    }
}

/// The commands that read runs, over what `generate` has published.
fn analyse(topic: &Topic, run: &mut dyn FnMut(&str, &[&str]) -> Ran) {
    let threads = run("inspect", &["--json"]).json();
    let messages: u64 = threads
        .iter()
        .map(|thread| thread["messages"].as_str().and_then(|count| count.parse().ok()).unwrap_or(0))
        .sum();
    assert!(messages >= 20, "every record of {} is of a run: {threads:?}", topic.name);
    let thread = threads[0]["thread"].as_str().expect("a thread");
    assert_eq!(run("profile", &["--thread", thread, "--json"]).json()[0]["thread"], thread);
    assert_eq!(run("diff", &["--thread", thread, "--with", thread]).out, "no difference\n");
    assert!(!run("flamegraph", &["--thread", thread]).out.is_empty());
    assert_eq!(run("costs", &["--json"]).json()[0]["complete"], true);
}

/// The exporter, over the twenty records that `generate` has published.
fn count_for_prometheus(topic: &Topic, variables: &[(&str, String)]) {
    let config = Config::quality_exporter(topic);
    let exporter = Service::start(&variables.iter().fold(config, |config, (name, value)| config.set(name, value)));
    eventually("the exporter to have counted them", BOUND, || {
        match exporter.metric("dashstream_exporter_messages_received_total", &[]) {
            20.0 => Ok(()),
            count => Err(count.to_string()),
        }
    });
}

#[test]
fn every_command_that_meets_kafka_takes_the_same_door() {
    let mut known = BTreeMap::new();
    leaves(&dashstream::cli::command_tree(), "", false, &mut known);
    let listed: Vec<&str> = COMMANDS.iter().map(|(path, _)| *path).collect();
    assert_eq!(known.keys().collect::<Vec<_>>(), listed, "the table of commands is that of the program");
    for (path, meets) in &COMMANDS {
        assert!(!known[*path] || *meets == Meets::Kafka, "{path} takes --brokers, so it meets Kafka");
    }

    let door = Door::shared();
    let topic = Topic::planned(&door.kafka.direct, "all");
    let letters = Topic { name: format!("{}-dlq", topic.name), kafka: topic.kafka.clone() };
    let variables = [&door.variables()[..], &[("KAFKA_TOPIC", topic.name.clone())]].concat();
    let mut met = BTreeSet::new();
    let mut run = |path: &str, arguments: &[&str]| {
        println!("{path} {arguments:?}");
        let words: Vec<&str> = path.split(' ').chain(arguments.iter().copied()).collect();
        let ran = dashstream(&words, &variables);
        assert_eq!(ran.code, 0, "{path}: {}{}", ran.out, ran.err);
        met.insert(path.to_owned());
        ran
    };
    run("topics ensure", &["--partitions", "1"]);
    let listed = run("topics list", &["--json"]).json();
    assert!(listed.contains(&json!({"topic": topic.name, "partitions": 1, "replicas": 1})), "{listed:?}");
    assert_eq!(run("topics describe", &["--json"]).json()[1]["topic"], letters.name);
    run("generate", &["--count", "20", "--unlimited"]);
    let scenario = ["--scenarios", "1", "--only", "suspend-service,slow-kafka", "--instances", "1", "--clients", "2"];
    assert!(run("torture", &scenario).out.contains("left out: slow-kafka: needs a listener"));
    assert_eq!(topic.watermarks(0), (0, 20));
    analyse(&topic, &mut run);
    for (path, arguments) in READERS {
        // A batch has several lines.
        assert!(run(path, arguments).out.lines().count() >= 20, "{path}");
    }

    count_for_prometheus(&topic, &variables);
    let bad = (0..3).map(|_| records::garbage("t"));
    Producer::new(&door.kafka.direct).publish(&topic.name, bad);
    let config = Config::new(&topic);
    let config = variables.iter().fold(config, |config, (name, value)| config.set(name, value));
    let service = Service::start_healthy(&config);
    eventually("a letter about each record", BOUND, || {
        match letters.partitions().into_iter().map(|partition| letters.watermarks(partition).1).sum::<i64>() {
            3 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    drop(service);
    let keys: Vec<String> = run("dlq list", &["--json"])
        .json()
        .iter()
        .map(|letter| letter["key"].as_str().expect("a key").into())
        .collect();
    assert_eq!(keys.len(), 3);
    run("dlq inspect", &[&keys[0]]);
    run("dlq replay", &[&keys[1], "--yes"]);
    assert_eq!(topic.watermarks(0), (0, 24), "a record was published again");
    run("dlq discard", &[&keys[2], "--reason", "a test", "--yes"]);
    assert!(run("topics delete", &[&topic.name]).out.contains("--yes"));
    assert_eq!(topic.watermarks(0), (0, 24), "nothing is deleted by a question");
    Producer::new(&door.kafka.direct).publish(&topic.name, [records::of_type("over", EventType::GraphEnd)]);
    assert!(run("watch", &["--thread", "over", "--until-done"]).out.contains("graph completed (thread over"));
    run("topics delete", &[&topic.name, &letters.name, "--yes"]);
    let listed = run("topics list", &[]).out;
    assert!(!listed.contains(&topic.name), "{listed}");

    met.extend(["serve", "quality-exporter"].map(str::to_owned));
    let meant = COMMANDS.iter().filter(|(_, meets)| *meets == Meets::Kafka).map(|(path, _)| (*path).to_owned());
    assert_eq!(met, meant.collect::<BTreeSet<_>>(), "each that meets Kafka has met it");
}
