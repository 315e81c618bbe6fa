//! Publishes dead letters to Kafka: retries, and decides the fate of each.
//!
//! In: [`LettersWaiting`], [`Drain`], letters from the queue that it shares with their writer. Out: `Settled`, by the queue.
//! It must not know why a record is bad.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, SpawnHandle,
    WrapFuture as _,
};

use super::letter_queue::{Lent, Letters};
use super::supervisor::{Guard, Pulse, supervised};
use crate::kafka::dlq_producer::{DlqProducer, SendError};
use crate::messages::LettersWaiting;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::dead_letter::{DeadLetter, Durability, Loss};
use crate::pipeline::flood::Flood;
use crate::pipeline::letter_pace::{Pace, Turn};
use crate::pipeline::record::decode_headers;

/// How often letters that were not sent are summed up in the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Such letters that get a line of their own before that.
const LOG_FIRST: u32 = 3;

/// How a letter is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DlqRetry {
    /// Letters on their way at the same time.
    pub max_in_flight: usize,
    /// Tries of one round after the first one.
    pub retries: u32,
    /// The waits between them.
    pub backoff: Backoff,
    /// No try begins after this time since the first one.
    pub deadline: Duration,
    /// The waits between rounds, where a letter gets more than one.
    pub rounds: Backoff,
}

impl DlqRetry {
    /// Usual waits.
    pub const fn new(max_in_flight: usize, deadline: Duration) -> Self {
        Self {
            max_in_flight,
            retries: 3,
            backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) },
            deadline,
            rounds: Backoff { base: Duration::from_millis(250), max: Duration::from_secs(5) },
        }
    }
}

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct DlqPublisherDeps {
    /// Sends to Kafka.
    pub producer: Arc<DlqProducer>,
    /// The letters.
    pub letters: Letters,
    /// How a letter is sent.
    pub retry: DlqRetry,
    /// Where retries are counted.
    pub metrics: Arc<Metrics>,
}

/// The actor.
#[derive(Debug)]
pub struct DlqPublisher {
    deps: DlqPublisherDeps,
    pace: Pace,
    in_flight: usize,
    timer: Option<SpawnHandle>,
    flood: Flood,
    pulse: Pulse,
    _guard: Guard,
}

supervised!(DlqPublisher);

/// Asks to finish the letters, at most until the deadline. Answers how many are still undecided then.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "usize")]
pub struct Drain {
    /// How long it may take.
    pub deadline: Duration,
}

impl DlqPublisher {
    /// A publisher with nothing on its way.
    pub fn new(deps: DlqPublisherDeps, pulse: Pulse, guard: Guard) -> Self {
        let probing = (deps.letters.durability() == Durability::FailClosed).then_some(deps.retry.rounds);
        let pace = Pace::new(deps.retry.max_in_flight, probing);
        Self { deps, pace, in_flight: 0, timer: None, flood: Flood::new(LOG_FIRST, LOG_PERIOD), pulse, _guard: guard }
    }

    /// Sends as many letters as may be sent now, and comes back when more may be.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        while !self.pulse.retired() {
            let now = Instant::now();
            let at = match self.pace.turn(self.in_flight, now) {
                Turn::Full => return,
                Turn::At(at) => Some(at),
                Turn::Send => match self.deps.letters.lend(now) {
                    Some(lent) => {
                        self.send(lent, ctx);
                        continue;
                    }
                    None => self.deps.letters.next_due(),
                },
            };
            self.timer = at.map(|at| {
                ctx.run_later(at.saturating_duration_since(now), |this, ctx| {
                    this.timer = None;
                    this.pump(ctx);
                })
            });
            return;
        }
    }

    fn send(&mut self, lent: Lent, ctx: &mut Context<Self>) {
        self.in_flight += 1;
        let DlqPublisherDeps { producer, metrics, retry, .. } = self.deps.clone();
        let sending = async move {
            let result = match lent.letter() {
                Some(letter) => deliver(&producer, &metrics, retry, letter).await,
                None => Ok(()),
            };
            (lent, result)
        };
        ctx.spawn(sending.into_actor(self).map(|(lent, result), this, ctx| {
            this.in_flight = this.in_flight.saturating_sub(1);
            match result {
                Ok(()) => {
                    this.pace.landed();
                    lent.landed();
                }
                Err(error) => this.failed(lent, &error),
            }
            this.pump(ctx);
        }));
    }

    fn failed(&mut self, lent: Lent, error: &SendError) {
        let loss = if error.timed_out { Loss::Timeout } else { Loss::KafkaError };
        let now = Instant::now();
        let due = if error.refused {
            // It alone has to wait: others may pass.
            now + self.deps.retry.rounds.delay(lent.rounds(), fastrand::f64())
        } else {
            self.pace.failed(now, fastrand::f64());
            now
        };
        if let Some(letter) = lent.letter()
            && let Some(suppressed) = self.flood.admit(now)
        {
            let what = match self.deps.letters.durability() {
                Durability::BestEffort => "dead letter lost",
                Durability::FailClosed => "dead letter not written: the offset of its record waits",
            };
            let (kind, reason) = (letter.kind.as_str(), loss.as_str());
            tracing::warn!(record = letter.key, kind, reason, suppressed, %error, "{what}");
        }
        lent.failed(loss, due);
    }
}

impl Actor for DlqPublisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOG_PERIOD, |this, _| {
            if let Some(letters) = this.flood.unlogged(Instant::now()) {
                tracing::warn!(letters, "more dead letters could not be sent");
            }
        });
        // What an earlier generation left behind.
        self.pump(ctx);
    }
}

impl Handler<LettersWaiting> for DlqPublisher {
    type Result = ();

    fn handle(&mut self, _: LettersWaiting, ctx: &mut Self::Context) {
        self.pump(ctx);
    }
}

impl Handler<Drain> for DlqPublisher {
    type Result = ResponseFuture<usize>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        let letters = self.deps.letters.clone();
        Box::pin(async move {
            match tokio::time::timeout(deadline, letters.all_decided()).await {
                Ok(()) => 0,
                Err(_elapsed) => letters.undecided(),
            }
        })
    }
}

/// One round: tries until Kafka has the letter, the error is final, or tries or time are used up.
async fn deliver(
    producer: &DlqProducer,
    metrics: &Metrics,
    retry: DlqRetry,
    letter: &DeadLetter,
) -> Result<(), SendError> {
    let begun = Instant::now();
    let mut attempt = 0;
    loop {
        let error = match producer.send(&letter.key, &letter.json, decode_headers(&letter.headers)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let wait = retry.backoff.delay(attempt, fastrand::f64());
        if !error.retryable || attempt >= retry.retries || begun.elapsed() + wait >= retry.deadline {
            return Err(error);
        }
        metrics.dlq_retries.inc();
        tokio::time::sleep(wait).await;
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
    use crate::actors::letter_queue::tests::{Inbox, LIMITS, board, next, settles};
    use crate::actors::letter_queue::{LetterLimits, Purpose};
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
        letters: Letters,
        deps: DlqPublisherDeps,
        waiting: Link<LettersWaiting>,
        metrics: Arc<Metrics>,
        settled: mpsc::UnboundedReceiver<Settled>,
    }

    impl Bench {
        fn new(send_timeout: Duration) -> Self {
            Self::with(LIMITS, send_timeout)
        }

        fn with(limits: LetterLimits, send_timeout: Duration) -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic(TOPIC, 1, 1).unwrap();
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", cluster.bootstrap_servers()).set("reconnect.backoff.max.ms", "100");
            // The client remembers that a topic was refused until it hears of the topic again.
            config.set("topic.metadata.refresh.interval.ms", "100");
            let settings = DlqProducerSettings { topic: TOPIC.into(), send_timeout };
            let metrics = Arc::new(Metrics::new().unwrap());
            let (settling, settled) = Inbox::start();
            let (link, waiting) = (Link::default(), Link::default());
            link.publish(&settling);
            let letters = Letters::new(limits, waiting.clone(), link, board(), Arc::clone(&metrics));
            let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
            let monitor = Arc::new(KafkaMonitor::new(Arc::clone(&metrics)));
            let deps = DlqPublisherDeps {
                producer: Arc::new(DlqProducer::new(config, &settings, monitor).unwrap()),
                letters: letters.clone(),
                retry: DlqRetry { backoff, rounds: backoff, ..DlqRetry::new(100, send_timeout) },
                metrics: Arc::clone(&metrics),
            };
            let publisher = DlqPublisher::new(deps.clone(), Pulse::new(), Guard::detached()).start();
            waiting.publish(&publisher);
            Self { cluster, publisher, letters, deps, waiting, metrics, settled }
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
            self.letters.push(letter, Purpose::Settles(settles(offset)));
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
        let started = Instant::now();
        drop(producer);
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    }
    const FAIL_CLOSED: LetterLimits = LetterLimits { durability: Durability::FailClosed, ..LIMITS };

    #[actix::test]
    async fn fail_closed_tries_for_ever_and_goes_on_by_itself() {
        let mut bench = Bench::with(FAIL_CLOSED, Duration::from_secs(10));
        // Final for a letter with best effort; ten rounds long.
        bench.produce_fails_with(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 10]);
        (0..50).for_each(|offset| bench.publish(offset));
        let mut settled = Vec::new();
        for _ in 0..50 {
            settled.push(next(&mut bench.settled).await.origin.first);
        }
        settled.sort_unstable();
        assert_eq!(settled, (0..50).collect::<Vec<_>>());
        let (sends, [timeout, kafka_error, backpressure], _, in_flight) = bench.counts();
        assert_eq!((sends, timeout, backpressure, in_flight), (50, 0, 0, 0));
        assert!(kafka_error >= 10, "{kafka_error}");
        assert_eq!((bench.metrics.dlq_lost.get(), bench.letters.blocked()), (0, None));
    }

    #[actix::test]
    async fn a_letter_that_kafka_refuses_holds_its_own_record_and_no_other() {
        let mut bench = Bench::with(FAIL_CLOSED, Duration::from_secs(10));
        bench.produce_fails_with(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        bench.publish(7);
        while bench.letters.blocked().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.publish(8);
        let both = [next(&mut bench.settled).await, next(&mut bench.settled).await].map(|settled| settled.origin.first);
        assert!(both.contains(&7) && both.contains(&8), "{both:?}");
    }

    #[actix::test]
    async fn what_a_publisher_leaves_behind_is_sent_by_the_next_one() {
        let mut bench = Bench::with(FAIL_CLOSED, Duration::from_secs(60));
        bench.cluster.broker_down(1).unwrap();
        (0..200).for_each(|offset| bench.publish(offset));
        while bench.metrics.dlq_in_flight.get() < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.publisher.do_send(crate::messages::Halt);
        while bench.publisher.connected() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(bench.letters.undecided(), 200);
        bench.cluster.broker_up(1).unwrap();
        let next_one = DlqPublisher::new(bench.deps.clone(), Pulse::new(), Guard::detached()).start();
        bench.waiting.publish(&next_one);
        for _ in 0..200 {
            next(&mut bench.settled).await;
        }
        assert_eq!((bench.letters.undecided(), bench.letters.blocked()), (0, None));
    }

    #[actix::test]
    async fn a_burst_waits_for_its_turn_and_nothing_of_it_is_lost() {
        let mut bench = Bench::new(Duration::from_secs(10));
        (0..4_000).for_each(|offset| bench.publish(offset));
        for _ in 0..4_000 {
            next(&mut bench.settled).await;
        }
        assert_eq!(bench.counts(), (4_000, [0, 0, 0], 0, 0));
    }
}
