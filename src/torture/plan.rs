//! What happens in a scenario, and when: a seed in, steps out. Pure; what cannot be done in some surroundings is left out by
//! who carries it out, so that a seed means the same everywhere.

use std::time::Duration;

use fastrand::Rng;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An instance is killed by signal 9, and started again at once.
    KillService,
    /// An instance stands still, as on an overloaded machine.
    SuspendService,
    /// The wall clock of an instance is set forward.
    ClockForward,
    /// The wall clock of an instance is set back.
    ClockBack,
    /// Connections to Kafka are reset, new ones refused.
    CutKafka,
    /// Kafka accepts, and never answers.
    HangKafka,
    /// Kafka answers late.
    SlowKafka,
    /// Connections to Redis are reset, new ones refused.
    CutRedis,
    /// Redis accepts, and never answers.
    HangRedis,
    /// Redis answers late.
    SlowRedis,
    /// Redis forgets everything.
    FlushRedis,
    /// All clients lose their connections at once, and come back at once.
    CutClients,
    /// The topic gains a partition.
    MorePartitions,
    /// Retention takes the older half of each partition.
    Retention,
    /// The topic is deleted and made anew.
    RecreateTopic,
}

use Fault::{
    ClockBack, ClockForward, CutClients, CutKafka, CutRedis, FlushRedis, HangKafka, HangRedis, KillService,
    MorePartitions, RecreateTopic, Retention, SlowKafka, SlowRedis, SuspendService,
};

impl Fault {
    /// Every one of them.
    pub const ALL: [Self; 15] = [
        KillService,
        SuspendService,
        ClockForward,
        ClockBack,
        CutKafka,
        HangKafka,
        SlowKafka,
        CutRedis,
        HangRedis,
        SlowRedis,
        FlushRedis,
        CutClients,
        MorePartitions,
        Retention,
        RecreateTopic,
    ];

    /// Its name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            KillService => "kill-service",
            SuspendService => "suspend-service",
            ClockForward => "clock-forward",
            ClockBack => "clock-back",
            CutKafka => "cut-kafka",
            HangKafka => "hang-kafka",
            SlowKafka => "slow-kafka",
            CutRedis => "cut-redis",
            HangRedis => "hang-redis",
            SlowRedis => "slow-redis",
            FlushRedis => "flush-redis",
            CutClients => "cut-clients",
            MorePartitions => "more-partitions",
            Retention => "retention",
            RecreateTopic => "recreate-topic",
        }
    }

    /// What it takes.
    pub const fn needs(self) -> Option<Need> {
        match self {
            ClockForward | ClockBack => Some(Need::Clock),
            CutKafka | HangKafka | SlowKafka => Some(Need::PlainKafka),
            CutRedis | HangRedis | SlowRedis | FlushRedis => Some(Need::PlainRedis),
            _ => None,
        }
    }
}

/// What some faults take, and not all surroundings have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A library that lets one process see another wall clock.
    Clock,
    /// Connections to Kafka that are not encrypted: a proxy has to stand in between.
    PlainKafka,
    /// One Redis server, without encryption.
    PlainRedis,
}

/// A fault, and which instance it hits if it hits one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is broken.
    pub fault: Fault,
    /// The instance, below the number of instances.
    pub instance: usize,
}

/// Several at a time, for so long; then all is well for a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Begun in this order.
    pub troubles: Vec<Trouble>,
    /// From the last beginning on.
    pub lasts: Duration,
}

impl Step {
    /// Whether a clock jumps in it.
    pub fn sets_clocks(&self) -> bool {
        self.troubles.iter().any(|trouble| matches!(trouble.fault, ClockForward | ClockBack))
    }
}

/// The steps of a scenario. Every sixth has a re-creation of the topic besides, once: what came before it is judged as a
/// whole.
pub fn plan(seed: u64, instances: usize) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    let count = random.usize(2..=3);
    let trouble = |random: &mut Rng, fault| Trouble { fault, instance: random.usize(..instances.max(1)) };
    let drawn: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| *fault != RecreateTopic).collect();
    let mut steps = Vec::with_capacity(count);
    for _ in 0..count {
        let mut troubles = Vec::new();
        for _ in 0..random.usize(1..=3) {
            let fault = random.choice(&drawn).copied().unwrap_or(KillService);
            if troubles.iter().all(|trouble: &Trouble| trouble.fault != fault) {
                troubles.push(trouble(&mut random, fault));
            }
        }
        steps.push(Step { troubles, lasts: Duration::from_millis(random.u64(300..2_500)) });
    }
    if seed.is_multiple_of(6)
        && let Some(step) = random.choice(&mut steps)
    {
        let at = random.usize(..=step.troubles.len());
        step.troubles.insert(at, trouble(&mut random, RecreateTopic));
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_means_the_same_steps_and_few_seeds_have_every_fault_on_every_instance() {
        let mut seen = BTreeSet::new();
        for seed in 0..60 {
            let steps = plan(seed, 2);
            assert_eq!(steps, plan(seed, 2));
            assert!((2..=3).contains(&steps.len()) && steps.iter().all(|step| !step.troubles.is_empty()));
            seen.extend(steps.iter().flat_map(|step| &step.troubles).map(|trouble| (trouble.fault, trouble.instance)));
        }
        let faults: BTreeSet<Fault> = seen.iter().map(|(fault, _)| *fault).collect();
        assert_eq!(faults, Fault::ALL.into());
        assert_eq!(seen.iter().filter(|(fault, _)| *fault == KillService).count(), 2);
    }

    #[test]
    fn names_are_all_different() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
    }
}
