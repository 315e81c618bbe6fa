//! The exporter of quality put together: a reader of Kafka, a tally, and a page for Prometheus; and its orderly end.

mod tally;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use self::tally::{Tally, TallySettings};
use super::settings::{connection, judge_settings};
use super::{Ended, Event, StartError, doors, told_to_end};
use crate::actors::supervisor::install_panic_hook;
use crate::config::quality::bounds;
use crate::config::sections::{AutoOffsetReset, Config};
use crate::kafka::KafkaError;
use crate::kafka::group_lag::GroupLag;
use crate::kafka::group_reader::{GroupReader, GroupSettings};
use crate::kafka::group_state::GroupState;
use crate::kafka::stop::Stop;
use crate::metrics::quality::{Buckets, QualityMetrics};
use crate::quality::health::{Facts, Reason, Status, assess};
use crate::web::quality::{Pages, start};
use crate::web::server::listen;
use crate::web::status::{ObserverRule, Observers, git_sha};

/// How long the reader may take to commit and to leave its group, of the ten seconds that a stop has.
const LAST_COMMIT: Duration = Duration::from_secs(7);
/// How long the listener may take to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs the exporter until it is told to stop, or cannot go on.
///
/// # Errors
/// When it cannot start.
pub fn export(config: &Config) -> Result<Ended, StartError> {
    install_panic_hook();
    actix::System::new().block_on(run(config))
}

async fn run(config: &Config) -> Result<Ended, StartError> {
    let (events, next_event) = mpsc::channel(16);
    let listener = bind(config)?;
    let address = listener.local_addr()?;
    let exporter = Exporter::new(config)?;
    let auth = doors::authenticator(config, &exporter.metrics.jwks_reads)?;
    let observers = Observers {
        rule: ObserverRule::Admitted(doors::operators(config, &auth)),
        local: address.ip().to_canonical().is_loopback(),
    };
    let server = start(listener, exporter.pages(config, observers)).map_err(|source| cannot_listen(config, source))?;
    exporter.log_start(config, address);
    let ended = exporter.read(config, &events)?;
    exporter.watch_lag(config, &events)?;
    let handle = server.handle();
    let serving = actix::spawn(server);
    doors::announce(crate::web::server::Role::All, false, &[address]);
    let told = told_to_end(events, next_event).await;
    exporter.draining.store(true, Ordering::Release);
    exporter.stop.stop();
    if tokio::time::timeout(LAST_COMMIT, ended).await.is_err() {
        tracing::warn!("Kafka takes too long for the end; what is not committed is counted again after a restart");
    }
    let _ = tokio::time::timeout(GOODBYE, handle.stop(true)).await;
    serving.abort();
    tracing::info!("stopped");
    Ok(told)
}

fn bind(config: &Config) -> Result<TcpListener, StartError> {
    let (host, port) = (&config.quality.host, config.quality.port);
    listen(host, port).map_err(|source| cannot_listen(config, source))
}

fn cannot_listen(config: &Config, source: std::io::Error) -> StartError {
    let address = format!("{}:{}", config.quality.host, config.quality.port);
    StartError::Bind { address, setting: "METRICS_BIND_IP and METRICS_PORT", source }
}

/// What its threads share.
#[derive(Clone)]
struct Exporter {
    metrics: Arc<QualityMetrics>,
    state: Arc<GroupState>,
    settings: GroupSettings,
    stop: Stop,
    draining: Arc<AtomicBool>,
    started: Instant,
}

impl Exporter {
    fn new(config: &Config) -> Result<Self, StartError> {
        let metrics = QualityMetrics::new(&buckets(config))?;
        tracing::info!(families = metrics.check()?, "metrics are registered");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), git_sha()]).set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.process_start.set(now.as_secs_f64());
        let metrics = Arc::new(metrics);
        Ok(Self {
            state: Arc::new(GroupState::new(Arc::clone(&metrics))),
            metrics,
            settings: GroupSettings {
                connection: connection(config, "dashstream-quality-exporter"),
                topic: config.kafka.topic.clone(),
                group: config.quality.group_id.clone(),
                from_earliest: config.kafka.auto_offset_reset == AutoOffsetReset::Earliest,
                commit_interval: config.quality.commit_interval,
                session_timeout: config.kafka.session_timeout,
            },
            stop: Stop::new(),
            draining: Arc::default(),
            started: Instant::now(),
        })
    }

    /// What an operator asks first when nothing comes.
    fn log_start(&self, config: &Config, address: std::net::SocketAddr) {
        let security = serde_json::to_value(config.kafka.security.protocol).unwrap_or_default();
        tracing::info!(
            brokers = config.kafka.brokers,
            topic = self.settings.topic,
            group = self.settings.group,
            security_protocol = security.as_str(),
            auto_offset_reset = config.kafka.auto_offset_reset.as_str(),
            %address,
            "the exporter of quality starts"
        );
    }

    /// Starts the reader. The answer comes when it has ended.
    fn read(&self, config: &Config, events: &mpsc::Sender<Event>) -> Result<oneshot::Receiver<()>, StartError> {
        let (done, ended) = oneshot::channel();
        let mut tally = Tally::new(
            TallySettings {
                judge: judge_settings(config)?,
                session_timeout: config.quality.session_timeout,
                max_sessions: config.quality.max_sessions,
                remembered: config.quality.remembered_messages,
            },
            Arc::clone(&self.metrics),
        );
        let (settings, state, stop) = (self.settings.clone(), Arc::clone(&self.state), self.stop.clone());
        let reader = GroupReader { settings, state, stop };
        thread("reader", events, done, move || reader.run(&mut tally))?;
        Ok(ended)
    }

    fn watch_lag(&self, config: &Config, events: &mpsc::Sender<Event>) -> Result<(), StartError> {
        let (settings, state, stop) = (self.settings.clone(), Arc::clone(&self.state), self.stop.clone());
        let lag = GroupLag { settings, state, interval: config.kafka.lag_check_interval, stop };
        // Nobody waits for its end: it may be at a question that Kafka does not answer.
        thread("lag", events, oneshot::channel().0, move || lag.run())
    }

    fn assess(&self, asked_every: Duration) -> (Status, Vec<Reason>) {
        let status = self.state.status();
        assess(&Facts {
            uptime: self.started.elapsed(),
            contact_age: status.contact_age,
            asked_every,
            topic_missing: status.topic_missing,
            member: status.member,
            turn_age: status.turn_age,
            last_fault: status.last_fault,
            draining: self.draining.load(Ordering::Acquire),
        })
    }

    fn health(&self, asked_every: Duration) -> Value {
        let (status, reasons) = self.assess(asked_every);
        let kafka = self.state.status();
        let fault = kafka.last_fault.map(|(age, fault)| json!({"fault": fault, "seconds_ago": age.as_secs()}));
        json!({
            "status": status.as_str(),
            "reasons": reasons,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "kafka": {
                "topic": self.settings.topic,
                "group": self.settings.group,
                "member": kafka.member,
                "partitions": self.metrics.owned_partitions.get(),
                "last_answer_seconds_ago": kafka.contact_age.map(|age| age.as_secs()),
                "last_fault": fault,
            },
            "records_received": self.metrics.received.get().to_string(),
            "judgements": self.metrics.queries.get().to_string(),
            "open_sessions": self.metrics.open_sessions.get(),
        })
    }

    fn pages(&self, config: &Config, observers: Observers) -> Pages {
        let (metrics, a, b) = (Arc::clone(&self.metrics), self.clone(), self.clone());
        let every = config.kafka.lag_check_interval;
        Pages {
            scrape: Box::new(move || {
                let began = Instant::now();
                let text = metrics.encode().map_err(|error| error.to_string());
                metrics.scrape_duration.observe(began.elapsed().as_secs_f64());
                text
            }),
            status: Box::new(move || {
                let (status, _) = a.assess(every);
                (status.as_str(), status.is_ready())
            }),
            health: Box::new(move || b.health(every)),
            observers,
        }
    }
}

/// Starts a thread without which the exporter cannot go on: whatever ends it early ends the process, and the platform starts
/// it again.
fn thread(
    name: &'static str,
    events: &mpsc::Sender<Event>,
    done: oneshot::Sender<()>,
    work: impl FnOnce() -> Result<(), KafkaError> + Send + 'static,
) -> Result<(), StartError> {
    let events = events.clone();
    let body = move || {
        let event = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                let hint = "check the brokers and the security settings";
                Some(Event::Refused(format!("the Kafka client of the thread {name} cannot be used: {error}; {hint}")))
            }
            Err(_) => Some(Event::Escalated(format!("the thread {name} panicked"))),
        };
        if let Some(event) = event {
            // Nobody may listen any more, when the process is about to end.
            let _ = events.blocking_send(event);
        }
        let _ = done.send(());
    };
    std::thread::Builder::new().name(format!("quality-{name}")).spawn(body)?;
    Ok(())
}

fn buckets(config: &Config) -> Buckets {
    let quality = &config.quality;
    Buckets {
        scores: bounds(&quality.quality_score_buckets),
        latency_ms: bounds(&quality.latency_buckets_ms),
        duration_seconds: bounds(&quality.duration_buckets_seconds),
        retries: bounds(&quality.retry_buckets),
        turns: bounds(&quality.session_turn_buckets),
        scrape_seconds: bounds(&quality.metrics_endpoint_buckets),
    }
}
