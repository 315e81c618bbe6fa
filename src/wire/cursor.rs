//! The printable cursor: positions of all partitions in one short text, safe in URLs, versioned and checked.
//!
//! `base64url(version, hash of the epoch's name, (partition, next offset)..., check)`, numbers as varints. It must not know
//! sessions; whether its epoch is the current one is for others to say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use super::limits::MAX_PARTITIONS;

const VERSION: u8 = 1;
const CHECK: usize = 4;
/// Bytes of a partition and its offset, none of which is negative.
const MAX_POSITION: usize = 5 + 9;
/// Characters of the longest cursor that is looked at.
const MAX_TEXT: usize = (1 + 8 + MAX_PARTITIONS * MAX_POSITION + CHECK).div_ceil(3) * 4;

/// Positions, and the epoch that they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Tells the epoch's name from others.
    pub epoch: u64,
    /// Partition and next offset, ascending by partition.
    pub next_offsets: Vec<(i32, i64)>,
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Longer than any cursor of this service.
    #[error("the cursor is longer than {MAX_TEXT} characters")]
    TooLong,
    /// Made by a newer service.
    #[error("the cursor has version {0}; this service reads version {VERSION}")]
    Version(u8),
    /// Cut, changed, or something else.
    #[error("this is not a cursor of this service, or it was cut or changed on its way")]
    Damaged,
}

/// The tag of an epoch's name.
pub fn epoch_tag(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

impl Cursor {
    /// The text.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        for (partition, next) in &self.next_offsets {
            put_varint(&mut bytes, u64::from(partition.cast_unsigned()));
            put_varint(&mut bytes, next.cast_unsigned());
        }
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        if text.len() > MAX_TEXT {
            return Err(CursorError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Damaged)?;
        let (body, found) = bytes.split_last_chunk::<CHECK>().ok_or(CursorError::Damaged)?;
        let (version, rest) = body.split_first().ok_or(CursorError::Damaged)?;
        if *version != VERSION {
            return Err(CursorError::Version(*version));
        }
        if check(body) != *found {
            return Err(CursorError::Damaged);
        }
        let (epoch, mut rest) = rest.split_first_chunk::<8>().ok_or(CursorError::Damaged)?;
        let mut next_offsets: Vec<(i32, i64)> = Vec::new();
        while !rest.is_empty() {
            let partition = i32::try_from(take_varint(&mut rest)?).map_err(|_| CursorError::Damaged)?;
            let next = i64::try_from(take_varint(&mut rest)?).map_err(|_| CursorError::Damaged)?;
            if next_offsets.last().is_some_and(|(last, _)| *last >= partition) {
                return Err(CursorError::Damaged);
            }
            next_offsets.push((partition, next));
        }
        Ok(Self { epoch: u64::from_be_bytes(*epoch), next_offsets })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a check of four bytes is the low half of the hash")]
fn check(bytes: &[u8]) -> [u8; CHECK] {
    (xxh3_64(bytes) as u32).to_be_bytes()
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, CursorError> {
    prost::encoding::decode_varint(rest).map_err(|_| CursorError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_was_and_no_changed_one_is_taken(
            epoch in any::<u64>(),
            offsets in proptest::collection::btree_map(0..i32::MAX, 0..i64::MAX, 0..40),
            at in any::<proptest::sample::Index>(),
            with in "[A-Za-z0-9_-]",
        ) {
            let cursor = Cursor { epoch, next_offsets: offsets.into_iter().collect() };
            let text = cursor.encode();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(Cursor::decode(&text), Ok(cursor));
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert!(changed == text || Cursor::decode(&changed).is_err());
            prop_assert!(Cursor::decode(text.get(..at).unwrap()).is_err());
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Cursor::decode(&text);
        }
    }

    #[test]
    fn the_longest_cursor_is_taken() {
        let most = i32::try_from(MAX_PARTITIONS).unwrap();
        let cursor =
            Cursor { epoch: u64::MAX, next_offsets: (i32::MAX - most..i32::MAX).map(|p| (p, i64::MAX)).collect() };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }

    #[test]
    fn each_fault_is_told_apart() {
        let text = Cursor { epoch: 7, next_offsets: vec![(0, 42)] }.encode();
        let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        bytes[0] = 9;
        assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes)), Err(CursorError::Version(9)));
        assert_eq!(Cursor::decode(""), Err(CursorError::Damaged));
        assert_eq!(Cursor::decode(&"A".repeat(MAX_TEXT + 1)), Err(CursorError::TooLong));
    }
}
