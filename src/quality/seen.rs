//! Which messages were counted already: Kafka may deliver a record twice, and a producer may send a message twice.
//!
//! Bounded: the messages longest ago are forgotten first. It must not know what is counted.

use hashlink::LinkedHashMap;
use xxhash_rust::xxh3::xxh3_128;

use crate::runs::item::Place;

/// Length of a message's id, by the contract.
const ID_BYTES: usize = 16;

/// The messages that were counted lately.
#[derive(Debug)]
pub struct Seen {
    known: LinkedHashMap<u128, ()>,
    limit: usize,
}

impl Seen {
    /// Remembers so many messages.
    pub fn new(limit: usize) -> Self {
        Self { known: LinkedHashMap::new(), limit: limit.max(1) }
    }

    /// Whether a message was not there before; from now on it was.
    pub fn is_new(&mut self, key: u128) -> bool {
        if self.known.contains_key(&key) {
            return false;
        }
        if self.known.len() >= self.limit {
            self.known.pop_front();
        }
        self.known.insert(key, ());
        true
    }
}

/// What a message is known by: its id. A message without one is known by its place and content, so that it is counted once
/// however often Kafka delivers it, also when a topic is made anew and places begin again.
pub fn key(message_id: &[u8], place: Place, value: &[u8]) -> u128 {
    match <[u8; ID_BYTES]>::try_from(message_id) {
        Ok(id) if id.iter().any(|byte| *byte != 0) => u128::from_le_bytes(id),
        _ => {
            let Place { partition, offset, index } = place;
            let index = u64::try_from(index).unwrap_or(u64::MAX);
            let place = [&partition.to_le_bytes()[..], &offset.to_le_bytes()[..], &index.to_le_bytes()[..]].concat();
            xxh3_128(&[&place[..], &xxh3_128(value).to_le_bytes()[..]].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once_while_it_is_remembered() {
        let mut seen = Seen::new(3);
        let new: Vec<bool> = [1, 2, 1, 3, 2, 4, 1].into_iter().map(|key| seen.is_new(key)).collect();
        assert_eq!(new, [true, true, false, true, false, true, true], "1 was pushed out by 4");
        assert_eq!(seen.known.len(), 3);
        for key in 0..1_000 {
            seen.is_new(key);
            assert!(seen.known.len() <= 3);
        }
    }

    #[test]
    fn an_id_is_the_same_wherever_it_lies_and_without_one_the_place_decides() {
        let id = [7; ID_BYTES];
        let at = |partition, offset, index| Place { partition, offset, index };
        assert_eq!(key(&id, at(0, 1, 0), b"a"), key(&id, at(3, 9, 1), b"b"));
        for none in [&[][..], &[0; ID_BYTES], &[1; 4]] {
            assert_eq!(key(none, at(0, 1, 0), b"a"), key(none, at(0, 1, 0), b"a"));
            for (other, value) in [(at(0, 2, 0), b"a"), (at(1, 1, 0), b"a"), (at(0, 1, 1), b"a"), (at(0, 1, 0), b"b")] {
                assert_ne!(key(none, at(0, 1, 0), b"a"), key(none, other, value));
            }
        }
    }
}
