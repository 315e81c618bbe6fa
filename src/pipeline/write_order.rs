//! The order in which chunks of one partition go to a store that takes rising offsets only.
//!
//! Chunks arrive from the live stream and, after this instance became responsible, from ranges that are read again below
//! it. What lies higher waits for what lies lower, or the store would refuse the lower part for good. Ranges that are known
//! not to come are noted, so that nothing waits for them. It must not know the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::window::Chunk;

/// The chunks of one partition that wait to be written.
#[derive(Debug)]
pub struct WriteOrder {
    term: u64,
    /// Everything below is written, or known not to come.
    done: i64,
    /// End of what is being written now.
    taken: Option<i64>,
    /// By first offset.
    waiting: BTreeMap<i64, Waiting>,
    chunks: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Waiting {
    Chunk {
        chunk: Arc<Chunk>,
        arrival: u64,
    },
    /// Nobody will bring the offsets up to here.
    Absent(i64),
}

impl Waiting {
    fn next(&self) -> i64 {
        match self {
            Self::Chunk { chunk, .. } => chunk.next,
            Self::Absent(next) => *next,
        }
    }
}

/// At most this much is handed out at once; the first chunk may go beyond.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimits {
    /// Chunks.
    pub chunks: usize,
    /// Bytes.
    pub bytes: usize,
}

impl WriteOrder {
    /// An empty order under `term`, whose duties begin at `from`.
    pub const fn new(term: u64, from: i64) -> Self {
        Self { term, done: from, taken: None, waiting: BTreeMap::new(), chunks: 0, bytes: 0 }
    }

    /// A term begins at `from`. What lies between the end of the one before and `from` was somebody else's.
    pub fn begin(&mut self, term: u64, from: i64) {
        if self.term != term {
            self.term = term;
            let end = self.waiting.values().map(Waiting::next).max().unwrap_or(self.done).max(self.done);
            if from > end {
                self.note_absent(end, from);
            }
        }
    }

    /// The offset below which everything is written or known not to come.
    pub const fn done(&self) -> i64 {
        self.done
    }

    /// Chunks and bytes that wait or are being written.
    pub const fn held(&self) -> (usize, usize) {
        (self.chunks, self.bytes)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Takes a chunk, unless all of it is done.
    pub fn push(&mut self, chunk: Arc<Chunk>, arrival: u64) {
        if chunk.next <= self.done || self.waiting.get(&chunk.first).is_some_and(|held| held.next() >= chunk.next) {
            return;
        }
        self.chunks += 1;
        self.bytes += chunk.weight();
        let replaced = self.waiting.insert(chunk.first, Waiting::Chunk { chunk, arrival });
        self.forget(replaced.as_ref());
    }

    /// What can be written now, in order. It stays here until [`Self::written`] or [`Self::put_back`].
    pub fn take(&mut self, limits: TakeLimits) -> Vec<Arc<Chunk>> {
        let (mut position, mut bytes, mut ready) = (self.done, 0_usize, Vec::new());
        for (first, waiting) in &self.waiting {
            if *first > position {
                break;
            }
            if waiting.next() <= position {
                continue;
            }
            if let Waiting::Chunk { chunk, .. } = waiting {
                bytes = bytes.saturating_add(chunk.weight());
                if !ready.is_empty() && (ready.len() >= limits.chunks || bytes > limits.bytes) {
                    break;
                }
                ready.push(Arc::clone(chunk));
            }
            position = waiting.next();
        }
        if ready.is_empty() {
            self.finish(position);
        } else {
            self.taken = Some(position);
        }
        ready
    }

    /// What was taken is written.
    pub fn written(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.finish(taken);
        }
    }

    /// What was taken is not written and waits again.
    pub const fn put_back(&mut self) {
        self.taken = None;
    }

    /// Arrival number of the lowest chunk that is not being written.
    pub fn lowest_arrival(&self) -> Option<u64> {
        self.lowest().map(|(_, arrival)| arrival)
    }

    /// Gives up the lowest chunk that is not being written.
    pub fn give_up_lowest(&mut self) -> Option<Arc<Chunk>> {
        let (first, _) = self.lowest()?;
        let Some(Waiting::Chunk { chunk, .. }) = self.waiting.remove(&first) else { return None };
        self.chunks -= 1;
        self.bytes -= chunk.weight();
        self.note_absent(chunk.first, chunk.next);
        Some(chunk)
    }

    fn lowest(&self) -> Option<(i64, u64)> {
        let free_from = self.taken.unwrap_or(i64::MIN);
        self.waiting.iter().find_map(|(first, waiting)| match waiting {
            Waiting::Chunk { arrival, chunk } if chunk.next > free_from => Some((*first, *arrival)),
            Waiting::Chunk { .. } | Waiting::Absent(_) => None,
        })
    }

    fn finish(&mut self, until: i64) {
        self.done = self.done.max(until);
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= self.done
        {
            match entry.get() {
                Waiting::Absent(next) => self.done = self.done.max(*next),
                // The next to go.
                Waiting::Chunk { chunk, .. } if chunk.next > self.done => return,
                Waiting::Chunk { .. } => {}
            }
            let waiting = entry.remove();
            self.forget(Some(&waiting));
        }
    }

    /// Notes that a range will not come, together with its neighbours of which the same is known.
    fn note_absent(&mut self, first: i64, next: i64) {
        let (mut first, mut next) = (first, next);
        if let Some((before, Waiting::Absent(end))) = self.waiting.range(..=first).next_back()
            && *end >= first
        {
            (first, next) = (*before, next.max(*end));
        }
        while let Some((&after, Waiting::Absent(end))) = self.waiting.range(first + 1..).next()
            && after <= next
        {
            next = next.max(*end);
            self.waiting.remove(&after);
        }
        // A chunk that begins here ends higher, or it would not be kept beside what is given up: it says more.
        if !matches!(self.waiting.get(&first), Some(Waiting::Chunk { .. })) {
            self.waiting.insert(first, Waiting::Absent(next));
        }
    }

    fn forget(&mut self, waiting: Option<&Waiting>) {
        if let Some(Waiting::Chunk { chunk, .. }) = waiting {
            self.chunks -= 1;
            self.bytes -= chunk.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stream::SkipReason;
    use crate::wire::stream_frame::FrameBuilder;
    use proptest::prelude::*;

    const ALL: TakeLimits = TakeLimits { chunks: usize::MAX, bytes: usize::MAX };

    fn chunk(first: i64, next: i64) -> Arc<Chunk> {
        let mut builder = FrameBuilder::new();
        builder.skip(first, next, SkipReason::NoRecord);
        Arc::new(Chunk::new(0, first, next, 0, builder.seal(0, first, next)))
    }

    fn ranges(chunks: &[Arc<Chunk>]) -> Vec<(i64, i64)> {
        chunks.iter().map(|chunk| (chunk.first, chunk.next)).collect()
    }

    #[test]
    fn what_lies_higher_waits_for_what_is_read_again() {
        let mut order = WriteOrder::new(1, 100);
        order.push(chunk(500, 510), 0);
        assert!(order.take(ALL).is_empty());
        order.push(chunk(100, 300), 1);
        assert_eq!(ranges(&order.take(ALL)), [(100, 300)]);
        order.written();
        order.push(chunk(300, 505), 2);
        assert_eq!(ranges(&order.take(ALL)), [(300, 505), (500, 510)]);
        order.put_back();
        assert_eq!(ranges(&order.take(TakeLimits { chunks: 1, bytes: usize::MAX })), [(300, 505)]);
        order.written();
        assert_eq!(ranges(&order.take(ALL)), [(500, 510)]);
        order.written();
        assert_eq!((order.done(), order.is_empty(), order.held()), (510, true, (0, 0)));
        order.push(chunk(400, 510), 3);
        assert!(order.is_empty(), "what is done is not taken again");
    }

    #[test]
    fn nothing_waits_for_what_was_given_up_or_was_somebody_elses() {
        let mut order = WriteOrder::new(1, 0);
        for first in [0, 10, 20, 30] {
            order.push(chunk(first, first + 10), first.unsigned_abs());
        }
        assert_eq!(order.take(TakeLimits { chunks: 1, bytes: usize::MAX }).len(), 1);
        assert_eq!(order.lowest_arrival(), Some(10), "what is being written is not given up");
        assert_eq!(order.give_up_lowest().map(|chunk| chunk.first), Some(10));
        assert_eq!(order.give_up_lowest().map(|chunk| chunk.first), Some(20));
        order.written();
        assert_eq!(ranges(&order.take(ALL)), [(30, 40)]);
        order.written();
        order.begin(2, 1_000);
        order.push(chunk(1_000, 1_001), 9);
        assert_eq!(ranges(&order.take(ALL)), [(1_000, 1_001)]);
        order.written();
        order.begin(3, 500);
        order.push(chunk(1_001, 1_002), 10);
        assert_eq!(ranges(&order.take(ALL)), [(1_001, 1_002)], "a term that begins lower asks for nothing anew");
    }

    proptest! {
        /// In any order of arrival, with failures and losses: what is handed out rises, nothing is handed out behind a
        /// range that may still come, and in the end all that was not given up is written.
        #[test]
        fn offsets_rise_and_nothing_is_forgotten(
            cuts in proptest::collection::vec(1..6_i64, 1..40),
            steps in proptest::collection::vec((0..6_u8, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut at = 0;
            let mut pending: Vec<(i64, i64)> = cuts.iter().map(|len| { at += len; (at - len, at) }).collect();
            let mut order = WriteOrder::new(1, 0);
            let (mut written, mut lost, mut arrivals) = (Vec::new(), Vec::new(), 0);
            let mut taken: Vec<(i64, i64)> = Vec::new();
            let mut push = |order: &mut WriteOrder, pending: &mut Vec<(i64, i64)>, index: usize| {
                let (first, next) = pending.remove(index);
                order.push(chunk(first, next), arrivals);
                arrivals += 1;
            };
            for (step, index) in steps {
                match step {
                    0..3 if !pending.is_empty() => {
                        let index = index.index(pending.len().min(4));
                        push(&mut order, &mut pending, index);
                    }
                    3 if taken.is_empty() => {
                        taken = ranges(&order.take(TakeLimits { chunks: 1 + index.index(5), bytes: usize::MAX }));
                        let floor = pending.iter().map(|(first, _)| *first).min().unwrap_or(i64::MAX);
                        prop_assert!(taken.iter().all(|(first, _)| *first < floor), "{taken:?} passes {floor}");
                    }
                    4 if !taken.is_empty() => {
                        order.written();
                        written.append(&mut taken);
                    }
                    5 if !taken.is_empty() => {
                        order.put_back();
                        taken.clear();
                    }
                    5 => lost.extend(order.give_up_lowest().map(|chunk| (chunk.first, chunk.next))),
                    _ => {}
                }
            }
            if !taken.is_empty() {
                order.put_back();
            }
            while !pending.is_empty() {
                push(&mut order, &mut pending, 0);
            }
            loop {
                let taken = ranges(&order.take(TakeLimits { chunks: 3, bytes: usize::MAX }));
                if taken.is_empty() { break; }
                order.written();
                written.extend(taken);
            }
            prop_assert!(written.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{written:?}");
            let mut all: Vec<_> = written.into_iter().chain(lost).collect();
            all.sort_unstable();
            prop_assert_eq!(all.iter().map(|(first, next)| next - first).sum::<i64>(), at);
            prop_assert_eq!((order.done(), order.held()), (at, (0, 0)));
        }
    }
}
