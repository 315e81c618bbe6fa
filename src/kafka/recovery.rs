//! How the reader gets out of trouble and into duties: lost positions, offsets that went back, terms that begin.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::duty_reader::{DutyRange, spawn_duty_reader};
use super::opening::ask_known_bounds;
use super::read_loop::Reader;
use super::reader::{End, ReaderCommand, TURN};
use super::settings::RETRY;
use super::watermarks::Watermarks;
use crate::pipeline::epoch::{Place, place, valid_commit};
use crate::pipeline::record::LossReason;

/// How long an answer about the topic is waited for when offsets seem to have gone back.
const LOOK_WAIT: Duration = Duration::from_secs(3);
/// How long a leader may take to know the end of its log.
const SETTLE: Duration = Duration::from_millis(500);

impl Reader<'_> {
    /// Hands the open coverage of a partition over as lost to retention.
    pub(super) fn lose(&mut self, index: usize, count: i64) {
        tracing::warn!(
            topic = self.parts.settings.topic,
            partition = index,
            count,
            "offsets are lost: retention has passed them before they were read"
        );
        self.parts.monitor.metrics().lost_offsets.with_label_values(&["retention"]).inc_by(count.unsigned_abs());
        self.send(index, Some(LossReason::Retention));
    }

    /// Sets every partition to its position. Those that stand still are left out: nothing is fetched of them.
    pub(super) fn assign_all(&mut self) {
        let mut list = TopicPartitionList::with_capacity(self.partitions.len());
        for (partition, open) in (0..).zip(&self.partitions) {
            if self.standstill.holds(partition) {
                continue;
            }
            // Cannot fail: a position is never negative.
            let _ = list.add_partition_offset(
                &self.parts.settings.topic,
                partition,
                Offset::Offset(open.builder.position()),
            );
        }
        if let Err(error) = self.consumer.assign(&list) {
            self.parts.monitor.fault("reader", "assign partitions", &error, "");
            self.suspect = true;
        }
    }

    /// Some position is not in the log: finds out which, tells what is lost, goes on. The error names no partition.
    pub(super) fn recover(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        self.flush();
        if self.recoveries > 0 && self.parts.wait(RETRY.delay(self.recoveries - 1, fastrand::f64())) {
            return Err(End::Stopped);
        }
        self.recoveries += 1;
        let all: Vec<i32> = (0..).take(self.partitions.len()).collect();
        let mut beyond_before = false;
        loop {
            // A partition without a leader does not hold the others up; if it was meant, the error comes again.
            let marks = ask_known_bounds(self.parts, self.consumer, &all)?;
            let places: Vec<_> = marks.into_iter().filter_map(|mark| self.place_of(mark)).collect();
            if places.iter().any(|(_, place, _)| *place == Place::Beyond) {
                // A leader that has just taken over may be behind for a moment, so it is asked twice.
                if beyond_before {
                    return Err(End::Anew);
                }
                beyond_before = true;
                self.look_again(commands)?;
                continue;
            }
            for (index, place, mark) in places {
                if place == Place::Below
                    && let Some(open) = self.partitions.get_mut(index)
                {
                    let count = mark.low - open.builder.position();
                    open.builder.cover(mark.low);
                    self.lose(index, count);
                }
            }
            self.suspect = false;
            self.assign_all();
            return Ok(());
        }
    }

    /// Index of a partition, and where its position lies.
    fn place_of(&self, mark: Watermarks) -> Option<(usize, Place, Watermarks)> {
        let index = usize::try_from(mark.partition).ok()?;
        let position = self.partitions.get(index)?.builder.position();
        Some((index, place(position, mark.low, mark.high), mark))
    }

    /// Has the topic looked at, and waits for what the watch says.
    pub(super) fn look_again(&mut self, commands: &Receiver<ReaderCommand>) -> Result<(), End> {
        let _ = self.parts.look_now.try_send(());
        let asked = Instant::now();
        // Until the answer comes, but long enough for a new leader to settle.
        let mut answered = false;
        while asked.elapsed() < LOOK_WAIT && !(answered && asked.elapsed() > SETTLE) {
            if self.parts.stop.is_stopped() || self.parts.drain.is_stopped() {
                return Err(End::Stopped);
            }
            if let Ok(command) = commands.recv_timeout(TURN) {
                answered |= matches!(command, ReaderCommand::Facts { .. });
                self.obey(command)?;
            }
        }
        Ok(())
    }

    /// Begins the duties that were assigned, where the reader has come to their start. What it has already passed is read
    /// again for the duties alone. A partition that another owner has brought further than this reader waits until the
    /// reader is there, so that nothing is done twice.
    pub(super) fn begin_owned(&mut self) {
        if self.wishes.owns.is_empty() {
            return;
        }
        let mut ranges = Vec::new();
        let owns = std::mem::take(&mut self.wishes.owns);
        for (partition, (term, committed)) in owns {
            let index = usize::try_from(partition).unwrap_or(usize::MAX);
            let valid = committed.as_ref().and_then(|commit| valid_commit(commit, &self.epoch.name, self.recreated));
            let Some(from) = self.partitions.get(index).map(|open| valid.unwrap_or(open.start)) else {
                self.wishes.owns.insert(partition, (term, committed));
                continue;
            };
            // All that is sent from now on is judged after the term has begun.
            self.send(index, None);
            let position = self.partitions.get(index).map_or(from, |open| open.builder.position());
            if position < from {
                if self.parts.duties.holds(partition, term) {
                    self.wishes.owns.insert(partition, (term, committed));
                }
                continue;
            }
            if self.parts.duties.begin(partition, term, from, valid) && from < position {
                ranges.push(DutyRange { partition, term, from, to: position });
            }
        }
        if !ranges.is_empty() {
            spawn_duty_reader(self.parts.clone(), self.epoch.number, ranges);
        }
    }
}
