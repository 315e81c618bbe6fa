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
    /// `any`, `v4` or `v6`; `None`: `v4` when a broker is a loopback address of IPv4 or `localhost` and none is an address
    /// of IPv6, otherwise `any`.
    pub address_family: Option<String>,
}

impl KafkaConnection {
    /// The settings that all clients share. Waits of librdkafka are shortened so that a lost broker is noticed, and a
    /// returned one used, within seconds.
    pub fn client_config(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let family = self.address_family.as_deref().unwrap_or_else(|| family_of(&self.brokers));
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

/// `localhost` is often both families where the broker listens on one; an address of IPv6 says that this one is meant.
fn family_of(brokers: &str) -> &'static str {
    let mut hosts =
        brokers.split(',').map(str::trim).map(|broker| broker.rsplit_once(':').map_or(broker, |(host, _)| host));
    let loopback = |host: &str| host == "localhost" || host.starts_with("127.");
    if hosts.clone().any(loopback) && !hosts.any(|host| host.starts_with('[')) { "v4" } else { "any" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_family_follows_from_the_brokers() {
        for (brokers, family) in [
            ("127.0.0.1:9092", "v4"),
            ("localhost:9092", "v4"),
            ("kafka:9092, 127.0.0.2:9092", "v4"),
            ("kafka:9092", "any"),
            ("localhost.example:9092", "any"),
            ("[::1]:9092", "any"),
            ("127.0.0.1:9092, [::1]:9092", "any"),
            ("[2001:db8::127.0.0.1]:9092", "any"),
        ] {
            assert_eq!(family_of(brokers), family, "{brokers}");
        }
    }
}
