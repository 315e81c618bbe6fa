//! A scenario: faults composed by a seed, and the promise held against what every client got through all of them.
//!
//! It runs instances of its own, on a topic of its own that it creates and deletes, and with keys of its own in Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Ended, Verdict};
use super::instance::{HAS_CLOCK, Instance, Program};
use super::load::{Load, publish};
use super::plan::{Fault, Need, Step, Trouble, plan};
use super::proxy::Fault as Network;
use super::surroundings::{Surroundings, dead_letters};
use super::truth::Truth;
use super::{Report, Settings, Telling};
use crate::kafka::connection::KafkaConnection;
use crate::kafka::load_producer::LoadError;
use crate::kafka::topics::TopicError;
use crate::redis::settings::RedisSettings;

/// Records that a partition gets as soon as it is there.
const FIRST_OF_A_PARTITION: usize = 50;
/// How far clocks jump, in seconds, for good. Not far back: librdkafka waits until points in time of the wall clock, so what it
/// waits for when the clock is set back takes as much longer.
const FORWARD: i64 = 3 * 3600;
const BACK: i64 = -2;
const LOOK: Duration = Duration::from_millis(50);
/// Settings that give every tier of the history its turn within seconds: little is kept in memory and in queues.
pub const NARROW: [(&str, &str); 10] = [
    ("KAFKA_AUTO_OFFSET_RESET", "earliest"),
    ("KAFKA_ON_DECODE_ERROR", "skip"),
    ("DASHSTREAM_KAFKA_SESSION_TIMEOUT_MS", "6000"),
    ("DASHSTREAM_REDIS_RESPONSE_TIMEOUT_MS", "300"),
    ("DASHSTREAM_WEB_SESSION_QUEUE_BYTES", "65536"),
    ("REPLAY_BUFFER_MEMORY_SIZE", "500"),
    ("REPLAY_MAX_TOTAL", "3000"),
    ("WEBSOCKET_HOST", "127.0.0.1"),
    ("WEBSOCKET_PORT", "0"),
    ("WEBSOCKET_MAX_CONNECTIONS_PER_IP", "10000"),
];

/// In what surroundings, and how much.
#[derive(Clone, Debug)]
pub struct ScenarioSettings {
    /// The cluster.
    pub connection: KafkaConnection,
    /// Redis, if instances have one.
    pub redis: Option<RedisSettings>,
    /// What an instance is.
    pub program: Program,
    /// How many instances.
    pub instances: u32,
    /// How many clients, of all instances together.
    pub clients: u32,
    /// Of the topic.
    pub partitions: i32,
    /// Records per second.
    pub rate: f64,
    /// What may be broken.
    pub faults: BTreeSet<Fault>,
    /// How long everything may take to be well again.
    pub patience: Duration,
    /// Where instances leave their logs.
    pub folder: PathBuf,
}

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its number.
    pub seed: u64,
    /// What was broken, and for how long. Faults that were left out are not in it.
    pub steps: Vec<(Vec<Fault>, Duration)>,
    /// Records in the topic, that before a re-creation included.
    pub published: usize,
    /// What the clients saw.
    pub report: Report,
    /// How long all of it took.
    pub took: Duration,
}

/// Why a scenario could not be carried out: that says nothing about the service.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Kafka.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The producer.
    #[error("the records of the scenario cannot be sent")]
    Load(#[from] LoadError),
    /// Redis.
    #[error("Redis does not do what the scenario needs: {0}")]
    Redis(String),
    /// A process, a file or a socket.
    #[error("an instance or a proxy cannot be run")]
    System(#[from] std::io::Error),
    /// An instance.
    #[error("instance {instance} ended with {status} before it listened; its log: {log}", log = log.display())]
    Start {
        /// Its number.
        instance: usize,
        /// How it ended.
        status: String,
        /// Where it says why.
        log: PathBuf,
    },
    /// Somebody has stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// Carries scenarios out, one after the other.
#[derive(Debug)]
pub struct Stage {
    settings: ScenarioSettings,
    around: Surroundings,
}

impl Stage {
    /// Looks at the cluster. To be made, used and dropped outside of an async runtime.
    ///
    /// # Errors
    /// When Kafka cannot be reached, or a proxy not be started.
    pub fn new(settings: ScenarioSettings) -> Result<Self, ScenarioError> {
        let around = Surroundings::new(&settings.connection, settings.redis.clone())?;
        Ok(Self { settings, around })
    }

    /// What is missing here, and which faults are left out for it.
    pub fn left_out(&self) -> BTreeMap<Need, Vec<Fault>> {
        let clock = (!HAS_CLOCK).then_some(Need::Clock);
        let mut left_out = BTreeMap::new();
        for need in self.around.lacks().chain(clock) {
            let faults: Vec<Fault> =
                self.settings.faults.iter().filter(|fault| fault.needs() == Some(need)).copied().collect();
            if !faults.is_empty() {
                left_out.insert(need, faults);
            }
        }
        left_out
    }

    /// Carries one out, and clears up behind it.
    ///
    /// # Errors
    /// When it cannot be carried out. A broken promise is no error but an outcome.
    pub fn run(&self, seed: u64, stop: &CancellationToken) -> Result<Outcome, ScenarioError> {
        let topic = format!("dashstream-torture-{seed}-{:08x}", fastrand::u32(..));
        let begun = Instant::now();
        let carried_out = Scenario::begin(self, seed, &topic, stop).and_then(Scenario::carry_out);
        // What is left behind harms nobody, and the first error is the one to tell.
        let cleared = self.around.delete(&topic);
        let (steps, published, report) = carried_out?;
        cleared?;
        Ok(Outcome { seed, steps, published, report, took: begun.elapsed() })
    }

    /// The steps of a seed, without what is left out here.
    pub fn steps(&self, seed: u64) -> Vec<Step> {
        let left_out: BTreeSet<Fault> = self.left_out().into_values().flatten().collect();
        let mut steps = plan(seed, self.settings.instances as usize);
        for step in &mut steps {
            step.troubles
                .retain(|Trouble { fault, .. }| self.settings.faults.contains(fault) && !left_out.contains(fault));
        }
        steps
    }
}

struct Scenario<'a> {
    stage: &'a Stage,
    seed: u64,
    topic: &'a str,
    stop: &'a CancellationToken,
    instances: Vec<Instance>,
    crowd: Crowd,
    load: Option<Load>,
    /// What was published besides the load.
    truth: Truth,
    /// Below lies what retention took.
    kept_from: BTreeMap<i32, i64>,
    ended: Option<Ended>,
    published: usize,
}

type CarriedOut = (Vec<(Vec<Fault>, Duration)>, usize, Report);

impl<'a> Scenario<'a> {
    fn begin(stage: &'a Stage, seed: u64, topic: &'a str, stop: &'a CancellationToken) -> Result<Self, ScenarioError> {
        let settings = &stage.settings;
        stage.around.create(topic, settings.partitions)?;
        let clocks_are_set = stage.steps(seed).iter().any(Step::sets_clocks);
        let mut instances = Vec::new();
        for number in 0..settings.instances {
            let name = format!("{seed}-{number}");
            let variables = variables(stage, topic, number);
            instances.push(Instance::start(&settings.program, variables, &name, &settings.folder, clocks_are_set)?);
        }
        let crowd = Crowd::start(Settings {
            addresses: Vec::new(),
            clients: settings.clients,
            seed,
            lasts: Duration::ZERO,
            patience: settings.patience,
            token: None,
            telling: Telling::AgainstTheTruth,
        })?;
        let load = Some(Load::start(&settings.connection, topic, settings.partitions, settings.rate, seed)?);
        let (truth, kept_from) = Default::default();
        Ok(Self { stage, seed, topic, stop, instances, crowd, load, truth, kept_from, ended: None, published: 0 })
    }

    fn carry_out(mut self) -> Result<CarriedOut, ScenarioError> {
        self.wait_until("instances to listen", Self::all_listen)?;
        self.wait_until("clients to get something", |scenario| Ok(scenario.crowd.all_have_begun()))?;
        self.all_flows()?;
        let mut steps = Vec::new();
        for step in self.stage.steps(self.seed) {
            let begun = Instant::now();
            self.step(&step)?;
            steps.push((step.troubles.iter().map(|trouble| trouble.fault).collect(), begun.elapsed()));
            self.all_flows()?;
        }
        if let Some(load) = self.load.take() {
            load.stop(&mut self.truth)?;
        }
        self.published += self.truth.expected.len();
        let (truth, kept_from) = (std::mem::take(&mut self.truth), std::mem::take(&mut self.kept_from));
        let verdict = Verdict::new(truth, kept_from, self.ended.take(), self.stage.settings.partitions);
        self.crowd.judge(verdict, self.stop);
        // The group is called as the topic is.
        self.wait_until("all offsets to be committed", |scenario| {
            scenario.stage.around.all_committed(scenario.topic, scenario.topic)
        })?;
        self.pause(Duration::ZERO)?;
        for (number, instance) in self.instances.iter_mut().enumerate() {
            if let Some(status) = instance.ended()? {
                self.crowd.blame(&format!("instance {number} ended by itself with {status}"));
            }
        }
        // They would write on.
        self.instances.clear();
        self.stage.around.forget(self.topic, &self.crowd.epochs())?;
        Ok((steps, self.published, self.crowd.report()))
    }

    fn all_listen(&mut self) -> Result<Result<(), String>, ScenarioError> {
        let (mut listening, mut addresses) = (Ok(()), Vec::new());
        for (number, instance) in self.instances.iter_mut().enumerate() {
            if let Some(address) = instance.address()? {
                addresses.push(address.to_owned());
                continue;
            }
            if let Some(status) = instance.ended()? {
                let log = self.stage.settings.folder.join(format!("{}-{number}.log", self.seed));
                return Err(ScenarioError::Start { instance: number, status, log });
            }
            listening = Err(format!("instance {number} does not"));
        }
        self.crowd.find(addresses);
        Ok(listening)
    }

    /// Waits until the clients, who behave well meanwhile, have come as far as the topic reaches now: all is well.
    fn all_flows(&mut self) -> Result<(), ScenarioError> {
        self.crowd.calm(true);
        // A moment of it, so that every partition has got something.
        self.pause(Duration::from_millis(300))?;
        let ends = self.stage.around.ends(self.topic)?;
        self.wait_until("clients to come as far as the topic reaches", |scenario| {
            if scenario.load.as_ref().is_some_and(Load::has_failed) {
                // Its error is told by who stops it.
                return Ok(Ok(()));
            }
            let _ = scenario.all_listen()?;
            Ok(scenario.crowd.has_come_to(&ends))
        })?;
        self.crowd.calm(false);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), ScenarioError> {
        for trouble in &step.troubles {
            self.begin_trouble(*trouble)?;
        }
        self.pause(step.lasts)?;
        self.heal();
        Ok(())
    }

    fn begin_trouble(&mut self, Trouble { fault, instance }: Trouble) -> Result<(), ScenarioError> {
        let around = &self.stage.around;
        let Some(hit) = self.instances.get_mut(instance) else { return Ok(()) };
        match fault {
            Fault::KillService => hit.restart()?,
            Fault::SuspendService => hit.signal(Signal::SIGSTOP),
            Fault::ClockForward => hit.set_clock(FORWARD)?,
            Fault::ClockBack => hit.set_clock(BACK)?,
            Fault::CutKafka => around.kafka(Network::Cut),
            Fault::HangKafka => around.kafka(Network::BlackHole),
            Fault::SlowKafka => around.kafka(Surroundings::slow()),
            Fault::CutRedis => around.redis(Network::Cut),
            Fault::HangRedis => around.redis(Network::BlackHole),
            Fault::SlowRedis => around.redis(Surroundings::slow()),
            Fault::FlushRedis => around.forget(self.topic, &self.crowd.epochs())?,
            Fault::CutClients => self.crowd.cut(),
            Fault::MorePartitions => self.grow()?,
            Fault::Retention => {
                let kept_from = around.expire(self.topic)?;
                self.kept_from.extend(kept_from);
            }
            Fault::RecreateTopic => self.recreate()?,
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), ScenarioError> {
        let Stage { settings, around } = self.stage;
        let new = around.grow(self.topic)?;
        publish(&settings.connection, self.topic, new, FIRST_OF_A_PARTITION, self.seed ^ 1, &mut self.truth)?;
        Ok(())
    }

    fn recreate(&mut self) -> Result<(), ScenarioError> {
        let Stage { settings, around } = self.stage;
        if let Some(load) = self.load.take() {
            load.stop(&mut self.truth)?;
        }
        let truth = std::mem::take(&mut self.truth);
        self.published += truth.expected.len();
        let (known, one_reader) = (self.crowd.log_is_over(), self.instances.len() == 1);
        self.ended = Some(Ended { truth, known, one_reader });
        self.kept_from.clear();
        let partitions = around.recreate(self.topic)?;
        self.load = Some(Load::start(&settings.connection, self.topic, partitions, settings.rate, !self.seed)?);
        Ok(())
    }

    /// All is well again.
    fn heal(&self) {
        self.stage.around.kafka(Network::Healed);
        self.stage.around.redis(Network::Healed);
        for instance in &self.instances {
            instance.signal(Signal::SIGCONT);
        }
    }

    fn pause(&self, time: Duration) -> Result<(), ScenarioError> {
        let end = Instant::now() + time;
        loop {
            if self.stop.is_cancelled() {
                return Err(ScenarioError::Interrupted);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    /// Waits for a promise to be kept; one that is not in time is told as broken.
    fn wait_until(
        &mut self,
        awaited: &str,
        look: impl Fn(&mut Self) -> Result<Result<(), String>, ScenarioError>,
    ) -> Result<(), ScenarioError> {
        let deadline = Instant::now() + self.stage.settings.patience;
        loop {
            let Err(why) = look(self)? else { return Ok(()) };
            if Instant::now() >= deadline {
                let patience = self.stage.settings.patience;
                self.crowd.blame(&format!("{awaited}: not within {patience:?}: {why}"));
                return Ok(());
            }
            self.pause(LOOK)?;
        }
    }
}

/// The environment of an instance.
fn variables(stage: &Stage, topic: &str, number: u32) -> Vec<(String, String)> {
    let own = [
        ("KAFKA_TOPIC", topic.to_owned()),
        ("KAFKA_DLQ_TOPIC", dead_letters(topic)),
        ("KAFKA_GROUP_ID", topic.to_owned()),
        // One that is killed comes back as the same member.
        ("KAFKA_GROUP_INSTANCE_ID", format!("{topic}-{number}")),
        ("DASHSTREAM_REDIS_KEY_PREFIX", topic.to_owned()),
    ];
    let narrow = NARROW.into_iter().map(|(name, value)| (name, value.to_owned()));
    let named = narrow.chain(own).map(|(name, value)| (name.to_owned(), value));
    named.chain(stage.around.variables()).collect()
}
