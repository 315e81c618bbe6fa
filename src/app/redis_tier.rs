//! The Redis tier, put together from the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::redis_queue::{RedisQueue, RedisQueueLimits, ReplayDurability};
use crate::actors::redis_writer::RedisWriterDeps;
use crate::actors::topology::{Links, RedisParts};
use crate::board::Board;
use crate::config::replay::{Durability, RedisTopology};
use crate::config::sections::Config;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::health::RedisFailing;
use crate::pipeline::retention::Bounds;
use crate::redis::connect::ConnectError;
use crate::redis::keys::Keys;
use crate::redis::reader::RedisTier;
use crate::redis::settings::{RedisSettings, Topology};
use crate::redis::state::{Failing, RedisState};

/// The waits after writes that failed.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Everything about Redis, when an address is set.
pub(super) fn parts(config: &Config, links: &Links, metrics: &Arc<Metrics>) -> Option<RedisParts> {
    let Some(settings) = redis_settings(config) else {
        // Nobody is down who was never meant to be there.
        let _ = metrics.actor_up.remove_label_values(&["RedisWriter"]);
        return None;
    };
    let limits = RedisQueueLimits {
        durability: match config.replay.durability {
            Durability::BestEffort => ReplayDurability::BestEffort,
            Durability::Required => ReplayDurability::Required,
        },
        bytes: config.redis.queue_bytes,
        chunks: config.redis.queue_chunks,
        backoff: BACKOFF,
    };
    let writer = RedisWriterDeps {
        queue: RedisQueue::new(limits, links.chunks.clone(), links.settled.clone(), Arc::clone(metrics)),
        keys: Keys::new(&settings.key_prefix),
        deadline: settings.connect_timeout + settings.response_timeout,
        backoff: BACKOFF,
        state: RedisState::new(Arc::clone(metrics)),
        metrics: Arc::clone(metrics),
    };
    Some(RedisParts { settings, writer })
}

/// Where Redis is, when an address is set.
pub fn redis_settings(config: &Config) -> Option<RedisSettings> {
    let redis = &config.redis;
    (!redis.url.is_empty()).then(|| RedisSettings {
        url: redis.url.clone(),
        topology: match redis.topology {
            RedisTopology::Standalone => Topology::Standalone,
            RedisTopology::Sentinel => {
                Topology::Sentinel { master: redis.sentinel_master.clone(), password: redis.sentinel_password.clone() }
            }
            RedisTopology::Cluster => Topology::Cluster,
        },
        nodes: redis.nodes.clone(),
        key_prefix: redis.key_prefix.clone(),
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
        pool_size: redis.pool_size,
        bounds: bounds(config),
    })
}

/// The reader of what was written.
pub(super) fn reader(parts: &RedisParts, board: &Board) -> Result<RedisTier, ConnectError> {
    let RedisWriterDeps { keys, state, metrics, .. } = &parts.writer;
    RedisTier::new(&parts.settings, keys.clone(), board.clone(), state.clone(), Arc::clone(metrics))
}

/// What is kept of a partition.
pub(super) fn bounds(config: &Config) -> Bounds {
    Bounds {
        offsets: config.redis.max_sequences,
        bytes: config.redis.max_bytes_per_partition,
        age_ms: u64::try_from(config.redis.message_ttl.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What health has to know.
pub(super) fn failing(redis: &RedisParts) -> Option<RedisFailing> {
    let Failing { since, failure } = redis.writer.state.failing()?;
    let required = redis.writer.queue.settles();
    Some(RedisFailing { since, fault: failure.fault.as_str(), error: failure.text, required })
}
