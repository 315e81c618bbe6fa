//! Why reading a topic failed, and what the one who reads can do about it.

use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::kafka::errors::ErrorType;

/// How long nothing may come while something must.
pub(super) const SILENCE: Duration = Duration::from_secs(25);

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client's configuration is wrong.
    #[error("cannot create a Kafka client; check the brokers and the security settings")]
    Client(#[source] KafkaError),
    /// The topic is not there.
    #[error(
        "topic {0} does not exist; name the right one with --topic or KAFKA_TOPIC; `dashstream topics list` shows them"
    )]
    Missing(String),
    /// Kafka does not answer, or refuses.
    #[error("cannot read topic {topic}: {}{}", advice(*kind), said(reason))]
    Read {
        /// The topic.
        topic: String,
        /// What kind of fault it is.
        kind: Option<ErrorType>,
        /// What else the client told; may be empty.
        reason: String,
        /// What Kafka said.
        source: Box<KafkaError>,
    },
    /// Nobody has the records.
    #[error(
        "topic {topic}: nobody leads {}, so not everything can be read; try again when the brokers are back",
        listed(partitions)
    )]
    Leaderless {
        /// The topic.
        topic: String,
        /// Its partitions without a leader.
        partitions: Vec<i32>,
    },
    /// Kafka answers, but the records do not come.
    #[error(
        "topic {topic}: nothing came for {} s from partition {partition}, offset {offset} on; \
         check that the brokers answer, then try again", SILENCE.as_secs()
    )]
    Silence {
        /// The topic.
        topic: String,
        /// The first partition that is not read to its end.
        partition: i32,
        /// What should have come.
        offset: i64,
    },
    /// The log is another one than at the beginning, or than the offsets that were asked for are of.
    #[error(
        "topic {topic}: {} now ends before what was to be read: the topic was made anew, or has lost records; begin again",
        listed(partitions)
    )]
    WentBack {
        /// The topic.
        topic: String,
        /// Its partitions that are shorter.
        partitions: Vec<i32>,
    },
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn listed(partitions: &[i32]) -> String {
    let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
    format!("partition {}", numbers.join(", "))
}

/// What the one who reads can do about it.
const fn advice(kind: Option<ErrorType>) -> &'static str {
    match kind {
        Some(kind @ (ErrorType::Authentication | ErrorType::Tls)) => kind.advice(),
        Some(ErrorType::Authorization) => "the user lacks the permission to read it",
        Some(ErrorType::DnsFailure | ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Timeout) => {
            "no broker answers: check --brokers or KAFKA_BROKERS, KAFKA_SECURITY_PROTOCOL and the network"
        }
        Some(ErrorType::Corrupt) => "a record in Kafka is damaged",
        _ => "Kafka refuses",
    }
}

/// Whether such a fault ends reading, also of what is followed: waiting does not help.
pub(super) const fn is_final(kind: Option<ErrorType>) -> bool {
    matches!(
        kind,
        Some(
            ErrorType::Authentication
                | ErrorType::Authorization
                | ErrorType::Tls
                | ErrorType::Fatal
                | ErrorType::Corrupt
                | ErrorType::Unsupported
        )
    )
}
