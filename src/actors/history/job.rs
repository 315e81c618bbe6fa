//! One session's way through history, without waiting for anybody: what to ask next, and what the answers bring.
//!
//! The shell around it asks the tiers and measures patience; the simulation drives the same code.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::actors::resumes;
use crate::actors::session_queue::{Feeder, SessionQueue};
use crate::board::Board;
use crate::messages::ReadHistory;
use crate::metrics::Metrics;
use crate::pipeline::page::{Page, PageRequest, TierError};
use crate::pipeline::replay_plan::{Limits, Line, Patience, Source, Step, Tier, Turn, plan};
use crate::pipeline::window::Chunk;
use crate::spans::{ResumeEnd, Spans};
use crate::wire::control::{ErrorCode, FrameError};

/// A session's lines, and how patient it still is.
#[derive(Debug)]
pub struct Job {
    asked: ReadHistory,
    epoch_name: Arc<str>,
    lines: Vec<Line>,
    turn: Turn,
    patience: Patience,
}

/// What a page brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Records, a gap, or the knowledge where to look instead.
    Moved,
    /// A tier failed, and another one may have what it was asked for: that is for the next page.
    Elsewhere,
    /// No tier had anything to say.
    Stuck,
    /// The session is not served here any more.
    Over,
}

impl Job {
    /// A job for a session; `None` when its epoch is over. `redis`: there is such a tier.
    pub fn new(asked: ReadHistory, redis: bool, board: &Board) -> Option<Self> {
        let epoch = board.epoch();
        if epoch.number != asked.epoch {
            return None;
        }
        let line = |partition, until| Line {
            partition,
            cursor: 0,
            until,
            redis: if redis { Tier::unknown() } else { Tier::off() },
            kafka: match board.find(partition).and_then(|board| board.low_watermark.get()) {
                Some(low) => Tier::from(low),
                None => Tier::unknown(),
            },
        };
        let lines = asked.below.iter().map(|below| line(below.partition, below.until)).collect();
        let epoch_name = epoch.name.as_str().into();
        Some(Self { asked, epoch_name, lines, turn: Turn::default(), patience: Patience::Left })
    }

    /// What to ask for the next page; `None` when the session is handed back to the store, or wants something else.
    pub fn next(&mut self, limits: Limits, board: &Board, now: Instant) -> Option<Vec<Step>> {
        let queue = Arc::clone(&self.asked.queue);
        let feeder = self.open(&queue, board, now)?;
        self.lines.retain_mut(|line| {
            line.cursor = feeder.sent(line.partition).unwrap_or(i64::MAX);
            line.cursor < line.until
        });
        if self.lines.is_empty() || feeder.is_full() || feeder.is_capped() {
            feeder.behind();
            queue.ask_if_drained();
            return None;
        }
        drop(feeder);
        let planned = plan(&self.lines, limits, self.turn, self.patience);
        self.turn = planned.turn;
        Some(planned.steps)
    }

    /// The request of a step, and whom to ask.
    pub fn request(&self, step: &Step) -> Option<(Source, PageRequest)> {
        let Step::Read { source, .. } = step else { return None };
        Some((*source, step.request(self.asked.epoch, &self.epoch_name)?))
    }

    /// Takes the answers to the steps, in their order; a gap needs none.
    pub fn absorb(
        &mut self,
        steps: &[Step],
        answers: Vec<Option<Result<Page, TierError>>>,
        board: &Board,
        metrics: &Metrics,
        now: Instant,
    ) -> Turned {
        let queue = Arc::clone(&self.asked.queue);
        let Some(mut feeder) = self.open(&queue, board, now) else { return Turned::Over };
        let (mut moved, mut elsewhere) = (false, false);
        let mut pages = Vec::with_capacity(answers.len());
        for (step, answer) in steps.iter().zip(answers) {
            match (*step, answer) {
                (Step::Gap { partition, to, reason, .. }, _) => {
                    metrics.lost(feeder.gap(partition, to, reason));
                    moved = true;
                }
                (Step::Read { source, partition, until, .. }, Some(answer)) => {
                    let Some(line) = self.lines.iter_mut().find(|line| line.partition == partition) else { continue };
                    // Also an empty answer brings the plan on: it tells where not to look.
                    moved |= answer.is_ok();
                    let failed = matches!(answer, Err(TierError::Timeout | TierError::Unavailable(_)));
                    if line.answered(source, until, &answer) {
                        pages.extend(answer.map(|page| VecDeque::from(page.chunks)));
                    }
                    elsewhere |= failed && line.goes_on(self.patience);
                }
                (Step::Read { .. }, None) => {}
            }
        }
        interleave(&mut feeder, pages);
        metrics.delivered_records.inc_by(feeder.records());
        let (gaps, missing) = feeder.take_thread_gaps();
        metrics.lost_of_threads(gaps, missing);
        feeder.wake();
        match (moved, elsewhere) {
            (true, _) => Turned::Moved,
            (false, true) => Turned::Elsewhere,
            (false, false) => Turned::Stuck,
        }
    }

    /// Tiers that failed are asked again.
    pub fn retry(&mut self) {
        self.lines.iter_mut().for_each(Line::retry);
    }

    /// It was nobody's turn in time: no tier is asked for this page.
    pub fn give_up(&mut self) {
        self.lines.iter_mut().for_each(Line::give_up);
    }

    /// The budget is spent without a page. A client that can ask on is told and keeps its cursor; for one that cannot, the
    /// rest is named as lost. Whether to go on.
    pub fn out_of_time(&mut self, board: &Board, metrics: &Metrics, spans: &Spans, now: Instant) -> bool {
        let queue = Arc::clone(&self.asked.queue);
        let Some(mut feeder) = self.open(&queue, board, now) else { return false };
        if self.patience == Patience::Left {
            metrics.replay_timeouts.inc();
        }
        if feeder.can_ask_on() {
            let message = "history could not be read in time; resume from your cursor later";
            feeder.tell(&FrameError::new(ErrorCode::ReplayTimeout, message).to_json());
            resumes::count(&queue.info, &feeder.park(), ResumeEnd::TimedOut, metrics, spans);
            return false;
        }
        self.patience = Patience::Spent;
        true
    }

    /// Opens the session's queue, unless it wants something else by now or its epoch is over.
    fn open<'a>(&self, queue: &'a SessionQueue, board: &Board, now: Instant) -> Option<Feeder<'a>> {
        let feeder = queue.history_feeder(self.asked.ticket, now)?;
        // Looked at under the queue's lock: a reset that comes after this finds what was queued before it.
        (board.epoch_number() == self.asked.epoch).then_some(feeder)
    }
}

/// Queues pages of several partitions in turn, a chunk at a time.
fn interleave(feeder: &mut Feeder<'_>, mut pages: Vec<VecDeque<Arc<Chunk>>>) {
    while !pages.is_empty() {
        pages.retain_mut(|page| page.pop_front().is_some_and(|chunk| !feeder.chunk(&chunk).capped));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::actors::link::Link;
    use crate::actors::session_queue::{Beginning, QueueLimits, Request, SessionInfo, SlowPolicy};
    use crate::board::Epoch;
    use crate::messages::Below;
    use crate::wire::control::{Dialect, From};
    use crate::wire::stream_frame::FrameBuilder;

    fn page(first: i64, next: i64) -> Page {
        let mut builder = FrameBuilder::new();
        (first..next).for_each(|offset| builder.record(offset, 0, b"\0value", &[]));
        let records = u32::try_from(next - first).unwrap();
        Page { chunks: vec![Arc::new(Chunk::new(0, first, next, records, builder.seal(0, first, next)))], low: None }
    }

    #[test]
    fn what_was_replayed_before_time_ran_out_is_counted_once() {
        let (now, board, metrics, spans) = (Instant::now(), Board::new(), Metrics::new().unwrap(), Spans::default());
        let epoch = Epoch { number: 1, name: "e".into() };
        board.open_epoch(epoch.clone());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let info = SessionInfo { session: 1, dialect: Dialect::V2, address, opened: now, trace: None };
        let (queued_bytes, unapplied_bytes, slow) = (1 << 20, 1 << 20, SlowPolicy::CatchUp);
        let limits = QueueLimits { queued_bytes, unapplied_bytes, page_records: 100, max_total: 100, slow };
        let queue = Arc::new(SessionQueue::new(info, limits, Link::default()));
        let start = Beginning { partition: 0, from: 0, end: 50, oldest: true };
        queue.begin(&epoch, &[start], Request::new(From::Earliest), now);
        let ticket = queue.feeder(now).unwrap().await_history();
        let below = vec![Below { partition: 0, until: 50 }];
        let asked = ReadHistory { queue: Arc::clone(&queue), ticket, epoch: 1, below };
        let mut job = Job::new(asked, false, &board).unwrap();
        let limits = Limits { records: 10, bytes: 1 << 20 };
        let steps = job.next(limits, &board, now).unwrap();
        assert_eq!(job.absorb(&steps, vec![Some(Ok(page(0, 3)))], &board, &metrics, now), Turned::Moved);
        let steps = job.next(limits, &board, now).unwrap();
        assert_eq!(job.absorb(&steps, vec![Some(Err(TierError::Timeout))], &board, &metrics, now), Turned::Stuck);
        for _ in 0..2 {
            assert!(!job.out_of_time(&board, &metrics, &spans, now));
            let replayed = metrics.replay_messages.with_label_values(&["partition"]).get();
            assert_eq!((replayed, metrics.replay_timeouts.get(), metrics.replay_capped.get()), (3, 1, 0));
        }
    }
}
