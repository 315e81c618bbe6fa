//! Scenarios: faults composed at random, and the promise kept through all of them. A scenario is named by its seed.
//!
//! A few run with the other tests. `DASHSTREAM_TORTURE_SEEDS=1-200` chooses the ones of the test that is run by hand, see
//! CONTRIBUTING.md; one seed runs one scenario again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::client::{Client, From, Options, Reading};
use crate::harness::contract::Ledger;
use crate::harness::eventually::{eventually, throughout};
use crate::harness::load::Load;
use crate::harness::producer::{Producer, Published};
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::service::{Config, Service};
use crate::harness::services::{self, KafkaBehindProxy, RedisBehindProxy};
use crate::harness::topic::Topic;
use crate::harness::{records, unique_name};

const BOUND: Duration = Duration::from_secs(90);
const PARTITIONS: usize = 3;
/// Records per second.
const RATE: u64 = 1_000;
/// Between them they have every trouble but a process or a Kafka that stands still; one grows the topic while the service restarts.
const FEW: [u64; 5] = [5, 10, 14, 16, 30];
const MANY: RangeInclusive<u64> = 1..=200;

/// What happens to the service and around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// kill -9, and a new start at once.
    KillService,
    /// The process stands still, as on an overloaded machine; its clocks jump.
    SuspendService,
    CutKafka,
    HangKafka,
    SlowKafka,
    CutRedis,
    HangRedis,
    /// Redis forgets all of this topic.
    FlushRedis,
    /// A client stops reading for a while.
    StalledReader,
    /// Clients come and go many times.
    Reconnects,
    /// The topic gains a partition.
    MorePartitions,
    /// Retention takes what lies below the middle.
    Retention,
    /// The topic is deleted and made anew; the clients are connected, as far as other troubles let them.
    Recreation,
}

use Trouble::{
    CutKafka, CutRedis, FlushRedis, HangKafka, HangRedis, KillService, MorePartitions, Reconnects, Recreation,
    Retention, SlowKafka, StalledReader, SuspendService,
};

/// Those that a step draws from. Every sixth scenario has a re-creation besides, once: the log that it ends is judged as a
/// whole.
const ALL: [Trouble; 12] = [
    KillService,
    SuspendService,
    CutKafka,
    HangKafka,
    SlowKafka,
    CutRedis,
    HangRedis,
    FlushRedis,
    StalledReader,
    Reconnects,
    MorePartitions,
    Retention,
];

/// Several at a time, for so long; then all is well for a moment.
#[derive(Clone, Debug)]
struct Step {
    troubles: Vec<Trouble>,
    lasts: Duration,
}

fn plan(seed: u64) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    let count = random.usize(2..=3);
    let step = |_| {
        let mut troubles: Vec<Trouble> = (0..random.usize(1..=3)).map(|_| ALL[random.usize(..ALL.len())]).collect();
        troubles.dedup();
        Step { troubles, lasts: Duration::from_millis(random.u64(300..1_500)) }
    };
    let mut steps: Vec<Step> = (0..count).map(step).collect();
    if seed.is_multiple_of(6) {
        let troubles = &mut steps[random.usize(..count)].troubles;
        troubles.insert(random.usize(..=troubles.len()), Recreation);
    }
    steps
}

/// What several scenarios share.
struct Surroundings {
    kafka: KafkaBehindProxy,
    redis: RedisBehindProxy,
}

struct Scenario<'a> {
    around: &'a Surroundings,
    topic: Topic,
    prefix: String,
    service: Service,
    clients: Vec<Client>,
    load: Option<Load>,
    /// Below lies what retention took.
    kept_from: BTreeMap<i32, i64>,
    /// Of the partitions that came later.
    published: Published,
    ended: Option<EndedLog>,
}

/// The log before the topic was made anew.
struct EndedLog {
    published: Published,
    /// Per client the partitions of which it had applied something.
    known: Vec<BTreeSet<i32>>,
}

impl Scenario<'_> {
    fn run(seed: u64, around: &Surroundings) {
        let steps = plan(seed);
        println!("seed {seed}: {steps:?}");
        let topic = Topic::create(&around.kafka.direct, "torture", PARTITIONS as i32);
        let _dead_letters = topic.beside("dlq", 1);
        let prefix = unique_name("torture");
        let config = Config::new(&topic)
            .set("KAFKA_BROKERS", around.kafka.proxy.address())
            .set("REDIS_URL", &around.redis.url)
            .set("DASHSTREAM_REDIS_KEY_PREFIX", &prefix)
            .set("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", 3_000)
            .set("DASHSTREAM_REDIS_RESPONSE_TIMEOUT_MS", 300)
            .set("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", 64 * 1024)
            .set("REPLAY_BUFFER_MEMORY_SIZE", 500)
            .set("REPLAY_MAX_TOTAL", 3_000);
        let group = config.group().to_owned();
        let service = Service::start_healthy(&config);
        let slow = Options {
            from: From::Earliest,
            reading: Reading::Slow(Duration::from_millis(5)),
            receive_buffer: Some(4096),
            ..Options::default()
        };
        let clients = vec![
            Client::from(service.address(), From::Earliest),
            Client::from(service.address(), From::Latest),
            Client::connect(service.address(), slow),
        ];
        let load = Some(Load::start(&topic, RATE));
        let (kept_from, published, ended) = (BTreeMap::new(), Published::default(), None);
        let mut scenario = Scenario { around, topic, prefix, service, clients, load, kept_from, published, ended };
        scenario.all_flow();
        for step in &steps {
            scenario.step(step);
            scenario.all_flow();
        }
        let published = scenario.all_published();
        scenario.heal();
        scenario.clients.iter().for_each(|client| client.read(Reading::Fast));
        for (number, client) in scenario.clients.iter().enumerate() {
            client.wait_until("the stream to be what was published", BOUND, |ledger| {
                scenario.judge(number, ledger, &published)
            });
        }
        scenario.topic.wait_until_all_committed(&group, BOUND);
        assert!(scenario.service.is_running());
    }

    /// Stops the load, and tells all that lies in the log.
    fn all_published(&mut self) -> Published {
        let mut published = self.load.take().expect("the load runs").stop();
        published.extend(std::mem::take(&mut self.published));
        published
    }

    /// Whether a client has the whole stream and nothing else, and was told where offsets started again.
    fn judge(&self, client: usize, ledger: &Ledger, published: &Published) -> Result<(), String> {
        let resets = || ledger.resets.iter().filter(|reset| reset.reason != "retention");
        if let Some(ended) = &self.ended {
            let told: BTreeSet<i32> = resets().map(|reset| reset.partition).collect();
            if !ended.known[client].is_subset(&told) {
                return Err(format!("told of the new log: {told:?}, to be told: {:?}", ended.known[client]));
            }
            ledger.compare_ended(&ended.published)?;
            let late = |(partition, began): &(&i32, &i64)| *began > self.kept_from.get(partition).unwrap_or(&0);
            if let Some(late) = ledger.began.iter().find(late) {
                return Err(format!("(partition, offset) {late:?} is not where the new log begins"));
            }
        }
        let expected = if self.ended.is_some() { "topic_recreated" } else { "none" };
        if let Some(reset) = resets().find(|reset| reset.reason != expected) {
            return Err(format!("offsets started again: {reset:?}"));
        }
        ledger.has_reached_the_end_of(published)?;
        let excused = |partition, offset| self.kept_from.get(&partition).is_some_and(|kept| offset < *kept);
        ledger.compare(published, excused)
    }

    /// Every client has something of each partition, and gets more.
    fn all_flow(&mut self) {
        for client in &mut self.clients {
            let before = client.received();
            eventually("records at every client", BOUND, || {
                if client.closed().is_some() {
                    client.reconnect(self.service.address());
                }
                let partitions = client.look(|ledger| ledger.cursor().values().filter(|next| **next > 0).count());
                match client.received() {
                    received if received > before + 100 && partitions >= PARTITIONS => Ok(()),
                    received => {
                        Err(format!("{received}, {before} before, {partitions} partitions; {:?}", client.closed()))
                    }
                }
            });
        }
    }

    fn step(&mut self, step: &Step) {
        for trouble in &step.troubles {
            self.begin(*trouble);
        }
        let start = Instant::now();
        throughout("trouble", step.lasts, || Ok(()));
        self.heal();
        println!("  {:?} lasted {:?}", step.troubles, start.elapsed());
    }

    fn begin(&mut self, trouble: Trouble) {
        let (kafka, redis): (&Proxy, &Proxy) = (&self.around.kafka.proxy, &self.around.redis.proxy);
        match trouble {
            KillService => {
                self.service.signal(Signal::SIGCONT);
                self.service.restart();
            }
            SuspendService => self.service.signal(Signal::SIGSTOP),
            CutKafka => kafka.cut(),
            HangKafka => kafka.black_hole(),
            SlowKafka => kafka.set(Fault::Delay(Duration::from_millis(150))),
            CutRedis => redis.cut(),
            HangRedis => redis.black_hole(),
            FlushRedis => self.forget(),
            StalledReader => self.clients[0].read(Reading::Stopped),
            Reconnects => {
                self.service.signal(Signal::SIGCONT);
                for _ in 0..5 {
                    for client in &mut self.clients {
                        let hello = client.next_hello();
                        client.connect_with(self.service.address(), &hello);
                    }
                }
            }
            MorePartitions => {
                let partitions = self.topic.partitions().len();
                self.topic.grow(partitions + 1);
                let new = i32::try_from(partitions).expect("few partitions");
                let thread = if self.ended.is_some() { "grown anew" } else { "grown" };
                let records = (1..=50).map(|sequence| records::good(thread, sequence).on_partition(new));
                self.published.extend(Producer::new(&self.topic.kafka).publish(&self.topic.name, records));
            }
            Retention => {
                for partition in 0..PARTITIONS as i32 {
                    let (low, high) = self.topic.watermarks(partition);
                    let middle = low + (high - low) / 2;
                    self.topic.delete_records(partition, middle);
                    self.kept_from.insert(partition, middle);
                }
            }
            Recreation => self.recreate(),
        }
    }

    fn recreate(&mut self) {
        let published = self.all_published();
        let applied =
            |ledger: &Ledger| ledger.cursor().iter().filter(|(_, next)| **next > 0).map(|(of, _)| *of).collect();
        let known = self.clients.iter().map(|client| client.look(applied)).collect();
        self.ended = Some(EndedLog { published, known });
        self.kept_from.clear();
        self.topic.recreate(i32::try_from(self.topic.partitions().len()).expect("few partitions"));
        self.load = Some(Load::start_as("anew", &self.topic, RATE));
    }

    /// All is well again, and clients that were cut off come back with their cursors.
    fn heal(&mut self) {
        self.service.signal(Signal::SIGCONT);
        self.around.kafka.proxy.heal();
        self.around.redis.proxy.heal();
        self.clients[0].read(Reading::Fast);
        for client in &mut self.clients {
            if client.closed().is_some() || !client.look(|ledger| ledger.is_welcomed()) {
                client.reconnect(self.service.address());
            }
        }
    }

    fn forget(&self) {
        use deadpool_redis::redis::{Client, Commands as _};
        let mut redis = Client::open(services::redis()).expect("an address").get_connection().expect("Redis answers");
        let keys: Vec<String> = redis.keys(format!("{}:*", self.prefix)).expect("the keys");
        if !keys.is_empty() {
            let _: usize = redis.unlink(keys).expect("keys can be dropped");
        }
    }
}

fn run(seeds: impl IntoIterator<Item = u64>) {
    let around = Surroundings { kafka: services::kafka_behind_proxy(), redis: services::redis_behind_proxy() };
    for seed in seeds {
        let start = Instant::now();
        Scenario::run(seed, &around);
        println!("seed {seed} kept the promise, {:?}", start.elapsed());
    }
}

#[test]
fn a_few_scenarios_keep_the_promise() {
    run(FEW);
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

#[test]
#[ignore = "takes half an hour; see CONTRIBUTING.md"]
fn many_scenarios_keep_the_promise() {
    let chosen = std::env::var("DASHSTREAM_TORTURE_SEEDS").unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().expect("DASHSTREAM_TORTURE_SEEDS is a number, or two with a minus");
    run(match chosen.split_once('-') {
        _ if chosen.is_empty() => MANY,
        Some((first, last)) => number(first)..=number(last),
        None => number(&chosen)..=number(&chosen),
    });
}
