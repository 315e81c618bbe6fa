//! Whose a record is: its message type and every tenant and thread that it names, read from its own bytes.
//!
//! A chunk is read once, when the first filter looks at it, whichever tier it came from; a service without filters never
//! pays for it. What is kept is the exact text, in a dictionary of the chunk: names decide who may see a record, and a
//! hash of them might collide. It must not know filters.

use std::collections::BTreeMap;

use crate::wire::framing::{Mode, Unframer};
use crate::wire::schema::{self, EVENT_BATCH_TYPE, Envelope, Events, Header, Unread};

/// Bytes of a label; records that name more are read again by each filter.
const MAX_LABEL: usize = 4 * 1024;
/// Bytes of all labels of a chunk, about as much as the chunk itself; records beyond are read again by each filter.
const MAX_LABELS: usize = 64 * 1024;

/// How records are read: as the judge accepted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whether unframed values are accepted.
    pub legacy_framing: bool,
    /// Largest decompressed payload in bytes.
    pub max_decompressed_bytes: usize,
}

/// A tenant and thread that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Empty when the record says none.
    pub tenant: &'a [u8],
    /// Empty when the record says none.
    pub thread: &'a [u8],
    /// The header of a batch whose events have names of their own: an empty text says nothing then.
    pub of_batch: bool,
}

/// Receives the names of a record.
pub trait Names {
    /// The names so far do not count.
    fn clear(&mut self);
    /// One more.
    fn name(&mut self, name: Name<'_>);
}

/// Reads records one after the other.
#[derive(Debug)]
pub struct RecordReader {
    unframer: Unframer,
}

impl RecordReader {
    /// A reader for records that were accepted under `reading`.
    pub fn new(reading: Reading) -> Self {
        let mode = if reading.legacy_framing { Mode::Legacy } else { Mode::Strict };
        Self { unframer: Unframer::new(mode, reading.max_decompressed_bytes) }
    }

    /// The message type of a record; its names go to `names`, at least one. `None` when it cannot be read.
    ///
    /// Events without a tenant or thread of their own have those of their batch.
    pub fn read(&mut self, value: &[u8], names: &mut impl Names) -> Option<u8> {
        names.clear();
        let message_type = read(self.unframer.content(value).ok()?, names);
        self.unframer.trim();
        message_type
    }
}

fn read(content: &[u8], names: &mut impl Names) -> Option<u8> {
    let Envelope { message_type, header } = schema::read(content, &mut Unread).ok()?;
    let mut of_batch = false;
    if message_type == EVENT_BATCH_TYPE {
        // The header may come after the events, so it is known only now.
        let mut inner = Inner { header, names, seen: false };
        schema::read(content, &mut inner).ok()?;
        of_batch = inner.seen;
    }
    names.name(Name { tenant: header.tenant_id, thread: header.thread_id, of_batch });
    (message_type != 0).then_some(message_type)
}

/// The events of a batch.
struct Inner<'a, N> {
    header: Header<'a>,
    names: &'a mut N,
    seen: bool,
}

impl<N: Names> Events for Inner<'_, N> {
    fn clear(&mut self) {
        self.seen = false;
        self.names.clear();
    }

    fn event(&mut self, header: &Header<'_>) {
        self.seen = true;
        let own = |text: &'_ [u8]| !text.is_empty();
        let tenant = if own(header.tenant_id) { header.tenant_id } else { self.header.tenant_id };
        let thread = if own(header.thread_id) { header.thread_id } else { self.header.thread_id };
        self.names.name(Name { tenant, thread, of_batch: false });
    }
}

/// What one record of a chunk says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The label with this index.
    Label(u32),
    /// It names too much to be kept: read it again.
    Again,
    /// It cannot be read: nobody with a filter gets it.
    Unreadable,
}

/// The tags of a chunk's records, in their order.
#[derive(Debug, Default)]
pub struct Tags {
    /// Distinct labels.
    pub labels: Vec<Label>,
    /// One per record.
    pub of_record: Vec<Tag>,
}

impl Tags {
    /// Reads every record.
    pub fn read<'a>(values: impl Iterator<Item = &'a [u8]>, reading: Reading) -> Self {
        let mut reader = RecordReader::new(reading);
        let (mut tags, mut known, mut bytes) = (Self::default(), BTreeMap::<Box<[u8]>, u32>::new(), 0);
        let mut label = LabelBuilder::default();
        for value in values {
            let tag = match reader.read(value, &mut label) {
                None => Tag::Unreadable,
                Some(_) if label.too_long => Tag::Again,
                Some(message_type) => {
                    label.bytes.push(message_type);
                    match known.get(&*label.bytes) {
                        Some(index) => Tag::Label(*index),
                        None if bytes + label.bytes.len() > MAX_LABELS => Tag::Again,
                        None => {
                            let index = u32::try_from(tags.labels.len()).unwrap_or(u32::MAX);
                            bytes += label.bytes.len();
                            known.insert(label.bytes.clone().into(), index);
                            tags.labels.push(Label(label.bytes.clone().into()));
                            Tag::Label(index)
                        }
                    }
                }
            };
            tags.of_record.push(tag);
        }
        tags
    }
}

/// A message type and the names of all records that are labelled so: per name a flag, both lengths and both texts; the
/// type at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(Box<[u8]>);

impl Label {
    /// Hands the names out; answers the message type.
    pub fn tell(&self, names: &mut impl Names) -> u8 {
        names.clear();
        let (message_type, mut rest) = self.0.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
        while let Some((name, after)) = LabelBuilder::split_name(rest) {
            names.name(name);
            rest = after;
        }
        message_type
    }
}

#[derive(Debug, Default)]
struct LabelBuilder {
    bytes: Vec<u8>,
    too_long: bool,
}

impl LabelBuilder {
    fn split_name(bytes: &[u8]) -> Option<(Name<'_>, &[u8])> {
        let (flag, rest) = bytes.split_first()?;
        let (tenant_len, rest) = rest.split_first_chunk()?;
        let (thread_len, rest) = rest.split_first_chunk()?;
        let (tenant, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*tenant_len)))?;
        let (thread, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*thread_len)))?;
        Some((Name { tenant, thread, of_batch: *flag != 0 }, rest))
    }

    fn holds(&self, name: Name<'_>) -> bool {
        let mut rest = &*self.bytes;
        while let Some((known, after)) = Self::split_name(rest) {
            if known == name {
                return true;
            }
            rest = after;
        }
        false
    }
}

impl Names for LabelBuilder {
    fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
    }

    fn name(&mut self, name: Name<'_>) {
        let len = |text: &[u8]| u16::try_from(text.len()).map(u16::to_le_bytes).ok();
        let (Some(tenant_len), Some(thread_len)) = (len(name.tenant), len(name.thread)) else {
            self.too_long = true;
            return;
        };
        if self.too_long || self.holds(name) {
            return;
        }
        if self.bytes.len() + 5 + name.tenant.len() + name.thread.len() > MAX_LABEL {
            self.too_long = true;
            return;
        }
        self.bytes.push(u8::from(name.of_batch));
        self.bytes.extend_from_slice(&tenant_len);
        self.bytes.extend_from_slice(&thread_len);
        self.bytes.extend_from_slice(name.tenant);
        self.bytes.extend_from_slice(name.thread);
    }
}
