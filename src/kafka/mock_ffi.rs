//! The one setting of the mock cluster that rdkafka does not offer: how long a new group waits for more members.

use std::time::Duration;

use rdkafka::bindings::{rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms};
use rdkafka::client::{Client, ClientContext};

/// Sets the delay of a group's first rebalance in the mock cluster that belongs to `client`, if it has one.
pub(super) fn set_initial_rebalance_delay<C: ClientContext>(client: &Client<C>, delay: Duration) {
    let delay_ms = i32::try_from(delay.as_millis()).unwrap_or(i32::MAX);
    #[allow(unsafe_code, reason = "rdkafka has no safe call for this setting")]
    // SAFETY: `native_ptr` is a live handle for as long as `client` is borrowed. The mock cluster belongs to that handle
    // and lives as long as it; a handle without one gives null, which is not passed on. The setter takes the cluster's own
    // lock.
    unsafe {
        let cluster = rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
        }
    }
}
