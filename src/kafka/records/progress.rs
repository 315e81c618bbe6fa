//! How far each partition was read, and how far it is to be read. Pure.
//!
//! It must not know Kafka: positions and bounds come in, what they mean goes out.

use std::collections::BTreeMap;

use crate::kafka::watermarks::Watermarks;
use crate::pipeline::epoch::{Place, place};

/// Offsets that retention removed before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: i32,
    /// The first offset that is gone.
    pub from: i64,
    /// The offset after the last one that is gone.
    pub to: i64,
}

/// What a record is to who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// The next one.
    Wanted,
    /// Read before, or of a partition that is not read.
    Unwanted,
    /// Behind the end of what is read of its partition: nothing more of it is wanted.
    Behind,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    /// The offset that is read next.
    next: i64,
    /// Where reading ends; `None`: never.
    end: Option<i64>,
    /// Whether nothing lay behind what was read, when that was last heard.
    caught_up: bool,
}

impl Part {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// The partitions of a reader.
#[derive(Debug, Default)]
pub(super) struct Progress {
    parts: BTreeMap<i32, Part>,
    /// Partitions that are not done.
    open: usize,
}

impl Progress {
    /// Takes a partition in, or sets one back.
    pub(super) fn put(&mut self, partition: i32, next: i64, end: Option<i64>) {
        let part = Part { next, end, caught_up: false };
        self.open += usize::from(!part.is_done());
        if let Some(old) = self.parts.insert(partition, part) {
            self.open -= usize::from(!old.is_done());
        }
    }

    pub(super) fn has(&self, partition: i32) -> bool {
        self.parts.contains_key(&partition)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.parts.keys().copied()
    }

    /// Partitions that are still read, each with its position.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.parts.iter().filter(|(_, part)| !part.is_done()).map(|(&partition, part)| (partition, part.next))
    }

    /// Whether everything that was asked for was read.
    pub(super) fn is_done(&self) -> bool {
        self.open == 0 && self.parts.values().all(|part| part.end.is_some())
    }

    /// Whether nothing lay behind what was read, in all partitions.
    pub(super) fn is_caught_up(&self) -> bool {
        self.parts.values().all(|part| part.caught_up || part.is_done())
    }

    /// A record came.
    pub(super) fn take(&mut self, partition: i32, offset: i64) -> Take {
        let Some(part) = self.parts.get_mut(&partition) else { return Take::Unwanted };
        if part.is_done() {
            return Take::Behind;
        }
        if offset < part.next {
            return Take::Unwanted;
        }
        part.caught_up = false;
        if part.end.is_some_and(|end| offset >= end) {
            // The offsets before it hold no records: compaction took them, or they end transactions.
            part.next = part.end.unwrap_or(offset);
            self.open -= 1;
            return Take::Behind;
        }
        part.next = offset + 1;
        self.open -= usize::from(part.is_done());
        Take::Wanted
    }

    /// Everything up to `position` was read, and there is no more now. False: the log seems to end before what it had.
    pub(super) fn at_end(&mut self, partition: i32, position: Option<i64>) -> bool {
        let Some(part) = self.parts.get_mut(&partition) else { return true };
        if part.is_done() {
            return true;
        }
        part.caught_up = true;
        part.next = part.next.max(position.unwrap_or(part.next));
        if let Some(end) = part.end.filter(|end| part.next >= *end) {
            part.next = end;
            self.open -= 1;
        }
        part.end.is_none() || part.is_done()
    }

    /// Compares with the bounds that the log has now: passes over what retention has removed, and tells that. An error names
    /// partitions whose log ends before what it had: it is another one, or was cut.
    pub(super) fn compare(&mut self, marks: &[Watermarks]) -> Result<Vec<Gap>, Vec<i32>> {
        let mut gaps = Vec::new();
        let mut beyond = Vec::new();
        for mark in marks {
            let Some(part) = self.parts.get_mut(&mark.partition).filter(|part| !part.is_done()) else { continue };
            match place(part.next, mark.low, mark.high) {
                _ if part.end.is_some_and(|end| end > mark.high) => beyond.push(mark.partition),
                Place::Beyond => beyond.push(mark.partition),
                Place::Within => {}
                Place::Below => {
                    let to = part.end.map_or(mark.low, |end| end.min(mark.low));
                    gaps.push(Gap { partition: mark.partition, from: part.next, to });
                    part.next = to;
                    self.open -= usize::from(part.is_done());
                }
            }
        }
        if beyond.is_empty() { Ok(gaps) } else { Err(beyond) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(partition: i32, low: i64, high: i64) -> Watermarks {
        Watermarks { partition, low, high }
    }

    fn of(parts: &[(i32, i64, Option<i64>)]) -> Progress {
        let mut progress = Progress::default();
        parts.iter().for_each(|(partition, next, end)| progress.put(*partition, *next, *end));
        progress
    }

    #[test]
    fn reading_ends_with_the_last_record_of_the_last_partition() {
        let mut progress = of(&[(0, 5, Some(7)), (1, 0, Some(0)), (2, 3, Some(4))]);
        assert_eq!(progress.take(0, 5), Take::Wanted);
        assert_eq!((progress.take(0, 5), progress.take(0, 6)), (Take::Unwanted, Take::Wanted), "each comes once");
        assert!(!progress.is_done());
        assert_eq!(progress.take(2, 3), Take::Wanted);
        assert!(progress.is_done());
        assert_eq!(progress.take(0, 7), Take::Behind);
        assert_eq!(progress.take(9, 0), Take::Unwanted);
        assert!(Progress::default().is_done(), "nothing to read");
    }

    #[test]
    fn holes_at_the_end_do_not_keep_reading_from_ending() {
        // A record behind the end says that the last offsets before it hold none.
        let mut progress = of(&[(0, 0, Some(10))]);
        assert_eq!((progress.take(0, 4), progress.take(0, 12)), (Take::Wanted, Take::Behind));
        assert!(progress.is_done());
        // So does the end of the log.
        let mut progress = of(&[(0, 0, Some(10)), (1, 0, Some(1))]);
        assert!(progress.at_end(0, Some(10)) && !progress.is_done());
        assert!(progress.at_end(1, Some(3)) && progress.is_done());
    }

    #[test]
    fn an_end_that_lies_before_the_known_one_is_suspicious() {
        let mut progress = of(&[(0, 0, Some(10))]);
        assert!(!progress.at_end(0, Some(8)) && !progress.is_done());
        assert_eq!(progress.compare(&[mark(0, 0, 10)]), Ok(vec![]), "it was the leader's picture only");
        assert_eq!(progress.compare(&[mark(0, 0, 9)]), Err(vec![0]));
        assert!(progress.at_end(0, Some(10)) && progress.is_done());
    }

    #[test]
    fn following_never_ends_and_knows_when_it_has_caught_up() {
        let mut progress = of(&[(0, 5, None), (1, 0, None)]);
        assert!(!progress.is_caught_up());
        assert!(progress.at_end(0, Some(5)) && progress.at_end(1, None));
        assert!(progress.is_caught_up() && !progress.is_done());
        assert_eq!(progress.take(0, i64::MAX - 1), Take::Wanted);
        assert!(!progress.is_caught_up());
        assert_eq!(progress.positions().collect::<Vec<_>>(), vec![(0, i64::MAX), (1, 0)]);
    }

    #[test]
    fn what_retention_passed_is_a_gap_and_what_went_back_is_named() {
        let mut progress = of(&[(0, 5, Some(20)), (1, 5, Some(20)), (2, 5, None), (3, 0, Some(30))]);
        let gap = |partition, from, to| Gap { partition, from, to };
        let marks = [mark(0, 9, 25), mark(1, 24, 25), mark(2, 5, 9), mark(3, 0, 30), mark(7, 0, 0)];
        assert_eq!(progress.compare(&marks), Ok(vec![gap(0, 5, 9), gap(1, 5, 20)]));
        assert_eq!(progress.positions().collect::<Vec<_>>(), vec![(0, 9), (2, 5), (3, 0)], "1 has nothing left");
        assert_eq!(progress.compare(&[mark(2, 0, 4), mark(0, 9, 20)]), Err(vec![2]));
    }

    #[test]
    fn a_partition_that_begins_anew_is_counted_once() {
        let mut progress = of(&[(0, 5, Some(6))]);
        progress.put(0, 0, Some(2));
        assert_eq!((progress.take(0, 0), progress.take(0, 1)), (Take::Wanted, Take::Wanted));
        assert!(progress.is_done());
    }
}
