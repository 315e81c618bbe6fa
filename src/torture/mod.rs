//! Clients that misbehave by plan and hold every frame against the promise: for users against their own service.
//!
//! They can only do what clients do: stop reading, read slowly, leave without a word, come back with their cursor, at this
//! instance or another. It must not know how the service works.

pub mod ledger;

mod client;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::client::Client;
use self::ledger::Fingerprint;

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
    /// What lies where, as the first client got it.
    records: BTreeMap<(i32, i64), Fingerprint>,
    /// Per partition the furthest that any client has come.
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
        let mut state = self.lock();
        state.report.violations += 1;
        if state.report.told.len() < MAX_TOLD {
            state.report.told.push(format!("client {client}: {what}"));
        }
    }
}

impl State {
    /// A client got a record: whether others got the same.
    fn compare(&mut self, place: (i32, i64), record: Fingerprint) -> bool {
        if let Some(known) = self.records.get(&place) {
            return *known == record;
        }
        if self.records.len() < MAX_REMEMBERED {
            self.records.insert(place, record);
        }
        true
    }
}

/// Lets the clients misbehave, and tells what came of it.
pub async fn run(settings: &Settings) -> Report {
    let shared = Shared::default();
    let end = Instant::now() + settings.lasts;
    let mut clients: Vec<Client> =
        (0..settings.clients).map(|number| Client::new(number, settings, shared.clone())).collect();
    join_all(clients.iter_mut().map(|client| client.misbehave(end))).await;
    // What the others have by now, each must get.
    let goal = shared.lock().furthest.clone();
    join_all(clients.iter_mut().map(|client| client.reach(&goal))).await;
    std::mem::take(&mut shared.lock().report)
}
