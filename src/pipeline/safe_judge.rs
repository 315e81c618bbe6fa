//! The judge, made safe: a record that makes it panic is an outcome of that record, and the next one meets a fresh judge.
//!
//! It must not know what becomes of a record.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::decode::{Explanation, Judge, JudgeSettings, Kind, Verdict};
use super::sequence::SequenceItem;

/// Judges records one after the other.
#[derive(Debug)]
pub struct SafeJudge {
    judge: Judge,
    settings: JudgeSettings,
    hash_seed: u64,
}

impl SafeJudge {
    /// A fresh judge; see [`Judge::new`].
    pub fn new(settings: JudgeSettings, hash_seed: u64) -> Self {
        Self { judge: Judge::new(settings.clone(), hash_seed), settings, hash_seed }
    }

    /// The verdict on a value; what the sequence check needs of it is appended to `items`.
    pub fn judge(&mut self, value: Option<&[u8]>, items: &mut Vec<SequenceItem>) -> Verdict {
        let items_start = items.len();
        let fresh = || Judge::new(self.settings.clone(), self.hash_seed);
        let sabotaged = self.settings.sabotaged_value.is_some() && value == self.settings.sabotaged_value;
        let judge = |judge: &mut Judge| {
            assert!(!sabotaged, "judging was told to fail at this value");
            judge.judge(value, items)
        };
        unwinding(&mut self.judge, fresh, judge).unwrap_or_else(|| {
            items.truncate(items_start);
            Verdict::Unprocessable(Kind::Internal)
        })
    }

    /// See [`Judge::take_redacted`].
    pub fn take_redacted(&mut self) -> Option<Vec<u8>> {
        self.judge.take_redacted()
    }

    /// What can be said about a value that was judged to be of `kind`.
    pub fn explain(&mut self, value: Option<&[u8]>, kind: Kind) -> Explanation {
        let internal =
            || Explanation { error: "judging the record failed unexpectedly".into(), ..Explanation::default() };
        if kind == Kind::Internal {
            return internal();
        }
        let fresh = || Judge::new(self.settings.clone(), self.hash_seed);
        unwinding(&mut self.judge, fresh, |judge| judge.explain(value)).unwrap_or_else(internal)
    }
}

/// Runs `work`; after a panic the state is replaced by a fresh one and there is no result.
fn unwinding<S, T>(state: &mut S, fresh: impl FnOnce() -> S, work: impl FnOnce(&mut S) -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(|| work(state)));
    if result.is_err() {
        *state = fresh();
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_judging_ends_with_that_record_and_a_fresh_judge() {
        let mut state = 1;
        assert_eq!(unwinding(&mut state, || 0, |state| *state + 1), Some(2));
        assert_eq!(unwinding(&mut state, || 7, |_| -> i32 { panic!("injected") }), None);
        assert_eq!(state, 7);
    }
}
