//! The simulated topic: what lies at each offset of each partition, and batches of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use dashstream::pipeline::decode::{Kind, Meta, Verdict};
use dashstream::pipeline::record::{Origin, RawBatch, RawRecord, Span};
use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{DashStreamMessage, Event, Header};
use prost::Message as _;

/// Who writes to the topic.
pub const TENANTS: [&str; 3] = ["ant", "bee", "cat"];

/// What lies at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Good,
    /// A record that cannot be processed.
    Bad,
    /// No record.
    Hole,
}

/// The topic in one epoch.
#[derive(Debug, Default, Clone)]
pub struct Log {
    pub epoch: u64,
    partitions: BTreeMap<i32, Vec<Entry>>,
    lows: BTreeMap<i32, i64>,
}

impl Log {
    pub fn new(epoch: u64, partitions: i32) -> Self {
        Self { epoch, partitions: (0..partitions).map(|p| (p, Vec::new())).collect(), lows: BTreeMap::new() }
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    pub fn add_partition(&mut self) -> i32 {
        let partition = self.partitions.len() as i32;
        self.partitions.insert(partition, Vec::new());
        partition
    }

    pub fn produce(&mut self, partition: i32, entry: Entry) {
        self.partitions.get_mut(&partition).unwrap().push(entry);
    }

    pub fn end(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |entries| entries.len() as i64)
    }

    /// The first offset that retention has left.
    pub fn low(&self, partition: i32) -> i64 {
        self.lows.get(&partition).copied().unwrap_or(0)
    }

    /// Retention takes everything below `low`.
    pub fn retain(&mut self, partition: i32, low: i64) {
        self.lows.insert(partition, low.max(self.low(partition)));
    }

    pub fn entry(&self, partition: i32, offset: i64) -> Entry {
        self.partitions[&partition][offset as usize]
    }

    /// Whose record it is.
    pub fn tenant(partition: i32, offset: i64) -> &'static str {
        TENANTS[(offset as usize * 7 + partition as usize + offset as usize / 11) % TENANTS.len()]
    }

    /// The value of a record: unlike any other.
    pub fn value(&self, partition: i32, offset: i64) -> Vec<u8> {
        let header = Header {
            tenant_id: Self::tenant(partition, offset).into(),
            thread_id: format!("{}/{partition}/{offset}", self.epoch),
            ..Header::default()
        };
        let node_id = ".".repeat((offset as usize * 37) % 300);
        let event = Event { header: Some(header), node_id, ..Event::default() };
        [vec![0], DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec()].concat()
    }

    /// The first offset from `offset` on that v1 tells a client about that wants what `wants` says.
    pub fn next_told(&self, partition: i32, mut offset: i64, wants: impl Fn(i64) -> bool) -> i64 {
        let silent = |offset| match self.entry(partition, offset) {
            Entry::Hole => true,
            Entry::Good => !wants(offset),
            Entry::Bad => false,
        };
        while offset < self.end(partition) && silent(offset) {
            offset += 1;
        }
        offset
    }

    /// Good records in `[from, end)` among those that `wants` names.
    pub fn good(&self, partition: i32, from: i64, wants: impl Fn(i64) -> bool) -> u64 {
        let is_good = |offset: &i64| self.entry(partition, *offset) == Entry::Good && wants(*offset);
        (from..self.end(partition)).filter(is_good).count() as u64
    }

    /// A batch of `[first, next)` as the pipeline hands it to the store.
    pub fn batch(&self, partition: i32, first: i64, next: i64) -> (RawBatch, Vec<Verdict>) {
        let mut arena = Vec::new();
        let mut records = Vec::new();
        let mut verdicts = Vec::new();
        for offset in first..next {
            let verdict = match self.entry(partition, offset) {
                Entry::Hole => continue,
                Entry::Bad => Verdict::Unprocessable(Kind::InvalidProtobuf),
                Entry::Good => {
                    Verdict::Deliver(Meta { message_type: 1, items_start: 0, items_len: 0, timestamp_us: 0 })
                }
            };
            let value = self.value(partition, offset);
            let span = Span { start: arena.len() as u32, len: value.len() as u32 };
            arena.extend_from_slice(&value);
            let headers = Span { start: 0, len: 0 };
            records.push(RawRecord { offset, timestamp_ms: 1, key: None, value: Some(span), headers });
            verdicts.push(verdict);
        }
        let origin = Origin { epoch: self.epoch, partition, first, next };
        (RawBatch { origin, lost: None, records, arena: Bytes::from(arena) }, verdicts)
    }
}
