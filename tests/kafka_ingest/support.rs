//! A pipeline of one actor behind `KafkaIngest`: remembers what came, settles what is ours, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler, System};
use dashstream::actors::kafka_ingest::{Drain, Drained, IngestParts, KafkaIngest, Seat};
use dashstream::actors::lag_monitor::{LagMonitor, LagParts};
use dashstream::actors::link::Link;
use dashstream::actors::supervisor::{Guard, Pulse};
use dashstream::board::{Board, Epoch};
use dashstream::kafka::connection::KafkaConnection;
use dashstream::kafka::identity::ProcessIdentity;
use dashstream::kafka::monitor::KafkaMonitor;
use dashstream::kafka::settings::IngestSettings;
use dashstream::messages::{Ingested, PartitionStart, PartitionsOpened, Settled};
use dashstream::metrics::Metrics;
use dashstream::pauses::Pauses;
use dashstream::pipeline::credit::Credit;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn connection(brokers: &str) -> KafkaConnection {
    KafkaConnection {
        brokers: brokers.into(),
        client_id: "test".into(),
        security: Default::default(),
        address_family: None,
    }
}

/// Waits for a condition.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// A batch as it came.
#[derive(Clone, Debug)]
pub struct Came {
    pub epoch: u64,
    pub partition: i32,
    pub first: i64,
    pub next: i64,
    pub lost: bool,
    pub offsets: Vec<i64>,
    pub values: Vec<Vec<u8>>,
    pub duty_term: u64,
}

#[derive(Default)]
pub struct Log {
    pub batches: Vec<Came>,
    pub openings: Vec<(Epoch, Vec<PartitionStart>)>,
}

pub struct Pipe {
    board: Board,
    log: Arc<Mutex<Log>>,
    ingest: Link<Settled>,
    settle: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
    batches: Arc<AtomicU64>,
    keep: bool,
}

impl Actor for Pipe {
    type Context = Context<Self>;
}

impl Handler<PartitionsOpened> for Pipe {
    type Result = ();
    fn handle(&mut self, opened: PartitionsOpened, _: &mut Self::Context) {
        self.log.lock().unwrap().openings.push((opened.epoch, opened.partitions));
    }
}

impl Handler<Ingested> for Pipe {
    type Result = ();
    fn handle(&mut self, ingested: Ingested, _: &mut Self::Context) {
        let Ingested { batch, permit } = ingested;
        let origin = batch.origin;
        let board = self.board.opened(origin.partition);
        let duty_term = board.duty_term.load(Ordering::Acquire);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.counted.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        if self.keep {
            let value = |record: &dashstream::pipeline::record::RawRecord| {
                record.value.map(|span| span.of(&batch.arena).to_vec()).unwrap_or_default()
            };
            self.log.lock().unwrap().batches.push(Came {
                epoch: origin.epoch,
                partition: origin.partition,
                first: origin.first,
                next: origin.next,
                lost: batch.lost.is_some(),
                offsets: batch.records.iter().map(|record| record.offset).collect(),
                values: batch.records.iter().map(value).collect(),
                duty_term,
            });
        }
        if origin.epoch == self.board.epoch_number() && board.stored.get().is_none_or(|stored| stored < origin.next) {
            board.stored.set(origin.next);
        }
        if duty_term != 0 && self.settle.load(Ordering::Relaxed) {
            self.ingest.send(Settled { origin, except: Vec::new(), duty_term });
        }
        drop(permit);
    }
}

/// `KafkaIngest` with its pipeline, in a thread of its own.
pub struct Instance {
    pub board: Board,
    pub log: Arc<Mutex<Log>>,
    pub credit: Credit,
    pub metrics: Arc<Metrics>,
    pub monitor: Arc<KafkaMonitor>,
    pub settle: Arc<AtomicBool>,
    pub counted: Arc<AtomicU64>,
    pub batches: Arc<AtomicU64>,
    pub refused: Arc<Mutex<Option<String>>>,
    parts: IngestParts,
    link: Link<Settled>,
    addr: Mutex<Addr<KafkaIngest>>,
    _lag: Addr<LagMonitor>,
    arbiter: actix::Arbiter,
    system: System,
}

impl Instance {
    pub fn start(settings: IngestSettings) -> Self {
        Self::start_as(settings, ProcessIdentity::current(), true)
    }

    pub fn start_as(settings: IngestSettings, identity: ProcessIdentity, keep: bool) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let runner = System::new();
            let (board, metrics) = (Board::new(), Arc::new(Metrics::new().unwrap()));
            let monitor = Arc::new(KafkaMonitor::new(Arc::clone(&metrics)));
            let refused = Arc::new(Mutex::new(None));
            let refuse = Arc::clone(&refused);
            let parts = IngestParts {
                settings,
                identity,
                board: board.clone(),
                credit: Credit::new(64 * 1024 * 1024),
                monitor: Arc::clone(&monitor),
                pauses: Pauses::default(),
                letters_undecided: Arc::new(|| 0),
                records: Link::default(),
                opened: Link::default(),
                refused: Arc::new(move |why| *refuse.lock().unwrap() = Some(why)),
                seat: Arc::new(Seat::default()),
            };
            let log = Arc::new(Mutex::new(Log::default()));
            let (settle, counted) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
            let batches = Arc::new(AtomicU64::new(0));
            let link: Link<Settled> = Link::default();
            let instance = runner.block_on(async {
                let pipe = Pipe {
                    board: board.clone(),
                    log: Arc::clone(&log),
                    ingest: link.clone(),
                    settle: Arc::clone(&settle),
                    counted: Arc::clone(&counted),
                    batches: Arc::clone(&batches),
                    keep,
                }
                .start();
                parts.records.publish(&pipe);
                parts.opened.publish(&pipe);
                let addr = KafkaIngest::new(parts.clone(), Pulse::new(), Guard::detached()).start();
                link.publish(&addr);
                let lag = LagParts {
                    connection: parts.settings.connection.clone(),
                    topic: parts.settings.topic.clone(),
                    interval: Duration::from_millis(200),
                    board: board.clone(),
                    monitor: Arc::clone(&monitor),
                };
                Instance {
                    _lag: LagMonitor::new(lag, Pulse::new(), Guard::detached()).start(),
                    board,
                    log,
                    credit: parts.credit.clone(),
                    metrics,
                    monitor,
                    settle,
                    counted,
                    batches,
                    refused,
                    parts,
                    link,
                    addr: Mutex::new(addr),
                    arbiter: actix::Arbiter::new(),
                    system: System::current(),
                }
            });
            ready.send(instance).ok().unwrap();
            runner.run().unwrap();
        });
        is_ready.recv().unwrap()
    }

    /// A new generation takes over, as after a crash of the actor.
    pub fn restart(&self) {
        let (parts, link) = (self.parts.clone(), self.link.clone());
        let (sent, received) = mpsc::channel();
        self.arbiter.spawn(async move {
            let addr = KafkaIngest::new(parts, Pulse::new(), Guard::detached()).start();
            link.publish(&addr);
            sent.send(addr).unwrap();
        });
        *self.addr.lock().unwrap() = received.recv().unwrap();
    }

    /// Whether each partition is known, and committed up to this offset.
    pub fn has_committed(&self, offset: i64) -> bool {
        let partitions = self.board.partitions();
        !partitions.is_empty() && partitions.iter().all(|partition| partition.committed.get() == Some(offset))
    }

    /// Its actor has stopped; whether there is a next one is the supervisor's to say.
    pub fn is_over(&self) -> bool {
        !self.addr.lock().unwrap().connected()
    }

    pub fn drain(&self, within: Duration) -> Drained {
        let addr = self.addr.lock().unwrap().clone();
        let (sent, received) = mpsc::channel();
        self.arbiter.spawn(async move {
            sent.send(addr.send(Drain { deadline: Instant::now() + within }).await.unwrap()).unwrap();
        });
        received.recv().unwrap()
    }

    /// Ends without a word to the group, as a killed process would.
    pub fn vanish(self) {
        self.system.stop();
    }

    pub fn owned(&self) -> BTreeSet<i32> {
        let owned = |p: &Arc<dashstream::board::PartitionBoard>| p.duty_term.load(Ordering::Acquire) != 0;
        self.board.partitions().iter().filter(|p| owned(p)).map(|p| p.partition).collect()
    }

    /// Values per partition in the order in which they came for the first time; panics where coverage has a seam.
    pub fn values(&self, epoch: u64) -> BTreeMap<i32, Vec<(i64, Vec<u8>)>> {
        let log = self.log.lock().unwrap();
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        let mut values: BTreeMap<i32, Vec<(i64, Vec<u8>)>> = BTreeMap::new();
        for (_, starts) in log.openings.iter().filter(|(opened, _)| opened.number == epoch) {
            for start in starts {
                next.entry(start.partition).or_insert(start.start);
            }
        }
        for batch in log.batches.iter().filter(|batch| batch.epoch == epoch) {
            let next = next.get_mut(&batch.partition).expect("opened before its first batch");
            assert!(batch.first <= *next, "a hole before {batch:?}, expected {next}");
            for (offset, value) in batch.offsets.iter().zip(&batch.values) {
                if *offset >= *next {
                    values.entry(batch.partition).or_default().push((*offset, value.clone()));
                }
            }
            *next = batch.next.max(*next);
        }
        values
    }

    /// The series of a metric with one label, as they would be scraped.
    pub fn metric(&self, name: &str) -> BTreeMap<String, f64> {
        let text = self.metrics.encode().unwrap();
        let series = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        series
            .map(|series| {
                let (labels, value) = series.split_once("} ").unwrap();
                (labels.split('"').nth(1).unwrap().to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    pub fn received(&self, epoch: u64) -> usize {
        self.values(epoch).values().map(Vec::len).sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.system.stop();
    }
}

/// A cluster to test against.
pub struct Cluster {
    pub brokers: String,
}

impl Cluster {
    /// The cluster that `DASHSTREAM_TEST_KAFKA` names.
    pub fn from_env() -> Option<Self> {
        let brokers = std::env::var("DASHSTREAM_TEST_KAFKA").ok()?;
        Some(Self { brokers })
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("broker.address.family", "v4");
        config
    }

    fn admin<T>(&self, work: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> T {
        let admin: AdminClient<_> = self.config().create().unwrap();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(&admin, &options))
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            let done = self.admin(async |admin, options| admin.create_topics([&new], options).await.unwrap());
            if done.iter().all(Result::is_ok) {
                return;
            }
            // Right after a deletion the name may still be taken.
            assert!(Instant::now() < deadline, "{done:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn delete_topic(&self, topic: &str) {
        self.admin(async |admin, options| admin.delete_topics(&[topic], options).await.unwrap());
    }

    pub fn grow_topic(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        let done = self.admin(async |admin, options| admin.create_partitions([&new], options).await.unwrap());
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        self.admin(async |admin, options| admin.delete_records(&list, options).await.unwrap());
    }

    pub fn produce(&self, topic: &str, partitions: i32, values: impl Iterator<Item = Vec<u8>>) {
        let mut config = self.config();
        config.set("linger.ms", "2").set("queue.buffering.max.messages", "1000000");
        let producer: ThreadedProducer<_> = config.create().unwrap();
        for (index, value) in (0..).zip(values) {
            let mut record = BaseRecord::<(), _>::to(topic).payload(&value).partition(index % partitions);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        producer.flush(3 * PATIENCE).unwrap();
    }

    /// Transactions of five records each: their partition, and whether they are committed. Each takes six
    /// offsets: its end is one, too.
    pub fn produce_transactions(&self, topic: &str, transactions: &[(i32, bool)]) {
        let id = format!("{topic}-{:08x}", fastrand::u32(..));
        let producer: ThreadedProducer<_> = self.config().set("transactional.id", id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for (partition, commit) in transactions {
            producer.begin_transaction().unwrap();
            for _ in 0..5 {
                let record = BaseRecord::<(), _>::to(topic).payload("in a transaction").partition(*partition);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            if *commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }.unwrap();
        }
    }

    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, (i64, String)> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let found = consumer.committed_offsets(list, PATIENCE).unwrap();
        let found = found.elements().into_iter().filter_map(|entry| match entry.offset() {
            Offset::Offset(offset) => Some((entry.partition(), (offset, entry.metadata().to_owned()))),
            _ => None,
        });
        found.collect()
    }

    pub fn settings(&self, topic: &str, instance: &str) -> IngestSettings {
        let mut settings = IngestSettings::new(connection(&self.brokers), topic, &format!("{topic}-group"), instance);
        settings.session_timeout = Duration::from_secs(6);
        settings.commit_interval = Duration::from_millis(100);
        settings.metadata_interval = Duration::from_millis(200);
        settings
    }
}

/// A name that no other test uses.
pub fn topic(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}
