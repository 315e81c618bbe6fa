//! The records at which ingest stands still, under `KAFKA_ON_DECODE_ERROR=pause`.
//!
//! `DecodePolicy` meets such a record and lets nothing behind it pass; the reader goes back to it and stops; an operator
//! (or, where another instance owns the partition, that one's commit) answers; then the record is read and judged again.
//! So the stream of a partition never passes a record that nobody has decided about. This table is what they share. It
//! outlives every actor and must not know any of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::pipeline::dead_letter::Landed;
use crate::pipeline::decode::Kind;
use crate::pipeline::record::Origin;

/// Decisions that are remembered per partition: duties that move may have a record read once more.
const REMEMBERED: usize = 1_024;

/// The table. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Counts changes, so that the reader need not lock to see that there are none.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    /// At most one per partition.
    pauses: BTreeMap<i32, Pause>,
    /// Pauses whose record comes by once more, because one before it was met on the way: duties begin further back. What
    /// was decided and written at them still counts.
    further_on: BTreeMap<(i32, i64), Pause>,
    /// Records that may be set aside, with the letters that were written when they were met.
    decided: BTreeMap<i32, BTreeMap<i64, Option<Landed>>>,
    meetings: u64,
}

/// A record at which a partition stands still.
#[derive(Clone, Debug)]
pub struct Pause {
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// What is wrong with it.
    pub kind: Kind,
    /// Whether this instance owns the partition, so that its operator decides; otherwise the owner's commit does.
    pub ours: bool,
    /// Since when.
    pub since: Instant,
    /// What is to be done; the partition is read on from the record, and stands still until it comes by.
    pub answer: Option<Answer>,
    /// The number of the meeting: another one than before when the record was met again.
    pub meeting: u64,
    letter: Option<Landed>,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is judged again.
    Retry,
    /// It is skipped, as under `KAFKA_ON_DECODE_ERROR=skip`.
    SetAside,
}

impl Answer {
    /// The name in requests and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::SetAside => "set_aside",
        }
    }
}

/// What `DecodePolicy` has to do with a record that cannot be processed.
#[derive(Debug)]
pub enum Meeting {
    /// Nothing of the partition may pass from here on. The letter is due, if none was written at an earlier meeting.
    Stand {
        /// To be handed over with the letter.
        letter: Option<Landed>,
    },
    /// It was decided that the record is set aside.
    SetAside {
        /// Whether its letter has already landed.
        has_letter: bool,
    },
}

impl Pauses {
    /// Changes whenever the table does.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// The log of an epoch is read from these offsets on (partition, offset). Records of the same log that have no answer
    /// are judged again when they come by; those that never will are forgotten. Answers what is left.
    pub fn begin(&self, epoch: u64, starts: impl Iterator<Item = (i32, i64)>) -> Vec<Pause> {
        self.change(|state| {
            if state.epoch != epoch {
                *state = State { epoch, meetings: state.meetings, ..State::default() };
            }
            for (partition, start) in starts {
                state.further_on.retain(|(of, offset), _| *of != partition || *offset >= start);
                if state.pauses.get(&partition).is_some_and(|pause| pause.offset < start) {
                    state.pauses.remove(&partition);
                }
            }
            for pause in state.pauses.values_mut() {
                pause.answer = pause.answer.or(Some(Answer::Retry));
            }
            state.pauses.values().cloned().collect()
        })
    }

    /// Whether a batch lies behind a record at which its partition stands still: it must not pass, and will be read again.
    pub fn holds_back(&self, origin: &Origin) -> bool {
        let state = self.lock();
        state.epoch == origin.epoch
            && state.pauses.get(&origin.partition).is_some_and(|pause| pause.offset < origin.first)
    }

    /// A record was judged that cannot be processed. `ours`: this instance does the duties of the partition.
    pub fn meet(&self, origin: &Origin, offset: i64, kind: Kind, ours: bool) -> Meeting {
        self.change(|state| {
            if origin.epoch != state.epoch {
                // The log is gone, and the batch with it.
                return Meeting::Stand { letter: None };
            }
            let partition = origin.partition;
            let before = state.take_pause(partition, offset);
            let answer = before.as_ref().and_then(|pause| pause.answer);
            let mut letter = before.as_ref().and_then(|pause| pause.letter.clone());
            let decided = state.decided.entry(partition).or_default();
            if answer == Some(Answer::SetAside) {
                decided.insert(offset, letter.clone());
                while decided.len() > REMEMBERED {
                    decided.pop_first();
                }
            }
            if let Some(letter) = decided.get(&offset) {
                let has_letter = letter.as_ref().is_some_and(|landed| landed.load(Ordering::Acquire));
                return Meeting::SetAside { has_letter };
            }
            let due = (ours && letter.is_none()).then(Landed::default);
            letter = letter.or_else(|| due.clone());
            state.meetings += 1;
            let since = before.map_or_else(Instant::now, |pause| pause.since);
            let meeting = state.meetings;
            state
                .pauses
                .insert(partition, Pause { partition, offset, kind, ours, since, answer: None, meeting, letter });
            Meeting::Stand { letter: due }
        })
    }

    /// Everything of `origin` has passed.
    pub fn passed(&self, origin: &Origin) {
        let behind = |partition: i32, offset: i64| partition == origin.partition && offset < origin.next;
        let reached = |state: &State| {
            state.epoch == origin.epoch
                && (state.pauses.values().any(|pause| behind(pause.partition, pause.offset))
                    || state.further_on.keys().any(|(partition, offset)| behind(*partition, *offset)))
        };
        if reached(&self.lock()) {
            self.change(|state| {
                state.pauses.retain(|partition, pause| !behind(*partition, pause.offset));
                state.further_on.retain(|(partition, offset), _| !behind(*partition, *offset));
            });
        }
    }

    /// Where ingest stands still.
    pub fn all(&self) -> Vec<Pause> {
        self.lock().pauses.values().cloned().collect()
    }

    /// Who decides has changed.
    pub fn set_ours(&self, partition: i32, ours: bool) {
        self.change(|state| {
            if let Some(pause) = state.pauses.get_mut(&partition) {
                pause.ours = ours;
            }
        });
    }

    /// The operator's answer to all records that wait for it, or only to the one at a partition and offset. Answers which
    /// they are.
    pub fn answer(&self, answer: Answer, only: Option<(i32, i64)>) -> Vec<Pause> {
        self.change(|state| {
            let asked = |pause: &Pause| only.is_none_or(|only| only == (pause.partition, pause.offset));
            let waiting =
                state.pauses.values_mut().filter(|pause| pause.ours && pause.answer.is_none() && asked(pause));
            waiting.map(|pause| pause.decide(answer)).collect()
        })
    }

    /// Judges the record again at which a partition stands still.
    pub fn retry(&self, partition: i32) {
        self.change(|state| {
            if let Some(pause) = state.pauses.get_mut(&partition).filter(|pause| pause.answer.is_none()) {
                pause.decide(Answer::Retry);
            }
        });
    }

    /// The group has committed a partition up to `next`: what its owner has passed need not be waited for.
    pub fn owner_passed(&self, partition: i32, next: i64) {
        self.change(|state| {
            let waits = |pause: &&mut Pause| !pause.ours && pause.answer.is_none() && pause.offset < next;
            if let Some(pause) = state.pauses.get_mut(&partition).filter(waits) {
                pause.decide(Answer::SetAside);
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.version.fetch_add(1, Ordering::Release);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The pause at a record. Another one of the partition makes room for it.
    fn take_pause(&mut self, partition: i32, offset: i64) -> Option<Pause> {
        match self.pauses.remove(&partition) {
            Some(pause) if pause.offset == offset => return Some(pause),
            Some(pause) if self.further_on.len() < REMEMBERED => {
                self.further_on.insert((partition, pause.offset), pause);
            }
            _ => {}
        }
        self.further_on.remove(&(partition, offset))
    }
}

impl Pause {
    fn decide(&mut self, answer: Answer) -> Self {
        self.answer = Some(answer);
        self.clone()
    }

    /// Whether the reader must not read on.
    pub const fn stands(&self) -> bool {
        self.answer.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::InvalidProtobuf;

    fn origin(first: i64, next: i64) -> Origin {
        Origin { epoch: 1, partition: 2, first, next }
    }

    #[test]
    fn what_was_decided_at_a_record_outlives_one_that_is_met_before_it() {
        let pauses = table();
        let letter = stand(&pauses, true).expect("a letter is due");
        letter.store(true, Ordering::Release);
        pauses.answer(Answer::SetAside, None);
        assert!(matches!(pauses.meet(&origin(0, 10), 3, KIND, true), Meeting::Stand { letter: Some(_) }));
        pauses.answer(Answer::SetAside, None);
        assert!(matches!(pauses.meet(&origin(0, 10), 3, KIND, true), Meeting::SetAside { has_letter: false }));
        assert!(matches!(pauses.meet(&origin(0, 10), 7, KIND, true), Meeting::SetAside { has_letter: true }));
        pauses.passed(&origin(0, 10));
        assert!(pauses.lock().further_on.is_empty() && pauses.all().is_empty());
    }

    #[test]
    fn a_record_that_stands_further_on_gets_no_second_letter() {
        let pauses = table();
        assert!(stand(&pauses, true).is_some());
        pauses.meet(&origin(0, 10), 3, KIND, true);
        assert!(stand(&pauses, true).is_none(), "it was written when the record was met first");
    }

    fn table() -> Pauses {
        let pauses = Pauses::default();
        pauses.begin(1, std::iter::empty());
        pauses
    }

    /// Meets the record at offset 7; whether a letter is due.
    fn stand(pauses: &Pauses, ours: bool) -> Option<Landed> {
        match pauses.meet(&origin(0, 10), 7, KIND, ours) {
            Meeting::Stand { letter } => letter,
            Meeting::SetAside { .. } => panic!("it has to stand"),
        }
    }

    #[test]
    fn nothing_behind_the_record_passes_until_it_was_judged_again() {
        let pauses = table();
        assert!(stand(&pauses, true).is_some());
        assert!(pauses.holds_back(&origin(10, 20)) && pauses.holds_back(&origin(8, 9)));
        assert!(!pauses.holds_back(&origin(7, 20)) && !pauses.holds_back(&origin(0, 20)));
        assert!(!pauses.holds_back(&Origin { partition: 1, ..origin(10, 20) }));
        assert_eq!(pauses.answer(Answer::Retry, None).len(), 1);
        assert!(pauses.holds_back(&origin(10, 20)), "what is still on its way");
        pauses.passed(&origin(0, 7));
        assert!(pauses.holds_back(&origin(10, 20)));
        pauses.passed(&origin(7, 20));
        assert!(!pauses.holds_back(&origin(20, 30)) && pauses.all().is_empty());
    }

    #[test]
    fn a_retry_that_fails_stands_again_without_a_second_letter() {
        let pauses = table();
        stand(&pauses, true);
        let first = pauses.all().remove(0);
        pauses.answer(Answer::Retry, None);
        assert!(stand(&pauses, true).is_none());
        let second = pauses.all().remove(0);
        assert!(second.stands() && second.meeting != first.meeting);
        assert_eq!(second.since, first.since);
    }

    #[test]
    fn a_record_is_set_aside_once_it_is_decided_and_writes_a_letter_only_if_none_has_landed() {
        for landed in [false, true] {
            let pauses = table();
            stand(&pauses, true).unwrap().store(landed, Ordering::Release);
            pauses.answer(Answer::SetAside, None);
            for _ in 0..2 {
                // Also when the duties move and the record is read once more.
                let met = pauses.meet(&origin(7, 9), 7, KIND, true);
                assert!(matches!(met, Meeting::SetAside { has_letter } if has_letter == landed));
            }
            assert!(pauses.all().is_empty());
            assert!(matches!(pauses.meet(&origin(7, 9), 8, KIND, true), Meeting::Stand { letter: Some(_) }));
        }
    }

    #[test]
    fn an_answer_is_for_what_waits_for_this_operator() {
        let pauses = table();
        assert!(pauses.answer(Answer::Retry, None).is_empty());
        stand(&pauses, false);
        assert!(pauses.answer(Answer::SetAside, None).is_empty(), "the owner decides");
        pauses.set_ours(2, true);
        assert!(pauses.answer(Answer::SetAside, Some((2, 8))).is_empty(), "another record");
        assert_eq!(pauses.answer(Answer::SetAside, Some((2, 7))).len(), 1);
        assert!(pauses.answer(Answer::Retry, None).is_empty(), "answered");
    }

    #[test]
    fn without_the_duty_the_owners_commit_decides() {
        let pauses = table();
        assert!(stand(&pauses, false).is_none(), "the owner writes the letter");
        pauses.owner_passed(2, 7);
        assert!(pauses.all()[0].stands());
        pauses.owner_passed(2, 8);
        assert!(matches!(pauses.meet(&origin(7, 9), 7, KIND, false), Meeting::SetAside { .. }));
        // What becomes ours is judged again, and then has a letter.
        let pauses = table();
        stand(&pauses, false);
        pauses.retry(2);
        assert!(stand(&pauses, true).is_some());
        pauses.owner_passed(2, 100);
        assert!(pauses.all()[0].stands());
    }

    #[test]
    fn a_new_reader_meets_the_record_again_and_a_new_log_forgets_it() {
        let pauses = table();
        stand(&pauses, true);
        assert_eq!(pauses.begin(1, [(1, 9), (2, 3)].into_iter()).len(), 1);
        assert!(!pauses.all()[0].stands() && pauses.holds_back(&origin(9, 10)));
        assert!(stand(&pauses, true).is_none());
        assert!(pauses.begin(1, [(2, 8)].into_iter()).is_empty(), "it will never come by");
        let before = pauses.version();
        stand(&pauses, true);
        assert_ne!(pauses.version(), before);
        assert!(pauses.begin(2, [(2, 0)].into_iter()).is_empty());
        stand(&pauses, true);
        assert!(pauses.all().is_empty(), "of the old log");
    }
}
