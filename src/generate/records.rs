//! Records as they are sent, from any source: runs of agents, with or without defects, or a flat load.

use std::collections::VecDeque;

use super::defects::{Defects, Record, Spoiler};
use super::encode::Encoder;
use super::flat::{Flat, FlatSettings};
use super::{Generator, GeneratorSettings};

/// Where records come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Runs of agents.
    Runs {
        /// What runs.
        generator: GeneratorSettings,
        /// What is wrong with them.
        defects: Defects,
    },
    /// Records of one size.
    Flat(FlatSettings),
}

/// An endless stream of records.
#[derive(Debug)]
pub struct Records {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Runs { generator: Box<Generator>, encoder: Encoder, spoiler: Spoiler, ready: VecDeque<Record> },
    Flat(Box<Flat>),
}

impl Records {
    /// The stream of a source.
    ///
    /// # Errors
    /// When zstd cannot allocate its context.
    pub fn new(source: &Source) -> std::io::Result<Self> {
        let kind = match source {
            Source::Runs { generator, defects } => Kind::Runs {
                spoiler: Spoiler::new(defects.clone(), generator.seed),
                generator: Box::new(Generator::new(generator.clone())),
                encoder: Encoder::new()?,
                ready: VecDeque::new(),
            },
            Source::Flat(settings) => Kind::Flat(Box::new(Flat::new(settings.clone())?)),
        };
        Ok(Self { kind })
    }

    /// When the next record is due, in microseconds of the source's own time; a flat load is always due.
    pub fn next_at_us(&self) -> u64 {
        match &self.kind {
            Kind::Runs { generator, .. } => generator.next_at_us(),
            Kind::Flat(_) => 0,
        }
    }

    /// The next record, sent at `timestamp_us` (Unix). `None` never comes: every source is endless.
    pub fn next_record(&mut self, timestamp_us: i64) -> Option<Record> {
        match &mut self.kind {
            Kind::Flat(flat) => flat.next_record(timestamp_us),
            Kind::Runs { generator, encoder, spoiler, ready } => loop {
                if let Some(record) = ready.pop_front() {
                    return Some(record);
                }
                let mut generated = generator.next_message(timestamp_us)?;
                let value = Some(encoder.encode(&mut generated.message));
                spoiler.pass(Record { key: generated.thread, value }, ready);
            },
        }
    }
}
