//! Drops all keys of a prefix: what Redis forgets when it is flushed, without harm to others that use it. Only for scenarios
//! that break things on purpose; nothing of the service looks for keys.

use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::redis::{FromRedisValue, RedisError, Value, pipe};

use super::connect::Redis;
use super::fault::Failure;

/// Keys that are looked at in one turn.
const TURN: usize = 1_000;

/// Drops the keys that begin with `prefix`, of a standalone server, and tells how many those were.
///
/// # Errors
/// When there is no answer before the deadline.
pub async fn forget(redis: &Redis, prefix: &str, deadline: Instant) -> Result<usize, Failure> {
    let connection = redis.connection(deadline).await?;
    // A prefix is of the program's own making: it holds nothing that a pattern would understand in another way.
    let pattern = format!("{prefix}:*");
    let (mut cursor, mut dropped) = (0_u64, 0);
    loop {
        let mut scan = pipe();
        scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(TURN);
        let answer = connection.ask(Arc::new(scan), deadline).await?.into_iter().next().unwrap_or(Value::Nil);
        let (next, keys): (u64, Vec<String>) = FromRedisValue::from_redis_value(answer).map_err(RedisError::from)?;
        if !keys.is_empty() {
            let mut unlink = pipe();
            unlink.cmd("UNLINK").arg(&keys);
            connection.ask(Arc::new(unlink), deadline).await?;
            dropped += keys.len();
        }
        if next == 0 {
            return Ok(dropped);
        }
        cursor = next;
    }
}
