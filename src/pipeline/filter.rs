//! Who may see what, and wants to: decides record by record whether a session gets it.
//!
//! Two rules at once. What a client *may* see (its grant) holds for every tenant and thread that a record names: a batch
//! that names a stranger is withheld as a whole. What it *wants* holds when one name fits. It must not know sessions or
//! tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::tags::{Name, Names, Reading, RecordReader, Tag};
use super::window::Chunk;
use crate::wire::filter::{FilterRequest, TypeSet};

type Texts = Option<BTreeSet<Box<[u8]>>>;

/// What a client may see; `None` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Records of these tenants only.
    pub tenants: Texts,
    /// Records of these threads only.
    pub threads: Texts,
    /// These partitions only: of the others the client does not even learn where they end.
    pub partitions: Option<BTreeSet<i32>>,
}

impl Grant {
    /// Everything.
    pub const ALL: Self = Self { tenants: None, threads: None, partitions: None };

    /// Whether there is anything that the client must not see.
    pub const fn is_restricted(&self) -> bool {
        self.tenants.is_some() || self.threads.is_some() || self.partitions.is_some()
    }

    /// Whether the client may know of a partition.
    pub fn shows(&self, partition: i32) -> bool {
        self.partitions.as_ref().is_none_or(|partitions| partitions.contains(&partition))
    }
}

/// A set of texts for a [`Grant`].
pub fn texts<'a>(list: impl IntoIterator<Item = &'a str>) -> BTreeSet<Box<[u8]>> {
    list.into_iter().map(|text| text.as_bytes().into()).collect()
}

/// What one session gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    reading: Reading,
    grant: Grant,
    tenants: Texts,
    threads: Texts,
    types: Option<TypeSet>,
    partitions: Option<BTreeSet<i32>>,
    request: Option<FilterRequest>,
}

impl Filter {
    /// The filter of a client that may see `grant` and wants `request`; `None` when it gets everything.
    pub fn new(request: Option<&FilterRequest>, grant: &Grant, reading: Reading) -> Option<Arc<Self>> {
        let wants_all = request.is_none_or(|request| *request == FilterRequest::default());
        if wants_all && !grant.is_restricted() {
            return None;
        }
        let request = request.cloned().unwrap_or_default();
        let set = |list: &Option<Vec<String>>| list.as_ref().map(|list| texts(list.iter().map(String::as_str)));
        Some(Arc::new(Self {
            reading,
            grant: grant.clone(),
            tenants: set(&request.tenants),
            threads: set(&request.threads),
            types: request.types,
            partitions: request.partitions.as_ref().map(|list| list.iter().copied().collect()),
            request: (!wants_all).then_some(request),
        }))
    }

    /// Whether the session must not learn of other clients' records.
    pub const fn is_restricted(&self) -> bool {
        self.grant.is_restricted()
    }

    /// What the client asked for, if anything.
    pub const fn request(&self) -> Option<&FilterRequest> {
        self.request.as_ref()
    }

    /// What the client may see.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Which records of a chunk the session gets, in their order. `None`: none of them.
    pub fn select(&self, chunk: &Chunk) -> Option<Vec<bool>> {
        let wanted = self.partitions.as_ref().is_none_or(|partitions| partitions.contains(&chunk.partition));
        if !wanted || !self.grant.shows(chunk.partition) {
            return None;
        }
        let tags = chunk.tags(self.reading);
        let mut decision = Decision::about(self);
        let labels: Vec<bool> = tags.labels.iter().map(|label| decision.of(|names| Some(label.tell(names)))).collect();
        let mut reader = None;
        let mut passes = |(tag, value): (&Tag, &[u8])| match tag {
            Tag::Label(index) => labels.get(*index as usize).copied().unwrap_or(false),
            Tag::Again => {
                let reader = reader.get_or_insert_with(|| RecordReader::new(self.reading));
                decision.of(|names| reader.read(value, names))
            }
            Tag::Unreadable => false,
        };
        let passing: Vec<bool> = tags.of_record.iter().zip(chunk.values()).map(&mut passes).collect();
        passing.contains(&true).then_some(passing)
    }
}

/// Looks at the names of one record.
struct Decision<'a> {
    filter: &'a Filter,
    wanted: bool,
    allowed: bool,
}

impl<'a> Decision<'a> {
    const fn about(filter: &'a Filter) -> Self {
        Self { filter, wanted: false, allowed: true }
    }

    /// Whether the record passes whose names and type `tell` gives.
    fn of(&mut self, tell: impl FnOnce(&mut Self) -> Option<u8>) -> bool {
        let Some(message_type) = tell(self) else { return false };
        self.wanted && self.allowed && self.filter.types.is_none_or(|types| types.contains(message_type))
    }
}

impl Names for Decision<'_> {
    fn clear(&mut self) {
        (self.wanted, self.allowed) = (false, true);
    }

    fn name(&mut self, name: Name<'_>) {
        let Filter { grant, tenants, threads, .. } = self.filter;
        let within = |set: &Texts, text: &[u8]| set.as_ref().is_none_or(|set| set.contains(text));
        let may = |set: &Texts, text: &[u8]| within(set, text) || name.of_batch && text.is_empty();
        self.wanted |= within(tenants, name.tenant) && within(threads, name.thread);
        self.allowed &= may(&grant.tenants, name.tenant) && may(&grant.threads, name.thread);
    }
}

#[cfg(test)]
mod tests;
