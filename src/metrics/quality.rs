//! Every metric of the exporter of quality: name, labels and meaning, declared once.
//!
//! The names are those under which earlier exporters published them. Label values are closed sets, whatever producers write. A
//! value that nobody knows has no series. It must not know who counts.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::declare::{KnownGauge, Values, metrics};
use super::{BUILD, FAULTS, KINDS, PARTITION};
use crate::quality::event::{CATEGORIES, FIELDS, ISSUES};
use crate::quality::model_names::LABELS as MODELS;
use crate::quality::run_events::EVENT_NAMES;
use crate::runs::names::MESSAGE_KINDS;

/// Whether an answer passed.
const VERDICTS: Values = Values::Closed(&["passed", "failed"]);
/// The same, where nobody may have said.
const VERDICTS_OR_NONE: Values = Values::Closed(&["passed", "failed", "unjudged"]);
/// What became of a record.
const OUTCOMES: Values =
    Values::Closed(&["counted", "duplicate", "wrong_scope", "missing_header", "other_message", "undecodable"]);

/// Upper bounds of the histograms, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Scores.
    pub scores: Vec<f64>,
    /// Latencies in milliseconds.
    pub latency_ms: Vec<f64>,
    /// Durations in seconds.
    pub duration_seconds: Vec<f64>,
    /// Retries of one query.
    pub retries: Vec<f64>,
    /// Turns of one session.
    pub turns: Vec<f64>,
    /// Time of one scrape in seconds.
    pub scrape_seconds: Vec<f64>,
}

metrics! {
    /// All metrics of the exporter. One per process.
    QualityMetrics(buckets: &Buckets);

    "Judgements" {
        /// Judgements, each counted once: those that passed, those that failed, and those of which nobody said.
        queries: IntCounter "dashstream_quality_monitor_queries_total";
        /// Judgements that say that the answer passed.
        queries_passed: IntCounter "dashstream_quality_monitor_queries_passed_total";
        /// Judgements that say that it did not, by the category of the query.
        queries_failed: IntCounterVec "dashstream_quality_monitor_queries_failed_total" ["category": Values::Closed(CATEGORIES)];
        /// Judgements that say neither.
        queries_unjudged: IntCounter "dashstream_quality_monitor_queries_unjudged_total";
        /// Score of the newest judgement that has one, whatever model, tenant and thread it is of. It is no average: for that
        /// divide the sum of dashstream_quality_scores by its count.
        quality_score: KnownGauge "dashstream_quality_monitor_quality_score";
        /// Accuracy of the newest judgement that has one; no average either.
        accuracy: KnownGauge "dashstream_quality_accuracy";
        /// Relevance of the newest judgement that has one; no average either.
        relevance: KnownGauge "dashstream_quality_relevance";
        /// Completeness of the newest judgement that has one; no average either.
        completeness: KnownGauge "dashstream_quality_completeness";
        /// Every score: its sum divided by its count is the average.
        scores: HistogramVec "dashstream_quality_scores" ["dimension": Values::Closed(&["score", "accuracy", "relevance", "completeness"])] buckets buckets.scores;
        /// Overall scores of judgements that name a model.
        scores_by_model: HistogramVec "dashstream_quality_score_by_model" ["model": Values::Closed(MODELS)] buckets buckets.scores;
        /// How long queries took, of judgements that say so.
        latency: Histogram "dashstream_query_latency_ms" buckets buckets.latency_ms;
        /// The same by model, where one is named.
        latency_by_model: HistogramVec "dashstream_latency_by_model_ms" ["model": Values::Closed(MODELS)] buckets buckets.latency_ms;
        /// Judgements that name a model.
        queries_by_model: IntCounterVec "dashstream_queries_by_model_total" ["model": Values::Closed(MODELS)];
        /// How often queries were tried again, of judgements that say so.
        retries: HistogramVec "dashstream_quality_retry_count" ["status": VERDICTS_OR_NONE] buckets buckets.retries;
        /// What judges found fault with.
        issues: IntCounterVec "dashstream_quality_issues_total" ["issue": Values::Closed(ISSUES)];
        /// Fields of judgements whose value cannot be one: not a number, negative, of another kind. The field counts as missing.
        invalid_fields: IntCounterVec "dashstream_quality_invalid_fields_total" ["field": Values::Closed(FIELDS)];
    }

    "Sessions" {
        /// Turns of each session, observed when nothing came of it for PROMETHEUS_SESSION_TIMEOUT_SECS. A judgement without a
        /// thread is a session of its own.
        turns: Histogram "dashstream_turns_by_session" buckets buckets.turns;
        /// Sessions under way.
        open_sessions: IntGauge "dashstream_exporter_open_sessions";
        /// Sessions that were ended before their time to bound memory.
        evicted_sessions: IntCounter "dashstream_exporter_sessions_evicted_total";
        /// Turns of sessions that had been counted already: they change nothing.
        late_turns: IntCounter "dashstream_exporter_late_turns_total";
    }

    "Librarian" {
        /// Judgements of applications of the type librarian, code_assistant, document_search or document_search_streaming.
        librarian_requests: IntCounter "dashstream_librarian_requests_total";
        /// Turn of the newest of them that has one.
        librarian_iterations: KnownGauge "dashstream_librarian_iterations";
        /// Those of them that say whether the answer passed.
        librarian_tests: IntCounterVec "dashstream_librarian_tests_total" ["status": VERDICTS];
        /// How long their queries took.
        librarian_duration: Histogram "dashstream_librarian_request_duration_seconds" buckets buckets.duration_seconds;
    }

    "What else the stream holds" {
        /// Messages of every kind, the events of a batch one by one; each is counted once.
        messages_by_kind: IntCounterVec "dashstream_exporter_messages_by_kind_total" ["kind": Values::Closed(&MESSAGE_KINDS)];
        /// Events of runs by type.
        run_events: IntCounterVec "dashstream_run_events_total" ["event_type": Values::Closed(EVENT_NAMES)];
        /// How long nodes took, of events that say so.
        node_duration: HistogramVec "dashstream_node_duration_seconds" ["status": Values::Closed(&["finished", "failed"])] buckets buckets.duration_seconds;
    }

    "Records" {
        /// Records received from Kafka.
        received: IntCounter "dashstream_exporter_messages_received_total";
        /// The same by what became of them: each is counted once.
        outcomes: IntCounterVec "dashstream_exporter_messages_total" ["outcome": OUTCOMES];
        /// Records that cannot be processed, by kind, judged as the service judges them.
        failed: IntCounterVec "dashstream_exporter_messages_failed_total" ["error_type": KINDS];
        /// Records of measurements of something else than quality.
        wrong_scope: IntCounter "dashstream_exporter_messages_wrong_scope_total";
        /// Judgements without a header: they are not counted as judgements.
        missing_header: IntCounter "dashstream_exporter_messages_missing_header_total";
        /// Records with a null or empty value.
        payload_missing: IntCounter "dashstream_exporter_kafka_payload_missing_total";
        /// When the newest judgement was made, by its own time; by that of its record where it has none. Never later than it was
        /// read.
        last_event: KnownGauge "dashstream_exporter_last_event_timestamp_seconds";
        /// When a judgement was last counted.
        last_update: KnownGauge "dashstream_exporter_gauges_last_update_timestamp_seconds";
    }

    "Kafka" {
        /// Faults of Kafka, the network or the exporter's clients; never of a record.
        consumer_errors: IntCounter "dashstream_exporter_kafka_consumer_errors_total";
        /// The same faults by type.
        errors_by_type: IntCounterVec "dashstream_exporter_kafka_errors_by_type_total" ["error_type": FAULTS];
        /// Offsets of counted records that could not be kept for the next commit.
        offset_store_errors: IntCounter "dashstream_exporter_offset_store_errors_total";
        /// Commits of what was counted, by result.
        commits: IntCounterVec "dashstream_exporter_offset_commits_total" ["result": Values::Closed(&["ok", "failed"])];
        /// Records that are still to be read, over all partitions that this process reads. Absent while it is not known of each.
        lag: KnownGauge "dashstream_exporter_kafka_consumer_lag";
        /// The same per partition.
        partition_lag: IntGaugeVec "dashstream_exporter_kafka_partition_lag" ["partition": PARTITION];
        /// Looks at the ends of the partitions that failed.
        lag_poll_failures: IntCounter "dashstream_exporter_lag_poll_failures_total";
        /// Partitions that this process reads.
        owned_partitions: IntGauge "dashstream_exporter_owned_partitions";
    }

    "Process" {
        /// When the process started.
        process_start: Gauge "dashstream_exporter_process_start_time_seconds";
        /// Time of scrapes.
        scrape_duration: Histogram "dashstream_exporter_metrics_endpoint_duration_seconds" buckets buckets.scrape_seconds;
        /// Reads of the public keys of tokens, by result.
        jwks_reads: IntCounterVec "dashstream_jwks_reads_total" ["result": Values::Closed(&["ok", "failed"])];
        /// 1, with version and commit.
        build_info: IntGaugeVec "dashstream_build_info" ["version": BUILD, "git_sha": BUILD];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_series_until_it_is_and_after_it_was() {
        let metrics = QualityMetrics::new(&Buckets::default()).unwrap();
        assert_eq!(metrics.check().unwrap(), QualityMetrics::TABLE.len());
        let shows = |name: &str| metrics.encode().unwrap().contains(&format!("\n{name} "));
        assert!(!shows("dashstream_exporter_kafka_consumer_lag") && shows("dashstream_quality_monitor_queries_total"));
        metrics.lag.set(0.0);
        assert!(shows("dashstream_exporter_kafka_consumer_lag"));
        metrics.lag.forget();
        assert!(!shows("dashstream_exporter_kafka_consumer_lag"));
    }

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let metrics = QualityMetrics::new(&Buckets::default()).unwrap();
        for metric in QualityMetrics::TABLE {
            let again = IntCounter::with_opts(Opts::new(metric.name, "another meaning")).unwrap();
            assert!(metrics.registry.register(Box::new(again)).is_err(), "{}", metric.name);
        }
    }
}
