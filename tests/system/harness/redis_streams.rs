//! What lies in Redis, read past the service and held against what was published.

use std::collections::BTreeMap;

use dashstream::wire::stream::{Frame, item::Kind};
use deadpool_redis::redis::{Client, Commands as _, Connection, cmd};
use prost::Message as _;

use super::producer::Published;
use super::records::Expect;

/// The streams below a key prefix.
pub struct RedisStreams {
    url: String,
    prefix: String,
}

/// Field names and values.
type Fields = Vec<(String, Vec<u8>)>;

impl RedisStreams {
    pub fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), prefix: prefix.to_owned() }
    }

    fn connection(&self) -> Connection {
        Client::open(self.url.as_str()).expect("an address").get_connection().expect("Redis answers")
    }

    /// Every key, with its time to live in milliseconds; negative when it has none.
    pub fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connection();
        let keys: Vec<String> = connection.keys(format!("{}:*", self.prefix)).expect("the keys");
        keys.into_iter().map(|key| (key.clone(), connection.pttl(key).expect("a time to live"))).collect()
    }

    /// Per partition the values by offset, and the ranges that are covered, joined where they touch.
    pub fn read(&self) -> BTreeMap<i32, Coverage> {
        let mut connection = self.connection();
        let mut partitions: BTreeMap<i32, Coverage> = BTreeMap::new();
        for (key, _) in self.keys() {
            let entries: Vec<(String, Fields)> =
                cmd("XRANGE").arg(&key).arg("-").arg("+").query(&mut connection).expect("a stream");
            for (id, fields) in entries {
                let message = &fields.iter().find(|(name, _)| name == "b").expect("a frame").1;
                let start = match message[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                let frame = Frame::decode(&message[start..]).expect("a frame");
                assert_eq!(id, format!("{}-1", frame.next_offset - 1), "an entry is named by its last offset");
                assert!(key.ends_with(&format!(":{}}}", frame.partition)), "{key} holds {}", frame.partition);
                partitions.entry(frame.partition).or_default().add(&frame);
            }
        }
        partitions
    }

    /// Whether every partition is covered without a hole from its first entry to its end, with the values that were
    /// published; an error says what is missing.
    pub fn compare(&self, published: &Published) -> Result<(), String> {
        let found = self.read();
        for (partition, end) in published.ends() {
            let coverage = found.get(&partition).ok_or_else(|| format!("nothing of partition {partition}"))?;
            let [(low, next)] = coverage.ranges[..] else {
                return Err(format!("holes in partition {partition}: {:?}", coverage.ranges));
            };
            if next < end {
                return Err(format!("partition {partition} ends at {next} instead of {end}"));
            }
            for ((_, offset), sent) in published.records.range((partition, low)..(partition, end)) {
                let value = coverage.values.get(offset).map(Vec::as_slice);
                let wanted = sent.value.as_deref().filter(|_| sent.expect == Expect::Record);
                assert_eq!(value, wanted, "partition {partition}, offset {offset}");
            }
        }
        Ok(())
    }
}

/// What there is of a partition.
#[derive(Debug, Default)]
pub struct Coverage {
    pub values: BTreeMap<i64, Vec<u8>>,
    /// `[first, next)`.
    pub ranges: Vec<(i64, i64)>,
}

impl Coverage {
    fn add(&mut self, frame: &Frame) {
        for item in &frame.items {
            if let Some(Kind::Record(record)) = &item.kind {
                let before = self.values.insert(record.offset, record.value.to_vec());
                assert!(before.is_none_or(|before| before == record.value), "two values of one offset");
            }
        }
        match self.ranges.last_mut() {
            Some((_, next)) if frame.first_offset <= *next => *next = frame.next_offset.max(*next),
            _ => self.ranges.push((frame.first_offset, frame.next_offset)),
        }
    }
}
