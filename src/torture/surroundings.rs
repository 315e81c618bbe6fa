//! What instances need and scenarios break: Kafka and Redis behind proxies, and the topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::Need;
use super::proxy::kafka_frames::Addresses;
use super::proxy::{Fault as Network, Proxy};
use super::scenario::ScenarioError;
use crate::kafka::connection::KafkaConnection;
use crate::kafka::security::SecurityProtocol;
use crate::kafka::topics::TopicAdmin;
use crate::kafka::topics::stage::committed;
use crate::pipeline::topic_plan::TopicPlan;
use crate::redis::connect::Redis;
use crate::redis::forget::forget;
use crate::redis::settings::{RedisSettings, Topology};

/// How much later each byte arrives at one that is slow.
const SLOW: Duration = Duration::from_millis(150);
const REDIS_PATIENCE: Duration = Duration::from_secs(10);

/// The cluster, and how instances are kept behind proxies of it.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub connection: KafkaConnection,
    admin: TopicAdmin,
    /// One for each broker; none: connections are encrypted.
    kafka: Vec<Proxy>,
    redis: Option<RedisBehind>,
}

#[derive(Debug)]
struct RedisBehind {
    settings: RedisSettings,
    /// None: connections are encrypted, or there are several servers.
    proxy: Option<Proxy>,
}

impl Surroundings {
    /// Finds the brokers, and puts proxies before them. To be made, used and dropped outside of an async runtime.
    pub(super) fn new(connection: &KafkaConnection, redis: Option<RedisSettings>) -> Result<Self, ScenarioError> {
        let admin = TopicAdmin::new(connection)?;
        let brokers = admin.brokers()?;
        let plain =
            matches!(connection.security.protocol, SecurityProtocol::Plaintext | SecurityProtocol::SaslPlaintext);
        let mut kafka = Vec::new();
        if plain {
            let mut addresses = Addresses::new();
            for broker in &brokers {
                let proxy = Proxy::start()?;
                if let Some((host, port)) = proxy.address().rsplit_once(':') {
                    addresses.insert(broker.clone(), (host.to_owned(), port.parse().unwrap_or_default()));
                }
                kafka.push(proxy);
            }
            let addresses = Arc::new(addresses);
            for ((host, port), proxy) in brokers.iter().zip(&kafka) {
                proxy.forward_to_broker(&format!("{host}:{port}"), Arc::clone(&addresses));
            }
        }
        let redis = redis.map(RedisBehind::new).transpose()?;
        Ok(Self { connection: connection.clone(), admin, kafka, redis })
    }

    /// What is not there for some faults.
    pub(super) fn lacks(&self) -> impl Iterator<Item = Need> {
        let kafka = self.kafka.is_empty().then_some(Need::PlainKafka);
        let has_redis = self.redis.as_ref().is_some_and(|redis| redis.proxy.is_some());
        kafka.into_iter().chain((!has_redis).then_some(Need::PlainRedis))
    }

    /// The variables by which an instance finds the proxies.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        if !self.kafka.is_empty() {
            let proxies: Vec<String> = self.kafka.iter().map(Proxy::address).collect();
            variables.push(("KAFKA_BROKERS".to_owned(), proxies.join(",")));
        }
        if let Some(RedisBehind { settings, proxy: Some(proxy) }) = &self.redis {
            variables.push(("REDIS_URL".to_owned(), at(settings, &proxy.address())));
        }
        variables
    }

    /// Does something to all connections to Kafka.
    pub(super) fn kafka(&self, fault: Network) {
        self.kafka.iter().for_each(|proxy| proxy.set(fault));
    }

    /// Does something to all connections to Redis.
    pub(super) fn redis(&self, fault: Network) {
        self.redis.iter().filter_map(|redis| redis.proxy.as_ref()).for_each(|proxy| proxy.set(fault));
    }

    /// Lets Kafka and Redis answer late.
    pub(super) const fn slow() -> Network {
        Network::Delay(SLOW)
    }

    /// Lets Redis forget what instances have kept there of the topic in these epochs.
    pub(super) fn forget(&self, topic: &str, epochs: &[String]) -> Result<(), ScenarioError> {
        let Some(redis) = &self.redis else { return Ok(()) };
        let partitions = self.partitions(topic)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let forgotten = runtime.block_on(async {
            let redis = Redis::new(&redis.settings, 1).map_err(|error| error.to_string())?;
            let deadline = Instant::now() + REDIS_PATIENCE;
            // The prefix of the keys is called as the topic is.
            forget(&redis, topic, epochs, partitions, deadline).await.map_err(|failure| failure.to_string())
        });
        forgotten.map_err(ScenarioError::Redis)
    }

    /// Creates the topic, and that of the dead letters beside it.
    pub(super) fn create(&self, topic: &str, partitions: i32) -> Result<(), ScenarioError> {
        self.admin.create(&TopicPlan::plain(topic, partitions))?;
        self.admin.create(&TopicPlan::plain(&dead_letters(topic), 1))?;
        Ok(())
    }

    /// Deletes the topic and creates it anew.
    pub(super) fn recreate(&self, topic: &str) -> Result<i32, ScenarioError> {
        let partitions = self.partitions(topic)?;
        self.admin.delete(topic)?;
        self.admin.create(&TopicPlan::plain(topic, partitions))?;
        Ok(partitions)
    }

    /// Deletes what [`Self::create`] has created.
    pub(super) fn delete(&self, topic: &str) -> Result<(), ScenarioError> {
        self.admin.delete(topic)?;
        self.admin.delete(&dead_letters(topic))?;
        Ok(())
    }

    /// Adds a partition, and gives its number.
    pub(super) fn grow(&self, topic: &str) -> Result<i32, ScenarioError> {
        let partitions = self.partitions(topic)?;
        self.admin.grow(topic, usize::try_from(partitions).unwrap_or_default() + 1)?;
        Ok(partitions)
    }

    /// Takes the older half of each partition, and tells from where on each is kept.
    pub(super) fn expire(&self, topic: &str) -> Result<BTreeMap<i32, i64>, ScenarioError> {
        let mut kept_from = BTreeMap::new();
        for bounds in self.admin.bounds(topic)? {
            let middle = bounds.low + (bounds.high - bounds.low) / 2;
            if middle > bounds.low {
                self.admin.delete_below(topic, bounds.partition, middle)?;
            }
            kept_from.insert(bounds.partition, middle);
        }
        Ok(kept_from)
    }

    /// The end of each partition.
    pub(super) fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, ScenarioError> {
        Ok(self.admin.bounds(topic)?.into_iter().map(|bounds| (bounds.partition, bounds.high)).collect())
    }

    /// Whether a group has committed the end of each partition that holds something.
    pub(super) fn all_committed(&self, topic: &str, group: &str) -> Result<Result<(), String>, ScenarioError> {
        let mut ends = self.ends(topic)?;
        ends.retain(|_, end| *end > 0);
        let committed = committed(&self.connection, topic, group, ends.keys().copied());
        Ok(match committed {
            Ok(committed) if committed == ends => Ok(()),
            Ok(committed) => Err(format!("the group has committed {committed:?} of {ends:?}")),
            Err(error) => Err(format!("what the group has committed is not known: {error}")),
        })
    }

    fn partitions(&self, topic: &str) -> Result<i32, ScenarioError> {
        let count = self.admin.partition_count(topic)?.unwrap_or_default();
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

impl RedisBehind {
    fn new(settings: RedisSettings) -> std::io::Result<Self> {
        let url = url::Url::parse(settings.url.reveal()).ok();
        let server = url.filter(|url| url.scheme() == "redis" && matches!(settings.topology, Topology::Standalone));
        let address = server.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or(6379))));
        let proxy = match address {
            Some(address) => {
                let proxy = Proxy::start()?;
                proxy.forward_to(&address);
                Some(proxy)
            }
            None => None,
        };
        Ok(Self { settings, proxy })
    }
}

/// The same server at another address.
fn at(settings: &RedisSettings, address: &str) -> String {
    let mut url = match url::Url::parse(settings.url.reveal()) {
        Ok(url) => url,
        Err(_) => return format!("redis://{address}"),
    };
    if let Some((host, port)) = address.rsplit_once(':') {
        let _ = (url.set_host(Some(host)), url.set_port(port.parse().ok()));
    }
    url.into()
}

/// The topic of the dead letters.
pub(super) fn dead_letters(topic: &str) -> String {
    format!("{topic}-dlq")
}
