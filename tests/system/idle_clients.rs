//! A thousand browsers that only watch cost little memory.

use crate::harness::service::{Config, Service};
use crate::harness::services;
use crate::harness::swarm::Swarm;
use crate::harness::topic::Topic;

const CLIENTS: usize = 1_000;
const KIB: u64 = 1024;

#[test]
fn a_thousand_idle_clients_cost_less_than_twenty_kib_each() {
    let topic = Topic::create(services::kafka(), "idle", 8);
    let service = Service::start_healthy(&Config::new(&topic));
    // Code and caches that the first ones need.
    drop(Swarm::connect(service.address(), 10));
    let before = service.memory();
    let _swarm = Swarm::connect(service.address(), CLIENTS);
    let each = service.memory().saturating_sub(before) / CLIENTS as u64;
    println!("{each} bytes for each idle client");
    assert!(each < 20 * KIB, "{each} bytes for each idle client");
}
