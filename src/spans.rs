//! What a collector of traces is told: records that cannot be processed, and resumes, each as one span of the trace that it
//! comes from.
//!
//! Without a collector nothing is made. With one nobody waits for it: what does not fit into a bounded queue is counted and
//! left out. It must not know how spans travel.

mod otlp;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{KeyValue, Value};

use self::otlp::Collector;
pub use self::otlp::{CollectorError, CollectorSettings};
use crate::metrics::Metrics;
use crate::pipeline::dead_letter::{LetterContext, Rejected};
use crate::pipeline::record::decode_headers;
use crate::pipeline::trace_parent::TraceParent;

/// Where spans go, if anywhere. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Collector>>);

/// How a resume went.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Number of the session.
    pub session: u64,
    /// The span that the client's connection belongs to.
    pub parent: Option<TraceParent>,
    /// The protocol spoken.
    pub protocol: &'static str,
    /// Records that were replayed.
    pub replayed: u64,
    /// What ended it.
    pub end: ResumeEnd,
    /// From the request on.
    pub took: Duration,
}

/// What ends a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeEnd {
    /// The client has everything and is live.
    Live,
    /// It met a limit with more to come.
    Capped,
    /// What it asked for could not be read in time.
    TimedOut,
}

impl Spans {
    /// To a collector.
    ///
    /// # Errors
    /// When the address cannot be used, or there is no thread for it.
    pub fn to(settings: &CollectorSettings, metrics: &Metrics) -> Result<Self, CollectorError> {
        Collector::new(settings, metrics).map(|collector| Self(Some(Arc::new(collector))))
    }

    /// A record was set aside. `now_ms` is the time in Unix milliseconds.
    pub fn unprocessable(&self, letters: &LetterContext, rejected: &Rejected<'_>, now_ms: i64) {
        let Some(collector) = &self.0 else { return };
        let Rejected { partition, record, arena, kind, explanation } = *rejected;
        let parent = TraceParent::of_headers(decode_headers(record.headers.of(arena)));
        collector.tell(parent, || {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
            let attributes = vec![
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", letters.topic.clone()),
                KeyValue::new("messaging.destination.partition.id", partition.to_string()),
                KeyValue::new("messaging.kafka.offset", record.offset),
                KeyValue::new("messaging.consumer.group.name", letters.consumer_group.clone()),
                KeyValue::new("error.type", kind.as_str()),
                KeyValue::new("dashstream.decode.policy", letters.policy.clone()),
            ];
            let status = Status::error(explanation.error.clone());
            Span { name: "process record", kind: SpanKind::Consumer, start: now, end: now, status, attributes }
        });
    }

    /// A resume ended.
    pub fn resumed(&self, resumed: &Resumed) {
        let Some(collector) = &self.0 else { return };
        collector.tell(resumed.parent, || {
            let end = SystemTime::now();
            let mut attributes = vec![
                KeyValue::new("dashstream.session", Value::I64(resumed.session.cast_signed())),
                KeyValue::new("network.protocol.name", resumed.protocol),
                KeyValue::new("dashstream.replay.records", Value::I64(resumed.replayed.cast_signed())),
                KeyValue::new("dashstream.replay.capped", resumed.end == ResumeEnd::Capped),
            ];
            let mut status = Status::Unset;
            if resumed.end == ResumeEnd::TimedOut {
                attributes.push(KeyValue::new("error.type", "timeout"));
                status = Status::error("history could not be read in time");
            }
            let start = end.checked_sub(resumed.took).unwrap_or(end);
            Span { name: "resume", kind: SpanKind::Server, start, end, status, attributes }
        });
    }

    /// Sends what waits, and waits for that no longer than `patience`. What comes later is left out.
    pub async fn finish(&self, patience: Duration) {
        if let Some(collector) = &self.0 {
            collector.finish(patience).await;
        }
    }
}

/// One span, as it is told.
#[derive(Debug)]
struct Span {
    name: &'static str,
    kind: SpanKind,
    start: SystemTime,
    end: SystemTime,
    status: Status,
    attributes: Vec<KeyValue>,
}

#[cfg(test)]
mod tests;
