//! Changes texts and bytes inside a valid `DashStreamMessage` without building it: what is not changed stays byte for byte.
//!
//! The headers of messages are left alone: they say whose a record is and where it stands in its sequence. What a message
//! says about a state that was changed (its hash, how it is compressed) is left out, which means "not checked" and "not
//! compressed". It must not know what is changed or why.

use super::schema::{
    DEPTH_LIMIT, FIXED32, FIXED64, Field, HEADER, Invalid, LENGTH_DELIMITED, NAMES, ROOT, VARINT, delimited, field_of,
    key, length_delimited, skip, take, varint,
};
use super::varint::put_varint;

/// Where a value lies: field names and map keys from the root on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    outer: Option<&'a Self>,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// The names from the root on.
    pub fn names(&self) -> Vec<&'a str> {
        let mut names = match self.outer {
            Some(outer) => outer.names(),
            None => return Vec::new(),
        };
        names.push(self.name);
        names
    }
}

/// What kind of value is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// UTF-8; must stay that.
    Text,
    /// Any bytes, in most cases JSON.
    Bytes,
    /// One value in MessagePack.
    MessagePack,
    /// A message of a schema that is not known.
    Opaque,
    /// A zstd frame of a content; what replaces it is not compressed.
    Zstd,
    /// A content compressed in a way that is not known; what replaces it is not compressed.
    Compressed,
}

/// Decides what becomes of values.
pub trait Rewriter {
    /// What a value is replaced by; `None` leaves it.
    fn value(&mut self, place: &Place<'_>, leaf: Leaf, value: &[u8]) -> Option<Vec<u8>>;
    /// Whether a number, or a field of the message that the schema does not know, is left out.
    fn leaves_out(&mut self, place: &Place<'_>, unknown: Option<&[u8]>) -> bool;
}

/// The changed message; `None` when nothing was changed.
///
/// # Errors
/// When the bytes are not a message of the schema.
pub fn rewrite(bytes: &[u8], rewriter: &mut dyn Rewriter) -> Result<Option<Vec<u8>>, Invalid> {
    let root = Place { outer: None, name: "" };
    body(bytes, ROOT, &root, rewriter, DEPTH_LIMIT)
}

/// One field on its way through.
enum Fate {
    Keep,
    LeaveOut,
    Replace(Vec<u8>),
}

fn body(
    bytes: &[u8],
    message: u8,
    place: &Place<'_>,
    rewriter: &mut dyn Rewriter,
    depth: u32,
) -> Result<Option<Vec<u8>>, Invalid> {
    let depth = depth.checked_sub(1).ok_or(Invalid)?;
    let context = Context::of(message, bytes)?;
    let mut rest = bytes;
    // What was written so far, once something has changed, and where hashes of the content lie in it.
    let mut out: Option<Vec<u8>> = None;
    let mut hashes: Vec<(usize, usize)> = Vec::new();
    let (mut written, mut content_changed) = (0, false);
    while !rest.is_empty() {
        let before = rest;
        let (number, wire) = key(&mut rest)?;
        let name = name_of(message, number);
        let inner = Place { outer: Some(place), name };
        let (fate, value) = field(message, number, wire, &mut rest, &inner, rewriter, depth, &context)?;
        let raw = before.get(..before.len() - rest.len()).ok_or(Invalid)?;
        let head = raw.get(..raw.len() - value).ok_or(Invalid)?;
        let from = written;
        content_changed |= !matches!(fate, Fate::Keep) && matches!(name, "state" | "full_state" | "operations");
        if !matches!(fate, Fate::Keep) && out.is_none() {
            out = Some(bytes.get(..bytes.len() - before.len()).ok_or(Invalid)?.to_vec());
        }
        match (&mut out, fate) {
            (None, _) => written += raw.len(),
            (Some(_), Fate::LeaveOut) => {}
            (Some(out), Fate::Keep) => {
                out.extend_from_slice(raw);
                written += raw.len();
            }
            (Some(out), Fate::Replace(new)) => {
                out.extend_from_slice(only_key(head)?);
                put_varint(out, new.len() as u64);
                out.extend_from_slice(&new);
                written = out.len();
            }
        }
        if matches!(name, "state_hash" | "checksum" | "compression_info") {
            hashes.push((from, written));
        }
    }
    if let (Some(out), true) = (&mut out, content_changed) {
        for (from, to) in hashes.into_iter().rev() {
            out.drain(from..to);
        }
    }
    Ok(out)
}

/// Looks at one field's value, after its key. Answers what becomes of it, and how many bytes of it are content behind a
/// length, which is 0 for values without one.
#[allow(clippy::too_many_arguments, reason = "one step of a walk: all of it changes from step to step")]
fn field(
    message: u8,
    number: u32,
    wire: u8,
    rest: &mut &[u8],
    place: &Place<'_>,
    rewriter: &mut dyn Rewriter,
    depth: u32,
    context: &Context,
) -> Result<(Fate, usize), Invalid> {
    let keep_or = |new: Option<Vec<u8>>| new.map_or(Fate::Keep, Fate::Replace);
    Ok(match field_of(message, number) {
        Field::String => {
            let text = delimited(wire, rest)?;
            (keep_or(rewriter.value(place, Leaf::Text, text)), text.len())
        }
        Field::Bytes => {
            let content = delimited(wire, rest)?;
            (keep_or(rewriter.value(place, context.leaf(message, number), content)), content.len())
        }
        Field::Message(HEADER) => (Fate::Keep, delimited(wire, rest)?.len()),
        Field::Message(inner) => {
            let content = delimited(wire, rest)?;
            (keep_or(body(content, inner, place, rewriter, depth)?), content.len())
        }
        Field::Map(entry) => {
            let content = length_delimited(rest)?;
            (keep_or(map_entry(content, entry, place, rewriter, depth)?), content.len())
        }
        Field::Unknown => {
            let before = *rest;
            *rest = skip(number, wire, before, depth)?;
            let raw = before.get(..before.len() - rest.len()).ok_or(Invalid)?;
            let fate = if rewriter.leaves_out(place, Some(raw)) { Fate::LeaveOut } else { Fate::Keep };
            (fate, 0)
        }
        _ => {
            number_value(wire, rest)?;
            (if rewriter.leaves_out(place, None) { Fate::LeaveOut } else { Fate::Keep }, 0)
        }
    })
}

/// An entry of a map: its value is looked at under the name of its key.
fn map_entry(
    bytes: &[u8],
    entry: u8,
    place: &Place<'_>,
    rewriter: &mut dyn Rewriter,
    depth: u32,
) -> Result<Option<Vec<u8>>, Invalid> {
    let (mut rest, mut name) = (bytes, &[][..]);
    while !rest.is_empty() {
        match key(&mut rest)? {
            (1, LENGTH_DELIMITED) => name = length_delimited(&mut rest)?,
            (number, wire) => rest = skip(number, wire, rest, depth)?,
        }
    }
    let name = std::str::from_utf8(name).map_err(|_| Invalid)?;
    let named = Place { outer: Some(place), name };
    let mut only_value = OnlyValue { rewriter, named: &named };
    body(bytes, entry, &named, &mut only_value, depth)
}

/// Hands the value of a map entry on as if it stood in the place of the entry, and leaves the key as it is.
struct OnlyValue<'a> {
    rewriter: &'a mut dyn Rewriter,
    named: &'a Place<'a>,
}

impl OnlyValue<'_> {
    /// `named.value.rest` is `named.rest` to the outside.
    fn within<T>(&mut self, place: &Place<'_>, tell: impl FnOnce(&mut dyn Rewriter, &Place<'_>) -> T) -> T {
        let mut below = Vec::new();
        let mut at = *place;
        while let Some(outer) = at.outer {
            if std::ptr::eq(outer, self.named) {
                break;
            }
            below.push(at.name);
            at = *outer;
        }
        rebuild(self.named, &below, |place| tell(self.rewriter, place))
    }
}

/// `place` with names below it, the innermost first.
fn rebuild<T>(place: &Place<'_>, below: &[&str], tell: impl FnOnce(&Place<'_>) -> T) -> T {
    match below.split_last() {
        Some((name, rest)) => rebuild(&Place { outer: Some(place), name }, rest, tell),
        None => tell(place),
    }
}

impl Rewriter for OnlyValue<'_> {
    fn value(&mut self, place: &Place<'_>, leaf: Leaf, value: &[u8]) -> Option<Vec<u8>> {
        let is_key = place.name == "key" && place.outer.is_some_and(|outer| std::ptr::eq(outer, self.named));
        if is_key { None } else { self.within(place, |rewriter, place| rewriter.value(place, leaf, value)) }
    }

    fn leaves_out(&mut self, place: &Place<'_>, unknown: Option<&[u8]>) -> bool {
        self.within(place, |rewriter, place| rewriter.leaves_out(place, unknown))
    }
}

/// What a message says about its own bytes.
#[derive(Debug, Default)]
struct Context {
    /// `CompressionType` of a checkpoint's state.
    compression: u64,
    /// `ValueEncoding` of a patch.
    encoding: u64,
}

impl Context {
    fn of(message: u8, bytes: &[u8]) -> Result<Self, Invalid> {
        let mut context = Self::default();
        let (has_compression, has_encoding) = (has(message, "compression_info"), has(message, "encoding"));
        if !has_compression && !has_encoding {
            return Ok(context);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire) = key(&mut rest)?;
            match (name_of(message, number), wire) {
                ("compression_info", LENGTH_DELIMITED) => {
                    let mut info = length_delimited(&mut rest)?;
                    while !info.is_empty() {
                        match key(&mut info)? {
                            (1, VARINT) => context.compression = varint(&mut info)?,
                            (number, wire) => info = skip(number, wire, info, DEPTH_LIMIT)?,
                        }
                    }
                }
                ("encoding", VARINT) => context.encoding = varint(&mut rest)?,
                (_, wire) => rest = skip(number, wire, rest, DEPTH_LIMIT)?,
            }
        }
        Ok(context)
    }

    /// What the bytes of a field are.
    fn leaf(&self, message: u8, number: u32) -> Leaf {
        match (name_of(message, number), self.compression, self.encoding) {
            ("state", 1, _) => Leaf::Zstd,
            ("state", 2.., _) => Leaf::Compressed,
            ("value", _, 1) if has(message, "encoding") => Leaf::MessagePack,
            ("value", _, 2) if has(message, "encoding") => Leaf::Opaque,
            _ => Leaf::Bytes,
        }
    }
}

fn has(message: u8, name: &str) -> bool {
    NAMES.get(usize::from(message)).is_some_and(|names| names.contains(&name))
}

fn name_of(message: u8, number: u32) -> &'static str {
    let names = NAMES.get(usize::from(message)).copied().unwrap_or(&[]);
    names.get(number as usize).copied().unwrap_or("")
}

/// Passes over a number, packed numbers included.
fn number_value(wire: u8, rest: &mut &[u8]) -> Result<(), Invalid> {
    match wire {
        VARINT => varint(rest).map(drop),
        FIXED32 => take(rest, 4).map(drop),
        FIXED64 => take(rest, 8).map(drop),
        LENGTH_DELIMITED => length_delimited(rest).map(drop),
        _ => Err(Invalid),
    }
}

/// The bytes of the key, which stands before the length of a value.
fn only_key(head: &[u8]) -> Result<&[u8], Invalid> {
    let mut rest = head;
    key(&mut rest)?;
    head.get(..head.len() - rest.len()).ok_or(Invalid)
}

/// Messages that are known, for tests of the tables.
#[cfg(test)]
pub(crate) fn tables_agree() -> bool {
    use super::schema::MESSAGES;
    MESSAGES.len() == NAMES.len() && MESSAGES.iter().zip(NAMES).all(|(fields, names)| fields.len() == names.len())
}
