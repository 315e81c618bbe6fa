//! Records of one size for measurements: valid messages with running sequences over a fixed set of threads.

use std::sync::Arc;

use fastrand::Rng;
use prost::Message as _;

use super::catalogue::GRAPHS;
use super::defects::Record;
use super::encode::Encoder;
use super::stamp::uuid_v4;
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{DashStreamMessage, Header, MessageType, TokenChunk};

/// The smallest size that a record can have, in bytes.
pub const SIZE_MIN: usize = 160;

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatSettings {
    /// Decides the message ids.
    pub seed: u64,
    /// How many threads take turns.
    pub threads: u32,
    /// Size of the value before compression, framing byte included; at least [`SIZE_MIN`].
    pub size: usize,
    /// Whether values are compressed.
    pub compressed: bool,
    /// Begins every thread id.
    pub thread_prefix: String,
}

/// Makes records of one size.
#[derive(Debug)]
pub struct Flat {
    settings: FlatSettings,
    rng: Rng,
    encoder: Encoder,
    corpus: String,
    threads: Vec<Arc<str>>,
    message: DashStreamMessage,
    text_length: usize,
    count: u64,
}

impl Flat {
    /// A source that begins every thread at sequence 1.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new(settings: FlatSettings) -> std::io::Result<Self> {
        let facts: Vec<_> = GRAPHS.iter().flat_map(|graph| graph.cases).flat_map(|case| case.facts).copied().collect();
        let sentences = facts.join(" ");
        let threads = (0..settings.threads.max(1)).map(|index| format!("{}{index:06}", settings.thread_prefix).into());
        let header = Header {
            message_id: vec![0; 16],
            tenant_id: "load".to_owned(),
            r#type: MessageType::TokenChunk.into(),
            schema_version: 1,
            ..Default::default()
        };
        let chunk = TokenChunk {
            header: Some(header),
            request_id: "req-load".to_owned(),
            model: "atlas-large-2".to_owned(),
            ..Default::default()
        };
        Ok(Self {
            rng: Rng::with_seed(settings.seed),
            encoder: Encoder::new()?,
            corpus: sentences.repeat(2 + settings.size / sentences.len()),
            threads: threads.collect(),
            message: DashStreamMessage { message: Some(Message::TokenChunk(chunk)) },
            text_length: settings.size.saturating_sub(SIZE_MIN),
            count: 0,
            settings,
        })
    }

    /// The next record, sent at `timestamp_us` (Unix).
    pub fn next_record(&mut self, timestamp_us: i64) -> Option<Record> {
        let threads = self.threads.len() as u64;
        let key = Arc::clone(self.threads.get(usize::try_from(self.count % threads).ok()?)?);
        let sequence = self.count / threads + 1;
        let start = usize::try_from(self.count.wrapping_mul(7_919) % 4_096).ok()?;
        self.count += 1;
        let Some(Message::TokenChunk(chunk)) = self.message.message.as_mut() else { return None };
        if let Some(header) = chunk.header.as_mut() {
            header.message_id.copy_from_slice(&uuid_v4(&mut self.rng));
            header.timestamp_us = timestamp_us;
            header.thread_id.clear();
            header.thread_id.push_str(&key);
            header.sequence = sequence;
            header.compression = i32::from(self.settings.compressed);
        }
        chunk.chunk_index = u32::try_from(sequence).unwrap_or(u32::MAX);
        self.fit(start)?;
        let value = if self.settings.compressed {
            self.encoder.encode(&mut self.message)
        } else {
            Encoder::encode_raw(&self.message)
        };
        Some(Record { key, value: Some(value) })
    }

    /// Makes the text as long as the size asks for: lengths of numbers change now and then, and the text makes up for it.
    fn fit(&mut self, start: usize) -> Option<()> {
        for attempt in 0..4 {
            let Some(Message::TokenChunk(chunk)) = self.message.message.as_mut() else { return None };
            chunk.text.clear();
            chunk.text.push_str(self.corpus.get(start..start + self.text_length)?);
            let encoded = self.message.encoded_len() as i64;
            let missing = self.settings.size as i64 - 1 - encoded;
            if missing == 0 {
                break;
            }
            let Some(Message::TokenChunk(chunk)) = self.message.message.as_mut() else { return None };
            if attempt >= 2 && missing == 1 {
                // One more letter of text would also lengthen its own length: another field takes the odd byte.
                chunk.request_id.push('x');
                break;
            }
            self.text_length = self.text_length.saturating_add_signed(isize::try_from(missing).ok()?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(size: usize, compressed: bool) -> Flat {
        Flat::new(FlatSettings { seed: 1, threads: 3, size, compressed, thread_prefix: "t-".to_owned() }).unwrap()
    }

    #[test]
    fn raw_records_have_exactly_the_size() {
        for size in (160..330).chain([1024, 16_384, 16_500, 100_000]) {
            let mut flat = flat(size, false);
            for number in 0..500 {
                let record = flat.next_record(1_790_000_000_000_000).unwrap();
                assert_eq!(record.value.unwrap().len(), size, "record {number} of {size}");
            }
        }
    }

    #[test]
    fn compressed_records_are_smaller_and_sequences_run_per_thread() {
        let mut flat = flat(1024, true);
        let mut expected = [1, 1, 1];
        for number in 0..300 {
            let value = flat.next_record(1_790_000_000_000_000).unwrap().value.unwrap();
            assert!(value[0] == 1 && value.len() < 900);
            let plain = zstd::bulk::decompress(&value[1..], 2048).unwrap();
            let message = DashStreamMessage::decode(&*plain).unwrap();
            let header = crate::generate::message::header(&message).unwrap();
            assert_eq!(header.sequence, expected[number % 3]);
            assert_eq!(header.compression, 1);
            expected[number % 3] += 1;
        }
    }
}
