//! Breaks the service and what it stands on by plan, and holds every frame that clients get against the promise: for users
//! against their own service or cluster, and for the tests.
//!
//! Clients ([`run`]) do what clients can do: stop reading, read slowly, leave without a word, come back with their cursor,
//! at this instance or another. A [`scenario`] breaks processes, networks, Redis and the topic besides. It must not know how
//! the service works.

pub mod ledger;

pub mod truth;

pub mod plan;

pub mod proxy;

pub mod scenario;

pub mod instance;

pub mod fields;

mod surroundings;

mod load;

mod client;

mod crowd;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::client::Client;
use self::ledger::{Fingerprint, Reset};

/// Records that are remembered to compare what clients got; later ones are not compared.
const MAX_REMEMBERED: usize = 2_000_000;
/// Violations that are kept in words.
const MAX_TOLD: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of each instance.
    pub addresses: Vec<String>,
    /// Clients at a time.
    pub clients: u32,
    /// Chooses what each of them does, and when.
    pub seed: u64,
    /// How long they misbehave; then they have `patience` to get everything.
    pub lasts: Duration,
    /// How long a client may take to connect, and to reach the end.
    pub patience: Duration,
    /// A bearer token.
    pub token: Option<String>,
    /// What they are held against.
    pub telling: Telling,
}

/// What clients are held against, besides the promise itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// What others of them got. All begin at the end, and remember little.
    AgainstEachOther,
    /// All that was published. Every second one begins at the start, and they remember everything.
    AgainstTheTruth,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the clients did, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// Connections.
    pub connections: u64,
    /// Records, over all clients.
    pub records: u64,
    /// Ranges that were told as lost, by reason.
    pub gaps: BTreeMap<String, u64>,
    /// Offsets that started again, by reason.
    pub resets: BTreeMap<String, u64>,
    /// Broken promises.
    pub violations: u64,
    /// The first of them, in words.
    pub told: Vec<String>,
}

/// What the clients share. Cloning shares it.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    report: Report,
    /// By epoch.
    logs: BTreeMap<String, Log>,
    /// The epoch that the last reset began; before any, the one that was seen first.
    newest: Option<String>,
    /// The epoch that has ended, although nobody may have been told.
    over: Option<String>,
    /// Per client the partitions of which it has applied something.
    known: BTreeMap<u32, BTreeSet<i32>>,
    /// `host:port` of the instances that listen.
    addresses: Vec<String>,
    /// How often all connections were lost at once.
    cuts: u64,
    /// Clients behave well for a while.
    calm: bool,
    /// Clients stop to misbehave.
    at_an_end: bool,
    /// Nobody wants to know any more.
    abandoned: bool,
}

/// What is known of the topic in one epoch: after it was made anew, other records lie at the same offsets.
#[derive(Debug, Default)]
struct Log {
    /// What lies where, as the first client got it.
    records: BTreeMap<(i32, i64), Fingerprint>,
    /// Per partition the furthest that any client has come.
    furthest: BTreeMap<i32, i64>,
}

/// How far a client has to come.
#[derive(Clone, Debug, Default)]
struct Goal {
    epoch: Option<String>,
    furthest: BTreeMap<i32, i64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, fault: &'static str) {
        *self.lock().report.faults.entry(fault).or_default() += 1;
    }

    fn violation(&self, client: u32, what: &str) {
        self.broken(format!("client {client}: {what}"));
    }

    fn broken(&self, promise: String) {
        let mut state = self.lock();
        state.report.violations += 1;
        if state.report.told.len() < MAX_TOLD {
            state.report.told.push(promise);
        }
    }
}

impl State {
    /// A client got a record: whether others got the same.
    fn compare(&mut self, epoch: &str, place: (i32, i64), record: Fingerprint) -> bool {
        let remembered: usize = self.logs.values().map(|log| log.records.len()).sum();
        let log = self.log(epoch);
        if let Some(known) = log.records.get(&place) {
            return *known == record;
        }
        if remembered < MAX_REMEMBERED {
            log.records.insert(place, record);
        }
        true
    }

    /// A client has applied everything below `next`.
    fn has_come(&mut self, epoch: &str, partition: i32, next: i64) {
        let furthest = self.log(epoch).furthest.entry(partition).or_default();
        *furthest = (*furthest).max(next);
    }

    /// A client was told that offsets start again in this epoch.
    fn reset(&mut self, reset: Reset, epoch: &str) {
        if reset.ended.is_some() {
            self.newest = Some(epoch.to_owned());
        } else if reset.reason != "retention" {
            // The log is the same and has lost its end: other clients may have what is over.
            let log = self.log(epoch);
            log.records.retain(|(partition, _), _| *partition != reset.partition);
            log.furthest.insert(reset.partition, reset.next_offset);
        }
        *self.report.resets.entry(reset.reason).or_default() += 1;
    }

    fn log(&mut self, epoch: &str) -> &mut Log {
        self.newest.get_or_insert_with(|| epoch.to_owned());
        self.logs.entry(epoch.to_owned()).or_default()
    }

    /// What the others have by now, each must get.
    fn goal(&self) -> Goal {
        let furthest = |epoch: &String| self.logs.get(epoch).map(|log| log.furthest.clone()).unwrap_or_default();
        Goal { furthest: self.newest.as_ref().map(furthest).unwrap_or_default(), epoch: self.newest.clone() }
    }
}

/// Lets the clients misbehave, and tells what came of it.
pub async fn run(settings: &Settings) -> Report {
    let shared = Shared::default();
    shared.lock().addresses.clone_from(&settings.addresses);
    let end = Instant::now() + settings.lasts;
    let mut clients: Vec<Client> =
        (0..settings.clients).map(|number| Client::new(number, settings, shared.clone())).collect();
    join_all(clients.iter_mut().map(|client| client.misbehave(end))).await;
    let goal = shared.lock().goal();
    join_all(clients.iter_mut().map(|client| client.reach(&goal))).await;
    std::mem::take(&mut shared.lock().report)
}
