//! The state of a run, rebuilt from what was sent of it: first states, patches, full states, checkpoints.
//!
//! Each step that carries a hash is checked by it. Where a step cannot be rebuilt the state is unknown, with the reason, until
//! a full state or a checkpoint comes: nothing is made up. It must not know Kafka.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fact::Fact;
use super::item::Place;
use super::json::hex;
use super::patch;
use super::run::{Note, Run};
use crate::wire::framing::{Mode, Unframer, ZSTD};
use crate::wire::telemetry::{Checkpoint, CompressionType, StateDiff};

/// As large a state may be when it is unpacked.
const MAX_STATE_BYTES: usize = 16 << 20;
/// So many checkpoints are remembered, for patches whose own base is lost.
const REMEMBERED: usize = 4;
/// So many problems are told; the others are counted.
const MAX_PROBLEMS: usize = 100;

/// The canonical JSON of a value: keys sorted by bytes, no blanks, numbers and escapes as `serde_json` writes them.
pub fn canonical(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// How sure a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// The last step's hash or checksum is that of this state.
    Verified,
    /// The last step carried none.
    Unverified,
}

/// What is known of a state.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// It is this.
    State(Value, Sure),
    /// It cannot be told.
    Unknown(String),
}

impl Known {
    /// The value, if it is known.
    pub const fn value(&self) -> Option<&Value> {
        match self {
            Self::State(value, _) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// The state after the steps so far.
#[derive(Clone, Debug)]
pub struct Chain {
    current: Known,
    checkpoints: VecDeque<(Vec<u8>, Value)>,
    steps: u64,
    problems: Vec<String>,
    more_problems: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            current: Known::Unknown("no state was sent".to_owned()),
            checkpoints: VecDeque::new(),
            steps: 0,
            problems: Vec::new(),
            more_problems: 0,
        }
    }
}

impl Chain {
    /// The state at the end of a run.
    pub fn of(run: &Run) -> Self {
        Self::until(run, |_| false)
    }

    /// The state right behind a checkpoint; `None` when the run has no such checkpoint.
    pub fn at(run: &Run, checkpoint_id: &[u8]) -> Option<Self> {
        let is_it = |note: &Note| matches!(&note.fact, Fact::Checkpoint(found) if found.checkpoint_id == checkpoint_id);
        let is_there = run.ordered().into_iter().any(is_it);
        is_there.then(|| Self::until(run, is_it))
    }

    fn until(run: &Run, is_last: impl Fn(&Note) -> bool) -> Self {
        let mut chain = Self::default();
        for note in run.ordered() {
            chain.step(note.place, &note.fact);
            if is_last(note) {
                break;
            }
        }
        chain
    }

    /// Takes the next step. Gives the top-level fields that it touched; empty for what is no step.
    pub fn step(&mut self, place: Place, fact: &Fact) -> BTreeSet<String> {
        let (next, problem) = match fact {
            Fact::Event(event) => {
                if event.kind() != Some(crate::wire::telemetry::EventType::GraphStart) {
                    return BTreeSet::new();
                }
                match &event.initial_state {
                    Some(text) => parsed(text.as_bytes(), "the first state"),
                    None => unknown("the graph starts without telling its state".to_owned()),
                }
            }
            Fact::Diff(diff) => self.diff(diff),
            Fact::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
            Fact::Trace(trace) if !trace.final_state.is_empty() => self.summary(&trace.final_state),
            _ => return BTreeSet::new(),
        };
        self.steps += 1;
        if let Some(problem) = problem {
            self.tell(format!("partition {}, offset {}: {problem}", place.partition, place.offset));
        }
        let Some(next) = next else { return BTreeSet::new() };
        let before = std::mem::replace(&mut self.current, next);
        match fact {
            // The state before it was changed in place.
            Fact::Diff(diff) if diff.full_state.is_empty() => named(diff),
            _ => touched(&before, &self.current),
        }
    }

    /// What is known now.
    pub const fn current(&self) -> &Known {
        &self.current
    }

    /// How many messages told something about the state.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// What could not be rebuilt or did not agree, and how many more of it there is.
    pub fn problems(&self) -> (&[String], u64) {
        (&self.problems, self.more_problems)
    }

    fn tell(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.more_problems = self.more_problems.saturating_add(1);
        }
    }

    fn diff(&mut self, diff: &StateDiff) -> Step {
        let sure = |value: &Value| match diff.state_hash.is_empty() {
            true => Some(Sure::Unverified),
            false => (Sha256::digest(canonical(value)).as_slice() == diff.state_hash).then_some(Sure::Verified),
        };
        if !diff.full_state.is_empty() {
            let Ok(value) = serde_json::from_slice::<Value>(&diff.full_state) else {
                return unknown("the full state is not JSON".to_owned());
            };
            return match sure(&value) {
                Some(sure) => (Some(Known::State(value, sure)), None),
                None => unknown("the hash of the full state differs: one of the two was changed".to_owned()),
            };
        }
        let before = std::mem::replace(&mut self.current, Known::Unknown(String::new()));
        let mut reason = match before {
            Known::State(mut state, _) => match patch::apply(&mut state, &diff.operations) {
                Err(error) => error.to_string(),
                Ok(()) => match sure(&state) {
                    Some(sure) => return (Some(Known::State(state, sure)), None),
                    None => "the hash of the patched state differs: a change before it is missing".to_owned(),
                },
            },
            Known::Unknown(reason) => format!("the state before this patch is not known ({})", root_reason(&reason)),
        };
        // A patch may be meant for its checkpoint; only a hash can show that.
        let base = self.checkpoints.iter().find(|(id, _)| !id.is_empty() && *id == diff.base_checkpoint_id);
        if let Some((_, base)) = base {
            let mut after = base.clone();
            let fits = patch::apply(&mut after, &diff.operations).is_ok() && !diff.state_hash.is_empty();
            if fits && sure(&after).is_some() {
                let problem = format!("{reason}; rebuilt from the checkpoint that it names");
                return (Some(Known::State(after, Sure::Verified)), Some(problem));
            }
        } else if !diff.base_checkpoint_id.is_empty() {
            reason.push_str(&format!("; its base, checkpoint {}, is not there", hex(&diff.base_checkpoint_id)));
        }
        unknown(reason)
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Step {
        let state = match state_of(checkpoint) {
            // It lies elsewhere: what is known from the changes goes on.
            Ok(None) => return (None, None),
            Ok(Some(state)) => state,
            Err(reason) => return (None, Some(reason)),
        };
        let sure = match checkpoint.checksum.is_empty() {
            true => Sure::Unverified,
            false if Sha256::digest(&state).as_slice() == checkpoint.checksum => Sure::Verified,
            false => return (None, Some("the checksum of the checkpoint differs: it is not used".to_owned())),
        };
        let Ok(value) = serde_json::from_slice::<Value>(&state) else {
            return (None, Some("the state of the checkpoint is not JSON".to_owned()));
        };
        if self.checkpoints.len() == REMEMBERED {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back((checkpoint.checkpoint_id.clone(), value.clone()));
        let differs = self.current.value().is_some_and(|current| *current != value);
        let problem = differs.then(|| "the checkpoint differs from the changes before it".to_owned());
        (Some(Known::State(value, sure)), problem)
    }

    /// The state in a run's summary: taken when the changes do not tell it, otherwise compared.
    fn summary(&self, state: &[u8]) -> Step {
        match (parsed(state, "the final state of the summary"), &self.current) {
            ((Some(Known::State(value, _)), _), Known::State(current, _)) => {
                let differs = *current != value;
                (None, differs.then(|| "the final state of the summary differs from the changes before it".to_owned()))
            }
            ((Some(Known::Unknown(_)), problem), Known::State(..)) => (None, problem),
            (step, _) => step,
        }
    }
}

/// What is known then, if that changes, and what is to be told.
type Step = (Option<Known>, Option<String>);

fn unknown(reason: String) -> Step {
    (Some(Known::Unknown(reason.clone())), Some(reason))
}

fn parsed(text: &[u8], what: &str) -> Step {
    match serde_json::from_slice(text) {
        Ok(value) => (Some(Known::State(value, Sure::Unverified)), None),
        Err(_) => unknown(format!("{what} is not JSON")),
    }
}

/// The first reason, not the whole row of those that follow from it.
fn root_reason(reason: &str) -> &str {
    let inner = reason.strip_prefix("the state before this patch is not known (");
    inner.map_or(reason, |inner| inner.split(')').next().unwrap_or(inner))
}

/// The state in a checkpoint, unpacked; `None` when it holds none.
fn state_of(checkpoint: &Checkpoint) -> Result<Option<Vec<u8>>, String> {
    if checkpoint.state.is_empty() {
        return Ok(None);
    }
    let packed = checkpoint.compression_info.as_ref().map_or(0, |info| info.r#type);
    match CompressionType::try_from(packed) {
        Ok(CompressionType::None) => Ok(Some(checkpoint.state.clone())),
        Ok(CompressionType::Zstd) => {
            let framed = [&[ZSTD], checkpoint.state.as_slice()].concat();
            let mut unframer = Unframer::new(Mode::Strict, MAX_STATE_BYTES);
            let state = unframer.content(&framed).map_err(|_| "the checkpoint cannot be unpacked".to_owned())?;
            Ok(Some(state.to_vec()))
        }
        _ => Err("the checkpoint is packed in a form that is not shown".to_owned()),
    }
}

/// The top-level fields that the operations of a patch name.
fn named(diff: &StateDiff) -> BTreeSet<String> {
    let places = diff.operations.iter().flat_map(|operation| [&operation.path, &operation.from]);
    let first = places.filter_map(|place| place.split('/').nth(1));
    first.map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
}

/// The top-level fields in which two states differ.
fn touched(before: &Known, after: &Known) -> BTreeSet<String> {
    let nothing = serde_json::Map::new();
    let fields = |known| Known::value(known).and_then(Value::as_object).unwrap_or(&nothing);
    let (before, after) = (fields(before), fields(after));
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value)).map(|(name, _)| name.clone());
    let gone = before.keys().filter(|name| !after.contains_key(*name)).cloned();
    changed.chain(gone).collect()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
