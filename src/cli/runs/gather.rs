//! Reads whole runs: all messages of a thread that the window has.
//!
//! It must not know what is found out about them.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::place::{Which, thread_of};
use super::source::{Told, read};
use super::{note, seam, show};
use crate::config::Config;
use crate::kafka::records::{End, Start};
use crate::runs::item::Item;
use crate::runs::run::{Added, Run};

/// Reads everything in the window that is meant, one message after the other, until `each` says no (false).
///
/// # Errors
/// Also when a signal comes: what was read is not everything.
pub(super) fn all(
    config: &Config,
    client: &str,
    which: &Which,
    each: &mut dyn FnMut(Item) -> anyhow::Result<bool>,
) -> anyhow::Result<Told> {
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let told = read(config, client, which, (Start::Earliest, End::Now), &stop, each)?;
    anyhow::ensure!(!stop.is_cancelled(), "interrupted before everything was read");
    Ok(told)
}

/// The runs of these threads, in the same order, and what could not be read. `each` sees the messages on their way, repeated
/// sends left out.
///
/// # Errors
/// When a thread has no message, or belongs to several tenants and none was named.
pub(super) fn runs(
    config: &Config,
    client: &str,
    which: &Which,
    (threads, keeps_states): (&[&str], bool),
    each: &mut dyn FnMut(&Item),
) -> anyhow::Result<(Vec<Run>, Told)> {
    // The same thread twice is the same run twice.
    let mut found = BTreeMap::<&str, BTreeMap<String, Run>>::new();
    let window = Which { thread: None, ..which.clone() };
    let told = all(config, client, &window, &mut |item| {
        let thread = thread_of(&item);
        if let Some(thread) = threads.iter().find(|wanted| **wanted == thread) {
            let tenant = &item.header.tenant_id;
            let tenants = found.entry(thread).or_default();
            if !tenants.contains_key(tenant) {
                tenants.insert(tenant.clone(), Run::new(tenant, thread, keeps_states));
            }
            if let Some(run) = tenants.get_mut(tenant)
                && run.add(&item)? == Added::New
            {
                each(&item);
            }
        }
        Ok(true)
    })?;
    let mut runs = Vec::new();
    for (at, thread) in threads.iter().enumerate() {
        let is_asked_again = threads.iter().skip(at + 1).any(|later| later == thread);
        let tenants = if is_asked_again { found.get(thread).cloned() } else { found.remove(thread) };
        runs.push(only(config, thread, tenants.unwrap_or_default())?);
    }
    Ok((runs, told))
}

/// The run of the only tenant that the thread belongs to.
fn only(config: &Config, thread: &str, tenants: BTreeMap<String, Run>) -> anyhow::Result<Run> {
    let mut runs = tenants.into_iter();
    let shown = show::plain(thread, 120);
    let Some((_, run)) = runs.next() else {
        let topic = show::plain(&config.kafka.topic, 249);
        anyhow::bail!(
            "no message of thread {shown} in the window of topic {topic}; `dashstream inspect` lists the threads it has"
        );
    };
    let others: Vec<String> = runs.map(|(tenant, _)| show::plain(&tenant, 60)).collect();
    anyhow::ensure!(
        others.is_empty(),
        "thread {shown} belongs to several tenants, {} and {}; name one with --tenant",
        show::plain(run.tenant(), 60),
        others.join(", ")
    );
    Ok(run)
}

/// Tells on standard error what the numbers of a run say is missing.
pub(super) fn tell_missing(run: &Run) {
    let numbers = run.numbers();
    let missing = numbers.missing.iter().fold(0_u64, |sum, missing| sum.saturating_add(missing.count()));
    if missing > 0 {
        let thread = show::plain(run.thread(), 120);
        note(&format!(
            "{missing} messages of thread {thread} are missing, by their numbers; `dashstream inspect` names them"
        ));
    }
}
