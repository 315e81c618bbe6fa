//! Counts what records say: each record in one outcome, each message once, each value where it belongs.
//!
//! The decisions are those of [`crate::quality`]; here they meet the clock and the metrics. It must not know Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::kafka::group_reader::{GroupRecord, Handle};
use crate::metrics::KnownGauge;
use crate::metrics::quality::QualityMetrics;
use crate::pipeline::decode::{JudgeSettings, Kind};
use crate::quality::event::{QualityEvent, Read, read};
use crate::quality::run_events;
use crate::quality::seen::{Seen, key};
use crate::quality::sessions::{Sessions, Turn};
use crate::runs::item::{Body, Item, Opener, Unreadable};

/// Limits of what is remembered, and how records are judged.
#[derive(Debug)]
pub(super) struct TallySettings {
    /// As the service judges.
    pub(super) judge: JudgeSettings,
    /// After what silence a session is over.
    pub(super) session_timeout: Duration,
    /// Most sessions under way.
    pub(super) max_sessions: usize,
    /// How many messages are remembered.
    pub(super) remembered: usize,
}

/// The tally.
#[derive(Debug)]
pub(super) struct Tally {
    opener: Opener,
    items: Vec<Item>,
    seen: Seen,
    sessions: Sessions,
    newest: Newest,
    metrics: Arc<QualityMetrics>,
    started: Instant,
}

/// Of when the values are that gauges show, in Unix microseconds: what is read later may be older.
#[derive(Debug, Default)]
struct Newest {
    event: i64,
    score: i64,
    accuracy: i64,
    relevance: i64,
    completeness: i64,
    iterations: i64,
}

impl Tally {
    pub(super) fn new(settings: TallySettings, metrics: Arc<QualityMetrics>) -> Self {
        Self {
            opener: Opener::new(settings.judge),
            items: Vec::new(),
            seen: Seen::new(settings.remembered),
            sessions: Sessions::new(settings.session_timeout, settings.max_sessions),
            newest: Newest::default(),
            metrics,
            started: Instant::now(),
        }
    }

    /// What became of a record, as the label says it.
    fn outcome(&mut self, record: GroupRecord<'_>, now_us: i64) -> &'static str {
        let mut items = std::mem::take(&mut self.items);
        items.clear();
        let place = (record.partition, record.offset);
        let outcome = match self.opener.open(place, record.time_ms, record.value, &mut items) {
            Ok(()) => self.messages(&items, record.value.unwrap_or_default(), now_us),
            Err(Unreadable(kind)) => {
                self.metrics.failed.with_label_values(&[kind.as_str()]).inc();
                if kind == Kind::PayloadMissing {
                    self.metrics.payload_missing.inc();
                }
                "undecodable"
            }
        };
        self.items = items;
        outcome
    }

    /// Counts the messages of a record. Only one that stands alone is a judgement.
    fn messages(&mut self, items: &[Item], value: &[u8], now_us: i64) -> &'static str {
        let mut outcome = if items.is_empty() { "other_message" } else { "duplicate" };
        for item in items {
            if self.seen.is_new(key(&item.header.message_id, item.place, value)) {
                outcome = self.message(item, now_us);
            }
        }
        outcome
    }

    fn message(&mut self, item: &Item, now_us: i64) -> &'static str {
        self.metrics.messages_by_kind.with_label_values(&[item.body.kind()]).inc();
        match read(item) {
            Read::Event(event) => {
                // A record's time is Kafka's word for when; a time in the future is nobody's.
                let record_us = item.record_time_ms.map(|time| time.saturating_mul(1_000));
                let time_us = event.time_us.or(record_us).unwrap_or(now_us).min(now_us);
                self.count(&event, time_us, now_us);
                "counted"
            }
            Read::WrongScope => {
                self.metrics.wrong_scope.inc();
                "wrong_scope"
            }
            Read::MissingHeader => {
                self.metrics.missing_header.inc();
                "missing_header"
            }
            Read::Other => {
                if let Body::Event(event) = &item.body {
                    self.metrics.run_events.with_label_values(&[run_events::name(event)]).inc();
                    if let Some((status, duration)) = run_events::node_duration(event) {
                        self.metrics.node_duration.with_label_values(&[status]).observe(duration.as_secs_f64());
                    }
                }
                "other_message"
            }
        }
    }

    fn count(&mut self, event: &QualityEvent, time_us: i64, now_us: i64) {
        let metrics = &self.metrics;
        metrics.queries.inc();
        let status = match event.passed {
            Some(true) => {
                metrics.queries_passed.inc();
                "passed"
            }
            Some(false) => {
                metrics.queries_failed.with_label_values(&[event.category]).inc();
                "failed"
            }
            None => {
                metrics.queries_unjudged.inc();
                "unjudged"
            }
        };
        for (dimension, score, gauge, at) in [
            ("score", event.score, &metrics.quality_score, &mut self.newest.score),
            ("accuracy", event.accuracy, &metrics.accuracy, &mut self.newest.accuracy),
            ("relevance", event.relevance, &metrics.relevance, &mut self.newest.relevance),
            ("completeness", event.completeness, &metrics.completeness, &mut self.newest.completeness),
        ] {
            if let Some(score) = score {
                metrics.scores.with_label_values(&[dimension]).observe(score);
                show_newest(gauge, at, score, time_us);
            }
        }
        if let Some(model) = event.model {
            metrics.queries_by_model.with_label_values(&[model]).inc();
            if let Some(score) = event.score {
                metrics.scores_by_model.with_label_values(&[model]).observe(score);
            }
            if let Some(latency) = event.latency_ms {
                metrics.latency_by_model.with_label_values(&[model]).observe(latency);
            }
        }
        if let Some(latency) = event.latency_ms {
            metrics.latency.observe(latency);
        }
        if let Some(retries) = event.retries {
            metrics.retries.with_label_values(&[status]).observe(to_float(retries));
        }
        for issue in &event.issues {
            metrics.issues.with_label_values(&[issue]).inc();
        }
        for field in &event.invalid {
            metrics.invalid_fields.with_label_values(&[field]).inc();
        }
        show_newest(&metrics.last_event, &mut self.newest.event, seconds(time_us), time_us);
        metrics.last_update.set(seconds(now_us));
        self.librarian(event, status, time_us);
        self.session(event);
    }

    fn librarian(&mut self, event: &QualityEvent, status: &str, time_us: i64) {
        let metrics = &self.metrics;
        if !event.librarian {
            return;
        }
        metrics.librarian_requests.inc();
        if event.passed.is_some() {
            metrics.librarian_tests.with_label_values(&[status]).inc();
        }
        if let Some(latency) = event.latency_ms {
            metrics.librarian_duration.observe(latency / 1_000.0);
        }
        if let Some(turn) = event.turn {
            show_newest(&metrics.librarian_iterations, &mut self.newest.iterations, to_float(turn), time_us);
        }
    }

    fn session(&mut self, event: &QualityEvent) {
        let Some(turn) = event.turn else { return };
        let Some(session) = event.session else {
            self.metrics.turns.observe(to_float(turn));
            return;
        };
        match self.sessions.turn(session, turn, self.started.elapsed()) {
            Turn::Noted => {}
            Turn::Late => self.metrics.late_turns.inc(),
            Turn::Ended(turns) => {
                self.metrics.evicted_sessions.inc();
                self.metrics.turns.observe(to_float(turns));
            }
        }
    }

    fn observe(&self, ended: &[u64]) {
        for turns in ended {
            self.metrics.turns.observe(to_float(*turns));
        }
        self.metrics.open_sessions.set(i64::try_from(self.sessions.len()).unwrap_or(i64::MAX));
    }
}

impl Handle for Tally {
    fn record(&mut self, record: GroupRecord<'_>) {
        self.metrics.received.inc();
        let outcome = self.outcome(record, now_us());
        self.metrics.outcomes.with_label_values(&[outcome]).inc();
    }

    fn turn(&mut self) {
        let ended = self.sessions.sweep(self.started.elapsed());
        self.observe(&ended);
    }

    fn end(&mut self) {
        let ended = self.sessions.flush();
        self.observe(&ended);
        tracing::info!(sessions = ended.len(), "sessions under way were ended");
    }
}

/// Shows a value, unless the one that is shown is newer.
fn show_newest(gauge: &KnownGauge, shown_us: &mut i64, value: f64, time_us: i64) {
    if time_us >= *shown_us {
        *shown_us = time_us;
        gauge.set(value);
    }
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of this century are exact to one of them")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "counts are at most 1e9")]
fn to_float(count: u64) -> f64 {
    count as f64
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
