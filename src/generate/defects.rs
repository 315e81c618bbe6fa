//! What can be wrong with a stream of records: lost, repeated, late and unreadable ones, by chance and on purpose.

use std::collections::VecDeque;
use std::sync::Arc;

use fastrand::Rng;
use prost::Message as _;

use super::encode::{FRAMING_RAW, FRAMING_ZSTD};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{DashStreamMessage, Event, Header};

/// A late record comes at the latest after so many others.
const HELD_MAX: u32 = 10_000;

/// A record as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key: the thread's id.
    pub key: Arc<str>,
    /// The value; `None` is a null value.
    pub value: Option<Vec<u8>>,
}

/// Chances per record, 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defects {
    /// The record is not sent.
    pub gap: f64,
    /// The record is sent twice.
    pub duplicate: f64,
    /// The record is sent after the next one of its thread.
    pub reorder: f64,
    /// An unreadable record is sent besides: unknown framing, broken zstd, broken protobuf, unknown schema version.
    pub garbage: f64,
    /// A record larger than `oversized_bytes` is sent besides.
    pub oversized: f64,
    /// A record without value is sent besides.
    pub null: f64,
    /// Size of oversized records, in bytes.
    pub oversized_bytes: usize,
}

/// Spoils a stream of records.
#[derive(Debug)]
pub struct Spoiler {
    defects: Defects,
    rng: Rng,
    held: Option<(Record, u32)>,
}

impl Spoiler {
    /// A spoiler with its own chances.
    pub fn new(defects: Defects, seed: u64) -> Self {
        Self { defects, rng: Rng::with_seed(!seed), held: None }
    }

    /// Takes a good record and appends what is sent in its place.
    pub fn pass(&mut self, record: Record, out: &mut VecDeque<Record>) {
        let defects = &self.defects;
        let mut happens = |chance: f64| chance > 0.0 && self.rng.f64() < chance;
        let (gap, twice, late) = (happens(defects.gap), happens(defects.duplicate), happens(defects.reorder));
        let (garbage, oversized, null) = (happens(defects.garbage), happens(defects.oversized), happens(defects.null));
        let key = Arc::clone(&record.key);
        let release = match &mut self.held {
            Some((held, waited)) => {
                *waited += 1;
                (held.key == record.key && !gap) || *waited > HELD_MAX
            }
            None => false,
        };
        if late && !gap && self.held.is_none() {
            self.held = Some((record, 0));
        } else if !gap {
            if twice {
                out.push_back(record.clone());
            }
            out.push_back(record);
        }
        if release && let Some((held, _)) = self.held.take() {
            out.push_back(held);
        }
        let mut add = |value| out.push_back(Record { key: Arc::clone(&key), value });
        if garbage {
            add(Some(unreadable(&mut self.rng)));
        }
        if oversized {
            add(Some(vec![FRAMING_RAW; self.defects.oversized_bytes]));
        }
        if null {
            add(None);
        }
    }
}

/// A value that no reader can use, of one of four kinds.
fn unreadable(rng: &mut Rng) -> Vec<u8> {
    let mut noise = vec![0; rng.usize(16..200)];
    rng.fill(&mut noise);
    let framing = match rng.u8(..4) {
        0 => rng.u8(2..=0xff),
        1 => FRAMING_ZSTD,
        2 => {
            // Field 1 promises more bytes than there are.
            noise.splice(..2, [0x0a, 0x7f]);
            noise.truncate(100);
            FRAMING_RAW
        }
        _ => {
            let header = Some(Header { schema_version: 99, ..Default::default() });
            let event = Event { header, ..Default::default() };
            noise = DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec();
            FRAMING_RAW
        }
    };
    noise.insert(0, framing);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(defects: Defects, count: u8) -> Vec<Record> {
        let mut spoiler = Spoiler::new(defects, 3);
        let mut out = VecDeque::new();
        for number in 0..count {
            spoiler.pass(Record { key: "t".into(), value: Some(vec![0, number]) }, &mut out);
        }
        out.into()
    }

    fn numbers(records: &[Record]) -> Vec<u8> {
        records.iter().filter_map(|record| record.value.as_ref()).map(|value| value[1]).collect()
    }

    #[test]
    fn without_defects_every_record_passes_as_it_is() {
        assert_eq!(numbers(&send(Defects::default(), 100)), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn each_defect_does_what_its_name_says() {
        let gaps = numbers(&send(Defects { gap: 0.2, ..Default::default() }, 200));
        assert!(gaps.len() < 190 && gaps.is_sorted());
        let twice = numbers(&send(Defects { duplicate: 0.2, ..Default::default() }, 200));
        assert!(twice.len() > 210 && twice.is_sorted());
        let late = numbers(&send(Defects { reorder: 0.2, ..Default::default() }, 200));
        assert!(!late.is_sorted() && late.len() >= 199);
        assert!(late.windows(2).all(|pair| pair[1].abs_diff(pair[0]) <= 3), "late by one of its thread");
        let nulls = send(Defects { null: 0.2, ..Default::default() }, 200);
        assert!(nulls.iter().filter(|record| record.value.is_none()).count() > 10);
        let large = send(Defects { oversized: 0.2, oversized_bytes: 5_000, ..Default::default() }, 200);
        assert!(large.iter().any(|record| record.value.as_ref().is_some_and(|value| value.len() == 5_000)));
    }

    #[test]
    fn garbage_of_every_kind_is_unreadable() {
        let mut rng = Rng::with_seed(5);
        let (mut framings, mut schema) = (0, 0);
        for _ in 0..200 {
            let value = unreadable(&mut rng);
            match value[0] {
                FRAMING_RAW => {
                    if let Ok(message) = DashStreamMessage::decode(&value[1..]) {
                        assert_eq!(crate::generate::message::header(&message).unwrap().schema_version, 99);
                        schema += 1;
                    }
                }
                FRAMING_ZSTD => assert!(zstd::bulk::decompress(&value[1..], 1 << 20).is_err()),
                _ => framings += 1,
            }
        }
        assert!(framings > 20 && schema > 20);
    }
}
