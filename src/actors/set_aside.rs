//! The one path of every unprocessable record: its dead letter, or what stands for it while there is no room for one.
//!
//! Where no letter may be lost and the queue is full, the record waits here with its batch's bytes and their credit, so
//! that the reader stops by itself; the rest of the batch goes on. It must not judge, send or count outcomes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::letter_queue::{Letters, Purpose};
use crate::board::Board;
use crate::messages::Settled;
use crate::pipeline::credit::Permit;
use crate::pipeline::dead_letter::{self, DeadLetter, Durability, Landed, LetterContext, Rejected};
use crate::pipeline::decode::Kind;
use crate::pipeline::record::{Origin, RawBatch, RawRecord};
use crate::pipeline::safe_judge::SafeJudge;
use crate::spans::Spans;

/// A record that cannot be processed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad<'a> {
    pub(super) origin: Origin,
    pub(super) arena: &'a [u8],
    pub(super) record: RawRecord,
    pub(super) kind: Kind,
}

/// What became of a record's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The letter is in the queue, and settles the record.
    Queued,
    /// The record has to be parked.
    NoRoom,
    /// The letter is lost, and counted.
    Lost,
}

/// Writes letters, and keeps records for which there is no room.
#[derive(Debug)]
pub(super) struct SetAside {
    context: LetterContext,
    queue: Letters,
    board: Board,
    spans: Spans,
    parked: VecDeque<Parked>,
}

/// Records of one batch that wait for room.
#[derive(Debug)]
struct Parked {
    origin: Origin,
    duty_term: u64,
    arena: Bytes,
    records: VecDeque<(RawRecord, Kind)>,
    _permit: Permit,
}

impl SetAside {
    pub(super) fn new(context: LetterContext, queue: Letters, board: Board, spans: Spans) -> Self {
        Self { context, queue, board, spans, parked: VecDeque::new() }
    }

    /// Hands the letter of a record over that is to be settled with it.
    pub(super) fn letter(&self, judge: &mut SafeJudge, bad: Bad<'_>, duty_term: u64, now_ms: i64) -> Fate {
        // Those that wait go first.
        if self.parked.is_empty() && !self.queue.is_full() {
            self.push(judge, bad, duty_term, now_ms);
            return Fate::Queued;
        }
        match self.queue.durability() {
            Durability::FailClosed => Fate::NoRoom,
            Durability::BestEffort => {
                self.queue.refuse();
                Fate::Lost
            }
        }
    }

    /// Hands the letter of a record over at which ingest stands still. There is one per partition, so it always has room.
    pub(super) fn tell(&self, judge: &mut SafeJudge, bad: Bad<'_>, landed: Landed, now_ms: i64) {
        self.queue.push(self.write(judge, bad, now_ms), Purpose::Tells(landed));
    }

    /// Keeps records of a batch until there is room for their letters.
    pub(super) fn park(&mut self, batch: &RawBatch, records: Vec<(RawRecord, Kind)>, duty_term: u64, permit: &Permit) {
        let (origin, arena) = (batch.origin, batch.arena.clone());
        let records = VecDeque::from(records);
        self.parked.push_back(Parked { origin, duty_term, arena, records, _permit: permit.clone() });
    }

    /// Writes the letters for which there is room now; `alive` is called for each. True when none waits any more.
    pub(super) fn unpark(&mut self, judge: &mut SafeJudge, now_ms: i64, alive: impl Fn()) -> bool {
        while let Some(mut parked) = self.parked.pop_front() {
            while !self.is_moot(&parked)
                && let Some((record, kind)) = parked.records.front().copied()
            {
                if self.queue.is_full() {
                    self.parked.push_front(parked);
                    return false;
                }
                alive();
                parked.records.pop_front();
                let bad = Bad { origin: parked.origin, arena: &parked.arena, record, kind };
                self.push(judge, bad, parked.duty_term, now_ms);
            }
        }
        true
    }

    fn push(&self, judge: &mut SafeJudge, bad: Bad<'_>, duty_term: u64, now_ms: i64) {
        let letter = self.write(judge, bad, now_ms);
        let Bad { origin, record, .. } = bad;
        let origin = Origin { first: record.offset, next: record.offset.saturating_add(1), ..origin };
        self.queue.push(letter, Purpose::Settles(Settled { origin, except: Vec::new(), duty_term }));
    }

    fn write(&self, judge: &mut SafeJudge, bad: Bad<'_>, now_ms: i64) -> DeadLetter {
        let Bad { origin, arena, record, kind } = bad;
        let explanation = judge.explain(record.value.map(|span| span.of(arena)), kind);
        let rejected =
            Rejected { partition: origin.partition, record: &record, arena, kind, explanation: &explanation };
        self.spans.unprocessable(&self.context, &rejected, now_ms);
        dead_letter::build(&self.context, &rejected, now_ms)
    }

    /// The duties of these records went to somebody else, who begins at what is committed and meets them himself.
    fn is_moot(&self, parked: &Parked) -> bool {
        self.board.epoch_number() == parked.origin.epoch
            && self
                .board
                .find(parked.origin.partition)
                .is_none_or(|own| own.duty_term.load(Ordering::Acquire) != parked.duty_term)
    }
}
