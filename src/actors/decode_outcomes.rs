//! Counts what became of the records of a batch: outcomes, kinds, age.
//!
//! Once per batch, not per record. It must not decide which records count.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, IntCounter};

use crate::metrics::Metrics;
use crate::pipeline::decode::{Kind, Verdict};

/// The time at which a batch is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    unix_us: i64,
}

impl Now {
    pub(super) fn read() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_us: i64::try_from(since.as_micros()).unwrap_or(i64::MAX) }
    }

    pub(super) const fn unix_ms(self) -> i64 {
        self.unix_us / 1000
    }
}

/// The outcomes of one batch.
#[derive(Debug, Default)]
pub(super) struct Tally {
    delivered: u64,
    unprocessable: [u64; Kind::ALL.len()],
    /// Records whose producer's time lies in the future.
    skewed: u64,
    /// Age in microseconds of the first and the last record that states a time: enough for a picture of latency.
    first_age_us: Option<i64>,
    last_age_us: Option<i64>,
}

impl Tally {
    pub(super) fn note(&mut self, verdict: Verdict, now: Now) {
        match verdict {
            Verdict::Deliver(meta) => {
                self.delivered += 1;
                if meta.timestamp_us > 0 {
                    let age = now.unix_us.saturating_sub(meta.timestamp_us);
                    self.skewed += u64::from(age < 0);
                    if self.first_age_us.is_none() {
                        self.first_age_us = Some(age);
                    } else {
                        self.last_age_us = Some(age);
                    }
                }
            }
            Verdict::Unprocessable(kind) => {
                if let Some(count) = self.unprocessable.get_mut(kind as usize) {
                    *count += 1;
                }
            }
        }
    }
}

/// The counters of outcomes, looked up once.
#[derive(Debug)]
pub(super) struct Outcomes {
    success: IntCounter,
    error: IntCounter,
    kinds: [IntCounter; Kind::ALL.len()],
    payload_missing: IntCounter,
    latency_ms: Histogram,
    clock_skew: IntCounter,
    new: NewRecords,
}

/// The counters of those that were not there when reading began.
#[derive(Debug)]
struct NewRecords {
    success: IntCounter,
    error: IntCounter,
    payload_missing: IntCounter,
}

impl Outcomes {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            success: metrics.kafka_messages.with_label_values(&["success"]),
            error: metrics.kafka_messages.with_label_values(&["error"]),
            kinds: Kind::ALL.map(|kind| metrics.decode_errors.with_label_values(&[kind.as_str()])),
            payload_missing: metrics.payload_missing.clone(),
            latency_ms: metrics.e2e_latency.with_label_values(&["producer_to_consumer"]),
            clock_skew: metrics.clock_skew.clone(),
            new: NewRecords {
                success: metrics.new_records.with_label_values(&["success"]),
                error: metrics.new_records.with_label_values(&["error"]),
                payload_missing: metrics.new_records.with_label_values(&["payload_missing"]),
            },
        }
    }

    /// `new`: the batch lies behind what was there when reading began.
    pub(super) fn add(&self, tally: &Tally, new: bool) {
        let bad: u64 = tally.unprocessable.iter().sum();
        self.success.inc_by(tally.delivered);
        self.error.inc_by(bad);
        if new {
            let missing = tally.unprocessable.get(Kind::PayloadMissing as usize).copied().unwrap_or_default();
            self.new.success.inc_by(tally.delivered);
            self.new.error.inc_by(bad - missing);
            self.new.payload_missing.inc_by(missing);
        }
        for (kind, (counter, count)) in Kind::ALL.iter().zip(self.kinds.iter().zip(tally.unprocessable)) {
            counter.inc_by(count);
            if *kind == Kind::PayloadMissing {
                self.payload_missing.inc_by(count);
            }
        }
        self.clock_skew.inc_by(tally.skewed);
        for age_us in [tally.first_age_us, tally.last_age_us].into_iter().flatten() {
            if age_us >= 0 {
                #[allow(clippy::cast_precision_loss, reason = "a latency in a histogram")]
                self.latency_ms.observe(age_us as f64 / 1000.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::decode::Meta;

    #[test]
    fn every_record_of_the_future_is_counted_and_latency_is_that_of_the_first_and_the_last() {
        let metrics = Metrics::new().unwrap();
        let (mut tally, now) = (Tally::default(), Now { unix_us: 1_000_000 });
        for timestamp_us in [0, 900_000, 1_000_001, 2_000_000, 3_000_000, 998_000] {
            tally.note(Verdict::Deliver(Meta { message_type: 1, items_start: 0, items_len: 0, timestamp_us }), now);
        }
        Outcomes::new(&metrics).add(&tally, true);
        let latency = metrics.e2e_latency.with_label_values(&["producer_to_consumer"]);
        assert_eq!(metrics.clock_skew.get(), 3);
        assert_eq!((latency.get_sample_count(), latency.get_sample_sum()), (2, 102.0));
    }
}
