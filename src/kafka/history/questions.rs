//! Offsets of all partitions: where a time begins.

use std::time::Instant;

use rdkafka::consumer::BaseConsumer;

use super::Shared;
use super::queue::Offsets;
use crate::board::Epoch;
use crate::kafka::errors::{ErrorType, classify_error};
use crate::kafka::monitor::MonitorContext;
use crate::kafka::settings::{ASK, RETRY};
use crate::kafka::watermarks::at_time;
use crate::pipeline::page::TierError;

impl Shared {
    /// Asks until Kafka answers or nobody waits any more.
    pub(super) fn offsets(
        &self,
        consumer: &BaseConsumer<MonitorContext>,
        epoch: &Epoch,
        asked: &Offsets,
    ) -> Result<Vec<(i32, i64)>, TierError> {
        let partitions: Vec<i32> = self.parts.board.partitions().iter().map(|board| board.partition).collect();
        self.is_current(epoch.number)?;
        for attempt in 0.. {
            let left = asked.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || asked.answer.is_given_up() {
                break;
            }
            let (topic, timeout) = (self.parts.kafka.topic.as_str(), left.min(ASK));
            match at_time(consumer, topic, &partitions, asked.time_ms, timeout) {
                Ok(found) => {
                    self.check_topic(consumer, epoch)?;
                    return Ok(partitions.into_iter().zip(found).collect());
                }
                Err(error) => {
                    self.parts.monitor.fault("history", "look up offsets of the topic", &error, "");
                    if let Some(ErrorType::TopicMissing | ErrorType::Authorization) = classify_error(&error) {
                        return Err(TierError::Unavailable(error.to_string()));
                    }
                }
            }
            if self.stop.wait(RETRY.delay(attempt, fastrand::f64()).min(left)) {
                break;
            }
        }
        Err(TierError::Timeout)
    }
}
