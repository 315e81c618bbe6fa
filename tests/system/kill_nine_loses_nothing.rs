//! A service that is killed in the middle of the stream loses nothing that clients have not been told of.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, From};
use crate::harness::eventually::{eventually, within};
use crate::harness::load::Load;
use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::topic::Topic;

const BOUND: Duration = Duration::from_secs(60);
const LIVE_AGAIN: Duration = Duration::from_secs(3);
const KILLS: u64 = 3;

#[test]
fn kill_nine_loses_nothing_from_the_settled_point_on() {
    let topic = Topic::create(services::kafka(), "kill-nine", 4);
    let config = Config::new(&topic);
    let mut service = Service::start_healthy(&config);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::from(service.address(), From::Earliest)).collect();
    let load = Load::start(&topic, 2_000);

    for kill in 1..=KILLS {
        eventually("records to flow and to be settled", BOUND, || {
            let received = clients[0].received();
            let committed = topic.committed(config.group());
            match received >= kill * 3_000 && committed.len() == 4 {
                true => Ok(()),
                false => Err(format!("{received} records received, committed: {committed:?}")),
            }
        });
        service.kill_nine();
        // What is still in a socket came from before the restart.
        clients.iter_mut().for_each(Client::disconnect);
        let received: Vec<u64> = clients.iter().map(Client::received).collect();

        let restarted = Instant::now();
        service.restart();
        for client in &mut clients {
            client.reconnect(service.address());
        }
        for (client, before) in clients.iter().zip(received) {
            within("live data after a restart", LIVE_AGAIN.saturating_sub(restarted.elapsed()), || {
                match client.received() > before {
                    true => Ok(()),
                    false => Err(format!("{before} records, as before; {:?}", client.closed())),
                }
            });
        }
    }

    let published = load.stop();
    for client in &clients {
        // What a restarted service does not hold, Redis and the topic give: no gap is excused.
        client.wait_for_all(&published, BOUND);
    }
    topic.wait_until_all_committed(config.group(), BOUND);
}
