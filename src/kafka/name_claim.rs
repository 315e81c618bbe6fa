//! Claims the member's name in the group: joins only when nobody who lives holds it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::assignment::leaves_out;
use super::identity::{Holder, ProcessIdentity, holder, is_instance};
use super::membership::{MembershipEnd, MembershipParts};
use super::settings::{ASK, RETRY};

/// A live process with our name may be on its way out.
const NEIGHBOUR_WAIT: Duration = Duration::from_secs(3);
/// The group's members are asked for so often before it is done without.
const LIST_TRIES: u32 = 3;
/// A look in passing waits no longer for an answer.
const LOOK: Duration = Duration::from_millis(500);

fn refusal(parts: &MembershipParts, what: &str) -> String {
    format!(
        "member id {:?} of group {:?} is in use: {what}; give each process its own KAFKA_GROUP_INSTANCE_ID",
        parts.settings.instance_id, parts.settings.group
    )
}

/// Whether the group, while it is at rest, has left partitions of the topic without an owner. False also when that cannot
/// be learned at once.
pub(super) fn leaves_some_ownerless<C: ConsumerContext>(parts: &MembershipParts, consumer: &BaseConsumer<C>) -> bool {
    let topic = parts.settings.topic.as_str();
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), LOOK) else { return false };
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let Ok(list) = consumer.fetch_group_list(Some(&parts.settings.group), LOOK) else { return false };
    list.groups().iter().any(|group| {
        let assignments = group.members().iter().map(|member| member.assignment().unwrap_or_default());
        group.state() == "Stable" && leaves_out(assignments, topic, i32::try_from(partitions).unwrap_or(0))
    })
}

/// Waits until nobody who lives holds our name. `Some` when that does not come to pass.
pub(super) fn wait_for_name<C: ConsumerContext>(
    parts: &MembershipParts,
    consumer: &BaseConsumer<C>,
) -> Option<MembershipEnd> {
    let started = Instant::now();
    let expiry = parts.settings.session_timeout + Duration::from_secs(2);
    let mut failed = 0;
    // Also makes the client know the brokers; the list alone would wait for that in steps of a second.
    let metadata = consumer.fetch_metadata(Some(&parts.settings.topic), ASK);
    let partitions = metadata.ok().and_then(|metadata| metadata.topics().first().map(|topic| topic.partitions().len()));
    let partitions = i32::try_from(partitions.unwrap_or(0)).unwrap_or(0);
    while !parts.stop.is_stopped() {
        let found = match consumer.fetch_group_list(Some(&parts.settings.group), Duration::from_secs(2)) {
            Ok(list) => {
                let members: Vec<_> = list.groups().iter().flat_map(|group| group.members()).collect();
                let ours = members.iter().find(|member| is_instance(member.id(), &parts.settings.instance_id));
                let assignments = members.iter().map(|member| member.assignment().unwrap_or_default());
                let misses_some = leaves_out(assignments, &parts.settings.topic, partitions);
                ours.map(|member| (holder(&parts.identity, member.client_id(), ProcessIdentity::is_alive), misses_some))
            }
            Err(error) => {
                failed += 1;
                if failed >= LIST_TRIES {
                    tracing::debug!(%error, "the group's members cannot be listed; joining without a look");
                    return None;
                }
                parts.stop.wait(RETRY.delay(failed, fastrand::f64()));
                continue;
            }
        };
        let (patience, where_) = match found {
            // A static member that comes back gets what it had, without a look at the topic: partitions that were added
            // meanwhile would have no owner until the next rebalance, which may never come. A new member makes one.
            Some((Holder::Nobody, true)) if started.elapsed() < expiry => (Duration::MAX, "it misses new partitions"),
            None | Some((Holder::Nobody, _)) => return None,
            Some((Holder::Neighbour, _)) => (NEIGHBOUR_WAIT, "a process on this machine has it"),
            Some((Holder::Elsewhere, _)) => (expiry, "a process on another machine has it"),
        };
        if started.elapsed() >= patience {
            return Some(MembershipEnd::Refused(refusal(parts, where_)));
        }
        tracing::info!(
            instance = parts.settings.instance_id,
            where_,
            "the member id is taken; waiting for it to become free"
        );
        parts.stop.wait(Duration::from_millis(250));
    }
    Some(MembershipEnd::Stopped { committed: false })
}
