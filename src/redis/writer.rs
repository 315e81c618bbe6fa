//! Writes chunks: one transaction per stream with the chunks, what is trimmed, and the time to live, so that no key is
//! ever without an end. Several streams at a time.
//!
//! It must not know where the chunks come from, nor what a failure means for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::{Pipeline, Value, cmd, pipe};
use futures_util::future::join_all;

use super::block;
use super::connect::{ConnectError, Connection, Redis};
use super::contradiction;
use super::fault::{Failure, Fault};
use super::settings::RedisSettings;
use super::state::{Operation, RedisState};
use crate::metrics::Metrics;
use crate::pipeline::retention::{Existing, Ledger};
use crate::pipeline::window::Chunk;

/// Chunks for one stream, in rising order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The stream.
    pub key: String,
    /// The partition.
    pub partition: i32,
    /// What is appended.
    pub chunks: Vec<Arc<Chunk>>,
}

/// The writer. One per process; the ledgers of what is kept are its own.
#[derive(Debug)]
pub struct Writer {
    redis: Redis,
    settings: RedisSettings,
    connection: Option<Connection>,
    ledgers: HashMap<String, Ledger>,
    state: RedisState,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// A writer that connects when there is something to write.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn new(settings: RedisSettings, state: RedisState, metrics: Arc<Metrics>) -> Result<Self, ConnectError> {
        // The second one is for the moment in which a broken one is not given back yet.
        let redis = Redis::new(&settings, 2)?;
        Ok(Self { redis, settings, connection: None, ledgers: HashMap::new(), state, metrics })
    }

    /// Appends each batch to its stream, all at the same time; one result per batch, in order. A batch counts as written
    /// only when Redis has acknowledged all of it, or said that it has it already.
    pub async fn write(&mut self, batches: &[Batch], deadline: Instant) -> Vec<Result<(), Failure>> {
        let begun = Instant::now();
        let connection = match self.connect(deadline).await {
            Ok(connection) => connection,
            Err(failure) => {
                self.state.failed(Operation::Write, &failure);
                return batches.iter().map(|_| Err(failure.clone())).collect();
            }
        };
        let now_ms = now_ms();
        let writes = batches.iter().map(|batch| {
            let known = self.ledgers.get(&batch.key).cloned();
            write_one(&connection, &self.settings, batch, known, now_ms, deadline)
        });
        let outcomes = join_all(writes).await;
        let mut broken = None;
        let mut results = Vec::with_capacity(batches.len());
        for (batch, outcome) in batches.iter().zip(outcomes) {
            results.push(outcome.map(|done| self.count(batch, done)).inspect_err(|failure| {
                // What the stream holds now is not known.
                broken = Some(failure.fault);
            }));
            if results.last().is_some_and(Result::is_err) {
                self.ledgers.remove(&batch.key);
            }
        }
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        self.metrics.redis_latency.with_label_values(&[Operation::Write.as_str()]).observe(took);
        self.give_back(connection, broken);
        for failure in results.iter().filter_map(|result| result.as_ref().err()) {
            self.metrics.redis_write_failures.inc();
            self.state.failed(Operation::Write, failure);
        }
        results
    }

    /// Looks whether the server is there.
    pub async fn ping(&mut self, deadline: Instant) {
        let result = async {
            let connection = self.connect(deadline).await?;
            let mut ping = pipe();
            ping.add_command(cmd("PING"));
            let answer = connection.ask(Arc::new(ping), deadline).await;
            self.give_back(connection, answer.as_ref().err().map(|failure| failure.fault));
            answer
        }
        .await;
        match result {
            Ok(_) => self.state.answered(),
            Err(failure) => self.state.failed(Operation::Write, &failure),
        }
    }

    /// How much of its bounds the fullest stream uses.
    pub fn used_ratio(&self) -> f64 {
        self.ledgers.values().map(Ledger::used_ratio).fold(0.0, f64::max)
    }

    /// Forgets streams that are not written any more.
    pub fn forget_all_but(&mut self, keep: impl Fn(&str) -> bool) {
        self.ledgers.retain(|key, _| keep(key));
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Connection, Failure> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.redis.connection(deadline).await,
        }
    }

    fn give_back(&mut self, connection: Connection, broken: Option<Fault>) {
        match broken {
            None | Some(Fault::OutOfMemory | Fault::RefusesWrites | Fault::Loading) => {
                self.connection = Some(connection);
            }
            Some(_) => {
                // It may lead to a server that is the wrong one by now.
                connection.discard();
                self.redis.forget_idle();
            }
        }
    }

    fn count(&mut self, batch: &Batch, done: Done) {
        let blocks = |result: &str| self.metrics.redis_blocks.with_label_values(&[result]);
        blocks("written").inc_by(done.written);
        blocks("known").inc_by(done.known);
        self.metrics.redis_written_bytes.inc_by(done.bytes);
        self.metrics.redis_emptied.inc_by(u64::from(done.emptied));
        self.ledgers.insert(batch.key.clone(), done.ledger);
    }
}

/// What became of a batch.
struct Done {
    written: u64,
    known: u64,
    bytes: u64,
    /// What was there before, and should still be, was not.
    emptied: bool,
    ledger: Ledger,
}

async fn write_one(
    connection: &Connection,
    settings: &RedisSettings,
    batch: &Batch,
    known: Option<Ledger>,
    now_ms: i64,
    deadline: Instant,
) -> Result<Done, Failure> {
    let before = match known {
        Some(ledger) => ledger,
        None => Ledger::new(settings.bounds, existing(connection, batch, deadline).await?),
    };
    let mut ledger = before.clone();
    let mut transaction = pipe();
    transaction.atomic().ignore_errors();
    for chunk in &batch.chunks {
        ledger.add(chunk.first, chunk.next, chunk.message().len() as u64, now_ms);
        transaction.add_command(block::append(&batch.key, chunk, now_ms));
    }
    // An entry is named by its last offset, so what begins below and ends above stays.
    let floor = ledger.trim(now_ms).unwrap_or(0).max(0);
    transaction.cmd("XTRIM").arg(&batch.key).arg("MINID").arg("=").arg(floor);
    transaction.cmd("PEXPIRE").arg(&batch.key).arg(settings.time_to_live_ms());
    transaction.cmd("XLEN").arg(&batch.key);
    let answers = connection.ask(Arc::new(transaction), deadline).await?;
    let (mut written, mut known, mut bytes, mut length) = (0, Vec::new(), 0, None);
    let mut chunks = batch.chunks.iter();
    for answer in answers {
        match (chunks.next(), answer) {
            (Some(chunk), Value::BulkString(_) | Value::SimpleString(_)) => {
                written += 1;
                bytes += chunk.message().len() as u64;
            }
            (Some(chunk), Value::ServerError(error)) if is_known(error.details()) => known.push(Arc::clone(chunk)),
            (_, Value::ServerError(error)) => return Err(Failure::from(&error)),
            (None, Value::Int(number)) => length = Some(number),
            (_, _) => {}
        }
    }
    if written + known.len() as u64 != batch.chunks.len() as u64 {
        return Err(Failure::new(Fault::Other, "fewer answers than commands"));
    }
    if !known.is_empty() {
        contradiction::check(connection, batch, &known, deadline).await?;
    }
    let mut emptied = false;
    if written > 0 && length.is_some_and(|length| length.unsigned_abs() <= written) {
        // Only what was written just now is there: the rest was trimmed or has expired, or somebody has emptied the stream.
        emptied = before.should_hold(floor, now_ms);
        ledger = Ledger::new(settings.bounds, None);
        for chunk in &batch.chunks {
            ledger.add(chunk.first, chunk.next, chunk.message().len() as u64, now_ms);
        }
        ledger.trim(now_ms);
    }
    Ok(Done { written, known: known.len() as u64, bytes, emptied, ledger })
}

/// Whether an append was refused because the stream is already beyond the chunk.
fn is_known(details: Option<&str>) -> bool {
    details.is_some_and(|details| details.contains("equal or smaller"))
}

/// What the stream has before this process writes to it.
async fn existing(connection: &Connection, batch: &Batch, deadline: Instant) -> Result<Option<Existing>, Failure> {
    let mut look: Pipeline = pipe();
    look.ignore_errors();
    look.cmd("XRANGE").arg(&batch.key).arg("-").arg("+").arg("COUNT").arg(1);
    look.cmd("XREVRANGE").arg(&batch.key).arg("+").arg("-").arg("COUNT").arg(1);
    look.cmd("MEMORY").arg("USAGE").arg(&batch.key);
    let mut answers = connection.ask(Arc::new(look), deadline).await?.into_iter();
    let mut entry = || -> Result<_, Failure> {
        let mut entries = block::entries(answers.next().unwrap_or(Value::Nil), batch.partition)?.into_iter();
        Ok(entries.next().and_then(Result::ok))
    };
    let (oldest, newest) = (entry()?, entry()?);
    // Not every provider allows it; without it the bytes of the past are not counted.
    let bytes = match answers.next() {
        Some(Value::Int(bytes)) => bytes.unsigned_abs(),
        _ => 0,
    };
    Ok(oldest.zip(newest).map(|(oldest, newest)| Existing {
        first: oldest.chunk.first,
        next: newest.chunk.next,
        first_ms: oldest.written_ms,
        last_ms: newest.written_ms.max(oldest.written_ms),
        bytes,
    }))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(since).unwrap_or(i64::MAX)
}
