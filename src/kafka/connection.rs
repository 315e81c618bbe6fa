//! How to reach the cluster: the one constructor of every client's configuration.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::security::KafkaSecurityConfig;

/// Brokers, identity and security. Every Kafka client of this program starts from here.
#[derive(Clone, Debug)]
pub struct KafkaConnection {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Shown in the broker's logs and listings.
    pub client_id: String,
    /// TLS and SASL.
    pub security: KafkaSecurityConfig,
    /// `any`, `v4` or `v6`; `None`: `v4` when a broker is a loopback address, otherwise `any`.
    pub address_family: Option<String>,
}

impl KafkaConnection {
    /// The settings that all clients share. Waits of librdkafka are shortened so that a lost broker is noticed, and a
    /// returned one used, within seconds.
    pub fn client_config(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let loopback = |broker: &str| {
            let host = broker.trim().rsplit_once(':').map_or(broker, |(host, _)| host);
            host == "localhost" || host.starts_with("127.")
        };
        let family = self
            .address_family
            .as_deref()
            .unwrap_or_else(|| if self.brokers.split(',').any(loopback) { "v4" } else { "any" });
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("{}-{role}", self.client_id))
            .set("broker.address.family", family)
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Warning);
        self.security.apply_to_rdkafka(&mut config);
        config
    }
}
