//! A record taken apart: its messages, each with where it lies, the events of a batch one by one.
//!
//! It must not know what messages mean together.

use prost::Message as _;

use crate::pipeline::decode::{JudgeSettings, Kind, Verdict};
use crate::pipeline::safe_judge::SafeJudge;
use crate::pipeline::sequence::SequenceItem;
use crate::wire::framing::{Mode, Unframer};
use crate::wire::telemetry::dash_stream_message::Message;
use crate::wire::telemetry::{
    Checkpoint, DashStreamMessage, Error, Event, ExecutionTrace, Header, Metrics, StateDiff, TokenChunk, ToolExecution,
};

/// Where a message lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Its number in the record's batch; 0 where there is none.
    pub index: usize,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it lies.
    pub place: Place,
    /// When Kafka has it from, in Unix milliseconds, as far as it says so.
    pub record_time_ms: Option<i64>,
    /// The message's header. An event of a batch that lacks its own, or one of its fields, has the batch's.
    pub header: Header,
    /// The rest.
    pub body: Body,
}

/// What a message is about; its header is left out, see [`Item::header`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "named as the messages of the contract are")]
pub enum Body {
    Event(Event),
    StateDiff(StateDiff),
    TokenChunk(TokenChunk),
    ToolExecution(ToolExecution),
    Checkpoint(Checkpoint),
    Metrics(Metrics),
    Error(Error),
    ExecutionTrace(ExecutionTrace),
}

impl Item {
    /// How many bytes it has on the wire, about: for whoever has to bound what is kept.
    pub fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Event(event) => event.encoded_len(),
            Body::StateDiff(diff) => diff.encoded_len(),
            Body::TokenChunk(chunk) => chunk.encoded_len(),
            Body::ToolExecution(tool) => tool.encoded_len(),
            Body::Checkpoint(checkpoint) => checkpoint.encoded_len(),
            Body::Metrics(metrics) => metrics.encoded_len(),
            Body::Error(error) => error.encoded_len(),
            Body::ExecutionTrace(trace) => trace.encoded_len(),
        };
        self.header.encoded_len().saturating_add(body)
    }
}

/// Why there is nothing to show of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.as_str())]
pub struct Unreadable(pub Kind);

/// Takes records apart, one after the other, as the service judges them: what it sets aside is not shown, and what it blacks
/// out is black here, too.
#[derive(Debug)]
pub struct Opener {
    judge: SafeJudge,
    unframer: Unframer,
    /// Asked for by the judge only.
    numbers: Vec<SequenceItem>,
}

impl Opener {
    /// By the settings of the service.
    pub fn new(settings: JudgeSettings) -> Self {
        let mode = if settings.legacy_framing { Mode::Legacy } else { Mode::Strict };
        let unframer = Unframer::new(mode, settings.max_decompressed_bytes);
        // What the hashes are for, the sequence check, does not happen here.
        Self { judge: SafeJudge::new(settings, 0), unframer, numbers: Vec::new() }
    }

    /// Appends the messages of a record's value to `items`.
    ///
    /// # Errors
    /// What the service would set the record aside for; nothing is appended then.
    pub fn open(
        &mut self,
        (partition, offset): (i32, i64),
        record_time_ms: Option<i64>,
        value: Option<&[u8]>,
        items: &mut Vec<Item>,
    ) -> Result<(), Unreadable> {
        let message = self.message(value)?;
        let place = Place { partition, offset, index: 0 };
        let mut push = |index: usize, header: Option<Header>, body: Body| {
            let header = header.unwrap_or_default();
            items.push(Item { place: Place { index, ..place }, record_time_ms, header, body });
        };
        match message {
            Message::Event(mut event) => push(0, event.header.take(), Body::Event(event)),
            Message::EventBatch(batch) => {
                let outer = batch.header.unwrap_or_default();
                for (index, mut event) in batch.events.into_iter().enumerate() {
                    push(index, Some(inherited(event.header.take(), &outer)), Body::Event(event));
                }
            }
            Message::StateDiff(mut diff) => push(0, diff.header.take(), Body::StateDiff(diff)),
            Message::TokenChunk(mut chunk) => push(0, chunk.header.take(), Body::TokenChunk(chunk)),
            Message::ToolExecution(mut tool) => push(0, tool.header.take(), Body::ToolExecution(tool)),
            Message::Checkpoint(mut checkpoint) => push(0, checkpoint.header.take(), Body::Checkpoint(checkpoint)),
            Message::Metrics(mut metrics) => push(0, metrics.header.take(), Body::Metrics(metrics)),
            Message::Error(mut error) => push(0, error.header.take(), Body::Error(error)),
            Message::ExecutionTrace(mut trace) => push(0, trace.header.take(), Body::ExecutionTrace(trace)),
        }
        Ok(())
    }

    fn message(&mut self, value: Option<&[u8]>) -> Result<Message, Unreadable> {
        self.numbers.clear();
        if let Verdict::Unprocessable(kind) = self.judge.judge(value, &mut self.numbers) {
            return Err(Unreadable(kind));
        }
        let redacted = self.judge.take_redacted();
        let value = redacted.as_deref().or(value).unwrap_or_default();
        let content = self.unframer.content(value).map_err(|_| Unreadable(Kind::DecompressionFailed))?;
        let message = DashStreamMessage::decode(content).ok().and_then(|message| message.message);
        self.unframer.trim();
        // Deeper nested than can be decoded: the judge only walks over it.
        message.ok_or(Unreadable(Kind::InvalidProtobuf))
    }
}

/// The header of an event in a batch: its own, where it says something.
fn inherited(own: Option<Header>, outer: &Header) -> Header {
    let Some(own) = own else {
        // The batch's number and id are not the event's.
        return Header { message_id: Vec::new(), sequence: 0, ..outer.clone() };
    };
    let or = |own: String, outer: &str| if own.is_empty() { outer.to_owned() } else { own };
    Header {
        timestamp_us: if own.timestamp_us == 0 { outer.timestamp_us } else { own.timestamp_us },
        tenant_id: or(own.tenant_id, &outer.tenant_id),
        thread_id: or(own.thread_id, &outer.thread_id),
        ..own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telemetry::EventBatch;

    fn value(message: Message) -> Vec<u8> {
        [vec![0], DashStreamMessage { message: Some(message) }.encode_to_vec()].concat()
    }

    fn open(value: Option<&[u8]>) -> Result<Vec<Item>, Unreadable> {
        let mut items = Vec::new();
        Opener::new(JudgeSettings::default()).open((3, 17), Some(5), value, &mut items)?;
        Ok(items)
    }

    #[test]
    fn the_events_of_a_batch_are_items_of_their_own_with_their_own_times() {
        let outer =
            Header { message_id: vec![1], timestamp_us: 900, thread_id: "t".into(), sequence: 9, ..Header::default() };
        let own = Header { timestamp_us: 5, sequence: 2, ..Header::default() };
        let events = [Some(own), None].map(|header| Event { header, node_id: "n".into(), ..Event::default() });
        let batch = Message::EventBatch(EventBatch { header: Some(outer), events: events.to_vec() });
        let items = open(Some(&value(batch))).unwrap();
        let seen: Vec<_> = items
            .iter()
            .map(|item| {
                (item.place.index, item.header.timestamp_us, item.header.sequence, item.header.thread_id.as_str())
            })
            .collect();
        assert_eq!(seen, vec![(0, 5, 2, "t"), (1, 900, 0, "t")]);
        assert!(items.iter().all(|item| (item.place.partition, item.place.offset) == (3, 17)));
        assert!(matches!(&items[0].body, Body::Event(event) if event.node_id == "n" && event.header.is_none()));
    }

    #[test]
    fn what_the_service_sets_aside_is_not_opened() {
        let empty = DashStreamMessage { message: None }.encode_to_vec();
        for (bad, kind) in [
            (None, Kind::PayloadMissing),
            (Some(&[][..]), Kind::PayloadMissing),
            (Some(&[0][..]), Kind::InvalidProtobuf),
            (Some(&[7, 7][..]), Kind::UnknownFraming),
            (Some(&[1, 1][..]), Kind::DecompressionFailed),
            (Some(&[&[0], &empty[..]].concat()[..]), Kind::InvalidProtobuf),
        ] {
            assert_eq!(open(bad), Err(Unreadable(kind)), "{bad:?}");
        }
    }
}
