//! Looks at the headers of incoming WebSocket frames before anybody gathers their payload.
//!
//! The library's codec checks the size of a frame when all of it has arrived, and never gets past a header that it cannot
//! read. So nothing reaches it that has not passed here: a frame over the limit is refused by its header, however long it
//! claims to be. It must not know sockets or sessions.

/// Opcode, extended length, mask: RFC 6455, section 5.2.
const MAX_HEADER: usize = 14;
const MAX_CONTROL_PAYLOAD: u64 = 125;

/// Why a frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Its payload is over the limit.
    #[error("the frame is over the size limit")]
    TooLarge,
    /// It is not what RFC 6455 lets a client send.
    #[error("the frame breaks the WebSocket protocol")]
    Protocol,
}

/// A refusal, and how many bytes of the chunk lie before the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Bytes that may still be handed on.
    pub good: usize,
    /// Why.
    pub why: Violation,
}

/// The position in the stream of one client.
#[derive(Debug)]
pub struct FrameGate {
    max_payload: u64,
    header: [u8; MAX_HEADER],
    have: usize,
    payload_left: u64,
    /// A fragmented message is under way.
    fragmented: bool,
}

impl FrameGate {
    /// At the start of a stream whose frames may hold `max_payload` bytes each.
    pub const fn new(max_payload: usize) -> Self {
        Self { max_payload: max_payload as u64, header: [0; MAX_HEADER], have: 0, payload_left: 0, fragmented: false }
    }

    /// Passes a chunk.
    ///
    /// # Errors
    /// At the first frame that is refused. Nothing behind it can be read.
    pub fn pass(&mut self, chunk: &[u8]) -> Result<(), Refused> {
        let (mut at, mut frame_start) = (0, 0);
        while let Some(byte) = chunk.get(at) {
            if self.payload_left > 0 {
                let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(chunk.len() - at);
                self.payload_left -= left as u64;
                at += left;
                continue;
            }
            if self.have == 0 {
                frame_start = at;
            }
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            at += 1;
            self.look().map_err(|why| Refused { good: frame_start, why })?;
        }
        Ok(())
    }

    /// Judges the header as far as it is there; at its end the payload begins.
    fn look(&mut self) -> Result<(), Violation> {
        let [first, second, ..] = self.header;
        if self.have == 2 {
            self.kind(first, second)?;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + extended {
            return Ok(());
        }
        let bytes = self.header.get(2..2 + extended).unwrap_or_default();
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length > self.max_payload {
            return Err(Violation::TooLarge);
        }
        if self.have == 2 + extended + 4 {
            self.have = 0;
            self.payload_left = length;
        }
        Ok(())
    }

    fn kind(&mut self, first: u8, second: u8) -> Result<(), Violation> {
        let (last, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        let (masked, length) = (second & 0x80 != 0, u64::from(second & 0x7f));
        let allowed = match opcode {
            0x0 => self.fragmented,
            0x1 | 0x2 => !self.fragmented,
            0x8..=0xa => last && length <= MAX_CONTROL_PAYLOAD,
            _ => false,
        };
        if reserved != 0 || !masked || !allowed {
            return Err(Violation::Protocol);
        }
        if opcode < 0x8 {
            self.fragmented = !last;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "test lengths are small or matched before")]
mod tests {
    use super::*;
    use actix_http::ws::{Codec, Frame};
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    fn frame(first: u8, masked: bool, length: u64, payload: usize) -> Vec<u8> {
        let mask = u8::from(masked) << 7;
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        if masked {
            bytes.extend([0; 4]);
        }
        bytes.resize(bytes.len() + payload, b'a');
        bytes
    }

    fn pass_all(max: usize, chunk: &[u8]) -> Result<(), Refused> {
        FrameGate::new(max).pass(chunk)
    }

    #[test]
    fn the_header_alone_refuses_whatever_length_it_claims() {
        for length in [1_025, 65_535, 65_536, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let refused = pass_all(1_024, &frame(0x81, true, length, 0));
            assert_eq!(refused, Err(Refused { good: 0, why: Violation::TooLarge }), "{length}");
        }
        for length in [0, 1, 125, 126, 1_024] {
            assert_eq!(pass_all(1_024, &frame(0x81, true, length, length as usize)), Ok(()));
        }
    }

    #[test]
    fn what_clients_may_not_send_is_refused() {
        let text = frame(0x81, true, 3, 3);
        let broken: [(&str, Vec<u8>); 9] = [
            ("unmasked", frame(0x81, false, 3, 3)),
            ("a reserved bit", frame(0xc1, true, 3, 3)),
            ("an unknown opcode", frame(0x83, true, 3, 3)),
            ("an unknown control opcode", frame(0x8b, true, 3, 3)),
            ("a long ping", frame(0x89, true, 126, 126)),
            ("a fragmented ping", frame(0x09, true, 3, 3)),
            ("a continuation of nothing", frame(0x80, true, 3, 3)),
            ("text within a fragmented message", [frame(0x01, true, 3, 3), text.clone()].concat()),
            ("a message after its last fragment, continued", [text.clone(), frame(0x00, true, 1, 1)].concat()),
        ];
        for (what, bytes) in broken {
            let good = text.len();
            let chunk = [text.clone(), bytes].concat();
            let refused = pass_all(1_024, &chunk).expect_err(what);
            assert_eq!(refused.why, Violation::Protocol, "{what}");
            assert!(refused.good >= good, "{what}");
        }
    }

    #[test]
    fn fragments_with_pings_between_them_pass() {
        let message =
            [frame(0x01, true, 2, 2), frame(0x89, true, 0, 0), frame(0x00, true, 0, 0), frame(0x80, true, 5, 5)];
        let message = message.concat();
        assert_eq!(pass_all(10, &[message.clone(), message].concat()), Ok(()));
    }

    proptest! {
        /// However the bytes are cut, the verdict is the same, and what passes is what the codec understands.
        #[test]
        fn cuts_change_nothing_and_the_codec_agrees(
            frames in proptest::collection::vec((any::<u8>(), proptest::bool::weighted(0.9), 0..200_u64), 1..8),
            usual in any::<bool>(),
            cuts in proptest::collection::vec(1..40_usize, 1..40),
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|(first, masked, length)| {
                    let first = if usual { 0x80 | [0x1, 0x2, 0x9, 0xa][usize::from(first % 4)] } else { *first };
                    frame(first, *masked || usual, *length, *length as usize)
                })
                .collect();
            let whole = pass_all(150, &bytes);
            let (mut gate, mut at, mut cut) = (FrameGate::new(150), 0, Ok(()));
            for len in cuts.iter().cycle() {
                let end = (at + len).min(bytes.len());
                cut = gate.pass(&bytes[at..end]);
                at = end;
                if cut.is_err() || at == bytes.len() { break; }
            }
            prop_assert_eq!(whole.map_err(|refused| refused.why), cut.map_err(|refused| refused.why));
            let passed = whole.err().map_or(bytes.len(), |refused| refused.good);
            let mut rest = BytesMut::from(&bytes[..passed]);
            let mut codec = Codec::new().max_size(150);
            while let Some(decoded) = codec.decode(&mut rest).transpose() {
                // A close frame holds a code, which is the session's matter.
                if decoded.is_err() && bytes.contains(&0x88) { return Ok(()); }
                let decoded = decoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(!matches!(decoded, Frame::Text(text) if text.len() > 150));
            }
            prop_assert!(rest.is_empty());
        }
    }
}
