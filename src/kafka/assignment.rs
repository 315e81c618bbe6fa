//! Reads what the group has assigned to its members, in the form of Kafka's consumer protocol. Pure.

use std::collections::BTreeSet;

/// The partitions of `topic` in a member's assignment; `None` when the bytes are no assignment.
fn assigned(assignment: &[u8], topic: &str) -> Option<BTreeSet<i32>> {
    let mut bytes = assignment;
    let _version = take::<2>(&mut bytes)?;
    let mut found = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(take::<4>(&mut bytes)?) {
        let length = usize::try_from(i16::from_be_bytes(take::<2>(&mut bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        for _ in 0..i32::from_be_bytes(take::<4>(&mut bytes)?) {
            let partition = i32::from_be_bytes(take::<4>(&mut bytes)?);
            if name == topic.as_bytes() {
                found.insert(partition);
            }
        }
    }
    Some(found)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

/// Whether the members of a group leave one of `partitions` to nobody. Assignments that cannot be read prove nothing.
pub(super) fn leaves_out<'a>(assignments: impl IntoIterator<Item = &'a [u8]>, topic: &str, partitions: i32) -> bool {
    let mut all = BTreeSet::new();
    for assignment in assignments {
        match assigned(assignment, topic) {
            Some(some) => all.extend(some),
            None => return false,
        }
    }
    !(0..partitions).all(|partition| all.contains(&partition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            bytes.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
        }
        // User data, of which nothing is looked at.
        bytes.extend((-1_i32).to_be_bytes());
        bytes
    }

    #[test]
    fn a_partition_that_nobody_has_is_left_out() {
        let one = assignment(&[("other", &[3]), ("t", &[0, 2])]);
        let two = assignment(&[("t", &[1])]);
        assert!(!leaves_out([&*one, &*two], "t", 3));
        assert!(leaves_out([&*one, &*two], "t", 4));
        assert!(leaves_out([&*one], "t", 3));
        assert!(leaves_out([&*assignment(&[])], "t", 1));
        assert!(!leaves_out([&b""[..]], "t", 3), "a member that was not told yet proves nothing");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0..40_usize) {
            let _ = assigned(&bytes, "t");
            let good = assignment(&[("t", &[0, 1, 2])]);
            let _ = assigned(&good[..cut.min(good.len())], "t");
        }
    }
}
