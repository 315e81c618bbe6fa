//! The questions that wait for a reader, and which of them one reader takes at once.
//!
//! Pages of different partitions are read together: fifty partitions cost little more than one. A page that somebody else
//! reads right now is left until it is in the cache. Pages that a round has left unread go together, apart from the others.
//! It must not know Kafka.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::pipeline::page::{Page, PageRequest, TierError};

/// Most partitions that are read together.
const ROUND_PARTITIONS: usize = 64;
/// Most bytes that pages which are read together may have; a single one may have more.
const ROUND_BYTES: usize = 8 * 1024 * 1024;

/// The way back to whoever asked. Holds the room of its question in the queue.
#[derive(Debug)]
pub(super) struct Answer<T> {
    sender: oneshot::Sender<Result<T, TierError>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> Answer<T> {
    pub(super) const fn new(sender: oneshot::Sender<Result<T, TierError>>, permit: OwnedSemaphorePermit) -> Self {
        Self { sender, _permit: permit }
    }

    /// Answers; nobody may be there any more.
    pub(super) fn send(self, answer: Result<T, TierError>) {
        let _ = self.sender.send(answer);
    }

    /// Whether nobody waits any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Who asks for many partitions does so at once: the first question does not begin a round of its own.
const GATHER: Duration = Duration::from_micros(200);

/// A page that somebody waits for.
#[derive(Debug)]
pub(super) struct PageJob {
    pub(super) request: PageRequest,
    pub(super) deadline: Instant,
    /// How many rounds have left it unread.
    pub(super) put_back: u32,
    pub(super) answer: Answer<Page>,
}

/// Offsets of all partitions that somebody waits for.
#[derive(Debug)]
pub(super) struct Offsets {
    pub(super) epoch: u64,
    /// From which time on, in Unix milliseconds.
    pub(super) time_ms: i64,
    pub(super) deadline: Instant,
    pub(super) answer: Answer<Vec<(i32, i64)>>,
}

#[derive(Debug)]
enum Question {
    Page(PageJob),
    Offsets(Offsets),
}

/// What a reader takes at once.
#[derive(Debug)]
pub(super) enum Taken {
    /// Pages of one epoch, each of another partition. To be handed back by [`Queue::done`].
    Pages(Vec<PageJob>),
    Offsets(Offsets),
    /// Nothing came in time.
    Nothing,
    Closed,
}

/// Epoch, partition and first offset of a page.
pub(super) type Place = (u64, i32, i64);

/// The queue. Its bound is kept by whoever puts questions.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    questions: VecDeque<Question>,
    reading: BTreeSet<Place>,
    closed: bool,
}

impl Queue {
    pub(super) fn push_page(&self, job: PageJob) {
        self.push(Question::Page(job));
    }

    pub(super) fn push_offsets(&self, offsets: Offsets) {
        self.push(Question::Offsets(offsets));
    }

    fn push(&self, question: Question) {
        let mut state = self.lock();
        // A question that is dropped is answered as failed.
        if !state.closed {
            state.questions.push_back(question);
            self.changed.notify_one();
        }
    }

    /// Ends all waits. Questions that nobody took are answered as failed.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.questions.clear();
        self.changed.notify_all();
    }

    /// Takes the oldest question that can be answered now, and what goes with it; waits up to `timeout` for one.
    pub(super) fn take(&self, timeout: Duration) -> Taken {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        if state.questions.is_empty() && !timeout.is_zero() {
            state = self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
            if !state.questions.is_empty() {
                drop(state);
                std::thread::sleep(GATHER);
                state = self.lock();
            }
        }
        loop {
            if state.closed {
                return Taken::Closed;
            }
            if let Some(taken) = state.take() {
                return taken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether anybody waits for a round.
    pub(super) fn is_waited_for(&self) -> bool {
        self.lock().questions.iter().any(|question| !question.is_given_up())
    }

    /// These are not read any more: whoever waits for the same may be answered.
    pub(super) fn done(&self, places: &[Place]) {
        let mut state = self.lock();
        for place in places {
            state.reading.remove(place);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Taken> {
        self.questions.retain(|question| !question.is_given_up());
        let reading = &self.reading;
        let first =
            self.questions.iter().position(|question| question.place().is_none_or(|p| !reading.contains(&p)))?;
        let first = match self.questions.remove(first)? {
            Question::Offsets(offsets) => return Some(Taken::Offsets(offsets)),
            Question::Page(job) => job,
        };
        let (epoch, mut bytes) = (first.request.epoch, first.request.max_bytes);
        let unread = first.put_back > 0;
        let mut partitions = BTreeSet::from([first.request.partition]);
        let mut jobs = vec![first];
        let mut index = 0;
        while let Some(question) = self.questions.get(index)
            && jobs.len() < ROUND_PARTITIONS
        {
            let fits = match question {
                Question::Page(PageJob { request, put_back, .. }) => {
                    let more = bytes.saturating_add(request.max_bytes);
                    let free = !self.reading.contains(&place(request)) && !partitions.contains(&request.partition);
                    // What does not answer must not hold up what does.
                    request.epoch == epoch && more <= ROUND_BYTES && free && (*put_back > 0) == unread
                }
                Question::Offsets(_) => false,
            };
            match if fits { self.questions.remove(index) } else { None } {
                Some(Question::Page(job)) => {
                    bytes += job.request.max_bytes;
                    partitions.insert(job.request.partition);
                    jobs.push(job);
                }
                _ => index += 1,
            }
        }
        self.reading.extend(jobs.iter().map(|job| place(&job.request)));
        Some(Taken::Pages(jobs))
    }
}

impl Question {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Page(job) => job.answer.is_given_up(),
            Self::Offsets(offsets) => offsets.answer.is_given_up(),
        }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Page(job) => Some(place(&job.request)),
            Self::Offsets(_) => None,
        }
    }
}

pub(super) fn place(request: &PageRequest) -> Place {
    (request.epoch, request.partition, request.from)
}
