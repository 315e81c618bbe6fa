//! SIGTERM under load: everything that was taken in is finished, everybody is told, and the next start goes on there.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::client::{Client, From};
use crate::harness::eventually::eventually;
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;
use crate::harness::v1_client::V1Client;

const BOUND: Duration = Duration::from_secs(60);
const EXIT_WITHIN: Duration = Duration::from_secs(10);
const GOING_AWAY: Option<u16> = Some(1001);

#[test]
fn sigterm_under_load_drains_commits_and_says_goodbye() {
    let topic = Topic::create(services::kafka(), "sigterm", 4);
    let config = Config::new(&topic);
    let mut service = Service::start_healthy(&config);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let v1 = V1Client::connect(service.address(), None);
    let load = Load::start(&topic, 2_000);
    eventually("records to flow", BOUND, || match clients[0].received() {
        received @ 0..5_000 => Err(received.to_string()),
        _ => Ok(()),
    });

    service.signal(Signal::SIGTERM);
    let status = service.wait_for_exit(EXIT_WITHIN);
    assert_eq!(status.code(), Some(0), "{status}");
    for client in &clients {
        assert_eq!(client.wait_until_closed(BOUND).code, GOING_AWAY);
    }
    assert_eq!(v1.wait_until_closed(BOUND).code, GOING_AWAY);

    // What clients have seen was settled before it was theirs, so it is committed: nothing is dealt with twice.
    let committed = topic.committed(config.group());
    for client in &clients {
        client.look(|ledger| {
            for (partition, cursor) in ledger.cursor() {
                let next = committed.get(partition).copied().unwrap_or_default();
                assert!(next >= *cursor, "partition {partition}: {cursor} delivered, {next} committed");
            }
        });
    }

    service.restart();
    for client in &mut clients {
        client.reconnect(service.address());
    }
    let published = load.stop();
    let was_committed = |partition: i32, offset: i64| committed.get(&partition).is_some_and(|next| offset < *next);
    for client in &clients {
        client.wait_for_all_but(&published, BOUND, was_committed);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
}
