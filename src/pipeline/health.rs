//! What `/health` says: facts in, status with reasons out. It must not know how facts are gathered or shown.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::decode::Kind;
use super::verdict::{Code, Reason, Status};

/// Span of the windowed figures.
pub const WINDOW: Duration = Duration::from_secs(120);
/// Below this many records in the window an error rate says nothing.
const MIN_SAMPLES: u64 = 100;
/// An error rate above this degrades the service.
const MAX_ERROR_RATE: f64 = 0.01;
/// Kafka counts as lost when there was no contact for this long.
pub const KAFKA_LOST: Duration = Duration::from_secs(10);
/// Joining the group may take this long: the session of a predecessor elsewhere has to run out first.
const JOIN_TOLERATED: Duration = Duration::from_secs(20);
/// An actor's restart is told for this long.
const RESTART_TOLD: Duration = Duration::from_secs(30);

/// What became of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Records judged.
    pub messages: u64,
    /// Of these, unprocessable.
    pub decode_errors: u64,
    /// Of these, null or empty.
    pub payload_missing: u64,
}

impl Judged {
    const fn since(self, earlier: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(earlier.messages),
            decode_errors: self.decode_errors.saturating_sub(earlier.decode_errors),
            payload_missing: self.payload_missing.saturating_sub(earlier.payload_missing),
        }
    }

    /// Whether so many of these, found bad, are more than a producer's odd mistake.
    fn too_many(&self, bad: u64) -> bool {
        self.messages >= MIN_SAMPLES && bad as f64 / self.messages as f64 > MAX_ERROR_RATE
    }
}

/// The counters that `/health` shows over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All records.
    pub all: Judged,
    /// Of these, the ones that came after reading had begun, and not what was caught up with.
    pub new: Judged,
    /// Faults of Kafka or the network.
    pub infrastructure_errors: u64,
    /// Sends that failed.
    pub send_failed: u64,
    /// Clients that did not read in time.
    pub send_timeout: u64,
    /// Dead letters lost.
    pub dlq_failures: u64,
    /// Offsets lost before they could be read.
    pub lost_offsets: u64,
    /// Records that were not written to Redis because too much was waiting.
    pub redis_dropped: u64,
    /// Streams that Redis has lost.
    pub redis_emptied: u64,
}

impl Counts {
    fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all.since(earlier.all),
            new: self.new.since(earlier.new),
            infrastructure_errors: self.infrastructure_errors.saturating_sub(earlier.infrastructure_errors),
            send_failed: self.send_failed.saturating_sub(earlier.send_failed),
            send_timeout: self.send_timeout.saturating_sub(earlier.send_timeout),
            dlq_failures: self.dlq_failures.saturating_sub(earlier.dlq_failures),
            lost_offsets: self.lost_offsets.saturating_sub(earlier.lost_offsets),
            redis_dropped: self.redis_dropped.saturating_sub(earlier.redis_dropped),
            redis_emptied: self.redis_emptied.saturating_sub(earlier.redis_emptied),
        }
    }
}

/// Windowed figures from samples of the lifetime counters: nothing is paid per record.
#[derive(Debug, Default)]
pub struct Samples(VecDeque<(Instant, Counts)>);

impl Samples {
    /// Keeps a sample; those that the window no longer needs go.
    pub fn add(&mut self, now: Instant, counts: Counts) {
        self.0.push_back((now, counts));
        // The newest sample at or beyond the window's far edge is the base to subtract.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// What was counted in the window that ends now.
    pub fn windowed(&self, now: Instant, counts: Counts) -> Counts {
        let base = self
            .0
            .iter()
            .rev()
            .find(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
            .map_or(Counts::default(), |(_, base)| *base);
        counts.since(base)
    }
}

/// An actor, as the supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorFacts {
    /// Its name.
    pub name: &'static str,
    /// Whether it runs.
    pub up: bool,
    /// Time since it was last restarted, if it ever was.
    pub restarted: Option<Duration>,
}

/// Everything that the status depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The service is stopping.
    pub draining: bool,
    /// Time since the start.
    pub uptime: Duration,
    /// Time since Kafka last answered; `None` when it never did.
    pub kafka_contact: Option<Duration>,
    /// The topic is not there.
    pub topic_missing: bool,
    /// The positions of the topic are known, reading has begun.
    pub reading: bool,
    /// How long the group has not counted on this process, if it does not.
    pub not_member: Option<Duration>,
    /// Records that cannot be processed, at which ingest stands still.
    pub stands_at: Vec<StandsAt>,
    /// Dead letters that cannot be written and hold the offsets of their records.
    pub dead_letters_blocked: Option<DeadLettersBlocked>,
    /// Redis does not take history.
    pub redis_failing: Option<RedisFailing>,
    /// The bytes in flight are at their limit for this long: a stage does not keep up or is stuck.
    pub credit_exhausted: Option<Duration>,
    /// Owned partitions that lie behind and in which nothing was handled for longer than is tolerated.
    pub stuck: Vec<i32>,
    /// The actors.
    pub actors: Vec<ActorFacts>,
    /// Figures over the window.
    pub window: Counts,
}

/// A record at which ingest stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandsAt {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What is wrong with it.
    pub kind: Kind,
    /// Whether this instance owns the partition, so that its operator decides.
    pub ours: bool,
    /// For how long.
    pub since: Duration,
}

/// Dead letters that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersBlocked {
    /// For how long.
    pub since: Duration,
    /// How many.
    pub letters: usize,
    /// The partitions whose offsets wait.
    pub partitions: Vec<i32>,
}

/// Redis does not take history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisFailing {
    /// For how long.
    pub since: Duration,
    /// The kind of the fault.
    pub fault: &'static str,
    /// What it said.
    pub error: String,
    /// Whether offsets wait for it.
    pub required: bool,
}

/// The rule. The worst finding gives the status, all are told.
pub fn assess(facts: &Facts) -> (Status, Vec<Reason>) {
    let mut status = Status::Healthy;
    let mut reasons = Vec::new();
    let mut found = |at_least: Status, code: Code, detail: String, hint| {
        status = status.max(at_least);
        reasons.push(Reason { code, detail, hint });
    };
    if facts.draining {
        found(Status::Draining, Code::Draining, "the service is stopping".into(), "clients reconnect elsewhere");
    }
    for StandsAt { partition, offset, kind, ours, .. } in &facts.stands_at {
        let record = format!("partition {partition}, offset {offset} ({})", kind.as_str());
        if *ours {
            let hint = "inspect the dead letter, then: dashstream ingest continue --retry or --set-aside";
            found(Status::Paused, Code::Paused, format!("ingest stands still at {record}"), hint);
        } else {
            let hint = "decide at the instance that owns the partition; this one follows";
            found(Status::Paused, Code::WaitingForOwner, format!("waiting at {record}"), hint);
        }
    }
    if let Some(DeadLettersBlocked { since, letters, partitions }) = &facts.dead_letters_blocked {
        let seconds = since.as_secs();
        let detail =
            format!("{letters} dead letters cannot be written for {seconds} s; partitions {partitions:?} hold");
        let hint = "check that the dead-letter topic exists and takes records; it goes on by itself";
        found(Status::Degraded, Code::DeadLettersBlocked, detail, hint);
    }
    kafka(facts, &mut found);
    if let Some(RedisFailing { since, fault, error, required }) = &facts.redis_failing {
        let detail = format!("redis takes no history for {} s: {fault}: {error}", since.as_secs());
        let hint = if *required {
            "offsets are not committed until it does; it goes on by itself"
        } else {
            "clients are served from memory and Kafka; it goes on by itself"
        };
        found(Status::Degraded, Code::RedisUnreachable, detail, hint);
    }
    if let Some(since) = facts.credit_exhausted.filter(|since| *since >= Duration::from_secs(5)) {
        let detail = format!("the bytes in flight have been at their limit for {} s", since.as_secs());
        found(Status::Degraded, Code::PipelineFull, detail, "a stage does not keep up; see dashstream_in_flight_bytes");
    }
    if !facts.stuck.is_empty() {
        let detail = format!("partitions {:?} lie behind and do not move", facts.stuck);
        found(Status::Degraded, Code::PartitionStuck, detail, "see websocket_kafka_consumer_lag and the log");
    }
    for actor in &facts.actors {
        if !actor.up {
            let detail = format!("{} is down", actor.name);
            found(Status::Degraded, Code::ActorDown, detail, "it is being restarted; see the log for the cause");
        } else if let Some(ago) = actor.restarted.filter(|ago| *ago < RESTART_TOLD) {
            let detail = format!("{} was restarted {} s ago", actor.name, ago.as_secs());
            found(Status::Degraded, Code::ActorRestarted, detail, "see the log for the cause");
        }
    }
    rates(&facts.window, &mut found);
    (status, reasons)
}

fn kafka(facts: &Facts, found: &mut impl FnMut(Status, Code, String, &'static str)) {
    match facts.kafka_contact {
        None if facts.uptime < KAFKA_LOST => {
            found(Status::Starting, Code::KafkaConnecting, "no answer from Kafka yet".into(), "wait a moment");
        }
        None => found(
            Status::Reconnecting,
            Code::KafkaUnreachable,
            "Kafka has never answered".into(),
            "check KAFKA_BROKERS, the network and the security settings",
        ),
        Some(ago) if ago >= KAFKA_LOST => {
            let detail = format!("no answer from Kafka for {} s", ago.as_secs());
            found(Status::Reconnecting, Code::KafkaUnreachable, detail, "check the brokers and the network");
        }
        Some(_) if facts.topic_missing => found(
            Status::Reconnecting,
            Code::TopicMissing,
            "the topic does not exist".into(),
            "create it, or check KAFKA_TOPIC; reading begins by itself",
        ),
        Some(_) if !facts.reading => {
            found(Status::Starting, Code::ReadingPositions, "finding where to read".into(), "wait a moment");
        }
        Some(_) => {
            if let Some(since) = facts.not_member.filter(|since| *since >= JOIN_TOLERATED) {
                let detail = format!("not a member of the consumer group for {} s", since.as_secs());
                found(
                    Status::Degraded,
                    Code::NotInGroup,
                    detail,
                    "clients are served, but this instance commits nothing and writes no dead letters; see the log",
                );
            }
        }
    }
}

fn rates(window: &Counts, found: &mut impl FnMut(Status, Code, String, &'static str)) {
    // What is caught up with may be so much that new bad records drown in it, and so little that it drowns in new ones.
    let worst = |bad: fn(&Judged) -> u64| {
        let groups = [("new records", window.new), ("records", window.all)];
        let (name, group) = groups.into_iter().find(|(_, group)| group.too_many(bad(group)))?;
        Some(format!("{} of {} {name}", bad(&group), group.messages))
    };
    if let Some(share) = worst(|group| group.payload_missing) {
        let detail = format!("{share} had no payload");
        found(Status::Degraded, Code::PayloadMissingRate, detail, "a producer sends null values; see the dead letters");
    }
    if let Some(share) = worst(|group| group.decode_errors.saturating_sub(group.payload_missing)) {
        let detail = format!("{share} could not be decoded");
        found(
            Status::Degraded,
            Code::DecodeErrorRate,
            detail,
            "see websocket_decode_errors_total and the dead letters",
        );
    }
    if window.dlq_failures > 0 {
        let detail = format!("{} dead letters were lost", window.dlq_failures);
        found(
            Status::Degraded,
            Code::DeadLettersLost,
            detail,
            "check that the dead-letter topic exists and is writable",
        );
    }
    if window.redis_dropped > 0 {
        let detail = format!("{} records were not written to redis", window.redis_dropped);
        found(Status::Degraded, Code::RedisWritesDropped, detail, "clients get them from Kafka; see redis_unreachable");
    }
    if window.redis_emptied > 0 {
        let detail = format!("redis has lost {} streams of history", window.redis_emptied);
        let hint = "clients get them from Kafka; if nobody flushed it, it evicts: see maxmemory and its policy";
        found(Status::Degraded, Code::RedisEmptied, detail, hint);
    }
    if window.lost_offsets > 0 {
        let detail = format!("{} offsets were gone before they could be read", window.lost_offsets);
        found(
            Status::Degraded,
            Code::OffsetsLost,
            detail,
            "retention is shorter than the backlog; raise it or scale out",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fine() -> Facts {
        Facts {
            uptime: Duration::from_secs(3600),
            kafka_contact: Some(Duration::from_secs(1)),
            reading: true,
            actors: vec![ActorFacts { name: "ReplayStore", up: true, restarted: None }],
            ..Facts::default()
        }
    }

    fn judged(messages: u64, decode_errors: u64, payload_missing: u64) -> Judged {
        Judged { messages, decode_errors, payload_missing }
    }

    fn all(messages: u64, decode_errors: u64, payload_missing: u64) -> Counts {
        Counts { all: judged(messages, decode_errors, payload_missing), ..Counts::default() }
    }

    fn codes(facts: &Facts) -> (Status, Vec<Code>) {
        let (status, reasons) = assess(facts);
        (status, reasons.iter().map(|reason| reason.code).collect())
    }

    #[test]
    fn an_idle_topic_is_healthy() {
        assert_eq!(codes(&fine()), (Status::Healthy, vec![]));
    }

    #[test]
    fn each_fault_alone_has_its_own_reason() {
        let secs = Duration::from_secs;
        let window = |counts| Facts { window: counts, ..fine() };
        let stands = |ours| StandsAt { partition: 2, offset: 7, kind: Kind::Internal, ours, since: secs(9) };
        let blocked = DeadLettersBlocked { since: secs(3), letters: 5, partitions: vec![0, 2] };
        let redis = |required| RedisFailing { since: secs(1), fault: "timeout", error: "no answer".into(), required };
        let table = [
            (Facts { draining: true, ..fine() }, Status::Draining, Code::Draining),
            (Facts { stands_at: vec![stands(true)], ..fine() }, Status::Paused, Code::Paused),
            (Facts { stands_at: vec![stands(false)], ..fine() }, Status::Paused, Code::WaitingForOwner),
            (Facts { dead_letters_blocked: Some(blocked), ..fine() }, Status::Degraded, Code::DeadLettersBlocked),
            (Facts { kafka_contact: None, uptime: secs(2), ..fine() }, Status::Starting, Code::KafkaConnecting),
            (Facts { kafka_contact: None, ..fine() }, Status::Reconnecting, Code::KafkaUnreachable),
            (Facts { kafka_contact: Some(secs(10)), ..fine() }, Status::Reconnecting, Code::KafkaUnreachable),
            (Facts { topic_missing: true, ..fine() }, Status::Reconnecting, Code::TopicMissing),
            (Facts { reading: false, ..fine() }, Status::Starting, Code::ReadingPositions),
            (Facts { stuck: vec![3], ..fine() }, Status::Degraded, Code::PartitionStuck),
            (Facts { not_member: Some(secs(20)), ..fine() }, Status::Degraded, Code::NotInGroup),
            (Facts { credit_exhausted: Some(secs(5)), ..fine() }, Status::Degraded, Code::PipelineFull),
            (window(all(100, 2, 0)), Status::Degraded, Code::DecodeErrorRate),
            (window(all(100, 30, 30)), Status::Degraded, Code::PayloadMissingRate),
            (window(Counts { dlq_failures: 1, ..Counts::default() }), Status::Degraded, Code::DeadLettersLost),
            (window(Counts { lost_offsets: 1, ..Counts::default() }), Status::Degraded, Code::OffsetsLost),
            (Facts { redis_failing: Some(redis(false)), ..fine() }, Status::Degraded, Code::RedisUnreachable),
            (Facts { redis_failing: Some(redis(true)), ..fine() }, Status::Degraded, Code::RedisUnreachable),
            (window(Counts { redis_dropped: 1, ..Counts::default() }), Status::Degraded, Code::RedisWritesDropped),
            (window(Counts { redis_emptied: 1, ..Counts::default() }), Status::Degraded, Code::RedisEmptied),
        ];
        let mut told = BTreeSet::from([Code::ActorDown, Code::ActorRestarted]);
        for (facts, status, code) in table {
            assert_eq!(codes(&facts), (status, vec![code]), "{facts:?}");
            told.insert(code);
        }
        let all = schemars::schema_for!(Code);
        assert_eq!(Some(told.len()), all.get("oneOf").and_then(|all| Some(all.as_array()?.len())), "{told:?}");
        let actor = |up, restarted| ActorFacts { name: "DecodePolicy", up, restarted };
        let down = Facts { actors: vec![actor(false, None)], ..fine() };
        assert_eq!(codes(&down), (Status::Degraded, vec![Code::ActorDown]));
        let restarted = Facts { actors: vec![actor(true, Some(secs(3)))], ..fine() };
        assert_eq!(codes(&restarted), (Status::Degraded, vec![Code::ActorRestarted]));
        let long_ago = Facts { actors: vec![actor(true, Some(secs(60)))], ..fine() };
        assert_eq!(codes(&long_ago), (Status::Healthy, vec![]));
    }

    #[test]
    fn one_error_of_few_records_degrades_nothing() {
        for few in [all(1, 1, 0), all(1, 1, 1), all(99, 50, 0)] {
            let window = Counts { new: few.all, ..few };
            assert_eq!(codes(&Facts { window, ..fine() }), (Status::Healthy, vec![]));
        }
        let window = Counts { new: judged(99, 50, 0), ..all(100_000, 50, 0) };
        assert_eq!(codes(&Facts { window, ..fine() }), (Status::Healthy, vec![]), "few new ones among many");
    }

    #[test]
    fn records_that_are_caught_up_with_do_not_hide_new_bad_ones_nor_new_ones_old_bad_ones() {
        let window = |old: Judged, new: Judged| {
            let sum = |of: fn(&Judged) -> u64| of(&old) + of(&new);
            let all = judged(sum(|j| j.messages), sum(|j| j.decode_errors), sum(|j| j.payload_missing));
            Facts { window: Counts { all, new, ..Counts::default() }, ..fine() }
        };
        let (many, few) = (judged(1_000_000, 0, 0), judged(400, 0, 0));
        let told = |old, new| assess(&window(old, new)).1.into_iter().map(|reason| reason.detail).collect::<Vec<_>>();
        let none = Vec::<String>::new();
        assert_eq!(told(many, judged(400, 20, 0)), ["20 of 400 new records could not be decoded"]);
        assert_eq!(told(many, judged(400, 20, 20)), ["20 of 400 new records had no payload"]);
        assert_eq!(told(many, judged(400, 4, 0)), none, "1 % is tolerated");
        assert_eq!(told(judged(400, 20, 0), few), ["20 of 800 records could not be decoded"], "old ones count as well");
        assert_eq!(told(judged(1_000_000, 400, 0), few), none, "few among all, and none of the new ones");
        // Bad throughout: one reason.
        assert_eq!(told(judged(1_000, 50, 0), judged(1_000, 50, 0)), ["50 of 1000 new records could not be decoded"]);
    }

    #[test]
    fn hours_of_good_records_do_not_hide_a_burst_of_bad_ones_and_the_burst_is_forgotten_in_time() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let (mut samples, mut total) = (Samples::default(), Counts::default());
        // Which second of which history reads as degraded; samples are taken once per second, as the service does.
        let mut pass = |seconds: std::ops::Range<u64>, each: u64, bad: u64| {
            let mut degraded = Vec::new();
            for second in seconds {
                total.all.messages += each;
                total.all.decode_errors += bad;
                let window = samples.windowed(at(second), total);
                if codes(&Facts { window, ..fine() }).0 == Status::Degraded {
                    degraded.push(second);
                }
                samples.add(at(second), total);
            }
            degraded
        };
        let hours = 3 * 3_600;
        assert_eq!(pass(0..hours, 1_000, 0), Vec::<u64>::new());
        // Ten seconds in which a quarter is bad: more than 1 % of the window after five of them.
        let burst = pass(hours..hours + 10, 1_000, 250);
        assert_eq!(burst, (hours + 4..hours + 10).collect::<Vec<_>>());
        let calm = pass(hours + 10..2 * hours, 1_000, 0);
        assert!(
            calm.first() == Some(&(hours + 10)) && calm.last() < Some(&(hours + 10 + WINDOW.as_secs())),
            "{calm:?}"
        );
        // And hours of bad records do not stick either.
        assert_eq!(pass(2 * hours..3 * hours, 1_000, 500).len() as u64, hours - 2);
        let calm = pass(3 * hours..4 * hours, 1_000, 0);
        assert!(calm.last() < Some(&(3 * hours + WINDOW.as_secs())), "{:?}", calm.last());
    }

    #[test]
    fn windowed_figures_rise_at_once_and_are_gone_after_the_window() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        // A number of its own for every figure.
        let counted = |by: u64| Counts {
            all: judged(10 * by, 3 * by, 2 * by),
            new: judged(9 * by, 2 * by, by),
            infrastructure_errors: 4 * by,
            send_failed: 5 * by,
            send_timeout: 6 * by,
            dlq_failures: 7 * by,
            lost_offsets: 8 * by,
            redis_dropped: 11 * by,
            redis_emptied: 12 * by,
        };
        let mut samples = Samples::default();
        samples.add(at(0), counted(0));
        assert_eq!(samples.windowed(at(1), counted(5)), counted(5));
        for second in 1..=121 {
            samples.add(at(second), counted(5));
        }
        assert_eq!(samples.windowed(at(121), counted(5)), counted(0));
        assert_eq!(samples.windowed(at(122), counted(12)), counted(7));
        assert!(samples.0.len() <= 122);
    }
}
