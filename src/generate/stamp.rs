//! Headers: ids, times and the running sequence of a thread.
//!
//! It must not know what the messages say.

use std::sync::Arc;

use fastrand::Rng;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::message::{header_mut, message_type};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{CompressionType, DashStreamMessage, Header, MessageType};

/// The thread that a run belongs to; it outlives the run when the user asks again.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Whose.
    pub tenant: Arc<str>,
    /// Its id, also the record key.
    pub id: Arc<str>,
    /// The last sequence that was given out.
    pub sequence: u64,
    /// How far the producer's clock is off, in microseconds.
    pub clock_skew_us: i64,
}

/// Gives headers out at one moment.
#[derive(Debug)]
pub struct Stamp<'a> {
    /// Whose headers.
    pub thread: &'a mut Thread,
    /// The moment, in Unix microseconds.
    pub timestamp_us: i64,
    /// For ids.
    pub rng: &'a mut Rng,
}

impl Stamp<'_> {
    /// The message with its header.
    pub fn message(&mut self, mut message: Message) -> DashStreamMessage {
        let kind = message_type(&message);
        // Batches leave the numbers to their events; producers do not number traces.
        let numbered = !matches!(kind, MessageType::EventBatch | MessageType::ExecutionTrace);
        *header_mut(&mut message) = Some(self.header(kind, numbered));
        DashStreamMessage { message: Some(message) }
    }

    /// A header; a numbered one takes the next sequence of the thread.
    pub fn header(&mut self, kind: MessageType, numbered: bool) -> Header {
        let sequence = if numbered {
            self.thread.sequence += 1;
            self.thread.sequence
        } else {
            0
        };
        Header {
            message_id: self.uuid().to_vec(),
            timestamp_us: self.timestamp_us.saturating_add(self.thread.clock_skew_us),
            tenant_id: self.thread.tenant.to_string(),
            thread_id: self.thread.id.to_string(),
            sequence,
            r#type: kind.into(),
            parent_id: Vec::new(),
            compression: CompressionType::None.into(),
            schema_version: 1,
        }
    }

    /// A random UUID.
    pub fn uuid(&mut self) -> [u8; 16] {
        uuid_v4(self.rng)
    }

    /// A random UUID as text.
    pub fn uuid_text(&mut self) -> String {
        let hex = format!("{:032x}", u128::from_be_bytes(self.uuid()));
        let part = |range| hex.get(range).unwrap_or_default();
        [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
    }
}

/// A random UUID, version 4.
pub fn uuid_v4(rng: &mut Rng) -> [u8; 16] {
    const VERSION_AND_VARIANT: u128 = !(0xf << 76 | 0x3 << 62);
    ((rng.u128(..) & VERSION_AND_VARIANT) | 0x4 << 76 | 0x2 << 62).to_be_bytes()
}

/// RFC 3339; the empty text for a time that has none.
pub fn iso(timestamp_us: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp_us) * 1_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
