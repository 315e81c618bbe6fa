//! Creates, deletes, lists and describes topics: for operators and tools.
//!
//! Blocks, so it belongs on a thread of its own; each question has a deadline, and faults that pass are tried again. What a
//! topic should be like is decided elsewhere ([`TopicPlan`]).

pub(super) mod faults;

pub mod stage;

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use tokio::runtime::Runtime;

pub use self::faults::TopicError;
use self::faults::{Told, cause, passes};
use super::connection::KafkaConnection;
use super::errors::{ErrorType, classify_error};
use super::monitor::serve_events;
use super::settings::{ASK, RETRY};
use super::topic::{TopicId, topic_id};
use crate::pipeline::topic_plan::{CLEANUP_POLICY, Difference, TopicPlan};

/// A question that failed by a fault that passes is asked so many times more.
const RETRIES: u32 = 3;
/// After so long it is not asked again: a person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the brokers may take to make a topic known, or forgotten.
const SETTLE: Duration = Duration::from_secs(15);

/// A topic in the list of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many replicas each of them has.
    pub replicas: usize,
}

impl ListedTopic {
    /// Whether it belongs to Kafka itself.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether a topic of this name belongs to Kafka itself.
pub fn is_internal(name: &str) -> bool {
    name.starts_with("__")
}

/// A partition and the brokers that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFound {
    /// Its number.
    pub partition: i32,
    /// The broker that leads it; `None`: nobody does now.
    pub leader: Option<i32>,
    /// The brokers that should have it.
    pub replicas: Vec<i32>,
    /// Those of them that have all of it.
    pub in_sync: Vec<i32>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFound {
    /// Kafka's name of it.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether it was set for this topic; otherwise it is the brokers'.
    pub own: bool,
}

/// All that is told about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Kafka's id of it, where the cluster tells.
    pub id: Option<String>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionFound>,
    /// Its settings, by name, without secrets.
    pub settings: Vec<SettingFound>,
}

/// What became of a topic that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// Its name.
    pub topic: String,
    /// Whether it was made just now.
    pub created: bool,
    /// In what it falls short, when it existed. Nothing was changed about it.
    pub differences: Vec<Difference>,
}

/// The admin client, and the client for metadata beside it: metadata that an admin client asks for creates topics on
/// clusters that allow it, that of a consumer never does.
pub struct TopicAdmin {
    asker: BaseConsumer<Told>,
    admin: AdminClient<Told>,
    runtime: Runtime,
    /// How long one question may take.
    ask: Duration,
}

impl std::fmt::Debug for TopicAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicAdmin").finish_non_exhaustive()
    }
}

impl TopicAdmin {
    /// Clients that have not connected yet. Not to be called, used or dropped on a thread of an async runtime.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(connection: &KafkaConnection) -> Result<Self, TopicError> {
        let mut config = connection.client_config("topics");
        let admin = config.create_with_context(Told::new("topics")).map_err(TopicError::Client)?;
        config.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "-1");
        let asker = config.create_with_context(Told::new("topics")).map_err(TopicError::Client)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(TopicError::Wait)?;
        Ok(Self { asker, admin, runtime, ask: ASK })
    }

    /// Creates a topic and waits until it is known and led. False: it existed, and was left as it is.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses, or the topic is not there in time.
    pub fn create(&self, plan: &TopicPlan) -> Result<bool, TopicError> {
        let topic = plan.name.as_str();
        let created = self.partitions(topic)?.is_none() && self.create_now(plan)?;
        let led = |found: &PartitionFound| found.leader.is_some();
        self.wait(topic, "known", |found| found.is_some_and(|partitions| partitions.iter().all(led)))?;
        Ok(created)
    }

    fn create_now(&self, plan: &TopicPlan) -> Result<bool, TopicError> {
        let new = NewTopic::new(&plan.name, plan.partitions, TopicReplication::Fixed(plan.replicas));
        let new = plan.settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        let created = self.persist(&format!("create topic {}", plan.name), || {
            match one(self.runtime.block_on(self.admin.create_topics([&new], &self.options()))?) {
                Err(KafkaError::AdminOp(Code::TopicAlreadyExists)) => Ok(false),
                answer => answer.map(|()| true),
            }
        })?;
        if created {
            tracing::info!(topic = plan.name, partitions = plan.partitions, "topic created");
        }
        Ok(created)
    }

    /// Deletes a topic with all its records, and waits until it is gone. False: there was none.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses, or the topic is still there after a while.
    pub fn delete(&self, topic: &str) -> Result<bool, TopicError> {
        if self.partitions(topic)?.is_none() {
            return Ok(false);
        }
        let deleted = self.persist(&format!("delete topic {topic}"), || {
            match one(self.runtime.block_on(self.admin.delete_topics(&[topic], &self.options()))?) {
                Err(KafkaError::AdminOp(Code::UnknownTopicOrPartition)) => Ok(false),
                answer => answer.map(|()| true),
            }
        })?;
        self.wait(topic, "gone", |found| found.is_none())?;
        if deleted {
            tracing::info!(topic, "topic deleted");
        }
        Ok(deleted)
    }

    /// All topics by name, those of Kafka itself among them.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn list(&self) -> Result<Vec<ListedTopic>, TopicError> {
        let metadata = self.persist("list topics", || self.asker.fetch_metadata(None, self.ask))?;
        let listed = |topic: &MetadataTopic| ListedTopic {
            name: topic.name().to_owned(),
            partitions: topic.partitions().len(),
            replicas: topic.partitions().iter().map(|partition| partition.replicas().len()).max().unwrap_or(0),
        };
        let mut topics: Vec<_> = metadata.topics().iter().map(listed).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Whether a topic exists.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses: then nobody knows.
    pub fn exists(&self, topic: &str) -> Result<bool, TopicError> {
        Ok(self.partitions(topic)?.is_some())
    }

    /// How many partitions a topic has; `None`: it does not exist.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn partition_count(&self, topic: &str) -> Result<Option<usize>, TopicError> {
        Ok(self.partitions(topic)?.map(|partitions| partitions.len()))
    }

    /// All about a topic; `None`: it does not exist.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn describe(&self, topic: &str) -> Result<Option<TopicDescription>, TopicError> {
        let Some(partitions) = self.partitions(topic)? else { return Ok(None) };
        let id = match topic_id(self.asker.client(), topic, self.ask) {
            TopicId::Is(id) => Some(id),
            TopicId::Unknown | TopicId::Unanswered | TopicId::Failed => None,
        };
        Ok(Some(TopicDescription { name: topic.to_owned(), id, partitions, settings: self.settings(topic)? }))
    }

    /// Creates a topic if there is none. One that exists is compared with the plan and left as it is.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses.
    pub fn ensure(&self, plan: &TopicPlan) -> Result<Ensured, TopicError> {
        let topic = plan.name.as_str();
        let created = self.create(plan)?;
        let mut differences = Vec::new();
        if !created {
            let count = self.partition_count(topic)?.unwrap_or(0);
            let settings = if plan.setting(CLEANUP_POLICY).is_some() { self.settings(topic)? } else { Vec::new() };
            let policy = settings.iter().find(|found| found.name == CLEANUP_POLICY);
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            differences = plan.differences(count, policy.map(|found| found.value.as_str()));
        }
        Ok(Ensured { topic: topic.to_owned(), created, differences })
    }

    /// Ensures the topic of the telemetry and that of its dead letters, whose name is the configuration's to say. May be
    /// called again and again.
    ///
    /// # Errors
    /// When Kafka cannot be reached or refuses. The first topic may exist by then.
    pub fn ensure_topics_with_dlq(
        &self,
        telemetry: &TopicPlan,
        dead_letters: &TopicPlan,
    ) -> Result<[Ensured; 2], TopicError> {
        Ok([self.ensure(telemetry)?, self.ensure(dead_letters)?])
    }

    fn partitions(&self, topic: &str) -> Result<Option<Vec<PartitionFound>>, TopicError> {
        self.persist(&format!("look at topic {topic}"), || self.look(topic))
    }

    fn look(&self, topic: &str) -> KafkaResult<Option<Vec<PartitionFound>>> {
        let metadata = self.asker.fetch_metadata(Some(topic), self.ask)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        if let Some(code) = found.error() {
            let error = KafkaError::MetadataFetch(code.into());
            match classify_error(&error) {
                Some(ErrorType::TopicMissing) => return Ok(None),
                // It exists; that nobody leads it shows in the partitions.
                Some(ErrorType::Leader) => {}
                _ => return Err(error),
            }
        }
        let mut partitions: Vec<_> = found
            .partitions()
            .iter()
            .map(|partition| PartitionFound {
                partition: partition.id(),
                leader: Some(partition.leader()).filter(|leader| *leader >= 0),
                replicas: partition.replicas().to_vec(),
                in_sync: partition.isr().to_vec(),
            })
            .collect();
        partitions.sort_by_key(|partition| partition.partition);
        Ok((!partitions.is_empty()).then_some(partitions))
    }

    fn settings(&self, topic: &str) -> Result<Vec<SettingFound>, TopicError> {
        let resource = ResourceSpecifier::Topic(topic);
        let found = self.persist(&format!("read the settings of topic {topic}"), || {
            let answer = self.runtime.block_on(self.admin.describe_configs([&resource], &self.options()))?;
            answer.into_iter().next().unwrap_or(Err(Code::NoEnt)).map_err(KafkaError::AdminOp)
        })?;
        let mut settings: Vec<_> = found
            .entries
            .into_iter()
            .filter(|entry| !entry.is_sensitive)
            .filter_map(|entry| {
                let own = entry.source == ConfigSource::DynamicTopic;
                Some(SettingFound { name: entry.name, value: entry.value?, own })
            })
            .collect();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(settings)
    }

    /// Looks again and again until a topic is as it should be.
    fn wait(
        &self,
        topic: &str,
        awaited: &'static str,
        done: impl Fn(Option<&[PartitionFound]>) -> bool,
    ) -> Result<(), TopicError> {
        let deadline = Instant::now() + SETTLE;
        for attempt in 0.. {
            if done(self.partitions(topic)?.as_deref()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(RETRY.delay(attempt, fastrand::f64()));
        }
        Err(TopicError::Unsettled { topic: topic.to_owned(), awaited })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.ask)).operation_timeout(Some(self.ask))
    }

    /// Asks again after faults that pass.
    fn persist<T>(&self, doing: &str, mut ask: impl FnMut() -> KafkaResult<T>) -> Result<T, TopicError> {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let source = match ask() {
                Ok(answer) => return Ok(answer),
                Err(source) => source,
            };
            serve_events(&self.asker, Duration::ZERO);
            let (kind, reason) = cause(&source, self.asker.client().context().take());
            if attempt == RETRIES || started.elapsed() >= PATIENCE || !passes(kind, &source) {
                return Err(TopicError::Kafka { doing: doing.to_owned(), kind, reason, source: Box::new(source) });
            }
            tracing::debug!(doing, error = %source, "asking Kafka again");
            std::thread::sleep(RETRY.delay(attempt, fastrand::f64()));
            attempt += 1;
        }
    }
}

/// The answer about the one topic that was asked for.
fn one(answers: Vec<rdkafka::admin::TopicResult>) -> KafkaResult<()> {
    match answers.into_iter().next() {
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::kafka::demo_broker::DemoBroker;
    use crate::kafka::security::KafkaSecurityConfig;

    fn admin(brokers: &str) -> TopicAdmin {
        let connection = KafkaConnection {
            brokers: brokers.to_owned(),
            client_id: "test".into(),
            security: KafkaSecurityConfig::default(),
            address_family: None,
        };
        TopicAdmin::new(&connection).unwrap()
    }

    #[test]
    fn what_exists_is_found_and_what_does_not_is_not() {
        let broker = DemoBroker::start("runs", 7, "runs-dlq").unwrap();
        let admin = admin(broker.bootstrap());
        assert_eq!(admin.partition_count("runs").unwrap(), Some(7));
        assert!(admin.exists("runs-dlq").unwrap());
        let names: Vec<_> = admin.list().unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["runs", "runs-dlq"]);
        assert!(!admin.create(&TopicPlan::plain("runs", 1)).unwrap(), "it existed");
    }

    #[test]
    fn a_broker_that_is_away_is_no_topic_that_does_not_exist() {
        let admin = TopicAdmin { ask: Duration::from_millis(100), ..admin("127.0.0.1:1") };
        let error = admin.exists("runs").unwrap_err();
        let told = error.to_string();
        assert!(told.contains("look at topic runs") && told.contains("KAFKA_BROKERS"), "{told}");
        assert!(error.source().is_some());
    }
}
