//! A set of offsets as disjoint ranges: what is done, in whatever order it came. It must not know what was done.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch, from start to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    /// None.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds `[start, end)` and merges it with its neighbours.
    pub fn add(&mut self, mut start: i64, mut end: i64) {
        if start >= end {
            return;
        }
        if let Some((before, before_end)) = self.0.range(..=start).next_back().map(|(s, e)| (*s, *e))
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((next, next_end)) = self.0.range(start..=end).next().map(|(s, e)| (*s, *e)) {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        self.0.insert(start, end);
    }

    /// Takes the range out that begins at `start`; answers its end.
    pub fn take(&mut self, start: i64) -> Option<i64> {
        self.0.remove(&start)
    }

    /// What of `[start, end)` is not there, ascending.
    pub fn missing(&self, start: i64, end: i64) -> Vec<Range<i64>> {
        let before = self.0.range(..=start).next_back().map_or(start, |(_, before_end)| start.max(*before_end));
        let mut missing = Vec::new();
        let mut from = before;
        for (next, next_end) in self.0.range(start..end.max(start)) {
            if from < *next {
                missing.push(from..*next);
            }
            from = from.max(*next_end);
        }
        if from < end {
            missing.push(from..end);
        }
        missing
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_ranges_add_and_miss_nothing() {
        let mut ranges = Ranges::new();
        for (start, end) in [(9, 2), (i64::MAX, i64::MIN), (7, 7)] {
            ranges.add(start, end);
            assert_eq!(ranges.missing(start, end), []);
        }
        assert_eq!(ranges, Ranges::new());
        ranges.add(i64::MIN, i64::MAX);
        assert_eq!(ranges.missing(i64::MIN, i64::MAX), []);
    }

    proptest! {
        /// Against the plain set.
        #[test]
        fn what_was_added_is_there_and_the_rest_is_missing(
            added in prop::collection::vec((0..60_i64, 0..12_i64), 0..40),
            asked in prop::collection::vec((0..80_i64, 0..20_i64), 1..20),
        ) {
            let (mut ranges, mut model) = (Ranges::new(), BTreeSet::new());
            for (start, len) in added {
                ranges.add(start, start + len);
                model.extend(start..start + len);
            }
            let listed: Vec<_> = ranges.iter().collect();
            prop_assert!(listed.iter().all(|(start, end)| start < end));
            prop_assert!(listed.windows(2).all(|pair| pair[0].1 < pair[1].0), "neighbours are merged");
            prop_assert_eq!(listed.iter().flat_map(|(start, end)| *start..*end).collect::<BTreeSet<_>>(), model.clone());
            for (start, len) in asked {
                let missing: Vec<i64> = ranges.missing(start, start + len).into_iter().flatten().collect();
                let expected: Vec<i64> = (start..start + len).filter(|offset| !model.contains(offset)).collect();
                prop_assert_eq!(missing, expected);
            }
        }
    }
}
