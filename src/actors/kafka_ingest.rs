//! `KafkaIngest`: the handle of the threads that read the topic, take part in the group and watch the topic.
//!
//! In: [`Settled`], [`Drain`], [`Heartbeat`], the ends of its threads. Out: [`Ingested`], [`PartitionsOpened`], positions on
//! the board, commits. It never blocks and never decodes. When one of its threads dies, it stops, and whoever watches it
//! starts everything anew.

mod drain;

pub use drain::{Drain, Drained};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Running, WeakAddr};

use super::link::Link;
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Board;
use crate::kafka::duties::Duties;
use crate::kafka::identity::ProcessIdentity;
use crate::kafka::membership::{self, MembershipEnd, MembershipParts};
use crate::kafka::monitor::KafkaMonitor;
use crate::kafka::reader::{self, ReaderCommand, ReaderParts};
use crate::kafka::settings::IngestSettings;
use crate::kafka::stop::Stop;
use crate::kafka::topic_watch::TopicWatch;
use crate::messages::{Ingested, PartitionsOpened, Settled};
use crate::pauses::Pauses;
use crate::pipeline::credit::Credit;

/// Commands that may wait for the reader, which looks at them ten times a second.
const COMMANDS: usize = 4096;
/// How often the gauge of bytes in flight is set.
const GAUGE_INTERVAL: Duration = Duration::from_millis(500);

/// What every generation is made from.
#[derive(Clone)]
pub struct IngestParts {
    /// Names, limits, times.
    pub settings: IngestSettings,
    /// Who this process is.
    pub identity: ProcessIdentity,
    /// Positions.
    pub board: Board,
    /// Bytes in flight.
    pub credit: Credit,
    /// Faults and counters.
    pub monitor: Arc<KafkaMonitor>,
    /// Where to stand still.
    pub pauses: Pauses,
    /// How many dead letters are undecided; asked at the end, because records are settled with them.
    pub letters_undecided: Arc<dyn Fn() -> usize + Send + Sync>,
    /// `DecodePolicy`.
    pub records: Link<Ingested>,
    /// `ReplayStore`.
    pub opened: Link<PartitionsOpened>,
    /// Called when the process must not go on: its member id belongs to another one. The reader reads on meanwhile.
    pub refused: Arc<dyn Fn(String) + Send + Sync>,
    /// One per process.
    pub seat: Arc<Seat>,
}

impl std::fmt::Debug for IngestParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestParts").finish_non_exhaustive()
    }
}

/// Keeps generations apart: a newer one ends an older one that hangs, and reads only when the older one has ended.
#[derive(Debug, Default)]
pub struct Seat {
    reading: Mutex<()>,
    occupant: Mutex<Option<(Stop, Arc<Duties>)>>,
}

/// A thread has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct ThreadEnded {
    thread: &'static str,
    end: ThreadEnd,
}

#[derive(Clone, Debug)]
enum ThreadEnd {
    Done { committed: bool },
    Failed(String),
    Refused(String),
}

/// The actor.
pub struct KafkaIngest {
    parts: IngestParts,
    duties: Arc<Duties>,
    stop: Stop,
    drain: Stop,
    drained: Stop,
    finish: Option<SyncSender<Instant>>,
    /// How the membership ended, once it has.
    member_end: Arc<Mutex<Option<bool>>>,
    pulse: Pulse,
    // Last, so that it reports when everything else is gone.
    guard: Guard,
}

impl std::fmt::Debug for KafkaIngest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaIngest").finish_non_exhaustive()
    }
}

supervised!(KafkaIngest);

impl KafkaIngest {
    /// A new generation. Ends whatever is left of the one before.
    pub fn new(parts: IngestParts, pulse: Pulse, guard: Guard) -> Self {
        let stop = Stop::new();
        let mut occupant = parts.seat.occupant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stop, duties)) = occupant.take() {
            stop.stop();
            duties.close();
        }
        let duties = Arc::new(Duties::new(parts.board.clone(), Arc::clone(parts.monitor.metrics())));
        *occupant = Some((stop.clone(), Arc::clone(&duties)));
        drop(occupant);
        Self {
            parts,
            duties,
            stop,
            drain: Stop::new(),
            drained: Stop::new(),
            finish: None,
            member_end: Arc::default(),
            pulse,
            guard,
        }
    }

    fn start_threads(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        let records = self.parts.records.current().ok_or("the next stage is not there")?;
        let opened = self.parts.opened.current().ok_or("the replay store is not there")?;
        let addr = ctx.address().downgrade();
        let (commands, commands_in) = sync_channel(COMMANDS);
        let (look_now, look_now_in) = sync_channel(1);
        let (finish, finish_in) = sync_channel(1);
        self.finish = Some(finish);
        let failed_addr = addr.clone();
        let reader = ReaderParts {
            settings: self.parts.settings.clone(),
            board: self.parts.board.clone(),
            credit: self.parts.credit.clone(),
            monitor: Arc::clone(&self.parts.monitor),
            duties: Arc::clone(&self.duties),
            pauses: self.parts.pauses.clone(),
            stop: self.stop.clone(),
            drain: self.drain.clone(),
            drained: self.drained.clone(),
            look_now,
            records,
            opened,
            failed: Arc::new(move |reason| tell(&failed_addr, "kafka-duties", ThreadEnd::Failed(reason))),
        };
        self.start_reader(addr.clone(), reader, commands_in)?;
        self.start_membership(addr.clone(), commands.clone(), finish_in)?;
        let watch = TopicWatch {
            settings: self.parts.settings.clone(),
            board: self.parts.board.clone(),
            monitor: Arc::clone(&self.parts.monitor),
            stop: self.stop.clone(),
            reader: commands,
            look_now: look_now_in,
        };
        spawn("kafka-topic", addr, move || done_or_failed(watch.run()))
    }

    fn start_reader(
        &self,
        addr: WeakAddr<Self>,
        reader: ReaderParts,
        commands: Receiver<ReaderCommand>,
    ) -> Result<(), String> {
        let seat = Arc::clone(&self.parts.seat);
        spawn("kafka-reader", addr, move || {
            // Two readers at once would hand the same offsets over in two orders.
            let _reading = seat.reading.lock().unwrap_or_else(PoisonError::into_inner);
            done_or_failed(reader::run(reader, commands))
        })
    }

    fn start_membership(
        &self,
        addr: WeakAddr<Self>,
        reader: SyncSender<ReaderCommand>,
        finish: Receiver<Instant>,
    ) -> Result<(), String> {
        let parts = MembershipParts {
            settings: self.parts.settings.clone(),
            identity: self.parts.identity.clone(),
            duties: Arc::clone(&self.duties),
            monitor: Arc::clone(&self.parts.monitor),
            stop: self.stop.clone(),
            reader,
            finish,
        };
        let member_end = Arc::clone(&self.member_end);
        let told = addr.clone();
        spawn("kafka-member", addr, move || {
            membership::run(&parts, |end| {
                let end = match end {
                    MembershipEnd::Stopped { committed } => ThreadEnd::Done { committed },
                    MembershipEnd::Refused(why) => ThreadEnd::Refused(why),
                    MembershipEnd::Failed(why) => ThreadEnd::Failed(why),
                };
                let committed = matches!(end, ThreadEnd::Done { committed: true });
                *member_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(committed);
                // Told before the consumer is closed, which may take seconds.
                tell(&told, "kafka-member", end);
            });
            ThreadEnd::Done { committed: false }
        })
    }

    fn fail(&self, ctx: &mut Context<Self>, why: &str) {
        tracing::error!(why, "kafka ingest cannot go on");
        self.guard.note(why);
        ctx.stop();
    }
}

fn done_or_failed<E: std::fmt::Display>(result: Result<(), E>) -> ThreadEnd {
    result.map_or_else(|error| ThreadEnd::Failed(error.to_string()), |()| ThreadEnd::Done { committed: false })
}

fn tell(addr: &WeakAddr<KafkaIngest>, thread: &'static str, end: ThreadEnd) {
    if let Some(addr) = addr.upgrade() {
        addr.do_send(ThreadEnded { thread, end });
    }
}

/// Starts a thread whose end, by panic too, is told to the actor.
fn spawn(
    thread: &'static str,
    addr: WeakAddr<KafkaIngest>,
    body: impl FnOnce() -> ThreadEnd + Send + 'static,
) -> Result<(), String> {
    std::thread::Builder::new()
        .name(thread.into())
        .spawn(move || {
            let end =
                catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| ThreadEnd::Failed(panic_text(&*panic)));
            tell(&addr, thread, end);
        })
        .map(drop)
        .map_err(|error| format!("cannot start the thread {thread}: {error}"))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a text"))
}

impl Actor for KafkaIngest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Err(why) = self.start_threads(ctx) {
            self.fail(ctx, &why);
            return;
        }
        ctx.run_interval(GAUGE_INTERVAL, |actor, _| {
            let used = i64::try_from(actor.parts.credit.used()).unwrap_or(i64::MAX);
            actor.parts.monitor.metrics().in_flight_bytes.set(used);
        });
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.stop.stop();
        Running::Stop
    }
}

impl Drop for KafkaIngest {
    /// Also runs when a handler panics. The threads end by themselves; nothing here waits for them.
    fn drop(&mut self) {
        self.stop.stop();
        self.duties.close();
    }
}

impl Handler<Settled> for KafkaIngest {
    type Result = ();

    fn handle(&mut self, report: Settled, _: &mut Self::Context) {
        self.duties.settle(&report);
    }
}

impl Handler<ThreadEnded> for KafkaIngest {
    type Result = ();

    fn handle(&mut self, ended: ThreadEnded, ctx: &mut Self::Context) {
        if self.stop.is_stopped() {
            return;
        }
        match ended.end {
            ThreadEnd::Done { .. } => {}
            ThreadEnd::Refused(why) => {
                tracing::error!(why, "this process may not take part in the group");
                (self.parts.refused)(why);
            }
            ThreadEnd::Failed(why) => self.fail(ctx, &format!("{}: {why}", ended.thread)),
        }
    }
}
