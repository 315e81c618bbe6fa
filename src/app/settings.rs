//! From the configuration to what each part asks for.

use std::sync::Arc;

use super::{StartError, redis_tier};
use crate::actors::client_session::SessionSettings;
use crate::actors::history::HistorySettings;
use crate::actors::replay_store::ReplayStoreSettings;
use crate::actors::session_queue::{QueueLimits, SlowPolicy};
use crate::actors::topology::{HISTORY_CONCURRENCY, RestartSettings};
use crate::config::sections::{AutoOffsetReset, Config, OnDecodeError, PauseScope, SlowClient};
use crate::kafka::batch::BatchLimits;
use crate::kafka::connection::KafkaConnection;
use crate::kafka::settings::IngestSettings;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::dead_letter::LetterContext;
use crate::pipeline::decode::JudgeSettings;
use crate::pipeline::epoch::ResetPolicy;
use crate::pipeline::redact::Rules;
use crate::pipeline::restart::Intensity;
use crate::pipeline::tags::Reading;
use crate::spans::{CollectorError, CollectorSettings, Spans};
use crate::web::status::Identity;

pub(super) fn letter_context(config: &Config, identity: &Identity, instance: String) -> LetterContext {
    LetterContext {
        topic: config.kafka.topic.clone(),
        consumer_group: config.kafka.group_id.clone(),
        policy: identity.decode_error_policy.to_owned(),
        instance,
        include_payload: config.dlq.include_payload,
    }
}

/// How a client of this name reaches Kafka.
pub fn connection(config: &Config, client_id: &str) -> KafkaConnection {
    KafkaConnection {
        brokers: config.kafka.brokers.clone(),
        client_id: client_id.to_owned(),
        security: config.kafka.security.clone(),
        address_family: config.kafka.broker_address_family.as_librdkafka().map(str::to_owned),
    }
}

pub(super) fn identity(config: &Config) -> Identity {
    Identity {
        topic: config.kafka.topic.clone(),
        group_id: config.kafka.group_id.clone(),
        max_payload_bytes: config.decode.max_payload_bytes,
        legacy_framing: config.decode.legacy_framing,
        asks_for_token: config.auth.is_on(),
        decode_error_policy: match config.decode.on_error {
            OnDecodeError::Skip => "skip",
            OnDecodeError::Pause => "pause",
        },
        window_records: config.replay.memory_messages,
        redis: (!config.redis.url.is_empty()).then(|| redis_tier::bounds(config)),
    }
}

/// How records are judged, and what is blacked out of them.
///
/// # Errors
/// When a pattern is too large when it is compiled.
pub fn judge_settings(config: &Config) -> Result<JudgeSettings, StartError> {
    let rules = || Rules::new(&config.redact.fields, &config.redact.patterns).map(Arc::new);
    Ok(JudgeSettings {
        max_payload_bytes: config.decode.max_payload_bytes,
        max_decompressed_bytes: config.decode.max_payload_bytes,
        legacy_framing: config.decode.legacy_framing,
        redaction: config.redact.is_on().then(rules).transpose()?,
        ..JudgeSettings::default()
    })
}

pub(super) fn spans(config: &Config, instance: &str, metrics: &Metrics) -> Result<Spans, CollectorError> {
    let endpoint = config.telemetry.otlp_endpoint.clone();
    if endpoint.is_empty() {
        return Ok(Spans::default());
    }
    Spans::to(&CollectorSettings { endpoint, instance: instance.to_owned() }, metrics)
}

pub(super) fn session_settings(config: &Config) -> SessionSettings {
    SessionSettings {
        heartbeat: config.web.heartbeat,
        idle_timeout: config.web.idle_timeout,
        hello_timeout: config.web.hello_timeout,
        ready_timeout: config.replay.timeout,
        max_control_bytes: config.web.max_control_frame_bytes,
        queue: QueueLimits {
            queued_bytes: config.web.session_queue_bytes,
            unapplied_bytes: config.web.session_unapplied_bytes,
            page_records: config.replay.page_records,
            max_total: config.replay.max_total,
            slow: match config.web.slow_client {
                SlowClient::CatchUp => SlowPolicy::CatchUp,
                SlowClient::SkipToLive => SlowPolicy::SkipToLive,
                SlowClient::Disconnect => SlowPolicy::Disconnect,
            },
        },
        reading: Reading {
            legacy_framing: config.decode.legacy_framing,
            max_decompressed_bytes: config.decode.max_payload_bytes,
        },
        topic: config.kafka.topic.clone(),
    }
}

pub(super) fn ingest_settings(config: &Config, connection: KafkaConnection, instance_id: &str) -> IngestSettings {
    let kafka = &config.kafka;
    IngestSettings {
        reset: match kafka.auto_offset_reset {
            AutoOffsetReset::Earliest => ResetPolicy::Earliest,
            AutoOffsetReset::Latest => ResetPolicy::Latest,
        },
        batch: BatchLimits { records: kafka.batch_max_records, bytes: kafka.batch_max_bytes },
        commit_interval: kafka.commit_interval,
        metadata_interval: kafka.metadata_interval,
        session_timeout: kafka.session_timeout,
        cluster_id: kafka.cluster_id.clone(),
        pause_partition_alone: config.decode.pause_scope == PauseScope::Partition,
        ..IngestSettings::new(connection, &kafka.topic, &kafka.group_id, instance_id)
    }
}

pub(super) fn restart_settings(config: &Config) -> RestartSettings {
    let limits = &config.supervisor;
    RestartSettings {
        intensity: Intensity { max_restarts: limits.max_restarts, window: limits.window },
        backoff: Backoff { base: limits.backoff_base, max: limits.backoff_max },
        heartbeat: limits.heartbeat_timeout,
    }
}

pub(super) const fn history_settings(config: &Config) -> HistorySettings {
    HistorySettings {
        page_records: config.replay.page_records,
        page_bytes: config.web.session_queue_bytes,
        timeout: config.replay.timeout,
        concurrency: HISTORY_CONCURRENCY,
    }
}

pub(super) const fn store_settings(config: &Config) -> ReplayStoreSettings {
    ReplayStoreSettings {
        window_bytes: config.replay.memory_bytes,
        window_records: config.replay.memory_messages,
        flush_interval: config.web.flush_interval,
    }
}
