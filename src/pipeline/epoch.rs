//! Which log is being read, and where to start in it: the same log as before or a new epoch, kept or lost offsets.
//!
//! Kafka's offsets have a meaning only together with the log that they count. Facts about the topic come in, decisions
//! come out. It must not ask Kafka.

/// What was learned about the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// The cluster's id, empty when it does not tell.
    pub cluster_id: String,
    /// The topic's id, where the cluster tells it.
    pub topic_id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
}

/// How newer facts relate to older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// The same topic with the same partitions.
    None,
    /// The same topic with more partitions.
    Grown,
    /// Another topic of the same name: offsets count from new.
    Recreated,
}

/// Where to begin without any position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetPolicy {
    /// At the first offset that Kafka still has.
    Earliest,
    /// At the end.
    Latest,
}

/// A commit of the group, with the epoch name that was committed along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The commit's metadata: the name of the epoch, or empty when another program committed.
    pub metadata: String,
}

/// What is known about one partition before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The partition.
    pub partition: i32,
    /// First offset that Kafka has.
    pub low: i64,
    /// End of the log.
    pub high: i64,
    /// The group's commit.
    pub committed: Option<Committed>,
    /// End of the memory window, when it is alive.
    pub stored: Option<i64>,
    /// Start of the memory window, also of one that is gone.
    pub window_low: Option<i64>,
}

/// Where a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The partition.
    pub partition: i32,
    /// First offset of the coverage.
    pub first: i64,
    /// First offset to read; `[first, read_from)` is lost to retention.
    pub read_from: i64,
    /// End of the log.
    pub end: i64,
}

/// How to open the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Offsets count from new, for this process.
    pub new_epoch: bool,
    /// The log is another one than the one that positions were kept for; the first look at a topic is not.
    pub recreated: bool,
    /// Every partition, in the order given.
    pub starts: Vec<Start>,
}

/// Where a position lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Kafka has it, or will have it next.
    Within,
    /// Retention has passed it.
    Below,
    /// The log ends before it: offsets went back.
    Beyond,
}

/// The name of an epoch: the same text in every process that reads the same log.
pub fn epoch_name(topic: &str, facts: &TopicFacts) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    format!("{}/{topic}/{}", or_dash(&facts.cluster_id), facts.topic_id.as_deref().unwrap_or("-"))
}

/// Whether two epoch names may mean the same log. A part that one side does not know (`-`) fits everything; so does the
/// empty name of a commit that another program made.
pub fn same_log(one: &str, other: &str) -> bool {
    if one.is_empty() || other.is_empty() || one == other {
        return true;
    }
    let fits = |a: &str, b: &str| a == b || a == "-" || b == "-";
    let (Some(one), Some(other)) = (split_name(one), split_name(other)) else { return false };
    one.1 == other.1 && fits(one.0, other.0) && fits(one.2, other.2)
}

/// Cluster, topic, topic id. A topic's name holds no slash.
fn split_name(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, id) = name.rsplit_once('/')?;
    let (cluster, topic) = rest.rsplit_once('/')?;
    Some((cluster, topic, id))
}

/// Compares facts. A topic that lost partitions was made anew: Kafka never takes partitions away.
pub fn compare(before: &TopicFacts, now: &TopicFacts) -> TopicChange {
    let other_id = matches!((&before.topic_id, &now.topic_id), (Some(a), Some(b)) if a != b);
    let other_cluster =
        !before.cluster_id.is_empty() && !now.cluster_id.is_empty() && before.cluster_id != now.cluster_id;
    if other_id || other_cluster || now.partitions < before.partitions {
        TopicChange::Recreated
    } else if now.partitions > before.partitions {
        TopicChange::Grown
    } else {
        TopicChange::None
    }
}

/// Where `position` lies in a log that has `[low, high)`.
pub fn place(position: i64, low: i64, high: i64) -> Place {
    if position > high {
        Place::Beyond
    } else if position < low {
        Place::Below
    } else {
        Place::Within
    }
}

/// The offset of a commit, if it counts in the epoch called `name`. When the topic is known to have been made anew, only a
/// commit that names the new log counts.
pub fn valid_commit(commit: &Committed, name: &str, recreated: bool) -> Option<i64> {
    let valid = if recreated { commit.metadata == name } else { same_log(&commit.metadata, name) };
    valid.then_some(commit.offset)
}

/// Plans the opening of a topic called `name`. `previous` is the epoch that this process was in, if any; `anew` says that
/// the topic is known to be another one than before.
pub fn plan(name: &str, previous: Option<&str>, anew: bool, reset: ResetPolicy, known: &[Known]) -> Opening {
    let same = !anew && previous.is_none_or(|previous| same_log(previous, name));
    let valid_commit = |partition: &Known| valid_commit(partition.committed.as_ref()?, name, !same);
    let wanted = |partition: &Known| {
        let committed = valid_commit(partition);
        let kept = if same && previous.is_some() { partition.stored } else { None };
        let window_low = if same && previous.is_some() { partition.window_low } else { None };
        kept.or_else(|| committed.map(|offset| window_low.map_or(offset, |low| low.min(offset)))).or(window_low)
    };
    let beyond = known.iter().any(|partition| {
        wanted(partition).is_some_and(|wanted| place(wanted, partition.low, partition.high) == Place::Beyond)
    });
    // Such a commit also says that the start of this log was never read, so the reset policy has no say.
    let foreign_commit = |partition: &Known| partition.committed.is_some() && valid_commit(partition).is_none();
    let recreated = !same || beyond || (previous.is_none() && known.iter().any(foreign_commit));
    let starts = known
        .iter()
        .map(|partition| {
            let first = match wanted(partition) {
                Some(wanted) if !beyond && wanted <= partition.high => wanted,
                _ if recreated || foreign_commit(partition) => partition.low,
                _ if reset == ResetPolicy::Earliest => partition.low,
                _ => partition.high,
            };
            Start { partition: partition.partition, first, read_from: first.max(partition.low), end: partition.high }
        })
        .collect();
    Opening { new_epoch: recreated || previous.is_none(), recreated, starts }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(id: Option<&str>, partitions: i32) -> TopicFacts {
        TopicFacts { cluster_id: "c".into(), topic_id: id.map(Into::into), partitions }
    }

    fn known(low: i64, high: i64) -> Known {
        Known { partition: 0, low, high, committed: None, stored: None, window_low: None }
    }

    fn commit(offset: i64, metadata: &str) -> Option<Committed> {
        Some(Committed { offset, metadata: metadata.into() })
    }

    fn first(opening: &Opening) -> i64 {
        opening.starts[0].first
    }

    #[test]
    fn only_a_different_id_or_fewer_partitions_make_another_topic() {
        assert_eq!(compare(&facts(Some("a"), 4), &facts(Some("a"), 4)), TopicChange::None);
        assert_eq!(compare(&facts(Some("a"), 4), &facts(Some("a"), 8)), TopicChange::Grown);
        assert_eq!(compare(&facts(Some("a"), 4), &facts(Some("b"), 8)), TopicChange::Recreated);
        assert_eq!(compare(&facts(Some("a"), 4), &facts(None, 4)), TopicChange::None, "unknown is not different");
        assert_eq!(compare(&facts(None, 4), &facts(Some("a"), 4)), TopicChange::None);
        assert_eq!(compare(&facts(None, 4), &facts(None, 3)), TopicChange::Recreated);
    }

    #[test]
    fn names_fit_when_what_both_know_is_equal() {
        for (one, other, same) in [
            ("c/t/a", "c/t/a", true),
            ("c/t/a", "c/t/-", true),
            ("-/t/a", "c/t/a", true),
            ("", "c/t/a", true),
            ("c/t/a", "c/t/b", false),
            ("c/t/a", "d/t/a", false),
            ("c/t/-", "c/u/-", false),
            ("operator's note", "c/t/a", false),
        ] {
            assert_eq!(same_log(one, other), same, "{one} and {other}");
            assert_eq!(same_log(other, one), same, "{other} and {one}");
        }
        assert_eq!(epoch_name("t", &facts(None, 1)), "c/t/-");
    }

    #[test]
    fn the_first_start_takes_the_commit_or_the_reset_policy() {
        let plan_first = |known: Known, reset| plan("c/t/a", None, false, reset, &[known]);
        assert_eq!(first(&plan_first(known(5, 100), ResetPolicy::Earliest)), 5);
        assert_eq!(first(&plan_first(known(5, 100), ResetPolicy::Latest)), 100);
        let resumed = plan_first(Known { committed: commit(50, "c/t/a"), ..known(5, 100) }, ResetPolicy::Latest);
        assert_eq!((first(&resumed), resumed.new_epoch, resumed.recreated), (50, true, false));
        let by_hand = plan_first(Known { committed: commit(50, ""), ..known(5, 100) }, ResetPolicy::Latest);
        assert_eq!(first(&by_hand), 50, "a commit of another program counts");
    }

    #[test]
    fn a_commit_of_another_topic_is_noticed_and_not_used() {
        for reset in [ResetPolicy::Earliest, ResetPolicy::Latest] {
            let opening =
                plan("c/t/b", None, false, reset, &[Known { committed: commit(50, "c/t/a"), ..known(0, 100) }]);
            assert!(opening.recreated);
            assert_eq!(first(&opening), 0);
        }
    }

    #[test]
    fn a_commit_beyond_the_end_means_that_offsets_went_back() {
        let opening = plan(
            "c/t/-",
            None,
            false,
            ResetPolicy::Latest,
            &[Known { committed: commit(500, "c/t/-"), ..known(0, 100) }],
        );
        assert!(opening.recreated);
        assert_eq!(first(&opening), 0);
    }

    #[test]
    fn a_restarted_reader_goes_on_at_the_window_or_rebuilds_it() {
        let at = |stored, window_low, committed| {
            let known = Known { stored, window_low, committed, ..known(0, 100) };
            let opening = plan("c/t/a", Some("c/t/a"), false, ResetPolicy::Latest, &[known]);
            assert!(!opening.new_epoch);
            first(&opening)
        };
        assert_eq!(at(Some(80), Some(10), commit(60, "c/t/a")), 80, "the window is alive");
        assert_eq!(at(None, Some(10), commit(60, "c/t/a")), 10, "the window is rebuilt");
        assert_eq!(at(None, Some(70), commit(60, "c/t/a")), 60, "nothing unsettled is left out");
        assert_eq!(at(None, Some(10), None), 10);
        assert_eq!(at(None, None, None), 100);
    }

    #[test]
    fn a_recreated_topic_is_read_from_its_start_whatever_was_kept() {
        let kept = Known { stored: Some(80), window_low: Some(10), committed: commit(60, "c/t/a"), ..known(0, 100) };
        let opening = plan("c/t/b", Some("c/t/a"), true, ResetPolicy::Latest, std::slice::from_ref(&kept));
        assert!(opening.new_epoch && opening.recreated);
        assert_eq!(first(&opening), 0);
        let taken_over = Known { committed: commit(60, "c/t/b"), ..kept };
        let opening = plan("c/t/b", Some("c/t/a"), true, ResetPolicy::Latest, &[taken_over]);
        assert_eq!(first(&opening), 60, "another instance was there before");
    }

    proptest! {
        #[test]
        fn a_start_is_always_readable_and_names_what_is_lost(
            low in 0..50_i64, len in 0..50_i64,
            stored in prop::option::of(0..150_i64), window_low in prop::option::of(0..150_i64),
            committed in prop::option::of((0..150_i64, prop::sample::select(vec!["", "c/t/a", "c/t/b", "c/t/-"]))),
            previous in prop::option::of(prop::sample::select(vec!["c/t/a", "c/t/b"])),
            anew: bool, earliest: bool,
        ) {
            let committed = committed.and_then(|(offset, name)| commit(offset, name));
            let known = Known { stored, window_low, committed: committed.clone(), ..known(low, low + len) };
            let reset = if earliest { ResetPolicy::Earliest } else { ResetPolicy::Latest };
            let opening = plan("c/t/a", previous, anew, reset, &[known]);
            let start = opening.starts[0];
            prop_assert!((low..=low + len).contains(&start.read_from));
            prop_assert!(start.first <= start.read_from && (start.first == start.read_from || start.read_from == low));
            prop_assert!(opening.new_epoch || (previous == Some("c/t/a") && !anew));
            if let (Some(commit), false) = (committed, opening.recreated) {
                let kept = previous.and(stored).is_some();
                let valid = same_log(&commit.metadata, "c/t/a");
                prop_assert!(kept || !valid || start.first <= commit.offset, "a valid commit is never jumped over");
            }
        }
    }
}
