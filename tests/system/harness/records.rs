//! Records as producers in the field write them, good and bad, each with what has to become of it.
//!
//! The framing is written here once more on purpose: an error in the service's own framing must not hide itself.

use bytes::Bytes;
use dashstream::wire::stream::SkipReason;
use dashstream::wire::telemetry::attribute_value::Value;
use dashstream::wire::telemetry::dash_stream_message::Message;
use dashstream::wire::telemetry::{
    AttributeValue, DashStreamMessage, Event, EventBatch, EventType, Header, MessageType,
};
use prost::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::topic::{KAFKA_TIMEOUT, Topic};

const FRAMING_PLAIN: u8 = 0x00;
const FRAMING_ZSTD: u8 = 0x01;

/// What clients must see of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The record itself, byte for byte.
    Record,
    /// A skip with this reason.
    Skip(SkipReason),
}

/// A record that is to be published.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub key: String,
    /// `None` is Kafka's null value.
    pub value: Option<Bytes>,
    /// `None` lets Kafka choose by the key.
    pub partition: Option<i32>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub expect: Expect,
}

impl Outgoing {
    pub fn new(key: impl Into<String>, value: Option<Vec<u8>>, expect: Expect) -> Self {
        Self { key: key.into(), value: value.map(Bytes::from), partition: None, headers: Vec::new(), expect }
    }

    pub fn on_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn with_header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }
}

/// A good record: one event of a thread. `sequence` 0 means not numbered.
pub fn good(thread: &str, sequence: u64) -> Outgoing {
    good_of_size(thread, sequence, 0)
}

/// As [`good`], with a text attribute of `padding` bytes that hardly compresses.
pub fn good_of_size(thread: &str, sequence: u64, padding: usize) -> Outgoing {
    let message = of_event(event(thread, sequence, padding));
    Outgoing::new(thread, Some(plain(&message)), Expect::Record)
}

/// A good record in one zstd frame.
pub fn zstd(thread: &str, sequence: u64, padding: usize) -> Outgoing {
    let message = of_event(event(thread, sequence, padding));
    Outgoing::new(thread, Some(compressed(&message.encode_to_vec())), Expect::Record)
}

/// A good record: one event of that type, without a number.
pub fn of_type(thread: &str, kind: EventType) -> Outgoing {
    let event = Event { event_type: kind.into(), node_id: String::new(), ..event(thread, 0, 0) };
    Outgoing::new(thread, Some(plain(&of_event(event))), Expect::Record)
}

/// A good record with `count` events, numbered from `first_sequence`.
pub fn batch(thread: &str, first_sequence: u64, count: u64) -> Outgoing {
    let events = (first_sequence..first_sequence + count).map(|sequence| event(thread, sequence, 0)).collect();
    let batch_header = header(thread, 0, MessageType::EventBatch);
    let message =
        DashStreamMessage { message: Some(Message::EventBatch(EventBatch { header: Some(batch_header), events })) };
    Outgoing::new(thread, Some(plain(&message)), Expect::Record)
}

/// A good record of another tenant than the others, plain or in one zstd frame.
pub fn of_tenant(tenant: &str, thread: &str, sequence: u64, in_zstd: bool) -> Outgoing {
    let mut event = event(thread, sequence, 200);
    event.header.get_or_insert_default().tenant_id = tenant.to_owned();
    let message = of_event(event);
    let value = if in_zstd { compressed(&message.encode_to_vec()) } else { plain(&message) };
    Outgoing::new(thread, Some(value), Expect::Record)
}

/// A record of each kind of message, numbered from 1 by the field of the kind.
pub fn of_each_kind(thread: &str) -> Vec<Outgoing> {
    use dashstream::wire::telemetry as t;
    let h = |sequence| Some(header(thread, sequence, MessageType::Event));
    let batch = EventBatch { header: h(0), events: vec![event(thread, 8, 20)] };
    let messages = [
        Message::Event(Event { header: h(1), ..Default::default() }),
        Message::StateDiff(t::StateDiff { header: h(2), ..Default::default() }),
        Message::TokenChunk(t::TokenChunk { header: h(3), ..Default::default() }),
        Message::ToolExecution(t::ToolExecution { header: h(4), ..Default::default() }),
        Message::Checkpoint(t::Checkpoint { header: h(5), ..Default::default() }),
        Message::Metrics(t::Metrics { header: h(6), ..Default::default() }),
        Message::Error(t::Error { header: h(7), ..Default::default() }),
        Message::EventBatch(batch),
        Message::ExecutionTrace(t::ExecutionTrace { header: h(9), ..Default::default() }),
    ];
    let record = |message| plain(&DashStreamMessage { message: Some(message) });
    messages.map(|message| Outgoing::new(thread, Some(record(message)), Expect::Record)).into()
}

/// A batch whose events belong to several tenants and threads.
pub fn shared_batch(names: &[(&str, &str)]) -> Outgoing {
    let of = |(tenant, thread): &(&str, &str)| {
        let mut event = event(thread, 1, 10);
        event.header.get_or_insert_default().tenant_id = (*tenant).to_owned();
        event
    };
    let batch = EventBatch { header: None, events: names.iter().map(of).collect() };
    Outgoing::new(
        "shared",
        Some(plain(&DashStreamMessage { message: Some(Message::EventBatch(batch)) })),
        Expect::Record,
    )
}

/// A message of a schema that does not exist yet.
pub fn of_schema_version(thread: &str, version: u32) -> Outgoing {
    let mut event = event(thread, 1, 0);
    event.header.get_or_insert_default().schema_version = version;
    Outgoing::new(thread, Some(plain(&of_event(event))), Expect::Skip(SkipReason::SchemaVersion))
}

/// Kafka's null value.
pub fn null(thread: &str) -> Outgoing {
    Outgoing::new(thread, None, Expect::Skip(SkipReason::PayloadMissing))
}

/// A value of no bytes.
pub fn empty(thread: &str) -> Outgoing {
    Outgoing::new(thread, Some(Vec::new()), Expect::Skip(SkipReason::PayloadMissing))
}

/// The plain framing byte, then bytes that are no protobuf.
pub fn garbage(thread: &str) -> Outgoing {
    let mut value = vec![FRAMING_PLAIN];
    value.extend([0xff; 40]);
    Outgoing::new(thread, Some(value), Expect::Skip(SkipReason::InvalidProtobuf))
}

/// A message in which nothing is set.
pub fn hollow(thread: &str) -> Outgoing {
    Outgoing::new(thread, Some(vec![FRAMING_PLAIN]), Expect::Skip(SkipReason::InvalidProtobuf))
}

/// A good message behind a framing byte that nobody defined.
pub fn unknown_framing(thread: &str) -> Outgoing {
    let mut value = plain(&of_event(event(thread, 1, 0)));
    value[0] = 0x7f;
    Outgoing::new(thread, Some(value), Expect::Skip(SkipReason::UnknownFraming))
}

/// The zstd framing byte, then bytes that are no zstd frame.
pub fn broken_zstd(thread: &str) -> Outgoing {
    Outgoing::new(thread, Some(vec![FRAMING_ZSTD, 1, 2, 3, 4]), Expect::Skip(SkipReason::DecompressionFailed))
}

/// A small zstd frame that becomes `size` zero bytes.
pub fn bomb(thread: &str, size: usize) -> Outgoing {
    Outgoing::new(thread, Some(compressed(&vec![0; size])), Expect::Skip(SkipReason::DecompressedTooLarge))
}

/// A zstd frame of `len` equal bytes, written by hand so that it can declare any size, or none.
pub fn zstd_frame(len: usize, declared: Option<u32>) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    const WINDOW: u8 = 0x58;
    const BLOCK: usize = 128 * 1024;
    let mut frame = MAGIC.to_vec();
    match declared {
        Some(size) => {
            frame.extend([0x80, WINDOW]);
            frame.extend(size.to_le_bytes());
        }
        None => frame.extend([0x00, WINDOW]),
    }
    let mut left = len;
    loop {
        let block = left.min(BLOCK);
        left -= block;
        // A block of one byte, repeated; the lowest bit says that it is the last one.
        let header = u32::try_from(block).expect("a block is small") << 3 | 0b010 | u32::from(left == 0);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(b'x');
        if left == 0 {
            return frame;
        }
    }
}

/// Frames behind the zstd framing byte.
pub fn of_frames(thread: &str, frames: &[Vec<u8>], expect: SkipReason) -> Outgoing {
    let value = [&[FRAMING_ZSTD][..], &frames.concat()].concat();
    Outgoing::new(thread, Some(value), Expect::Skip(expect))
}

/// A value at which a service that was started with sabotage allowed fails to judge.
pub fn sabotaged(thread: &str) -> Outgoing {
    Outgoing::new(thread, Some(b"\0dashstream-test-panic".to_vec()), Expect::Skip(SkipReason::Internal))
}

/// Every way in which a record cannot be processed by a service that takes `limit` bytes and may be sabotaged: a name, and
/// the record.
pub fn every_cause(thread: &str, limit: usize) -> Vec<(&'static str, Outgoing)> {
    use SkipReason::{DecompressedTooLarge, DecompressionFailed};
    let declared = |size: usize| Some(u32::try_from(size).expect("small"));
    let frames = |frames: &[Vec<u8>], expect| of_frames(thread, frames, expect);
    let half = zstd_frame(limit / 2, declared(limit / 2));
    let small = zstd_frame(5, declared(5));
    vec![
        ("null", null(thread)),
        ("empty", empty(thread)),
        ("oversized", oversized(thread, 2 * limit)),
        ("unknown framing", unknown_framing(thread)),
        ("no zstd", broken_zstd(thread)),
        ("cut zstd", frames(&[half[..half.len() - 3].to_vec()], DecompressionFailed)),
        ("size below the truth", frames(&[zstd_frame(10, declared(9))], DecompressionFailed)),
        ("size above the truth", frames(&[zstd_frame(10, declared(11))], DecompressionFailed)),
        ("two frames within the limit", frames(&[small.clone(), small.clone()], DecompressionFailed)),
        ("declared bomb", frames(&[zstd_frame(64 * limit, declared(64 * limit))], DecompressedTooLarge)),
        ("undeclared bomb", frames(&[zstd_frame(64 * limit, None)], DecompressedTooLarge)),
        ("bomb with a false size", frames(&[zstd_frame(64 * limit, declared(5))], DecompressedTooLarge)),
        ("bomb of several frames", frames(&[half.clone(), half, small], DecompressedTooLarge)),
        ("garbage", garbage(thread)),
        ("no message", hollow(thread)),
        ("schema version", of_schema_version(thread, 99)),
        ("judge fails", sabotaged(thread)),
    ]
}

/// A well-formed message with `padding` bytes, for a service whose limit is lower.
pub fn oversized(thread: &str, padding: usize) -> Outgoing {
    Outgoing { expect: Expect::Skip(SkipReason::PayloadTooLarge), ..good_of_size(thread, 1, padding) }
}

/// One of each kind that no default setting accepts, except those that are a matter of a size limit.
pub fn one_of_each_bad(thread: &str) -> Vec<Outgoing> {
    vec![
        null(thread),
        empty(thread),
        garbage(thread),
        hollow(thread),
        unknown_framing(thread),
        broken_zstd(thread),
        of_schema_version(thread, 99),
    ]
}

fn plain(message: &DashStreamMessage) -> Vec<u8> {
    let mut value = vec![FRAMING_PLAIN];
    message.encode(&mut value).expect("a Vec grows");
    value
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![FRAMING_ZSTD];
    value.extend(::zstd::bulk::compress(bytes, 3).expect("zstd compresses anything"));
    value
}

fn of_event(event: Event) -> DashStreamMessage {
    DashStreamMessage { message: Some(Message::Event(event)) }
}

fn event(thread: &str, sequence: u64, padding: usize) -> Event {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(padding).collect();
    Event {
        header: Some(header(thread, sequence, MessageType::Event)),
        event_type: EventType::NodeEnd.into(),
        node_id: "research".to_owned(),
        attributes: [("text".to_owned(), AttributeValue { value: Some(Value::StringValue(text)) })].into(),
        duration_us: 1_500,
        llm_request_id: String::new(),
    }
}

fn header(thread: &str, sequence: u64, kind: MessageType) -> Header {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    Header {
        message_id: fastrand::u128(..).to_be_bytes().to_vec(),
        timestamp_us: i64::try_from(now.as_micros()).expect("a clock before the year 292000"),
        tenant_id: "tenant-1".to_owned(),
        thread_id: thread.to_owned(),
        sequence,
        r#type: kind.into(),
        schema_version: 1,
        ..Header::default()
    }
}

/// A record as it lies in Kafka.
#[derive(Debug)]
pub struct Stored {
    pub key: Option<Vec<u8>>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The records of a partition from an offset on, to the end that it has now.
#[track_caller]
pub fn read(topic: &Topic, partition: i32, from: i64) -> Vec<Stored> {
    let (_, end) = topic.watermarks(partition);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &topic.kafka)
        .set("group.id", "-")
        .set("enable.auto.commit", "false")
        .create()
        .expect("valid consumer settings");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, partition, Offset::Offset(from)).expect("a valid offset");
    consumer.assign(&list).expect("the topic can be read");
    let (mut stored, mut position) = (Vec::new(), from);
    while position < end {
        let message = consumer.poll(KAFKA_TIMEOUT).expect("a record in time").expect("a readable record");
        position = message.offset() + 1;
        let headers = message.headers();
        let headers =
            headers.map(|all| all.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect());
        stored.push(Stored {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: headers.unwrap_or_default(),
        });
    }
    stored
}
