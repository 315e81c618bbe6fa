//! Watches the topic: how many partitions it has, whether it is still the same one, whether Kafka answers at all.
//!
//! Own client, own thread. It reports facts to the reader and draws no conclusion that needs the reader's state.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::monitor::{KafkaMonitor, MonitorContext, TopicState, serve_events};
use super::reader::ReaderCommand;
use super::settings::{ASK, IngestSettings, RETRY};
use super::stop::Stop;
use super::topic::{TopicId, topic_id};
use super::watermarks::ends;
use crate::board::Board;
use crate::pipeline::epoch::{TopicFacts, epoch_name, same_log};

/// So many unanswered questions for the topic id, and none answered, mean that the cluster does not know ids. Until then
/// nothing is told: the name that the topic gets without its id stays with it for as long as the process lives.
const ID_TRIES: u32 = 3;

/// What the watch needs.
#[derive(Debug)]
pub struct TopicWatch {
    /// Names and times.
    pub settings: IngestSettings,
    /// The reader's positions, for clusters without topic ids.
    pub board: Board,
    /// Where faults go.
    pub monitor: Arc<KafkaMonitor>,
    /// Ends the watch.
    pub stop: Stop,
    /// Where facts go.
    pub reader: SyncSender<ReaderCommand>,
    /// Somebody wants to know now.
    pub look_now: Receiver<()>,
}

/// What is known about the topic's id.
struct Ids {
    known: Option<String>,
    unanswered: u32,
    /// Whether the cluster knows ids, as far as is known.
    supported: bool,
}

/// What one look found.
#[derive(Debug, PartialEq)]
struct Look {
    facts: TopicFacts,
    /// Offsets seem to have gone back (asked only where ids do not tell).
    behind: bool,
    /// This look asked Kafka which topic it is, and was answered. The facts may hold an id of an earlier one.
    answered: bool,
}

impl Ids {
    /// Takes an answer. An unanswered question keeps the last one.
    fn take(&mut self, answer: TopicId) {
        match answer {
            TopicId::Is(id) => self.known = Some(id),
            TopicId::Unknown if self.known.is_none() => self.supported = false,
            TopicId::Unanswered if self.known.is_none() => {
                self.unanswered += 1;
                self.supported = self.unanswered < ID_TRIES;
            }
            TopicId::Unknown | TopicId::Unanswered | TopicId::Failed => {}
        }
    }

    /// Whether it may still be learned which topic this is.
    fn is_open(&self) -> bool {
        self.supported && self.known.is_none()
    }
}

impl TopicWatch {
    /// Watches until stopped.
    ///
    /// # Errors
    /// When no client can be made from the settings.
    pub fn run(self) -> Result<(), KafkaError> {
        let context = MonitorContext { client: "topic-watch", monitor: Arc::clone(&self.monitor) };
        let client: BaseConsumer<MonitorContext> =
            self.settings.asking_config("topic-watch").create_with_context(context)?;
        let mut ids = Ids { known: None, unanswered: 0, supported: !self.settings.topic_id_timeout.is_zero() };
        let (mut told, mut failures, mut went_back) = (None, 0, 0);
        while !self.stop.is_stopped() {
            let (epoch, asked) = (self.board.epoch(), Instant::now());
            let wait = match self.look(&client, &mut ids) {
                Ok(Look { facts, behind, answered }) => {
                    failures = 0;
                    if answered && !behind && same_log(&epoch.name, &epoch_name(&self.settings.topic, &facts)) {
                        self.board.confirm(epoch.number, asked);
                    }
                    went_back = if behind { went_back + 1 } else { 0 };
                    let back = (went_back >= 2).then_some(epoch.number);
                    if back.is_some() || told.as_ref() != Some(&facts) {
                        let command = ReaderCommand::Facts { facts: facts.clone(), went_back: back };
                        if self.reader.send(command).is_err() {
                            return Ok(());
                        }
                        told = Some(facts);
                        went_back = 0;
                    }
                    self.settings.metadata_interval
                }
                Err(missing) => {
                    // After a topic was away it is told anew, even if it looks the same.
                    if missing {
                        told = None;
                    }
                    failures += 1;
                    RETRY.delay(failures - 1, fastrand::f64())
                }
            };
            if self.pause(&client, wait) {
                told = None;
            }
        }
        Ok(())
    }

    /// Waits; true when somebody asked for a look meanwhile.
    fn pause(&self, client: &BaseConsumer<MonitorContext>, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            serve_events(client, Duration::ZERO);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.is_stopped() {
                return false;
            }
            match self.look_now.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.stop.wait(left),
            }
        }
    }

    /// One look. `Err`: not all is known yet, and whether that is because the topic is missing.
    fn look(&self, client: &BaseConsumer<MonitorContext>, ids: &mut Ids) -> Result<Look, bool> {
        let topic = self.settings.topic.as_str();
        let fetched: Vec<_> =
            self.board.partitions().iter().filter_map(|p| Some((p.partition, p.fetched.get()?))).collect();
        let metadata = client.fetch_metadata(Some(topic), ASK).map_err(|error| {
            self.monitor.fault("topic-watch", "fetch the topic's metadata", &error, "");
            false
        })?;
        let partitions = match metadata.topics().iter().find(|found| found.name() == topic) {
            Some(found) => match found.error() {
                None if !found.partitions().is_empty() => i32::try_from(found.partitions().len()).unwrap_or(i32::MAX),
                None => return Err(self.missing(RDKafkaErrorCode::UnknownTopicOrPartition)),
                Some(code) => return Err(self.missing(code.into())),
            },
            None => return Err(self.missing(RDKafkaErrorCode::UnknownTopicOrPartition)),
        };
        self.monitor.contact(TopicState::Present);
        let cluster_id = match self.settings.cluster_id.as_str() {
            "" => client.client().fetch_cluster_id(ASK).unwrap_or_default(),
            configured => configured.to_owned(),
        };
        let identified = self.ask_id(client, ids);
        if ids.is_open() {
            return Err(false);
        }
        let went_back = if ids.supported { None } else { self.went_back(client, &fetched, partitions) };
        Ok(Look {
            facts: TopicFacts { cluster_id, topic_id: ids.known.clone(), partitions },
            behind: went_back == Some(true),
            answered: identified || went_back.is_some(),
        })
    }

    /// Asks for the topic's id, as long as the cluster seems to know ids. True when it was told now.
    fn ask_id(&self, client: &BaseConsumer<MonitorContext>, ids: &mut Ids) -> bool {
        if !ids.supported {
            return false;
        }
        let answer = topic_id(client.client(), &self.settings.topic, self.settings.topic_id_timeout);
        let identified = matches!(answer, TopicId::Is(_));
        ids.take(answer);
        if !ids.supported {
            tracing::info!(
                topic = self.settings.topic,
                "the cluster does not tell topic ids; a re-created topic is noticed by its offsets"
            );
        }
        identified
    }

    /// Whether a partition ends before what was already read of it when the look began. `None`: Kafka did not say, or
    /// nothing was read.
    fn went_back(
        &self,
        client: &BaseConsumer<MonitorContext>,
        fetched: &[(i32, i64)],
        partitions: i32,
    ) -> Option<bool> {
        let asked: Vec<i32> = fetched.iter().map(|(partition, _)| *partition).filter(|p| *p < partitions).collect();
        if asked.is_empty() {
            return None;
        }
        match ends(client, &self.settings.topic, &asked, ASK) {
            Ok(ends) => Some(ends.iter().zip(asked.iter()).any(|(end, partition)| {
                fetched.iter().any(|(fetched, position)| fetched == partition && position > end)
            })),
            Err(error) => {
                self.monitor.fault("topic-watch", "look up the end of the topic", &error, "");
                None
            }
        }
    }

    /// Kafka answered, but has no such topic (or no leader for it yet). Answers whether it is missing.
    fn missing(&self, code: RDKafkaErrorCode) -> bool {
        let missing = code == RDKafkaErrorCode::UnknownTopicOrPartition;
        self.monitor.contact(if missing { TopicState::Missing } else { TopicState::Unknown });
        let error = KafkaError::MetadataFetch(code);
        self.monitor.fault("topic-watch", "find the topic", &error, &format!("topic {}: {code}", self.settings.topic));
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::kafka::connection::KafkaConnection;
    use crate::metrics::Metrics;

    fn ids() -> Ids {
        Ids { known: None, unanswered: 0, supported: true }
    }

    fn after(answers: &[TopicId]) -> (Option<String>, bool) {
        let mut ids = ids();
        answers.iter().for_each(|answer| ids.take(answer.clone()));
        (ids.known.clone(), ids.is_open())
    }

    #[test]
    fn the_topic_is_told_once_its_id_is_known_or_will_not_be_known() {
        use TopicId::{Failed, Is, Unanswered, Unknown};
        let id = || Is("a".into());
        let known = (Some("a".to_owned()), false);
        assert_eq!(after(&[]), (None, true));
        assert_eq!(after(&[id()]), known);
        assert_eq!(after(&[Unanswered, Unanswered]), (None, true), "it may come yet");
        assert_eq!(after(&[Unanswered, Unanswered, id()]), known);
        assert_eq!(after(&[Unanswered, Unanswered, Unanswered]), (None, false));
        assert_eq!(after(&[Unknown]), (None, false), "that was an answer");
        assert_eq!(after(&[Failed, Failed, Failed, Failed, Failed]), (None, true), "that says nothing about ids");
        for later in [Unknown, Unanswered, Failed] {
            assert_eq!(after(&[id(), later.clone(), later.clone(), later]), known, "the last answer holds");
        }
    }

    /// The mock cluster never answers the question.
    #[test]
    fn a_cluster_that_does_not_answer_is_asked_again_before_the_topic_gets_a_name() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 3, 1).unwrap();
        let connection = KafkaConnection {
            brokers: mock.bootstrap_servers(),
            client_id: "test".into(),
            security: Default::default(),
            address_family: None,
        };
        let mut settings = IngestSettings::new(connection, "t", "g", "i");
        settings.topic_id_timeout = Duration::from_millis(100);
        let monitor = Arc::new(KafkaMonitor::new(Arc::new(Metrics::new().unwrap())));
        let client = settings
            .asking_config("topic-watch")
            .create_with_context(MonitorContext { client: "topic-watch", monitor: Arc::clone(&monitor) })
            .unwrap();
        let (reader, _commands) = sync_channel(1);
        let (_look, look_now) = sync_channel(1);
        let watch = TopicWatch { settings, board: Board::new(), monitor, stop: Stop::new(), reader, look_now };
        let (mut ids, mut looks) = (ids(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(60);
        while looks.last().is_none_or(Result::is_err) && Instant::now() < deadline {
            looks.push(watch.look(&client, &mut ids));
        }
        let Look { facts, behind, answered } = looks.pop().unwrap().unwrap();
        assert_eq!((facts.topic_id, facts.partitions), (None, 3));
        assert!(!behind && !answered, "nothing was read that the ends of the log could confirm");
        assert!(looks.len() >= 2, "{looks:?}");
        assert!(looks.iter().all(|look| *look == Err(false)));
        watch.board.opened(1).fetched.set(0);
        let Look { facts, behind, answered } = watch.look(&client, &mut ids).unwrap();
        assert_eq!(facts.topic_id, None);
        assert!(!behind && answered, "where ids do not tell, the ends of the log do");
        watch.board.opened(2).fetched.set(7);
        assert!(watch.look(&client, &mut ids).unwrap().behind, "nobody could have read that far");
        watch.board.opened(2).fetched.set(0);
        ids = Ids { known: Some("an id that an earlier look was told".into()), unanswered: 0, supported: true };
        let Look { facts, behind, answered } = watch.look(&client, &mut ids).unwrap();
        assert!(facts.topic_id.is_some() && !behind && !answered, "what is remembered is no answer");
    }
}
