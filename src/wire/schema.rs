//! Validates a `DashStreamMessage` on the wire, and reads from it what the pipeline needs, without allocating.
//!
//! Accepts exactly what the generated prost types accept, at a fraction of the cost: nothing is built. The tables come
//! from the `.proto` file at build time. It must not know framing, policy or Kafka.
//!
//! For speed the position in the bytes has to stay in registers: what moves it is inlined always, and what is not inlined
//! takes and returns the rest of the bytes instead of changing it in place. That is a third of the time.

/// What a field may look like on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// A number without a field: skipped.
    Unknown,
    Varint,
    Fixed32,
    Fixed64,
    /// Text: must be UTF-8.
    String,
    Bytes,
    /// A message, by its index in `MESSAGES`; repeated or not.
    Message(u8),
    /// An entry of a map. prost reads it as length-delimited whatever the key says.
    Map(u8),
    /// Packed or not.
    RepeatedVarint,
    RepeatedFixed32,
    #[allow(dead_code, reason = "part of the wire format, though no message uses it today")]
    RepeatedFixed64,
}

include!(concat!(env!("OUT_DIR"), "/wire_schema.rs"));

/// Nesting that is accepted, as in prost.
pub(super) const DEPTH_LIMIT: u32 = 100;

/// The field of every root message that holds its header.
const HEADER_FIELD: u32 = 1;
/// The field of an event batch that holds its events.
const BATCH_EVENTS_FIELD: u32 = 2;
/// [`Envelope::message_type`] of an event batch.
pub const EVENT_BATCH_TYPE: u8 = 8;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LENGTH_DELIMITED: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// The bytes are not a message of this schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid DashStreamMessage")]
pub struct Invalid;

/// The fields of a `Header` that the pipeline looks at. Absent ones have protobuf's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// UTF-8 text.
    pub tenant_id: &'a [u8],
    /// UTF-8 text.
    pub thread_id: &'a [u8],
    /// Counts from 1 per thread, 0 when not numbered.
    pub sequence: u64,
    /// Producer's time in Unix microseconds.
    pub timestamp_us: i64,
    /// 0 counts as 1.
    pub schema_version: u32,
}

/// What was read from a valid message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The field number of the message that is set in the root's oneof, 0 when none is.
    pub message_type: u8,
    /// That message's header.
    pub header: Header<'a>,
}

/// Receives the inner events of an event batch while the message is read.
pub trait Events {
    /// Another message of the oneof follows: the events so far do not count.
    fn clear(&mut self);
    /// The next event of the batch.
    fn event(&mut self, header: &Header<'_>);
}

/// For callers that do not look at inner events.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Events for Unread {
    fn clear(&mut self) {}
    fn event(&mut self, _: &Header<'_>) {}
}

/// Reads a message. When it turns out to be invalid, `events` may have received some events already.
///
/// # Errors
/// When prost would not decode the bytes as a `DashStreamMessage`.
pub fn read<'a>(mut bytes: &'a [u8], events: &mut impl Events) -> Result<Envelope<'a>, Invalid> {
    let mut envelope = Envelope::default();
    while !bytes.is_empty() {
        let (number, wire) = key(&mut bytes)?;
        let Field::Message(message) = field_of(ROOT, number) else {
            bytes = skip(number, wire, bytes, DEPTH_LIMIT)?;
            continue;
        };
        let content = delimited(wire, &mut bytes)?;
        // The last one set wins; the same one again is merged.
        if u32::from(envelope.message_type) != number {
            events.clear();
            envelope = Envelope { message_type: u8::try_from(number).map_err(|_| Invalid)?, header: Header::default() };
        }
        body(content, message, DEPTH_LIMIT - 1, &mut envelope.header, Some(events))?;
    }
    Ok(envelope)
}

/// A message that carries a header in its first field.
fn body<'a>(
    mut bytes: &'a [u8],
    message: u8,
    depth: u32,
    header: &mut Header<'a>,
    mut events: Option<&mut impl Events>,
) -> Result<(), Invalid> {
    while !bytes.is_empty() {
        let (number, wire) = key(&mut bytes)?;
        if number == HEADER_FIELD {
            read_header(delimited(wire, &mut bytes)?, depth - 1, header)?;
        } else if let (EVENT_BATCH, BATCH_EVENTS_FIELD, Some(events)) = (message, number, events.as_deref_mut()) {
            let mut inner = Header::default();
            body(delimited(wire, &mut bytes)?, EVENT, depth - 1, &mut inner, None::<&mut Unread>)?;
            events.event(&inner);
        } else {
            value(field_of(message, number), number, wire, &mut bytes, depth)?;
        }
    }
    Ok(())
}

/// Merges a header into what is known: a field that comes again replaces the earlier one.
fn read_header<'a>(mut bytes: &'a [u8], depth: u32, header: &mut Header<'a>) -> Result<(), Invalid> {
    while !bytes.is_empty() {
        let (number, wire) = key(&mut bytes)?;
        match (number, wire) {
            (2, VARINT) => header.timestamp_us = varint(&mut bytes)?.cast_signed(),
            (3, LENGTH_DELIMITED) => header.tenant_id = text(&mut bytes)?,
            (4, LENGTH_DELIMITED) => header.thread_id = text(&mut bytes)?,
            (5, VARINT) => header.sequence = varint(&mut bytes)?,
            #[allow(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits")]
            (9, VARINT) => header.schema_version = varint(&mut bytes)? as u32,
            _ => value(field_of(HEADER, number), number, wire, &mut bytes, depth)?,
        }
    }
    Ok(())
}

/// Validates a message that nothing is read from.
fn check(mut bytes: &[u8], message: u8, depth: u32) -> Result<(), Invalid> {
    while !bytes.is_empty() {
        let (number, wire) = key(&mut bytes)?;
        value(field_of(message, number), number, wire, &mut bytes, depth)?;
    }
    Ok(())
}

/// Validates one field's value, after its key.
#[inline(always)]
fn value(field: Field, number: u32, wire: u8, bytes: &mut &[u8], depth: u32) -> Result<(), Invalid> {
    match (field, wire) {
        (Field::String, LENGTH_DELIMITED) => text(bytes).map(drop),
        (Field::Varint | Field::RepeatedVarint, VARINT) => varint(bytes).map(drop),
        (Field::Bytes, LENGTH_DELIMITED) => length_delimited(bytes).map(drop),
        (Field::Message(inner), LENGTH_DELIMITED) | (Field::Map(inner), _) => {
            let content = length_delimited(bytes)?;
            check(content, inner, depth.checked_sub(1).ok_or(Invalid)?)
        }
        (Field::Fixed32 | Field::RepeatedFixed32, FIXED32) => take(bytes, 4).map(drop),
        (Field::Fixed64 | Field::RepeatedFixed64, FIXED64) => take(bytes, 8).map(drop),
        (Field::RepeatedVarint, LENGTH_DELIMITED) => {
            let mut packed = length_delimited(bytes)?;
            while !packed.is_empty() {
                varint(&mut packed)?;
            }
            Ok(())
        }
        (Field::RepeatedFixed32, LENGTH_DELIMITED) => multiple_of(4, length_delimited(bytes)?),
        (Field::RepeatedFixed64, LENGTH_DELIMITED) => multiple_of(8, length_delimited(bytes)?),
        (Field::Unknown, _) => {
            *bytes = skip(number, wire, bytes, depth)?;
            Ok(())
        }
        _ => Err(Invalid),
    }
}

/// Skips the value of an unknown field; a group ends with its own number.
#[cold]
pub(super) fn skip(number: u32, wire: u8, mut bytes: &[u8], depth: u32) -> Result<&[u8], Invalid> {
    let inner_depth = depth.checked_sub(1).ok_or(Invalid)?;
    match wire {
        VARINT => varint(&mut bytes).map(drop)?,
        FIXED64 => take(&mut bytes, 8).map(drop)?,
        LENGTH_DELIMITED => length_delimited(&mut bytes).map(drop)?,
        START_GROUP => loop {
            let (inner, wire) = key(&mut bytes)?;
            if wire == END_GROUP {
                return if inner == number { Ok(bytes) } else { Err(Invalid) };
            }
            bytes = skip(inner, wire, bytes, inner_depth)?;
        },
        FIXED32 => take(&mut bytes, 4).map(drop)?,
        _ => return Err(Invalid),
    }
    Ok(bytes)
}

#[inline(always)]
pub(super) fn field_of(message: u8, number: u32) -> Field {
    let table = MESSAGES.get(usize::from(message)).copied().unwrap_or(&[]);
    table.get(number as usize).copied().unwrap_or(Field::Unknown)
}

/// A field key: number (1 to 2^29 - 1) and wire type.
#[inline(always)]
pub(super) fn key(bytes: &mut &[u8]) -> Result<(u32, u8), Invalid> {
    let key = u32::try_from(varint(bytes)?).map_err(|_| Invalid)?;
    let (number, wire) = (key >> 3, (key & 7) as u8);
    if number == 0 || wire > FIXED32 { Err(Invalid) } else { Ok((number, wire)) }
}

/// A 64-bit varint of at most 10 bytes, the last of which may carry one bit.
#[inline(always)]
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Invalid> {
    match **bytes {
        [byte, ref rest @ ..] if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => {
            let (value, rest) = long_varint(bytes)?;
            *bytes = rest;
            Ok(value)
        }
    }
}

fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), Invalid> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (index * 7);
        if *byte < 0x80 {
            if index == 9 && *byte > 1 {
                return Err(Invalid);
            }
            return Ok((value, bytes.get(index + 1..).unwrap_or(&[])));
        }
    }
    Err(Invalid)
}

#[inline(always)]
pub(super) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Invalid> {
    let (head, tail) = bytes.split_at_checked(len).ok_or(Invalid)?;
    *bytes = tail;
    Ok(head)
}

#[inline(always)]
pub(super) fn length_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    let len = usize::try_from(varint(bytes)?).map_err(|_| Invalid)?;
    take(bytes, len)
}

#[inline(always)]
pub(super) fn delimited<'a>(wire: u8, bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    if wire == LENGTH_DELIMITED { length_delimited(bytes) } else { Err(Invalid) }
}

#[inline(always)]
fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    let text = length_delimited(bytes)?;
    if text.is_ascii() || std::str::from_utf8(text).is_ok() { Ok(text) } else { Err(Invalid) }
}

fn multiple_of(width: usize, bytes: &[u8]) -> Result<(), Invalid> {
    if bytes.len().is_multiple_of(width) { Ok(()) } else { Err(Invalid) }
}
