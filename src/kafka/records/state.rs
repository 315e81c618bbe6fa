//! The state of a reader: opens the topic, and gets out of trouble by itself.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::fault::{ReadError, SILENCE, is_final};
use super::places::{Asked, LOOK, id_of, look, places};
use super::progress::{Gap, Progress};
use super::{End, Start, TURN};
use crate::kafka::errors::{ErrorType, classify_error, is_lost_position};
use crate::kafka::monitor::serve_events;
use crate::kafka::settings::{ASK, RETRY};
use crate::kafka::topic::position;
use crate::kafka::topics::faults::{Told, cause};
use crate::kafka::watermarks::{Watermarks, known_watermarks};

/// How long opening may take, with all its questions.
const OPEN: Duration = Duration::from_secs(15);
/// How often a topic that is followed is looked at: for new partitions, and whether Kafka answers.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long a leader may take to know the end of its log.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct State {
    topic: String,
    /// The cluster's id of it, where it is followed and the cluster knows ids.
    topic_id: Option<String>,
    pub(super) anew: Anew,
    start: Start,
    end: End,
    pub(super) progress: Progress,
    pub(super) gaps: VecDeque<Gap>,
    pub(super) notices: VecDeque<String>,
    /// Partitions that had no leader when the topic was opened: they begin where the others did.
    late: BTreeSet<i32>,
    /// A position is not in the log any more, or the log ends too early.
    pub(super) suspect: bool,
    /// Recoveries since the last record.
    recoveries: u32,
    /// How long was waited in vain.
    silence: Duration,
    look_at: Instant,
    /// What is wrong and was told.
    ails: Option<Ail>,
}

/// Whether the topic that is followed is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    No,
    Found,
    Beginning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ail {
    Away,
    Gone,
}

impl State {
    pub(super) fn new(topic: &str, start: Start, end: End) -> Self {
        Self {
            topic: topic.to_owned(),
            topic_id: None,
            anew: Anew::No,
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

    pub(super) fn follows(&self) -> bool {
        self.end == End::Never
    }

    pub(super) fn failed(&self, consumer: &BaseConsumer<Told>, source: KafkaError) -> ReadError {
        let (kind, reason) = cause(&source, consumer.client().context().take());
        ReadError::Read { topic: self.topic.clone(), kind, reason, source: Box::new(source) }
    }

    /// Asks until there is an answer or the time is over.
    pub(super) fn persist<T>(
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

    pub(super) fn open(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
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
            self.topic_id = id_of(consumer, &self.topic);
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
    pub(super) fn put(&mut self, places: &[Asked]) {
        for place in places {
            self.progress.put(place.partition(), place.next, place.end);
        }
        let marks: Vec<Watermarks> = places.iter().map(|place| place.mark).collect();
        self.gaps.extend(self.progress.compare(&marks).unwrap_or_default());
    }

    /// Sets the client to the positions.
    pub(super) fn assign(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        let placed = self
            .progress
            .positions()
            .try_for_each(|(partition, next)| list.add_partition_offset(&self.topic, partition, Offset::Offset(next)));
        placed.and_then(|()| consumer.assign(&list)).map_err(|source| self.failed(consumer, source))
    }

    /// A partition is read to its end; nothing more of it is fetched.
    pub(super) fn leave(&self, consumer: &BaseConsumer<Told>, partition: i32) {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition);
        // If it fails, more comes, and is passed over.
        let _ = consumer.pause(&list);
    }

    pub(super) fn heard(&mut self) {
        self.silence = Duration::ZERO;
        self.recoveries = 0;
        self.is_back();
    }

    pub(super) fn is_back(&mut self) {
        if self.ails == Some(Ail::Away) {
            self.ails = None;
            self.notices.push_back(format!("Kafka answers again; reading topic {} goes on", self.topic));
        }
    }

    pub(super) fn at_end(&mut self, consumer: &BaseConsumer<Told>, partition: i32) {
        self.silence = Duration::ZERO;
        let behind = position(consumer, &self.topic, partition);
        self.suspect |= !self.progress.at_end(partition, behind);
    }

    pub(super) fn silent(&mut self, waited: Duration) -> Result<(), ReadError> {
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

    pub(super) fn trouble(&mut self, consumer: &BaseConsumer<Told>, error: KafkaError) -> Result<(), ReadError> {
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
    pub(super) fn recover(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
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
        self.is_anew();
        Ok(())
    }

    /// The topic is another one than before.
    pub(super) fn is_anew(&mut self) {
        self.anew = Anew::Found;
        self.suspect = false;
        self.notices.push_back(format!("topic {} was made anew; it is read from its beginning", self.topic));
    }

    /// Reads a topic that was made anew from its beginning, as soon as it can be asked about.
    pub(super) fn begin_anew(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
        let asked = look(consumer, &self.topic, LOOK).and_then(|found| {
            let led: Vec<i32> = found.unwrap_or_default().led.into_iter().collect();
            known_watermarks(consumer, &self.topic, &led, LOOK)
        });
        let marks = match asked {
            Ok(marks) => marks,
            Err(error) => {
                std::thread::sleep(TURN);
                return self.ask_failed(consumer, error);
            }
        };
        self.anew = Anew::No;
        self.ails = None;
        self.topic_id = id_of(consumer, &self.topic);
        // What has no leader yet is found by the next look, and begins at its first record.
        self.late.clear();
        self.progress = Progress::default();
        for mark in marks {
            self.progress.put(mark.partition, mark.low, None);
        }
        self.assign(consumer)
    }

    /// A question failed. Who follows is told once, and goes on.
    pub(super) fn ask_failed(&mut self, consumer: &BaseConsumer<Told>, error: KafkaError) -> Result<(), ReadError> {
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
    pub(super) fn look_when_due(&mut self, consumer: &BaseConsumer<Told>) -> Result<(), ReadError> {
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
        // A cluster that knows no ids is not asked again: that takes as long as a question may.
        let id = if self.topic_id.is_some() { id_of(consumer, &self.topic) } else { None };
        if self.ails == Some(Ail::Gone) || (id.is_some() && id != self.topic_id) {
            self.is_anew();
            return Ok(());
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
