//! Where a session begins: the client's request and what is known of the log in, one position per partition out.
//!
//! It must not know how positions are learned or sent.

use super::manual_reset::NamedEpoch;
use crate::wire::control::{Begin, From, ResetReason, Resume, Unlisted};

/// What is known of a partition. Offsets are "next" positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The partition.
    pub partition: i32,
    /// First offset that is kept, in whichever tier.
    pub oldest: i64,
    /// First offset in the memory window.
    pub low: i64,
    /// End of the memory window.
    pub next: i64,
    /// The end of the log as far as known: at least [`Self::next`].
    pub end: i64,
    /// First offset that a reset by hand has left visible.
    pub floor: i64,
}

/// The answer to a `hello` or `resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// One per known partition, ascending.
    pub begins: Vec<Begin>,
    /// Cursors that could not be honoured, and where the partition begins instead.
    pub resets: Vec<(i32, ResetReason, i64)>,
    /// Partitions that begin at what is kept rather than at an offset of the client: retention costs them nothing.
    pub oldest: Vec<i32>,
}

/// Whether the client is further than what is known of the log. Another instance may have shown it more than this one has
/// heard of, so the log has to be asked before that is believed.
pub fn is_ahead(resume: &Resume, same_epoch: bool, known: &[Known]) -> bool {
    let ahead =
        |known: &Known| last_applied(resume, known.partition).is_some_and(|last| last >= known.end.max(known.next));
    resume.from == From::Cursor && same_epoch && known.iter().any(ahead)
}

/// Where the client goes on in partitions that are not known. The topic may have gained them a moment ago, and another
/// instance have heard of them first.
pub fn unknown(resume: &Resume, same_epoch: bool, known: &[Known]) -> Vec<(i32, i64)> {
    if resume.from != From::Cursor || !same_epoch {
        return Vec::new();
    }
    let is_unknown = |(partition, _): &&(i32, i64)| known.iter().all(|known| known.partition != *partition);
    let next = |(partition, last): &(i32, i64)| (*partition, last.saturating_add(1));
    resume.last_applied.iter().filter(is_unknown).map(next).collect()
}

/// What is known, once the log was asked where it ends.
#[must_use]
pub fn with_ends(known: &[Known], ends: &[(i32, i64)]) -> Vec<Known> {
    let end = |partition| ends.iter().find(|(of, _)| *of == partition).map_or(0, |(_, end)| *end);
    known.iter().map(|known| Known { end: known.end.max(end(known.partition)), ..*known }).collect()
}

fn last_applied(resume: &Resume, partition: i32) -> Option<i64> {
    let index = resume.last_applied.binary_search_by_key(&partition, |(partition, _)| *partition).ok()?;
    resume.last_applied.get(index).map(|(_, last)| *last)
}

/// Decides where each partition begins.
///
/// `epoch` is the one that the cursor names: offsets of another log mean nothing in this one. `at_time` has the
/// first offset of each partition at the time that was asked for; a partition that it does not list begins at the end.
pub fn decide(resume: &Resume, epoch: NamedEpoch, at_time: &[(i32, i64)], known: &[Known]) -> Start {
    let mut start = Start { begins: Vec::with_capacity(known.len()), resets: Vec::new(), oldest: Vec::new() };
    for known in known {
        // Below the end at the start of the service lies history, even while the service is still reading it.
        let latest = known.end.max(known.next);
        let listed = last_applied(resume, known.partition).map(|last| last.saturating_add(1));
        let from = match (resume.from, listed) {
            (From::Latest, _) => latest,
            (From::Earliest, _) => start.at_oldest(known),
            // Where threads go on, their records tell.
            (From::Cursor, _) if resume.threads.is_some() => start.at_oldest(known),
            (From::Time(_), _) => {
                let found = at_time.iter().find(|(partition, _)| *partition == known.partition);
                found.map_or(latest, |(_, offset)| (*offset).max(known.floor).min(latest))
            }
            (From::Cursor, _) if epoch != NamedEpoch::Current => {
                let oldest = start.at_oldest(known);
                let reason = match epoch {
                    NamedEpoch::Other => ResetReason::TopicRecreated,
                    _ => ResetReason::ManualReset,
                };
                start.resets.push((known.partition, reason, oldest));
                oldest
            }
            // Of a client that names no epoch.
            (From::Cursor, Some(cursor)) if cursor < known.floor => {
                start.resets.push((known.partition, ResetReason::ManualReset, known.floor));
                known.floor
            }
            (From::Cursor, Some(cursor)) if cursor > latest => {
                start.resets.push((known.partition, ResetReason::BeyondEnd, latest));
                latest
            }
            (From::Cursor, Some(cursor)) => cursor,
            (From::Cursor, None) => match resume.unlisted {
                Unlisted::Earliest => start.at_oldest(known),
                Unlisted::Latest => latest,
            },
        };
        if matches!(resume.from, From::Time(_)) {
            start.oldest.push(known.partition);
        }
        start.begins.push(Begin { partition: known.partition, from, low: known.low, next: known.next });
    }
    start
}

impl Start {
    fn at_oldest(&mut self, known: &Known) -> i64 {
        self.oldest.push(known.partition);
        known.oldest.min(known.low).max(known.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::filter::FilterChange;

    const KNOWN: Known = Known { partition: 0, oldest: 40, low: 100, next: 200, end: 200, floor: 0 };

    fn request(from: From, last: Option<i64>, unlisted: Unlisted) -> Resume {
        let last_applied = last.map(|last| (0, last)).into_iter().collect();
        Resume { from, last_applied, threads: None, unlisted, epoch: None, client: None, filter: FilterChange::Keep }
    }

    #[test]
    fn every_strategy_at_every_edge() {
        use Unlisted::{Earliest, Latest};
        let beyond = Some(ResetReason::BeyondEnd);
        let table = [
            (From::Latest, None, Earliest, 200, None),
            (From::Earliest, None, Earliest, 40, None),
            (From::Cursor, None, Earliest, 40, None),
            (From::Time(5), None, Earliest, 77, None),
            (From::Cursor, None, Latest, 200, None),
            // Below what is kept: honoured here, the store names the loss.
            (From::Cursor, Some(0), Earliest, 1, None),
            (From::Cursor, Some(98), Earliest, 99, None),
            (From::Cursor, Some(99), Earliest, 100, None),
            (From::Cursor, Some(150), Latest, 151, None),
            (From::Cursor, Some(199), Earliest, 200, None),
            (From::Cursor, Some(200), Earliest, 200, beyond),
            (From::Cursor, Some(i64::MAX - 1), Earliest, 200, beyond),
        ];
        for (from, last, unlisted, want, reset) in table {
            let start = decide(&request(from, last, unlisted), NamedEpoch::Current, &[(0, 77)], &[KNOWN]);
            assert_eq!(start.begins[0].from, want, "{from:?} {last:?} {unlisted:?}");
            assert_eq!(start.resets.first().map(|(_, reason, _)| *reason), reset, "{from:?} {last:?}");
            assert_eq!(is_ahead(&request(from, last, unlisted), true, &[KNOWN]), reset.is_some(), "{from:?} {last:?}");
        }
    }

    #[test]
    fn a_partition_that_only_the_client_knows_is_noticed_where_its_cursor_means_something() {
        let of = |partition, from| Resume {
            last_applied: vec![(0, 150), (partition, 3)],
            ..request(from, None, Unlisted::Earliest)
        };
        let nothing = Vec::new();
        assert_eq!(unknown(&of(1, From::Cursor), true, &[KNOWN]), vec![(1, 4)]);
        assert!(!is_ahead(&of(1, From::Cursor), true, &[KNOWN]), "that is another question");
        assert_eq!(unknown(&request(From::Cursor, Some(150), Unlisted::Earliest), true, &[KNOWN]), nothing);
        assert_eq!(unknown(&of(1, From::Cursor), false, &[KNOWN]), nothing, "the cursor is of another log");
        assert_eq!(unknown(&of(1, From::Latest), true, &[KNOWN]), nothing, "the cursor is not asked for");
    }

    #[test]
    fn a_cursor_is_beyond_the_end_only_if_the_log_says_so() {
        let ahead = request(From::Cursor, Some(250), Unlisted::Earliest);
        for (end, begins, reset) in [(180, 200, true), (250, 250, true), (251, 251, false), (900, 251, false)] {
            let known = with_ends(&[KNOWN], &[(7, 5_000), (0, end)]);
            let start = decide(&ahead, NamedEpoch::Current, &[], &known);
            assert_eq!((start.begins[0].from, !start.resets.is_empty()), (begins, reset), "{end}");
        }
    }

    #[test]
    fn a_time_beyond_the_end_is_the_end() {
        let start =
            decide(&request(From::Time(5), None, Unlisted::Earliest), NamedEpoch::Current, &[(0, 900)], &[KNOWN]);
        assert_eq!((start.begins[0].from, start.oldest), (200, vec![0]));
        let start = decide(&request(From::Time(5), None, Unlisted::Earliest), NamedEpoch::Current, &[], &[KNOWN]);
        assert_eq!(start.begins[0].from, 200);
    }

    #[test]
    fn a_cursor_of_another_epoch_is_reset_and_never_reused() {
        let start = decide(&request(From::Cursor, Some(150), Unlisted::Latest), NamedEpoch::Other, &[], &[KNOWN]);
        assert_eq!(start.begins[0].from, 40);
        assert_eq!(start.resets, vec![(0, ResetReason::TopicRecreated, 40)]);
    }

    #[test]
    fn latest_is_the_end_of_the_log_while_the_service_still_reads_history() {
        let reading = Known { end: 5000, ..KNOWN };
        let start = decide(&request(From::Latest, None, Unlisted::Earliest), NamedEpoch::Current, &[], &[reading]);
        assert_eq!(start.begins[0].from, 5000);
        let start =
            decide(&request(From::Cursor, Some(4000), Unlisted::Earliest), NamedEpoch::Current, &[], &[reading]);
        assert_eq!((start.begins[0].from, start.resets.len()), (4001, 0));
    }

    #[test]
    fn what_a_reset_by_hand_hides_is_given_to_nobody() {
        use NamedEpoch::{AfterReset, BeforeReset, Current};
        // Below the window, inside it, and at the end of the log.
        for floor in [60, 150, 200] {
            let known = Known { floor, ..KNOWN };
            let manual = Some(ResetReason::ManualReset);
            for (from, last, epoch, begins, reset) in [
                (From::Latest, None, Current, 200, None),
                (From::Earliest, None, Current, floor, None),
                (From::Time(5), None, Current, floor.max(77), None),
                (From::Cursor, None, Current, floor, None),
                (From::Cursor, Some(10), Current, floor, manual),
                (From::Cursor, Some(floor - 1), Current, floor, None),
                (From::Cursor, Some(199), Current, 200, None),
                (From::Cursor, Some(199), BeforeReset, floor, manual),
                (From::Cursor, Some(199), AfterReset, floor, manual),
            ] {
                let start = decide(&request(from, last, Unlisted::Earliest), epoch, &[(0, 77)], &[known]);
                let told = start.resets.first().map(|(_, reason, next)| (*reason, *next));
                let found = (start.begins[0].from, told);
                assert_eq!(
                    found,
                    (begins, reset.map(|reason| (reason, begins))),
                    "{floor} {from:?} {last:?} {epoch:?}"
                );
            }
        }
    }
}
