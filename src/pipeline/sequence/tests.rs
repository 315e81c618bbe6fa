//! The sequence check against its rules, against a naive model with unbounded memory, and against floods of threads.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy;

use super::line::{RESTART_RUN, WINDOW};
use super::*;

fn item(thread: u128, sequence: u64) -> SequenceItem {
    SequenceItem::one(thread, sequence, 0)
}

fn check(tracker: &mut Tracker, item: &SequenceItem) -> Option<Finding> {
    let mut found = None;
    tracker.check(item, |_, finding| found = Some(finding));
    found
}

fn check_all(sequences: impl IntoIterator<Item = u64>) -> Vec<Finding> {
    let mut tracker = Tracker::default();
    sequences.into_iter().filter_map(|sequence| check(&mut tracker, &item(7, sequence))).collect()
}

/// Findings as text: `gap+size`, `dup`, `late`, `restart`, each with the number that came.
fn told(sequences: impl IntoIterator<Item = u64>) -> String {
    let texts = check_all(sequences).into_iter().map(|finding| match finding {
        Finding::Gap { expected, found } => format!("gap{found}+{}", found - expected),
        Finding::Duplicate { found, .. } => format!("dup{found}"),
        Finding::Reorder { found, .. } => format!("late{found}"),
        Finding::ProducerRestart { found, .. } => format!("restart{found}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_corpus_is_told_as_the_rules_say() {
    let corpus: &[(&[u64], &str)] = &[
        (&[1, 2, 3], ""),
        (&[4711, 4712], ""),
        (&[1, 2, 4], "gap4+1"),
        (&[1, 2, 5], "gap5+2"),
        (&[1, 10_002], "gap10002+10000"),
        (&[1, 1], "dup1"),
        (&[5, 6, 6, 7], "dup6"),
        (&[1, 3, 2], "gap3+1 late2"),
        (&[1, 3, 2, 2, 4], "gap3+1 late2 dup2"),
        (&[1, 5, 4, 3, 2, 6], "gap5+3 late4 late3 late2"),
        (&[1, 5, 2, 3, 4, 6], "gap5+3 late2 late3 late4"),
        (&[1, 2, 3, 2, 4], "dup2"),
        // A batch that was redelivered.
        (&[5, 6, 7, 5, 6, 7, 8], "dup5 dup6 dup7"),
        (&[5, 6, 7, 6, 7, 8], "dup6 dup7"),
        // A baseline that came early.
        (&[2, 1, 3], "late1"),
        (&[5, 4, 3, 6], "late4 late3"),
        // Restarts.
        (&[1, 2, 1, 2, 3, 4], "restart1"),
        (&[5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8], "restart1"),
        (&[5, 6, 7, 1, 1, 2], "restart1 dup1"),
        (&[5, 6, 7, 1, 3], "restart1 gap3+1"),
        (&[900, 901, 2, 3, 4, 5, 6], "late2 late3 restart4"),
        // The producer before flushes what it still had.
        (&[100, 101, 1, 102, 2, 103, 3, 3, 103, 4], "restart1 dup3 dup103"),
        (&[100, 101, 1, 101, 2], "restart1 dup101"),
        (&[100, 101, 1, 2, 105], "restart1 gap105+102"),
        // Old numbers, one by one.
        (&[500, 501, 300, 502, 17, 503], "late300 late17"),
        // Unsequenced.
        (&[0, 0, 5, 0, 6], ""),
        (&[u64::MAX, u64::MAX, u64::MAX - 1], "dup18446744073709551615 late18446744073709551614"),
    ];
    for (sequences, expected) in corpus {
        assert_eq!(told(sequences.iter().copied()), *expected, "{sequences:?}");
    }
}

#[test]
fn a_gap_names_what_was_expected_and_what_came() {
    assert_eq!(check_all([1, 2, 4]), [Finding::Gap { expected: 3, found: 4 }]);
    assert_eq!(check_all([1, 3, 2])[1], Finding::Reorder { expected: 4, found: 2 });
    assert_eq!(check_all([u64::MAX, 7])[0], Finding::Reorder { expected: u64::MAX, found: 7 });
}

#[test]
fn a_producer_that_begins_again_is_found_once_and_makes_no_storm() {
    for (first, last) in [(1, 2), (1, 100), (90, 100), (1, 5_000), (4_000, 5_000)] {
        for again in [1, 2, 50, 99, 100, 101, 10_000] {
            assert_eq!(told((first..=last).chain(1..=again)), "restart1", "{first}..={last}, then 1..={again}");
        }
    }
}

#[test]
fn a_restart_that_lost_its_beginning_is_found_soon_and_once() {
    for missed in 1..20 {
        let first = missed + 1;
        let expected = format!("late{first} late{} restart{}", first + 1, first + 2);
        assert_eq!(told((1..=1000).chain(first..=500)), expected);
    }
}

#[test]
fn a_long_redelivery_is_bounded_in_findings_and_never_a_gap() {
    for len in 1..200 {
        let redelivered = 501 - len..=500;
        let findings = check_all((1..=500).chain(redelivered).chain(501..=600));
        assert!((findings.len() as u64) < WINDOW + u64::from(RESTART_RUN), "{len}: {}", findings.len());
        assert!(findings.iter().all(|f| !matches!(f, Finding::Gap { .. })), "{len}");
        // Also when only a part comes again, before the stream goes on where it was.
        let part = 501 - len..=500 - len / 2;
        let findings = check_all((1..=500).chain(part).chain(501..=600));
        assert!(findings.iter().all(|f| !matches!(f, Finding::Gap { .. })), "{len}");
    }
}

#[test]
fn cold_start_in_the_middle_of_many_threads_finds_nothing() {
    let mut tracker = Tracker::default();
    for sequence in 500..510 {
        for thread in 0..100_u64 {
            assert_eq!(check(&mut tracker, &item(thread.into(), sequence + thread)), None);
        }
    }
    assert_eq!(tracker.tally(), Tally { started: 100, returned: 0, pruned: 0 });
}

#[test]
fn threads_are_judged_apart_however_they_are_mixed() {
    let mut tracker = Tracker::default();
    let findings: Vec<_> = [(1, 1), (2, 1), (1, 2), (3, 1), (2, 1), (1, 4), (3, 3), (3, 2)]
        .into_iter()
        .filter_map(|(thread, sequence)| Some((thread, check(&mut tracker, &item(thread, sequence))?)))
        .collect();
    assert_eq!(
        findings,
        [
            (2, Finding::Duplicate { expected: 2, found: 1 }),
            (1, Finding::Gap { expected: 3, found: 4 }),
            (3, Finding::Gap { expected: 2, found: 3 }),
            (3, Finding::Reorder { expected: 4, found: 2 }),
        ]
    );
}

#[test]
fn one_thread_too_many_forgets_a_batch_of_the_oldest() {
    let mut tracker = Tracker::default();
    let limits = Limits::default();
    for thread in 0..limits.threads as u128 {
        check(&mut tracker, &item(thread, 1));
    }
    check(&mut tracker, &item(0, 2));
    assert_eq!((tracker.tracked(), tracker.tally().pruned), (100_000, 0));
    check(&mut tracker, &item(u128::MAX, 1));
    assert_eq!((tracker.tracked(), tracker.remembered(), tracker.tally().pruned), (99_001, 1_000, 1_000));
    assert!(check(&mut tracker, &item(0, 4)).is_some(), "used lately: still tracked");
    assert!(check(&mut tracker, &item(1_001, 3)).is_some(), "not among the oldest thousand");
    assert_eq!(check(&mut tracker, &item(1_000, 9)), None, "forgotten: no false gap");
    assert_eq!(
        check(&mut tracker, &item(1_000, 11)),
        Some(Finding::Gap { expected: 10, found: 11 }),
        "and tracked again"
    );
    assert_eq!((tracker.tally().returned, tracker.tally().started), (1, 100_001));
}

#[test]
fn a_million_threads_leave_memory_level_and_a_steady_one_unharmed() {
    let mut tracker = Tracker::default();
    let mut memory = 0;
    for thread in 1..=1_000_000_u64 {
        // Spread as the real keys are: they are hashes.
        let key = u128::from(thread).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        assert_eq!(check(&mut tracker, &item(key, 40)), None);
        assert_eq!(check(&mut tracker, &item(0, thread)), None, "the steady one");
        if thread == 200_000 {
            memory = tracker.memory_bytes();
        }
    }
    let limits = Limits::default();
    assert!(tracker.tracked() <= limits.threads && tracker.remembered() == limits.remembered);
    assert!(tracker.memory_bytes() <= memory + memory / 50, "{} after {memory}", tracker.memory_bytes());
    assert_eq!(tracker.tally().started, 1_000_001);
}

#[test]
fn after_a_reset_every_thread_is_new() {
    let mut tracker = Tracker::new(Limits { threads: 2, prune_batch: 1, remembered: 1 });
    for thread in 0..3 {
        check(&mut tracker, &item(thread, 100));
    }
    tracker.reset();
    assert_eq!((tracker.tracked(), tracker.remembered()), (0, 0));
    assert_eq!(check(&mut tracker, &item(2, 1)), None);
}

/// The rules of one thread, with all numbers of a line remembered in a set.
#[derive(Default)]
struct Model {
    seen: BTreeSet<u64>,
    other: Option<u64>,
    run: Vec<u64>,
}

impl Model {
    fn check(&mut self, found: u64) -> Option<Finding> {
        let (Some(&high), Some(&floor)) = (self.seen.last(), self.seen.first()) else {
            self.seen.insert(found);
            return None;
        };
        let expected = high + 1;
        if found == expected || found > expected && self.other.is_none_or(|other| found != other && found != other + 1)
        {
            if self.other.is_some_and(|other| (expected..=found).contains(&other)) {
                self.other = None;
            }
            self.seen.insert(found);
            return (found > expected).then_some(Finding::Gap { expected, found });
        }
        if found == high || Some(found) == self.other {
            return Some(Finding::Duplicate { expected, found });
        }
        if self.other.is_some_and(|other| found == other + 1) {
            self.seen = BTreeSet::from([found]);
            self.other = Some(high);
            return None;
        }
        let recent = high - found < WINDOW;
        if recent && found + 1 == floor {
            self.seen.insert(found);
            return Some(Finding::Reorder { expected, found });
        }
        if found == 1 {
            return Some(self.restart(vec![1], expected));
        }
        if recent && found > floor {
            let new = self.seen.insert(found);
            return Some(if new {
                Finding::Reorder { expected, found }
            } else {
                Finding::Duplicate { expected, found }
            });
        }
        if recent && found == floor {
            return Some(Finding::Duplicate { expected, found });
        }
        if self.run.last().is_some_and(|last| last + 1 != found) {
            self.run.clear();
        }
        self.run.push(found);
        if self.run.len() == usize::from(RESTART_RUN) {
            let run = std::mem::take(&mut self.run);
            return Some(self.restart(run, expected));
        }
        Some(Finding::Reorder { expected, found })
    }

    fn restart(&mut self, line: Vec<u64>, expected: u64) -> Finding {
        self.other = self.seen.last().copied();
        let found = *line.last().expect("not empty");
        self.seen = line.into_iter().collect();
        self.run.clear();
        Finding::ProducerRestart { expected, found }
    }
}

/// Streams as producers make them: runs that go on, lose, repeat, come late or begin again.
fn streams() -> impl Strategy<Value = Vec<u64>> {
    let move_on = prop_oneof![
        8 => Just(1_i64),
        2 => 2..5_i64,
        2 => -5..=0_i64,
        1 => 60..70_i64,
        1 => -70..-60_i64,
        1 => -300..300_i64,
        1 => Just(i64::MIN),
    ];
    (1..200_u64, prop::collection::vec((move_on, 1..12_usize), 0..40)).prop_map(|(start, moves)| {
        let (mut stream, mut at) = (vec![start], start);
        for (by, then) in moves {
            at = if by == i64::MIN { 1 } else { at.saturating_add_signed(by).max(1) };
            stream.push(at);
            for _ in 0..then {
                at += 1;
                stream.push(at);
            }
        }
        stream
    })
}

proptest! {
    #[test]
    fn findings_equal_those_of_the_model(stream in streams()) {
        let mut model = Model::default();
        let mut tracker = Tracker::default();
        for (index, sequence) in stream.iter().enumerate() {
            let found = check(&mut tracker, &item(1, *sequence));
            prop_assert_eq!(found, model.check(*sequence), "at {} of {:?}", index, stream);
        }
    }

    #[test]
    fn any_numbers_at_all_are_judged(sequences in prop::collection::vec(prop_oneof![any::<u64>(), u64::MAX - 70..=u64::MAX, 0..70_u64], 0..200)) {
        check_all(sequences);
    }

    #[test]
    fn what_is_lost_is_exactly_what_the_gaps_add_up_to(first in 1..1000_u64, kept in prop::collection::vec(any::<bool>(), 1..300)) {
        let stream: Vec<_> = kept.iter().zip(first..).filter(|(kept, _)| **kept).map(|(_, sequence)| sequence).collect();
        let findings = check_all(stream.iter().copied());
        let missing: u64 = findings.iter().map(|finding| match finding {
            Finding::Gap { expected, found } => found - expected,
            other => panic!("{other:?}"),
        }).sum();
        let span = stream.last().map_or(0, |last| last - stream[0] + 1);
        prop_assert_eq!(missing, span - stream.len() as u64);
    }

    #[test]
    fn numbers_that_come_late_but_all_come_are_reorders_and_nothing_is_a_duplicate(
        jitter in prop::collection::vec(0..40_u64, 1..200),
    ) {
        let mut delayed: Vec<_> = jitter.iter().zip(2_u64..).map(|(late, sequence)| (sequence + late, sequence)).collect();
        delayed.sort_unstable();
        let stream: Vec<_> = std::iter::once(1).chain(delayed.into_iter().map(|(_, sequence)| sequence)).collect();
        let highest = stream.iter().scan(0, |high, sequence| Some(std::mem::replace(high, (*sequence).max(*high))));
        let late = stream.iter().zip(highest).filter(|(sequence, before)| *sequence < before).count();
        let findings = check_all(stream.iter().copied());
        let told = findings.iter().filter(|finding| matches!(finding, Finding::Reorder { .. })).count();
        prop_assert_eq!(told, late);
        prop_assert!(findings.iter().all(|f| matches!(f, Finding::Reorder { .. } | Finding::Gap { .. })), "{:?}", findings);
    }

    #[test]
    fn two_producers_at_once_are_one_restart(old in 100..500_u64, turns in prop::collection::vec(any::<bool>(), 0..90)) {
        let (mut old_next, mut new_next) = (old + 1, 2);
        let mixed = turns.into_iter().map(|is_old| {
            let next = if is_old { &mut old_next } else { &mut new_next };
            *next += 1;
            *next - 1
        });
        prop_assert_eq!(told((1..=old).chain([1]).chain(mixed)), "restart1");
    }

    #[test]
    fn bounds_hold_and_no_thread_is_lost_from_the_count(
        ids in prop::collection::vec(0..60_u128, 0..400),
        threads in 1..20_usize, prune_batch in 1..10_usize, remembered in 1..10_usize,
    ) {
        let mut tracker = Tracker::new(Limits { threads, prune_batch, remembered });
        let mut next: HashMap<u128, u64> = HashMap::new();
        for id in ids {
            let sequence = next.entry(id).or_insert(1);
            prop_assert_eq!(check(&mut tracker, &item(id, *sequence)), None, "complete threads have no findings, pruned or not");
            *sequence += 1;
            let Tally { started, returned, pruned } = tracker.tally();
            prop_assert!(tracker.tracked() <= threads && tracker.remembered() <= remembered);
            prop_assert_eq!(tracker.tracked() as u64, started + returned - pruned);
        }
    }
}
