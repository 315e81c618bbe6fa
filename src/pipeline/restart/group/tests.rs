//! The group against the promises of its strategies, and against a world that fails at random.

use proptest::prelude::{Just, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(5) };
const INTENSITY: Intensity = Intensity { max_restarts: 5, window: Duration::from_secs(60) };

/// Performs actions at once and notes them as text: `+child` started, `-child` stopped, `~ms` waited.
struct World {
    group: Group,
    now: Instant,
    generations: Vec<u64>,
    log: Vec<String>,
    /// Children that do not stop when told to.
    stubborn: Vec<usize>,
    waits: Vec<(usize, u64)>,
    exceeded: Vec<Exceeded>,
}

impl World {
    fn new(strategy: Strategy, policies: &[Policy]) -> Self {
        let group = Group::new(strategy, INTENSITY, BACKOFF, policies);
        let mut world = Self {
            group,
            now: Instant::now(),
            generations: vec![0; policies.len()],
            log: Vec::new(),
            stubborn: Vec::new(),
            waits: Vec::new(),
            exceeded: Vec::new(),
        };
        world.settle();
        world
    }

    fn permanent(strategy: Strategy, children: usize) -> Self {
        Self::new(strategy, &vec![Policy::Permanent; children])
    }

    fn settle(&mut self) {
        while let Some(action) = self.group.next(self.now, 1.0) {
            match action {
                Action::Start { child, generation, .. } => {
                    self.log.push(format!("+{child}"));
                    self.generations[child] = generation;
                    self.group.started(child);
                }
                Action::Stop { child, generation } => {
                    self.log.push(format!("-{child}"));
                    if !self.stubborn.contains(&child) {
                        self.gone(child, generation);
                    }
                }
                Action::Wait { unit, round, delay } => {
                    self.log.push(format!("~{}", delay.as_millis()));
                    self.waits.push((unit, round));
                }
            }
        }
    }

    fn gone(&mut self, child: usize, generation: u64) {
        let failure = Failure { child, generation, cause: Cause::Stop };
        self.exceeded.extend(self.group.failed(&[failure], self.now));
    }

    fn fail(&mut self, children: &[usize], cause: Cause) {
        let failures: Vec<_> =
            children.iter().map(|&child| Failure { child, generation: self.generations[child], cause }).collect();
        self.exceeded.extend(self.group.failed(&failures, self.now));
        self.settle();
    }

    fn wait_over(&mut self) {
        for (unit, round) in std::mem::take(&mut self.waits) {
            self.group.resume(unit, round);
        }
        self.settle();
    }

    fn take_log(&mut self) -> String {
        std::mem::take(&mut self.log).join(" ")
    }
}

#[test]
fn each_strategy_restarts_exactly_whom_it_promises_in_order() {
    let expected = [(Strategy::OneForOne, "~100 +1"), (Strategy::RestForOne, "-3 -2 ~100 +1 +2 +3")];
    for (strategy, actions) in expected {
        for cause in [Cause::Panic, Cause::Stop, Cause::Hang] {
            let mut world = World::permanent(strategy, 4);
            assert_eq!(world.take_log(), "+0 +1 +2 +3");
            world.fail(&[1], cause);
            world.wait_over();
            assert_eq!(world.take_log(), actions, "{strategy:?} {cause:?}");
        }
    }
}

#[test]
fn nobody_is_started_again_before_the_wait_is_over() {
    let mut world = World::permanent(Strategy::RestForOne, 2);
    world.fail(&[0], Cause::Panic);
    world.take_log();
    world.settle();
    world.group.resume(0, 99);
    world.settle();
    assert_eq!(world.take_log(), "");
}

#[test]
fn several_deaths_at_once_are_one_round() {
    for children in [[0, 2], [2, 0], [1, 2]] {
        let mut world = World::permanent(Strategy::RestForOne, 3);
        world.take_log();
        for round in 0..INTENSITY.max_restarts {
            world.fail(&children, Cause::Panic);
            world.wait_over();
            assert!(world.exceeded.is_empty(), "round {round}");
        }
        world.fail(&children, Cause::Panic);
        assert_eq!(world.exceeded.len(), 1);
    }
}

#[test]
fn a_death_while_others_stop_or_wait_widens_the_round_and_is_not_counted() {
    let mut world = World::permanent(Strategy::RestForOne, 4);
    world.take_log();
    world.fail(&[2], Cause::Panic);
    assert_eq!(world.take_log(), "-3 ~100");
    world.fail(&[0], Cause::Panic);
    world.wait_over();
    assert_eq!(world.take_log(), "-1 ~200 +0 +1 +2 +3", "the first wait was overtaken");

    let mut world = World::permanent(Strategy::RestForOne, 4);
    world.take_log();
    world.stubborn = vec![3];
    world.fail(&[2], Cause::Panic);
    world.fail(&[0], Cause::Panic);
    assert!(world.group.overdue(3, 1));
    world.settle();
    world.wait_over();
    assert_eq!(world.take_log(), "-3 -1 ~100 +0 +1 +2 +3");
    assert!(!world.group.overdue(3, 1), "it is gone already");
}

#[test]
fn the_backoff_doubles_while_failures_go_on_and_starts_anew_after_a_calm_window() {
    let mut world = World::permanent(Strategy::OneForOne, 1);
    world.take_log();
    for _ in 0..4 {
        world.now += Duration::from_secs(20);
        world.fail(&[0], Cause::Panic);
        world.wait_over();
    }
    assert_eq!(world.take_log(), "~100 +0 ~200 +0 ~400 +0 ~800 +0");
    world.now += INTENSITY.window;
    world.fail(&[0], Cause::Panic);
    assert_eq!(world.take_log(), "~100");
    assert!(world.exceeded.is_empty());
}

#[test]
fn start_failures_wait_longer_each_time_and_exceed_the_intensity() {
    let mut group = Group::new(Strategy::OneForOne, INTENSITY, BACKOFF, &[Policy::Permanent]);
    let now = Instant::now();
    for attempt in 0..=INTENSITY.max_restarts {
        let Some(Action::Start { child, generation, because }) = group.next(now, 1.0) else { panic!("a start") };
        assert_eq!((child, generation), (0, u64::from(attempt) + 1));
        assert_eq!(because, (attempt > 0).then_some(Cause::StartFailure));
        let exceeded = group.failed(&[Failure { child, generation, cause: Cause::StartFailure }], now);
        assert_eq!(exceeded.is_some(), attempt == INTENSITY.max_restarts);
        let Some(Action::Wait { unit, round, .. }) = group.next(now, 1.0) else { panic!("a wait") };
        group.resume(unit, round);
    }
}

#[test]
fn siblings_are_told_why_they_are_restarted() {
    let mut world = World::permanent(Strategy::RestForOne, 2);
    world.exceeded.extend(world.group.failed(&[Failure { child: 0, generation: 1, cause: Cause::Hang }], world.now));
    let mut causes = Vec::new();
    while let Some(action) = world.group.next(world.now, 0.0) {
        match action {
            Action::Start { child, because, .. } => {
                world.group.started(child);
                causes.push((child, because));
            }
            Action::Stop { child, generation } => world.gone(child, generation),
            Action::Wait { unit, round, .. } => world.group.resume(unit, round),
        }
    }
    assert_eq!(causes, [(0, Some(Cause::Hang)), (1, Some(Cause::Sibling))]);
}

#[test]
fn a_stale_generation_changes_nothing() {
    let mut world = World::permanent(Strategy::RestForOne, 2);
    world.fail(&[0], Cause::Panic);
    world.wait_over();
    world.take_log();
    assert_eq!(world.generations, [2, 2]);
    world.gone(0, 1);
    world.gone(1, 3);
    world.settle();
    assert_eq!(world.take_log(), "");
    assert!(world.group.is_up(0, 2) && world.group.is_up(1, 2) && !world.group.is_up(0, 1));
}

#[test]
fn transient_and_temporary_children_end_without_taking_others_along() {
    let policies = [Policy::Transient, Policy::Temporary, Policy::Permanent];
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let mut world = World::new(strategy, &policies);
        world.take_log();
        world.fail(&[0], Cause::Stop);
        world.fail(&[1], Cause::Panic);
        assert_eq!(world.take_log(), "", "{strategy:?}");
        world.fail(&[2], Cause::Stop);
        world.wait_over();
        assert_eq!(world.take_log(), "~100 +2", "{strategy:?}: who ended stays away");
    }
    let mut world = World::new(Strategy::RestForOne, &policies);
    world.take_log();
    world.fail(&[0], Cause::Panic);
    world.wait_over();
    assert_eq!(world.take_log(), "-2 -1 ~100 +0 +2", "a temporary child is started once");
}

#[test]
fn closing_stops_in_reverse_order_also_out_of_a_wait() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let mut world = World::permanent(strategy, 3);
        world.take_log();
        world.group.close();
        world.settle();
        assert_eq!(world.take_log(), "-2 -1 -0", "{strategy:?}");
        assert!(world.group.is_stopped());
    }
    let mut world = World::permanent(Strategy::RestForOne, 3);
    world.fail(&[1], Cause::Panic);
    world.take_log();
    world.group.close();
    world.settle();
    world.wait_over();
    assert_eq!(world.take_log(), "-0");
    assert!(world.group.is_stopped());
}

#[test]
fn closing_waits_for_each_child_to_be_gone() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne] {
        let mut world = World::permanent(strategy, 3);
        world.take_log();
        world.stubborn = vec![1];
        world.group.close();
        world.settle();
        assert_eq!(world.take_log(), "-2 -1", "{strategy:?}");
        assert!(!world.group.is_stopped());
        assert!(world.group.overdue(1, 1));
        world.settle();
        assert_eq!(world.take_log(), "-0", "{strategy:?}");
        assert!(world.group.is_stopped());
    }
}

/// What may happen to a group from outside.
#[derive(Clone, Debug)]
enum Step {
    Fail(Vec<usize>, Cause),
    Stale(usize),
    Gone(usize),
    Overdue(usize),
    Resume,
    Pass(u64),
}

fn steps(children: usize) -> impl Generator<Value = Vec<Step>> {
    let cause = prop::sample::select(vec![Cause::Panic, Cause::Stop, Cause::Hang]);
    let step = prop_oneof![
        (prop::collection::vec(0..children, 1..=children), cause).prop_map(|(c, cause)| Step::Fail(c, cause)),
        (0..children).prop_map(Step::Stale),
        (0..children).prop_map(Step::Gone),
        (0..children).prop_map(Step::Overdue),
        Just(Step::Resume),
        (0..90_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..60)
}

/// What the outside sees of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Gone,
    Runs(u64),
    Told(u64),
}

/// Performs everything and checks the order at each start and stop.
fn perform(group: &mut Group, seen: &mut [Seen], waits: &mut Vec<(usize, u64)>, now: Instant, ordered: bool) {
    while let Some(action) = group.next(now, 0.5) {
        match action {
            Action::Start { child, generation, .. } => {
                assert_eq!(seen[child], Seen::Gone, "two generations at once");
                assert!(!ordered || seen[child + 1..].iter().all(|s| *s == Seen::Gone), "started above a running one");
                seen[child] = Seen::Runs(generation);
                group.started(child);
            }
            Action::Stop { child, generation } => {
                assert_eq!(seen[child], Seen::Runs(generation));
                assert!(!ordered || seen[child + 1..].iter().all(|s| *s == Seen::Gone), "stopped below a running one");
                seen[child] = Seen::Told(generation);
            }
            Action::Wait { unit, round, delay } => {
                assert!(delay <= BACKOFF.max);
                waits.push((unit, round));
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_order_holds_and_all_are_up_in_the_end(
        strategy in prop::sample::select(vec![Strategy::OneForOne, Strategy::RestForOne]),
        steps in steps(4),
        closes in any::<bool>(),
    ) {
        let mut group = Group::new(strategy, Intensity { max_restarts: 1000, ..INTENSITY }, BACKOFF, &[Policy::Permanent; 4]);
        let (mut now, mut seen, mut waits) = (Instant::now(), [Seen::Gone; 4], Vec::new());
        let ordered = strategy != Strategy::OneForOne;
        perform(&mut group, &mut seen, &mut waits, now, ordered);
        for step in steps {
            match step {
                Step::Fail(children, cause) => {
                    let mut failures = Vec::new();
                    for child in children {
                        if let Seen::Runs(generation) | Seen::Told(generation) = seen[child] {
                            seen[child] = Seen::Gone;
                            failures.push(Failure { child, generation, cause });
                        }
                    }
                    group.failed(&failures, now);
                }
                Step::Stale(child) => {
                    let failure = |generation| Failure { child, generation, cause: Cause::Panic };
                    group.failed(&[failure(0), failure(u64::MAX)], now);
                }
                Step::Gone(child) => if let Seen::Told(generation) = seen[child] {
                    seen[child] = Seen::Gone;
                    group.failed(&[Failure { child, generation, cause: Cause::Stop }], now);
                },
                Step::Overdue(child) => if let Seen::Told(generation) = seen[child] {
                    prop_assert!(group.overdue(child, generation));
                    seen[child] = Seen::Gone;
                },
                Step::Resume => for (unit, round) in std::mem::take(&mut waits) {
                    group.resume(unit, round);
                },
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
            perform(&mut group, &mut seen, &mut waits, now, ordered);
        }
        if closes {
            group.close();
        }
        for _ in 0..20 {
            for (child, seen) in seen.iter_mut().enumerate() {
                if let Seen::Told(generation) = *seen {
                    *seen = Seen::Gone;
                    group.failed(&[Failure { child, generation, cause: Cause::Stop }], now);
                }
            }
            for (unit, round) in std::mem::take(&mut waits) {
                group.resume(unit, round);
            }
            perform(&mut group, &mut seen, &mut waits, now, ordered);
        }
        if closes {
            prop_assert!(group.is_stopped());
            prop_assert_eq!(seen, [Seen::Gone; 4]);
        } else {
            prop_assert!(seen.iter().all(|s| matches!(s, Seen::Runs(_))), "{:?}", seen);
        }
    }
}
