//! Reads the records of a topic, all partitions at once, for people at a command line.
//!
//! Blocks. It commits nothing and joins no group, so it never disturbs a service, and any number of readers see everything.
//! It must not know what a record says.

mod progress;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub use self::progress::Gap;
use self::progress::{Progress, Take};
use super::connection::KafkaConnection;
use super::errors::{ErrorType, classify_error, is_lost_position};
use super::monitor::serve_events;
use super::settings::{ASK, RETRY};
use super::topic::position;
use super::topics::faults::{Told, cause};
use super::watermarks::{Watermarks, at_time, known_watermarks, watermarks};

/// How long opening may take, with all its questions.
const OPEN: Duration = Duration::from_secs(15);
/// How long nothing may come while something must.
const SILENCE: Duration = Duration::from_secs(25);
/// How often a topic that is followed is looked at: for new partitions, and whether Kafka answers.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long such a look may hold up the records.
const LOOK: Duration = Duration::from_secs(2);
/// How long a leader may take to know the end of its log.
const SETTLE: Duration = Duration::from_millis(500);
const TURN: Duration = Duration::from_millis(100);
/// What the client may hold ahead of who reads, in KiB.
const PREFETCH_KIB: &str = "16384";
/// Kafka's own clients ask for a group although there is none.
const NO_GROUP: &str = "dashstream-cli";

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that Kafka has.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first record that is as new as this, Unix milliseconds; at the end where there is none.
    Time(i64),
    /// At these offsets; partitions that are not named at their first record.
    At(BTreeMap<i32, i64>),
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With what the topic has when it is opened.
    Now,
    /// The same, or before the first record that is as new as this, Unix milliseconds.
    Time(i64),
    /// Not at all: what is written is followed.
    Never,
}

/// What comes next.
#[derive(Debug)]
pub enum Next<'a> {
    /// A record.
    Record(Record<'a>),
    /// Records that retention removed before they were read.
    Gap(Gap),
    /// Something that a person should know. Reading goes on by itself.
    Notice(String),
    /// Nothing came in time.
    Idle,
    /// Everything that was asked for was read.
    End,
}

/// A record, as the client holds it.
#[derive(Debug)]
pub struct Record<'a>(BorrowedMessage<'a>);

impl Record<'_> {
    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// When Kafka has it from, Unix milliseconds, as far as it says so.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Its value; `None` is Kafka's null.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client's configuration is wrong.
    #[error("cannot create a Kafka client; check the brokers and the security settings")]
    Client(#[source] KafkaError),
    /// The topic is not there.
    #[error(
        "topic {0} does not exist; name the right one with --topic or KAFKA_TOPIC; `dashstream topics list` shows them"
    )]
    Missing(String),
    /// Kafka does not answer, or refuses.
    #[error("cannot read topic {topic}: {}{}", advice(*kind), said(reason))]
    Read {
        /// The topic.
        topic: String,
        /// What kind of fault it is.
        kind: Option<ErrorType>,
        /// What else the client told; may be empty.
        reason: String,
        /// What Kafka said.
        source: Box<KafkaError>,
    },
    /// Nobody has the records.
    #[error(
        "topic {topic}: nobody leads {}, so not everything can be read; try again when the brokers are back",
        listed(partitions)
    )]
    Leaderless {
        /// The topic.
        topic: String,
        /// Its partitions without a leader.
        partitions: Vec<i32>,
    },
    /// Kafka answers, but the records do not come.
    #[error(
        "topic {topic}: nothing came for {} s from partition {partition}, offset {offset} on; \
         check that the brokers answer, then try again", SILENCE.as_secs()
    )]
    Silence {
        /// The topic.
        topic: String,
        /// The first partition that is not read to its end.
        partition: i32,
        /// What should have come.
        offset: i64,
    },
    /// The log is another one than at the beginning, or than the offsets that were asked for are of.
    #[error(
        "topic {topic}: {} now ends before what was to be read: the topic was made anew, or has lost records; begin again",
        listed(partitions)
    )]
    WentBack {
        /// The topic.
        topic: String,
        /// Its partitions that are shorter.
        partitions: Vec<i32>,
    },
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn listed(partitions: &[i32]) -> String {
    let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
    format!("partition {}", numbers.join(", "))
}

/// What the one who reads can do about it.
const fn advice(kind: Option<ErrorType>) -> &'static str {
    match kind {
        Some(kind @ (ErrorType::Authentication | ErrorType::Tls)) => kind.advice(),
        Some(ErrorType::Authorization) => "the user lacks the permission to read it",
        Some(ErrorType::DnsFailure | ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Timeout) => {
            "no broker answers: check --brokers or KAFKA_BROKERS, KAFKA_SECURITY_PROTOCOL and the network"
        }
        Some(ErrorType::Corrupt) => "a record in Kafka is damaged",
        _ => "Kafka refuses",
    }
}

/// Whether such a fault ends reading, also of what is followed: waiting does not help.
const fn is_final(kind: Option<ErrorType>) -> bool {
    matches!(
        kind,
        Some(
            ErrorType::Authentication
                | ErrorType::Authorization
                | ErrorType::Tls
                | ErrorType::Fatal
                | ErrorType::Corrupt
                | ErrorType::Unsupported
        )
    )
}

/// Reads a topic. Records of one partition come in its order; across partitions they come as they arrive.
pub struct RecordReader {
    consumer: BaseConsumer<Told>,
    state: State,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordReader").field("state", &self.state).finish_non_exhaustive()
    }
}

impl RecordReader {
    /// Finds out where to begin and to end in each partition, and begins. Blocks, at most half a minute.
    ///
    /// # Errors
    /// When the topic does not exist, or Kafka does not answer or refuses.
    pub fn open(connection: &KafkaConnection, topic: &str, start: Start, end: End) -> Result<Self, ReadError> {
        let mut config = connection.client_config("records");
        config
            .set("group.id", NO_GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("max.poll.interval.ms", "86400000")
            .set("queued.max.messages.kbytes", PREFETCH_KIB)
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "200")
            .set("topic.metadata.refresh.interval.ms", "10000");
        let consumer: BaseConsumer<Told> =
            config.create_with_context(Told::new("records")).map_err(ReadError::Client)?;
        let mut state = State::new(topic, start, end);
        state.open(&consumer)?;
        Ok(Self { consumer, state })
    }

    /// What comes next; waits at most so long for it. Looking after a topic that is followed may take two seconds more.
    ///
    /// # Errors
    /// When reading cannot go on. What is followed waits for brokers that are away, and says so.
    pub fn next(&mut self, wait: Duration) -> Result<Next<'_>, ReadError> {
        // Apart from each other: a record borrows the client while the rest is changed.
        let (consumer, state) = (&self.consumer, &mut self.state);
        let deadline = Instant::now() + wait;
        loop {
            if let Some(gap) = state.gaps.pop_front() {
                return Ok(Next::Gap(gap));
            }
            if let Some(notice) = state.notices.pop_front() {
                return Ok(Next::Notice(notice));
            }
            if state.suspect {
                state.recover(consumer)?;
                continue;
            }
            if state.progress.is_done() && !state.follows() {
                return Ok(Next::End);
            }
            state.look_when_due(consumer)?;
            let asked = Instant::now();
            // Whole milliseconds, and not zero: otherwise the client turns in circles, or keeps its events back.
            let left = deadline.saturating_duration_since(asked).min(TURN);
            let left = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(0).saturating_add(1));
            match consumer.poll(left) {
                Some(Ok(message)) => {
                    state.heard();
                    match state.progress.take(message.partition(), message.offset()) {
                        Take::Wanted => return Ok(Next::Record(Record(message))),
                        Take::Ends => state.leave(consumer, message.partition()),
                        Take::Unwanted => {}
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => state.at_end(consumer, partition),
                Some(Err(error)) => state.trouble(consumer, error)?,
                None => state.silent(asked.elapsed())?,
            }
            if Instant::now() >= deadline {
                return Ok(Next::Idle);
            }
        }
    }

    /// Whether nothing lay behind what was read, in any partition, when that was last heard.
    pub fn is_caught_up(&self) -> bool {
        self.state.progress.is_caught_up()
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> usize {
        self.state.progress.partitions().count()
    }
}

#[derive(Debug)]
struct State {
    topic: String,
    start: Start,
    end: End,
    progress: Progress,
    gaps: VecDeque<Gap>,
    notices: VecDeque<String>,
    /// Partitions that had no leader when the topic was opened: they begin where the others did.
    late: BTreeSet<i32>,
    /// A position is not in the log any more, or the log ends too early.
    suspect: bool,
    /// Recoveries since the last record.
    recoveries: u32,
    /// How long was waited in vain.
    silence: Duration,
    look_at: Instant,
    /// What is wrong and was told.
    ails: Option<Ail>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ail {
    Away,
    Gone,
}

impl State {
    fn new(topic: &str, start: Start, end: End) -> Self {
        Self {
            topic: topic.to_owned(),
            start,
            end,
            progress: Progress::default(),
            gaps: VecDeque::new(),
            notices: VecDeque::new(),
            late: BTreeSet::new(),
            suspect: false,
            recoveries: 0,
            silence: Duration::ZERO,
            look_at: Instant::now() + LOOK_EVERY,
            ails: None,
        }
    }

    fn follows(&self) -> bool {
        self.end == End::Never
    }

    fn failed(&self, consumer: &BaseConsumer<Told>, source: KafkaError) -> ReadError {
        let (kind, reason) = cause(&source, consumer.client().context().take());
        ReadError::Read { topic: self.topic.clone(), kind, reason, source: Box::new(source) }
    }

    /// Asks until there is an answer or the time is over.
    fn persist<T>(
        &self,
        consumer: &BaseConsumer<Told>,
        deadline: Instant,
        mut ask: impl FnMut() -> KafkaResult<T>,
    ) -> Result<T, ReadError> {
        let mut attempt = 0;
        loop {
            let source = match ask() {
                Ok(answer) => return Ok(answer),
                Err(source) => source,
            };
            serve_events(consumer, Duration::ZERO);
            let error = self.failed(consumer, source);
            let kind = if let ReadError::Read { kind, .. } = &error { *kind } else { None };
            if is_final(kind) || Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(RETRY.delay(attempt, fastrand::f64()));
            attempt += 1;
        }
    }

    fn open(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        let deadline = Instant::now() + OPEN;
        let mut found = self.persist(consumer, deadline, || look(consumer, &self.topic, ASK))?;
        while found.as_ref().is_some_and(|found| !found.leaderless.is_empty())
            && !self.follows()
            && Instant::now() < deadline
        {
            std::thread::sleep(SETTLE);
            found = self.persist(consumer, deadline, || look(consumer, &self.topic, ASK))?;
        }
        let Some(found) = found else { return Err(ReadError::Missing(self.topic.clone())) };
        if self.follows() {
            self.late = found.leaderless;
        } else if !found.leaderless.is_empty() {
            let partitions = found.leaderless.into_iter().collect();
            return Err(ReadError::Leaderless { topic: self.topic.clone(), partitions });
        }
        let led: Vec<i32> = found.led.into_iter().collect();
        let (start, end) = (self.start.clone(), self.end);
        let places = self.persist(consumer, deadline, || places(consumer, &self.topic, &led, &start, end))?;
        let beyond: Vec<i32> =
            places.iter().filter(|place| place.next > place.mark.high).map(Asked::partition).collect();
        if !beyond.is_empty() {
            return Err(ReadError::WentBack { topic: self.topic.clone(), partitions: beyond });
        }
        self.put(&places);
        self.assign(consumer)
    }

    /// Takes partitions in. What was asked for and is gone by now is a gap.
    fn put(&mut self, places: &[Asked]) {
        for place in places {
            self.progress.put(place.partition(), place.next, place.end);
        }
        let marks: Vec<Watermarks> = places.iter().map(|place| place.mark).collect();
        self.gaps.extend(self.progress.compare(&marks).unwrap_or_default());
    }

    /// Sets the client to the positions.
    fn assign(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        let placed = self
            .progress
            .positions()
            .try_for_each(|(partition, next)| list.add_partition_offset(&self.topic, partition, Offset::Offset(next)));
        placed.and_then(|()| consumer.assign(&list)).map_err(|source| self.failed(consumer, source))
    }

    /// A partition is read to its end; nothing more of it is fetched.
    fn leave(&self, consumer: &BaseConsumer<Told>, partition: i32) {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition);
        // If it fails, more comes, and is passed over.
        let _ = consumer.pause(&list);
    }

    fn heard(&mut self) {
        self.silence = Duration::ZERO;
        self.recoveries = 0;
        self.is_back();
    }

    fn is_back(&mut self) {
        if self.ails == Some(Ail::Away) {
            self.ails = None;
            self.notices.push_back(format!("Kafka answers again; reading topic {} goes on", self.topic));
        }
    }

    fn at_end(&mut self, consumer: &BaseConsumer<Told>, partition: i32) {
        self.silence = Duration::ZERO;
        let behind = position(consumer, &self.topic, partition);
        self.suspect |= !self.progress.at_end(partition, behind);
    }

    fn silent(&mut self, waited: Duration) -> Result<(), ReadError> {
        if self.follows() {
            return Ok(());
        }
        self.silence += waited;
        match self.progress.positions().next() {
            Some((partition, offset)) if self.silence >= SILENCE => {
                Err(ReadError::Silence { topic: self.topic.clone(), partition, offset })
            }
            _ => Ok(()),
        }
    }

    fn trouble(&mut self, consumer: &BaseConsumer<Told>, error: KafkaError) -> Result<(), ReadError> {
        if let Some(code) = error.rdkafka_error_code()
            && is_lost_position(code)
        {
            self.suspect = true;
            return Ok(());
        }
        let kind = classify_error(&error);
        if kind == Some(ErrorType::TopicMissing) {
            if !self.follows() {
                return Err(ReadError::Missing(self.topic.clone()));
            }
            self.look_at = Instant::now();
            return Ok(());
        }
        // The client goes on by itself; if it does not, the silence ends it, or the next look tells.
        if is_final(kind) { Err(self.failed(consumer, error)) } else { Ok(()) }
    }

    /// Some position is not in the log: finds out which, tells what is lost, goes on. The error names no partition.
    fn recover(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        if self.recoveries > 0 {
            let delay = RETRY.delay(self.recoveries - 1, fastrand::f64());
            std::thread::sleep(delay);
            self.silent(delay)?;
        }
        self.recoveries += 1;
        let partitions: Vec<i32> = self.progress.positions().map(|(partition, _)| partition).collect();
        let mut beyond = Vec::new();
        // A leader that has just taken over may be behind for a moment, so it is asked twice.
        for attempt in 0..2 {
            let asked = Instant::now();
            let marks = match known_watermarks(consumer, &self.topic, &partitions, ASK) {
                Ok(marks) => marks,
                // It stays suspect, and is asked again.
                Err(error) => {
                    self.silent(asked.elapsed())?;
                    return self.ask_failed(consumer, error);
                }
            };
            match self.progress.compare(&marks) {
                Ok(gaps) => {
                    self.suspect = false;
                    self.gaps.extend(gaps);
                    return self.assign(consumer);
                }
                Err(partitions) => beyond = partitions,
            }
            if attempt == 0 {
                std::thread::sleep(SETTLE);
            }
        }
        if !self.follows() {
            return Err(ReadError::WentBack { topic: self.topic.clone(), partitions: beyond });
        }
        self.begin_anew(consumer, &partitions)
    }

    /// The topic is another one than before: it is read from its beginning.
    fn begin_anew(&mut self, consumer: &BaseConsumer<Told>, partitions: &[i32]) -> Result<(), ReadError> {
        let marks = match known_watermarks(consumer, &self.topic, partitions, ASK) {
            Ok(marks) => marks,
            Err(error) => return self.ask_failed(consumer, error),
        };
        self.suspect = false;
        self.ails = None;
        self.notices.push_back(format!("topic {} was made anew; it is read from its beginning", self.topic));
        self.progress = Progress::default();
        for mark in marks {
            self.progress.put(mark.partition, mark.low, None);
        }
        self.assign(consumer)
    }

    /// A question failed. Who follows is told once, and goes on.
    fn ask_failed(&mut self, consumer: &BaseConsumer<Told>, error: KafkaError) -> Result<(), ReadError> {
        let error = self.failed(consumer, error);
        let ReadError::Read { kind, .. } = &error else { return Err(error) };
        if is_final(*kind) {
            return Err(error);
        }
        if self.follows() && self.ails.is_none() {
            self.ails = Some(Ail::Away);
            self.notices.push_back(format!("{error}; waiting until it does"));
        }
        Ok(())
    }

    /// Looks after a topic that is followed: whether Kafka answers, whether it is still there, what partitions it has gained.
    fn look_when_due(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        if !self.follows() || Instant::now() < self.look_at {
            return Ok(());
        }
        let looked = look(consumer, &self.topic, LOOK);
        self.look_at = Instant::now() + LOOK_EVERY;
        let found = match looked {
            Ok(Some(found)) => found,
            Ok(None) => {
                if self.ails != Some(Ail::Gone) {
                    self.ails = Some(Ail::Gone);
                    self.notices.push_back(format!("topic {} does not exist any more; waiting for it", self.topic));
                }
                return Ok(());
            }
            Err(error) => return self.ask_failed(consumer, error),
        };
        self.is_back();
        let new: Vec<i32> = found.led.iter().copied().filter(|partition| !self.progress.has(*partition)).collect();
        if self.ails == Some(Ail::Gone) {
            return self.begin_anew(consumer, &found.led.into_iter().collect::<Vec<_>>());
        }
        if new.is_empty() {
            return Ok(());
        }
        // Those that were there at the beginning begin where the others did, new ones at their first record.
        let (late, new): (Vec<i32>, Vec<i32>) = new.into_iter().partition(|partition| self.late.contains(partition));
        for (partitions, start) in [(late, self.start.clone()), (new, Start::Earliest)] {
            match places(consumer, &self.topic, &partitions, &start, End::Never) {
                Ok(places) => self.put(&places),
                // They are asked for again with the next look.
                Err(error) => tracing::debug!(topic = self.topic, %error, "new partitions are not known yet"),
            }
        }
        self.assign(consumer)
    }
}

/// The partitions of a topic.
#[derive(Debug, Default)]
struct Found {
    led: BTreeSet<i32>,
    leaderless: BTreeSet<i32>,
}

/// Looks at a topic; `None`: it does not exist.
fn look(consumer: &BaseConsumer<Told>, topic: &str, timeout: Duration) -> KafkaResult<Option<Found>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    if let Some(code) = topic.error() {
        let error = KafkaError::MetadataFetch(code.into());
        match classify_error(&error) {
            Some(ErrorType::TopicMissing) => return Ok(None),
            Some(ErrorType::Leader) => {}
            _ => return Err(error),
        }
    }
    let mut found = Found::default();
    for partition in topic.partitions() {
        let of = if partition.leader() < 0 { &mut found.leaderless } else { &mut found.led };
        of.insert(partition.id());
    }
    Ok((!topic.partitions().is_empty()).then_some(found))
}

/// What is asked for of a partition.
struct Asked {
    next: i64,
    end: Option<i64>,
    mark: Watermarks,
}

impl Asked {
    fn partition(&self) -> i32 {
        self.mark.partition
    }
}

/// Where to begin and to end in each of these partitions.
fn places(
    consumer: &BaseConsumer<Told>,
    topic: &str,
    partitions: &[i32],
    start: &Start,
    end: End,
) -> KafkaResult<Vec<Asked>> {
    // The ends first: a time that is asked for afterwards is cut to them.
    let marks = watermarks(consumer, topic, partitions, ASK)?;
    let times = |time_ms| at_time(consumer, topic, partitions, time_ms, ASK);
    let starts = if let Start::Time(time_ms) = start { times(*time_ms)? } else { Vec::new() };
    let ends = if let End::Time(time_ms) = end { times(time_ms)? } else { Vec::new() };
    let asked = |(index, mark): (usize, Watermarks)| {
        let end = match end {
            End::Never => None,
            End::Now => Some(mark.high),
            End::Time(_) => Some(ends.get(index).copied().unwrap_or(mark.high).min(mark.high)),
        };
        let next = match start {
            Start::Earliest => mark.low,
            Start::Latest => mark.high,
            Start::Time(_) => starts.get(index).copied().unwrap_or(mark.high).min(mark.high),
            Start::At(offsets) => offsets.get(&mark.partition).copied().unwrap_or(mark.low),
        };
        Asked { next, end, mark }
    };
    Ok(marks.into_iter().enumerate().map(asked).collect())
}
