//! The plan against its rules, and against a model of tiers that fail, lose and answer in part.

use std::collections::BTreeMap;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use proptest::test_runner::TestCaseError;

use super::super::window::Chunk;
use super::*;
use crate::wire::stream::SkipReason;
use crate::wire::stream_frame::FrameBuilder;

const LIMITS: Limits = Limits { records: 1000, bytes: 1 << 20 };
const UP: Patience = Patience::Left;

fn line(cursor: i64, until: i64, redis: Tier, kafka: Tier) -> Line {
    Line { partition: 0, cursor, until, redis, kafka }
}

fn failing(mut tier: Tier) -> Tier {
    tier.answers = Answers::NotNow;
    tier
}

fn is_failing(line: &Line) -> bool {
    [line.redis, line.kafka].iter().any(|tier| tier.answers == Answers::NotNow)
}

fn lacking(mut tier: Tier, first: i64, next: i64) -> Tier {
    tier.lacks(first, next);
    tier
}

fn page(first: i64, next: i64) -> Page {
    let mut builder = FrameBuilder::new();
    builder.skip(first, next, SkipReason::NoRecord);
    let chunk = Chunk::new(0, first, next, 0, builder.seal(0, first, next));
    Page { chunks: vec![Arc::new(chunk)], low: None }
}

/// `redis 5-9`, `retention 5-9`, `wait`.
fn text(plan: &Plan) -> String {
    let step = |step: &Step| match step {
        Step::Read { source, from, until, .. } => format!("{source:?} {from}-{until}").to_lowercase(),
        Step::Gap { from, to, reason, .. } => format!("{reason:?} {from}-{to}").to_lowercase(),
    };
    match plan.steps.as_slice() {
        [] => "wait".to_owned(),
        steps => steps.iter().map(step).collect::<Vec<_>>().join(", "),
    }
}

fn one(line: Line, patience: Patience) -> String {
    text(&plan(&[line], LIMITS, Turn::default(), patience))
}

#[test]
fn one_partition_goes_where_the_rules_say() {
    let (off, any) = (Tier::off(), Tier::unknown());
    let far = (1_i64 << 53) + 5;
    let from = Tier::from;
    for (what, cursor, until, redis, kafka, spent, want) in [
        ("the last offset below the window", 49, 50, any, any, false, "redis 49-50"),
        ("the first offset, Redis not asked yet", 0, 50, any, any, false, "redis 0-50"),
        ("no Redis", 0, 50, off, any, false, "kafka 0-50"),
        ("Redis begins later", 5, 50, from(20), any, false, "kafka 5-20"),
        ("Redis has nothing below the window", 5, 50, from(50), any, false, "kafka 5-50"),
        ("a hole in Redis at the cursor", 5, 50, lacking(any, 5, 12), any, false, "kafka 5-12"),
        ("a hole in Redis ahead", 5, 50, lacking(any, 9, 12), any, false, "redis 5-9"),
        ("a hole in Redis behind", 15, 50, lacking(any, 9, 12), any, false, "redis 15-50"),
        ("a hole in Redis up to the window", 5, 50, lacking(any, 5, 50), any, false, "kafka 5-50"),
        ("Redis fails", 5, 50, failing(any), any, false, "kafka 5-50"),
        ("Redis fails, Kafka begins later", 5, 50, failing(any), from(20), false, "wait"),
        ("... and nobody waits", 5, 50, failing(any), from(20), true, "unavailable 5-20"),
        ("Redis fails but began later too", 5, 50, failing(from(15)), from(20), false, "retention 5-15"),
        ("Kafka fails, Redis has it", 5, 50, any, failing(any), false, "redis 5-50"),
        ("Kafka fails, a hole in Redis", 5, 50, lacking(any, 5, 12), failing(any), false, "wait"),
        ("... and nobody waits", 5, 50, lacking(any, 5, 12), failing(any), true, "unavailable 5-12"),
        ("both fail", 5, 50, failing(any), failing(any), false, "wait"),
        ("... and nobody waits", 5, 50, failing(any), failing(any), true, "unavailable 5-50"),
        ("no Redis, Kafka fails", 5, 50, off, failing(any), false, "wait"),
        ("patience is not needed", 5, 50, any, any, true, "redis 5-50"),
        ("retention has passed the cursor", 5, 50, off, from(20), false, "retention 5-20"),
        ("... and Redis too", 5, 50, from(10), from(20), false, "retention 5-10"),
        ("... and all below the window", 5, 50, off, from(55), false, "retention 5-50"),
        ("... though Kafka fails now", 5, 50, off, failing(from(20)), false, "retention 5-20"),
        ("Kafka has nothing there", 5, 50, off, lacking(any, 5, 50), false, "unavailable 5-50"),
        ("beyond what a double holds", far, far + 3, off, any, false, { "kafka 9007199254740997-9007199254741000" }),
        ("the last offsets there are", 0, i64::MAX, off, any, false, "kafka 0-9223372036854775807"),
    ] {
        let patience = if spent { Patience::Spent } else { Patience::Left };
        assert_eq!(one(line(cursor, until, redis, kafka), patience), want, "{what}");
    }
}

#[test]
fn answers_teach_what_a_tier_has() {
    let fresh = line(5, 50, Tier::unknown(), Tier::unknown());
    let after = |source, answer: Result<Page, TierError>| {
        let mut line = fresh;
        let deliver = line.answered(source, 50, &answer);
        (deliver, one(line, Patience::Left))
    };
    let low = |low| Ok(Page { low: Some(low), ..Page::default() });
    let later = |first| Ok(Page { low: Some(first), ..page(first, 30) });
    for (what, source, answer, want) in [
        ("a page", Source::Redis, Ok(page(5, 9)), (true, "redis 5-50")),
        ("a page that begins before the cursor", Source::Redis, Ok(page(0, 9)), (true, "redis 5-50")),
        ("a page of Kafka", Source::Kafka, Ok(page(5, 9)), (true, "redis 5-50")),
        ("nothing in Redis", Source::Redis, Ok(Page::default()), (false, "kafka 5-50")),
        ("later in Redis", Source::Redis, later(20), (false, "kafka 5-20")),
        ("later in Redis, in words", Source::Redis, low(20), (false, "kafka 5-20")),
        ("later in Redis than the window", Source::Redis, low(70), (false, "kafka 5-50")),
        ("a page that does not reach the cursor", Source::Redis, Ok(page(0, 5)), (false, "kafka 5-50")),
        ("a page above the cursor without a word", Source::Redis, Ok(page(8, 9)), (false, "kafka 5-8")),
        ("a low that is none", Source::Redis, low(5), (false, "kafka 5-50")),
        ("Redis in vain", Source::Redis, Err(TierError::Timeout), (false, "kafka 5-50")),
        ("Redis away", Source::Redis, Err(TierError::Unavailable("x".into())), (false, "kafka 5-50")),
        ("another epoch", Source::Redis, Err(TierError::EpochOver), (false, "redis 5-50")),
    ] {
        let (deliver, next) = after(source, answer);
        assert_eq!((deliver, next.as_str()), want, "{what}");
    }
    let mut line = fresh;
    line.answered(Source::Redis, 50, &Ok(Page { low: Some(20), ..Page::default() }));
    line.answered(Source::Kafka, 20, &Err(TierError::Timeout));
    assert_eq!(one(line, Patience::Left), "wait");
    line.retry();
    assert_eq!(one(line, Patience::Left), "kafka 5-20");
    line.answered(Source::Kafka, 20, &Ok(Page { low: Some(12), ..Page::default() }));
    assert_eq!(one(line, Patience::Left), "retention 5-12");
    line.cursor = 12;
    assert_eq!(one(line, Patience::Left), "kafka 12-20");
    line.cursor = 20;
    assert_eq!(one(line, Patience::Left), "redis 20-50");
}

#[test]
fn a_request_says_what_its_step_does() {
    let planned = plan(&[line(5, 50, Tier::off(), Tier::unknown())], LIMITS, Turn::default(), UP);
    let name: Arc<str> = "c/t/a".into();
    let request = planned.steps[0].request(3, &name).unwrap();
    assert_eq!((request.epoch, &*request.epoch_name, request.partition), (3, "c/t/a", 0));
    assert_eq!((request.from, request.until, request.max_records, request.max_bytes), (5, 50, 45, 1 << 20));
    let gap = Step::Gap { partition: 4, from: 1, to: 2, reason: GapReason::Retention };
    assert_eq!(gap.request(3, &name), None);
}

fn parts(plan: &Plan) -> BTreeMap<i32, u32> {
    let part = |step: &Step| match step {
        Step::Read { partition, max_records, .. } => Some((*partition, *max_records)),
        Step::Gap { .. } => None,
    };
    plan.steps.iter().filter_map(part).collect()
}

/// Reads everything that is planned; answers the parts of each page.
fn all_pages(mut lines: Vec<Line>, records: u32) -> Vec<BTreeMap<i32, u32>> {
    let (mut pages, mut turn) = (Vec::new(), Turn::default());
    loop {
        lines.retain(|line| line.cursor < line.until);
        if lines.is_empty() {
            return pages;
        }
        let planned = plan(&lines, Limits { records, bytes: 1 << 20 }, turn, UP);
        turn = planned.turn;
        let parts = parts(&planned);
        for line in &mut lines {
            line.cursor += i64::from(parts.get(&line.partition).copied().unwrap_or(0));
        }
        pages.push(parts);
    }
}

fn backlogs(sizes: impl IntoIterator<Item = i64>) -> Vec<Line> {
    let line = |(partition, size)| Line { partition, ..line(0, size, Tier::off(), Tier::unknown()) };
    (0..).zip(sizes).map(line).collect()
}

#[test]
fn one_limit_holds_over_all_partitions_and_each_gets_its_part() {
    let pages = all_pages(backlogs([1000; 10]), 1000);
    assert_eq!(pages, vec![(0..10).map(|partition| (partition, 100)).collect::<BTreeMap<_, _>>(); 10]);
}

#[test]
fn a_page_smaller_than_the_number_of_partitions_goes_to_them_in_turn() {
    let pages = all_pages(backlogs([1000; 10]), 3);
    assert!(pages[..pages.len() - 1].iter().all(|page| page.values().sum::<u32>() == 3));
    let of = |partition: i32| pages[..20].iter().filter_map(|page| page.get(&partition)).sum::<u32>();
    assert_eq!((0..10).map(of).collect::<Vec<_>>(), vec![6; 10], "20 pages of 3 over 10 partitions");
}

#[test]
fn what_short_backlogs_leave_over_goes_to_long_ones() {
    let pages = all_pages(backlogs([5, 1000, 0, 40, 1000]), 100);
    assert_eq!(pages[0], BTreeMap::from([(0, 5), (1, 32), (3, 32), (4, 31)]));
    assert!(pages[..pages.len() - 1].iter().all(|page| page.values().sum::<u32>() == 100));
    assert_eq!(pages.len(), 21);
}

#[test]
fn bytes_are_split_as_records_are() {
    let planned = plan(&backlogs([10, 1000, 90]), Limits { records: 200, bytes: 2000 }, Turn::default(), UP);
    let bytes = |step: &Step| if let Step::Read { max_bytes, .. } = step { *max_bytes } else { 0 };
    assert_eq!(parts(&planned), BTreeMap::from([(0, 10), (1, 100), (2, 90)]));
    assert_eq!(planned.steps.iter().map(bytes).collect::<Vec<_>>(), vec![100, 1000, 900]);
    let tiny = plan(&backlogs([10, 10]), Limits { records: 20, bytes: 1 }, Turn::default(), UP);
    assert!(tiny.steps.iter().all(|step| bytes(step) == 1));
}

proptest! {
    #[test]
    fn a_split_is_fair_and_uses_the_whole_page(
        sizes in prop::collection::vec(1..2000_u64, 1..60), total in 1..1500_u32, after in prop::option::of(0..60_i32),
    ) {
        let wants: Vec<Want> = (0..).zip(&sizes).map(|(partition, records)| Want { partition, records: *records }).collect();
        let (parts, _) = split(total, &wants, Turn { after });
        let given: u64 = parts.iter().copied().map(u64::from).sum();
        prop_assert_eq!(given, sizes.iter().sum::<u64>().min(u64::from(total)));
        let hungry: Vec<u32> =
            parts.iter().zip(&sizes).filter(|(part, size)| u64::from(**part) < **size).map(|(part, _)| *part).collect();
        let (least, most) = (hungry.iter().min(), hungry.iter().max());
        if let (Some(least), Some(most)) = (least, most) {
            prop_assert!(most - least <= 1, "{:?}", parts);
            prop_assert!(parts.iter().all(|part| *part <= least + 1), "nobody gets more than those who want more");
        }
        prop_assert!(parts.iter().zip(&sizes).all(|(part, size)| u64::from(*part) <= *size));
    }

    /// However small the page is, everybody is served within as many pages as it takes to go round once.
    #[test]
    fn nobody_starves(sizes in prop::collection::vec(1..300_i64, 1..40), records in 1..50_u32) {
        let round = sizes.len().div_ceil(records as usize) + 1;
        let pages = all_pages(backlogs(sizes.iter().copied()), records);
        let mut served = BTreeMap::new();
        let mut taken = vec![0_i64; sizes.len()];
        for (number, page) in pages.iter().enumerate() {
            prop_assert!(page.values().sum::<u32>() <= records);
            for (partition, (taken, size)) in (0..).zip(taken.iter_mut().zip(&sizes)) {
                if let Some(part) = page.get(&partition) {
                    served.insert(partition, number + 1);
                    *taken += i64::from(*part);
                }
                let last = served.get(&partition).copied().unwrap_or(0);
                let waits = number + 1 - last;
                prop_assert!(*taken == *size || waits <= round, "partition {} waits since page {}", partition, last);
            }
        }
        prop_assert_eq!(taken, sizes);
    }
}

/// What a tier really has of one partition, and how it will behave.
#[derive(Clone, Debug)]
struct Real {
    off: bool,
    /// Ranges, ascending, apart from each other.
    has: Vec<(i64, i64)>,
    /// Whether its bounds are told beforehand.
    told: bool,
}

impl Real {
    fn has(&self, offset: i64) -> bool {
        self.has.iter().any(|(first, next)| (*first..*next).contains(&offset))
    }

    fn is_kafka(&self) -> bool {
        self.has.last().is_some_and(|(_, next)| *next == i64::MAX)
    }

    /// Retention takes what lies below.
    fn trim(&mut self, low: i64) {
        self.has = self.has.iter().map(|(first, next)| ((*first).max(low), *next)).filter(|(f, n)| f < n).collect();
    }

    fn as_known(&self) -> Tier {
        match (self.off, self.told, self.has.first()) {
            (true, ..) => Tier::off(),
            (_, true, Some((low, _))) => Tier::from(*low),
            _ => Tier::unknown(),
        }
    }

    /// `dice` says whether it fails, how much of a page it gives, and in which words.
    fn answer(&self, from: i64, until: i64, max: u32, dice: u64) -> Result<Page, TierError> {
        match dice % 8 {
            0 => return Err(TierError::Timeout),
            1 => return Err(TierError::Unavailable("away".into())),
            _ => {}
        }
        if let Some((_, next)) = self.has.iter().find(|(first, next)| (*first..*next).contains(&from)) {
            let most = (*next).min(until).min(from + i64::from(max));
            let given = from + 1 + (dice / 8).cast_signed().rem_euclid(most - from);
            return Ok(page(from, given));
        }
        let later = self.has.iter().map(|(first, _)| *first).find(|first| *first > from);
        // Kafka always names its log start; Redis may not look further than it was asked.
        match (dice / 8 % 3, later.filter(|later| self.is_kafka() || *later < until)) {
            (0, Some(later)) => Ok(Page { low: Some(later), ..page(later, later + 1) }),
            (_, Some(later)) => Ok(Page { low: Some(later), ..Page::default() }),
            (_, None) => Ok(Page::default()),
        }
    }
}

fn ranges() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0..15_i64, 1..25_i64), 0..6).prop_map(|parts| {
        let mut at = 0;
        let place = |(hole, len): &(i64, i64)| {
            let first = at + hole;
            at = first + len + 1;
            (first, first + len)
        };
        parts.iter().map(place).collect()
    })
}

#[derive(Clone, Debug)]
struct Scene {
    base: i64,
    cursor: i64,
    until: i64,
    redis: Real,
    /// Kafka has everything from here on.
    kafka_low: i64,
    kafka_told: bool,
}

impl Scene {
    fn kafka(&self) -> Real {
        Real { off: false, has: vec![(self.kafka_low, i64::MAX)], told: self.kafka_told }
    }
}

fn scene() -> impl Strategy<Value = Scene> {
    let base = prop_oneof![Just(0_i64), Just((1_i64 << 53) - 20), Just(i64::MAX - 500)];
    (base, 0..110_i64, 0..100_i64, ranges(), any::<[bool; 3]>(), 0..60_i64).prop_map(
        |(base, cursor, until, mut has, [off, told, kafka_told], kafka_low)| {
            has.iter_mut().for_each(|(first, next)| (*first, *next) = (*first + base, *next + base));
            let redis = Real { off, has, told };
            let until = base + until;
            Scene { base, cursor: base + cursor, until, redis, kafka_low: (base + kafka_low).min(until), kafka_told }
        },
    )
}

/// A session in a world that moves on.
struct Session<'a> {
    scenes: Vec<Scene>,
    lines: Vec<Line>,
    dice: std::iter::Cycle<std::iter::Copied<std::slice::Iter<'a, u64>>>,
}

impl<'a> Session<'a> {
    fn new(scenes: Vec<Scene>, dice: &'a [u64]) -> Self {
        let lines = (0..).zip(&scenes).map(|(partition, scene)| Line {
            partition,
            cursor: scene.cursor,
            until: scene.until,
            redis: scene.redis.as_known(),
            kafka: scene.kafka().as_known(),
        });
        let lines = lines.collect();
        Self { scenes, lines, dice: dice.iter().copied().cycle() }
    }

    fn roll(&mut self) -> u64 {
        self.dice.next().unwrap_or(7)
    }

    /// Retention takes something of both tiers.
    fn move_on(&mut self) {
        for index in 0..self.scenes.len() {
            let [low, trimmed] = [3, 40].map(|sides| (self.roll() % sides).cast_signed());
            let scene = &mut self.scenes[index];
            scene.kafka_low = (scene.kafka_low + low).min(scene.until);
            scene.redis.trim(scene.base + trimmed);
        }
    }

    /// Does a step, if it is allowed.
    fn carry_out(&mut self, step: &Step, patience: Patience) -> Result<(), TestCaseError> {
        let (Step::Read { partition, .. } | Step::Gap { partition, .. }) = *step;
        let index = usize::try_from(partition).unwrap();
        let dice = self.roll();
        let (scene, line) = (&self.scenes[index], &mut self.lines[index]);
        match *step {
            Step::Read { source, from, until, max_records, .. } => {
                prop_assert!(from == line.cursor && until > from && max_records > 0);
                let real = match source {
                    Source::Redis => scene.redis.clone(),
                    Source::Kafka => scene.kafka(),
                };
                prop_assert!(!real.off, "a tier is asked that is not there");
                prop_assert!(until <= scene.until, "never into the window");
                let answer = real.answer(from, until, max_records, dice);
                if line.answered(source, until, &answer) {
                    let next = answer.ok().and_then(|page| page.next()).unwrap_or(from);
                    prop_assert!(next > from);
                    line.cursor = next;
                }
            }
            Step::Gap { from, to, reason, .. } => {
                prop_assert!(from == line.cursor && to > from && to <= scene.until);
                if reason == GapReason::Retention {
                    prop_assert!(to <= scene.kafka_low, "Kafka has some of {}..{}", from, to);
                    let kept = (from..to).find(|offset| !scene.redis.off && scene.redis.has(*offset));
                    prop_assert_eq!(kept, None, "Redis has some of {}..{}", from, to);
                } else {
                    prop_assert_eq!(patience, Patience::Spent, "given up too early");
                    prop_assert!(is_failing(line));
                }
                line.cursor = to;
            }
        }
        Ok(())
    }

    /// Runs until all have reached the window. Every offset is covered once and in order because each step begins at the cursor and moves it; what
    /// is left to check is that each step was allowed, and that it ends.
    fn run(mut self, records: u32, gives_up: bool) -> Result<(), TestCaseError> {
        let (mut turn, mut idle) = (Turn::default(), 0);
        for page_number in 0..5_000 {
            if page_number < 60 && self.roll().is_multiple_of(4) {
                self.move_on();
            }
            let patience = if gives_up && idle > 3 { Patience::Spent } else { Patience::Left };
            let below: Vec<Line> = self.lines.iter().filter(|line| line.cursor < line.until).copied().collect();
            if below.is_empty() {
                return Ok(());
            }
            let planned = plan(&below, Limits { records, bytes: 1 << 20 }, turn, patience);
            turn = planned.turn;
            prop_assert!(parts(&planned).values().sum::<u32>() <= records);
            idle = if planned.steps.is_empty() { idle + 1 } else { 0 };
            prop_assert!(!planned.steps.is_empty() || below.iter().all(is_failing), "a wait for nobody: {:?}", below);
            for step in &planned.steps {
                self.carry_out(step, patience)?;
            }
            if (planned.steps.is_empty() || self.roll().is_multiple_of(3))
                && !(gives_up && self.roll().is_multiple_of(2))
            {
                self.lines.iter_mut().for_each(Line::retry);
            }
        }
        prop_assert!(false, "no end: {:?}", self.lines);
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_offset_up_to_the_window_is_delivered_or_named_once_and_it_ends(
        scenes in prop::collection::vec(scene(), 1..6), records in 1..40_u32,
        dice in prop::collection::vec(any::<u64>(), 20..200), gives_up: bool,
    ) {
        // Dice that only ever fail would be a tier that never answers.
        let dice: Vec<u64> = dice.into_iter().chain([7, 23, 15]).collect();
        Session::new(scenes, &dice).run(records, gives_up)?;
    }
}

#[test]
fn the_same_lines_give_the_same_plan() {
    let lines = backlogs([7, 300, 20]);
    let first = plan(&lines, LIMITS, Turn::default(), UP);
    assert_eq!(first, plan(&lines, LIMITS, Turn::default(), UP));
}
