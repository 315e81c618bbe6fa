//! Believable runs of AI agents, endless and repeatable: the source of demo, tests and load.
//!
//! Pure: the seed decides what happens, the caller brings the time. The same seed and times give the same bytes. It must
//! not know Kafka; `kafka::load_producer` sends what is made here.

pub mod graph;

pub mod catalogue;

pub mod message;

pub mod state;

pub mod tools;

pub mod work;

pub mod model_call;

pub mod plan;

pub mod stamp;

pub mod run;

pub mod encode;

pub mod defects;

pub mod flat;

pub mod records;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use crate::wire::telemetry::DashStreamMessage;
use catalogue::GRAPHS;
use graph::{Case, Graph};
use run::Run;
use stamp::Thread;

const TENANTS: [&str; 6] = ["acme", "northwind", "globex", "initech", "umbra-health", "kestrel-bank"];

/// What the generator makes.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorSettings {
    /// Decides everything.
    pub seed: u64,
    /// How many tenants there are, at least 1.
    pub tenants: u32,
    /// How many runs are under way at any time, at least 1. Each makes about nine records per second of its own time.
    pub concurrent_runs: u32,
    /// Chance of each thing that can go wrong in a run, 0 to 1.
    pub failure_rate: f64,
    /// Share of the threads whose clock is off, 0 to 1.
    pub clock_skew: f64,
}

impl Default for GeneratorSettings {
    fn default() -> Self {
        Self { seed: 1, tenants: 3, concurrent_runs: 8, failure_rate: 0.08, clock_skew: 0.0 }
    }
}

/// A message and the thread it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The thread's id, which is the record key.
    pub thread: Arc<str>,
    /// The message, headers included.
    pub message: DashStreamMessage,
}

/// An endless stream of runs, many at a time.
#[derive(Debug)]
pub struct Generator {
    settings: GeneratorSettings,
    slots: Vec<Slot>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    ready: VecDeque<DashStreamMessage>,
    ready_thread: Arc<str>,
    now_us: u64,
}

/// A place where one run follows another.
#[derive(Debug)]
struct Slot {
    rng: Rng,
    thread: Thread,
    run: Run,
    graph: &'static Graph,
    case: &'static Case,
    turn: u32,
    turns: u32,
    started_at_us: u64,
}

impl Generator {
    /// A generator whose time begins at 0.
    pub fn new(settings: GeneratorSettings) -> Self {
        let slots: Vec<_> = (0..u64::from(settings.concurrent_runs.max(1)))
            .map(|index| {
                // Each slot draws its own chances, so that one run does not depend on how the others interleave.
                let mut rng = Rng::with_seed(settings.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let started_at_us = if index == 0 { 0 } else { index * 350_000 + rng.u64(..300_000) };
                Slot::new(&settings, started_at_us, rng)
            })
            .collect();
        let due = slots.iter().enumerate().map(|(index, slot)| Reverse((slot.started_at_us, index))).collect();
        Self { settings, slots, due, ready: VecDeque::new(), ready_thread: Arc::from(""), now_us: 0 }
    }

    /// When the next message is due, in microseconds of the generator's own time.
    pub fn next_at_us(&self) -> u64 {
        match self.due.peek() {
            Some(Reverse((at, _))) if self.ready.is_empty() => *at,
            _ => self.now_us,
        }
    }

    /// The next message, sent at `timestamp_us` (Unix). `None` never comes: the stream is endless.
    pub fn next_message(&mut self, timestamp_us: i64) -> Option<Generated> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Generated { thread: Arc::clone(&self.ready_thread), message });
            }
            let Reverse((at_us, index)) = self.due.pop()?;
            let slot = self.slots.get_mut(index)?;
            self.now_us = at_us;
            slot.run.step(&mut slot.thread, timestamp_us, &mut slot.rng, &mut self.ready);
            self.ready_thread = Arc::clone(&slot.thread.id);
            if slot.run.next_at_us().is_none() {
                slot.go_on(&self.settings, at_us);
            }
            let next = slot.started_at_us + slot.run.next_at_us().unwrap_or_default();
            self.due.push(Reverse((next, index)));
        }
    }
}

impl Slot {
    #[allow(clippy::indexing_slicing, reason = "each index is drawn below the length of a list that is never empty")]
    fn new(settings: &GeneratorSettings, started_at_us: u64, mut rng: Rng) -> Self {
        let graph = GRAPHS[rng.usize(..GRAPHS.len())];
        let case = &graph.cases[rng.usize(..graph.cases.len())];
        let tenant = rng.u32(..settings.tenants.max(1));
        let name = TENANTS[tenant as usize % TENANTS.len()];
        let round = tenant as usize / TENANTS.len();
        let tenant = if round == 0 { name.to_owned() } else { format!("{name}-{}", round + 1) };
        let id = format!("{}-{:010x}", graph.name.replace('_', "-"), rng.u64(..1 << 40));
        let skewed = rng.f64() < settings.clock_skew;
        let clock_skew_us = if skewed { rng.i64(-600..=600) * 1_000_000 } else { 0 };
        let thread = Thread { tenant: tenant.into(), id: id.into(), sequence: 0, clock_skew_us };
        let turns = [1, 1, 1, 2, 2, 3][rng.usize(..6)];
        let run = Run::new(graph, case, 0, settings.failure_rate, &mut rng);
        Self { rng, thread, run, graph, case, turn: 0, turns, started_at_us }
    }

    /// The user asks again on the same thread, or another thread takes the place.
    fn go_on(&mut self, settings: &GeneratorSettings, at_us: u64) {
        let starts_at_us = at_us + self.rng.u64(500_000..4_000_000);
        self.turn += 1;
        if self.run.completed() && self.turn < self.turns {
            self.run = Run::new(self.graph, self.case, self.turn, settings.failure_rate, &mut self.rng);
            self.started_at_us = starts_at_us;
        } else {
            *self = Self::new(settings, starts_at_us, self.rng.fork());
        }
    }
}

#[cfg(test)]
mod tests;
