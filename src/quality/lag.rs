//! How far a reader of a partition is behind the end of its log, also before it has read anything.
//!
//! It must not know who looks, or when.

/// What is known about one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The offset after the last record that was handled.
    pub next: Option<i64>,
    /// The group's commit.
    pub committed: Option<i64>,
    /// First offset of the log, and the one after its last.
    pub bounds: (i64, i64),
    /// The end of the log when it was first looked at.
    pub first_end: i64,
}

/// Records that are still to be read. Without a commit a group begins at the first record, or at the end that was there when it
/// came (`from_earliest`). What retention has taken is not waited for.
pub fn behind(look: Look, from_earliest: bool) -> i64 {
    let (low, high) = look.bounds;
    let begins = if from_earliest { low } else { look.first_end };
    let position = look.next.or(look.committed).unwrap_or(begins);
    high.saturating_sub(position.max(low)).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_was_never_read_is_behind_by_what_is_there_to_read() {
        let fresh = Look { bounds: (40, 100), first_end: 90, ..Look::default() };
        assert_eq!((behind(fresh, true), behind(fresh, false)), (60, 10));
        assert_eq!(behind(Look { committed: Some(70), ..fresh }, true), 30);
        assert_eq!(behind(Look { committed: Some(10), ..fresh }, true), 60, "retention has taken what lies before");
    }

    #[test]
    fn what_was_handled_counts_and_never_less_than_nothing_is_left() {
        let read = Look { next: Some(95), committed: Some(50), bounds: (0, 100), first_end: 0 };
        assert_eq!(behind(read, true), 5);
        assert_eq!(behind(Look { next: Some(120), ..read }, true), 0, "the end was looked up before");
        assert_eq!(behind(Look { bounds: (0, 0), next: None, committed: None, first_end: 0 }, true), 0);
    }
}
