//! The board: per partition the positions that the actors publish.
//!
//! It outlives every actor, so that a restarted one knows what was already counted, checked or handed over. Each cell but one is
//! written by one actor only and read by anyone without a lock; the list of partitions, and what was judged, are locked per
//! batch, never per record. It must not decide anything.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::pipeline::manual_reset::{ManualReset, stream_name};
use crate::pipeline::ranges::Ranges;

/// A position that is not known yet.
pub const UNKNOWN: i64 = -1;

/// One published position: an offset, or [`UNKNOWN`].
#[derive(Debug)]
pub struct Cell(AtomicI64);

impl Cell {
    const fn unknown() -> Self {
        Self(AtomicI64::new(UNKNOWN))
    }

    /// The offset, if known.
    pub fn get(&self) -> Option<i64> {
        match self.0.load(Ordering::Acquire) {
            UNKNOWN => None,
            offset => Some(offset),
        }
    }

    /// Publishes an offset.
    pub fn set(&self, offset: i64) {
        self.0.store(offset, Ordering::Release);
    }

    /// Back to unknown.
    pub fn clear(&self) {
        self.set(UNKNOWN);
    }
}

/// The positions of one partition in one epoch. All are "next offset" positions.
#[derive(Debug)]
pub struct PartitionBoard {
    /// The partition.
    pub partition: i32,
    /// Where the reader started in this epoch. Writer: `KafkaIngest`.
    pub start: Cell,
    /// The end of the log when the reader started. Writer: `KafkaIngest`.
    pub end_at_start: Cell,
    /// Polled from Kafka. Writer: `KafkaIngest`.
    pub fetched: Cell,
    judged: Mutex<Ranges>,
    /// Sequence-checked. Writer: `SequenceTracker`.
    pub sequenced: Cell,
    /// First offset in the memory window. Writer: `ReplayStore`.
    pub window_low: Cell,
    /// End of the memory window: everything below was fanned out. Writer: `ReplayStore`.
    pub stored: Cell,
    /// The contiguous settled prefix. Writer: `KafkaIngest`.
    pub settled: Cell,
    /// Committed to the group. Writer: `KafkaIngest`.
    pub committed: Cell,
    /// High watermark as last seen. Writer: `LagMonitor`.
    pub high_watermark: Cell,
    /// Low watermark as last seen. Writers: `KafkaIngest` when it opens the partition, `LagMonitor` from then on.
    pub low_watermark: Cell,
    /// The term in which this instance owns the duties of the partition, 0 when it does not. Writer: `KafkaIngest`.
    pub duty_term: AtomicU64,
    /// Where the duties of that term begin. Writer: `KafkaIngest`.
    pub duty_from: Cell,
    /// When the last record passed `DecodePolicy`, Unix milliseconds, 0 for never. Writer: `DecodePolicy`.
    pub last_record_ms: AtomicI64,
}

impl PartitionBoard {
    fn new(partition: i32) -> Self {
        Self {
            partition,
            start: Cell::unknown(),
            end_at_start: Cell::unknown(),
            fetched: Cell::unknown(),
            judged: Mutex::default(),
            sequenced: Cell::unknown(),
            window_low: Cell::unknown(),
            stored: Cell::unknown(),
            settled: Cell::unknown(),
            committed: Cell::unknown(),
            high_watermark: Cell::unknown(),
            low_watermark: Cell::unknown(),
            duty_term: AtomicU64::new(0),
            duty_from: Cell::unknown(),
            last_record_ms: AtomicI64::new(0),
        }
    }

    /// Which offsets were judged and counted. More than one range: what lies below the reader's start is judged when this
    /// instance is given the duties of it, and the reader goes on meanwhile. Writer: `DecodePolicy`.
    pub fn judged(&self) -> MutexGuard<'_, Ranges> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity of a log whose offsets have one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counted up by this process; 0 before the topic was seen.
    pub number: u64,
    /// Cluster id, topic and topic id: the same text in every process that reads the same log.
    pub name: String,
}

/// What clients are served: a log, from its newest reset by hand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The log.
    pub epoch: Epoch,
    /// The newest reset, if there was one.
    pub reset: Option<Arc<ManualReset>>,
}

impl Stream {
    /// The name of the epoch as clients know it.
    pub fn name(&self) -> String {
        stream_name(&self.epoch.name, self.reset.as_deref())
    }

    /// The epoch by the name that clients know.
    pub fn as_told(&self) -> Epoch {
        Epoch { number: self.epoch.number, name: self.name() }
    }

    /// The first offset of a partition that clients may see.
    pub fn floor(&self, partition: i32) -> i64 {
        self.reset.as_ref().map_or(0, |reset| reset.floor(partition))
    }
}

/// The board of the whole topic. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Board(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    epoch: Epoch,
    /// When Kafka was last asked that has said that this is the log.
    confirmed: Option<Instant>,
    /// The number of the epoch that open sessions know.
    announced: u64,
    /// The newest reset by hand; `None` while it is not known whether there was one.
    reset: Option<Option<Arc<ManualReset>>>,
    partitions: Vec<Arc<PartitionBoard>>,
}

impl Board {
    /// A board without partitions, in epoch 0.
    pub fn new() -> Self {
        let epoch = Epoch { number: 0, name: String::new() };
        Self(Arc::new(RwLock::new(State { epoch, confirmed: None, announced: 0, reset: None, partitions: Vec::new() })))
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.read().epoch.clone()
    }

    /// The number of the current epoch.
    pub fn epoch_number(&self) -> u64 {
        self.read().epoch.number
    }

    /// Opens a new epoch: every position is unknown again.
    pub fn open_epoch(&self, epoch: Epoch) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.epoch = epoch;
        state.confirmed = None;
        state.reset = None;
        state.partitions.clear();
    }

    /// Asked at `asked`, Kafka has said that the epoch with this number is the log.
    pub fn confirm(&self, epoch: u64, asked: Instant) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.epoch.number == epoch {
            state.confirmed = Some(asked);
        }
    }

    /// When Kafka was last asked that has said so of the current epoch.
    pub fn confirmed(&self) -> Option<Instant> {
        self.read().confirmed
    }

    /// What clients are served.
    pub fn stream(&self) -> Stream {
        let state = self.read();
        Stream { epoch: state.epoch.clone(), reset: state.reset.clone().flatten() }
    }

    /// Whether it is known if there was a reset by hand.
    pub fn knows_resets(&self) -> bool {
        self.read().reset.is_some()
    }

    /// The newest reset of the epoch with this number was learned. Whether clients have to be told. One that was forgotten
    /// holds on.
    pub fn set_reset(&self, epoch: u64, reset: Option<Arc<ManualReset>>) -> bool {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = state.reset.clone().flatten();
        let newer = reset.as_ref().is_some_and(|new| known.as_ref().is_none_or(|known| new.id > known.id));
        if state.epoch.number != epoch {
            return false;
        }
        state.reset = Some(if newer { reset } else { known });
        newer
    }

    /// It cannot be learned whether there was a reset in an epoch up to this number: as far as is known there was none.
    pub fn no_resets(&self, epoch: u64) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.epoch.number <= epoch {
            state.reset.get_or_insert(None);
        }
    }

    /// The number of the epoch whose positions open sessions hold; 0 before any did.
    pub fn announced_epoch(&self) -> u64 {
        self.read().announced
    }

    /// Every open session was told that this epoch has begun. Writer: `ReplayStore`.
    pub fn announce_epoch(&self, number: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).announced = number;
    }

    /// The board of a partition of the current epoch.
    pub fn find(&self, partition: i32) -> Option<Arc<PartitionBoard>> {
        self.read().partitions.iter().find(|p| p.partition == partition).cloned()
    }

    /// The board of a partition that is opened, made when it is new. Only for the one who opens it: whoever else asks may
    /// mean a partition of an epoch that is over, and must not bring it back.
    pub fn opened(&self, partition: i32) -> Arc<PartitionBoard> {
        if let Some(found) = self.find(partition) {
            return found;
        }
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = state.partitions.iter().find(|p| p.partition == partition) {
            return Arc::clone(found);
        }
        let made = Arc::new(PartitionBoard::new(partition));
        state.partitions.push(Arc::clone(&made));
        state.partitions.sort_by_key(|p| p.partition);
        made
    }

    /// All partitions, ascending.
    pub fn partitions(&self) -> Vec<Arc<PartitionBoard>> {
        self.read().partitions.clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}
