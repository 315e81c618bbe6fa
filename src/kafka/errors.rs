//! Kafka's error codes in the words of this service: a closed set of labels, and which codes are no fault at all.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What kind of fault an error is. The labels are those of the metrics and of `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorType {
    /// A broker's name does not resolve.
    DnsFailure,
    /// No connection, or a connection that broke.
    BrokerDown,
    /// No broker at all can be reached.
    AllBrokersDown,
    /// No answer in time.
    Timeout,
    /// The credentials were refused.
    Authentication,
    /// The credentials are good, but not for this.
    Authorization,
    /// TLS failed.
    Tls,
    /// The topic or partition does not exist.
    TopicMissing,
    /// The partition's leader is moving or away.
    Leader,
    /// The group's coordinator is moving or away.
    Coordinator,
    /// The group is rebalancing, or forgot this member.
    Group,
    /// Another process uses this member id.
    Fenced,
    /// The offset asked for is not in the log.
    OffsetOutOfRange,
    /// Records that cannot be read: checksum, compression, format.
    Corrupt,
    /// The broker does not know the request.
    Unsupported,
    /// The client gave up.
    Fatal,
    /// Anything else.
    Unknown,
}

impl ErrorType {
    /// Every type, for metrics that must exist before their first event.
    pub const ALL: [Self; 17] = [
        Self::DnsFailure,
        Self::BrokerDown,
        Self::AllBrokersDown,
        Self::Timeout,
        Self::Authentication,
        Self::Authorization,
        Self::Tls,
        Self::TopicMissing,
        Self::Leader,
        Self::Coordinator,
        Self::Group,
        Self::Fenced,
        Self::OffsetOutOfRange,
        Self::Corrupt,
        Self::Unsupported,
        Self::Fatal,
        Self::Unknown,
    ];

    /// The label value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::DnsFailure => "dns_failure",
            Self::BrokerDown => "broker_down",
            Self::AllBrokersDown => "all_brokers_down",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Tls => "tls",
            Self::TopicMissing => "topic_missing",
            Self::Leader => "leader_unavailable",
            Self::Coordinator => "coordinator_unavailable",
            Self::Group => "group",
            Self::Fenced => "fenced",
            Self::OffsetOutOfRange => "offset_out_of_range",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Fatal => "fatal",
            Self::Unknown => "unknown",
        }
    }

    /// What an operator can do about it, where the error alone does not say.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::DnsFailure | Self::BrokerDown | Self::AllBrokersDown | Self::Timeout => {
                "check KAFKA_BROKERS and the network; connecting goes on"
            }
            Self::Authentication => {
                "Kafka refused the credentials: check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            }
            Self::Authorization => "the user lacks a permission on the topic or the group",
            Self::Tls => "check KAFKA_SECURITY_PROTOCOL and the KAFKA_SSL settings",
            Self::TopicMissing => "the topic does not exist: create it or correct KAFKA_TOPIC; waiting for it",
            Self::Fenced => "another process uses the same KAFKA_GROUP_INSTANCE_ID: give each process its own",
            _ => "trying again",
        }
    }
}

/// The type of a code, or `None` when it reports no fault.
pub fn classify(code: Code) -> Option<ErrorType> {
    Some(match code {
        Code::NoError
        | Code::PartitionEOF
        | Code::NoOffset
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::AssignPartitions
        | Code::RevokePartitions
        | Code::Noop => return None,
        Code::Resolve => ErrorType::DnsFailure,
        Code::BrokerTransportFailure
        | Code::BrokerNotAvailable
        | Code::UnknownBroker
        | Code::NodeUpdate
        | Code::NetworkException => ErrorType::BrokerDown,
        Code::AllBrokersDown => ErrorType::AllBrokersDown,
        Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::PollExceeded => ErrorType::Timeout,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => ErrorType::Authentication,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorType::Authorization,
        Code::SSL => ErrorType::Tls,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::InvalidTopic => {
            ErrorType::TopicMissing
        }
        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::KafkaStorageError => ErrorType::Leader,
        Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator => ErrorType::Coordinator,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::MemberIdRequired
        | Code::InconsistentGroupProtocol
        | Code::AssignmentLost
        | Code::GroupMaxSizeReached
        | Code::UnknownGroup => ErrorType::Group,
        Code::Fenced | Code::FencedInstanceId => ErrorType::Fenced,
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::LogTruncation => ErrorType::OffsetOutOfRange,
        Code::BadMessage
        | Code::BadCompression
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::Underflow
        | Code::UnsupportedCompressionType => ErrorType::Corrupt,
        Code::UnsupportedFeature | Code::UnsupportedVersion | Code::NotImplemented => ErrorType::Unsupported,
        Code::Fatal => ErrorType::Fatal,
        _ => ErrorType::Unknown,
    })
}

/// Whether a position is not in the log: retention has passed it, or the log is another one. The error names no partition.
pub const fn is_lost_position(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation)
}

/// The type of an error of the client library, or `None` when it reports no fault.
pub fn classify_error(error: &KafkaError) -> Option<ErrorType> {
    match error {
        KafkaError::PartitionEOF(_) => None,
        KafkaError::MessageConsumptionFatal(code) => match classify(*code) {
            Some(ErrorType::Fenced) => Some(ErrorType::Fenced),
            _ => Some(ErrorType::Fatal),
        },
        error => error_code(error).map_or(Some(ErrorType::Unknown), classify),
    }
}

/// The code of an error, also of answers to requests of administrators, of which the client library keeps it to itself.
pub fn error_code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct() {
        let labels: BTreeSet<_> = ErrorType::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), ErrorType::ALL.len());
    }

    #[test]
    fn faults_of_the_surroundings_have_labels_of_their_own_and_ends_of_partitions_are_none() {
        for (code, kind) in [
            (Code::Resolve, ErrorType::DnsFailure),
            (Code::BrokerTransportFailure, ErrorType::BrokerDown),
            (Code::AllBrokersDown, ErrorType::AllBrokersDown),
            (Code::OperationTimedOut, ErrorType::Timeout),
            (Code::Authentication, ErrorType::Authentication),
            (Code::TopicAuthorizationFailed, ErrorType::Authorization),
            (Code::UnknownTopicOrPartition, ErrorType::TopicMissing),
            (Code::AutoOffsetReset, ErrorType::OffsetOutOfRange),
        ] {
            assert_eq!(classify_error(&KafkaError::MessageConsumption(code)), Some(kind));
            assert_eq!(classify_error(&KafkaError::Global(code)), Some(kind));
            assert_eq!(classify_error(&KafkaError::AdminOp(code)), Some(kind));
        }
        assert_eq!(classify_error(&KafkaError::PartitionEOF(3)), None);
        assert_eq!(classify_error(&KafkaError::Global(Code::PartitionEOF)), None);
        assert_eq!(classify_error(&KafkaError::ConsumerCommit(Code::NoOffset)), None);
        let fatal = |code| classify_error(&KafkaError::MessageConsumptionFatal(code));
        assert_eq!(fatal(Code::FencedInstanceId), Some(ErrorType::Fenced));
        assert_eq!(fatal(Code::Unknown), Some(ErrorType::Fatal));
    }

    #[test]
    fn a_position_that_is_not_in_the_log_is_told_by_any_of_its_codes() {
        let lost = |code: &Code| classify(*code) == Some(ErrorType::OffsetOutOfRange);
        let codes = [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::LogTruncation, Code::BadMessage, Code::Fatal];
        assert!(codes.iter().all(|code| is_lost_position(*code) == lost(code)));
    }
}
