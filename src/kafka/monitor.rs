//! One eye on every Kafka client: counts faults, keeps the last ones for `/health`, and logs without floods.
//!
//! It decides nothing; whether a fault is worth a restart is for those who own the client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::errors::{ErrorType, classify_error};
use super::stop::Stop;
use crate::metrics::Metrics;
use crate::pipeline::flood::Flood;

/// At most one log line per type of fault in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The longest that a stop signal waits for a client that is served.
const TURN: Duration = Duration::from_millis(100);
/// Longer texts of brokers are cut.
const REASON_CHARS: usize = 300;

/// The state of the Kafka side, shared by its threads and read by `/health`.
#[derive(Debug)]
pub struct KafkaMonitor {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_contact: Option<Instant>,
    last_fault: Option<(Instant, ErrorType, String)>,
    topic: TopicState,
    /// Since when the group does not count on this process; `None` while it does.
    not_member_since: Option<Instant>,
    logged: BTreeMap<ErrorType, Flood>,
}

/// What is known about the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicState {
    /// Kafka has not answered yet.
    #[default]
    Unknown,
    /// The topic exists.
    Present,
    /// Kafka says that there is no such topic.
    Missing,
}

/// A look at the Kafka side.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaStatus {
    /// Time since Kafka last answered the regular question about the topic; `None`: never.
    pub contact_age: Option<Duration>,
    /// The last fault: its age, type and text.
    pub last_fault: Option<(Duration, ErrorType, String)>,
    /// Whether the topic exists.
    pub topic: TopicState,
    /// Whether this process is a member of the group.
    pub member: bool,
    /// How long it has not been one; zero while it is.
    pub not_member_for: Duration,
}

impl KafkaMonitor {
    /// Nothing is known yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let state = State { not_member_since: Some(Instant::now()), ..State::default() };
        Self { metrics, state: Mutex::new(state) }
    }

    /// The metrics that it counts into.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Kafka answered.
    pub fn contact(&self, topic: TopicState) {
        let mut state = self.lock();
        state.last_contact = Some(Instant::now());
        state.topic = topic;
    }

    /// Whether the group has taken this process in.
    pub fn set_member(&self, member: bool) {
        let mut state = self.lock();
        state.not_member_since = if member { None } else { state.not_member_since.or_else(|| Some(Instant::now())) };
    }

    /// Takes a fault: counts it once, keeps it, logs it if that type was not logged lately. Errors that report no fault
    /// pass by. Answers the type.
    pub fn fault(&self, client: &str, doing: &str, error: &KafkaError, reason: &str) -> Option<ErrorType> {
        let kind = classify_error(error)?;
        self.metrics.infrastructure_errors.inc();
        self.metrics.kafka_errors_by_type.with_label_values(&[kind.label()]).inc();
        let reason: String = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        let now = Instant::now();
        let mut state = self.lock();
        let repeated = state.logged.entry(kind).or_insert(Flood::new(1, LOG_EVERY)).admit(now);
        state.last_fault = Some((now, kind, reason.clone()));
        if let Some(repeated) = repeated {
            drop(state);
            tracing::warn!(
                client,
                doing,
                error_type = kind.label(),
                reason,
                repeated,
                advice = kind.advice(),
                "kafka fault"
            );
        }
        Some(kind)
    }

    /// How things stand.
    pub fn status(&self) -> KafkaStatus {
        let state = self.lock();
        KafkaStatus {
            contact_age: state.last_contact.map(|at| at.elapsed()),
            last_fault: state.last_fault.as_ref().map(|(at, kind, text)| (at.elapsed(), *kind, text.clone())),
            topic: state.topic,
            member: state.not_member_since.is_none(),
            not_member_for: state.not_member_since.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that only reads or asks.
#[derive(Clone, Debug)]
pub struct MonitorContext {
    /// Which client it is, for the log.
    pub client: &'static str,
    /// Where its faults go.
    pub monitor: Arc<KafkaMonitor>,
}

impl ClientContext for MonitorContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library(self.client, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.monitor.fault(self.client, "connect", &error, reason);
    }
}

impl ConsumerContext for MonitorContext {}

/// Serves what a client that only asks has to report, and waits `wait` for it: faults of its connections and lines of its
/// log. It is in no group and reads nothing, so nothing else comes.
pub(super) fn serve_events<C: ConsumerContext>(client: &BaseConsumer<C>, wait: Duration) {
    // Not zero: without time left the client returns after the first line of a log, and faults would be told hours later.
    let deadline = Instant::now() + wait.max(Duration::from_millis(1));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // Whole milliseconds: the client does not wait for a fraction of one, it turns in circles until that is over.
        let whole = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        // An error that is returned was taken in by the context.
        let _ = client.poll(Duration::from_millis(whole));
    }
}

/// As [`serve_events`], and ends when stopped; true then.
pub(super) fn serve_until<C: ConsumerContext>(stop: &Stop, client: &BaseConsumer<C>, wait: Duration) -> bool {
    let end = Instant::now() + wait;
    while !stop.is_stopped() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        serve_events(client, left.min(TURN));
    }
    true
}

/// Passes a line of librdkafka on. What matters comes as an error as well, so its lines are for debugging.
pub(super) fn log_library(client: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", client, facility, message);
        }
        _ => tracing::debug!(target: "librdkafka", client, facility, message),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;

    #[test]
    fn each_fault_is_counted_once_in_total_and_by_type() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let monitor = KafkaMonitor::new(Arc::clone(&metrics));
        assert_eq!(monitor.status().contact_age, None);
        for code in [Code::Resolve, Code::BrokerTransportFailure, Code::Resolve, Code::PartitionEOF] {
            monitor.fault("test", "connect", &KafkaError::Global(code), "");
        }
        let of = |kind: ErrorType| metrics.kafka_errors_by_type.with_label_values(&[kind.label()]).get();
        assert_eq!((of(ErrorType::DnsFailure), of(ErrorType::BrokerDown)), (2, 1));
        assert_eq!(metrics.infrastructure_errors.get(), ErrorType::ALL.into_iter().map(of).sum::<u64>());
        assert_eq!(monitor.status().last_fault.map(|fault| fault.1), Some(ErrorType::DnsFailure));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let monitor = KafkaMonitor::new(Arc::new(Metrics::new().unwrap()));
        monitor.fault("test", "connect", &KafkaError::Global(Code::Resolve), &"ä".repeat(10_000));
        assert_eq!(monitor.status().last_fault.unwrap().2.chars().count(), REASON_CHARS);
    }
}
