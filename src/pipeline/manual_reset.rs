//! A reset by hand: from some offsets on the stream begins anew, for every client of every instance. What lies below is
//! hidden, not deleted: the log and its offsets stay the same.
//!
//! It must not know where resets are kept.

use std::collections::BTreeMap;

use super::epoch::{Committed, Place, place, same_log};
use crate::wire::control::CursorEpoch;

/// The newest reset of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualReset {
    /// Later ones have larger ids.
    pub id: String,
    /// Partition and first offset that clients may see. Partitions that are newer than the reset have none.
    pub floors: BTreeMap<i32, i64>,
}

/// How the epoch that a client names relates to the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedEpoch {
    /// The same.
    Current,
    /// The same log, before its newest reset.
    BeforeReset,
    /// The same log, after a reset that is not known here yet.
    AfterReset,
    /// Another log.
    Other,
}

impl ManualReset {
    /// An id for a reset at this time.
    pub fn new_id(unix_ms: u64, random: u16) -> String {
        format!("{unix_ms:012x}{random:04x}")
    }

    /// What is kept with the first offset of each partition.
    pub fn metadata(id: &str, log: &str) -> String {
        format!("{id} {log}")
    }

    /// The newest reset of a log that has `ends`, from what was kept. Offsets beyond the end of the log are of another one
    /// under the same name.
    pub fn newest(log: &str, kept: &[(i32, Option<Committed>)], ends: &[(i32, i64)]) -> Option<Self> {
        let mut newest = Self { id: String::new(), floors: BTreeMap::new() };
        for (partition, kept) in kept {
            let Some(kept) = kept else { continue };
            let Some((id, of)) = kept.metadata.split_once(' ') else { continue };
            let end = ends.iter().find(|(known, _)| known == partition).map_or(i64::MAX, |(_, end)| *end);
            if same_log(of, log) && !of.is_empty() && place(kept.offset, 0, end) == Place::Within {
                newest.floors.insert(*partition, kept.offset);
                if *id > *newest.id {
                    id.clone_into(&mut newest.id);
                }
            }
        }
        (!newest.id.is_empty()).then_some(newest)
    }

    /// The first offset of a partition that clients may see.
    pub fn floor(&self, partition: i32) -> i64 {
        self.floors.get(&partition).copied().unwrap_or(0)
    }
}

/// What clients know an epoch by: the name of the log, and the newest reset.
pub fn stream_name(log: &str, reset: Option<&ManualReset>) -> String {
    reset.map_or_else(|| log.to_owned(), |reset| format!("{log}@{}", reset.id))
}

/// Compares the epoch that a client names.
pub fn compare(named: &CursorEpoch, log: &str, reset: Option<&ManualReset>) -> NamedEpoch {
    if named.is(&stream_name(log, reset)) {
        return NamedEpoch::Current;
    }
    let named_id = match named {
        CursorEpoch::Name(name) => match name.strip_prefix(log) {
            Some("") => "",
            Some(rest) => match rest.strip_prefix('@') {
                Some(id) => id,
                None => return NamedEpoch::Other,
            },
            None => return NamedEpoch::Other,
        },
        // Of a tag nothing can be read but whether it is this very one.
        CursorEpoch::Tag(_) if named.is(log) => "",
        CursorEpoch::Tag(_) => return NamedEpoch::Other,
    };
    let known = reset.map_or("", |reset| reset.id.as_str());
    if named_id < known { NamedEpoch::BeforeReset } else { NamedEpoch::AfterReset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cursor::epoch_tag;

    const LOG: &str = "c/t/id";

    fn kept(partition: i32, offset: i64, metadata: &str) -> (i32, Option<Committed>) {
        (partition, Some(Committed { offset, metadata: metadata.to_owned() }))
    }

    #[test]
    fn the_newest_reset_names_the_stream_and_every_floor_holds() {
        let kept = [kept(0, 5, "02 c/t/id"), kept(1, 7, "01 c/t/id"), (2, None), kept(3, 0, "02 c/t/id")];
        let reset = ManualReset::newest(LOG, &kept, &[(0, 9), (1, 9), (2, 9), (3, 0)]).unwrap();
        assert_eq!((reset.id.as_str(), reset.floor(0), reset.floor(1), reset.floor(2)), ("02", 5, 7, 0));
        assert_eq!(stream_name(LOG, Some(&reset)), "c/t/id@02");
        assert_eq!(stream_name(LOG, None), LOG);
    }

    #[test]
    fn resets_of_other_logs_do_not_count() {
        for (offset, metadata) in [(5, "02 c/t/other"), (5, ""), (5, "note"), (5, "02 "), (10, "02 c/t/id")] {
            assert_eq!(ManualReset::newest(LOG, &[kept(0, offset, metadata)], &[(0, 9)]), None, "{offset} {metadata}");
        }
        assert!(ManualReset::newest(LOG, &[kept(0, 9, "02 c/t/id")], &[(0, 9)]).is_some(), "at the end");
    }

    #[test]
    fn ids_rise_with_time() {
        let mut ids: Vec<String> = [0, 1, 15, 16, 1 << 40].map(|ms| ManualReset::new_id(ms, 7)).to_vec();
        let sorted = ids.clone();
        ids.sort();
        assert_eq!(ids, sorted);
    }

    #[test]
    fn a_named_epoch_is_compared_by_log_and_reset() {
        use NamedEpoch::{AfterReset, BeforeReset, Current, Other};
        let reset = ManualReset { id: "05".into(), floors: BTreeMap::new() };
        for (named, without, with) in [
            (LOG, Current, BeforeReset),
            ("c/t/id@04", AfterReset, BeforeReset),
            ("c/t/id@05", AfterReset, Current),
            ("c/t/id@06", AfterReset, AfterReset),
            ("c/t/idx", Other, Other),
            ("c/t/other", Other, Other),
            ("", Other, Other),
        ] {
            let name = CursorEpoch::Name(named.to_owned());
            assert_eq!((compare(&name, LOG, None), compare(&name, LOG, Some(&reset))), (without, with), "{named}");
        }
        let tag = |name| CursorEpoch::Tag(epoch_tag(name));
        assert_eq!(compare(&tag("c/t/id@05"), LOG, Some(&reset)), Current);
        assert_eq!(compare(&tag(LOG), LOG, Some(&reset)), BeforeReset);
        assert_eq!(compare(&tag("c/t/id@04"), LOG, Some(&reset)), Other);
    }
}
