//! A client that checks the promise on every frame it is given, knowing the log that the frames are about.

use std::collections::{BTreeMap, VecDeque};

use dashstream::wire::control::Dialect;
use dashstream::wire::stream::{Frame, GapReason, item::Kind};
use prost::Message;
use serde_json::Value;

use crate::log::{Entry, Log};

/// What a client has seen of one partition.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The next offset that must be covered.
    pub next: i64,
    /// Records delivered.
    pub records: u64,
    /// Offsets named as lost.
    pub lost: u64,
    /// v1: after a loss the next position is only known to be at least [`Self::next`].
    pub resync: bool,
    /// It began at the oldest that is kept: what retention takes before it is sent is no loss.
    pub oldest: bool,
    /// Records that retention took so.
    pub aged: u64,
}

/// The checking client.
#[derive(Debug)]
pub struct Client {
    dialect: Dialect,
    pub seen: BTreeMap<i32, Seen>,
    pub complete: u32,
    announced: Option<(i32, i64)>,
    /// Whose records it wants; `None`: everybody's.
    pub tenant: Option<&'static str>,
    /// What it wanted below an offset, oldest first.
    before: BTreeMap<i32, Vec<(i64, Option<&'static str>)>>,
    /// What it has asked for and was not answered yet.
    pub asked: VecDeque<Option<&'static str>>,
}

impl Client {
    pub fn new(dialect: Dialect, start: impl IntoIterator<Item = (i32, i64, bool)>) -> Self {
        let seen = start.into_iter().map(|(p, next, oldest)| (p, Seen { next, oldest, ..Seen::default() })).collect();
        Self {
            dialect,
            seen,
            complete: 0,
            announced: None,
            tenant: None,
            before: BTreeMap::new(),
            asked: VecDeque::new(),
        }
    }

    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether it wants a record.
    pub fn wants(&self, partition: i32, offset: i64) -> bool {
        let before = self.before.get(&partition).into_iter().flatten().find(|(next, _)| offset < *next);
        before.map_or(self.tenant, |(_, tenant)| *tenant).is_none_or(|tenant| tenant == Log::tenant(partition, offset))
    }

    /// Offsets start again.
    pub fn forget(&mut self) {
        self.seen.clear();
        self.before.clear();
    }

    /// Takes WebSocket messages as they lie on the wire; panics at the first broken promise.
    pub fn take(&mut self, mut wire: &[u8], log: &Log) {
        while !wire.is_empty() {
            let (opcode, payload, rest) = split(wire);
            match opcode {
                0x1 => self.text(&serde_json::from_slice(payload).expect("text frames are JSON"), log),
                0x2 => self.binary(payload, log),
                other => panic!("unexpected opcode {other}"),
            }
            wire = rest;
        }
    }

    fn text(&mut self, frame: &Value, log: &Log) {
        let partition = frame["partition"].as_i64().map(|p| p as i32);
        match frame["type"].as_str().expect("a type") {
            "replay_complete" => self.complete += 1,
            "replay_progress" => assert_eq!(self.dialect, Dialect::V2, "v1 has no frame for pages"),
            "error" => assert_eq!(frame["code"], "replay_timeout"),
            "partition_added" => {
                let next = decimal(&frame["from"]);
                let added = self.seen.insert(partition.unwrap(), Seen { next, ..Seen::default() });
                assert!(added.is_none(), "a partition is added once");
            }
            "cursor_reset" if frame["reason"] == "retention" => {
                let seen = &self.seen[&partition.unwrap()];
                assert_eq!(decimal(&frame["nextOffset"]), seen.next, "the gap before it was told");
            }
            "cursor_reset" => {
                assert_eq!(self.announced, None);
                self.seen.insert(partition.unwrap(), Seen { next: decimal(&frame["nextOffset"]), ..Seen::default() });
            }
            "cursor" => {
                assert_eq!(self.dialect, Dialect::V1);
                assert_eq!(self.announced.replace((partition.unwrap(), decimal(&frame["offset"]))), None);
            }
            "gap" => {
                assert_eq!(self.dialect, Dialect::V1);
                let partition = partition.unwrap();
                let from = self.seen.entry(partition).or_default().next;
                let told = log.next_told(partition, from, |offset| self.wants(partition, offset));
                let seen = self.seen.entry(partition).or_default();
                let count = frame["count"].as_i64().unwrap();
                let reason = frame["reason"].as_str().unwrap();
                if ["unavailable", "retention", "skipped_to_live"].contains(&reason) {
                    // Counts from the server's cursor on, which may lie behind offsets without a record that v1 does not
                    // tell: the next record says where the stream goes on.
                    seen.lost += count as u64;
                    seen.next += count;
                    seen.resync = true;
                } else {
                    if std::mem::take(&mut seen.oldest) && log.low(partition) > seen.next {
                        // Where it really began, only a record can tell.
                        seen.resync = true;
                        seen.aged += 1;
                    }
                    seen.next = told + count;
                }
            }
            "filter_applied" => {
                for (partition, next) in frame["nextOffsets"].as_object().unwrap() {
                    let (partition, next) = (partition.parse().unwrap(), decimal(next));
                    assert_eq!(self.seen[&partition].next, next, "a filter holds from where the client is");
                    self.before.entry(partition).or_default().push((next, self.tenant));
                }
                self.tenant = self.asked.pop_front().expect("a change that was asked for");
            }
            "cursor_stale" => {}
            other => panic!("unexpected frame {other}"),
        }
    }

    fn binary(&mut self, payload: &[u8], log: &Log) {
        if self.dialect == Dialect::V1 {
            let (partition, offset) = self.announced.take().expect("a cursor before each record");
            assert!(self.wants(partition, offset), "v1 delivers only what the client may see");
            let wants = |offset| self.wants(partition, offset);
            let from = self.seen.get(&partition).map_or(0, |seen| seen.next);
            let next = log.next_told(partition, from, wants);
            let first_kept = log.next_told(partition, log.low(partition).max(next), wants);
            let seen = self.seen.entry(partition).or_default();
            let aged = seen.oldest && offset <= first_kept;
            if aged && offset > next {
                seen.aged += 1;
            }
            seen.oldest = false;
            if std::mem::take(&mut seen.resync) || aged {
                assert!(offset >= seen.next, "partition {partition}: nothing is repeated after a loss");
            } else {
                assert_eq!(next, offset, "partition {partition}: v1 delivers every record once and in order");
            }
            assert_eq!(payload, log.value(partition, offset));
            seen.next = offset + 1;
            seen.records += 1;
            return;
        }
        let frame = Frame::decode(payload).expect("a frame");
        let wants = |offset| self.wants(frame.partition, offset);
        let mut seen = self.seen.get(&frame.partition).expect("a partition that was announced").clone();
        assert_eq!(frame.first_offset, seen.next, "partition {}: frames touch each other", frame.partition);
        for item in &frame.items {
            match item.kind.as_ref().expect("a kind") {
                Kind::Record(record) => {
                    assert_eq!(record.offset, seen.next);
                    assert!(wants(record.offset), "a record that the client does not want");
                    assert_eq!(&record.value[..], log.value(frame.partition, record.offset));
                    seen.records += 1;
                    seen.next += 1;
                }
                Kind::Skip(skip) => {
                    assert_eq!(skip.first_offset, seen.next);
                    for offset in skip.first_offset..skip.next_offset {
                        let entry = log.entry(frame.partition, offset);
                        let aged = offset < log.low(frame.partition) && seen.oldest;
                        let due = entry == Entry::Good && wants(offset);
                        seen.aged += u64::from(due && aged);
                        assert!(!due || aged, "offset {offset} is skipped although it carries a record for the client");
                    }
                    seen.next = skip.next_offset;
                }
                Kind::Gap(gap) => {
                    assert_eq!(gap.first_offset, seen.next);
                    if gap.reason() == GapReason::Retention {
                        assert!(gap.next_offset <= log.low(frame.partition), "what is kept is not lost");
                    }
                    seen.lost += gap.next_offset.abs_diff(gap.first_offset);
                    seen.next = gap.next_offset;
                }
            }
        }
        assert_eq!(frame.next_offset, seen.next, "the items cover the frame");
        self.seen.insert(frame.partition, seen);
    }
}

fn decimal(value: &Value) -> i64 {
    value.as_str().expect("a decimal string").parse().expect("a decimal string")
}

fn split(wire: &[u8]) -> (u8, &[u8], &[u8]) {
    assert_eq!(wire[0] & 0x80, 0x80, "messages are not fragmented");
    let (start, len) = match wire[1] {
        126 => (4, u16::from_be_bytes([wire[2], wire[3]]) as usize),
        127 => (10, u64::from_be_bytes(wire[2..10].try_into().unwrap()) as usize),
        len => (2, len as usize),
    };
    (wire[0] & 0x0f, &wire[start..start + len], &wire[start + len..])
}
