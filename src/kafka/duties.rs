//! The duties of this instance: which partitions it owns, under which term, and how far they are settled.
//!
//! Shared by the actor (reports), the reader (begins a term) and the membership (gains, loses, commits). Every change of
//! ownership happens under one lock, so that a term can never begin after it was taken away. It does no IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::messages::Settled;
use crate::metrics::Metrics;
use crate::pipeline::settled::SettledTable;

/// Terms are counted over the whole process: a report of an older generation is never taken for a current one.
static TERMS: AtomicU64 = AtomicU64::new(0);

/// The duties. One per generation of `KafkaIngest`.
#[derive(Debug)]
pub struct Duties {
    board: Board,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug)]
struct State {
    table: SettledTable,
    /// Partitions that the group assigned to this instance, begun or not.
    assigned: BTreeSet<i32>,
    /// What the group is known to have, per partition of the current epoch.
    committed: BTreeMap<i32, i64>,
    epoch: u64,
    epoch_name: String,
    /// Another generation has taken over: the board is not ours any more.
    closed: bool,
}

/// What there is to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToCommit {
    /// The epoch that the offsets are of.
    pub epoch: u64,
    /// Its name, which goes along as metadata.
    pub epoch_name: String,
    /// Partition and next offset.
    pub offsets: Vec<(i32, i64)>,
}

impl Duties {
    /// Nothing is owned; whatever an earlier generation owned is over.
    pub fn new(board: Board, metrics: Arc<Metrics>) -> Self {
        for partition in board.partitions() {
            partition.duty_term.store(0, Ordering::Release);
            partition.settled.clear();
        }
        metrics.owned_partitions.set(0);
        let mut table = SettledTable::new();
        let epoch = board.epoch();
        table.open_epoch(epoch.number);
        let state = State {
            table,
            assigned: BTreeSet::new(),
            committed: BTreeMap::new(),
            epoch: epoch.number,
            epoch_name: epoch.name,
            closed: false,
        };
        Self { board, metrics, state: Mutex::new(state), moved: Condvar::new() }
    }

    /// A new epoch was opened on the board: every term is over. Assigned partitions get new ones, which are returned and
    /// wait for their [`Duties::begin`]. Only before the first epoch nothing can have begun: terms go on, and with them the
    /// commits with which the group assigned them.
    pub fn open_epoch(&self, number: u64, name: &str) -> Vec<(i32, u64)> {
        let mut state = self.lock();
        let state = &mut *state;
        let known: Vec<_> = state.assigned.iter().filter_map(|&p| Some((p, state.table.term(p)?))).collect();
        let first = state.epoch == 0;
        state.table.open_epoch(number);
        state.committed.clear();
        state.epoch = number;
        state.epoch_name = name.to_owned();
        if first {
            known.into_iter().for_each(|(partition, term)| state.table.own(partition, term));
            return Vec::new();
        }
        let assigned: Vec<i32> = state.assigned.iter().copied().collect();
        assigned
            .into_iter()
            .map(|partition| {
                let term = TERMS.fetch_add(1, Ordering::Relaxed) + 1;
                state.table.own(partition, term);
                (partition, term)
            })
            .collect()
    }

    /// The group assigned a partition. Answers the term, which counts from its [`Duties::begin`] on.
    pub fn gain(&self, partition: i32) -> u64 {
        let mut state = self.lock();
        let term = TERMS.fetch_add(1, Ordering::Relaxed) + 1;
        state.assigned.insert(partition);
        state.table.own(partition, term);
        term
    }

    /// The duties of a term begin at `from`; `committed` is what the group has. From now on the stages do them. False when
    /// the term is over.
    pub fn begin(&self, partition: i32, term: u64, from: i64, committed: Option<i64>) -> bool {
        let mut state = self.lock();
        if state.closed || !state.table.begin(partition, term, from) {
            return false;
        }
        match committed {
            Some(offset) => state.committed.insert(partition, offset),
            None => state.committed.remove(&partition),
        };
        if let Some(board) = self.board.find(partition) {
            board.settled.set(from);
            board.duty_from.set(from);
            if let Some(offset) = committed {
                board.committed.set(offset);
            }
            board.duty_term.store(term, Ordering::Release);
        }
        self.show_owned(&state);
        true
    }

    /// The group took a partition away.
    pub fn lose(&self, partition: i32) {
        let mut state = self.lock();
        state.assigned.remove(&partition);
        state.table.disown(partition);
        state.committed.remove(&partition);
        if state.closed {
            return;
        }
        // A topic that was made anew may have fewer partitions.
        if let Some(board) = self.board.find(partition) {
            board.duty_term.store(0, Ordering::Release);
            board.settled.clear();
            board.committed.clear();
        }
        self.show_owned(&state);
    }

    /// This generation is over: it changes nothing on the board any more.
    pub fn close(&self) {
        self.lose_all();
        self.lock().closed = true;
    }

    /// Whether everything that was fetched of the owned partitions is settled.
    pub fn all_settled(&self) -> bool {
        let assigned = self.assigned();
        self.wait_settled(&assigned, Duration::ZERO)
    }

    /// Gives everything up.
    pub fn lose_all(&self) {
        let assigned: Vec<i32> = self.lock().assigned.iter().copied().collect();
        for partition in assigned {
            self.lose(partition);
        }
    }

    /// Whether `term` is the current one of a partition.
    pub fn holds(&self, partition: i32, term: u64) -> bool {
        self.lock().table.term(partition) == Some(term)
    }

    /// The partitions that the group assigned.
    pub fn assigned(&self) -> Vec<i32> {
        self.lock().assigned.iter().copied().collect()
    }

    /// Takes a report.
    pub fn settle(&self, report: &Settled) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if let Some(prefix) = state.table.settle(&report.origin, &report.except, report.duty_term) {
            if let Some(board) = self.board.find(report.origin.partition) {
                board.settled.set(prefix);
            }
            drop(state);
            self.moved.notify_all();
        }
    }

    /// What of `only` (or of everything) is settled but not known to be committed.
    pub fn to_commit(&self, only: Option<&[i32]>) -> Option<ToCommit> {
        let state = self.lock();
        let offsets: Vec<_> = state
            .table
            .prefixes()
            .filter(|(partition, _)| only.is_none_or(|only| only.contains(partition)))
            .filter(|(partition, prefix)| state.committed.get(partition).is_none_or(|done| done < prefix))
            .collect();
        (!offsets.is_empty()).then(|| ToCommit { epoch: state.epoch, epoch_name: state.epoch_name.clone(), offsets })
    }

    /// Kafka confirmed a commit of the epoch with this number. (Its name does not tell: where the cluster knows no topic
    /// ids, the next epoch has the same.)
    pub fn confirm(&self, partition: i32, offset: i64, epoch: u64) {
        let mut state = self.lock();
        if state.closed || state.epoch != epoch || !state.assigned.contains(&partition) {
            return;
        }
        let known = state.committed.entry(partition).or_insert(offset);
        *known = offset.max(*known);
        if let Some(board) = self.board.find(partition) {
            board.committed.set(*known);
        }
    }

    /// Waits until everything that was fetched of `partitions` by now is settled, at most `timeout`; true when it is.
    pub fn wait_settled(&self, partitions: &[i32], timeout: Duration) -> bool {
        let goals: Vec<_> = partitions
            .iter()
            .filter_map(|&partition| Some((partition, self.board.find(partition)?.fetched.get()?)))
            .collect();
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let behind =
                |(partition, goal): &(i32, i64)| state.table.prefix(*partition).is_some_and(|prefix| prefix < *goal);
            if !goals.iter().any(behind) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn show_owned(&self, state: &State) {
        let owned = state.table.prefixes().count();
        self.metrics.owned_partitions.set(i64::try_from(owned).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Epoch;
    use crate::pipeline::record::Origin;

    fn duties() -> (Board, Duties) {
        let board = Board::new();
        board.open_epoch(Epoch { number: 1, name: "e".into() });
        board.opened(0);
        let duties = Duties::new(board.clone(), Arc::new(Metrics::new().unwrap()));
        (board, duties)
    }

    fn settled(epoch: u64, first: i64, next: i64, duty_term: u64) -> Settled {
        Settled { origin: Origin { epoch, partition: 0, first, next }, except: Vec::new(), duty_term }
    }

    fn commit(offset: i64) -> Option<ToCommit> {
        Some(ToCommit { epoch: 1, epoch_name: "e".into(), offsets: vec![(0, offset)] })
    }

    #[test]
    fn a_term_that_was_taken_away_cannot_begin() {
        let (board, duties) = duties();
        let term = duties.gain(0);
        duties.lose(0);
        assert!(!duties.begin(0, term, 0, None));
        assert_eq!(board.opened(0).duty_term.load(Ordering::Acquire), 0);
    }

    #[test]
    fn only_what_is_settled_and_not_yet_committed_is_committed() {
        let (board, duties) = duties();
        let term = duties.gain(0);
        assert_eq!(duties.to_commit(None), None);
        assert!(duties.begin(0, term, 5, Some(5)));
        assert_eq!(board.opened(0).duty_term.load(Ordering::Acquire), term);
        assert_eq!(duties.to_commit(None), None);
        duties.settle(&settled(1, 5, 9, term));
        duties.settle(&settled(1, 12, 20, term));
        assert_eq!(duties.to_commit(None), commit(9));
        assert_eq!(duties.to_commit(Some(&[1])), None);
        duties.confirm(0, 9, 2);
        assert_eq!(duties.to_commit(None), commit(9));
        duties.confirm(0, 9, 1);
        assert_eq!(duties.to_commit(None), None);
        assert_eq!((board.opened(0).settled.get(), board.opened(0).committed.get()), (Some(9), Some(9)));
    }

    #[test]
    fn the_first_position_of_a_group_is_committed_at_once() {
        let (_, duties) = duties();
        let term = duties.gain(0);
        duties.begin(0, term, 70, None);
        assert_eq!(duties.to_commit(None), commit(70));
    }

    #[test]
    fn a_new_epoch_ends_every_term_and_keeps_the_assignment() {
        let (board, duties) = duties();
        let old = duties.gain(0);
        duties.begin(0, old, 0, None);
        board.open_epoch(Epoch { number: 2, name: "f".into() });
        board.opened(0);
        let terms = duties.open_epoch(2, "f");
        assert_eq!(terms.len(), 1);
        assert!(terms[0].1 > old && !duties.holds(0, old));
        assert!(duties.begin(0, terms[0].1, 0, None));
        duties.settle(&settled(1, 0, 5, old));
        duties.settle(&settled(2, 0, 3, terms[0].1));
        assert_eq!(board.opened(0).settled.get(), Some(3));
    }

    /// The group may assign before the topic is opened, and its answer says where the duties begin.
    #[test]
    fn terms_from_before_the_first_epoch_go_on_in_it() {
        let board = Board::new();
        let duties = Duties::new(board.clone(), Arc::new(Metrics::new().unwrap()));
        let term = duties.gain(0);
        board.open_epoch(Epoch { number: 1, name: "e".into() });
        assert_eq!(duties.open_epoch(1, "e"), vec![]);
        assert!(duties.begin(0, term, 100, Some(100)));
        assert_eq!(duties.to_commit(None), None, "nothing is settled");
        duties.settle(&settled(1, 100, 105, term));
        assert_eq!(duties.to_commit(None), commit(105));
    }

    /// A cluster without topic ids: a topic that is made anew has the old name.
    #[test]
    fn a_commit_of_an_epoch_that_is_over_confirms_nothing() {
        let (board, duties) = duties();
        let old = duties.gain(0);
        duties.begin(0, old, 0, None);
        duties.settle(&settled(1, 0, 90, old));
        let under_way = duties.to_commit(None).unwrap();
        board.open_epoch(Epoch { number: 2, name: "e".into() });
        let terms = duties.open_epoch(2, "e");
        assert!(duties.begin(0, terms[0].1, 0, None));
        duties.settle(&settled(2, 0, 10, terms[0].1));
        duties.confirm(0, 90, under_way.epoch);
        assert_eq!(board.opened(0).committed.get(), None);
        assert_eq!(duties.to_commit(None).unwrap().offsets, vec![(0, 10)]);
    }

    #[test]
    fn a_drain_ends_when_all_that_was_fetched_is_settled() {
        let (board, duties) = duties();
        let term = duties.gain(0);
        duties.begin(0, term, 0, None);
        board.opened(0).fetched.set(10);
        assert!(!duties.wait_settled(&[0], Duration::from_millis(10)));
        std::thread::scope(|scope| {
            scope.spawn(|| duties.settle(&settled(1, 0, 10, term)));
            assert!(duties.wait_settled(&[0], Duration::from_secs(10)));
        });
    }
}
