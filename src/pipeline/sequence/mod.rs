//! Sequence findings per thread (tenant and thread id together), in bounded memory.
//!
//! [`Tracker`] remembers the threads that were seen last; `line` judges the numbers of one thread. It must
//! not know tenants, records or partitions, and never withholds anything.
//!
//! A record whose numbers would outweigh it is looked at in part. The threads of the rest have their next number taken as a
//! new baseline, and with them a few others, since only [`place_of`] them is known: what is not looked at is never a gap.
//!
//! Bounds: at most [`Limits::threads`] are tracked. One more, and the [`Limits::prune_batch`] least recently used are
//! forgotten; of those, the ids of the last [`Limits::remembered`] are kept. A thread that comes back after it was
//! forgotten has its next number taken as a new baseline, in silence, so there is no false gap; a real gap at that very
//! place stays unseen. Whether its id was still remembered only decides whether it counts as a new thread.

mod line;

use std::hash::{BuildHasherDefault, Hasher};

use hashlink::LruCache;

use self::line::Thread;
/// Threads that share a place are begun anew together when one of them was not looked at.
const PLACES: usize = 128;

/// Consecutive numbers of one thread in consecutive events of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceItem {
    /// Keyed 128-bit hash of (tenant, thread).
    pub thread: u128,
    /// The first number, at least 1.
    pub sequence: u64,
    /// Index of the first inner event in an event batch, otherwise 0.
    pub event_index: u32,
    /// How many numbers.
    pub len: u32,
}

impl SequenceItem {
    /// One number.
    pub const fn one(thread: u128, sequence: u64, event_index: u32) -> Self {
        Self { thread, sequence, event_index, len: 1 }
    }

    /// Instead of numbers for which a record has no room: the places of their threads, as bits.
    pub const fn overlooked(places: u128) -> Self {
        Self { thread: places, sequence: 0, event_index: 0, len: 0 }
    }

    /// Whether it stands for numbers that are not looked at.
    pub const fn is_overlooked(&self) -> bool {
        self.len == 0
    }

    /// Whether this number in this event is the next one.
    pub fn continues_with(&self, thread: u128, sequence: u64, event_index: u32) -> bool {
        self.thread == thread
            && self.event_index.checked_add(self.len) == Some(event_index)
            && self.sequence.checked_add(u64::from(self.len)) == Some(sequence)
    }
}

/// Where a thread lies, below [`PLACES`].
#[allow(clippy::cast_possible_truncation, reason = "a part of a hash")]
pub const fn place_of(thread: u128) -> usize {
    thread as usize % PLACES
}

/// How many items, and how many findings, a record of so many bytes in Kafka may have: about as many as weigh what it weighs
/// itself, however much it unpacks to. An event takes more than these bytes, compressed too, since its id is random.
pub const fn allowance(record_bytes: usize) -> usize {
    4 + record_bytes / 16
}

/// What the check found at one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Sequences are missing: `found - expected` of them.
    Gap {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// A sequence came again.
    Duplicate {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// An older sequence came late.
    Reorder {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The producer began to count again; the thread is re-baselined.
    ProducerRestart {
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
}

/// A finding and the record it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFinding {
    /// Index of the record in its batch.
    pub record: u32,
    /// Index of the inner event in an event batch, otherwise 0.
    pub event_index: u32,
    /// What was found.
    pub finding: Finding,
}

/// The bounds of a [`Tracker`], in threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many are tracked.
    pub threads: usize,
    /// How many are forgotten at once.
    pub prune_batch: usize,
    /// How many of the forgotten are remembered by their id.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 100_000, prune_batch: 1_000, remembered: 10_000 }
    }
}

/// What happened to threads as such, counted up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seen for the first time.
    pub started: u64,
    /// Came back after they were forgotten.
    pub returned: u64,
    /// Forgotten to bound memory.
    pub pruned: u64,
}

/// The sequences of all threads.
#[derive(Debug)]
pub struct Tracker {
    limits: Limits,
    threads: LruCache<u128, Known, ByKey>,
    pruned: LruCache<u128, (), ByKey>,
    tally: Tally,
    /// How many records were looked at in part, and which of them was the last one in each place.
    overlooks: u64,
    overlooked: [u64; PLACES],
}

#[derive(Debug)]
struct Known {
    thread: Thread,
    /// Records that were looked at in part until its baseline was taken.
    overlooks: u64,
}

impl Tracker {
    /// A tracker that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            threads: LruCache::with_hasher(usize::MAX, ByKey::default()),
            pruned: LruCache::with_hasher(limits.remembered, ByKey::default()),
            tally: Tally::default(),
            overlooks: 0,
            overlooked: [0; PLACES],
        }
    }

    /// Checks numbers; `found` gets the findings with the index of their inner event. The first sight of a thread is a
    /// baseline; sequence 0 is unsequenced and never checked.
    pub fn check(&mut self, item: &SequenceItem, mut found: impl FnMut(u32, Finding)) {
        if item.is_overlooked() {
            self.overlook(item.thread);
        }
        for nth in 0..item.len {
            if let Some(finding) = self.next(item.thread, item.sequence + u64::from(nth)) {
                found(item.event_index + nth, finding);
            }
        }
    }

    fn next(&mut self, key: u128, sequence: u64) -> Option<Finding> {
        if sequence == 0 {
            return None;
        }
        let Some(known) = self.threads.get_mut(&key) else {
            self.begin(key, sequence);
            return None;
        };
        if known.overlooks < self.overlooked.get(place_of(key)).copied().unwrap_or_default() {
            *known = Known { thread: Thread::new(sequence), overlooks: self.overlooks };
            return None;
        }
        known.thread.check(sequence)
    }

    fn overlook(&mut self, places: u128) {
        self.overlooks += 1;
        for (place, last) in self.overlooked.iter_mut().enumerate() {
            if places >> place & 1 == 1 {
                *last = self.overlooks;
            }
        }
    }

    /// Forgets all threads, also the pruned ones: their numbers have a new meaning.
    pub fn reset(&mut self) {
        self.threads.clear();
        self.pruned.clear();
    }

    /// Threads tracked now.
    pub fn tracked(&self) -> usize {
        self.threads.len()
    }

    /// Forgotten threads whose id is remembered.
    pub fn remembered(&self) -> usize {
        self.pruned.len()
    }

    /// What happened to threads since the start.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Memory of the tracked and remembered threads in bytes, estimated from the size of their entries.
    pub fn memory_bytes(&self) -> usize {
        // An entry is its key and value between two links, on the heap, and a slot in the hash table.
        const OVERHEAD: usize = 5 * size_of::<usize>();
        self.threads.len() * (size_of::<(u128, Known)>() + OVERHEAD)
            + self.pruned.len() * (size_of::<u128>() + OVERHEAD)
    }

    #[cold]
    fn begin(&mut self, key: u128, sequence: u64) {
        if self.pruned.remove(&key).is_some() {
            self.tally.returned += 1;
        } else {
            self.tally.started += 1;
        }
        self.threads.insert(key, Known { thread: Thread::new(sequence), overlooks: self.overlooks });
        if self.threads.len() > self.limits.threads {
            for _ in 0..self.limits.prune_batch {
                let Some((thread, _)) = self.threads.remove_lru() else { break };
                self.pruned.insert(thread, ());
                self.tally.pruned += 1;
            }
        }
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// The keys are keyed hashes already.
type ByKey = BuildHasherDefault<KeyHasher>;

#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    #[allow(clippy::cast_possible_truncation, reason = "half of a good hash is a good hash")]
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests;
