//! Dead letters between the one who writes them and the one who sends them: a queue that is bounded in letters and bytes.
//!
//! It outlives the publisher, so a letter that was on its way when the publisher died is still there. However a letter ends
//! it is counted once, and its record is settled when the durability allows it. It must not know why a record is bad, or
//! Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::link::Link;
use crate::board::Board;
use crate::messages::{LettersWaiting, Settled};
use crate::metrics::Metrics;
use crate::pipeline::dead_letter::{DeadLetter, Durability, Landed, Loss};

/// Bounds of the queue, and what a failure means.
#[derive(Clone, Copy, Debug)]
pub struct LetterLimits {
    /// What it means when a letter cannot be written.
    pub durability: Durability,
    /// Letters that may wait; those on their way are not counted.
    pub waiting: usize,
    /// Bytes of all letters at which no more are taken. One letter may go beyond.
    pub bytes: usize,
    /// With best effort: how long a letter may wait for its turn before it is given up.
    pub patience: Duration,
}

/// The letters of the process. Cloning shares them; they outlive every actor.
#[derive(Clone, Debug)]
pub struct Letters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: LetterLimits,
    state: Mutex<State>,
    decided: Notify,
    publisher: Link<LettersWaiting>,
    settled: Link<Settled>,
    board: Board,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// Not tried yet, in order.
    fresh: VecDeque<Undecided>,
    /// Tried in vain, by the time of the next round.
    again: BTreeMap<(Instant, u64), Undecided>,
    lent: usize,
    bytes: usize,
    count: u64,
    /// The publisher was told of letters and has not looked yet.
    announced: bool,
    /// Per partition the letters that failed and hold it.
    blocked: BTreeMap<i32, usize>,
    blocked_since: Option<Instant>,
}

#[derive(Debug)]
struct Undecided {
    letter: DeadLetter,
    /// What is settled with the letter.
    settles: Option<Settled>,
    /// Set when Kafka has the letter.
    landed: Option<Landed>,
    weight: usize,
    queued: Instant,
    rounds: u32,
}

/// What a letter does once it is decided.
#[derive(Debug)]
pub enum Purpose {
    /// It settles its record.
    Settles(Settled),
    /// It only tells; the record waits for an operator, who will want to know whether the letter has landed.
    Tells(Landed),
}

/// A letter that is being sent. Dropped without a word (its publisher died), it counts as failed.
#[derive(Debug)]
pub struct Lent {
    letters: Letters,
    entry: Option<Undecided>,
}

/// Letters that hold the offsets of their partitions because they cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Since when there are any.
    pub since: Instant,
    /// How many failed.
    pub letters: usize,
    /// The partitions that are held.
    pub partitions: Vec<i32>,
}

impl Letters {
    /// An empty queue. `publisher` is told when there is something to send; settled records are reported through
    /// `settled`; the board says whether a record's duties are still ours.
    pub fn new(
        limits: LetterLimits,
        publisher: Link<LettersWaiting>,
        settled: Link<Settled>,
        board: Board,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (state, decided) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { limits, state, decided, publisher, settled, board, metrics }))
    }

    /// What a failure means.
    pub fn durability(&self) -> Durability {
        self.0.limits.durability
    }

    /// Whether no letter should be written now. Who writes none has to call [`Self::refuse`], or wait.
    pub fn is_full(&self) -> bool {
        let (state, limits) = (self.lock(), &self.0.limits);
        state.fresh.len() + state.again.len() >= limits.waiting || state.bytes >= limits.bytes
    }

    /// Takes a letter.
    pub fn push(&self, letter: DeadLetter, purpose: Purpose) {
        let (settles, landed) = match purpose {
            Purpose::Settles(settled) => (Some(settled), None),
            Purpose::Tells(landed) => (None, Some(landed)),
        };
        let weight = letter.weight();
        let mut state = self.lock();
        state.bytes += weight;
        state.fresh.push_back(Undecided { letter, settles, landed, weight, queued: Instant::now(), rounds: 0 });
        self.show(&state);
        let tell = !std::mem::replace(&mut state.announced, true);
        drop(state);
        if tell && !self.0.publisher.send(LettersWaiting) {
            // The next publisher looks when it starts.
            self.lock().announced = false;
        }
    }

    /// Counts a letter that was not even written, because the queue is full.
    pub fn refuse(&self) {
        self.count_failure(Loss::Backpressure);
        self.0.metrics.dlq_lost.inc();
    }

    /// The next letter to send: one whose next round is due, otherwise the oldest that was not tried yet.
    pub fn lend(&self, now: Instant) -> Option<Lent> {
        loop {
            let mut state = self.lock();
            state.announced = false;
            let due = state.again.first_entry().filter(|first| first.key().0 <= now);
            let entry = match due {
                Some(due) => due.remove(),
                None => state.fresh.pop_front()?,
            };
            state.lent += 1;
            self.show(&state);
            drop(state);
            let lent = Lent { letters: self.clone(), entry: Some(entry) };
            if lent.is_moot() {
                lent.forget();
            } else if lent.is_late(now) {
                lent.failed(Loss::Backpressure, now);
            } else {
                return Some(lent);
            }
        }
    }

    /// When the next round of a letter that failed is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.lock().again.keys().next().map(|(due, _)| *due)
    }

    /// How many letters wait or are on their way.
    pub fn undecided(&self) -> usize {
        self.lock().undecided()
    }

    /// Waits until no letter waits or is on its way.
    pub async fn all_decided(&self) {
        loop {
            let decided = self.0.decided.notified();
            tokio::pin!(decided);
            // From here on no decision is missed.
            decided.as_mut().enable();
            if self.undecided() == 0 {
                return;
            }
            decided.await;
        }
    }

    /// The letters that hold the offsets of their partitions, if there are any.
    pub fn blocked(&self) -> Option<Blocked> {
        let state = self.lock();
        let since = state.blocked_since?;
        let (letters, partitions) = (state.blocked.values().sum(), state.blocked.keys().copied().collect());
        Some(Blocked { since, letters, partitions })
    }

    fn count_failure(&self, loss: Loss) {
        self.0.metrics.dlq_send_failures.with_label_values(&[loss.as_str()]).inc();
    }

    /// Takes a lent letter out for good.
    fn close(&self, entry: &Undecided) {
        let mut state = self.lock();
        state.lent = state.lent.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(entry.weight);
        if let Some(settles) = entry.settles.as_ref().filter(|_| entry.rounds > 0) {
            state.unblock(settles.origin.partition);
        }
        self.show(&state);
        drop(state);
        self.0.decided.notify_waiters();
    }

    fn put_back(&self, mut entry: Undecided, due: Instant) {
        let mut state = self.lock();
        state.lent = state.lent.saturating_sub(1);
        if let Some(settles) = entry.settles.as_ref().filter(|_| entry.rounds == 0) {
            *state.blocked.entry(settles.origin.partition).or_default() += 1;
            state.blocked_since.get_or_insert_with(Instant::now);
        }
        entry.rounds = entry.rounds.saturating_add(1);
        state.count += 1;
        let key = (due, state.count);
        state.again.insert(key, entry);
        self.show(&state);
    }

    fn settle(&self, entry: &mut Undecided) {
        if let Some(settled) = entry.settles.take() {
            // When nobody is there, the restarted reader begins at the last commit and meets the record again.
            let _delivered = self.0.settled.send(settled);
        }
    }

    fn show(&self, state: &State) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.metrics.dlq_in_flight.set(gauge(state.lent));
        self.0.metrics.dlq_queued.set(gauge(state.undecided()));
        self.0.metrics.dlq_queued_bytes.set(gauge(state.bytes));
        self.0.metrics.dlq_blocked.set(gauge(state.blocked.values().sum()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn undecided(&self) -> usize {
        self.fresh.len() + self.again.len() + self.lent
    }

    fn unblock(&mut self, partition: i32) {
        if let Some(letters) = self.blocked.get_mut(&partition) {
            *letters = letters.saturating_sub(1);
            if *letters == 0 {
                self.blocked.remove(&partition);
            }
        }
        if self.blocked.is_empty() {
            self.blocked_since = None;
        }
    }
}

impl Lent {
    /// The letter.
    pub fn letter(&self) -> Option<&DeadLetter> {
        self.entry.as_ref().map(|entry| &entry.letter)
    }

    /// How often it was tried in vain.
    pub fn rounds(&self) -> u32 {
        self.entry.as_ref().map_or(0, |entry| entry.rounds)
    }

    /// Kafka has the letter.
    pub fn landed(mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        self.letters.0.metrics.dlq_sends.with_label_values(&[entry.letter.kind.as_str()]).inc();
        if let Some(landed) = &entry.landed {
            landed.store(true, Ordering::Release);
        }
        self.letters.close(&entry);
        self.letters.settle(&mut entry);
    }

    /// All tries of a round failed. The next one, if there is one, is not before `due`.
    pub fn failed(mut self, loss: Loss, due: Instant) {
        self.give_up(loss, due);
    }

    /// What a failure means, in one place: with best effort the loss is counted and the record is settled all the same;
    /// otherwise the letter waits for its next round, and its record with it.
    fn give_up(&mut self, loss: Loss, due: Instant) {
        let Some(mut entry) = self.entry.take() else { return };
        self.letters.count_failure(loss);
        match self.letters.durability() {
            Durability::BestEffort => {
                self.letters.0.metrics.dlq_lost.inc();
                self.letters.close(&entry);
                self.letters.settle(&mut entry);
            }
            Durability::FailClosed => self.letters.put_back(entry, due),
        }
    }

    /// The duties of the record went to somebody else, who begins at what is committed and writes the letter himself.
    fn is_moot(&self) -> bool {
        let Some(Settled { origin, duty_term, .. }) = self.entry.as_ref().and_then(|entry| entry.settles.as_ref())
        else {
            return false;
        };
        let board = &self.letters.0.board;
        // The letters of a log that is gone are all that is left of it.
        board.epoch_number() == origin.epoch
            && board.find(origin.partition).is_none_or(|own| own.duty_term.load(Ordering::Acquire) != *duty_term)
    }

    fn is_late(&self, now: Instant) -> bool {
        let limits = &self.letters.0.limits;
        limits.durability == Durability::BestEffort
            && self.entry.as_ref().is_some_and(|entry| now.saturating_duration_since(entry.queued) > limits.patience)
    }

    fn forget(mut self) {
        if let Some(entry) = self.entry.take() {
            self.letters.close(&entry);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Dropped on the way: with a future of a publisher that died.
        self.give_up(Loss::KafkaError, Instant::now());
    }
}

#[cfg(test)]
pub(crate) mod tests;
