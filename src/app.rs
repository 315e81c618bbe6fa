//! The composition root: configuration in, a running service out, and its orderly end.

mod doors;
mod facts;

pub mod quality;

mod redis_tier;

mod settings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Arbiter};
use actix_web::dev::ServerHandle;
use tokio::sync::mpsc;

use self::facts::{Standstill, actor_facts, holds_all, stands_at};
pub use self::settings::{connection, judge_settings};
use self::settings::{
    history_settings, identity, ingest_settings, letter_context, restart_settings, session_settings, spans,
    store_settings,
};
use crate::actors::client_session::{SessionSettings, SessionShared};
use crate::actors::dlq_publisher::{self, DlqRetry};
use crate::actors::heartbeat::HeartbeatSource;
use crate::actors::history::HistoryDeps;
use crate::actors::kafka_ingest::{self, IngestParts};
use crate::actors::lag_monitor::LagParts;
use crate::actors::letter_queue::{LetterLimits, Letters};
use crate::actors::sessions::{Patience, Sessions};
use crate::actors::supervisor::{self, Supervisor, SupervisorSpec, SupervisorState, install_panic_hook};
use crate::actors::topology::{self, Links, Parts};
use crate::board::Board;
use crate::config::instance;
use crate::config::sections::{Config, DlqMode, OnDecodeError};
use crate::kafka::dlq_producer::{DlqProducer, DlqProducerSettings};
use crate::kafka::history::{HistoryParts, KafkaHistory};
use crate::kafka::identity::ProcessIdentity;
use crate::kafka::monitor::{KafkaMonitor, TopicState};
use crate::kafka::resets::{KafkaResets, ResetParts};
use crate::metrics::Metrics;
use crate::pauses::Pauses;
use crate::pipeline::credit::Credit;
use crate::pipeline::dead_letter::Durability;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::health::{DeadLettersBlocked, Facts};
use crate::spans::{CollectorError, Spans};
use crate::web::admin::Admin;
use crate::web::admission::Admission;
use crate::web::server::{self, ServerSettings};
use crate::web::status::{self, Identity, StatusSource};
use crate::web::websocket::WebsocketDeps;
use crate::wire::close_code::CloseCode;

/// The value at which judging panics where sabotage is allowed.
const SABOTAGED_VALUE: &[u8] = b"\0dashstream-test-panic";
/// How often the windowed figures are sampled and stalled sockets are looked for.
const TICK: Duration = Duration::from_secs(1);
/// The share of the shutdown timeout that an orderly stop may use; what is cut off takes a moment to end, too.
const STOP_SHARE: f64 = 0.9;
/// How much longer the kernel waits for a client that takes nothing.
const KERNEL_AFTER_WATCHDOG: Duration = Duration::from_secs(5);
/// How long the last spans may take to the collector.
const LAST_SPANS: Duration = Duration::from_millis(500);
/// How long closed sessions may take to send their last frames.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long after its deadline an actor that is being drained may take to say how that went.
const LAST_REPORTS: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Told to stop, and stopped in order.
    Stopped,
    /// The supervisor gave up.
    Escalated(String),
    /// The process must not go on.
    Refused(String),
}

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not free or not ours.
    #[error("cannot listen on {address}: {source}; choose another with {setting}")]
    Bind {
        /// Host and port.
        address: String,
        /// What says where to listen.
        setting: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A metric is declared twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A pattern is too large when it is compiled.
    #[error("a pattern of redact.patterns cannot be used: {0}")]
    Pattern(#[from] regex::Error),
    /// There is no way to the collector of spans.
    #[error(transparent)]
    Collector(#[from] CollectorError),
    /// Public keys of tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] crate::web::auth::JwksError),
    /// The listener's certificate cannot be used.
    #[error("{0} (web.tls_certificate, web.tls_key)")]
    Tls(#[from] crate::web::tls::TlsError),
    /// The system gives no more threads.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A Kafka client refuses its settings.
    #[error("the Kafka settings cannot be used: {0}")]
    Kafka(#[from] crate::kafka::KafkaError),
    /// The address of Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] crate::redis::connect::ConnectError),
}

/// What may differ between a service and a test of it, or the demo.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether actors can be made to fail through `POST /test/sabotage/{actor}/{fault}`.
    pub allow_sabotage: bool,
    /// The cluster is known to have no ids of topics: it need not be asked, and waited for.
    pub without_topic_ids: bool,
}

#[derive(Debug)]
enum Event {
    Signal(&'static str),
    Escalated(String),
    Refused(String),
}

/// Runs the service until it is told to stop, or cannot go on.
///
/// # Errors
/// When it cannot start.
pub fn serve(config: &Config, options: Options) -> Result<Ended, StartError> {
    install_panic_hook();
    actix::System::new().block_on(run(config, options))
}

async fn run(config: &Config, options: Options) -> Result<Ended, StartError> {
    let (events, next_event) = mpsc::channel(16);
    let mut doors = doors::bind(config)?;
    let port = doors.first().and_then(|door| door.listener.local_addr().ok()).map_or(config.web.port, |at| at.port());
    let mut service = Service::new(config, port, &events)?;
    if options.without_topic_ids {
        service.parts.ingest.settings.topic_id_timeout = Duration::ZERO;
    }
    service.parts.judge.sabotaged_value = options.allow_sabotage.then_some(SABOTAGED_VALUE);
    let status = Arc::new(service.status());
    doors::encrypt(config, &mut doors, &service.parts.metrics)?;
    let web = service.web(config, &status)?;
    let mut servers = Vec::new();
    for door in doors {
        let (role, encrypted) = (door.role, door.tls.is_some());
        let (server, addresses) = server::start(&service.server_settings(config), door, &web, options.allow_sabotage)
            .map_err(|source| doors::cannot_listen(config, role, source))?;
        servers.push((server, role, encrypted, addresses));
    }
    let supervisor = service.supervise(options, &events);
    *service.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(supervisor.clone());
    let mut handles = Vec::new();
    let mut serving = Vec::new();
    for (server, role, encrypted, addresses) in servers {
        handles.push(server.handle());
        serving.push(actix::spawn(server));
        doors::announce(role, encrypted, &addresses);
    }
    service.tick(config, &status);
    let ended = told_to_end(events, next_event).await;
    service.draining.store(true, Ordering::Release);
    let budget = config.web.shutdown_timeout.mul_f64(STOP_SHARE);
    let stopped = service.stop(budget, &supervisor, &handles);
    if tokio::time::timeout(budget, stopped).await.is_err() {
        tracing::warn!("the stop took too long; what is left is dropped");
    }
    serving.iter().for_each(tokio::task::JoinHandle::abort);
    service.parts.spans.finish(LAST_SPANS).await;
    tracing::info!("stopped");
    Ok(ended)
}

/// Waits for what ends the run. From then on further signals change nothing.
async fn told_to_end(events: mpsc::Sender<Event>, mut next_event: mpsc::Receiver<Event>) -> Ended {
    signals(events);
    let event = next_event.recv().await.unwrap_or(Event::Signal("nobody is left"));
    let (why, ended) = match event {
        Event::Signal(name) => (name.to_owned(), Ended::Stopped),
        Event::Escalated(reason) => (reason.clone(), Ended::Escalated(reason)),
        Event::Refused(reason) => (reason.clone(), Ended::Refused(reason)),
    };
    tracing::info!(why, "stopping");
    ended
}

fn signals(events: mpsc::Sender<Event>) {
    use tokio::signal::unix::{SignalKind, signal};
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        let events = events.clone();
        match signal(kind) {
            Ok(mut signal) => {
                actix::spawn(async move {
                    if signal.recv().await.is_some() {
                        // A second signal while stopping changes nothing.
                        let _ = events.try_send(Event::Signal(name));
                    }
                });
            }
            Err(error) => tracing::error!(name, %error, "cannot listen for the signal"),
        }
    }
}

/// What outlives every actor.
struct Service {
    parts: Parts,
    history: KafkaHistory,
    resets: KafkaResets,
    monitor: Arc<KafkaMonitor>,
    credit: Credit,
    state: SupervisorState,
    draining: Arc<AtomicBool>,
    supervisor: Arc<Mutex<Option<Addr<Supervisor>>>>,
    identity: Identity,
    session_settings: SessionSettings,
    stale_partition: Duration,
}

impl Service {
    fn new(config: &Config, port: u16, events: &mpsc::Sender<Event>) -> Result<Self, StartError> {
        let metrics = registered_metrics()?;
        let instance_id = instance::instance_id(config, &instance::host_name(), port);
        let connection = connection(config, &instance_id);
        let letter_settings = DlqProducerSettings { topic: config.dlq_topic(), send_timeout: config.dlq.send_timeout };
        let monitor = Arc::new(KafkaMonitor::new(Arc::clone(&metrics)));
        let letter_producer =
            DlqProducer::new(connection.client_config("dlq"), &letter_settings, Arc::clone(&monitor))?;
        let links = Links::default();
        let board = Board::new();
        let credit = Credit::new(config.kafka.in_flight_bytes);
        let letter_queue = letter_queue(config, &links, &board, &metrics);
        let (refused, undecided) = (events.clone(), letter_queue.clone());
        let ingest = IngestParts {
            settings: ingest_settings(config, connection, &instance_id),
            identity: ProcessIdentity::current(),
            board: board.clone(),
            credit: credit.clone(),
            monitor: Arc::clone(&monitor),
            pauses: Pauses::default(),
            letters_undecided: Arc::new(move || undecided.undecided()),
            records: links.ingested.clone(),
            opened: links.opened.clone(),
            refused: Arc::new(move |reason| {
                let _ = refused.try_send(Event::Refused(reason));
            }),
            seat: Arc::default(),
        };
        let lag = lag_parts(config, &ingest);
        let sessions = Sessions::default();
        let resets = resets(&ingest, sessions.clone())?;
        let judge = judge_settings(config)?;
        let redis = redis_tier::parts(config, &links, &metrics);
        let (history, mut tiers) = history(config, &judge, &ingest, &sessions, spans(config, &instance_id, &metrics)?)?;
        if let Some(redis) = &redis {
            tiers.redis = Some(Arc::new(redis_tier::reader(redis, &board)?));
        }
        let identity = identity(config);
        let parts = Parts {
            letter_queue,
            redis,
            pause: config.decode.on_error == OnDecodeError::Pause,
            links,
            board,
            spans: tiers.spans.clone(),
            metrics,
            sessions,
            ingest,
            judge,
            hash_seed: fastrand::u64(..),
            letters: letter_context(config, &identity, instance_id),
            store: store_settings(config),
            letter_producer: Arc::new(letter_producer),
            history: tiers,
            letter_retry: DlqRetry::new(config.dlq.max_in_flight, config.dlq.send_timeout),
            lag,
            restarts: restart_settings(config),
        };
        Ok(Self {
            parts,
            history,
            resets,
            monitor,
            credit,
            state: SupervisorState::default(),
            draining: Arc::default(),
            supervisor: Arc::default(),
            identity,
            session_settings: session_settings(config),
            stale_partition: config.kafka.lag_stale_partition,
        })
    }

    /// The facts that health rests on, gathered where they live.
    fn status(&self) -> StatusSource {
        let (monitor, credit, state) = (Arc::clone(&self.monitor), self.credit.clone(), self.state.clone());
        let (draining, board) = (Arc::clone(&self.draining), self.parts.board.clone());
        let (pauses, letters) = (self.parts.ingest.pauses.clone(), self.parts.letter_queue.clone());
        let standstill = Standstill::new(self.stale_partition);
        let alone = self.parts.ingest.settings.pause_partition_alone;
        let full_since = Mutex::new(None::<Instant>);
        let redis = self.parts.redis.clone();
        let facts = move || {
            let kafka = monitor.status();
            let mut full_since = full_since.lock().unwrap_or_else(PoisonError::into_inner);
            *full_since = (credit.used() >= credit.limit()).then(|| full_since.unwrap_or_else(Instant::now));
            Facts {
                draining: draining.load(Ordering::Acquire),
                kafka_contact: kafka.contact_age,
                topic_missing: kafka.topic == TopicState::Missing,
                reading: board.knows_resets()
                    && board.partitions().iter().any(|partition| partition.stored.get().is_some()),
                not_member: (!kafka.member).then_some(kafka.not_member_for),
                credit_exhausted: full_since.map(|since| since.elapsed()),
                stuck: standstill.stuck(&board, &pauses, holds_all(&pauses, alone), Instant::now()),
                stands_at: stands_at(&pauses),
                dead_letters_blocked: letters.blocked().map(|blocked| DeadLettersBlocked {
                    since: blocked.since.elapsed(),
                    letters: blocked.letters,
                    partitions: blocked.partitions,
                }),
                redis_failing: redis.as_ref().and_then(redis_tier::failing),
                actors: actor_facts(&state),
                ..Facts::default()
            }
        };
        StatusSource::new(
            self.identity.clone(),
            self.parts.board.clone(),
            Arc::clone(&self.parts.metrics),
            self.parts.sessions.clone(),
            self.state.clone(),
            facts,
        )
    }

    fn server_settings(&self, config: &Config) -> ServerSettings {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ServerSettings {
            workers: if config.web.workers == 0 { cores } else { config.web.workers },
            max_connections: config.web.max_connections,
            // Later than the watchdog, which can tell why; the kernel only cuts.
            user_timeout: config.web.send_timeout + KERNEL_AFTER_WATCHDOG,
            shutdown_timeout: GOODBYE,
        }
    }

    fn web(&self, config: &Config, status: &Arc<StatusSource>) -> Result<server::Web, StartError> {
        let auth = doors::authenticator(config, &self.parts.metrics.jwks_reads)?;
        let for_heartbeat = Arc::clone(status);
        let shared = SessionShared {
            settings: self.session_settings.clone(),
            board: self.parts.board.clone(),
            metrics: Arc::clone(&self.parts.metrics),
            leave: self.parts.links.leave.clone(),
            times: Arc::new(self.history.clone()),
            spans: self.parts.spans.clone(),
            heartbeat: HeartbeatSource::new(self.parts.board.clone(), move || for_heartbeat.summary()),
            resume_namespace: status::resume_namespace,
        };
        Ok(server::Web {
            status: Arc::clone(status),
            websocket: Arc::new(WebsocketDeps {
                shared: Arc::new(shared),
                sessions: self.parts.sessions.clone(),
                admission: Admission::new(config.web.max_connections, config.web.max_connections_per_ip),
                proxies: doors::proxies(config),
                origins: doors::origins(config),
                auth: auth.clone(),
                join: self.parts.links.join.clone(),
            }),
            admin: Arc::new(Admin {
                pauses: self.parts.ingest.pauses.clone(),
                access: doors::operators(config, &auth),
                resets: Arc::new(self.resets.clone()),
                topic: self.identity.topic.clone(),
            }),
            supervisor: Arc::clone(&self.supervisor),
        })
    }

    fn supervise(&self, options: Options, events: &mpsc::Sender<Event>) -> Addr<Supervisor> {
        let events = events.clone();
        let spec = SupervisorSpec {
            groups: topology::groups(&self.parts),
            heartbeat_interval: self.parts.restarts.heartbeat / 5,
            state: self.state.clone(),
            metrics: Arc::clone(&self.parts.metrics),
            escalate: Box::new(move |reason| {
                let _ = events.try_send(Event::Escalated(reason));
            }),
            allow_sabotage: options.allow_sabotage,
        };
        // On a thread of its own: nobody whom it watches can block it.
        Supervisor::start_in_arbiter(&Arbiter::new().handle(), |_| Supervisor::new(spec))
    }

    fn tick(&self, config: &Config, status: &Arc<StatusSource>) {
        let patience =
            Patience { unread: config.web.send_timeout, unpolled: config.web.send_timeout + config.web.heartbeat };
        let (sessions, metrics) = (self.parts.sessions.clone(), Arc::clone(&self.parts.metrics));
        let status = Arc::clone(status);
        actix::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                status.sample();
                sessions.end_stalled(patience, Instant::now(), &metrics);
            }
        });
    }

    /// Intake first, then what is in flight, then the letters, then the browsers, then the actors.
    async fn stop(&self, budget: Duration, supervisor: &Addr<Supervisor>, servers: &[ServerHandle]) {
        let deadline = Instant::now() + budget / 2;
        // An actor that hangs does not answer, and the browsers are to hear of the stop all the same.
        let answers_by = (deadline + LAST_REPORTS).into();
        if let Some(ingest) = self.parts.links.drain_ingest.current() {
            match tokio::time::timeout_at(answers_by, ingest.send(kafka_ingest::Drain { deadline })).await {
                Ok(Ok(drained)) => tracing::info!(drained.empty, drained.committed, "intake stopped"),
                Ok(Err(error)) => tracing::warn!(%error, "intake could not be drained"),
                Err(_) => tracing::warn!("intake does not answer; it is left as it is"),
            }
        }
        if let Some(letters) = self.parts.links.drain_letters.current() {
            let deadline = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            match tokio::time::timeout_at(answers_by, letters.send(dlq_publisher::Drain { deadline })).await {
                Ok(Ok(0)) => {}
                Ok(Ok(undecided)) => tracing::warn!(undecided, "dead letters without an answer"),
                Ok(Err(error)) => tracing::warn!(%error, "dead letters could not be drained"),
                Err(_) => tracing::warn!("the publisher of dead letters does not answer; it is left as it is"),
            }
        }
        if let Some(redis) = &self.parts.redis {
            let queue = &redis.writer.queue;
            let left = deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(100), GOODBYE);
            if tokio::time::timeout(left, queue.all_written()).await.is_err() {
                tracing::warn!(chunks = queue.waiting(), "chunks that were not written to redis");
            }
        }
        self.parts.sessions.close_all(CloseCode::GoingAway, Instant::now());
        self.history.stop();
        let gone = async {
            while !self.parts.sessions.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(GOODBYE, gone).await.is_err() {
            tracing::warn!(sessions = self.parts.sessions.len(), "clients did not take their close frame");
        }
        let stopping = servers.iter().map(|server| server.stop(true));
        let _ = tokio::time::timeout(GOODBYE, futures_util::future::join_all(stopping)).await;
        let _ = supervisor.send(supervisor::Stop).await;
    }
}

/// The tiers below the memory window.
fn history(
    config: &Config,
    judge: &JudgeSettings,
    ingest: &IngestParts,
    sessions: &Sessions,
    spans: Spans,
) -> std::io::Result<(KafkaHistory, HistoryDeps)> {
    let board = ingest.board.clone();
    let history = KafkaHistory::start(HistoryParts {
        kafka: ingest.settings.clone(),
        judge: judge.clone(),
        readers: config.replay.history_readers,
        cache_bytes: config.replay.history_cache_bytes,
        board: board.clone(),
        monitor: Arc::clone(&ingest.monitor),
    })?;
    let tiers = HistoryDeps {
        settings: history_settings(config),
        redis: None,
        kafka: Arc::new(history.clone()),
        sessions: sessions.clone(),
        board,
        metrics: Arc::clone(ingest.monitor.metrics()),
        spans,
    };
    Ok((history, tiers))
}

fn registered_metrics() -> Result<Arc<Metrics>, StartError> {
    let metrics = Metrics::new()?;
    let families = metrics.check()?;
    let names: Vec<&str> = Metrics::TABLE.iter().map(|metric| metric.name).collect();
    tracing::info!(families, names = names.join(" "), "metrics are registered");
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), status::git_sha()]).set(1);
    Ok(Arc::new(metrics))
}

/// Resets by hand, and who is told of them.
fn resets(ingest: &IngestParts, sessions: Sessions) -> std::io::Result<KafkaResets> {
    let board = ingest.board.clone();
    KafkaResets::start(ResetParts {
        settings: ingest.settings.clone(),
        board: board.clone(),
        monitor: Arc::clone(&ingest.monitor),
        changed: Box::new(move || sessions.begin_anew(&board.stream(), Instant::now())),
    })
}

fn lag_parts(config: &Config, ingest: &IngestParts) -> LagParts {
    LagParts {
        connection: ingest.settings.connection.clone(),
        topic: config.kafka.topic.clone(),
        interval: config.kafka.lag_check_interval,
        board: ingest.board.clone(),
        monitor: Arc::clone(&ingest.monitor),
    }
}

fn letter_queue(config: &Config, links: &Links, board: &Board, metrics: &Arc<Metrics>) -> Letters {
    let limits = LetterLimits {
        durability: match config.dlq.mode {
            DlqMode::BestEffort => Durability::BestEffort,
            DlqMode::FailClosed => Durability::FailClosed,
        },
        waiting: config.dlq.queue_letters,
        bytes: config.dlq.queue_bytes,
        patience: config.dlq.send_timeout,
    };
    Letters::new(limits, links.dead_letters.clone(), links.settled.clone(), board.clone(), Arc::clone(metrics))
}
