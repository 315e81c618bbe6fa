//! Blacks out what nobody may see, by place and by pattern, before a record is kept or shown.
//!
//! A rule about a place covers everything below it. What stands in the header of a message (tenant, thread, sequence) is
//! never changed. Contents that are compressed on their own are looked into when they are zstd; others, and those that no
//! pattern can be looked for in, are taken out. It must not know what else happens to records.

use std::borrow::Cow;

use regex::Regex;
use regex::bytes::Regex as BytesRegex;

use crate::wire::framing::{self, Mode, Unframer};
use crate::wire::rewrite::{Leaf, Place, Rewriter, rewrite};
use crate::wire::schema::Invalid;

/// What stands in the place of a text.
const BLACK: &str = "[redacted]";
/// The same as a JSON value.
const BLACK_JSON: &[u8] = b"\"[redacted]\"";
/// The same as a MessagePack value: a text of ten bytes.
const BLACK_PACKED: &[u8] = b"\xaa[redacted]";

/// What is blacked out.
#[derive(Clone, Debug)]
pub struct Rules {
    fields: Vec<Vec<Box<str>>>,
    patterns: Vec<(Regex, BytesRegex)>,
    source: (Vec<String>, Vec<String>),
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Rules {}

impl Rules {
    /// Field paths and regular expressions. `*` in a path is one name, `**` any number of them.
    ///
    /// # Errors
    /// When an expression cannot be read.
    pub fn new(fields: &[String], patterns: &[String]) -> Result<Self, regex::Error> {
        let path = |path: &String| path.split('.').map(Box::from).collect();
        let compiled = patterns.iter().map(|pattern| Ok((Regex::new(pattern)?, BytesRegex::new(pattern)?)));
        Ok(Self {
            fields: fields.iter().map(path).collect(),
            patterns: compiled.collect::<Result<_, regex::Error>>()?,
            source: (fields.to_vec(), patterns.to_vec()),
        })
    }

    /// Whether a rule names this place, or one above it.
    fn covers(&self, place: &Place<'_>) -> bool {
        if self.fields.is_empty() {
            return false;
        }
        let names = place.names();
        self.fields.iter().any(|rule| is_below(rule, &names))
    }

    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.patterns.iter().fold(Cow::Borrowed(text), |text, (pattern, _)| match pattern.replace_all(&text, BLACK) {
            Cow::Borrowed(_) => text,
            Cow::Owned(changed) => Cow::Owned(changed),
        })
    }

    fn bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let start = None::<Vec<u8>>;
        self.patterns.iter().fold(start, |changed, (_, pattern)| {
            let next = match pattern.replace_all(changed.as_deref().unwrap_or(bytes), BLACK.as_bytes()) {
                Cow::Borrowed(_) => None,
                Cow::Owned(next) => Some(next),
            };
            next.or(changed)
        })
    }

    fn is_found_in(&self, bytes: &[u8]) -> bool {
        self.patterns.iter().any(|(_, pattern)| pattern.is_match(bytes))
    }
}

/// Whether `names` begins with what `rule` says.
fn is_below(rule: &[Box<str>], names: &[&str]) -> bool {
    match (rule.split_first(), names.split_first()) {
        (None, _) => true,
        (Some((first, rest)), _) if &**first == "**" => {
            is_below(rest, names) && !rest.is_empty()
                || names.split_first().is_some_and(|(_, names)| rest.is_empty() || is_below(rule, names))
        }
        (Some((first, rest)), Some((name, names))) => (&**first == "*" || &**first == *name) && is_below(rest, names),
        (Some(_), None) => false,
    }
}

/// Why a record could not be redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It is not what the judge has seen.
    #[error("the content cannot be walked: {0}")]
    Content(#[from] Invalid),
    /// What is put in its place is larger than records may be.
    #[error("the redacted content is larger than the limit")]
    TooLarge,
}

/// Applies rules to one record after the other.
#[derive(Debug)]
pub struct Redactor<'a> {
    rules: &'a Rules,
    max_content: usize,
}

impl<'a> Redactor<'a> {
    /// Contents may have `max_content` bytes.
    pub const fn new(rules: &'a Rules, max_content: usize) -> Self {
        Self { rules, max_content }
    }

    /// The record value to use instead, framed as `value` is, whose content is `content`; `None` when nothing was found.
    ///
    /// # Errors
    /// When the record must not be used at all.
    pub fn redact(&mut self, value: &[u8], content: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        match rewrite(content, self)? {
            None => Ok(None),
            Some(changed) if changed.len() > self.max_content => Err(Failed::TooLarge),
            Some(changed) => framing::frame_like(value, &changed).map(Some).ok_or(Failed::TooLarge),
        }
    }

    /// The content of a zstd frame.
    fn inside(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let framed = [&[framing::ZSTD], frame].concat();
        Unframer::new(Mode::Strict, self.max_content).content(&framed).ok().map(<[u8]>::to_vec)
    }
}

impl Rewriter for Redactor<'_> {
    fn value(&mut self, place: &Place<'_>, leaf: Leaf, value: &[u8]) -> Option<Vec<u8>> {
        let rules = self.rules;
        if value.is_empty() {
            return None;
        }
        if rules.covers(place) {
            return Some(match leaf {
                Leaf::Text => BLACK.into(),
                Leaf::Bytes | Leaf::Zstd | Leaf::Compressed => BLACK_JSON.into(),
                Leaf::MessagePack => BLACK_PACKED.into(),
                Leaf::Opaque => Vec::new(),
            });
        }
        if rules.patterns.is_empty() {
            return None;
        }
        match leaf {
            Leaf::Text => match rules.text(std::str::from_utf8(value).ok()?) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed.into_bytes()),
            },
            Leaf::Bytes => rules.bytes(value),
            Leaf::MessagePack => rules.is_found_in(value).then(|| BLACK_PACKED.into()),
            Leaf::Opaque => rules.is_found_in(value).then(Vec::new),
            Leaf::Zstd => match self.inside(value) {
                Some(content) => rules.bytes(&content),
                None => Some(BLACK_JSON.into()),
            },
            Leaf::Compressed => Some(BLACK_JSON.into()),
        }
    }

    fn leaves_out(&mut self, place: &Place<'_>, unknown: Option<&[u8]>) -> bool {
        self.rules.covers(place) || unknown.is_some_and(|raw| self.rules.is_found_in(raw))
    }
}

#[cfg(test)]
mod tests;
