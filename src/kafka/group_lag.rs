//! Looks at an interval how far a group's reader is behind, on a thread and client of its own: a broker that does not answer
//! this question does not stop the reading.
//!
//! What a look means is [`crate::quality::lag`]'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::group_reader::GroupSettings;
use super::group_state::{AskingContext, GroupState};
use super::monitor::serve_until;
use super::settings::ASK;
use super::stop::Stop;
use super::watermarks::known_watermarks;
use crate::quality::lag::{Look, behind};

/// Until something is known, and while nothing answers, looks are as often as this.
const SOON: Duration = Duration::from_secs(1);

/// What the looks need.
#[derive(Debug)]
pub struct GroupLag {
    /// Whose group it is.
    pub settings: GroupSettings,
    /// What the reader has handled, and where faults go.
    pub state: Arc<GroupState>,
    /// Between looks.
    pub interval: Duration,
    /// Ends them.
    pub stop: Stop,
}

impl GroupLag {
    /// Looks until stopped.
    ///
    /// # Errors
    /// When no client can be made from the settings.
    pub fn run(&self) -> KafkaResult<()> {
        let mut config = self.settings.connection.client_config("lag");
        // The group's commits are asked for; this client never joins it.
        config
            .set("group.id", &self.settings.group)
            .set("enable.auto.commit", "false")
            .set("topic.metadata.refresh.interval.ms", "-1");
        let client: BaseConsumer<AskingContext> = config.create_with_context(AskingContext(Arc::clone(&self.state)))?;
        let mut first_ends = BTreeMap::new();
        let mut shown = BTreeSet::new();
        loop {
            let looked = self.look(&client, &mut first_ends);
            let read = self.state.positions();
            let known = looked.as_ref().is_ok_and(|lags| !lags.is_empty() && lags.keys().eq(read.keys()));
            self.show(&looked, known, &mut shown);
            let wait = if known { self.interval } else { self.interval.min(SOON) };
            if serve_until(&self.stop, &client, wait) {
                return Ok(());
            }
        }
    }

    /// The lag of each partition of which it can be told. Blocks, at most six times [`ASK`].
    fn look(
        &self,
        client: &BaseConsumer<AskingContext>,
        first_ends: &mut BTreeMap<i32, i64>,
    ) -> KafkaResult<BTreeMap<i32, i64>> {
        let topic = &self.settings.topic;
        let metadata = client.fetch_metadata(Some(topic), ASK)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        self.state.contact(found.is_none_or(|found| found.error().is_some() || found.partitions().is_empty()));
        let positions = self.state.positions();
        first_ends.retain(|partition, _| positions.contains_key(partition));
        let partitions: Vec<i32> = positions.keys().copied().collect();
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let marks = known_watermarks(client, topic, &partitions, ASK)?;
        let unread: Vec<i32> = positions.iter().filter(|(_, next)| next.is_none()).map(|(p, _)| *p).collect();
        let committed = self.committed(client, &unread)?;
        // Meanwhile the reader has read on.
        let positions = self.state.positions();
        let lags = marks.into_iter().filter(|mark| positions.contains_key(&mark.partition)).map(|mark| {
            let first_end = *first_ends.entry(mark.partition).or_insert(mark.high);
            let look = Look {
                next: positions.get(&mark.partition).copied().flatten(),
                committed: committed.get(&mark.partition).copied(),
                bounds: (mark.low, mark.high),
                first_end,
            };
            (mark.partition, behind(look, self.settings.from_earliest))
        });
        Ok(lags.collect())
    }

    /// The group's commits for these partitions, where there are some.
    fn committed(&self, client: &BaseConsumer<AskingContext>, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.settings.topic, *partition);
        }
        let found = client.committed_offsets(list, ASK)?;
        let offsets = found.elements().into_iter().filter_map(|entry| match entry.offset() {
            Offset::Offset(offset) => Some((entry.partition(), offset)),
            _ => None,
        });
        Ok(offsets.collect())
    }

    /// Publishes a look. What is not known has no series.
    fn show(&self, looked: &KafkaResult<BTreeMap<i32, i64>>, known: bool, shown: &mut BTreeSet<i32>) {
        let metrics = self.state.metrics();
        let none = BTreeMap::new();
        let lags = match looked {
            Ok(lags) => lags,
            Err(error) => {
                metrics.lag_poll_failures.inc();
                self.state.fault("lag", "look up the ends of the topic", error, "");
                &none
            }
        };
        if looked.is_ok() && !lags.is_empty() && !known {
            metrics.lag_poll_failures.inc();
            let error = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);
            self.state.fault("lag", "look up the ends of every partition", &error, "");
        }
        match known {
            #[allow(clippy::cast_precision_loss, reason = "a lag beyond 2^53 is as bad as 2^53")]
            true => metrics.lag.set(lags.values().fold(0, |sum: i64, lag| sum.saturating_add(*lag)) as f64),
            false => metrics.lag.forget(),
        }
        for (partition, lag) in lags {
            metrics.partition_lag.with_label_values(&[&partition.to_string()]).set(*lag);
        }
        for gone in shown.iter().filter(|partition| !lags.contains_key(partition)) {
            // It is there: only shown partitions are removed.
            let _ = metrics.partition_lag.remove_label_values(&[&gone.to_string()]);
        }
        *shown = lags.keys().copied().collect();
    }
}
