//! What is known about Redis right now: for health, and for whoever decides whether to ask it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::{Failure, Fault};
use crate::metrics::Metrics;

/// A request to Redis, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A page.
    Read,
    /// A batch of chunks, or a look whether the server is there.
    Write,
}

impl Operation {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The state. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RedisState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writing: Mutex<Writing>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Writing {
    reached: bool,
    failing: Option<(Instant, Failure)>,
    news: bool,
}

/// Redis does not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// For how long.
    pub since: Duration,
    /// The last failure.
    pub failure: Failure,
}

impl RedisState {
    /// Nothing is known yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { writing: Mutex::default(), metrics }))
    }

    /// Whether writing, or looking whether the server is there, fails now.
    pub fn failing(&self) -> Option<Failing> {
        let writing = self.lock();
        let (since, failure) = writing.failing.as_ref()?;
        Some(Failing { since: since.elapsed(), failure: failure.clone() })
    }

    /// Whether the server has answered, and still does.
    pub fn is_up(&self) -> bool {
        let writing = self.lock();
        writing.reached && writing.failing.is_none()
    }

    /// Everything that was to be written is written.
    pub fn succeeded(&self) {
        self.works(|_| true);
    }

    /// The server has answered, which is not to say that it takes what is written.
    pub fn answered(&self) {
        self.works(Fault::ends_with_an_answer);
    }

    fn works(&self, ends: impl Fn(Fault) -> bool) {
        let mut writing = self.lock();
        if writing.failing.as_ref().is_some_and(|(_, failure)| !ends(failure.fault)) {
            return;
        }
        writing.news |= !writing.reached || writing.failing.is_some();
        writing.reached = true;
        writing.failing = None;
        drop(writing);
        self.0.metrics.redis_up.set(1);
    }

    /// A request failed.
    pub fn failed(&self, operation: Operation, failure: &Failure) {
        let metrics = &self.0.metrics;
        metrics.redis_errors.inc();
        metrics.redis_errors_by_type.with_label_values(&[failure.fault.as_str()]).inc();
        if failure.fault == Fault::Timeout {
            metrics.redis_timeouts.with_label_values(&[operation.as_str()]).inc();
        }
        if operation == Operation::Read {
            return;
        }
        metrics.redis_up.set(0);
        let mut writing = self.lock();
        writing.news |= writing.failing.as_ref().is_none_or(|(_, before)| before.fault != failure.fault);
        let since = writing.failing.take().map_or_else(Instant::now, |(since, _)| since);
        writing.failing = Some((since, failure.clone()));
    }

    /// Whether something is different since this was asked last.
    pub fn news(&self) -> bool {
        std::mem::take(&mut self.lock().news)
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
