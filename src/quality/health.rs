//! What is true about the exporter, for people and machines: facts in, a status with reasons out.
//!
//! It must not know where facts come from, or HTTP.

use std::time::Duration;

/// How long after the start a member that has not joined yet is only starting.
const STARTING: Duration = Duration::from_secs(30);
/// How long a turn of the reader may take: commits wait for an answer, and those have an end.
const STUCK: Duration = Duration::from_secs(60);

/// What is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Since the start.
    pub uptime: Duration,
    /// Since Kafka last answered the regular question about the topic; `None`: never.
    pub contact_age: Option<Duration>,
    /// How often it is asked.
    pub asked_every: Duration,
    /// Whether Kafka says that there is no such topic.
    pub topic_missing: bool,
    /// Whether the group counts on this process.
    pub member: bool,
    /// Since the reader last began a turn.
    pub turn_age: Duration,
    /// The last fault of Kafka: its age, and what it was.
    pub last_fault: Option<(Duration, String)>,
    /// Whether the process is about to end.
    pub draining: bool,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It reads, and everything answers.
    Healthy,
    /// Kafka was not reached yet.
    Starting,
    /// Kafka, the topic or the group is away; it goes on by itself.
    Reconnecting,
    /// The reader hangs.
    Stuck,
    /// It is about to end.
    Draining,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Starting, Self::Reconnecting, Self::Stuck, Self::Draining];

    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Reconnecting => "reconnecting",
            Self::Stuck => "stuck",
            Self::Draining => "draining",
        }
    }

    /// Whether what is scraped now is up to date.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Healthy)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reason {
    /// Its name.
    pub code: &'static str,
    /// What it is.
    pub detail: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// Names of reasons.
pub const REASONS: [&str; 5] = ["draining", "reader_stuck", "kafka_unreachable", "topic_missing", "not_a_member"];

/// The status, and why.
pub fn assess(facts: &Facts) -> (Status, Vec<Reason>) {
    let mut reasons = Vec::new();
    let mut status = Status::Healthy;
    let mut wrong = |worse: Status, code: &'static str, detail: String, hint: &'static str| {
        if status == Status::Healthy {
            status = worse;
        }
        reasons.push(Reason { code, detail, hint });
    };
    if facts.draining {
        wrong(Status::Draining, "draining", "the exporter is about to end".into(), "nothing to do");
    }
    if facts.turn_age >= STUCK {
        let detail = format!("the reader has been at one turn for {} s", facts.turn_age.as_secs());
        wrong(
            Status::Stuck,
            "reader_stuck",
            detail,
            "restart the exporter; offsets are committed after they are counted",
        );
    }
    let away = if facts.uptime < STARTING { Status::Starting } else { Status::Reconnecting };
    let fault = facts.last_fault.as_ref().map(|(age, fault)| format!("; {} s ago: {fault}", age.as_secs()));
    let fault = fault.unwrap_or_default();
    // A question may take a few seconds, and one that fails alone is no outage.
    let patience = facts.asked_every.saturating_mul(2) + Duration::from_secs(10);
    match facts.contact_age {
        Some(age) if age < patience => {
            if facts.topic_missing {
                let hint = "create the topic, or correct KAFKA_TOPIC; the exporter waits for it";
                wrong(Status::Reconnecting, "topic_missing", "the topic does not exist".into(), hint);
            } else if !facts.member {
                let hint = "wait for the group; see whether another process holds its coordinator up";
                wrong(away, "not_a_member", format!("the group has not answered{fault}"), hint);
            }
        }
        age => {
            let since = age.map_or("never answered".into(), |age| format!("has not answered for {} s", age.as_secs()));
            let hint = "check KAFKA_BROKERS, the KAFKA_SECURITY, KAFKA_SASL and KAFKA_SSL settings, and the network; connecting goes on";
            let worse = if age.is_none() { away } else { Status::Reconnecting };
            wrong(worse, "kafka_unreachable", format!("Kafka {since}{fault}"), hint);
        }
    }
    (status, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Facts {
        Facts {
            uptime: Duration::from_secs(600),
            contact_age: Some(Duration::from_secs(5)),
            asked_every: Duration::from_secs(10),
            topic_missing: false,
            member: true,
            turn_age: Duration::from_millis(100),
            last_fault: Some((Duration::from_secs(500), "timeout".into())),
            draining: false,
        }
    }

    #[test]
    fn each_fact_has_its_status_and_reason_and_an_idle_topic_is_healthy() {
        let seconds = Duration::from_secs;
        assert_eq!(assess(&well()), (Status::Healthy, Vec::new()));
        for (facts, status, code) in [
            (Facts { draining: true, ..well() }, Status::Draining, "draining"),
            (Facts { turn_age: seconds(61), ..well() }, Status::Stuck, "reader_stuck"),
            (Facts { contact_age: None, ..well() }, Status::Reconnecting, "kafka_unreachable"),
            (Facts { contact_age: None, uptime: seconds(1), ..well() }, Status::Starting, "kafka_unreachable"),
            (Facts { contact_age: Some(seconds(31)), ..well() }, Status::Reconnecting, "kafka_unreachable"),
            (Facts { topic_missing: true, member: false, ..well() }, Status::Reconnecting, "topic_missing"),
            (Facts { member: false, ..well() }, Status::Reconnecting, "not_a_member"),
            (Facts { member: false, uptime: seconds(2), ..well() }, Status::Starting, "not_a_member"),
        ] {
            let (found, reasons) = assess(&facts);
            assert_eq!((found, reasons.first().map(|reason| reason.code)), (status, Some(code)), "{facts:?}");
            assert!(REASONS.contains(&code) && !found.is_ready());
        }
    }

    #[test]
    fn the_last_fault_is_told_with_what_it_may_have_caused() {
        let (_, reasons) = assess(&Facts { contact_age: None, ..well() });
        assert!(reasons[0].detail.contains("timeout"), "{reasons:?}");
    }
}
