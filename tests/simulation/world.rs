//! The simulated service: a reader that may crash and re-read, store generations, and clients that come, go and stall.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashstream::actors::fan_out::FanOut;
use dashstream::actors::history::{Job, Turned};
use dashstream::actors::link::Link;
use dashstream::actors::session_queue::{Beginning, Feed, QueueLimits, Request, SessionInfo, SessionQueue, SlowPolicy};
use dashstream::actors::sessions::{OpenSession, Registered, Sessions};
use dashstream::board::{Board, Epoch, PartitionBoard};
use dashstream::messages::{Decoded, PartitionStart, PartitionsOpened, Settled, Tracked};
use dashstream::metrics::Metrics;
use dashstream::pipeline::assemble::{Assembler, Judged};
use dashstream::pipeline::credit::Credit;
use dashstream::pipeline::filter::{Filter, Grant};
use dashstream::pipeline::manual_reset::NamedEpoch;
use dashstream::pipeline::page::{Page, PageRequest, TierError};
use dashstream::pipeline::record::Origin;
use dashstream::pipeline::replay_plan::{Limits, Source};
use dashstream::pipeline::settled::SettledTable;
use dashstream::pipeline::start::{self, Known};
use dashstream::pipeline::tags::Reading;
use dashstream::pipeline::window::Window;
use dashstream::spans::Spans;
use dashstream::wire::control::{Dialect, From, Resume, Unlisted};
use dashstream::wire::filter::{FilterChange, FilterRequest};

use crate::client::Client;
use crate::log::{Entry, Log, TENANTS};

struct Browser {
    queue: Arc<SessionQueue>,
    turn: VecDeque<Bytes>,
    _registered: Registered,
    client: Client,
    /// Whether it says what it has applied.
    reports: bool,
    epoch: u64,
    /// Where it began, and how much of the log that promises.
    began: Vec<(i32, i64)>,
}

/// A session that has decided where it begins, and has not begun.
struct Arrival {
    browser: Browser,
    epoch: Epoch,
    beginnings: Vec<Beginning>,
    from: From,
}

pub struct World {
    rng: fastrand::Rng,
    now: Instant,
    log: Log,
    board: Board,
    metrics: Arc<Metrics>,
    sessions: Sessions,
    credit: Credit,
    generation: u64,
    store: FanOut,
    /// Next offset that the reader reads, per partition.
    reader: Vec<i64>,
    browsers: Vec<Browser>,
    window_bytes: usize,
    duties: Duties,
    /// There is a Redis tier.
    redis: bool,
    /// Sessions that are being served from history.
    jobs: Vec<Job>,
}

/// The duties of this instance: what is settled, what is committed, which dead letters are on their way.
#[derive(Default)]
struct Duties {
    term: u64,
    table: SettledTable,
    /// What the group has; survives this process.
    committed: BTreeMap<i32, i64>,
    letters: Vec<(u64, Settled)>,
    /// Bad records whose letter has landed.
    landed: BTreeSet<(u64, i32, i64)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let board = Board::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let sessions = Sessions::default();
        let window_bytes = if rng.bool() { 6_000 } else { usize::MAX };
        let window = Window::new(window_bytes, usize::MAX);
        let store = FanOut::new(1, window, sessions.clone(), board.clone(), Arc::clone(&metrics));
        let partitions = rng.i32(1..5);
        let redis = rng.bool();
        let mut world = Self {
            rng,
            now: Instant::now(),
            log: Log::new(1, partitions),
            board,
            metrics,
            sessions,
            credit: Credit::new(1 << 20),
            generation: 1,
            store,
            reader: vec![0; partitions as usize],
            browsers: Vec::new(),
            window_bytes,
            duties: Duties::default(),
            redis,
            jobs: Vec::new(),
        };
        world.board.open_epoch(epoch(1));
        world.duties.table.open_epoch(1);
        world.open_partitions();
        world
    }

    pub fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.now += Duration::from_millis(self.rng.u64(0..20));
            match self.rng.u32(0..104) {
                0..25 => self.produce(),
                25..47 => self.read(),
                47..50 => self.letters_land(),
                50..58 => self.flush(),
                58..60 => self.commit(),
                60..80 => self.drain_some(),
                80..86 => self.connect(),
                86..90 => self.reconnect(),
                90..92 => self.disconnect(),
                92..94 => self.crash_reader(),
                94..96 => self.crash_store(),
                96..97 if self.rng.bool() => self.retention(),
                96..97 => self.add_partition(),
                97..98 => self.rebalance(),
                98 => self.recreate_topic(),
                99..103 => self.refilter(),
                _ => self.serve_those_who_ask(),
            }
            self.read_history(2);
        }
        self.settle_down();
    }

    /// Retention takes the beginning of a partition; the memory window may still have it.
    fn retention(&mut self) {
        let partitions = self.log.partitions();
        let partition = partitions[self.rng.usize(0..partitions.len())];
        let settled = self.board.opened(partition).stored.get().unwrap_or(0);
        let low = self.rng.i64(0..=settled.min(self.reader[partition as usize]));
        self.log.retain(partition, low);
        if self.rng.bool() {
            self.board.opened(partition).low_watermark.set(self.log.low(partition));
        }
    }

    /// Some sessions below the window get a page, or learn that a tier does not answer.
    fn read_history(&mut self, pages: usize) {
        let wanted = self.store.wanted();
        let redis = self.redis;
        self.jobs.extend(wanted.into_iter().filter_map(|asked| Job::new(asked, redis, &self.board)));
        for _ in 0..pages {
            if self.jobs.is_empty() {
                return;
            }
            let index = self.rng.usize(0..self.jobs.len());
            let mut job = self.jobs.swap_remove(index);
            let limits = Limits { records: self.rng.u32(1..60), bytes: self.rng.usize(1..8_000) };
            let Some(steps) = job.next(limits, &self.board, self.now) else { continue };
            let answers =
                steps.iter().map(|step| job.request(step).map(|(tier, asked)| self.page(tier, &asked))).collect();
            let goes_on = match job.absorb(&steps, answers, &self.board, &self.metrics, self.now) {
                Turned::Over => false,
                Turned::Stuck if self.rng.u32(0..4) == 0 => {
                    job.out_of_time(&self.board, &self.metrics, &Spans::default(), self.now)
                }
                Turned::Stuck => {
                    job.retry();
                    true
                }
                Turned::Moved | Turned::Elsewhere => true,
            };
            if goes_on {
                self.jobs.push(job);
            }
        }
    }

    /// A tier's answer. Redis has lost some blocks and lags behind; each of them fails now and then.
    fn page(&mut self, tier: Source, asked: &PageRequest) -> Result<Page, TierError> {
        if self.rng.u32(0..6) == 0 {
            return Err(TierError::Timeout);
        }
        if asked.epoch != self.log.epoch {
            return Err(TierError::EpochOver);
        }
        let (partition, end) = (asked.partition, asked.until.min(self.log.end(asked.partition)));
        let has = |offset: i64| match tier {
            Source::Redis => (offset / 8 * 7 + i64::from(partition)) % 5 != 0,
            _ => offset >= self.log.low(partition),
        };
        let Some(first) = (asked.from..end).find(|offset| has(*offset)) else { return Ok(Page::default()) };
        if first > asked.from {
            return Ok(Page { chunks: Vec::new(), low: Some(first) });
        }
        let next = (first..end).find(|offset| !has(*offset)).unwrap_or(end);
        let next = self.rng.i64(first + 1..=next);
        let (batch, verdicts) = self.log.batch(partition, first, next);
        let mut assembler = Assembler::new(partition, first);
        let mut chunks = Vec::new();
        let judged = Judged { batch: &batch, verdicts: &verdicts, findings: &[] };
        assembler.take(judged, |chunk| chunks.push(Arc::new(chunk))).expect("begins where it was told");
        chunks.extend(assembler.seal().map(Arc::new));
        Ok(Page { chunks, low: None })
    }

    fn produce(&mut self) {
        let partitions = self.log.partitions();
        let partition = partitions[self.rng.usize(0..partitions.len())];
        for _ in 0..self.rng.usize(1..30) {
            let entry = match self.rng.u32(0..10) {
                0 => Entry::Bad,
                1 => Entry::Hole,
                _ => Entry::Good,
            };
            self.log.produce(partition, entry);
        }
    }

    fn read(&mut self) {
        let partitions = self.log.partitions();
        let partition = partitions[self.rng.usize(0..partitions.len())];
        let first = self.reader[partition as usize];
        let end = self.log.end(partition);
        if first < end {
            let next = self.rng.i64(first + 1..=end);
            self.hand_over(partition, first, next);
            self.reader[partition as usize] = next;
        }
    }

    fn hand_over(&mut self, partition: i32, first: i64, next: i64) {
        let (batch, verdicts) = self.log.batch(partition, first, next);
        let permit = self.credit.charge(batch.arena.len());
        let term = self.duties.table.term(partition).unwrap_or(0);
        let mut held = Vec::new();
        for offset in first..next {
            if term != 0 && self.log.entry(partition, offset) == Entry::Bad {
                let origin = Origin { first: offset, next: offset + 1, ..batch.origin };
                self.duties.letters.push((self.log.epoch, Settled { origin, except: Vec::new(), duty_term: term }));
                held.push(offset);
            }
        }
        let decoded = Decoded { batch, verdicts, items: Vec::new(), duty_term: term, held, permit };
        self.store.take(Tracked { decoded, findings: Vec::new() }, self.now).expect("the reader leaves no hole");
        assert_eq!(self.credit.used(), 0, "the credit of a batch that was taken is back");
    }

    fn flush(&mut self) {
        for settled in self.store.flush(self.now).expect("chunks touch each other") {
            let stored = self.board.opened(settled.origin.partition).stored.get();
            assert!(stored >= Some(settled.origin.next), "nothing is settled before it was fanned out");
            self.duties.table.settle(&settled.origin, &settled.except, settled.duty_term);
        }
    }

    /// Some letters land, in any order; some reports are made twice.
    fn letters_land(&mut self) {
        for _ in 0..self.rng.usize(0..8) {
            if self.duties.letters.is_empty() {
                return;
            }
            let index = self.rng.usize(0..self.duties.letters.len());
            let (epoch, settled) = self.duties.letters.swap_remove(index);
            self.duties.landed.insert((epoch, settled.origin.partition, settled.origin.first));
            for _ in 0..self.rng.usize(1..3) {
                self.duties.table.settle(&settled.origin, &settled.except, settled.duty_term);
            }
        }
    }

    /// What is settled is committed: never anything whose duties are not done.
    fn commit(&mut self) {
        let prefixes: Vec<_> = self.duties.table.prefixes().collect();
        for (partition, prefix) in prefixes {
            for offset in 0..prefix {
                let landed = self.duties.landed.contains(&(self.log.epoch, partition, offset));
                let bad = self.log.entry(partition, offset) == Entry::Bad;
                assert!(!bad || landed, "partition {partition}: offset {offset} is committed without its dead letter");
            }
            let committed = self.duties.committed.insert(partition, prefix).unwrap_or(0);
            assert!(committed <= prefix, "a commit never goes back");
        }
    }

    /// Duties are lost, or taken under a new term.
    fn rebalance(&mut self) {
        let partitions = self.log.partitions();
        let partition = partitions[self.rng.usize(0..partitions.len())];
        if self.duties.table.term(partition).is_some() {
            self.commit();
            self.duties.table.disown(partition);
        } else {
            self.own(partition);
        }
    }

    /// The duties begin at what the group has; what the reader has passed already is read again for them.
    fn own(&mut self, partition: i32) {
        self.duties.term += 1;
        let from = self.duties.committed.get(&partition).copied().unwrap_or(0);
        self.duties.table.own(partition, self.duties.term);
        self.duties.table.begin(partition, self.duties.term, from);
        let position = self.reader[partition as usize];
        if from < position {
            self.hand_over(partition, from, position);
        }
    }

    fn connect(&mut self) {
        if self.browsers.len() < 12 {
            let arrival = self.decide_anything();
            self.admit(arrival);
            self.serve_newest();
        }
    }

    fn decide_anything(&mut self) -> Arrival {
        let from = [From::Latest, From::Earliest][self.rng.usize(0..2)];
        self.decide(from, Vec::new(), None)
    }

    fn known(&self) -> Vec<Known> {
        let of = |p: &Arc<PartitionBoard>| {
            let next = p.stored.get().unwrap_or(0);
            let low = p.window_low.get().unwrap_or(0);
            let oldest = p.low_watermark.get().unwrap_or(0).min(low);
            // While a new store generation rebuilds its window, the end of the log is not known to it: nothing is beyond it.
            let end = self.log.end(p.partition).max(next);
            Known { partition: p.partition, oldest, low, next, end, floor: 0 }
        };
        self.board.partitions().iter().map(of).collect()
    }

    fn open_browser(&mut self, from: From, last_applied: Vec<(i32, i64)>, named_epoch: Option<u64>) {
        let arrival = self.decide(from, last_applied, named_epoch);
        self.admit(arrival);
        self.serve_newest();
    }

    /// What a session does on its own thread, up to the moment at which it begins.
    fn decide(&mut self, from: From, last_applied: Vec<(i32, i64)>, named_epoch: Option<u64>) -> Arrival {
        let dialect = if self.rng.bool() { Dialect::V1 } else { Dialect::V2 };
        let known = self.known();
        let resume = Resume {
            from,
            last_applied,
            threads: None,
            unlisted: Unlisted::Earliest,
            epoch: None,
            client: None,
            filter: FilterChange::Keep,
        };
        let same_epoch = named_epoch.is_none_or(|epoch| epoch == self.log.epoch);
        let epoch = if same_epoch { NamedEpoch::Current } else { NamedEpoch::Other };
        let start = start::decide(&resume, epoch, &[], &known);
        let oldest = |partition| start.oldest.contains(&partition);
        let starts: Vec<_> = start.begins.iter().map(|begin| (begin.partition, begin.from)).collect();
        let beginnings: Vec<_> = starts
            .iter()
            .map(|(partition, from)| Beginning {
                partition: *partition,
                from: *from,
                end: self.log.end(*partition),
                oldest: oldest(*partition),
            })
            .collect();
        let info = SessionInfo {
            session: self.sessions.next_number(),
            dialect,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            opened: self.now,
            trace: None,
        };
        let queued_bytes = self.rng.usize(200..4_000);
        let limits = QueueLimits {
            queued_bytes,
            unapplied_bytes: queued_bytes + self.rng.usize(0..4_000),
            page_records: self.rng.u32(1..40),
            max_total: if self.rng.bool() { u64::MAX } else { self.rng.u64(10..80) },
            slow: SlowPolicy::CatchUp,
        };
        let reports = dialect == Dialect::V2 && self.rng.bool();
        let queue = Arc::new(SessionQueue::new(info, limits, Link::default()));
        let tenant = self.rng.bool().then(|| TENANTS[self.rng.usize(0..TENANTS.len())]);
        queue.set_filter(self.filter(tenant), false, self.now);
        let registered = self.sessions.register(OpenSession { queue: Arc::clone(&queue), socket: None });
        let mut client =
            Client::new(dialect, beginnings.iter().map(|start| (start.partition, start.from, start.oldest)));
        client.tenant = tenant;
        let epoch = self.log.epoch;
        let turn = VecDeque::new();
        let browser = Browser { queue, turn, _registered: registered, client, reports, epoch, began: starts };
        Arrival { browser, epoch: self.board.epoch(), beginnings, from }
    }

    /// The session begins as it decided, whatever has happened since.
    fn admit(&mut self, arrival: Arrival) {
        let Arrival { browser, epoch, beginnings, from } = arrival;
        browser.queue.begin(&epoch, &beginnings, Request::new(from), self.now);
        self.browsers.push(browser);
    }

    /// The store gets the request of the session that began last.
    fn serve_newest(&mut self) {
        if let Some(browser) = self.browsers.last() {
            self.store.serve(&browser.queue, self.now);
        }
    }

    /// Gives only what `tenant` wrote.
    fn filter(&mut self, tenant: Option<&'static str>) -> Option<Arc<Filter>> {
        let request = FilterRequest { tenants: tenant.map(|tenant| vec![tenant.to_owned()]), ..Default::default() };
        let reading = Reading { legacy_framing: false, max_decompressed_bytes: 1 << 20 };
        Filter::new(Some(&request), &Grant::ALL, reading)
    }

    /// A client changes its mind on an open connection, or a heartbeat is due.
    fn refilter(&mut self) {
        if self.browsers.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.browsers.len());
        if self.rng.bool() || self.browsers[index].client.dialect() == Dialect::V1 {
            self.browsers[index].queue.tell_withheld(self.now);
            return;
        }
        let tenant = self.rng.bool().then(|| TENANTS[self.rng.usize(0..TENANTS.len())]);
        let filter = self.filter(tenant);
        let browser = &mut self.browsers[index];
        browser.queue.set_filter(filter, true, self.now);
        browser.client.asked.push_back(tenant);
    }

    fn drain_some(&mut self) {
        if !self.browsers.is_empty() {
            let index = self.rng.usize(0..self.browsers.len());
            let frames = self.rng.usize(1..20);
            self.drain(index, frames);
        }
    }

    fn drain(&mut self, index: usize, frames: usize) {
        let browser = &mut self.browsers[index];
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..frames {
            if browser.turn.is_empty() {
                match browser.queue.poll_frames(&cx, &mut browser.turn) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => panic!("nobody closed this session"),
                    Poll::Pending => break,
                }
            }
            if let Some(frame) = browser.turn.pop_front() {
                browser.client.take(&frame, &self.log);
            }
        }
        if browser.reports && (frames == usize::MAX || self.rng.bool()) {
            let applied: Vec<_> = browser.client.seen.iter().map(|(p, seen)| (*p, seen.next - 1)).collect();
            let lag = browser.queue.applied(&applied, self.now);
            assert!(lag.is_some(), "who reports is measured");
        }
    }

    fn reconnect(&mut self) {
        if self.browsers.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.browsers.len());
        self.reconnect_at(index);
    }

    fn reconnect_at(&mut self, index: usize) {
        let gone = self.browsers.swap_remove(index);
        let cursor: Vec<_> = gone
            .client
            .seen
            .iter()
            .filter(|(_, seen)| seen.next > 0)
            .map(|(partition, seen)| (*partition, seen.next - 1))
            .collect();
        self.store.leave(gone.queue.info.session);
        if cursor.is_empty() {
            self.open_browser(From::Earliest, Vec::new(), None);
        } else {
            self.open_browser(From::Cursor, cursor, Some(gone.epoch));
        }
    }

    fn disconnect(&mut self) {
        if !self.browsers.is_empty() {
            let index = self.rng.usize(0..self.browsers.len());
            let gone = self.browsers.swap_remove(index);
            self.store.leave(gone.queue.info.session);
        }
    }

    /// Ingest dies: what it had in flight is read again from what the store has, its settled table is new, and the duties
    /// that it owned begin again at what the group has.
    fn crash_reader(&mut self) {
        let owned = self.forget_duties();
        for partition in self.board.partitions() {
            let stored = partition.stored.get().expect("the store lives");
            let back = self.rng.i64(0..4);
            self.reader[partition.partition as usize] = (stored - back).max(0);
        }
        for partition in owned {
            self.own(partition);
        }
    }

    /// The store dies with its window, and ingest is restarted with it; the next generation is rebuilt from where the old
    /// window began.
    fn crash_store(&mut self) {
        let owned = self.forget_duties();
        self.generation += 1;
        let window = Window::new(self.window_bytes, usize::MAX);
        let sessions = self.sessions.clone();
        self.store = FanOut::new(self.generation, window, sessions, self.board.clone(), Arc::clone(&self.metrics));
        self.open_partitions();
        for partition in owned {
            self.own(partition);
        }
    }

    fn forget_duties(&mut self) -> Vec<i32> {
        let owned = self.duties.table.owned().collect();
        self.duties.table = SettledTable::new();
        self.duties.table.open_epoch(self.log.epoch);
        owned
    }

    fn open_partitions(&mut self) {
        let partitions: Vec<_> = self
            .log
            .partitions()
            .into_iter()
            .map(|partition| {
                let board = self.board.opened(partition);
                let start = board.stored.get().or(board.window_low.get()).unwrap_or(0);
                board.start.set(start);
                self.reader[partition as usize] = start;
                PartitionStart { partition, start }
            })
            .collect();
        self.store.open(&PartitionsOpened { epoch: self.board.epoch(), partitions }, self.now);
    }

    fn add_partition(&mut self) {
        if self.log.partitions().len() < 8 {
            let partition = self.log.add_partition();
            self.reader.push(0);
            self.board.opened(partition).start.set(0);
            let partitions = vec![PartitionStart { partition, start: 0 }];
            self.store.open(&PartitionsOpened { epoch: self.board.epoch(), partitions }, self.now);
        }
    }

    fn recreate_topic(&mut self) {
        // Frames of the old epoch that wait in queues are still right; the clients check them against the old log first.
        for index in 0..self.browsers.len() {
            self.drain(index, usize::MAX);
        }
        // They read the board before it is told, and begin at some moment after.
        let late: Vec<_> = (0..self.rng.usize(0..3)).map(|_| self.decide_anything()).collect();
        let number = self.log.epoch + 1;
        let partitions = self.rng.i32(1..5);
        self.log = Log::new(number, partitions);
        self.reader = vec![0; partitions as usize];
        self.board.open_epoch(epoch(number));
        self.duties.table.open_epoch(number);
        self.duties.committed.clear();
        let (before, after): (Vec<_>, Vec<_>) = late.into_iter().partition(|_| self.rng.bool());
        before.into_iter().for_each(|arrival| self.admit(arrival));
        self.open_partitions();
        for arrival in after {
            self.admit(arrival);
            self.serve_newest();
        }
        for browser in &mut self.browsers {
            browser.epoch = number;
            browser.began = self.log.partitions().into_iter().map(|partition| (partition, 0)).collect();
            browser.client.forget();
        }
    }

    /// Whoever was capped, or told that history does not answer, asks on from its cursor.
    fn ask_on(&mut self) {
        let parked = |browser: &Browser| {
            browser.queue.snapshot(self.now).feed == Feed::Parked && !browser.client.seen.is_empty()
        };
        if let Some(index) = self.browsers.iter().position(parked) {
            self.drain(index, usize::MAX);
            self.reconnect_at(index);
        }
    }

    fn serve_those_who_ask(&mut self) {
        for browser in &self.browsers {
            if browser.queue.snapshot(self.now).feed == (Feed::Behind { asked: true }) {
                self.store.serve(&browser.queue, self.now);
            }
        }
    }

    /// Everything is read, flushed and drained: now every client must have everything from its start on, and what this
    /// instance owns is committed to the end.
    fn settle_down(&mut self) {
        for partition in self.log.partitions() {
            let (first, end) = (self.reader[partition as usize], self.log.end(partition));
            if first < end {
                self.hand_over(partition, first, end);
            }
        }
        self.flush();
        while !self.duties.letters.is_empty() {
            self.letters_land();
        }
        self.commit();
        for partition in self.duties.table.owned() {
            let committed = self.duties.committed.get(&partition).copied();
            assert_eq!(committed, Some(self.log.end(partition)), "partition {partition}: all of it is settled");
        }
        let mut rounds = 0;
        while self.browsers.iter().any(|browser| {
            let snapshot = browser.queue.snapshot(self.now);
            snapshot.queued_bytes > 0 || snapshot.feed != Feed::Live(self.generation)
        }) {
            for index in 0..self.browsers.len() {
                self.drain(index, usize::MAX);
            }
            self.serve_those_who_ask();
            self.read_history(20);
            self.ask_on();
            rounds += 1;
            assert!(rounds < 10_000, "a session neither drains nor goes live");
        }
        for index in 0..self.browsers.len() {
            self.browsers[index].queue.tell_withheld(self.now);
            self.drain(index, usize::MAX);
        }
        for browser in &self.browsers {
            for (partition, start) in &browser.began {
                let seen = &browser.client.seen[partition];
                let wants = |offset| browser.client.wants(*partition, offset);
                let next = self.log.next_told(*partition, seen.next, wants);
                // After a loss without a later record a v1 client knows its position only to some records.
                if !seen.resync {
                    assert_eq!(next, self.log.end(*partition), "partition {partition} is covered to the end");
                }
                if seen.lost == 0 && seen.aged == 0 {
                    assert_eq!(seen.records, self.log.good(*partition, *start, wants), "nothing is missing");
                }
            }
        }
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch { number, name: format!("cluster/topic/{number}") }
}
