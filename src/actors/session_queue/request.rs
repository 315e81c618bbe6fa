//! With what a session begins: what its client asks for, and where that is.

use bytes::Bytes;

use crate::pipeline::threads::ThreadCursor;
use crate::wire::control::From;

/// Where a session begins in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The end of the log as known at the request.
    pub end: i64,
    /// It asked for the oldest that is kept, not for this very offset.
    pub oldest: bool,
}

/// What a client asks for, and is told first.
#[derive(Debug)]
pub struct Request {
    /// The strategy.
    pub from: From,
    /// v1: the threads that it wants.
    pub threads: Option<ThreadCursor>,
    /// Frames that go ahead of the data.
    pub first: Vec<Bytes>,
    /// Where it goes on in partitions that are not known yet.
    pub later: Vec<(i32, i64)>,
}

impl Request {
    /// One that asks for records of all threads.
    pub const fn new(from: From) -> Self {
        Self { from, threads: None, first: Vec::new(), later: Vec::new() }
    }

    /// One of a v1 client that asks for threads.
    pub fn of_threads(threads: ThreadCursor) -> Self {
        // What was taken before it was asked is no loss of the threads; their own numbers tell what is missing.
        Self { threads: Some(threads), ..Self::new(From::Earliest) }
    }
}
