//! One thread that answers questions about history: owns a consumer while there is work for it.
//!
//! No question can end it or hold it for longer than somebody waits: every call to the client has a time limit, a panic ends
//! with its round, and a consumer that is given up is closed elsewhere, which may take seconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

use super::Shared;
use super::partition::Judging;
use super::queue::{PageJob, Place, Queue, Taken, place};
use super::round::{Left, Round};
use crate::kafka::monitor::{MonitorContext, serve_events};
use crate::pipeline::page::TierError;

/// A consumer that nobody needed for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// How often an idle reader looks after its consumer.
const TURN: Duration = Duration::from_secs(1);
/// Closing takes seconds while brokers are away, so consumers are not replaced faster.
const REPLACE_EVERY: Duration = Duration::from_secs(5);
/// What a consumer may hold that was not asked for, in KiB.
const PREFETCH_KIB: u32 = 4 * 1024;

/// Answers questions until there will be no more.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut seat = Seat { consumer: None, replaced: None };
    let mut judging = Judging::new(shared.parts.judge.clone());
    loop {
        let taken = shared.queue.take(TURN);
        let worked = !matches!(taken, Taken::Nothing);
        let answered = catch_unwind(AssertUnwindSafe(|| match taken {
            Taken::Pages(jobs) => pages(shared, &mut seat, &mut judging, jobs),
            Taken::Offsets(asked) => {
                let answer = seat.for_epoch(shared, asked.epoch).and_then(|open| {
                    let epoch = shared.parts.board.epoch();
                    if epoch.number == asked.epoch {
                        shared.offsets(&open.clients.asking, &epoch, &asked)
                    } else {
                        Err(TierError::EpochOver)
                    }
                });
                asked.answer.send(answer);
            }
            Taken::Nothing => seat.idle(),
            Taken::Closed => {}
        }));
        if shared.stop.is_stopped() {
            seat.empty();
            return;
        }
        match (answered, &mut seat.consumer) {
            (Err(_), _) => {
                tracing::error!("reading history failed unexpectedly; the reader starts afresh");
                seat.empty();
                judging = Judging::new(shared.parts.judge.clone());
            }
            (Ok(()), Some(open)) if worked => open.used = Instant::now(),
            (Ok(()), _) => {}
        }
    }
}

/// Hands places back, also when reading them fails.
struct Reading<'a> {
    queue: &'a Queue,
    places: Vec<Place>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.queue.done(&self.places);
    }
}

fn pages(shared: &Shared, seat: &mut Seat, judging: &mut Judging, jobs: Vec<PageJob>) {
    let _reading = Reading { queue: &shared.queue, places: jobs.iter().map(|job| place(&job.request)).collect() };
    // Somebody may have read them while they waited.
    let mut unread = Vec::with_capacity(jobs.len());
    for job in jobs {
        match shared.cached(&job.request) {
            Some(page) => job.answer.send(shared.is_current(job.request.epoch).map(|()| page)),
            None => unread.push(job),
        }
    }
    let misses = shared.metrics().history_cache_lookups.with_label_values(&["miss"]);
    misses.inc_by(u64::try_from(unread.len()).unwrap_or(u64::MAX));
    let Some(asked) = unread.first().map(|job| job.request.epoch) else { return };
    let epoch = shared.parts.board.epoch();
    let open = if epoch.number == asked { seat.for_epoch(shared, asked) } else { Err(TierError::EpochOver) };
    match open {
        Ok(open) => {
            if Round::new(shared, &open.clients, judging, epoch, unread).run() == Left::Suspect {
                seat.replace();
            }
        }
        Err(error) => unread.into_iter().for_each(|job| job.answer.send(Err(error.clone()))),
    }
}

/// The place of a reader's consumer.
struct Seat {
    consumer: Option<Open>,
    replaced: Option<Instant>,
}

/// The clients of a reader.
pub(super) struct Clients {
    pub(super) reading: BaseConsumer<MonitorContext>,
    /// On its own connection: an answer does not wait behind records that are on their way.
    pub(super) asking: BaseConsumer<MonitorContext>,
}

struct Open {
    clients: Clients,
    epoch: u64,
    used: Instant,
}

impl Seat {
    /// A consumer for an epoch. One keeps what it knows of a topic, so each epoch gets its own.
    fn for_epoch(&mut self, shared: &Shared, epoch: u64) -> Result<&Open, TierError> {
        if self.consumer.as_ref().is_some_and(|open| open.epoch != epoch) {
            self.empty();
        }
        if self.consumer.is_none() {
            let clients = connect(shared).map_err(|error| TierError::Unavailable(error.to_string()))?;
            self.consumer = Some(Open { clients, epoch, used: Instant::now() });
        }
        self.consumer.as_ref().ok_or_else(|| TierError::Unavailable("no consumer".into()))
    }

    /// Looks after a consumer that nobody uses.
    fn idle(&mut self) {
        match &self.consumer {
            Some(open) if open.used.elapsed() > IDLE => self.empty(),
            Some(open) => {
                serve_events(&open.clients.reading, Duration::ZERO);
                serve_events(&open.clients.asking, Duration::ZERO);
            }
            None => {}
        }
    }

    fn replace(&mut self) {
        if self.replaced.is_none_or(|at| at.elapsed() > REPLACE_EVERY) {
            self.replaced = Some(Instant::now());
            self.empty();
        }
    }

    fn empty(&mut self) {
        if let Some(open) = self.consumer.take() {
            // Without another thread it is closed here, which is slow but right.
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(open));
        }
    }
}

fn connect(shared: &Shared) -> KafkaResult<Clients> {
    let context = MonitorContext { client: "history", monitor: Arc::clone(&shared.parts.monitor) };
    let mut config = shared.parts.kafka.reading_config("history", PREFETCH_KIB);
    config
        .set("enable.partition.eof", "true")
        // Kafka sends whole batches, and of all partitions but one only those that fit here. Producers make them of up to
        // 1 MB: with less room, a fetch would bring one partition at a time.
        .set("fetch.message.max.bytes", "1114112")
        .set("fetch.max.bytes", "8388608")
        // Where the log has nothing more, that is to be told soon; nothing is fetched between pages.
        .set("fetch.wait.max.ms", "1");
    Ok(Clients {
        reading: config.create_with_context(context.clone())?,
        asking: shared.parts.kafka.asking_config("history-asking").create_with_context(context)?,
    })
}
