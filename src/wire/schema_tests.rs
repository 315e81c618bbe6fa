//! The validator against prost, on messages of every kind, generated from the schema, whole and damaged.
#![allow(clippy::cast_possible_truncation, reason = "a generator of varints takes the low bits")]

use proptest::prelude::*;

use super::schema::{Field, MESSAGES};
use crate::wire;

#[path = "../../fuzz/oracle.rs"]
mod oracle;

/// Writes random messages that follow the schema, with some oddities that the wire format allows and some that it does not.
struct Generator {
    rng: fastrand::Rng,
    /// One in this many fields is odd; 0 for none.
    odd: u32,
}

impl Generator {
    fn oddly(&mut self) -> bool {
        self.odd > 0 && self.rng.u32(0..self.odd) == 0
    }

    fn varint(&mut self, out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        // Longer than needed, sometimes longer than allowed.
        if self.oddly() {
            out.push(value as u8 | 0x80);
            for _ in 0..self.rng.u32(0..10) {
                out.push(0x80);
            }
            value = self.rng.u64(0..3);
        }
        out.push(value as u8);
    }

    fn number(&mut self) -> u64 {
        match self.rng.u32(0..4) {
            0 => self.rng.u64(0..3),
            1 => self.rng.u64(..) >> self.rng.u32(0..64),
            2 => [0, 127, 128, u64::from(u32::MAX), u64::MAX, 1 << 63][self.rng.usize(0..6)],
            _ => self.rng.u64(1_600_000_000_000_000..1_900_000_000_000_000),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let len = if self.rng.u32(0..8) == 0 { self.rng.usize(0..200) } else { self.rng.usize(0..12) };
        let mut text: Vec<u8> = match self.rng.u32(0..3) {
            0 => std::iter::repeat_with(|| self.rng.char(..)).take(len).collect::<String>().into_bytes(),
            _ => std::iter::repeat_with(|| self.rng.u8(b' '..=b'~')).take(len).collect(),
        };
        if self.oddly() && !text.is_empty() {
            let at = self.rng.usize(0..text.len());
            text[at] = self.rng.u8(..);
        }
        text
    }

    fn key(&mut self, out: &mut Vec<u8>, number: u32, wire: u8) {
        self.varint(out, u64::from(number) << 3 | u64::from(wire));
    }

    fn delimited(&mut self, out: &mut Vec<u8>, number: u32, content: &[u8]) {
        self.key(out, number, 2);
        self.varint(out, content.len() as u64);
        out.extend_from_slice(content);
    }

    /// A field of any number and wire type, groups included.
    fn stray(&mut self, out: &mut Vec<u8>, number: u32, depth: u32) {
        let wire = self.rng.u8(0..8);
        self.key(out, number, wire);
        match wire {
            0 => {
                let value = self.number();
                self.varint(out, value);
            }
            1 => out.extend_from_slice(&self.rng.u64(..).to_le_bytes()),
            2 => {
                let text = self.text();
                self.varint(out, text.len() as u64);
                out.extend_from_slice(&text);
            }
            3 => {
                for _ in 0..self.rng.u32(0..3) {
                    if depth > 0 {
                        let inner = self.rng.u32(1..40);
                        self.stray(out, inner, depth - 1);
                    }
                }
                let end = if self.oddly() { number + 1 } else { number };
                self.key(out, end, 4);
            }
            5 => out.extend_from_slice(&self.rng.u32(..).to_le_bytes()),
            _ => {}
        }
    }

    fn message(&mut self, message: u8, depth: u32) -> Vec<u8> {
        let table = MESSAGES[usize::from(message)];
        let mut out = Vec::new();
        for _ in 0..self.rng.u32(0..8) {
            if self.oddly() {
                let number = self.rng.u32(0..20);
                self.stray(&mut out, number, 3);
                continue;
            }
            // The first field of most messages is the header.
            let number = if self.rng.bool() { 1 } else { self.rng.usize(0..table.len()) };
            self.field(&mut out, number as u32, table[number], depth);
        }
        out
    }

    fn field(&mut self, out: &mut Vec<u8>, number: u32, field: Field, depth: u32) {
        match field {
            Field::Unknown => {}
            Field::Varint | Field::RepeatedVarint if self.rng.bool() || matches!(field, Field::Varint) => {
                self.key(out, number, 0);
                let value = self.number();
                self.varint(out, value);
            }
            Field::Varint | Field::RepeatedVarint => {
                let mut packed = Vec::new();
                for _ in 0..self.rng.u32(0..4) {
                    let value = self.number();
                    self.varint(&mut packed, value);
                }
                self.delimited(out, number, &packed);
            }
            Field::Fixed32 | Field::RepeatedFixed32 if self.rng.bool() || matches!(field, Field::Fixed32) => {
                self.key(out, number, 5);
                out.extend_from_slice(&self.rng.u32(..).to_le_bytes());
            }
            Field::Fixed32 | Field::RepeatedFixed32 => {
                let mut len = self.rng.usize(0..4) * 4;
                if self.oddly() {
                    len += 1;
                }
                self.delimited(out, number, &vec![0x3f; len]);
            }
            Field::Fixed64 | Field::RepeatedFixed64 => {
                self.key(out, number, 1);
                out.extend_from_slice(&self.rng.u64(..).to_le_bytes());
            }
            Field::String | Field::Bytes => {
                let text = self.text();
                self.delimited(out, number, &text);
            }
            Field::Message(inner) | Field::Map(inner) => {
                let content = if depth == 0 { Vec::new() } else { self.message(inner, depth - 1) };
                if matches!(field, Field::Map(_)) && self.oddly() {
                    let wire = self.rng.u8(0..8);
                    self.key(out, number, wire);
                    self.varint(out, content.len() as u64);
                    out.extend_from_slice(&content);
                } else {
                    self.delimited(out, number, &content);
                }
            }
        }
    }
}

fn generated(seed: u64, odd: u32) -> Vec<u8> {
    Generator { rng: fastrand::Rng::with_seed(seed), odd }.message(0, 7)
}

fn mutate(bytes: &mut Vec<u8>, (at, what, how): (u16, u8, u8)) {
    if bytes.is_empty() {
        return bytes.push(what);
    }
    let at = usize::from(at) % bytes.len();
    match how {
        0 => bytes[at] = what,
        1 => bytes[at] ^= 1 << (what & 7),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, what),
        4 => drop(bytes.remove(at)),
        5 => bytes[at] = bytes[at].wrapping_add(1),
        _ => {
            let again: Vec<u8> = bytes[at..].iter().take(usize::from(what)).copied().collect();
            bytes.extend_from_slice(&again);
        }
    }
}

proptest! {
    // A short run each time; `PROPTEST_CASES` makes it a long one.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4_000)))]

    #[test]
    fn well_formed_messages_are_read_as_prost_reads_them(seed: u64) {
        prop_assert!(oracle::compare(&generated(seed, 0)));
    }

    #[test]
    fn odd_messages_are_judged_as_prost_judges_them(seed: u64, odd in 2_u32..60) {
        oracle::compare(&generated(seed, odd));
    }

    #[test]
    fn damaged_messages_are_judged_as_prost_judges_them(
        seed: u64,
        mutations in proptest::collection::vec((any::<u16>(), any::<u8>(), 0_u8..7), 1..5),
    ) {
        let mut bytes = generated(seed, 0);
        for mutation in mutations {
            mutate(&mut bytes, mutation);
        }
        oracle::compare(&bytes);
    }

    #[test]
    fn random_bytes_are_judged_as_prost_judges_them(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        oracle::compare(&bytes);
    }
}

/// Wraps `content` as field `number`, length-delimited.
fn wrap(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut out).unwrap();
    out.extend_from_slice(content);
    out
}

#[test]
fn nesting_is_limited_exactly_where_prost_limits_it() {
    // Innermost contents that differ in what they cost at the limit: nothing, a scalar, an unknown field, a group.
    for innermost in [&[][..], &[0x10, 1], &[0xf8, 0x01, 1], &[0xfb, 0x01, 0xfc, 0x01]] {
        let mut accepted = 0;
        for levels in 0..60 {
            // AttributeValue.array_value, AttributeArray.values.
            let value = (0..levels).fold(innermost.to_vec(), |value, _| wrap(6, &wrap(1, &value)));
            accepted += usize::from(oracle::compare(&wrap(1, &wrap(4, &wrap(2, &value)))));
            // AttributeValue.map_value, AttributeMap.values, the entry's value.
            let value = (0..levels).fold(innermost.to_vec(), |value, _| wrap(7, &wrap(1, &wrap(2, &value))));
            oracle::compare(&wrap(1, &wrap(4, &wrap(2, &value))));
        }
        assert!((40..60).contains(&accepted), "the limit lies inside the tested range: {accepted}");
    }
    for levels in 90..110_usize {
        let groups = [[0xfb, 0x01].repeat(levels), [0xfc, 0x01].repeat(levels)].concat();
        oracle::compare(&groups);
        oracle::compare(&wrap(1, &groups));
    }
}

#[test]
fn every_varint_is_judged_as_prost_judges_it() {
    // As a key, as a length, and as the values that are read, at the end of the input and before more of it.
    for len in 0..12 {
        for last in 0..=u8::MAX {
            let varint = [vec![0x80; len], vec![last]].concat();
            for tail in [&[][..], &[0; 16]] {
                oracle::compare(&[&varint, tail].concat());
                oracle::compare(&[&[0x0a], &varint[..], tail].concat());
                for field in [2, 5, 9] {
                    let header = [&[field << 3], &varint[..], tail].concat();
                    oracle::compare(&wrap(1, &wrap(1, &header)));
                }
            }
        }
    }
}

/// Run by hand, for orders of magnitude; the profile says how much to believe:
/// `cargo test --lib wire::schema_tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
#[allow(clippy::print_stderr, reason = "it prints what it measured")]
fn cost_of_a_typical_record() {
    use crate::wire::schema;
    use crate::wire::telemetry::{DashStreamMessage, Event, Header, dash_stream_message::Message};
    use prost::Message as _;
    use std::hint::black_box;

    let header = Header {
        message_id: vec![7; 16],
        timestamp_us: 1_763_700_000_123_456,
        tenant_id: "default".into(),
        thread_id: "7c9e6679-7425-40de-944b-e07fc1f90ae7".into(),
        sequence: 1234,
        schema_version: 1,
        ..Header::default()
    };
    let event = Event { header: Some(header), node_id: "research".into(), duration_us: 5, ..Event::default() };
    let bytes = DashStreamMessage { message: Some(Message::Event(event)) }.encode_to_vec();
    let per_record = |work: &dyn Fn()| {
        let started = std::time::Instant::now();
        (0..200_000).for_each(|_| work());
        started.elapsed().as_nanos() / 200_000
    };
    let walked = per_record(&|| _ = black_box(schema::read(black_box(&bytes), &mut schema::Unread)));
    let decoded = per_record(&|| drop(black_box(DashStreamMessage::decode(black_box(&bytes[..])))));
    eprintln!("{} bytes: validator {walked} ns, prost {decoded} ns", bytes.len());
}
