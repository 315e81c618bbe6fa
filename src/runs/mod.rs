//! What the records of a topic say about the runs that published them: for the command line, which shows it to people.
//!
//! Pure: record values in, facts out. It must not know Kafka, a clock, a terminal or a file. The live path does not use it:
//! there records are judged and passed on without being decoded into objects.

pub mod item;

pub mod json;

pub mod line;

pub mod order;

pub mod csv;

pub mod names;

pub mod fact;

pub mod run;

pub mod span;

pub mod tree;

mod trace;

pub mod patch;

pub mod state;

pub mod profile;

pub mod flame;

pub mod flame_svg;

pub mod money;

pub mod tokens;

pub mod costs;

pub mod bill;

pub mod compare;

pub mod threads;

pub mod view;

#[cfg(test)]
mod make;
