//! Claims the member's name in the group: joins only when nobody who lives holds it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::identity::{Holder, ProcessIdentity, holder, is_instance};
use super::membership::{MembershipEnd, MembershipParts};
use super::settings::{ASK, RETRY};

/// A live process with our name may be on its way out.
const NEIGHBOUR_WAIT: Duration = Duration::from_secs(3);
/// The group's members are asked for so often before it is done without.
const LIST_TRIES: u32 = 3;

pub(super) fn refusal(parts: &MembershipParts, what: &str) -> String {
    format!(
        "member id {:?} of group {:?} is in use: {what}; give each process its own KAFKA_GROUP_INSTANCE_ID",
        parts.settings.instance_id, parts.settings.group
    )
}

/// Waits until nobody who lives holds our name. `Some` when that does not come to pass.
pub(super) fn wait_for_name<C: ConsumerContext>(
    parts: &MembershipParts,
    consumer: &BaseConsumer<C>,
) -> Option<MembershipEnd> {
    let started = Instant::now();
    let mut failed = 0;
    // Makes the client know the brokers; the list alone would wait for that in steps of a second.
    let _ = consumer.fetch_metadata(Some(&parts.settings.topic), ASK);
    while !parts.stop.is_stopped() {
        let found = match consumer.fetch_group_list(Some(&parts.settings.group), Duration::from_secs(2)) {
            Ok(list) => list
                .groups()
                .iter()
                .flat_map(|group| group.members())
                .find(|member| is_instance(member.id(), &parts.settings.instance_id))
                .map(|member| holder(&parts.identity, member.client_id(), ProcessIdentity::is_alive)),
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
            None | Some(Holder::Nobody) => return None,
            Some(Holder::Neighbour) => (NEIGHBOUR_WAIT, "a process on this machine has it"),
            Some(Holder::Elsewhere) => {
                (parts.settings.session_timeout + Duration::from_secs(2), "a process on another machine has it")
            }
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
