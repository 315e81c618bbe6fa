//! Commands that read the topic and show it to people: what they share.
//!
//! [`place`] says where the records are and which are meant, [`source`] reads them. None of these commands joins a group or
//! commits, so none of them disturbs a service.

pub(in crate::cli) mod place;

pub(in crate::cli) mod source;

pub(super) use super::{Exit, print, seam, show};

/// Tells the person at the terminal something that is no result.
pub(in crate::cli) fn note(text: &str) {
    use std::io::Write as _;
    // Where standard error is closed nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}
