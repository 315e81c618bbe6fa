//! Who holds a member id of the group: a dead process of this machine, a live one, or one somewhere else.
//!
//! A static member that was killed stays in the group until its session runs out, so the name alone does not tell whether
//! somebody lives there. The client id of the member carries where its process runs. Deciding is pure; only
//! [`ProcessIdentity::current`] and [`ProcessIdentity::is_alive`] look at the system.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// Length of the random id that Kafka appends to a static member's name.
const MEMBER_SUFFIX: usize = 1 + 36;

/// A process, so that another one on the same machine can tell whether it still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The machine since it was booted.
    pub host: u64,
    /// Its process-id namespace; 0 when the system does not tell.
    pub namespace: u64,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in the system's ticks: process ids are used again.
    pub started: u64,
}

/// Who holds a member id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody who lives: it can be taken over at once.
    Nobody,
    /// A live process of this machine.
    Neighbour,
    /// A process elsewhere; whether it lives shows only when its session runs out.
    Elsewhere,
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> Self {
        let read = |path: &str| std::fs::read(path).unwrap_or_default();
        let mut host = read("/proc/sys/kernel/random/boot_id");
        host.extend(read("/proc/sys/kernel/hostname"));
        let namespace = std::fs::read_link("/proc/self/ns/pid")
            .ok()
            .and_then(|link| link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok())
            .unwrap_or(0);
        let pid = std::process::id();
        Self { host: xxh3_64(&host), namespace, pid, started: started(pid).unwrap_or(0) }
    }

    /// Finds the identity that a client id ends with.
    pub fn parse(client_id: &str) -> Option<Self> {
        let mut parts = client_id.rsplitn(5, '.');
        let started = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let namespace = parts.next()?.parse().ok()?;
        let host = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next()?;
        Some(Self { host, namespace, pid, started })
    }

    /// Whether `other` runs where its life can be seen from here.
    fn sees(&self, other: &Self) -> bool {
        self.namespace != 0 && self.host == other.host && self.namespace == other.namespace
    }

    /// Whether the process lives, seen from the same machine and namespace.
    pub fn is_alive(&self) -> bool {
        started(self.pid).is_some_and(|started| started == self.started)
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}.{}", self.host, self.namespace, self.pid, self.started)
    }
}

/// When a process was started; `None` when there is none, or only its unread exit status.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are plain.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether a member of the group was given the name `instance`.
pub fn is_instance(member_id: &str, instance: &str) -> bool {
    member_id.strip_prefix(instance).is_some_and(|rest| rest.len() == MEMBER_SUFFIX && rest.starts_with('-'))
}

/// Who the member with our name is, given its client id. The process itself is nobody: an earlier generation of it.
pub fn holder(me: &ProcessIdentity, client_id: &str, is_alive: impl Fn(&ProcessIdentity) -> bool) -> Holder {
    match ProcessIdentity::parse(client_id) {
        Some(other) if other == *me => Holder::Nobody,
        Some(other) if me.sees(&other) && is_alive(&other) => Holder::Neighbour,
        Some(other) if me.sees(&other) => Holder::Nobody,
        _ => Holder::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(host: u64, namespace: u64, pid: u32) -> ProcessIdentity {
        ProcessIdentity { host, namespace, pid, started: 9 }
    }

    #[test]
    fn an_identity_survives_being_part_of_a_client_id() {
        let me = ProcessIdentity::current();
        assert_eq!(ProcessIdentity::parse(&format!("dash.stream-member.{me}")), Some(me.clone()));
        for foreign in ["", "rdkafka", "a.b.c.d", "1.2.3.4", "x.zz.1.2.3"] {
            assert_eq!(ProcessIdentity::parse(foreign), None, "{foreign}");
        }
        assert!(me.is_alive());
        assert!(!ProcessIdentity { started: me.started + 1, ..me }.is_alive(), "the id was used again");
    }

    #[test]
    fn only_a_process_that_can_be_seen_dead_is_taken_over() {
        let me = process(1, 2, 3);
        for (other, alive, expected) in [
            (process(1, 2, 4), true, Holder::Neighbour),
            (process(1, 2, 4), false, Holder::Nobody),
            (process(1, 5, 4), false, Holder::Elsewhere),
            (process(7, 2, 4), false, Holder::Elsewhere),
            (me.clone(), true, Holder::Nobody),
        ] {
            assert_eq!(holder(&me, &format!("d.{other}"), |_| alive), expected, "{other} alive: {alive}");
        }
        assert_eq!(holder(&me, "somebody else's program", |_| false), Holder::Elsewhere);
        let blind = process(1, 0, 3);
        assert_eq!(holder(&blind, &format!("d.{}", process(1, 0, 4)), |_| false), Holder::Elsewhere);
    }

    #[test]
    fn a_name_that_begins_like_ours_is_not_ours() {
        let member = |name: &str| format!("{name}-0e8c2d5a-1111-2222-3333-444455556666");
        assert!(is_instance(&member("a"), "a"));
        assert!(!is_instance(&member("a-b"), "a"));
        assert!(!is_instance(&member("ab"), "a"));
        assert!(!is_instance("a", "a"));
    }
}
