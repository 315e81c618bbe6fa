//! What the reader of a group and the one that looks after its lag know together: places, and how Kafka does.
//!
//! It decides nothing, and holds no lock while Kafka is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::errors::{ErrorType, classify_error};
use super::monitor::log_library;
use crate::metrics::quality::QualityMetrics;
use crate::pipeline::flood::Flood;

/// At most one log line per type of fault in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Longer texts of brokers are cut.
const REASON_CHARS: usize = 300;

/// The state, shared by threads and read by `/health`.
#[derive(Debug)]
pub struct GroupState {
    metrics: Arc<QualityMetrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Partitions that the group has assigned, each with the offset after the last record that was handled.
    next: BTreeMap<i32, Option<i64>>,
    member: bool,
    turned: Instant,
    contact: Option<Instant>,
    topic_missing: bool,
    last_fault: Option<(Instant, String)>,
    logged: BTreeMap<ErrorType, Flood>,
}

/// A look at the state.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Since Kafka last answered the regular question about the topic; `None`: never.
    pub contact_age: Option<Duration>,
    /// Whether Kafka says that there is no such topic.
    pub topic_missing: bool,
    /// Whether the group has answered, and counts on this process.
    pub member: bool,
    /// Since the reader last began a turn.
    pub turn_age: Duration,
    /// The last fault: its age, and what it was.
    pub last_fault: Option<(Duration, String)>,
}

impl GroupState {
    /// Nothing is known yet.
    pub fn new(metrics: Arc<QualityMetrics>) -> Self {
        let inner = Inner {
            next: BTreeMap::new(),
            member: false,
            turned: Instant::now(),
            contact: None,
            topic_missing: false,
            last_fault: None,
            logged: BTreeMap::new(),
        };
        Self { metrics, inner: Mutex::new(inner) }
    }

    /// How things stand.
    pub fn status(&self) -> GroupStatus {
        let inner = self.lock();
        GroupStatus {
            contact_age: inner.contact.map(|at| at.elapsed()),
            topic_missing: inner.topic_missing,
            member: inner.member,
            turn_age: inner.turned.elapsed(),
            last_fault: inner.last_fault.as_ref().map(|(at, text)| (at.elapsed(), text.clone())),
        }
    }

    /// The metrics that it counts into.
    pub fn metrics(&self) -> &QualityMetrics {
        &self.metrics
    }

    /// Partitions that are read, each with the offset after the last record that was handled.
    pub(super) fn positions(&self) -> BTreeMap<i32, Option<i64>> {
        self.lock().next.clone()
    }

    /// The reader begins a turn.
    pub(super) fn turned(&self) {
        self.lock().turned = Instant::now();
    }

    /// A record was handled.
    pub(super) fn handled(&self, partition: i32, offset: i64) {
        if let Some(next) = self.lock().next.get_mut(&partition) {
            *next = Some(offset.saturating_add(1));
        }
    }

    pub(super) fn gained(&self, partitions: &[i32]) {
        let mut inner = self.lock();
        inner.next.extend(partitions.iter().map(|partition| (*partition, None)));
        inner.member = true;
        self.show(&inner);
    }

    pub(super) fn lost(&self, partitions: &[i32]) {
        let mut inner = self.lock();
        inner.next.retain(|partition, _| !partitions.contains(partition));
        self.show(&inner);
    }

    /// The group does not count on this process any more.
    pub(super) fn left(&self) {
        let mut inner = self.lock();
        inner.next.clear();
        inner.member = false;
        self.show(&inner);
    }

    fn show(&self, inner: &Inner) {
        self.metrics.owned_partitions.set(i64::try_from(inner.next.len()).unwrap_or(i64::MAX));
    }

    /// Kafka has answered the question about the topic.
    pub(super) fn contact(&self, topic_missing: bool) {
        let mut inner = self.lock();
        inner.contact = Some(Instant::now());
        inner.topic_missing = topic_missing;
    }

    /// Takes a fault: counts it once, keeps it, logs it if that type was not logged lately. Errors that report no fault
    /// pass by. Answers the type.
    pub(super) fn fault(&self, client: &str, doing: &str, error: &KafkaError, reason: &str) -> Option<ErrorType> {
        let kind = classify_error(error)?;
        self.metrics.consumer_errors.inc();
        self.metrics.errors_by_type.with_label_values(&[kind.label()]).inc();
        let reason = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        let now = Instant::now();
        let mut inner = self.lock();
        let repeated = inner.logged.entry(kind).or_insert(Flood::new(1, LOG_EVERY)).admit(now);
        inner.last_fault = Some((now, format!("{}: {reason}", kind.label())));
        drop(inner);
        if let Some(repeated) = repeated {
            let advice = kind.advice();
            tracing::warn!(client, doing, error_type = kind.label(), reason, repeated, advice, "kafka fault");
        }
        Some(kind)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that only asks.
#[derive(Clone, Debug)]
pub(super) struct AskingContext(pub(super) Arc<GroupState>);

impl ClientContext for AskingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library("lag", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.fault("lag", "connect", &error, reason);
    }
}

impl ConsumerContext for AskingContext {}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::*;
    use crate::metrics::quality::Buckets;

    fn state() -> GroupState {
        GroupState::new(Arc::new(QualityMetrics::new(&Buckets::default()).unwrap()))
    }

    #[test]
    fn each_fault_is_counted_once_in_total_and_by_type() {
        let state = state();
        for code in [Code::Resolve, Code::BrokerTransportFailure, Code::Resolve, Code::PartitionEOF] {
            state.fault("test", "connect", &KafkaError::Global(code), "");
        }
        let metrics = state.metrics();
        let of = |kind: ErrorType| metrics.errors_by_type.with_label_values(&[kind.label()]).get();
        assert_eq!((of(ErrorType::DnsFailure), of(ErrorType::BrokerDown)), (2, 1));
        assert_eq!(metrics.consumer_errors.get(), ErrorType::ALL.into_iter().map(of).sum::<u64>());
        assert!(state.status().last_fault.unwrap().1.starts_with("dns_failure"));
    }

    #[test]
    fn positions_are_those_of_partitions_that_the_group_has_assigned() {
        let state = state();
        state.handled(0, 5);
        assert!(state.positions().is_empty() && !state.status().member);
        state.gained(&[0, 1]);
        state.handled(1, 7);
        assert_eq!(state.positions(), BTreeMap::from([(0, None), (1, Some(8))]));
        state.lost(&[1]);
        state.gained(&[1]);
        assert_eq!(state.positions(), BTreeMap::from([(0, None), (1, None)]), "another may have read on");
        assert!(state.status().member);
        state.left();
        assert!(state.positions().is_empty() && !state.status().member);
    }
}
