//! Not written yet.

/// Stub.
#[derive(Debug)]
pub struct SessionQueue;
