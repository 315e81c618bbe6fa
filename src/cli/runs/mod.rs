//! Commands that read the topic and show it to people: what they share.
//!
//! [`place`] says where the records are and which are meant, [`source`] reads them. None of these commands joins a group or
//! commits, so none of them disturbs a service.

pub(super) mod costs;

pub(super) mod diff;

pub(super) mod export;

pub(super) mod flamegraph;

mod gather;

pub(super) mod inspect;

pub(super) mod place;

pub(super) mod profile;

pub(super) mod replay;

pub(super) mod source;

pub(super) mod tail;

mod target;

mod text;

mod types;

pub(super) mod watch;

mod watch_screen;

mod watch_text;

use std::io::{ErrorKind, Write};

pub(super) use super::{Exit, UsageError, seam, show};

/// Tells the person at the terminal something that is no result.
pub(in crate::cli) fn note(text: &str) {
    // Where standard error is closed nobody listens.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a line of the result at once. False: nobody reads it any more (`| head`), so nothing more is to be found out.
fn print_line(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
