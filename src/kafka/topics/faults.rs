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
        /// What the client said.
        source: KafkaError,
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

/// Whether asking again may help.
pub(super) fn passes(kind: Option<ErrorType>, error: &KafkaError) -> bool {
    let by_kind = matches!(
        kind,
        Some(ErrorType::Timeout | ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Leader)
    );
    by_kind || error_code(error) == Some(Code::NotController)
}

/// What a client told by itself. A question only fails by its deadline, whatever the reason is; this knows more.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<(ErrorType, String)>>);

impl Told {
    pub(super) fn take(&self) -> Option<(ErrorType, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library("topics", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(kind) = classify_error(&error) else { return };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That brokers are down follows from anything; it must not hide why.
        let follows = matches!(kind, ErrorType::BrokerDown | ErrorType::AllBrokersDown | ErrorType::Timeout);
        if told.is_none() || !follows {
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
        let told = Told::default();
        for code in [Code::BrokerTransportFailure, Code::Authentication, Code::AllBrokersDown] {
            told.error(KafkaError::Global(code), &"ä".repeat(1_000));
        }
        let (kind, reason) = told.take().unwrap();
        assert_eq!((kind, reason.chars().count()), (ErrorType::Authentication, REASON_CHARS));
        assert!(told.take().is_none());
    }
}
