//! What is counted and told of a resume, once, however it ended.
//!
//! It must not know why it ended.

use std::time::Duration;

use super::session_queue::SessionInfo;
use crate::metrics::Metrics;
use crate::spans::{ResumeEnd, Resumed, Spans};

/// A resume that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Records that were replayed.
    pub replayed: u64,
    /// From the request to the end.
    pub took: Duration,
    /// It was asked for threads.
    pub threads: bool,
}

/// Counts a resume and tells a collector. How long it took is a measure only of those that were answered.
pub fn count(info: &SessionInfo, ended: &Ended, end: ResumeEnd, metrics: &Metrics, spans: &Spans) {
    let Ended { replayed, took, threads } = *ended;
    let mode = [if threads { "thread" } else { "partition" }];
    metrics.replay_messages.with_label_values(&mode).inc_by(replayed);
    if end != ResumeEnd::TimedOut {
        metrics.replay_latency.with_label_values(&mode).observe(took.as_secs_f64() * 1000.0);
    }
    if end == ResumeEnd::Capped {
        metrics.replay_capped.inc();
    }
    let SessionInfo { session, dialect, trace: parent, .. } = *info;
    spans.resumed(&Resumed { session, parent, protocol: dialect.as_str(), replayed, end, took });
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Instant;

    use super::*;
    use crate::wire::control::Dialect;

    #[test]
    fn records_of_a_resume_count_however_it_ended_and_its_time_only_when_it_was_answered() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let info = SessionInfo { session: 1, dialect: Dialect::V2, address, opened: Instant::now(), trace: None };
        for (end, answered, capped) in [(ResumeEnd::Live, 1, 0), (ResumeEnd::Capped, 1, 1), (ResumeEnd::TimedOut, 0, 0)]
        {
            for (threads, mode) in [(false, "partition"), (true, "thread")] {
                let metrics = Metrics::new().unwrap();
                let ended = Ended { replayed: 7, took: Duration::from_millis(30), threads };
                count(&info, &ended, end, &metrics, &Spans::default());
                let latency = metrics.replay_latency.with_label_values(&[mode]).get_sample_count();
                let records = metrics.replay_messages.with_label_values(&[mode]).get();
                assert_eq!((records, latency, metrics.replay_capped.get()), (7, answered, capped), "{end:?} {mode}");
            }
        }
    }
}
