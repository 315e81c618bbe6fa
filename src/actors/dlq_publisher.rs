//! Publishes dead letters to Kafka: retries, and decides the fate of each.
//!
//! In: [`PublishDeadLetter`], [`Drain`]. Out: `Settled`, by the letter's ticket. How many letters are on
//! their way is bounded by the tickets, before a letter is even written. It must not know why a record is bad.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, ResponseFuture, WrapFuture as _};

use super::dlq_ticket::Tickets;
use super::supervisor::{Guard, Pulse, supervised};
use crate::kafka::dlq_producer::{DlqProducer, SendError};
use crate::messages::PublishDeadLetter;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::dead_letter::{DeadLetter, Loss};
use crate::pipeline::flood::Flood;
use crate::pipeline::record::decode_headers;

/// How often lost letters are summed up in the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Lost letters that get a line of their own before that.
const LOG_FIRST: u32 = 3;

/// How a letter is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DlqRetry {
    /// Tries after the first one.
    pub retries: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

impl Default for DlqRetry {
    fn default() -> Self {
        Self { retries: 3, backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) } }
    }
}

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct DlqPublisherDeps {
    /// Sends to Kafka.
    pub producer: Arc<DlqProducer>,
    /// The tickets that the letters carry; asked whether all letters are done.
    pub tickets: Tickets,
    /// How often a letter is tried.
    pub retry: DlqRetry,
    /// Where retries are counted.
    pub metrics: Arc<Metrics>,
}

/// The actor.
#[derive(Debug)]
pub struct DlqPublisher {
    deps: DlqPublisherDeps,
    flood: Flood,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(DlqPublisher);

/// Asks to finish the letters on their way, at most until the deadline. Answers how many are still undecided then.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "usize")]
pub struct Drain {
    /// How long it may take.
    pub deadline: Duration,
}

impl DlqPublisher {
    /// A publisher with nothing on its way.
    pub fn new(deps: DlqPublisherDeps, pulse: Pulse, guard: Guard) -> Self {
        Self { deps, flood: Flood::new(LOG_FIRST), pulse, _guard: guard }
    }

    fn log_lost(&mut self, letter: &DeadLetter, loss: Loss, error: &SendError) {
        if self.flood.note() {
            tracing::warn!(record = letter.key, kind = letter.kind.as_str(), reason = loss.as_str(), %error, "dead letter lost");
        }
    }
}

impl Actor for DlqPublisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOG_PERIOD, |this, _| {
            if let Some(letters) = this.flood.end_period() {
                tracing::warn!(letters, "more dead letters lost");
            }
        });
    }
}

impl Handler<PublishDeadLetter> for DlqPublisher {
    type Result = ();

    fn handle(&mut self, message: PublishDeadLetter, ctx: &mut Self::Context) {
        let PublishDeadLetter { letter, ticket } = message;
        let DlqPublisherDeps { producer, metrics, retry, .. } = self.deps.clone();
        let sending = async move {
            let result = deliver(&producer, &metrics, retry, &letter).await;
            (letter, ticket, result)
        };
        ctx.spawn(actix::ActorFutureExt::map(
            sending.into_actor(self),
            |(letter, ticket, result), this, _| match result {
                Ok(()) => ticket.landed(letter.kind),
                Err(error) => {
                    let loss = if error.timed_out { Loss::Timeout } else { Loss::KafkaError };
                    this.log_lost(&letter, loss, &error);
                    ticket.lost(loss);
                }
            },
        ));
    }
}

impl Handler<Drain> for DlqPublisher {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        let tickets = self.deps.tickets.clone();
        Box::pin(async move {
            match tokio::time::timeout(deadline, tickets.all_back()).await {
                Ok(()) => 0,
                Err(_elapsed) => tickets.out(),
            }
        })
    }
}

/// Tries until Kafka has the letter, the error is final, or the tries are used up.
async fn deliver(
    producer: &DlqProducer,
    metrics: &Metrics,
    retry: DlqRetry,
    letter: &DeadLetter,
) -> Result<(), SendError> {
    let mut attempt = 0;
    loop {
        let error = match producer.send(&letter.key, &letter.json, decode_headers(&letter.headers)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !error.retryable || attempt >= retry.retries {
            return Err(error);
        }
        metrics.dlq_retries.inc();
        tokio::time::sleep(retry.backoff.delay(attempt, fastrand::f64())).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use actix::Addr;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Headers as _, Message as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};
    use tokio::sync::mpsc;

    use super::*;
    use crate::actors::dlq_ticket::tests::{Inbox, next, settles};
    use crate::actors::link::Link;
    use crate::kafka::dlq_producer::DlqProducerSettings;
    use crate::kafka::monitor::KafkaMonitor;
    use crate::messages::Settled;
    use crate::pipeline::decode::Kind;
    use crate::pipeline::record::encode_header;

    const TOPIC: &str = "events-dlq";

    struct Bench {
        cluster: MockCluster<'static, DefaultProducerContext>,
        publisher: Addr<DlqPublisher>,
        tickets: Tickets,
        metrics: Arc<Metrics>,
        settled: mpsc::UnboundedReceiver<Settled>,
    }

    impl Bench {
        fn new(send_timeout: Duration) -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic(TOPIC, 1, 1).unwrap();
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", cluster.bootstrap_servers()).set("reconnect.backoff.max.ms", "100");
            let settings = DlqProducerSettings { topic: TOPIC.into(), send_timeout };
            let metrics = Arc::new(Metrics::new().unwrap());
            let (settling, settled) = Inbox::start();
            let link = Link::default();
            link.publish(&settling);
            let tickets = Tickets::new(100, link, Arc::clone(&metrics));
            let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
            let monitor = Arc::new(KafkaMonitor::new(Arc::clone(&metrics)));
            let deps = DlqPublisherDeps {
                producer: Arc::new(DlqProducer::new(config, &settings, monitor).unwrap()),
                tickets: tickets.clone(),
                retry: DlqRetry { retries: 3, backoff },
                metrics: Arc::clone(&metrics),
            };
            Self {
                cluster,
                publisher: DlqPublisher::new(deps, Pulse::new(), Guard::detached()).start(),
                tickets,
                metrics,
                settled,
            }
        }

        fn publish(&self, offset: i64) {
            let mut headers = Vec::new();
            encode_header(&mut headers, "traceparent", Some(b"00-x"));
            encode_header(&mut headers, "null", None);
            let letter = DeadLetter {
                key: format!("events-0-{offset}"),
                json: format!("{{\"kafka_offset\":{offset}}}").into_bytes(),
                kind: Kind::UnknownFraming,
                headers,
            };
            let ticket = self.tickets.take(settles(offset)).unwrap();
            self.publisher.do_send(PublishDeadLetter { letter, ticket });
        }

        fn produce_fails_with(&self, errors: &[RDKafkaRespErr]) {
            self.cluster.request_errors(RDKafkaApiKey::Produce, errors);
        }

        /// Sends, failures by reason (timeout, kafka_error, backpressure), retries, letters on their way.
        fn counts(&self) -> (u64, [u64; 3], u64, i64) {
            let failures =
                Loss::ALL.map(|loss| self.metrics.dlq_send_failures.with_label_values(&[loss.as_str()]).get());
            let sends = self.metrics.dlq_sends.with_label_values(&["unknown_framing"]).get();
            (sends, failures, self.metrics.dlq_retries.get(), self.metrics.dlq_in_flight.get())
        }
    }

    #[actix::test]
    async fn letters_land_with_key_headers_and_text_and_settle_their_records() {
        let mut bench = Bench::new(Duration::from_secs(10));
        (0..100).for_each(|offset| bench.publish(offset));
        let left = bench.publisher.send(Drain { deadline: Duration::from_secs(10) }).await.unwrap();
        assert_eq!((left, bench.counts()), (0, (100, [0, 0, 0], 0, 0)));
        let mut settled = Vec::new();
        for _ in 0..100 {
            settled.push(next(&mut bench.settled).await.origin.first);
        }
        settled.sort_unstable();
        assert_eq!(settled, (0..100).collect::<Vec<_>>());
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bench.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let record = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            let offset = key.strip_prefix("events-0-").unwrap();
            assert_eq!(record.payload(), Some(format!("{{\"kafka_offset\":{offset}}}").as_bytes()));
            let headers: Vec<_> = record.headers().unwrap().iter().map(|header| (header.key, header.value)).collect();
            assert_eq!(headers, [("traceparent", Some(&b"00-x"[..])), ("null", None)]);
            keys.insert(key);
        }
        assert_eq!(keys.len(), 100);
    }

    #[actix::test]
    async fn a_broker_that_is_away_is_a_timeout_and_the_record_is_settled() {
        let mut bench = Bench::new(Duration::from_millis(300));
        bench.cluster.broker_down(1).unwrap();
        bench.publish(7);
        let in_time = bench.publisher.send(Drain { deadline: Duration::ZERO }).await.unwrap();
        assert_eq!(in_time, 1, "a drain without time says what is left");
        assert_eq!(next(&mut bench.settled).await.origin.first, 7);
        assert_eq!(bench.counts(), (0, [1, 0, 0], 0, 0));
    }

    #[actix::test]
    async fn a_refusal_is_a_kafka_error_and_is_not_tried_again() {
        let mut bench = Bench::new(Duration::from_secs(10));
        bench.produce_fails_with(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
        bench.publish(7);
        assert_eq!(next(&mut bench.settled).await.origin.first, 7);
        assert_eq!(bench.counts(), (0, [0, 1, 0], 0, 0));
    }

    #[actix::test]
    async fn a_passing_error_is_retried_a_bounded_number_of_times() {
        let passing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED;
        let mut bench = Bench::new(Duration::from_secs(10));
        bench.produce_fails_with(&[passing; 2]);
        bench.publish(7);
        assert_eq!(next(&mut bench.settled).await.origin.first, 7);
        assert_eq!(bench.counts(), (1, [0, 0, 0], 2, 0));
        bench.produce_fails_with(&[passing; 20]);
        bench.publish(8);
        assert_eq!(next(&mut bench.settled).await.origin.first, 8);
        assert_eq!(bench.counts(), (1, [0, 1, 0], 5, 0));
    }

    #[actix::test]
    async fn a_producer_without_brokers_is_dropped_at_once() {
        let bench = Bench::new(Duration::from_secs(60));
        bench.cluster.broker_down(1).unwrap();
        bench.publish(7);
        let config = ClientConfig::new().set("bootstrap.servers", bench.cluster.bootstrap_servers()).to_owned();
        let settings = DlqProducerSettings { topic: TOPIC.into(), send_timeout: Duration::from_secs(60) };
        let monitor = Arc::new(KafkaMonitor::new(Arc::new(Metrics::new().unwrap())));
        let producer = DlqProducer::new(config, &settings, monitor).unwrap();
        let sending = producer.send("key", b"text", std::iter::empty());
        assert!(tokio::time::timeout(Duration::from_millis(50), sending).await.is_err());
        let started = std::time::Instant::now();
        drop(producer);
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    }
}
