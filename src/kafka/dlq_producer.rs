//! Sends dead letters: a producer that waits for all replicas, and failures sorted by their typed codes.
//!
//! One call is one try with a time limit; it must not retry, count or know what a letter means.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::monitor::{KafkaMonitor, log_library};

/// How letters are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DlqProducerSettings {
    /// The topic of the letters.
    pub topic: String,
    /// How long Kafka may take to acknowledge a letter.
    pub send_timeout: Duration,
}

/// What went wrong with one try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sending a dead letter to topic {topic} failed: {source}")]
pub struct SendError {
    /// Where it should have gone.
    pub topic: String,
    /// Whether the time limit was reached.
    pub timed_out: bool,
    /// Whether another try may succeed.
    pub retryable: bool,
    /// Whether it is this letter that Kafka does not take; others may land.
    pub refused: bool,
    /// What the client said.
    pub source: KafkaError,
}

/// Where faults of the producer's connections go. Letters that fail are told by their answer.
#[derive(Clone)]
struct DlqContext(Arc<KafkaMonitor>);

impl ClientContext for DlqContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_library("dlq", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.fault("dlq", "connect", &error, reason);
    }
}

/// A Kafka producer for one topic.
pub struct DlqProducer {
    /// Taken only on drop.
    producer: Option<FutureProducer<DlqContext>>,
    topic: String,
}

impl std::fmt::Debug for DlqProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DlqProducer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DlqProducer {
    /// A producer on top of `config`, the common settings of all clients. It connects in the background, and faults of its
    /// connections go to `monitor`.
    ///
    /// # Errors
    /// When the client refuses the configuration.
    pub fn new(
        mut config: ClientConfig,
        settings: &DlqProducerSettings,
        monitor: Arc<KafkaMonitor>,
    ) -> Result<Self, KafkaError> {
        config
            .set("message.timeout.ms", settings.send_timeout.as_millis().max(1).to_string())
            // A repeated letter has the same key and is recognisably the same one, so idempotence, with its fatal errors, would
            // buy nothing.
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("compression.type", "zstd")
            // Letters are bounded by their builder; here only the broker's limit shall decide.
            .set("message.max.bytes", "10000000");
        let producer = config.create_with_context(DlqContext(monitor))?;
        Ok(Self { producer: Some(producer), topic: settings.topic.clone() })
    }

    /// Sends one letter and waits until Kafka has it, at most the time limit.
    ///
    /// # Errors
    /// [`SendError`], with the cause and whether to try again.
    pub async fn send<'a>(
        &self,
        key: &str,
        payload: &[u8],
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<(), SendError> {
        let headers = headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value }));
        let record = FutureRecord::to(&self.topic).key(key).payload(payload).headers(headers);
        let sent = match &self.producer {
            Some(producer) => producer.send(record, Duration::ZERO).await.map_err(|(error, _)| error),
            None => Err(KafkaError::Canceled),
        };
        sent.map(drop).map_err(|source| {
            let (timed_out, retryable) = classify(&source);
            let refused = matches!(
                source.rdkafka_error_code(),
                Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidRecord)
            );
            SendError { topic: self.topic.clone(), timed_out, retryable, refused, source }
        })
    }
}

impl Drop for DlqProducer {
    /// Closing the client blocks for up to seconds when the brokers are away, so it gets a thread of its own.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            // Without a thread the closure is dropped here, and the client with it.
            let _closing = std::thread::Builder::new().name("dlq-producer-close".into()).spawn(move || drop(producer));
        }
    }
}

/// Whether the time limit was reached, and whether another try may succeed.
fn classify(error: &KafkaError) -> (bool, bool) {
    let Some(code) = error.rdkafka_error_code() else { return (false, false) };
    match code {
        // The client has retried until the limit; a further round would only hold the place of another letter.
        Code::MessageTimedOut | Code::OperationTimedOut | Code::TimedOutQueue => (true, false),
        Code::RequestTimedOut => (true, true),
        Code::QueueFull
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::UnknownTopicOrPartition
        | Code::ThrottlingQuotaExceeded => (false, true),
        _ => (false, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_their_code() {
        let of = |code| classify(&KafkaError::MessageProduction(code));
        assert_eq!(of(Code::MessageTimedOut), (true, false));
        assert_eq!(of(Code::RequestTimedOut), (true, true));
        assert_eq!(of(Code::NotEnoughReplicas), (false, true));
        assert_eq!(of(Code::MessageSizeTooLarge), (false, false));
        assert_eq!(of(Code::TopicAuthorizationFailed), (false, false));
        assert_eq!(classify(&KafkaError::Canceled), (false, false));
    }
}
