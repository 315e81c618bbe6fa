//! Bounds that several messages share. It must not know any of them.

/// Partitions that one map or list of a client may name.
pub const MAX_PARTITIONS: usize = 10_000;
