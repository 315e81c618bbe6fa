//! Judges every record, counts its outcome once, and has dead letters written for what is set aside.
//!
//! In: [`Ingested`]. Out: [`Decoded`] downstream, letters for `DlqPublisher` beside. All kinds of unprocessable records take
//! the same path. What it changes is only what redaction blacks out, and it withholds only what lies behind a record at
//! which ingest stands still.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler, Recipient, SpawnHandle};

use super::decode_outcomes::{Now, Outcomes, Tally};
use super::letter_queue::Letters;
use super::set_aside::{Bad, Fate, SetAside};
use super::supervisor::{Guard, Pulse, supervised};
use crate::board::Board;
use crate::messages::{Decoded, Ingested};
use crate::metrics::Metrics;
use crate::pauses::{Meeting, Pauses};
use crate::pipeline::dead_letter::LetterContext;
use crate::pipeline::decode::{JudgeSettings, Kind, Verdict};
use crate::pipeline::flood::Flood;
use crate::pipeline::record::{RawBatch, RawRecord};
use crate::pipeline::safe_judge::SafeJudge;
use crate::pipeline::sequence::SequenceItem;
use crate::spans::Spans;

/// How often bad records are summed up in the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// Bad records that get a line of their own in that time.
const LOG_FIRST: u32 = 3;

/// Records between two touches of the pulse: small ones can hold megabytes.
const PULSE_RECORDS: usize = 32;
/// How often the log repeats that ingest stands still.
const REMIND_PERIOD: Duration = Duration::from_secs(60);
/// How often room is looked for when records wait for it.
const UNPARK_PERIOD: Duration = Duration::from_millis(20);

/// What the actor is made of.
#[derive(Debug)]
pub struct DecodePolicyDeps {
    /// What records may look like.
    pub judge: JudgeSettings,
    /// Keys the thread hashes; the same for as long as sequence state lives.
    pub hash_seed: u64,
    /// What dead letters have in common.
    pub letters: LetterContext,
    /// The next stage.
    pub next: Recipient<Decoded>,
    /// Where dead letters go.
    pub letter_queue: Letters,
    /// Whether ingest stands still at a record that cannot be processed, instead of setting it aside.
    pub pause: bool,
    /// Where it stands still.
    pub pauses: Pauses,
    /// Where positions are published.
    pub board: Board,
    /// Where outcomes are counted.
    pub metrics: Arc<Metrics>,
    /// Where records that cannot be processed are told.
    pub spans: Spans,
    /// Touched at each heartbeat.
    pub pulse: Pulse,
    /// Reports the actor's end.
    pub guard: Guard,
}

/// The actor.
#[derive(Debug)]
pub struct DecodePolicy {
    judge: SafeJudge,
    set_aside: SetAside,
    flood: Flood,
    outcomes: Outcomes,
    unparking: Option<SpawnHandle>,
    pulse: Pulse,
    // Holds the guard, so it goes last.
    deps: DecodePolicyDeps,
}

supervised!(DecodePolicy);

impl DecodePolicy {
    /// A policy with a fresh judge.
    pub fn new(deps: DecodePolicyDeps) -> Self {
        Self {
            judge: SafeJudge::new(deps.judge.clone(), deps.hash_seed),
            set_aside: SetAside::new(
                deps.letters.clone(),
                deps.letter_queue.clone(),
                deps.board.clone(),
                deps.spans.clone(),
            ),
            flood: Flood::new(LOG_FIRST, LOG_PERIOD),
            outcomes: Outcomes::new(&deps.metrics),
            unparking: None,
            pulse: deps.pulse.clone(),
            deps,
        }
    }

    /// Judges a batch and sets aside what cannot be processed.
    fn decode(&mut self, batch: &RawBatch, turn: &Turn) -> Judged {
        let mut judged = Judged { verdicts: Vec::with_capacity(batch.records.len()), ..Judged::default() };
        let mut tally = Tally::default();
        for (index, record) in batch.records.iter().enumerate() {
            if index % PULSE_RECORDS == 0 {
                self.pulse.touch();
            }
            let value = record.value.map(|span| span.of(&batch.arena));
            let verdict = self.judge.judge(value, &mut judged.items);
            let redacted = self.judge.take_redacted();
            if turn.counts(record.offset) {
                tally.note(verdict, turn.now);
                judged.redacted_anew += u64::from(redacted.is_some());
            }
            judged.redacted.extend(redacted.map(|value| (index, value)));
            if let Verdict::Unprocessable(kind) = verdict
                && self.unprocessable(batch, record, kind, turn, &mut judged) == Next::Stand
            {
                judged.stands_at = Some(record.offset);
                break;
            }
            judged.verdicts.push(verdict);
        }
        self.outcomes.add(&tally, turn.new);
        judged
    }

    /// The one path of every unprocessable record: whether ingest stands still at it, and what becomes of its letter.
    fn unprocessable(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        kind: Kind,
        turn: &Turn,
        judged: &mut Judged,
    ) -> Next {
        let (partition, offset) = (batch.origin.partition, record.offset);
        if turn.counts(offset)
            && let Some(suppressed) = self.flood.admit(Instant::now())
        {
            tracing::warn!(partition, offset, kind = kind.as_str(), suppressed, "record cannot be processed");
        }
        let bad = Bad { origin: batch.origin, arena: &batch.arena, record: *record, kind };
        let ours = turn.duty_term != 0;
        if self.deps.pause {
            match self.deps.pauses.meet(&batch.origin, offset, kind, ours) {
                Meeting::Stand { letter } => {
                    remind(partition, offset, kind, ours);
                    if let Some(landed) = letter {
                        self.set_aside.tell(&mut self.judge, bad, landed, turn.now.unix_ms());
                    }
                    return Next::Stand;
                }
                Meeting::SetAside { has_letter: true } => return Next::GoOn,
                Meeting::SetAside { has_letter: false } => {}
            }
        }
        // Another instance that owns the partition writes the letter.
        if ours {
            self.letter(bad, turn, judged);
        }
        Next::GoOn
    }

    fn letter(&mut self, bad: Bad<'_>, turn: &Turn, judged: &mut Judged) {
        let Bad { record, kind, .. } = bad;
        match self.set_aside.letter(&mut self.judge, bad, turn.duty_term, turn.now.unix_ms()) {
            Fate::Queued => judged.held.push(record.offset),
            Fate::NoRoom => {
                judged.held.push(record.offset);
                judged.parked.push((record, kind));
            }
            Fate::Lost => {}
        }
    }

    /// Looks for room until no record waits for it.
    fn unpark_soon(&mut self, ctx: &mut Context<Self>) {
        if self.unparking.is_none() {
            self.unparking = Some(ctx.run_interval(UNPARK_PERIOD, |this, ctx| {
                let pulse = this.pulse.clone();
                if this.set_aside.unpark(&mut this.judge, Now::read().unix_ms(), || pulse.touch())
                    && let Some(interval) = this.unparking.take()
                {
                    ctx.cancel_future(interval);
                }
            }));
        }
    }
}

impl Actor for DecodePolicy {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOG_PERIOD, |this, _| {
            if let Some(records) = this.flood.unlogged(Instant::now()) {
                tracing::warn!(records, "more records cannot be processed");
            }
        });
        ctx.run_interval(REMIND_PERIOD, |this, _| {
            for pause in this.deps.pauses.all().iter().filter(|pause| pause.stands()) {
                remind(pause.partition, pause.offset, pause.kind, pause.ours);
            }
        });
    }
}

impl Handler<Ingested> for DecodePolicy {
    type Result = ();

    fn handle(&mut self, Ingested { mut batch, permit }: Ingested, ctx: &mut Self::Context) {
        let origin = batch.origin;
        let ended = || origin.epoch < self.deps.board.epoch_number();
        if self.pulse.retired() || ended() {
            return;
        }
        let Some(partition) = self.deps.board.find(origin.partition) else { return };
        // If the epoch is still the batch's, the partition belongs to it.
        if ended() {
            return;
        }
        if self.deps.pause && self.deps.pauses.holds_back(&origin) {
            // It lies behind a record at which its partition stands still, and will be read again.
            return;
        }
        let duty_term = partition.duty_term.load(Ordering::Acquire);
        let now = Now::read();
        // As a whole: at most one batch of a partition lies on both sides.
        let new = partition.end_at_start.get().is_none_or(|end| origin.first >= end);
        let uncounted = partition.judged().missing(origin.first, origin.next);
        let turn = Turn { uncounted, new, duty_term, now };
        let Judged { verdicts, items, held, parked, stands_at, redacted, redacted_anew } = self.decode(&batch, &turn);
        self.deps.metrics.redacted_records.inc_by(redacted_anew);
        batch.replace(redacted);
        let counted = cut(&mut batch, stands_at);
        if !parked.is_empty() {
            self.set_aside.park(&batch, parked, duty_term, &permit);
            self.unpark_soon(ctx);
        }
        partition.judged().add(origin.first, counted);
        if self.deps.pause {
            self.deps.pauses.passed(&batch.origin);
        }
        if !batch.records.is_empty() {
            partition.last_record_ms.store(now.unix_ms(), Ordering::Release);
        }
        if batch.origin.first == batch.origin.next {
            return;
        }
        // Bounded by the byte credit that rides inside.
        self.deps.next.do_send(Decoded { batch, verdicts, items, duty_term, held, permit });
    }
}

/// The circumstances under which a batch is judged.
#[derive(Debug)]
struct Turn {
    /// Where records are counted; the others of the batch were counted before and are read again.
    uncounted: Vec<Range<i64>>,
    /// Not there yet when reading began.
    new: bool,
    /// The duty term, 0 when another instance does the duties.
    duty_term: u64,
    now: Now,
}

impl Turn {
    fn counts(&self, offset: i64) -> bool {
        self.uncounted.iter().any(|range| range.contains(&offset))
    }
}

/// What a batch became.
#[derive(Debug, Default)]
struct Judged {
    verdicts: Vec<Verdict>,
    items: Vec<SequenceItem>,
    /// Offsets that are settled with their letters.
    held: Vec<i64>,
    /// Of these, records for whose letters there is no room.
    parked: Vec<(RawRecord, Kind)>,
    /// The record at which ingest stands still; nothing from there on was judged.
    stands_at: Option<i64>,
    /// What goes on instead of records, by their index.
    redacted: Vec<(usize, Vec<u8>)>,
    /// How many of these were never judged before.
    redacted_anew: u64,
}

/// How it goes on after a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Stand,
}

/// Takes what must not pass off a batch. Answers up to where records were counted: the one at which ingest stands still is.
fn cut(batch: &mut RawBatch, stands_at: Option<i64>) -> i64 {
    let Some(offset) = stands_at else { return batch.origin.next };
    batch.records.retain(|record| record.offset < offset);
    batch.origin.next = offset;
    offset.saturating_add(1)
}

fn remind(partition: i32, offset: i64, kind: Kind, ours: bool) {
    let kind = kind.as_str();
    if ours {
        let advice = "inspect its dead letter, then: dashstream ingest continue --retry or --set-aside";
        tracing::warn!(partition, offset, kind, advice, "ingest stands still at a record that cannot be processed");
    } else {
        tracing::warn!(partition, offset, kind, "waiting for the owner of the partition to decide about a record");
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::actors::letter_queue::tests::{Inbox, LIMITS, next};
    use crate::actors::letter_queue::{Lent, LetterLimits};
    use crate::actors::link::Link;
    use crate::board::Epoch;
    use crate::messages::Settled;
    use crate::pauses::Answer;
    use crate::pipeline::credit::Credit;
    use crate::pipeline::dead_letter::Durability;
    use crate::pipeline::record::{Origin, Span};
    use crate::wire::telemetry::dash_stream_message::Message as Kinds;
    use crate::wire::telemetry::{DashStreamMessage, Event, Header};

    fn good(timestamp_us: i64) -> Option<Vec<u8>> {
        let header = Header { thread_id: "t".into(), sequence: 1, timestamp_us, ..Header::default() };
        let event = Event { header: Some(header), ..Event::default() };
        let message = DashStreamMessage { message: Some(Kinds::Event(event)) };
        Some([vec![0], message.encode_to_vec()].concat())
    }

    fn bad_version() -> Option<Vec<u8>> {
        let header = Header { thread_id: "t".into(), tenant_id: "acme".into(), schema_version: 9, ..Header::default() };
        let event = Event { header: Some(header), ..Event::default() };
        Some([vec![0], DashStreamMessage { message: Some(Kinds::Event(event)) }.encode_to_vec()].concat())
    }

    /// One record for every kind that a value can cause, in the order of [`Kind::ALL`].
    fn one_of_each_kind() -> Vec<Option<Vec<u8>>> {
        let bomb = [vec![1], crate::wire::framing::tests::repeated(1 << 20, None)].concat();
        let values = [vec![0; 5000], b"?".to_vec(), vec![1], bomb, vec![0]].map(Some);
        [vec![None], values.to_vec(), vec![bad_version()]].concat()
    }

    fn batch(epoch: u64, first: i64, values: &[Option<Vec<u8>>]) -> RawBatch {
        let mut arena = Vec::new();
        let mut records = Vec::new();
        for (offset, value) in (first..).zip(values) {
            let start = u32::try_from(arena.len()).unwrap();
            let value = value.as_ref().map(|value| {
                arena.extend_from_slice(value);
                Span { start, len: u32::try_from(value.len()).unwrap() }
            });
            let headers = Span { start: 0, len: 0 };
            records.push(RawRecord { offset, timestamp_ms: 1, key: None, value, headers });
        }
        let next = first + i64::try_from(values.len()).unwrap();
        RawBatch { origin: Origin { epoch, partition: 2, first, next }, lost: None, records, arena: arena.into() }
    }

    struct Bench {
        policy: actix::Addr<DecodePolicy>,
        decoded: mpsc::UnboundedReceiver<Decoded>,
        letters: Letters,
        settled: mpsc::UnboundedReceiver<Settled>,
        board: Board,
        pauses: Pauses,
        metrics: Arc<Metrics>,
        credit: Credit,
    }

    impl Bench {
        fn new() -> Self {
            Self::build(LIMITS, false)
        }

        fn with(limits: LetterLimits) -> Self {
            Self::build(limits, false)
        }

        fn build(limits: LetterLimits, pause: bool) -> Self {
            let pauses = Pauses::default();
            pauses.begin(1, std::iter::empty());
            let metrics = Arc::new(Metrics::new().unwrap());
            let board = Board::new();
            board.open_epoch(Epoch { number: 1, name: "one".into() });
            board.opened(2);
            let (downstream, decoded) = Inbox::start();
            let (settling, settled) = Inbox::start();
            let settles = Link::default();
            settles.publish(&settling);
            let letters = Letters::new(limits, Link::default(), settles, board.clone(), Arc::clone(&metrics));
            let judge = JudgeSettings { max_payload_bytes: 4096, max_decompressed_bytes: 4096, ..Default::default() };
            let letters_context = LetterContext {
                topic: "events".into(),
                consumer_group: "group".into(),
                policy: "skip".into(),
                instance: "test".into(),
                include_payload: false,
            };
            let deps = DecodePolicyDeps {
                judge,
                hash_seed: 7,
                letters: letters_context,
                next: downstream.recipient(),
                letter_queue: letters.clone(),
                pause,
                pauses: pauses.clone(),
                board: board.clone(),
                metrics: Arc::clone(&metrics),
                spans: Spans::default(),
                pulse: Pulse::new(),
                guard: Guard::detached(),
            };
            let policy = DecodePolicy::new(deps).start();
            Self { policy, decoded, letters, settled, board, pauses, metrics, credit: Credit::new(1000) }
        }

        fn own(&self, duty_term: u64) {
            self.board.opened(2).duty_term.store(duty_term, Ordering::Release);
        }

        fn lend(&self) -> Option<Lent> {
            self.letters.lend(Instant::now())
        }

        async fn ingest(&mut self, batch: RawBatch) -> Decoded {
            self.policy.send(Ingested { batch, permit: self.credit.charge(1) }).await.unwrap();
            next(&mut self.decoded).await
        }

        fn errors(&self) -> Vec<u64> {
            let of = |kind: Kind| self.metrics.decode_errors.with_label_values(&[kind.as_str()]).get();
            Kind::ALL.map(of).to_vec()
        }

        fn messages(&self, status: &str) -> u64 {
            self.metrics.kafka_messages.with_label_values(&[status]).get()
        }

        fn judged(&self) -> Vec<(i64, i64)> {
            self.board.opened(2).judged().iter().collect()
        }

        fn refused(&self) -> u64 {
            self.metrics.dlq_send_failures.with_label_values(&["backpressure"]).get()
        }
    }

    #[actix::test]
    async fn every_kind_is_counted_once_held_and_dead_lettered_by_the_owner() {
        let mut bench = Bench::new();
        bench.own(5);
        let mut values = one_of_each_kind();
        values.push(good(1));
        let decoded = bench.ingest(batch(1, 10, &values)).await;
        let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Internal).collect();
        let verdicts: Vec<_> = kinds.iter().map(|kind| Verdict::Unprocessable(*kind)).collect();
        assert_eq!(decoded.verdicts[..7], verdicts);
        assert!(matches!(decoded.verdicts[7], Verdict::Deliver(_)));
        assert_eq!((decoded.items.len(), decoded.duty_term), (1, 5));
        assert_eq!(decoded.held, (10..17).collect::<Vec<_>>());
        assert_eq!(bench.errors(), [1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!((bench.messages("success"), bench.messages("error")), (1, 7));
        assert_eq!(bench.metrics.payload_missing.get(), 1);
        for (offset, kind) in (10..).zip(kinds) {
            let lent = bench.lend().unwrap();
            let letter = lent.letter().unwrap();
            assert_eq!((letter.key.as_str(), letter.kind), (format!("events-2-{offset}").as_str(), kind));
            let json: serde_json::Value = serde_json::from_slice(&letter.json).unwrap();
            let tenant = if kind == Kind::SchemaVersion { "acme".into() } else { serde_json::Value::Null };
            assert_eq!((&json["tenant_id"], &json["policy"]), (&tenant, &"skip".into()));
            lent.landed();
            let settled = next(&mut bench.settled).await;
            assert_eq!(settled.origin, Origin { epoch: 1, partition: 2, first: offset, next: offset + 1 });
            assert_eq!(settled.duty_term, 5);
        }
        assert_eq!(bench.metrics.dlq_in_flight.get(), 0);
    }

    #[actix::test]
    async fn what_is_caught_up_with_is_counted_apart_from_what_is_new() {
        let mut bench = Bench::new();
        bench.board.opened(2).end_at_start.set(12);
        for (first, values) in [(10, vec![good(1), None]), (12, [one_of_each_kind(), vec![good(1)]].concat())] {
            bench.ingest(batch(1, first, &values)).await;
            // What is read again is not counted again.
            bench.ingest(batch(1, first, &values)).await;
        }
        let new = |status| bench.metrics.new_records.with_label_values(&[status]).get();
        assert_eq!((new("success"), new("error"), new("payload_missing")), (1, 6, 1));
        assert_eq!((bench.messages("success"), bench.messages("error")), (2, 8));
    }

    #[actix::test]
    async fn records_that_are_read_again_are_judged_again_but_counted_once() {
        let mut bench = Bench::new();
        bench.own(5);
        let mut values = one_of_each_kind();
        bench.ingest(batch(1, 0, &values)).await;
        let again = bench.ingest(batch(1, 0, &values)).await;
        assert_eq!((again.verdicts.len(), again.held.len()), (7, 7));
        values.extend([good(1), good(1)]);
        let overlapping = bench.ingest(batch(1, 0, &values)).await;
        assert_eq!(overlapping.verdicts.len(), 9);
        assert_eq!((bench.messages("success"), bench.messages("error")), (2, 7));
        assert_eq!(bench.errors().iter().sum::<u64>(), 7);
        bench.ingest(batch(1, 3, &values[3..5])).await;
        assert_eq!(bench.judged(), [(0, 9)]);
        assert_eq!((bench.messages("success"), bench.messages("error")), (2, 7));
    }

    /// The group did not tell its commits, reading began at the end, and then the duties of what lies below came.
    #[actix::test]
    async fn what_is_read_for_duties_alone_is_counted_once_however_the_reader_goes_on_meanwhile() {
        let mut bench = Bench::new();
        bench.ingest(batch(1, 10, &[good(1), None])).await;
        bench.own(5);
        bench.ingest(batch(1, 4, &[good(1), None, good(1)])).await;
        bench.ingest(batch(1, 12, &[None, good(1)])).await;
        assert_eq!(bench.judged(), [(4, 7), (10, 14)]);
        assert_eq!((bench.messages("success"), bench.messages("error")), (4, 3));
        // The duties were taken away in between, and come back: the same range once more, and on to where reading began.
        bench.ingest(batch(1, 4, &[good(1), None, good(1), None, None])).await;
        bench.ingest(batch(1, 9, &[good(1), good(1), None, None, good(1)])).await;
        assert_eq!(bench.judged(), [(4, 14)]);
        assert_eq!((bench.messages("success"), bench.messages("error")), (5, 5));
        assert_eq!(bench.metrics.payload_missing.get(), 5);
    }

    #[actix::test]
    async fn without_the_duty_nothing_is_written_or_held() {
        let mut bench = Bench::new();
        let decoded = bench.ingest(batch(1, 0, &one_of_each_kind())).await;
        assert!(decoded.held.is_empty() && decoded.duty_term == 0);
        assert_eq!(bench.messages("error"), 7);
        assert!(bench.lend().is_none());
        assert_eq!(bench.refused(), 0);
    }

    #[actix::test]
    async fn with_best_effort_a_letter_without_room_is_counted_and_holds_nothing() {
        let mut bench = Bench::with(LetterLimits { waiting: 2, ..LIMITS });
        bench.own(5);
        let decoded = bench.ingest(batch(1, 0, &one_of_each_kind())).await;
        assert_eq!((decoded.held, bench.refused()), (vec![0, 1], 5));
        assert_eq!(bench.credit.used(), 1, "only what went on holds credit");
    }

    #[actix::test]
    async fn fail_closed_keeps_records_without_room_and_their_credit_and_lets_the_rest_go_on() {
        let mut bench = Bench::with(LetterLimits { waiting: 2, durability: Durability::FailClosed, ..LIMITS });
        bench.own(5);
        let first = bench.ingest(batch(1, 0, &one_of_each_kind())).await;
        let second = bench.ingest(batch(1, 7, &[None, good(1)])).await;
        assert_eq!((first.held.len(), second.held.len(), bench.refused()), (7, 1, 0));
        drop((first, second));
        assert_eq!(bench.credit.used(), 2, "both batches hold records without a letter");
        for offset in 0..8 {
            let lent = loop {
                match bench.lend() {
                    Some(lent) => break lent,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            assert_eq!(lent.letter().unwrap().key, format!("events-2-{offset}"));
            lent.landed();
            assert_eq!(next(&mut bench.settled).await.origin.first, offset);
        }
        while bench.credit.used() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[actix::test]
    async fn records_without_room_are_left_to_the_next_owner() {
        let mut bench = Bench::with(LetterLimits { waiting: 1, durability: Durability::FailClosed, ..LIMITS });
        bench.own(5);
        drop(bench.ingest(batch(1, 0, &[None, None])).await);
        assert_eq!(bench.credit.used(), 1);
        bench.own(0);
        while bench.credit.used() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[actix::test]
    async fn a_batch_of_an_ended_epoch_is_dropped_with_its_credit() {
        let mut bench = Bench::new();
        bench.board.open_epoch(Epoch { number: 2, name: "two".into() });
        let old = Ingested { batch: batch(1, 0, &[None, None]), permit: bench.credit.charge(500) };
        bench.policy.send(old).await.unwrap();
        assert_eq!(bench.credit.used(), 0);
        assert!(bench.decoded.try_recv().is_err());
        assert_eq!((bench.messages("error"), bench.board.partitions().len()), (0, 0));
        bench.board.opened(2);
        assert_eq!(bench.ingest(batch(2, 0, &[None])).await.verdicts.len(), 1);
        assert_eq!(bench.judged(), [(0, 1)]);
    }

    #[actix::test]
    async fn the_age_of_first_and_last_is_observed_and_a_future_time_is_skew() {
        let mut bench = Bench::new();
        let us = |ago_ms: i64| (Now::read().unix_ms() - ago_ms) * 1000;
        let values = [None, good(us(5_000)), good(us(99)), good(us(1_000)), good(0), good(us(-60_000))];
        bench.ingest(batch(1, 0, &values[..5])).await;
        let latency = bench.metrics.e2e_latency.with_label_values(&["producer_to_consumer"]);
        assert_eq!((latency.get_sample_count(), bench.metrics.clock_skew.get()), (2, 0));
        assert!((6_000.0..7_000.0).contains(&latency.get_sample_sum()), "{}", latency.get_sample_sum());
        bench.ingest(batch(1, 5, &values[5..])).await;
        assert_eq!((latency.get_sample_count(), bench.metrics.clock_skew.get()), (2, 1));
        let age = Now::read().unix_ms() - bench.board.opened(2).last_record_ms.load(Ordering::Acquire);
        assert!((0..10_000).contains(&age));
    }

    #[actix::test]
    async fn pausing_stands_still_at_every_kind_and_lets_nothing_behind_it_pass() {
        for value in one_of_each_kind() {
            let mut bench = Bench::build(LIMITS, true);
            bench.own(5);
            let values = [good(1), value, good(1)];
            let decoded = bench.ingest(batch(1, 10, &values)).await;
            assert_eq!((decoded.batch.origin.next, decoded.verdicts.len(), decoded.batch.records.len()), (11, 1, 1));
            assert!(decoded.held.is_empty());
            let behind = Ingested { batch: batch(1, 13, &[good(1)]), permit: bench.credit.charge(1) };
            bench.policy.send(behind).await.unwrap();
            drop(decoded);
            assert!(bench.decoded.try_recv().is_err() && bench.credit.used() == 0);
            // One letter, which settles nothing.
            let lent = bench.lend().unwrap();
            assert_eq!(lent.letter().unwrap().key, "events-2-11");
            lent.landed();
            assert!(bench.lend().is_none() && bench.settled.try_recv().is_err());
            assert_eq!((bench.messages("success"), bench.messages("error")), (1, 1));
            // A retry meets it again: no second letter, not counted again.
            bench.pauses.answer(Answer::Retry, None);
            let again = Ingested { batch: batch(1, 11, &values[1..]), permit: bench.credit.charge(1) };
            bench.policy.send(again).await.unwrap();
            assert!(bench.decoded.try_recv().is_err() && bench.lend().is_none());
            assert_eq!((bench.messages("success"), bench.messages("error")), (1, 1));
            // Set aside, it is a skip like any other.
            bench.pauses.answer(Answer::SetAside, None);
            let decoded = bench.ingest(batch(1, 11, &values[1..])).await;
            assert!(matches!(decoded.verdicts[..], [Verdict::Unprocessable(_), Verdict::Deliver(_)]));
            assert!(decoded.held.is_empty() && bench.lend().is_none());
            assert_eq!((bench.messages("success"), bench.messages("error")), (2, 1));
            assert!(bench.pauses.all().is_empty());
        }
    }

    #[actix::test]
    async fn a_record_that_is_set_aside_without_a_letter_that_landed_gets_one_that_settles_it() {
        let mut bench = Bench::build(LIMITS, true);
        bench.own(5);
        bench.ingest(batch(1, 0, &[good(1), None])).await;
        bench.lend().unwrap().failed(crate::pipeline::dead_letter::Loss::Timeout, Instant::now());
        bench.pauses.answer(Answer::SetAside, None);
        let decoded = bench.ingest(batch(1, 1, &[None, good(1)])).await;
        assert_eq!(decoded.held, [1]);
        bench.lend().unwrap().landed();
        assert_eq!(next(&mut bench.settled).await.origin.first, 1);
    }

    #[actix::test]
    async fn without_the_duty_pausing_waits_for_the_owner_and_writes_no_letter() {
        let mut bench = Bench::build(LIMITS, true);
        bench.ingest(batch(1, 0, &[good(1), None, good(1)])).await;
        assert!(bench.lend().is_none());
        assert!(!bench.pauses.all()[0].ours);
        bench.pauses.owner_passed(2, 2);
        let decoded = bench.ingest(batch(1, 1, &[None, good(1)])).await;
        assert_eq!((decoded.verdicts.len(), decoded.held.len()), (2, 0));
        assert!(bench.lend().is_none());
    }
}
