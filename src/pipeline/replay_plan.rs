//! Where each partition of a session that lies below the memory window gets its next records from, Redis or Kafka, and what
//! is a gap. A pure function, with one page limit over all partitions.
//!
//! It must not ask a tier, wait, or know what time it is. The shell around it turns this wheel, one page a turn:
//!
//! 1. Keep one [`Line`] per partition that lies below the window. Begin `redis` and `kafka` with [`Tier::unknown`],
//!    [`Tier::from`] or [`Tier::off`]. A log start that was seen lately saves a question, but is never needed: answers teach
//!    the same.
//! 2. Call [`plan`], and carry out every step, in any order and at the same time: read steps become [`Step::request`]s of
//!    their tier, gaps are told to the client.
//! 3. Hand each answer to [`Line::answered`]. If it says so, deliver the page's chunks from the cursor on. Move
//!    [`Line::cursor`] by what was delivered and by the gaps that were told. A line that has reached its window is done.
//! 4. A tier that failed is not asked again until [`Line::retry`]: call that for all lines after a backoff, whatever the
//!    plan says meanwhile. Partitions without a step can go on only then. Once the patience of the caller is used up, it
//!    either stops with the cursors as they are (capped), or plans with [`Patience::Spent`], which turns what they wait for
//!    into gaps.
//!
//! The rules: a tier is asked when it may have the cursor, Redis before Kafka. A hole in Redis is bridged from Kafka up to
//! where Redis goes on. A range is a gap only when every tier that could have it has answered that it has not.

use std::sync::Arc;

use super::page::{Page, PageRequest, TierError};
use crate::wire::stream::GapReason;

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Redis.
    Redis,
    /// Kafka.
    Kafka,
}

/// Whether a tier can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// It is not in use.
    Never,
    /// As far as is known.
    Yes,
    /// It failed, and was not asked again since.
    NotNow,
}

/// What is known of a tier, for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    answers: Answers,
    /// It has nothing below.
    low: i64,
    /// It has nothing in this range, as it answered.
    hole: (i64, i64),
}

impl Tier {
    /// Not in use.
    pub const fn off() -> Self {
        Self { answers: Answers::Never, ..Self::unknown() }
    }

    /// In use, and not asked yet: it may have everything.
    pub const fn unknown() -> Self {
        Self::from(0)
    }

    /// It has nothing below `low`.
    pub const fn from(low: i64) -> Self {
        Self { answers: Answers::Yes, low, hole: (0, 0) }
    }

    /// The first offset from `cursor` on that it may have, whether it answers now or not.
    fn first_from(&self, cursor: i64) -> Option<i64> {
        let first = cursor.max(self.low);
        let first = if (self.hole.0..self.hole.1).contains(&first) { self.hole.1 } else { first };
        (self.answers != Answers::Never).then_some(first)
    }

    /// As [`Self::first_from`], of a tier that answers.
    fn answering_from(&self, cursor: i64) -> Option<i64> {
        if self.answers == Answers::Yes { self.first_from(cursor) } else { None }
    }

    /// Where that ends which it may have at `first`.
    fn end_of(&self, first: i64) -> i64 {
        if self.hole.0 > first { self.hole.0 } else { i64::MAX }
    }

    /// It has nothing in `[first, next)`.
    fn lacks(&mut self, first: i64, next: i64) {
        let touches = self.hole.0 <= next && first <= self.hole.1 && self.hole.0 < self.hole.1;
        self.hole = if touches { (self.hole.0.min(first), self.hole.1.max(next)) } else { (first, next) };
    }
}

/// One partition of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The partition.
    pub partition: i32,
    /// The next offset that the session needs, below `until`.
    pub cursor: i64,
    /// Where the memory window begins.
    pub until: i64,
    /// What is known of Redis.
    pub redis: Tier,
    /// What is known of Kafka.
    pub kafka: Tier,
}

impl Line {
    /// Takes the answer to a read step that asked `source` up to `until`. True: the page begins at the cursor, so its chunks
    /// are to be delivered from there on. The caller moves the cursor.
    pub fn answered(&mut self, source: Source, until: i64, answer: &Result<Page, TierError>) -> bool {
        let cursor = self.cursor;
        let tier = match source {
            Source::Redis => &mut self.redis,
            Source::Kafka => &mut self.kafka,
        };
        match answer {
            Ok(page) if page.chunks.first().is_some_and(|chunk| chunk.first <= cursor && cursor < chunk.next) => true,
            Ok(page) => {
                // An answer that brings nothing and names no later start means that there is nothing where it was asked.
                let goes_on = page.low.or_else(|| page.chunks.first().map(|chunk| chunk.first));
                match goes_on.filter(|low| *low > cursor) {
                    Some(low) if source == Source::Kafka => tier.low = tier.low.max(low),
                    Some(low) => tier.lacks(cursor, low),
                    None => tier.lacks(cursor, until.max(cursor.saturating_add(1))),
                }
                false
            }
            Err(TierError::Timeout | TierError::Unavailable(_)) => {
                tier.answers = Answers::NotNow;
                false
            }
            // Whoever ends the session's epoch makes new lines.
            Err(TierError::EpochOver) => false,
        }
    }

    /// Tiers that failed are to be asked again.
    pub fn retry(&mut self) {
        for tier in [&mut self.redis, &mut self.kafka] {
            if tier.answers == Answers::NotNow {
                tier.answers = Answers::Yes;
            }
        }
    }

    /// Nobody can be asked now, as if both tiers had failed.
    pub fn give_up(&mut self) {
        for tier in [&mut self.redis, &mut self.kafka] {
            if tier.answers == Answers::Yes {
                tier.answers = Answers::NotNow;
            }
        }
    }

    /// Whether there is something to do for it before a tier that failed is asked again.
    pub fn goes_on(&self, patience: Patience) -> bool {
        !matches!(self.next(patience), Next::Wait)
    }

    /// What to do next, without regard to other partitions.
    fn next(&self, patience: Patience) -> Next {
        let (cursor, low) = (self.cursor, self.until);
        let (redis, kafka) = (self.redis.answering_from(cursor), self.kafka.answering_from(cursor));
        if redis == Some(cursor) {
            return Next::Read(Source::Redis, low.min(self.redis.end_of(cursor)));
        }
        if kafka == Some(cursor) {
            let bridged = redis.unwrap_or(low);
            return Next::Read(Source::Kafka, low.min(bridged).min(self.kafka.end_of(cursor)));
        }
        let known = [self.redis.first_from(cursor), self.kafka.first_from(cursor)];
        if known.contains(&Some(cursor)) {
            if patience == Patience::Left {
                return Next::Wait;
            }
            let to = [redis, kafka].into_iter().flatten().fold(low, i64::min);
            return Next::Gap(to, GapReason::Unavailable);
        }
        let to = known.into_iter().flatten().fold(low, i64::min);
        if cursor < self.kafka.low {
            Next::Gap(to.min(self.kafka.low), GapReason::Retention)
        } else {
            Next::Gap(to, GapReason::Unavailable)
        }
    }
}

enum Next {
    Read(Source, i64),
    Gap(i64, GapReason),
    Wait,
}

/// Whether the caller goes on waiting for tiers that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It does.
    Left,
    /// It does not: what only they may have is lost to this session.
    Spent,
}

/// Bounds of one page, over all partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records.
    pub records: u32,
    /// Most bytes of records, as far as tiers can keep it: each may go over its part by one chunk.
    pub bytes: usize,
}

/// One thing to do for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask a tier.
    Read {
        /// Which.
        source: Source,
        /// The partition.
        partition: i32,
        /// The cursor.
        from: i64,
        /// The offset after the last one wanted, above `from`.
        until: i64,
        /// This partition's part of the page, at least 1.
        max_records: u32,
        /// The same in bytes, at least 1.
        max_bytes: usize,
    },
    /// Tell the client of a loss.
    Gap {
        /// The partition.
        partition: i32,
        /// The cursor.
        from: i64,
        /// Where the stream goes on, above `from`.
        to: i64,
        /// Why.
        reason: GapReason,
    },
}

impl Step {
    /// The request of a read step.
    pub fn request(&self, epoch: u64, epoch_name: &Arc<str>) -> Option<PageRequest> {
        let Self::Read { partition, from, until, max_records, max_bytes, .. } = *self else { return None };
        let epoch_name = Arc::clone(epoch_name);
        Some(PageRequest { epoch, epoch_name, partition, from, until, max_records, max_bytes })
    }
}

/// The next page of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the lines. Empty: nothing can be done until a tier answers again.
    pub steps: Vec<Step>,
    /// To be given to the next call, so that small remainders go to everybody in turn.
    pub turn: Turn,
}

/// Whose turn it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The partition that was the last one to get a record more than others.
    after: Option<i32>,
}

/// Plans the next page. `lines`: one per partition, in any order.
pub fn plan(lines: &[Line], limits: Limits, turn: Turn, patience: Patience) -> Plan {
    let nexts: Vec<Next> = lines.iter().map(|line| line.next(patience)).collect();
    let wants: Vec<Want> = lines
        .iter()
        .zip(&nexts)
        .filter_map(|(line, next)| match next {
            Next::Read(_, until) => Some(Want { partition: line.partition, records: line.cursor.abs_diff(*until) }),
            Next::Gap(..) | Next::Wait => None,
        })
        .collect();
    let (parts, turn) = split(limits.records, &wants, turn);
    let given: u64 = parts.iter().copied().map(u64::from).sum();
    let mut parts = parts.into_iter();
    let mut plan = Plan { turn, ..Plan::default() };
    for (line, next) in lines.iter().zip(nexts) {
        let (partition, from) = (line.partition, line.cursor);
        match next {
            Next::Read(source, until) => {
                let max_records = parts.next().unwrap_or(0);
                if max_records > 0 {
                    let max_bytes = portion(limits.bytes, max_records, given);
                    plan.steps.push(Step::Read { source, partition, from, until, max_records, max_bytes });
                }
            }
            Next::Gap(to, reason) => plan.steps.push(Step::Gap { partition, from, to, reason }),
            Next::Wait => {}
        }
    }
    plan
}

/// What a partition could take at most.
struct Want {
    partition: i32,
    records: u64,
}

/// Splits `total` among those who want something: equal parts, nobody more than wanted; what cannot be split goes to the
/// ones after whose turn it was.
fn split(total: u32, wants: &[Want], turn: Turn) -> (Vec<u32>, Turn) {
    let mut parts = vec![0; wants.len()];
    let mut by_size: Vec<usize> = (0..wants.len()).collect();
    let want = |index: &usize| wants.get(*index).map_or(0, |want| want.records);
    by_size.sort_by_key(want);
    let mut left = total;
    let mut open = by_size.as_slice();
    while let Some((smallest, larger)) = open.split_first() {
        let fair = left / u32::try_from(open.len()).unwrap_or(u32::MAX);
        let Ok(wanted) = u32::try_from(want(smallest)) else { break };
        if wanted > fair {
            break;
        }
        give(&mut parts, *smallest, wanted);
        left -= wanted;
        open = larger;
    }
    let Some(count) = u32::try_from(open.len()).ok().filter(|count| *count > 0) else { return (parts, turn) };
    let mut in_turn = open.to_vec();
    let partition = |index: &usize| wants.get(*index).map_or(0, |want| want.partition);
    // Those behind the last one first, then from the start.
    in_turn.sort_by_key(|index| (turn.after.is_some_and(|after| partition(index) <= after), partition(index)));
    let (equal, rest) = (left / count, left % count);
    let mut after = turn.after;
    for (place, index) in (0..count).zip(in_turn) {
        if place < rest {
            after = Some(partition(&index));
        }
        give(&mut parts, index, equal + u32::from(place < rest));
    }
    (parts, Turn { after })
}

fn give(parts: &mut [u32], index: usize, records: u32) {
    if let Some(part) = parts.get_mut(index) {
        *part = records;
    }
}

/// The part of `bytes` that goes with `records` out of `all`.
fn portion(bytes: usize, records: u32, all: u64) -> usize {
    let part = bytes as u128 * u128::from(records) / u128::from(all.max(1));
    usize::try_from(part).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests;
