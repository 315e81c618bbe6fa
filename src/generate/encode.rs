//! Messages to record values: one framing byte and the protobuf, compressed when that is worth it.

use prost::Message as _;

use super::message::set_compression;
use crate::wire::telemetry::{CompressionType, DashStreamMessage};

/// The value is plain protobuf.
pub const FRAMING_RAW: u8 = 0x00;
/// The value is one zstd frame of the protobuf.
pub const FRAMING_ZSTD: u8 = 0x01;
/// Messages up to this size are not compressed, in bytes.
pub const COMPRESSION_THRESHOLD: usize = 512;

const LEVEL: i32 = 3;

/// Encodes record values as existing producers do. Reuses its buffers and its compression context.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// A new encoder.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(LEVEL)?, plain: Vec::with_capacity(4096) })
    }

    /// The record value of a message. Its headers are changed to tell the compression that was chosen.
    ///
    /// Compressed when the protobuf is larger than [`COMPRESSION_THRESHOLD`] and gets smaller; otherwise, and when zstd
    /// fails, plain.
    pub fn encode(&mut self, message: &mut DashStreamMessage) -> Vec<u8> {
        if message.encoded_len() > COMPRESSION_THRESHOLD {
            set_compression(message, CompressionType::Zstd);
            if let Some(value) = self.compressed(message) {
                return value;
            }
            set_compression(message, CompressionType::None);
        }
        Self::encode_raw(message)
    }

    /// The record value of a message, never compressed. Headers stay as they are.
    pub fn encode_raw(message: &DashStreamMessage) -> Vec<u8> {
        let mut value = Vec::with_capacity(1 + message.encoded_len());
        value.push(FRAMING_RAW);
        message.encode_raw(&mut value);
        value
    }

    fn compressed(&mut self, message: &DashStreamMessage) -> Option<Vec<u8>> {
        self.plain.clear();
        message.encode_raw(&mut self.plain);
        let frame = self.compressor.compress(&self.plain).ok()?;
        if frame.len() >= self.plain.len() {
            return None;
        }
        let mut value = Vec::with_capacity(1 + frame.len());
        value.push(FRAMING_ZSTD);
        value.extend_from_slice(&frame);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::message::{event, header};
    use crate::wire::telemetry::attribute_value::Value;
    use crate::wire::telemetry::dash_stream_message::Message;
    use crate::wire::telemetry::{AttributeValue, EventBatch, EventType, Header};

    fn batch(bytes: Vec<u8>) -> DashStreamMessage {
        let bytes = AttributeValue { value: Some(Value::BytesValue(bytes)) };
        let mut inner = event(EventType::NodeStart, "n", [("bytes", bytes)]);
        inner.header = Some(Header { sequence: 1, ..Default::default() });
        let header = Some(Header::default());
        DashStreamMessage { message: Some(Message::EventBatch(EventBatch { header, events: vec![inner] })) }
    }

    fn decode(value: &[u8]) -> DashStreamMessage {
        match value[0] {
            FRAMING_RAW => DashStreamMessage::decode(&value[1..]).unwrap(),
            FRAMING_ZSTD => DashStreamMessage::decode(&*zstd::bulk::decompress(&value[1..], 1 << 20).unwrap()).unwrap(),
            other => panic!("framing {other}"),
        }
    }

    #[test]
    fn only_what_is_large_and_shrinks_is_compressed_and_says_so() {
        let mut encoder = Encoder::new().unwrap();
        let mut random = vec![0; 600];
        fastrand::Rng::with_seed(1).fill(&mut random);
        for (bytes, framing) in [(vec![7; 100], FRAMING_RAW), (vec![7; 1000], FRAMING_ZSTD), (random, FRAMING_RAW)] {
            let mut message = batch(bytes);
            let value = encoder.encode(&mut message);
            assert_eq!(value[0], framing);
            let decoded = decode(&value);
            assert_eq!(decoded, message);
            let expected = i32::from(framing == FRAMING_ZSTD);
            assert_eq!(header(&decoded).unwrap().compression, expected);
            let Some(Message::EventBatch(batch)) = decoded.message else { panic!("not a batch") };
            assert_eq!(batch.events[0].header.as_ref().unwrap().compression, expected);
        }
    }
}
