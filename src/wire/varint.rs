//! Protobuf's variable-length integers, for what is written by hand. It must not know messages.

/// Appends a varint.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time are meant")]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
