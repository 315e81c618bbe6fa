//! The judge of the clients: the [`Ledger`] of the library, held against what the tests' own producer published.

use dashstream::torture::truth::has_reached;

pub use dashstream::torture::fields::offset;
pub use dashstream::torture::ledger::{Fingerprint, Ledger, Range, Violation};

use super::producer::Published;

/// What a ledger has to hold of what was published; see [`dashstream::torture::truth::Truth`].
pub trait Judged {
    fn has_reached_the_end_of(&self, published: &Published) -> Result<(), String>;
    fn compare(&self, published: &Published, excused: impl Fn(i32, i64) -> bool) -> Result<(), String>;
}

impl Judged for Ledger {
    fn has_reached_the_end_of(&self, published: &Published) -> Result<(), String> {
        has_reached(&published.ends(), self)
    }

    fn compare(&self, published: &Published, excused: impl Fn(i32, i64) -> bool) -> Result<(), String> {
        published.truth().compare(self, excused)
    }
}
