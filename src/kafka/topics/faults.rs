//! Why something about a topic failed, whether asking again may help, and what to tell the one who asked.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::SETTLE;
use crate::kafka::errors::{ErrorType, classify_error, error_code};
use crate::kafka::monitor::log_library;

/// Longer texts of brokers are cut.
const REASON_CHARS: usize = 300;

/// Why a topic was not created, deleted or looked at.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The client's configuration is wrong.
    #[error("cannot create a Kafka client; check the brokers and the security settings")]
    Client(#[source] KafkaError),
    /// The system refused what waiting needs.
    #[error("cannot wait for Kafka; the system refused what that needs")]
    Wait(#[source] std::io::Error),
    /// Kafka cannot be reached, or refuses.
    #[error("cannot {doing}; {}{}", advice(*kind, source), said(reason))]
    Kafka {
        /// What was to be done.
        doing: String,
        /// What kind of fault it is.
        kind: Option<ErrorType>,
        /// What else the client told about it; may be empty.
        reason: String,
        /// What the client said. Boxed, since this error is handed up through many results.
        source: Box<KafkaError>,
    },
    /// The brokers took the request, but nothing came of it in time.
    #[error("topic {topic} is not {awaited} after {} s; the brokers took the request, so look again", SETTLE.as_secs())]
    Unsettled {
        /// The topic.
        topic: String,
        /// What it should have become.
        awaited: &'static str,
    },
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// What the one who asked can do about it.
fn advice(kind: Option<ErrorType>, error: &KafkaError) -> &'static str {
    match (kind, error_code(error)) {
        (_, Some(Code::InvalidReplicationFactor)) => {
            "the cluster has fewer brokers than the replicas that were asked for"
        }
        (_, Some(Code::InvalidPartitions | Code::InvalidConfig | Code::PolicyViolation)) => {
            "the brokers do not allow such a topic: ask for other partitions, replicas or settings"
        }
        (_, Some(Code::InvalidTopic)) => "Kafka does not allow such a name",
        (_, Some(Code::TopicDeletionDisabled)) => "the brokers do not allow it: their delete.topic.enable is false",
        (Some(kind @ (ErrorType::Authentication | ErrorType::Tls)), _) => kind.advice(),
        (Some(ErrorType::Authorization), _) => "the user lacks the permission",
        (Some(ErrorType::DnsFailure | ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Timeout), _) => {
            "no broker answers: check KAFKA_BROKERS, KAFKA_SECURITY_PROTOCOL and the network"
        }
        _ => "Kafka refuses",
    }
}

/// What kind of fault an error is, and what was told about it. A question that no broker answers fails by its deadline; why
/// nobody does is known to the connection. What a broker did answer stands.
pub(in crate::kafka) fn cause(error: &KafkaError, told: Option<(ErrorType, String)>) -> (Option<ErrorType>, String) {
    let kind = classify_error(error);
    match told {
        Some((cause, reason)) if kind.is_none_or(follows) => (Some(cause), reason),
        _ => (kind, String::new()),
    }
}

/// Whether such a fault follows from many others, so that it must not hide them.
fn follows(kind: ErrorType) -> bool {
    matches!(kind, ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Timeout)
}

/// Whether asking again may help.
pub(in crate::kafka) fn passes(kind: Option<ErrorType>, error: &KafkaError) -> bool {
    let by_kind = kind.is_some_and(|kind| follows(kind) || kind == ErrorType::Leader);
    by_kind || error_code(error) == Some(Code::NotController)
}

/// What a client told by itself. A question only fails by its deadline, whatever the reason is; this knows more.
#[derive(Debug)]
pub(in crate::kafka) struct Told {
    client: &'static str,
    told: Mutex<Option<(ErrorType, String)>>,
}

impl Told {
    /// Of a client that is called so in the log.
    pub(in crate::kafka) const fn new(client: &'static str) -> Self {
        Self { client, told: Mutex::new(None) }
    }

    pub(in crate::kafka) fn take(&self) -> Option<(ErrorType, String)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library(self.client, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(kind) = classify_error(&error) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none() || !follows(kind) {
            *told = Some((kind, reason.chars().take(REASON_CHARS).collect()));
        }
    }
}

impl ConsumerContext for Told {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_that_pass_are_tried_again() {
        for (code, again) in [
            (Code::OperationTimedOut, true),
            (Code::RequestTimedOut, true),
            (Code::BrokerTransportFailure, true),
            (Code::LeaderNotAvailable, true),
            (Code::NotController, true),
            (Code::TopicAuthorizationFailed, false),
            (Code::Authentication, false),
            (Code::InvalidReplicationFactor, false),
            (Code::TopicAlreadyExists, false),
        ] {
            let error = KafkaError::AdminOp(code);
            assert_eq!(passes(classify_error(&error), &error), again, "{code}");
        }
    }

    #[test]
    fn why_a_connection_failed_is_not_hidden_by_what_follows_from_it() {
        let told = Told::new("topics");
        for code in [Code::BrokerTransportFailure, Code::Authentication, Code::AllBrokersDown] {
            told.error(KafkaError::Global(code), &"ä".repeat(1_000));
        }
        let (kind, reason) = told.take().unwrap();
        assert_eq!((kind, reason.chars().count()), (ErrorType::Authentication, REASON_CHARS));
        assert!(told.take().is_none());
    }
    #[test]
    fn what_a_broker_answered_stands_and_silence_is_explained_by_the_connection() {
        let told = |kind| Some((kind, "told".to_owned()));
        let silence = KafkaError::MetadataFetch(Code::OperationTimedOut);
        assert_eq!(cause(&silence, told(ErrorType::Tls)), (Some(ErrorType::Tls), "told".to_owned()));
        assert_eq!(cause(&silence, None), (Some(ErrorType::Timeout), String::new()));
        let answer = KafkaError::AdminOp(Code::TopicAuthorizationFailed);
        assert_eq!(cause(&answer, told(ErrorType::BrokerDown)), (Some(ErrorType::Authorization), String::new()));
    }
}
