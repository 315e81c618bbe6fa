//! What a topic should be like, and how one that exists differs from that.
//!
//! It must not know how topics are made.

use std::fmt;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MIB: u64 = 1024 * 1024;

/// Kafka's name of the setting that says whether old records go, or only those that have a newer one under their key.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Replicas as the brokers have it for topics about which nothing is said.
pub const BROKER_DEFAULT: i32 = -1;

/// For what surroundings a topic is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// 10 partitions, kept for 7 days, one replica: works on any cluster.
    #[default]
    Default,
    /// The same with three replicas, two of which must have a record before it is acknowledged: for production.
    Recommended,
    /// 3 partitions, kept for a day, compressed as the producer does: for a developer's machine.
    Dev,
}

/// What a topic should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of each partition; [`BROKER_DEFAULT`]: as the brokers have it.
    pub replicas: i32,
    /// Settings by Kafka's names; all others are as the brokers have them.
    pub settings: Vec<(&'static str, String)>,
}

impl TopicPlan {
    /// A topic about which only the number of partitions is said.
    pub fn plain(name: &str, partitions: i32) -> Self {
        Self { name: name.to_owned(), partitions, replicas: BROKER_DEFAULT, settings: Vec::new() }
    }

    /// A topic of telemetry.
    pub fn telemetry(name: &str, profile: Profile) -> Self {
        let (partitions, retention, segment, compression) = match profile {
            Profile::Default | Profile::Recommended => (10, 7 * DAY, 1024 * MIB, "zstd"),
            Profile::Dev => (3, DAY, 256 * MIB, "producer"),
        };
        Self::kept(name, partitions, profile, (retention, segment, compression))
    }

    /// A topic of dead letters, with as many replicas as that of the telemetry: letters are as precious as records.
    pub fn dead_letters(name: &str, profile: Profile) -> Self {
        Self::kept(name, 3, profile, (30 * DAY, 256 * MIB, "zstd"))
    }

    fn kept(
        name: &str,
        partitions: i32,
        profile: Profile,
        (retention, segment, compression): (Duration, u64, &str),
    ) -> Self {
        let plan = Self::plain(name, partitions)
            .with(CLEANUP_POLICY, "delete")
            .with("compression.type", compression)
            .with("segment.bytes", segment)
            .with_retention(retention);
        plan.with_replicas(if profile == Profile::Recommended { 3 } else { 1 })
    }

    /// With so many replicas. From three on, a record is acknowledged when two have it: one broker may be away without
    /// a loss, and without a standstill.
    #[must_use]
    pub fn with_replicas(mut self, replicas: i32) -> Self {
        self.settings.retain(|(name, _)| *name != MIN_IN_SYNC);
        self.replicas = replicas;
        if replicas >= 3 { self.with(MIN_IN_SYNC, 2) } else { self }
    }

    /// With records kept for so long.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        self.with(RETENTION, retention.as_millis())
    }

    fn with(mut self, setting: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(name, _)| *name != setting);
        self.settings.push((setting, value.to_string()));
        self
    }

    /// What it says about a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// In what a topic that exists falls short of it, in those things that decide whether it can serve.
    pub fn differences(&self, partitions: i32, cleanup_policy: Option<&str>) -> Vec<Difference> {
        let fewer =
            (partitions < self.partitions).then_some(Difference::Partitions { wanted: self.partitions, partitions });
        let other = match (self.setting(CLEANUP_POLICY), cleanup_policy) {
            (Some(wanted), Some(found)) if wanted != found => {
                Some(Difference::CleanupPolicy { wanted: wanted.to_owned(), found: found.to_owned() })
            }
            _ => None,
        };
        fewer.into_iter().chain(other).collect()
    }
}

/// In what a topic that exists falls short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It has fewer partitions.
    Partitions {
        /// So many were asked for.
        wanted: i32,
        /// So many are there.
        partitions: i32,
    },
    /// Records leave it by another rule.
    CleanupPolicy {
        /// What was asked for.
        wanted: String,
        /// What it has.
        found: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions { wanted, partitions } => write!(
                f,
                "it has {partitions} of {wanted} partitions; more can be added, but then keys move to other partitions"
            ),
            Self::CleanupPolicy { wanted, found } => write!(
                f,
                "its {CLEANUP_POLICY} is {found}, not {wanted}; compaction removes records that are no duplicates"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(plan: &TopicPlan) -> Vec<(&'static str, &str)> {
        let mut settings: Vec<_> = plan.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        settings.sort_unstable();
        settings
    }

    #[test]
    fn profiles_are_as_documented() {
        let common = [("cleanup.policy", "delete"), ("compression.type", "zstd")];
        let week = [("retention.ms", "604800000"), ("segment.bytes", "1073741824")];
        let plan = TopicPlan::telemetry("t", Profile::Default);
        assert_eq!((plan.partitions, plan.replicas, settings(&plan)), (10, 1, [common, week].concat()));
        let plan = TopicPlan::telemetry("t", Profile::Recommended);
        let in_sync = [("min.insync.replicas", "2")];
        assert_eq!((plan.partitions, plan.replicas), (10, 3));
        assert_eq!(settings(&plan), [&common[..], &in_sync, &week].concat());
        let plan = TopicPlan::telemetry("t", Profile::Dev);
        let dev = [
            ("cleanup.policy", "delete"),
            ("compression.type", "producer"),
            ("retention.ms", "86400000"),
            ("segment.bytes", "268435456"),
        ];
        assert_eq!((plan.partitions, plan.replicas, settings(&plan)), (3, 1, dev.to_vec()));
        for (profile, replicas) in [(Profile::Default, 1), (Profile::Recommended, 3), (Profile::Dev, 1)] {
            let plan = TopicPlan::dead_letters("t-dlq", profile);
            assert_eq!((plan.partitions, plan.replicas), (3, replicas));
            assert_eq!(plan.setting("retention.ms"), Some("2592000000"));
            assert_eq!(plan.setting("segment.bytes"), Some("268435456"));
            assert_eq!(plan.setting("compression.type"), Some("zstd"));
        }
    }

    #[test]
    fn replicas_that_must_have_a_record_are_never_all_of_them() {
        for (replicas, in_sync) in [(-1, None), (1, None), (2, None), (3, Some("2")), (5, Some("2"))] {
            let plan = TopicPlan::telemetry("t", Profile::Recommended).with_replicas(replicas);
            assert_eq!((plan.replicas, plan.setting(MIN_IN_SYNC)), (replicas, in_sync));
        }
    }

    #[test]
    fn a_topic_falls_short_by_fewer_partitions_or_another_rule_of_cleanup() {
        let plan = TopicPlan::telemetry("t", Profile::Dev);
        assert_eq!(plan.differences(3, Some("delete")), []);
        assert_eq!(plan.differences(30, None), []);
        assert_eq!(plan.differences(2, None), [Difference::Partitions { wanted: 3, partitions: 2 }]);
        let both: Vec<_> = plan.differences(1, Some("compact")).iter().map(ToString::to_string).collect();
        assert!(both[0].contains("1 of 3 partitions") && both[1].contains("compact, not delete"), "{both:?}");
        assert_eq!(TopicPlan::plain("t", 1).differences(1, Some("compact")), []);
    }
}
