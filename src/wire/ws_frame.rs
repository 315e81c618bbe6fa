//! Complete server-to-client WebSocket messages as bytes.
//!
//! Server frames are not masked, so one encoding serves every client. It must not know what the payload means.

use bytes::Bytes;

/// The longest header of a server frame.
pub const MAX_HEADER: usize = 10;

/// The opcodes that the server uses in pre-encoded messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// Close, with code and reason.
    Close = 0x8,
}

/// The header of an unfragmented message: the bytes, and how many of them count.
pub fn header(opcode: Opcode, len: usize) -> ([u8; MAX_HEADER], usize) {
    let mut bytes = [0; MAX_HEADER];
    bytes[0] = 0x80 | opcode as u8;
    if let Ok(len) = u8::try_from(len)
        && len < 126
    {
        bytes[1] = len;
        (bytes, 2)
    } else if let Ok(len) = u16::try_from(len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        (bytes, 4)
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        (bytes, 10)
    }
}

/// Appends a message to `out`.
pub fn append(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let (bytes, len) = header(opcode, payload.len());
    out.extend(bytes.into_iter().take(len));
    out.extend_from_slice(payload);
}

/// A text message.
pub fn text(payload: &str) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + MAX_HEADER);
    append(&mut out, Opcode::Text, payload.as_bytes());
    out.into()
}

/// A close message. The reason is cut at a character boundary to the 123 bytes that fit.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(super::control::cut(reason, 123).as_bytes());
    let mut out = Vec::with_capacity(payload.len() + 2);
    append(&mut out, Opcode::Close, &payload);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_the_shortest_form() {
        for (len, header_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let (bytes, got) = header(Opcode::Binary, len);
            assert_eq!(got, header_len, "length {len}");
            assert_eq!(bytes[0], 0x82);
        }
        assert_eq!(&text("ab")[..], [0x81, 2, b'a', b'b']);
        assert_eq!(&close(1001, "x")[..], [0x88, 3, 0x03, 0xe9, b'x']);
    }

    #[test]
    fn a_close_reason_of_any_length_fits_a_control_frame() {
        for reason in ["€".repeat(50), "x".repeat(200), String::new()] {
            let frame = close(4000, &reason);
            assert!(frame.len() <= 127);
            assert!(std::str::from_utf8(&frame[4..]).is_ok());
        }
    }
}
