//! The names of the streams: one per epoch and partition, so that nothing of an old log is ever read into a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Epochs whose names are remembered; a process sees one or two.
const MAX_SEEN: usize = 1_024;

/// Gives the names. Cloning shares what it remembers.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Arc<str>,
    /// Epoch name to the number that this process gave it first.
    seen: Arc<Mutex<HashMap<String, u64>>>,
}

impl Keys {
    /// Names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), seen: Arc::default() }
    }

    /// The stream of a partition in the epoch `number`, called `name`. `None` when the name does not tell this log from
    /// every other one: the cluster gives topics no ids, or the offsets of the same topic went back in this process.
    pub fn stream(&self, number: u64, name: &str, partition: i32) -> Option<String> {
        let (rest, topic_id) = name.rsplit_once('/')?;
        if rest.is_empty() || topic_id.is_empty() || topic_id == "-" {
            return None;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.retain(|_, before| *before == number);
        }
        let first = *seen.entry(name.to_owned()).or_insert(number);
        drop(seen);
        // The braces make one partition live in one slot of a cluster, and spread the partitions over the slots.
        let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
        (first == number).then(|| format!("{}:replay:{{{hash:032x}:{partition}}}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_partitions_and_deployments_have_streams_of_their_own() {
        let keys = Keys::new("a");
        let key = keys.stream(1, "c/topic/id1", 0).unwrap();
        // Changing it makes every instance of an older version another one.
        assert_eq!(key, "a:replay:{f343c29e986ff00d4c0586725b7f275e:0}");
        assert_eq!(Keys::new("a").stream(7, "c/topic/id1", 0).unwrap(), key, "the same in every process");
        for other in [
            keys.stream(1, "c/topic/id1", 1),
            keys.stream(2, "c/topic/id2", 0),
            keys.stream(3, "d/topic/id1", 0),
            Keys::new("b").stream(1, "c/topic/id1", 0),
        ] {
            assert_ne!(other.unwrap(), key);
        }
    }

    #[test]
    fn a_log_that_cannot_be_told_from_another_has_none() {
        let keys = Keys::new("a");
        for name in ["", "c/topic/-", "c/topic/", "topic", "/id"] {
            assert_eq!(keys.stream(1, name, 0), None, "{name}");
        }
        assert!(keys.stream(1, "c/t/id", 0).is_some());
        assert!(keys.stream(1, "c/t/id", 5).is_some());
        assert_eq!(keys.stream(2, "c/t/id", 0), None, "its offsets began again under the same name");
    }
}
