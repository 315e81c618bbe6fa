//! Every metric: name, labels, buckets and meaning, declared once. Those of the service are here, those of the exporter of
//! quality in [`quality`]: each program exports its own table and no other.
//!
//! The registry belongs to the application and outlives every actor. A name that is registered twice stops the start.
//! Label values are closed sets, so that a series exists before its first event. It must not know who counts.

mod declare;

pub mod quality;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use declare::metrics;
pub use declare::{Declared, KnownGauge, Values};
/// Counters of one family.
pub use prometheus::IntCounterVec as Counters;

const LATENCY_MS: &[f64] = &[1., 2., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000., 60000.];
const GAP_SIZES: &[f64] = &[1., 2., 5., 10., 25., 50., 100., 250., 500., 1000., 5000., 10000.];
const POLL_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10.];
const APPLY_LAG_MESSAGES: &[f64] = &[0., 1., 10., 100., 1_000., 10_000., 100_000., 1_000_000.];
const APPLY_LAG_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1., 5., 10., 30., 60., 300.];
const REDIS_MS: &[f64] = &[1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000.];
const PAGE_RECORDS: &[f64] = &[0., 1., 10., 50., 100., 250., 500., 1_000., 2_500., 5_000., 10_000.];
const PAGE_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30.];
const REPLAY_MS: &[f64] = &[1., 5., 10., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000.];

/// Kinds of unprocessable records.
const KINDS: Values = Values::Closed(&[
    "payload_missing",
    "payload_too_large",
    "unknown_framing",
    "decompression_failed",
    "decompressed_too_large",
    "invalid_protobuf",
    "schema_version",
    "internal",
]);
/// Types of faults of Kafka and the network.
const FAULTS: Values = Values::Closed(&[
    "dns_failure",
    "broker_down",
    "all_brokers_down",
    "timeout",
    "authentication",
    "authorization",
    "tls",
    "topic_missing",
    "leader_unavailable",
    "coordinator_unavailable",
    "group",
    "fenced",
    "offset_out_of_range",
    "corrupt",
    "unsupported",
    "fatal",
    "unknown",
]);
/// Supervised actors.
const ACTORS: Values = Values::Closed(&[
    "KafkaIngest",
    "DecodePolicy",
    "SequenceTracker",
    "ReplayStore",
    "DlqPublisher",
    "LagMonitor",
    "RedisWriter",
    "History",
]);
/// Why an actor was restarted.
const CAUSES: Values = Values::Closed(&["panic", "stop", "hang", "start_failure", "sibling"]);
/// How a session ended: the names of the close codes.
const CLOSES: Values = Values::Closed(&[
    "normal",
    "going_away",
    "protocol_error",
    "policy_violation",
    "too_large",
    "idle_timeout",
    "slow_client",
    "internal",
    "hello_timeout",
    "token_expired",
]);
/// Kinds of faults of Redis.
const REDIS_FAULTS: Values = Values::Closed(&[
    "timeout",
    "unreachable",
    "out_of_memory",
    "read_only",
    "refuses_writes",
    "loading",
    "cluster",
    "authentication",
    "corrupt",
    "nameless_topic",
    "other",
]);
/// Requests to Redis.
const OPERATIONS: Values = Values::Closed(&["read", "write"]);
/// Why a connection was refused.
const REJECTIONS: Values =
    Values::Closed(&["total", "per_address", "origin", "unauthenticated", "token_expired", "forbidden", "no_keys"]);
/// Where history is read that the memory window does not hold.
const TIERS: Values = Values::Closed(&["kafka"]);
/// What comes of asking a tier.
const PAGE_RESULTS: Values = Values::Closed(&["served", "empty", "timeout", "unavailable", "epoch_over"]);
/// How a client asks for history.
const MODES: Values = Values::Closed(&["partition", "thread"]);
const PARTITION: Values = Values::Each("partition");
const BUILD: Values = Values::Each("build");

metrics! {
    /// All metrics of the service. One per process, shared by every actor generation.
    Metrics();

    "Records" {
        /// Records judged, by outcome: each record is counted once.
        kafka_messages: IntCounterVec "websocket_kafka_messages_total" ["status": Values::Closed(&["success", "error"])];
        /// Unprocessable records by kind.
        decode_errors: IntCounterVec "websocket_decode_errors_total" ["error_type": KINDS];
        /// Records with a null or empty value.
        payload_missing: IntCounter "websocket_kafka_payload_missing_total";
        /// Records that came after reading of their partition had begun, by outcome. The rest of
        /// `websocket_kafka_messages_total` is what was caught up with.
        new_records: IntCounterVec "dashstream_new_records_total" ["status": Values::Closed(&["success", "error", "payload_missing"])];
        /// Good records of which something was blacked out.
        redacted_records: IntCounter "dashstream_redacted_records_total";
        /// Faults of Kafka, the network or this service's Kafka clients; never of a record.
        infrastructure_errors: IntCounter "websocket_infrastructure_errors_total";
        /// The same faults by type.
        kafka_errors_by_type: IntCounterVec "websocket_kafka_errors_by_type_total" ["error_type": FAULTS];
        /// Seconds since the last record passed the decode policy; -1 before the first.
        last_message_age: Gauge "websocket_last_kafka_message_age_seconds";
        /// Bytes of records between Kafka and the last stage.
        in_flight_bytes: IntGauge "dashstream_in_flight_bytes";
        /// Offsets that were lost before this service could read them, by reason.
        lost_offsets: IntCounterVec "dashstream_lost_offsets_total" ["reason": Values::Closed(&["retention"])];
        /// Commits of settled offsets, by result.
        commits: IntCounterVec "dashstream_offset_commits_total" ["result": Values::Closed(&["ok", "failed"])];
        /// Partitions whose duties (dead letters, commits) this instance owns.
        owned_partitions: IntGauge "dashstream_owned_partitions";
        /// Partitions that stand still at a record that cannot be processed, until somebody decides.
        paused_partitions: IntGauge "dashstream_paused_partitions";
        /// How often the topic's offsets started again.
        epochs: IntCounter "dashstream_topic_epochs_total";
        /// Whether a partition is still reading what was there when the service started (1) or has caught up (0).
        catchup_phase: IntGaugeVec "websocket_kafka_catchup_phase" ["partition": PARTITION];
    }

    "Lag" {
        /// Records between the end of the log and the last one handled, per owned partition.
        consumer_lag: IntGaugeVec "websocket_kafka_consumer_lag" ["partition": PARTITION];
        /// Seconds since the last record was handled while there is lag, per owned partition; 0 without lag.
        lag_offset_age: GaugeVec "websocket_kafka_lag_offset_age_seconds" ["partition": PARTITION];
        /// Watermark polls that failed.
        lag_poll_failures: IntCounter "websocket_kafka_lag_poll_failures_total";
        /// Time of one watermark poll over all partitions.
        lag_poll_duration: HistogramVec "websocket_kafka_lag_poll_duration_seconds" ["status": Values::Closed(&["success", "failure"])] buckets POLL_SECONDS;
    }

    "Sequences" {
        /// Gaps in a thread's sequence.
        sequence_gaps: IntCounter "dashstream_sequence_gaps_total";
        /// Sequences that came twice.
        sequence_duplicates: IntCounter "dashstream_sequence_duplicates_total";
        /// Sequences that came late.
        sequence_reorders: IntCounter "dashstream_sequence_reorders_total";
        /// Producers that began to count again.
        sequence_restarts: IntCounter "dashstream_sequence_producer_restarts_total";
        /// How many sequences a gap misses.
        sequence_gap_size: Histogram "dashstream_sequence_gap_size" buckets GAP_SIZES;
        /// Threads whose sequence is tracked.
        sequence_threads: IntGauge "dashstream_sequence_tracked_threads";
        /// Threads that were seen for the first time.
        sequence_started: IntCounter "dashstream_sequence_tracking_started_total";
        /// Threads that were forgotten to bound memory.
        sequence_pruned: IntCounter "dashstream_sequence_pruned_total";
        /// Records of which not every number was looked at, to bound memory.
        sequence_overlooked: IntCounter "dashstream_sequence_overlooked_total";
        /// Event batches that hold events of more than one thread.
        multi_thread_batches: IntCounter "websocket_multi_thread_batches_total";
        /// Producer's time to judgement, of the first and the last record of each batch.
        e2e_latency: HistogramVec "websocket_e2e_latency_ms" ["stage": Values::Closed(&["producer_to_consumer"])] buckets LATENCY_MS;
        /// Records whose producer time lies in the future.
        clock_skew: IntCounter "websocket_clock_skew_events_total";
    }

    "Dead letters" {
        /// Dead letters acknowledged by Kafka, by kind.
        dlq_sends: IntCounterVec "websocket_dlq_sends_total" ["error_type": KINDS];
        /// Sends of dead letters that failed, by reason: with DLQ_MODE=best_effort the letter is lost, with fail_closed it is
        /// sent again.
        dlq_send_failures: IntCounterVec "websocket_dlq_send_failures_total" ["reason": Values::Closed(&["timeout", "kafka_error", "backpressure"])];
        /// Retries of dead letters.
        dlq_retries: IntCounter "dashstream_dlq_retries_total";
        /// Dead letters on their way.
        dlq_in_flight: IntGauge "dashstream_dlq_in_flight";
        /// Dead letters that wait or are on their way.
        dlq_queued: IntGauge "dashstream_dlq_queued";
        /// Bytes of the dead letters that wait or are on their way.
        dlq_queued_bytes: IntGauge "dashstream_dlq_queued_bytes";
        /// Dead letters that were lost; never with DLQ_MODE=fail_closed.
        dlq_lost: IntCounter "dashstream_dlq_lost_total";
        /// Dead letters that failed so far and hold the offset of their record; only with DLQ_MODE=fail_closed.
        dlq_blocked: IntGauge "dashstream_dlq_blocked_letters";
    }

    "Memory window" {
        /// Bytes in the memory window.
        window_bytes: IntGauge "dashstream_replay_window_bytes";
        /// Records in the memory window.
        window_records: IntGauge "dashstream_replay_window_records";
        /// Joins answered completely from the memory window.
        memory_hits: IntCounter "replay_buffer_memory_hits_total";
        /// Batches that the store refused because they would have left a hole; each restarts the reader.
        store_misaligned: IntCounter "dashstream_store_misaligned_total";
        /// How much of its nearest bound a tier of the history uses: 1 is full, and the oldest part goes for what comes next.
        /// For Redis it is the fullest partition that this instance writes.
        retention_used: GaugeVec "dashstream_replay_retention_used_ratio" ["tier": Values::Closed(&["memory", "redis"])];
    }

    "Redis" {
        /// 1 while Redis does what it should, 0 while writing fails or before it was reached; 0 without Redis.
        redis_up: IntGauge "dashstream_redis_up";
        /// Requests to Redis that failed.
        redis_errors: IntCounter "dashstream_websocket_redis_errors_total";
        /// The same by kind.
        redis_errors_by_type: IntCounterVec "dashstream_redis_errors_by_type_total" ["error_type": REDIS_FAULTS];
        /// Requests to Redis without an answer in time.
        redis_timeouts: IntCounterVec "dashstream_redis_timeouts_total" ["operation": OPERATIONS];
        /// Time of a page that was read, or of a batch that was written, failed ones included.
        redis_latency: HistogramVec "dashstream_websocket_redis_latency_ms" ["operation": OPERATIONS] buckets REDIS_MS;
        /// Records of a page that was read.
        redis_page_records: Histogram "dashstream_redis_page_records" buckets PAGE_RECORDS;
        /// Pages that Redis could give from the cursor on.
        redis_hits: IntCounter "replay_buffer_redis_hits_total";
        /// Pages that it could not.
        redis_misses: IntCounter "replay_buffer_redis_misses_total";
        /// Records that were not written because too much was waiting.
        redis_write_dropped: IntCounter "replay_buffer_redis_write_dropped_total";
        /// Writes to one partition that failed; they are tried again.
        redis_write_failures: IntCounter "replay_buffer_redis_write_failures_total";
        /// Streams of which Redis had lost what it should have kept when more of them was written: it was flushed, or evicts.
        redis_emptied: IntCounter "dashstream_redis_emptied_total";
        /// Chunks that were written, or were there already.
        redis_blocks: IntCounterVec "dashstream_redis_blocks_total" ["result": Values::Closed(&["written", "known"])];
        /// Bytes of the chunks that were written.
        redis_written_bytes: IntCounter "dashstream_redis_written_bytes_total";
        /// Bytes of chunks that wait to be written or are on their way.
        redis_queued_bytes: IntGauge "dashstream_redis_queued_bytes";
        /// Chunks that wait to be written or are on their way.
        redis_queued_blocks: IntGauge "dashstream_redis_queued_blocks";
    }

    "History" {
        /// Pages of history asked of Kafka, by what came of it. Those of Redis are in the metrics of Redis.
        history_pages: IntCounterVec "dashstream_history_pages_total" ["tier": TIERS, "result": PAGE_RESULTS];
        /// Records in each page that Kafka served.
        history_page_records: HistogramVec "dashstream_history_page_records" ["tier": TIERS] buckets PAGE_RECORDS;
        /// Time to the answer of each page asked of Kafka, whatever it was.
        history_page_seconds: HistogramVec "dashstream_history_page_seconds" ["tier": TIERS] buckets PAGE_SECONDS;
        /// Pages that were found in the cache of what was lately read from Kafka (hit), or had to be read (miss).
        history_cache_lookups: IntCounterVec "dashstream_history_cache_lookups_total" ["result": Values::Closed(&["hit", "miss"])];
        /// Bytes in that cache.
        history_cache_bytes: IntGauge "dashstream_history_cache_bytes";
        /// Questions about history that wait for one of its readers, or are being answered.
        history_questions: IntGauge "dashstream_history_open_questions";
    }

    "Sessions" {
        /// Browsers connected.
        connected_clients: IntGauge "websocket_connected_clients";
        /// Sessions by state.
        sessions: IntGaugeVec "dashstream_sessions" ["state": Values::Closed(&["idle", "live", "catching_up", "parked", "closing"])];
        /// Sessions that do not get every record, because they asked for less or may not see more.
        filtered_sessions: IntGauge "dashstream_filtered_sessions";
        /// Sessions opened, by protocol.
        sessions_opened: IntCounterVec "dashstream_sessions_opened_total" ["protocol": Values::Closed(&["v1", "v2"])];
        /// Sessions ended, by reason.
        sessions_closed: IntCounterVec "dashstream_sessions_closed_total" ["reason": CLOSES];
        /// Records handed to sessions' queues.
        delivered_records: IntCounter "dashstream_delivered_records_total";
        /// Bytes handed to sockets.
        sent_bytes: IntCounter "dashstream_sent_bytes_total";
        /// Sessions that left the live set because they were too slow, and go on by catching up.
        demotions: IntCounter "dashstream_session_demotions_total";
        /// Sessions that reached live after catching up.
        promotions: IntCounter "dashstream_session_promotions_total";
        /// Sends that failed because the peer was gone.
        send_failed: IntCounter "websocket_send_failed_total";
        /// Clients that did not take what was sent within the deadline.
        send_timeout: IntCounter "websocket_send_timeout_total";
        /// Bytes queued for all sessions.
        queued_bytes: IntGauge "dashstream_session_queued_bytes";
        /// Connections refused.
        rejected_connections: IntCounterVec "websocket_rejected_connections_total" ["reason": REJECTIONS];
        /// Control frames over the size limit.
        control_oversized: IntCounter "websocket_control_oversized_total";
        /// Control frames that were refused.
        control_parse_failures: IntCounter "websocket_control_parse_failures_total";
        /// Resumes, by mode.
        resume_requests: IntCounterVec "websocket_resume_requests_total" ["mode": MODES];
        /// Records replayed before live, by mode.
        replay_messages: IntCounterVec "websocket_replay_messages_total" ["mode": MODES];
        /// Gaps announced to clients, by mode.
        replay_gaps: IntCounterVec "websocket_replay_gaps_total" ["mode": MODES];
        /// Offsets named in those gaps, by mode.
        replay_gap_messages: IntCounterVec "websocket_replay_gap_messages_total" ["mode": MODES];
        /// Resumes that met their limit with more to come.
        replay_capped: IntCounter "dashstream_replay_capped_total";
        /// Sessions that waited for a page of history until their time was over.
        replay_timeouts: IntCounter "websocket_replay_timeouts_total";
        /// Time from resume to live, by mode.
        replay_latency: HistogramVec "websocket_replay_latency_ms" ["mode": MODES] buckets REPLAY_MS;
        /// Sum over connected clients of records sent but not yet applied, as they report it.
        apply_lag_messages: IntGauge "websocket_client_apply_lag_messages";
        /// Largest age over connected clients of the oldest record sent but not yet applied.
        apply_lag_seconds: Gauge "websocket_client_apply_lag_seconds";
        /// Records sent but not applied, at each report.
        apply_lag_messages_reported: Histogram "dashstream_client_apply_lag_messages_reported" buckets APPLY_LAG_MESSAGES;
        /// Age of the oldest record sent but not applied, at each report.
        apply_lag_seconds_reported: Histogram "dashstream_client_apply_lag_seconds_reported" buckets APPLY_LAG_SECONDS;
    }

    "Doors" {
        /// Reads of the public keys of tokens, by result.
        jwks_reads: IntCounterVec "dashstream_jwks_reads_total" ["result": Values::Closed(&["ok", "failed"])];
        /// Looks at renewed certificates of the listener, by result.
        tls_renewals: IntCounterVec "dashstream_tls_renewals_total" ["result": Values::Closed(&["ok", "failed"])];
    }

    "Process" {
        /// Seconds since the start.
        uptime: Gauge "websocket_uptime_seconds";
        /// 1, with version and commit.
        build_info: IntGaugeVec "dashstream_build_info" ["version": BUILD, "git_sha": BUILD];
        /// 1 while an actor runs, 0 while it is down.
        actor_up: IntGaugeVec "dashstream_actor_up" ["actor": ACTORS];
        /// Generation of each actor; 1 is the first.
        actor_generation: IntGaugeVec "dashstream_actor_generation" ["actor": ACTORS];
        /// Restarts by actor and reason.
        actor_restarts: IntCounterVec "dashstream_actor_restarts_total" ["actor": ACTORS, "reason": CAUSES];
        /// Threads left behind because an actor on them hung.
        abandoned_threads: IntCounter "dashstream_abandoned_threads_total";
        /// Spans for the collector, by what became of them: dropped ones found no room in the queue.
        spans: IntCounterVec "dashstream_spans_total" ["result": Values::Closed(&["exported", "failed", "dropped"])];
    }
}

impl Metrics {
    /// A gap of so many offsets was named to a client; 0 is none.
    pub fn lost(&self, offsets: u64) {
        self.gaps("partition", u64::from(offsets > 0), offsets);
    }

    /// Gaps in threads, of so many sequences, were named to a client.
    pub fn lost_of_threads(&self, gaps: u64, sequences: u64) {
        self.gaps("thread", gaps, sequences);
    }

    fn gaps(&self, mode: &str, gaps: u64, missing: u64) {
        if gaps > 0 {
            self.replay_gaps.with_label_values(&[mode]).inc_by(gaps);
            self.replay_gap_messages.with_label_values(&[mode]).inc_by(missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_refused_and_what_is_declared_is_exported() {
        let metrics = Metrics::new().unwrap();
        assert_eq!(metrics.check().unwrap(), Metrics::TABLE.len());
        for metric in Metrics::TABLE {
            let again = IntCounter::with_opts(Opts::new(metric.name, "another meaning")).unwrap();
            assert!(metrics.registry.register(Box::new(again)).is_err(), "{}", metric.name);
        }
    }

    #[test]
    fn a_family_that_is_not_exported_stops_the_start_by_its_name() {
        let metrics = Metrics::new().unwrap();
        metrics.registry.unregister(Box::new(metrics.dlq_sends.clone())).unwrap();
        let refusal = metrics.check().unwrap_err().to_string();
        assert!(refusal.contains("websocket_dlq_sends_total"), "{refusal}");
    }
}
