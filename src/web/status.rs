//! `/health`, `/ready`, `/live`, `/version` and `/metrics`: what is true about the service, for people and machines.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::{Value, json};

use super::access::{OperatorAccess, Refusal};
use super::admin::refused;
use super::health::{Brief, Health};
use super::origin::names_no_other;
use crate::actors::sessions::Sessions;
use crate::actors::supervisor::SupervisorState;
use crate::board::Board;
use crate::metrics::Metrics;
use crate::pipeline::health::{self, Counts, Facts, Judged, Samples};
use crate::pipeline::retention::Bounds;
use crate::pipeline::verdict::{Reason, Status};

/// What never changes while the process runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group_id: String,
    /// Largest record value that is processed, in bytes.
    pub max_payload_bytes: usize,
    /// Whether values without a framing byte are processed.
    pub legacy_framing: bool,
    /// Whether clients have to show a token.
    pub asks_for_token: bool,
    /// `skip` or `pause`.
    pub decode_error_policy: &'static str,
    /// Bounds of the memory window.
    pub window_records: usize,
    /// Bounds of the Redis tier, where there is one.
    pub redis: Option<Bounds>,
}

/// Everything that the endpoints look at.
pub struct StatusSource {
    /// Names and limits.
    pub identity: Identity,
    /// The positions.
    pub board: Board,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The sessions.
    pub sessions: Sessions,
    /// When the process started.
    pub started: Instant,
    /// Gathers the facts that live elsewhere (Kafka, actors, credit); the window is filled in here.
    pub facts: Box<dyn Fn() -> Facts + Send + Sync>,
    /// State of every actor.
    pub actors: SupervisorState,
    samples: Mutex<Samples>,
}

impl std::fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusSource").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// `v2_` and the unpadded base64url of what makes a cursor meaningful.
pub fn resume_namespace(topic: &str, epoch: &str) -> String {
    use base64::Engine as _;
    let text = format!("topic={topic};epoch={epoch}");
    format!("v2_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text))
}

impl StatusSource {
    /// A source without samples yet.
    pub fn new(
        identity: Identity,
        board: Board,
        metrics: Arc<Metrics>,
        sessions: Sessions,
        actors: SupervisorState,
        facts: impl Fn() -> Facts + Send + Sync + 'static,
    ) -> Self {
        Self {
            identity,
            board,
            metrics,
            sessions,
            started: Instant::now(),
            facts: Box::new(facts),
            actors,
            samples: Mutex::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let metrics = &self.metrics;
        let sum = |family: &prometheus::IntCounterVec, values: &[&str]| {
            values.iter().map(|value| family.with_label_values(&[value]).get()).sum::<u64>()
        };
        Counts {
            all: Judged {
                messages: sum(&metrics.kafka_messages, &["success", "error"]),
                decode_errors: sum(&metrics.kafka_messages, &["error"]),
                payload_missing: metrics.payload_missing.get(),
            },
            new: Judged {
                messages: sum(&metrics.new_records, &["success", "error", "payload_missing"]),
                decode_errors: sum(&metrics.new_records, &["error", "payload_missing"]),
                payload_missing: sum(&metrics.new_records, &["payload_missing"]),
            },
            infrastructure_errors: metrics.infrastructure_errors.get(),
            send_failed: metrics.send_failed.get(),
            send_timeout: metrics.send_timeout.get(),
            dlq_failures: metrics.dlq_lost.get(),
            lost_offsets: sum(&metrics.lost_offsets, &["retention"]),
            redis_dropped: metrics.redis_write_dropped.get(),
            redis_emptied: metrics.redis_emptied.get(),
        }
    }

    /// Takes a sample for the windowed figures; called about once per second.
    pub fn sample(&self) {
        // Facts of which it matters how long they hold are looked at even when nobody asks.
        let _ = (self.facts)();
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now(), self.counts());
    }

    /// Status, reasons and the figures that they rest on.
    pub fn assess(&self) -> (Status, Vec<Reason>, Facts) {
        let now = Instant::now();
        let window = self.samples.lock().unwrap_or_else(PoisonError::into_inner).windowed(now, self.counts());
        let facts = Facts { uptime: self.started.elapsed(), window, ..(self.facts)() };
        let (status, reasons) = health::assess(&facts);
        (status, reasons, facts)
    }

    /// The short form that heartbeats carry to clients.
    pub fn summary(&self) -> Value {
        let (status, reasons, _) = self.assess();
        let reasons: Vec<_> =
            reasons.iter().map(|reason| json!({"code": reason.code, "detail": reason.detail})).collect();
        json!({"status": status, "reasons": reasons})
    }

    pub(super) fn last_message_age(&self) -> Option<Duration> {
        let last = self
            .board
            .partitions()
            .iter()
            .map(|partition| partition.last_record_ms.load(std::sync::atomic::Ordering::Relaxed))
            .max()
            .filter(|last| *last > 0)?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).ok()?;
        Some(Duration::from_millis(now.saturating_sub(last).max(0).cast_unsigned()))
    }

    fn version(&self) -> Value {
        // Without a name, clients wait: it is not known yet whether there was a reset by hand.
        let epoch = if self.board.knows_resets() { self.board.stream().name() } else { String::new() };
        json!({
            "component": "websocket-server",
            "version": env!("CARGO_PKG_VERSION"),
            "git_sha": git_sha(),
            "schema_version": 1,
            "protocols": ["dashstream.v2", "v1"],
            "epoch": epoch,
            "resume_namespace": (!epoch.is_empty()).then(|| resume_namespace(&self.identity.topic, &epoch)),
            "kafka_topic": self.identity.topic,
            "kafka_group_id": self.identity.group_id,
            "max_payload_bytes": self.identity.max_payload_bytes,
            "legacy_framing": self.identity.legacy_framing,
            "asks_for_token": self.identity.asks_for_token,
            "decode_error_policy": self.identity.decode_error_policy,
        })
    }

    /// Sets the gauges that are read rather than counted, then encodes everything.
    fn scrape(&self) -> prometheus::Result<String> {
        let metrics = &self.metrics;
        self.sessions.publish(metrics, Instant::now());
        let (_, _, facts) = self.assess();
        metrics.paused_partitions.set(i64::try_from(facts.stands_at.len()).unwrap_or(i64::MAX));
        metrics.uptime.set(self.started.elapsed().as_secs_f64());
        metrics.last_message_age.set(self.last_message_age().map_or(-1.0, |age| age.as_secs_f64()));
        metrics.encode()
    }
}

/// The commit that the binary was built from.
pub fn git_sha() -> &'static str {
    option_env!("GIT_COMMIT_SHA").unwrap_or("unknown")
}

fn json_response(value: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(value)
}

/// `GET /health`: always 200; the status is in the body. Who may not see what others do gets no more than that.
pub async fn health(request: HttpRequest, source: Data<StatusSource>, view: Data<Observers>) -> HttpResponse {
    json_response(&match view.allow(&request) {
        Ok(()) => Health::Full(Box::new(source.full())),
        Err(_) => Health::Brief(Brief { status: source.assess().0 }),
    })
}

/// `GET /ready`: 200 when new clients should be sent here, else 503.
pub async fn ready(source: Data<StatusSource>) -> HttpResponse {
    let (status, _, _) = source.assess();
    let body = json!({"ready": status.is_ready(), "status": status});
    if status.is_ready() {
        json_response(&body)
    } else {
        HttpResponse::ServiceUnavailable().insert_header((CACHE_CONTROL, "no-store")).json(body)
    }
}

/// `GET /live`: 200 while the process can be trusted to recover by itself.
pub async fn live() -> HttpResponse {
    json_response(&json!({"live": true}))
}

/// `GET /version`.
pub async fn version(source: Data<StatusSource>) -> HttpResponse {
    json_response(&source.version())
}

/// Who may see health and metrics in full.
#[derive(Clone, Debug)]
pub struct Observers {
    /// The rule of the listener.
    pub rule: ObserverRule,
    /// Whether the listener is for this machine alone. Who need not say who they are has to ask for this machine then, and
    /// not for a name that somebody has made point at it.
    pub local: bool,
}

/// The rule of a listener.
#[derive(Clone, Debug)]
pub enum ObserverRule {
    /// Whoever reaches the listener: it is one for operators.
    All,
    /// Who may see everything, or shows that they may.
    Admitted(OperatorAccess),
    /// Nobody: operators have another listener.
    Nobody,
}

impl Observers {
    pub(super) fn allow(&self, request: &HttpRequest) -> Result<(), Refusal> {
        let by_its_name = || !self.local || names_no_other(request.headers());
        match &self.rule {
            ObserverRule::Nobody => Err(Refusal::Elsewhere),
            ObserverRule::Admitted(access) if access.auth.is_some() => access.may_observe(request),
            ObserverRule::All | ObserverRule::Admitted(_) if by_its_name() => Ok(()),
            ObserverRule::Admitted(access) => access.may_look(request),
            ObserverRule::All => Err(Refusal::Elsewhere),
        }
    }
}

/// `GET /metrics`.
pub async fn metrics(request: HttpRequest, source: Data<StatusSource>, view: Data<Observers>) -> HttpResponse {
    if let Err(refusal) = view.allow(&request) {
        return refused(&refusal);
    }
    match source.scrape() {
        Ok(text) => {
            HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(text)
        }
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            HttpResponse::InternalServerError().body(format!("cannot encode the metrics: {error}\n"))
        }
    }
}
