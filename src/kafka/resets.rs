//! Resets by hand, kept in Kafka: as commits of a group beside the own one, so that every instance and every later start
//! knows them.
//!
//! Its own thread and client. It publishes the newest reset on the board and says so; what sessions make of it is not its
//! business.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::errors::{ErrorType, classify_error};
use super::monitor::{KafkaMonitor, MonitorContext, serve_events};
use super::opening::commits_within;
use super::settings::{ASK, IngestSettings};
use super::stop::Stop;
use super::watermarks::ends;
use crate::board::{Board, Stream};
use crate::pipeline::manual_reset::ManualReset;

/// Between looks, so much later other instances begin anew.
const LOOK: Duration = Duration::from_secs(1);
/// How long a look may take: clients wait for the first one.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// After Kafka has refused to tell.
const LOOK_AFTER_REFUSAL: Duration = Duration::from_secs(60);
/// Kafka forgets commits of a group that nobody commits for; a week is its default.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// The longest that a question waits to be taken.
const TURN: Duration = Duration::from_millis(50);

/// What it is made from.
pub struct ResetParts {
    /// Names and times.
    pub settings: IngestSettings,
    /// Where the newest reset is published.
    pub board: Board,
    /// Where faults go.
    pub monitor: Arc<KafkaMonitor>,
    /// Called when another reset is the newest.
    pub changed: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for ResetParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResetParts").finish_non_exhaustive()
    }
}

type Answer = oneshot::Sender<Result<Stream, String>>;

/// The keeper of resets. Cloning shares it.
#[derive(Clone, Debug)]
pub struct KafkaResets(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    asks: SyncSender<Answer>,
    stop: Stop,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl KafkaResets {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(parts: ResetParts) -> std::io::Result<Self> {
        let (asks, asked) = sync_channel(1);
        let stop = Stop::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("kafka-resets".into()).spawn(move || run(&parts, &asked, &stopped))?;
        Ok(Self(Arc::new(Handle { asks, stop })))
    }

    /// Hides all that the log holds now. The stream as it is from then on.
    ///
    /// # Errors
    /// Why it is not done, in words for an operator.
    pub async fn reset(&self, within: Duration) -> Result<Stream, String> {
        let (answer, answered) = oneshot::channel();
        self.0.asks.try_send(answer).map_err(|_| "another reset is under way".to_owned())?;
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => Err("the service is stopping".into()),
            Err(_) => Err("kafka did not answer in time; it may still be done: look at the log and at /version".into()),
        }
    }
}

fn run(parts: &ResetParts, asked: &Receiver<Answer>, stop: &Stop) {
    let context = MonitorContext { client: "resets", monitor: Arc::clone(&parts.monitor) };
    let mut config = parts.settings.asking_config("resets");
    config.set("group.id", format!("{}-resets", parts.settings.group)).set("enable.auto.commit", "false");
    let client: BaseConsumer<MonitorContext> = match config.create_with_context(context) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "resets by hand cannot be made or followed: no client for them");
            while !stop.wait(TURN) {
                parts.board.no_resets(u64::MAX);
            }
            return;
        }
    };
    let (mut looked, mut next_look, mut kept) = (0, Instant::now(), None::<Instant>);
    while !stop.is_stopped() {
        serve_events(&client, TURN);
        let stream = parts.board.stream();
        let partitions: Vec<i32> = parts.board.partitions().iter().map(|board| board.partition).collect();
        if let Ok(answer) = asked.try_recv() {
            // Who asked may have given up; what is done is done.
            let _ = answer.send(make(parts, &client, &stream, &partitions));
        }
        if partitions.is_empty() || (looked == stream.epoch.number && Instant::now() < next_look) {
            continue;
        }
        looked = stream.epoch.number;
        next_look = Instant::now() + LOOK;
        let looked_now = look(parts, &client, &stream, &partitions);
        let seen = looked_now.is_ok();
        match looked_now {
            Ok(()) => {}
            Err(error) => {
                parts.monitor.fault("resets", "look for resets by hand", &error, "");
                if classify_error(&error) == Some(ErrorType::Authorization) {
                    next_look = Instant::now() + LOOK_AFTER_REFUSAL;
                }
                // Clients must not wait for this; if there is one after all, they are told.
                parts.board.no_resets(stream.epoch.number);
            }
        }
        // Right after a look: a reset of another instance that is newer must not be overwritten.
        if seen
            && let Some(reset) = parts.board.stream().reset
            && kept.is_none_or(|kept| kept.elapsed() >= KEEP)
            && keep(parts, &client, &stream, &reset).is_ok()
        {
            kept = Some(Instant::now());
        }
    }
}

/// Learns the newest reset of the current log.
fn look(
    parts: &ResetParts,
    client: &BaseConsumer<MonitorContext>,
    stream: &Stream,
    partitions: &[i32],
) -> KafkaResult<()> {
    let topic = &parts.settings.topic;
    let kept: Vec<_> =
        partitions.iter().copied().zip(commits_within(client, topic, partitions, LOOK_TIMEOUT)?).collect();
    let log_ends = match kept.iter().any(|(_, kept)| kept.is_some()) && !parts.board.knows_resets() {
        // Once seen in its log, a reset holds: the log only grows.
        true => partitions.iter().copied().zip(ends(client, topic, partitions, ASK)?).collect(),
        false => Vec::new(),
    };
    let newest = ManualReset::newest(&stream.epoch.name, &kept, &log_ends).map(Arc::new);
    if parts.board.set_reset(stream.epoch.number, newest) {
        tracing::warn!(epoch = parts.board.stream().name(), "the stream begins anew: a reset by hand");
        (parts.changed)();
    }
    Ok(())
}

fn make(
    parts: &ResetParts,
    client: &BaseConsumer<MonitorContext>,
    stream: &Stream,
    partitions: &[i32],
) -> Result<Stream, String> {
    if partitions.is_empty() {
        return Err("the topic is not known yet".into());
    }
    let refused = |error: KafkaError| {
        parts.monitor.fault("resets", "keep a reset by hand", &error, "");
        format!("kafka refused it: {error}")
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let known_id = stream.reset.as_ref().map_or("", |reset| reset.id.as_str());
    let id = ManualReset::new_id(u64::try_from(now_ms).unwrap_or(u64::MAX), fastrand::u16(..));
    if *id <= *known_id {
        return Err("the clock of this machine is behind the last reset".into());
    }
    let floors = ends(client, &parts.settings.topic, partitions, ASK).map_err(refused)?;
    let reset = ManualReset { id, floors: partitions.iter().copied().zip(floors).collect() };
    keep(parts, client, stream, &reset).map_err(refused)?;
    if parts.board.set_reset(stream.epoch.number, Some(Arc::new(reset))) {
        (parts.changed)();
    }
    Ok(parts.board.stream())
}

fn keep(
    parts: &ResetParts,
    client: &BaseConsumer<MonitorContext>,
    stream: &Stream,
    reset: &ManualReset,
) -> KafkaResult<()> {
    let metadata = ManualReset::metadata(&reset.id, &stream.epoch.name);
    let mut list = TopicPartitionList::with_capacity(reset.floors.len());
    for (partition, floor) in &reset.floors {
        let mut entry = list.add_partition(&parts.settings.topic, *partition);
        // Cannot fail: a floor is never negative.
        let _ = entry.set_offset(Offset::Offset(*floor));
        entry.set_metadata(&metadata);
    }
    client.commit(&list, CommitMode::Sync)
}
