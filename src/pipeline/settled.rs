//! The settled table: which offsets of the owned partitions have all their duties done, and so how far may be committed.
//!
//! Reports come in any order, twice, late, and from terms that are over; the prefix moves only over offsets that were
//! reported in the current epoch and term. It must not know Kafka or who reports.

use std::collections::BTreeMap;

use super::ranges::Ranges;
use super::record::Origin;

/// The settled offsets of every owned partition, in one epoch.
#[derive(Debug, Default)]
pub struct SettledTable {
    epoch: u64,
    duties: BTreeMap<i32, Duty>,
}

#[derive(Debug)]
struct Duty {
    term: u64,
    /// End of the contiguous settled range; unknown until the duty has begun.
    prefix: Option<i64>,
    /// Settled ranges beyond the prefix.
    ahead: Ranges,
}

impl SettledTable {
    /// An empty table in epoch 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts over in another epoch: nothing is owned. The same epoch again changes nothing.
    pub fn open_epoch(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.duties.clear();
        }
    }

    /// Takes the duties of a partition under a new term; whatever an older term had is dropped.
    pub fn own(&mut self, partition: i32, term: u64) {
        self.duties.insert(partition, Duty { term, prefix: None, ahead: Ranges::new() });
    }

    /// Says from which offset the duties of this term count. False when the term is not the current one or has begun.
    pub fn begin(&mut self, partition: i32, term: u64, from: i64) -> bool {
        match self.duties.get_mut(&partition) {
            Some(duty) if duty.term == term && duty.prefix.is_none() => {
                duty.prefix = Some(from);
                true
            }
            _ => false,
        }
    }

    /// Gives the duties of a partition up; answers how far they were settled.
    pub fn disown(&mut self, partition: i32) -> Option<i64> {
        self.duties.remove(&partition).and_then(|duty| duty.prefix)
    }

    /// Takes a report: the range of `origin` without the offsets in `except` is settled under `term`. Answers the new
    /// prefix when it moved; reports of other epochs and terms change nothing.
    pub fn settle(&mut self, origin: &Origin, except: &[i64], term: u64) -> Option<i64> {
        if origin.epoch != self.epoch {
            return None;
        }
        let duty = self.duties.get_mut(&origin.partition).filter(|duty| duty.term == term)?;
        let before = duty.prefix?;
        let mut except: Vec<i64> =
            except.iter().copied().filter(|offset| (origin.first..origin.next).contains(offset)).collect();
        except.sort_unstable();
        let mut start = origin.first;
        for hole in except {
            duty.add(start, hole);
            start = hole.saturating_add(1);
        }
        duty.add(start, origin.next);
        duty.prefix.filter(|prefix| *prefix > before)
    }

    /// How far a partition is settled, when its duties have begun.
    pub fn prefix(&self, partition: i32) -> Option<i64> {
        self.duties.get(&partition)?.prefix
    }

    /// The current term of a partition.
    pub fn term(&self, partition: i32) -> Option<u64> {
        self.duties.get(&partition).map(|duty| duty.term)
    }

    /// All owned partitions whose duties have begun, with their prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (i32, i64)> {
        self.duties.iter().filter_map(|(partition, duty)| Some((*partition, duty.prefix?)))
    }

    /// All owned partitions.
    pub fn owned(&self) -> impl Iterator<Item = i32> {
        self.duties.keys().copied()
    }
}

impl Duty {
    /// Adds `[start, end)` and moves the prefix.
    fn add(&mut self, start: i64, end: i64) {
        let Some(prefix) = self.prefix else { return };
        self.ahead.add(start.max(prefix), end);
        if let Some(end) = self.ahead.take(prefix) {
            self.prefix = Some(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn origin(epoch: u64, partition: i32, first: i64, next: i64) -> Origin {
        Origin { epoch, partition, first, next }
    }

    fn begun(from: i64) -> SettledTable {
        let mut table = SettledTable::new();
        table.open_epoch(1);
        table.own(0, 7);
        assert!(table.begin(0, 7, from));
        table
    }

    /// What the table's memory grows with.
    fn ranges_ahead(table: &SettledTable) -> usize {
        table.duties.values().map(|duty| duty.ahead.iter().len()).sum()
    }

    #[test]
    fn a_held_offset_stops_the_prefix_until_it_is_settled_itself() {
        let mut table = begun(10);
        assert_eq!(table.settle(&origin(1, 0, 10, 20), &[15], 7), Some(15));
        assert_eq!(table.settle(&origin(1, 0, 20, 30), &[], 7), None);
        assert_eq!(ranges_ahead(&table), 1, "neighbours are merged");
        assert_eq!(table.settle(&origin(1, 0, 15, 16), &[], 7), Some(30));
        assert_eq!(ranges_ahead(&table), 0);
    }

    #[test]
    fn reports_of_another_epoch_term_or_partition_change_nothing() {
        let mut table = begun(0);
        for (report, term) in [(origin(0, 0, 0, 5), 7), (origin(1, 0, 0, 5), 6), (origin(1, 1, 0, 5), 7)] {
            assert_eq!(table.settle(&report, &[], term), None);
        }
        table.own(0, 8);
        assert_eq!(table.settle(&origin(1, 0, 0, 5), &[], 8), None, "a term counts only once it has begun");
        assert!(!table.begin(0, 7, 0), "an old term cannot begin");
        assert!(table.begin(0, 8, 3) && !table.begin(0, 8, 0), "a term begins once");
        assert_eq!(table.settle(&origin(1, 0, 0, 5), &[], 8), Some(5));
        table.open_epoch(2);
        assert_eq!(table.prefix(0), None);
        assert_eq!(table.disown(0), None);
    }

    #[test]
    fn hostile_ranges_do_not_move_or_break_anything() {
        let mut table = begun(5);
        for (first, next) in [(9, 2), (i64::MAX, i64::MIN), (i64::MIN, 5), (7, 7)] {
            assert_eq!(table.settle(&origin(1, 0, first, next), &[i64::MIN, i64::MAX, 3, 3], 7), None);
        }
        assert_eq!(table.settle(&origin(1, 0, i64::MIN, i64::MAX), &[], 7), Some(i64::MAX));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Settle { first: i64, len: i64, except: Vec<i64>, term: u64 },
        Own,
        Disown,
        Epoch,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0..60_i64, 0..12_i64, prop::collection::vec(0..70_i64, 0..4), 0..2_u64)
                .prop_map(|(first, len, except, back)| Step::Settle { first, len, except, term: back }),
            1 => Just(Step::Own),
            1 => Just(Step::Disown),
            1 => Just(Step::Epoch),
        ]
    }

    proptest! {
        /// Against the plain model: the prefix is the first offset from the start of the term that nobody has settled.
        #[test]
        fn the_prefix_never_passes_an_unsettled_offset(steps in prop::collection::vec(step(), 1..120), from in 0..10_i64) {
            let mut table = SettledTable::new();
            let (mut epoch, mut term) = (1_u64, 1_u64);
            table.open_epoch(epoch);
            table.own(0, term);
            table.begin(0, term, from);
            let mut settled: Option<BTreeSet<i64>> = Some(BTreeSet::new());
            for step in steps {
                match step {
                    Step::Settle { first, len, except, term: back } => {
                        let reported = term - back.min(term);
                        let moved = table.settle(&origin(epoch, 0, first, first + len), &except, reported);
                        if let (Some(model), true) = (&mut settled, reported == term) {
                            model.extend((first..first + len).filter(|offset| !except.contains(offset)));
                        } else {
                            prop_assert_eq!(moved, None);
                        }
                    }
                    Step::Own => {
                        term += 1;
                        table.own(0, term);
                        table.begin(0, term, from);
                        settled = Some(BTreeSet::new());
                    }
                    Step::Disown => {
                        table.disown(0);
                        settled = None;
                    }
                    Step::Epoch => {
                        epoch += 1;
                        table.open_epoch(epoch);
                        settled = None;
                    }
                }
                let expected = settled.as_ref().map(|model| (from..).find(|offset| !model.contains(offset)).unwrap_or(from));
                prop_assert_eq!(table.prefix(0), expected);
                for (start, end) in table.duties.values().flat_map(|duty| duty.ahead.iter()) {
                    prop_assert!(start < end && Some(start) > expected);
                }
            }
        }
    }
}
