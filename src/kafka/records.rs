//! Reads the records of a topic, all partitions at once, for people at a command line.
//!
//! Blocks. It commits nothing and joins no group, so it never disturbs a service, and any number of readers see everything.
//! It must not know what a record says.

mod fault;

mod places;

mod progress;

mod state;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};

pub use self::fault::ReadError;
pub use self::progress::Gap;
use self::progress::Take;
use self::state::{Anew, State};
use super::connection::KafkaConnection;
use super::topics::faults::Told;

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

/// Reads a topic. Records of one partition come in its order; across partitions they come as they arrive.
pub struct RecordReader {
    config: ClientConfig,
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
        let consumer = client(&config)?;
        let mut state = State::new(topic, start, end);
        state.open(&consumer)?;
        Ok(Self { config, consumer, state })
    }

    /// What comes next; waits at most so long for it. Looking after a topic that is followed may take two seconds more.
    ///
    /// # Errors
    /// When reading cannot go on. What is followed waits for brokers that are away, and says so.
    pub fn next(&mut self, wait: Duration) -> Result<Next<'_>, ReadError> {
        if self.state.anew == Anew::Found {
            // A client keeps what it knows of the old topic, so the new one gets its own.
            self.consumer = client(&self.config)?;
            self.state.anew = Anew::Beginning;
        }
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
            match state.anew {
                Anew::No => {}
                // The next call reads it.
                Anew::Found => return Ok(Next::Idle),
                Anew::Beginning => state.begin_anew(consumer)?,
            }
            if state.suspect {
                state.recover(consumer)?;
                if Instant::now() >= deadline {
                    return Ok(Next::Idle);
                }
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
                        Take::Behind => state.leave(consumer, message.partition()),
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

fn client(config: &ClientConfig) -> Result<BaseConsumer<Told>, ReadError> {
    config.create_with_context(Told::new("records")).map_err(ReadError::Client)
}
