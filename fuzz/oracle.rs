//! The judge of the wire validator: what prost decodes. Shared by the unit tests and the fuzz targets; whoever includes this
//! file has the crate's `wire` module in the parent scope.

use prost::Message as _;

use super::wire::schema::{self, Envelope, Events, Header};
use super::wire::telemetry::dash_stream_message::Message;
use super::wire::telemetry::{self, DashStreamMessage};

/// A header with its own strings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owned {
    tenant_id: Vec<u8>,
    thread_id: Vec<u8>,
    sequence: u64,
    timestamp_us: i64,
    schema_version: u32,
}

impl Owned {
    fn walked(header: &Header<'_>) -> Self {
        Self {
            tenant_id: header.tenant_id.to_vec(),
            thread_id: header.thread_id.to_vec(),
            sequence: header.sequence,
            timestamp_us: header.timestamp_us,
            schema_version: header.schema_version,
        }
    }

    fn decoded(header: Option<&telemetry::Header>) -> Self {
        header.map_or_else(Self::default, |header| Self {
            tenant_id: header.tenant_id.clone().into_bytes(),
            thread_id: header.thread_id.clone().into_bytes(),
            sequence: header.sequence,
            timestamp_us: header.timestamp_us,
            schema_version: header.schema_version,
        })
    }
}

#[derive(Default)]
struct Recorder(Vec<Owned>);

impl Events for Recorder {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn event(&mut self, header: &Header<'_>) {
        self.0.push(Owned::walked(header));
    }
}

/// Panics when the validator and prost disagree about `bytes`; otherwise says whether they are a message.
#[allow(unreachable_pub, reason = "shared with the fuzz targets, which call it from outside")]
pub fn compare(bytes: &[u8]) -> bool {
    let mut events = Recorder::default();
    let walked = schema::read(bytes, &mut events);
    let decoded = match DashStreamMessage::decode(bytes) {
        Ok(decoded) => decoded.message,
        Err(error) => {
            assert!(walked.is_err(), "accepted what prost refuses ({error}): {bytes:02x?}");
            return false;
        }
    };
    let Ok(Envelope { message_type, header }) = walked else {
        panic!("refused what prost accepts: {bytes:02x?} is {decoded:?}");
    };
    let (expected_type, expected_header) = match &decoded {
        None => (0, None),
        Some(Message::Event(m)) => (1, m.header.as_ref()),
        Some(Message::StateDiff(m)) => (2, m.header.as_ref()),
        Some(Message::TokenChunk(m)) => (3, m.header.as_ref()),
        Some(Message::ToolExecution(m)) => (4, m.header.as_ref()),
        Some(Message::Checkpoint(m)) => (5, m.header.as_ref()),
        Some(Message::Metrics(m)) => (6, m.header.as_ref()),
        Some(Message::Error(m)) => (7, m.header.as_ref()),
        Some(Message::EventBatch(m)) => (8, m.header.as_ref()),
        Some(Message::ExecutionTrace(m)) => (9, m.header.as_ref()),
    };
    assert_eq!(message_type, expected_type, "{bytes:02x?}");
    assert_eq!(Owned::walked(&header), Owned::decoded(expected_header), "{bytes:02x?}");
    let expected: Vec<_> = match &decoded {
        Some(Message::EventBatch(batch)) => {
            batch.events.iter().map(|event| Owned::decoded(event.header.as_ref())).collect()
        }
        _ => Vec::new(),
    };
    assert_eq!(events.0, expected, "{bytes:02x?}");
    true
}
