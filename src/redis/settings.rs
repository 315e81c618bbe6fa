//! Where Redis is, how long it may take, and how much it keeps.

use std::time::Duration;

use crate::config::secret::{Secret, SecretUrl};
use crate::pipeline::retention::Bounds;

/// Everything that the tier is made from.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// First address, with scheme, credentials and database.
    pub url: SecretUrl,
    /// How the servers stand to each other.
    pub topology: Topology,
    /// Further addresses, `host:port`: of Sentinels or of nodes of the cluster.
    pub nodes: Vec<String>,
    /// What every key begins with.
    pub key_prefix: String,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long one answer may take.
    pub response_timeout: Duration,
    /// Most connections for reading; one more is for writing.
    pub pool_size: usize,
    /// What is kept of a partition.
    pub bounds: Bounds,
}

impl RedisSettings {
    /// What every key lives after the last write to it.
    pub fn time_to_live_ms(&self) -> u64 {
        self.bounds.age_ms
    }
}

/// How the servers stand to each other.
#[derive(Clone, Debug)]
pub enum Topology {
    /// One server.
    Standalone,
    /// The addresses are Sentinels, which name the server.
    Sentinel {
        /// What they call it.
        master: String,
        /// Their own password; that of the address is the server's.
        password: Secret,
    },
    /// The addresses are nodes of a cluster.
    Cluster,
}
