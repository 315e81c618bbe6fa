//! What becomes of letters, and the inbox that other tests of actors use too.

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::mpsc;

use super::*;
use crate::board::Epoch;
use crate::pipeline::decode::Kind;
use crate::pipeline::record::Origin;

/// An actor that hands on what it gets.
pub(crate) struct Inbox<M>(mpsc::UnboundedSender<M>);

impl<M: Message<Result = ()> + Send + Unpin + 'static> Inbox<M> {
    #[allow(clippy::disallowed_methods, reason = "a test reads all that it causes")]
    pub(crate) fn start() -> (Addr<Self>, mpsc::UnboundedReceiver<M>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Actor::start(Self(sender)), receiver)
    }
}

impl<M: Unpin + 'static> Actor for Inbox<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Handler<M> for Inbox<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        let _gone = self.0.send(message);
    }
}

/// The next message, at most a minute away.
pub(crate) async fn next<M>(receiver: &mut mpsc::UnboundedReceiver<M>) -> M {
    tokio::time::timeout(Duration::from_secs(60), receiver.recv()).await.unwrap().unwrap()
}

/// Of partition 0, duty term 1.
pub(crate) fn settles(offset: i64) -> Settled {
    let origin = Origin { epoch: 1, partition: 0, first: offset, next: offset + 1 };
    Settled { origin, except: Vec::new(), duty_term: 1 }
}

pub(crate) fn letter(offset: i64) -> DeadLetter {
    let json = format!("{{\"kafka_offset\":{offset}}}").into_bytes();
    DeadLetter { key: format!("events-0-{offset}"), json, kind: Kind::UnknownFraming, headers: Vec::new() }
}

/// A board on which partition 0 is owned in term 1.
pub(crate) fn board() -> Board {
    let board = Board::new();
    board.open_epoch(Epoch { number: 1, name: "one".into() });
    board.opened(0);
    board.opened(0).duty_term.store(1, Ordering::Release);
    board
}

pub(crate) const LIMITS: LetterLimits = LetterLimits {
    durability: Durability::BestEffort,
    waiting: 4096,
    bytes: 32 << 20,
    patience: Duration::from_secs(60),
};

struct Bench {
    letters: Letters,
    board: Board,
    settled: mpsc::UnboundedReceiver<Settled>,
    told: mpsc::UnboundedReceiver<LettersWaiting>,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new(limits: LetterLimits) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (settling, settled) = Inbox::start();
        let (publishing, told) = Inbox::start();
        let (settles, publisher) = (Link::default(), Link::default());
        settles.publish(&settling);
        publisher.publish(&publishing);
        let board = board();
        let letters = Letters::new(limits, publisher, settles, board.clone(), Arc::clone(&metrics));
        Self { letters, board, settled, told, metrics }
    }

    fn push(&self, offset: i64) {
        self.letters.push(letter(offset), Purpose::Settles(settles(offset)));
    }

    fn lend(&self) -> Lent {
        self.letters.lend(Instant::now()).unwrap()
    }

    /// Timeout, kafka_error, backpressure; lost.
    fn failures(&self) -> ([u64; 3], u64) {
        let by = |loss: Loss| self.metrics.dlq_send_failures.with_label_values(&[loss.as_str()]).get();
        (Loss::ALL.map(by), self.metrics.dlq_lost.get())
    }

    /// In flight, queued, blocked.
    fn gauges(&self) -> [i64; 3] {
        [&self.metrics.dlq_in_flight, &self.metrics.dlq_queued, &self.metrics.dlq_blocked].map(|gauge| gauge.get())
    }
}

const FAIL_CLOSED: LetterLimits = LetterLimits { durability: Durability::FailClosed, ..LIMITS };

#[actix::test]
async fn with_best_effort_a_letter_settles_its_record_once_however_it_ends() {
    let mut bench = Bench::new(LIMITS);
    (0..3).for_each(|offset| bench.push(offset));
    let [landed, failed, dropped] = [(); 3].map(|()| bench.lend());
    assert_eq!(bench.gauges(), [3, 3, 0]);
    assert!(bench.metrics.dlq_queued_bytes.get() > 0);
    landed.landed();
    failed.failed(Loss::Timeout, Instant::now());
    drop(dropped);
    bench.letters.all_decided().await;
    assert_eq!((bench.gauges(), bench.metrics.dlq_queued_bytes.get()), ([0; 3], 0));
    for offset in 0..3 {
        assert_eq!(next(&mut bench.settled).await.origin.first, offset);
    }
    assert!(bench.settled.try_recv().is_err());
    assert_eq!(bench.metrics.dlq_sends.with_label_values(&["unknown_framing"]).get(), 1);
    assert_eq!(bench.failures(), ([1, 1, 0], 2));
}

#[actix::test]
async fn fail_closed_settles_nothing_before_the_letter_has_landed() {
    let mut bench = Bench::new(FAIL_CLOSED);
    (0..3).for_each(|offset| bench.push(offset));
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let [failed, dropped, landed] = [(); 3].map(|()| bench.lend());
    failed.failed(Loss::Timeout, later);
    drop(dropped);
    landed.landed();
    assert_eq!(next(&mut bench.settled).await.origin.first, 2);
    assert_eq!((bench.gauges(), bench.failures()), ([0, 2, 2], ([1, 1, 0], 0)));
    let blocked = bench.letters.blocked().unwrap();
    assert_eq!((blocked.letters, blocked.partitions), (2, vec![0]));
    assert!(blocked.since >= now);
    // What died with its publisher is there at once, what failed when its round is due.
    let again = bench.letters.lend(Instant::now()).unwrap();
    assert_eq!((again.letter().unwrap().key.as_str(), again.rounds()), ("events-0-1", 1));
    assert!(bench.letters.lend(Instant::now()).is_none());
    assert_eq!(bench.letters.next_due(), Some(later));
    again.landed();
    bench.letters.lend(later).unwrap().landed();
    let settled = [next(&mut bench.settled).await, next(&mut bench.settled).await].map(|settled| settled.origin.first);
    assert_eq!((settled, bench.gauges(), bench.letters.blocked()), ([1, 0], [0; 3], None));
}

#[actix::test]
async fn letters_and_bytes_are_bounded() {
    let bench = Bench::new(LetterLimits { waiting: 2, ..FAIL_CLOSED });
    bench.push(0);
    assert!(!bench.letters.is_full());
    bench.push(1);
    assert!(bench.letters.is_full());
    let lent = bench.lend();
    assert!(!bench.letters.is_full(), "one on its way is not waiting");
    drop(lent);
    assert!(bench.letters.is_full(), "one that failed waits again");

    let bench = Bench::new(LetterLimits { bytes: 2 * letter(0).weight(), ..LIMITS });
    bench.push(0);
    let lent = bench.lend();
    assert!(!bench.letters.is_full());
    bench.push(1);
    assert!(bench.letters.is_full(), "bytes on their way count");
    lent.landed();
    assert!(!bench.letters.is_full());
    bench.letters.refuse();
    assert_eq!(bench.failures(), ([0, 0, 1], 1));
}

#[actix::test]
async fn the_publisher_is_told_once_until_it_looks() {
    let mut bench = Bench::new(LIMITS);
    (0..10).for_each(|offset| bench.push(offset));
    next(&mut bench.told).await;
    assert!(bench.told.try_recv().is_err());
    bench.lend().landed();
    bench.push(10);
    next(&mut bench.told).await;
}

#[actix::test]
async fn with_best_effort_a_letter_that_waits_too_long_for_its_turn_is_given_up() {
    let mut bench = Bench::new(LetterLimits { patience: Duration::from_secs(5), ..LIMITS });
    bench.push(0);
    assert!(bench.letters.lend(Instant::now() + Duration::from_secs(6)).is_none());
    assert_eq!(next(&mut bench.settled).await.origin.first, 0);
    assert_eq!((bench.failures(), bench.gauges()), (([0, 0, 1], 1), [0; 3]));

    let bench = Bench::new(LetterLimits { patience: Duration::from_secs(5), ..FAIL_CLOSED });
    bench.push(0);
    assert!(bench.letters.lend(Instant::now() + Duration::from_secs(6)).is_some(), "fail_closed gives nothing up");
}

#[actix::test]
async fn the_letter_of_a_duty_that_went_away_is_left_to_the_next_owner() {
    let bench = Bench::new(FAIL_CLOSED);
    bench.push(0);
    bench.lend().failed(Loss::Timeout, Instant::now());
    bench.board.opened(0).duty_term.store(2, Ordering::Release);
    assert!(bench.letters.lend(Instant::now()).is_none());
    assert_eq!((bench.gauges(), bench.letters.blocked()), ([0; 3], None));
    bench.push(1);
    bench.board.open_epoch(Epoch { number: 2, name: "two".into() });
    bench.board.opened(0);
    assert!(bench.letters.lend(Instant::now()).is_some(), "nobody else has the letters of a log that is gone");
}

#[actix::test]
async fn a_letter_that_only_tells_says_whether_it_has_landed() {
    let mut bench = Bench::new(FAIL_CLOSED);
    let landed = Landed::default();
    bench.letters.push(letter(0), Purpose::Tells(Arc::clone(&landed)));
    bench.lend().failed(Loss::KafkaError, Instant::now());
    assert_eq!((bench.letters.blocked(), landed.load(Ordering::Acquire)), (None, false));
    bench.lend().landed();
    assert!(landed.load(Ordering::Acquire) && bench.settled.try_recv().is_err());
}
