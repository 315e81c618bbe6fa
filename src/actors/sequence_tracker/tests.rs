//! The wiring: which batches are checked, what is counted, what goes downstream.

use std::sync::Mutex;

use actix::Addr;
use bytes::Bytes;

use super::*;
use crate::actors::supervisor::{
    ChildSpec, GroupSpec, Running, Sabotage, StartContext, Strike, Supervisor, SupervisorSpec, SupervisorState,
};
use crate::board::Epoch;
use crate::messages::Heartbeat;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::credit::Credit;
use crate::pipeline::record::{RawBatch, RawRecord, Span};
use crate::pipeline::restart::{Intensity, Policy, Strategy};

/// Keeps what it gets.
#[derive(Default)]
struct Store(Arc<Mutex<Vec<Tracked>>>);

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Tracked> for Store {
    type Result = ();

    fn handle(&mut self, tracked: Tracked, _: &mut Self::Context) {
        self.0.lock().unwrap().push(tracked);
    }
}

/// Answered when everything before it was kept.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Kept;

impl Handler<Kept> for Store {
    type Result = ();

    fn handle(&mut self, _: Kept, _: &mut Self::Context) {}
}

struct Bench {
    board: Board,
    metrics: Arc<Metrics>,
    credit: Credit,
    downstream: Link<Tracked>,
    stored: Arc<Mutex<Vec<Tracked>>>,
    pulse: Pulse,
    tracker: Addr<SequenceTracker>,
    store: Addr<Store>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let (board, metrics) = (Board::new(), Arc::new(Metrics::new().unwrap()));
        board.open_epoch(Epoch { number: 1, name: "a".into() });
        board.opened(0);
        let (downstream, stored) = (Link::default(), Arc::default());
        let store = Store(Arc::clone(&stored)).start();
        downstream.publish(&store);
        let pulse = Pulse::new();
        let tracker = start(limits, &board, &metrics, &downstream, &pulse);
        Self { board, metrics, credit: Credit::new(1), downstream, stored, pulse, tracker, store }
    }

    /// A new generation of the tracker, as after a restart.
    fn restart(&mut self) {
        self.tracker = start(Limits::default(), &self.board, &self.metrics, &self.downstream, &self.pulse);
    }

    /// A batch of partition 0 with one record per element.
    fn batch(&self, epoch: u64, first: i64, records: &[&[(u128, u64)]]) -> Decoded {
        let (mut verdicts, mut items) = (Vec::new(), Vec::new());
        for record in records {
            verdicts.push(Verdict::Deliver(Meta {
                message_type: 1,
                items_start: u32::try_from(items.len()).unwrap(),
                items_len: u32::try_from(record.len()).unwrap(),
                timestamp_us: 0,
            }));
            let event = |(event_index, &(thread, sequence))| SequenceItem::one(thread, sequence, event_index);
            items.extend((0..).zip(record.iter()).map(event));
        }
        let headers = Span { start: 0, len: 0 };
        let next = first + i64::try_from(records.len()).unwrap();
        let raw = |offset| RawRecord { offset, timestamp_ms: 0, key: None, value: None, headers };
        let batch = RawBatch {
            origin: Origin { epoch, partition: 0, first, next },
            lost: None,
            records: (first..next).map(raw).collect(),
            arena: Bytes::new(),
        };
        Decoded { batch, verdicts, items, duty_term: 0, held: Vec::new(), permit: self.credit.charge(10) }
    }

    /// Sends such a batch and returns the findings as they come out.
    async fn feed(&self, epoch: u64, first: i64, records: &[&[(u128, u64)]]) -> Vec<(u32, u32, Finding)> {
        let before = self.batches();
        self.tracker.send(self.batch(epoch, first, records)).await.unwrap();
        self.store.send(Kept).await.unwrap();
        let stored = self.stored.lock().unwrap();
        let new = stored.get(before..).unwrap();
        new.iter().flat_map(|t| &t.findings).map(|f| (f.record, f.event_index, f.finding)).collect()
    }

    /// Gaps, duplicates, reorders, restarts.
    fn counts(&self) -> [u64; 4] {
        let m = &self.metrics;
        [&m.sequence_gaps, &m.sequence_duplicates, &m.sequence_reorders, &m.sequence_restarts].map(|c| c.get())
    }

    fn batches(&self) -> usize {
        self.stored.lock().unwrap().len()
    }
}

fn start(
    limits: Limits,
    board: &Board,
    metrics: &Arc<Metrics>,
    downstream: &Link<Tracked>,
    pulse: &Pulse,
) -> Addr<SequenceTracker> {
    let deps = SequenceTrackerDeps {
        limits,
        board: board.clone(),
        metrics: Arc::clone(metrics),
        downstream: downstream.clone(),
        pulse: pulse.clone(),
        guard: Guard::detached(),
    };
    SequenceTracker::new(deps).start()
}

#[actix::test]
async fn findings_ride_along_with_their_record_and_are_counted() {
    let bench = Bench::new(Limits::default());
    let records: [&[(u128, u64)]; 9] =
        [&[(1, 1)], &[(2, 1)], &[(3, 1)], &[(1, 2)], &[(2, 1)], &[], &[(3, 3)], &[(1, 4)], &[(3, 2)]];
    assert_eq!(
        bench.feed(1, 100, &records).await,
        [
            (4, 0, Finding::Duplicate { expected: 2, found: 1 }),
            (6, 0, Finding::Gap { expected: 2, found: 3 }),
            (7, 0, Finding::Gap { expected: 3, found: 4 }),
            (8, 0, Finding::Reorder { expected: 4, found: 2 }),
        ]
    );
    assert_eq!(bench.counts(), [2, 1, 1, 0]);
    assert_eq!((bench.metrics.sequence_gap_size.get_sample_count(), bench.metrics.sequence_started.get()), (2, 3));
    assert!((bench.metrics.sequence_gap_size.get_sample_sum() - 2.0).abs() < f64::EPSILON);
    assert_eq!(bench.metrics.sequence_threads.get(), 3);
    assert_eq!(bench.board.opened(0).sequenced.get(), Some(109));
}

#[actix::test]
async fn event_batches_are_checked_by_their_inner_events() {
    let bench = Bench::new(Limits::default());
    let findings = bench.feed(1, 0, &[&[(1, 1), (1, 2), (1, 4)], &[(1, 5), (2, 1), (1, 6)], &[(1, 7)]]).await;
    assert_eq!(findings, [(0, 2, Finding::Gap { expected: 3, found: 4 })]);
    assert_eq!(bench.metrics.multi_thread_batches.get(), 1);
}

#[actix::test]
async fn findings_of_a_record_that_has_thousands_are_counted_and_few_of_them_ride_along() {
    let bench = Bench::new(Limits::default());
    let losing: Vec<(u128, u64)> = (0..10_000).map(|nth| (1, 1 + 2 * nth)).collect();
    let mut batch = bench.batch(1, 0, &[&losing, &[(1, 30_000)]]);
    // The last of the thousands is not looked at.
    batch.items[9_999] = SequenceItem::overlooked(1 << 1);
    bench.tracker.send(batch).await.unwrap();
    bench.store.send(Kept).await.unwrap();
    let stored = bench.stored.lock().unwrap();
    let told: Vec<_> = stored[0].findings.iter().map(|finding| (finding.record, finding.event_index)).collect();
    assert_eq!(told, [(0, 1), (0, 2), (0, 3), (0, 4)], "a record of no bytes has the least room");
    assert_eq!(bench.counts(), [9_998, 0, 0, 0], "and the next number of the thread is no loss");
    assert_eq!(bench.metrics.sequence_overlooked.get(), 1);
}

#[actix::test]
async fn what_was_checked_is_not_checked_again_when_the_reader_goes_back() {
    let bench = Bench::new(Limits::default());
    let thread: Vec<[(u128, u64); 1]> = (1..=6).map(|sequence| [(1, sequence)]).collect();
    let records: Vec<&[(u128, u64)]> = thread.iter().map(<[_; 1]>::as_slice).collect();
    assert_eq!(bench.feed(1, 0, &records[..4]).await, []);
    assert_eq!(bench.feed(1, 0, &records[..2]).await, []);
    assert_eq!(bench.board.opened(0).sequenced.get(), Some(4), "nothing is taken back");
    assert_eq!(bench.feed(1, 2, &records[2..]).await, [], "the second half is new");
    assert_eq!((bench.counts(), bench.batches()), ([0; 4], 3));
    assert_eq!(bench.board.opened(0).sequenced.get(), Some(6));
}

#[actix::test]
async fn after_a_restart_nothing_is_counted_twice_and_no_loss_is_missed() {
    let mut bench = Bench::new(Limits::default());
    let gap = [(0, 0, Finding::Gap { expected: 2, found: 3 })];
    assert_eq!(bench.feed(1, 0, &[&[(1, 1)]]).await, []);
    assert_eq!(bench.feed(1, 1, &[&[(1, 3)]]).await, gap);
    assert_eq!(bench.counts(), [1, 0, 0, 0]);
    bench.restart();
    assert_eq!(bench.feed(1, 0, &[&[(1, 1)]]).await, []);
    assert_eq!(bench.feed(1, 1, &[&[(1, 3)]]).await, gap, "clients are told again");
    assert_eq!(bench.counts(), [1, 0, 0, 0], "but it is the same gap");
    assert_eq!(bench.feed(1, 2, &[&[(1, 5)]]).await, [(0, 0, Finding::Gap { expected: 4, found: 5 })]);
    assert_eq!(bench.counts(), [2, 0, 0, 0]);
}

#[actix::test]
async fn a_new_epoch_begins_anew_and_an_old_one_is_dropped_with_its_credit() {
    let bench = Bench::new(Limits::default());
    assert_eq!(bench.feed(1, 500, &[&[(1, 100)]]).await, []);
    bench.board.open_epoch(Epoch { number: 2, name: "b".into() });
    bench.board.opened(0);
    assert_eq!(bench.feed(1, 501, &[&[(1, 900)]]).await, [], "older than the board");
    assert_eq!((bench.batches(), bench.credit.used()), (1, 10));
    assert_eq!(bench.board.opened(0).sequenced.get(), None, "the new board is untouched");
    assert_eq!(bench.feed(2, 0, &[&[(1, 7)]]).await, []);
    assert_eq!(bench.feed(1, 501, &[&[(1, 900)]]).await, [], "older than what was seen");
    assert_eq!((bench.counts(), bench.batches()), ([0; 4], 2));
    assert_eq!(bench.board.opened(0).sequenced.get(), Some(1));
    assert_eq!(bench.feed(2, 1, &[&[(1, 9)]]).await.len(), 1);
}

#[actix::test]
async fn pruning_is_counted_and_logged_once_a_minute_with_memory_figures() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let _subscriber = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_writer(LogSink(Arc::clone(&log))).with_ansi(false).finish(),
    );
    let bench = Bench::new(Limits { threads: 10, prune_batch: 4, remembered: 2 });
    for thread in 0..30 {
        assert_eq!(bench.feed(1, i64::try_from(thread).unwrap(), &[&[(thread, 5)]]).await, []);
    }
    assert_eq!(bench.metrics.sequence_pruned.get(), 20);
    assert_eq!(bench.metrics.sequence_threads.get(), 10);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("threads were forgotten")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN") && lines[0].contains("pruned=4 tracked=7 remembered=2 memory_bytes="), "{log}");
}

#[actix::test]
async fn a_heartbeat_is_answered_and_a_retired_tracker_passes_nothing_on() {
    let bench = Bench::new(Limits::default());
    bench.tracker.send(Heartbeat).await.unwrap();
    assert_eq!(bench.pulse.touches(), 1);
    bench.pulse.retire();
    bench.feed(1, 0, &[&[(1, 1)]]).await;
    assert_eq!((bench.batches(), bench.credit.used()), (0, 0));
    assert_eq!(bench.board.opened(0).sequenced.get(), None);
}

#[actix::test]
async fn a_tracker_that_dies_is_replaced_and_the_link_leads_to_the_new_one() {
    let bench = Bench::new(Limits::default());
    let (board, metrics, downstream) = (bench.board.clone(), Arc::clone(&bench.metrics), bench.downstream.clone());
    let link = Link::<Decoded>::default();
    let published = link.clone();
    let start = move |context: StartContext| {
        let StartContext { guard, pulse, arbiter, .. } = context;
        let (board, metrics, downstream) = (board.clone(), Arc::clone(&metrics), downstream.clone());
        let deps = SequenceTrackerDeps { limits: Limits::default(), board, metrics, downstream, pulse, guard };
        let tracker = SequenceTracker::start_in_arbiter(&arbiter, move |_| SequenceTracker::new(deps));
        published.publish(&tracker);
        Ok(Running::of(&tracker))
    };
    let name = "sequence_tracker";
    let child = ChildSpec {
        name,
        policy: Policy::Permanent,
        heartbeat: Some(Duration::from_secs(30)),
        thread: name,
        start: Box::new(start),
    };
    let group = GroupSpec {
        name: "pipeline",
        strategy: Strategy::RestForOne,
        intensity: Intensity { max_restarts: 3, window: Duration::from_secs(60) },
        backoff: Backoff { base: Duration::from_millis(10), max: Duration::from_millis(10) },
        stop_timeout: Duration::from_secs(10),
        children: vec![child],
    };
    let state = SupervisorState::default();
    let supervisor = Supervisor::new(SupervisorSpec {
        groups: vec![group],
        heartbeat_interval: Duration::from_millis(10),
        state: state.clone(),
        metrics: Arc::clone(&bench.metrics),
        escalate: Box::new(|_| ()),
        allow_sabotage: true,
    })
    .start();
    for generation in 1..=3 {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !state.child(name).is_some_and(|child| child.up && child.generation == generation) {
            assert!(Instant::now() < deadline, "{:?}", state.child(name));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let tracker = link.current().unwrap();
        tracker.send(bench.batch(1, 0, &[&[(1, generation)]])).await.unwrap();
        bench.store.send(Kept).await.unwrap();
        assert_eq!(bench.batches() as u64, generation);
        supervisor.send(Strike { actor: name.into(), fault: Sabotage::Panic }).await.unwrap().unwrap();
    }
}

#[derive(Clone)]
struct LogSink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for LogSink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
