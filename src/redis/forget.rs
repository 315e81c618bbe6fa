//! Drops streams: what Redis forgets when it is flushed, without harm to others that use it. Only for scenarios that break
//! things on purpose; nothing of the service drops a key.

use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::redis::pipe;

use super::connect::Redis;
use super::fault::Failure;
use super::keys::Keys;

/// Drops the streams of `partitions` partitions of logs with these names.
///
/// # Errors
/// When there is no answer before the deadline.
pub async fn forget(
    redis: &Redis,
    prefix: &str,
    logs: &[String],
    partitions: i32,
    deadline: Instant,
) -> Result<(), Failure> {
    let connection = redis.connection(deadline).await?;
    let keys = Keys::new(prefix);
    for (number, log) in (0..).zip(logs) {
        for key in (0..partitions).filter_map(|partition| keys.stream(number, log, partition)) {
            // One key each: those of a cluster are on different servers.
            let mut unlink = pipe();
            unlink.cmd("UNLINK").arg(key);
            connection.ask(Arc::new(unlink), deadline).await?;
        }
    }
    Ok(())
}
