//! The threads that a topic holds messages of: a line for each, so that one finds the run that one wants.
//!
//! Bounded: of very many the ones heard of last are kept. A thread's state is what its last word about it was, as on the page.
//! It must not know what else a message says.

use std::collections::HashMap;

use super::item::{Body, Item};
use super::run::time_us;
use super::tree::Status;
use crate::wire::telemetry::EventType;

/// As many threads are kept at least; twice as many at most.
const KEPT: usize = 10_000;

/// What is known of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Whose.
    pub tenant: String,
    /// Its id.
    pub thread: String,
    /// Its last graph; empty when nobody told.
    pub graph: String,
    /// How it stands.
    pub status: Status,
    /// When its first message was made, in Unix microseconds.
    pub start_us: Option<i64>,
    /// When its last one was.
    pub end_us: Option<i64>,
    /// How many there are, repeated sends among them.
    pub messages: u64,
    /// When the message was made that decided how it stands.
    decided_us: Option<i64>,
    turn: u64,
}

/// The threads so far.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    threads: HashMap<(String, String), Thread>,
    turn: u64,
    left_out: u64,
}

impl Threads {
    /// Takes in a message of a thread.
    pub fn touch(&mut self, thread: &str, item: &Item) {
        self.turn += 1;
        let key = (item.header.tenant_id.clone(), thread.to_owned());
        let known = self.threads.entry(key).or_insert_with_key(|(tenant, thread)| Thread {
            tenant: tenant.clone(),
            thread: thread.clone(),
            ..Thread::default()
        });
        known.turn = self.turn;
        known.messages += 1;
        if let Some(time) = time_us(item) {
            known.start_us = Some(known.start_us.map_or(time, |start| start.min(time)));
            known.end_us = Some(known.end_us.map_or(time, |end| end.max(time)));
        }
        // A start that is sent once more after the end does not begin anything.
        let signal = signal(&item.body).filter(|_| time_us(item).is_none_or(|time| known.decided_us <= Some(time)));
        if let Some(status) =
            signal.filter(|(_, is_summary)| !is_summary || !known.status.is_over()).map(|(status, _)| status)
        {
            known.status = status;
            known.decided_us = time_us(item).or(known.decided_us);
        }
        if let Body::Event(event) = &item.body
            && let Some(graph) = super::fact::text(&event.attributes, "graph_name")
        {
            graph.clone_into(&mut known.graph);
        }
        if self.threads.len() > KEPT * 2 {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        let mut turns: Vec<u64> = self.threads.values().map(|thread| thread.turn).collect();
        turns.sort_unstable();
        let from = turns.get(turns.len().saturating_sub(KEPT)).copied().unwrap_or_default();
        let before = self.threads.len();
        self.threads.retain(|_, thread| thread.turn >= from);
        self.left_out += (before - self.threads.len()) as u64;
    }

    /// The last `count` by the time of their last message, the newest last, and how many more there are.
    pub fn latest(&self, count: usize) -> (Vec<&Thread>, u64) {
        let mut all: Vec<&Thread> = self.threads.values().collect();
        all.sort_by_key(|thread| (thread.end_us, thread.turn));
        let left = all.len().saturating_sub(count);
        (all.split_off(left), self.left_out.saturating_add(left as u64))
    }
}

/// How a run stands by this message, and whether that is only the summary at its end; `None` when it does not say.
fn signal(body: &Body) -> Option<(Status, bool)> {
    match body {
        Body::Event(event) => {
            let is_alert = event.attributes.contains_key("alert_type");
            let status = match EventType::try_from(event.event_type).ok()? {
                EventType::GraphStart | EventType::HumanResume => Status::Running,
                EventType::GraphEnd => Status::Completed,
                EventType::GraphError if !is_alert => Status::Failed,
                EventType::HumanInterrupt => Status::Waiting,
                _ => return None,
            };
            Some((status, false))
        }
        Body::ExecutionTrace(trace) => Some((if trace.completed { Status::Completed } else { Status::Failed }, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::make;
    use super::*;

    #[test]
    fn threads_are_listed_newest_last_with_what_became_of_them() {
        let mut threads = Threads::default();
        let start = |time| make::text(make::event(1, time, EventType::GraphStart, ""), "graph_name", "g");
        threads.touch("late", &start(100));
        threads.touch("early", &start(10));
        threads.touch("early", &make::event(2, 20, EventType::GraphEnd, ""));
        let (found, more) = threads.latest(5);
        let told: Vec<_> = found
            .iter()
            .map(|of| (of.thread.as_str(), of.status, of.messages, of.start_us, of.graph.as_str()))
            .collect();
        assert_eq!(
            told,
            [("early", Status::Completed, 2, Some(10), "g"), ("late", Status::Running, 1, Some(100), "g")]
        );
        assert_eq!(more, 0);
        let (found, more) = threads.latest(1);
        assert_eq!((found[0].thread.as_str(), more), ("late", 1));
    }

    #[test]
    fn a_start_that_is_sent_again_after_the_end_does_not_begin_anew() {
        let mut threads = Threads::default();
        let (start, end) = (make::event(1, 10, EventType::GraphStart, ""), make::event(2, 20, EventType::GraphEnd, ""));
        let again = make::event(1, 30, EventType::GraphStart, "");
        for (item, status) in [
            (&start, Status::Running),
            (&end, Status::Completed),
            (&start, Status::Completed),
            (&again, Status::Running),
        ] {
            threads.touch("t", item);
            assert_eq!(threads.latest(1).0[0].status, status);
        }
    }

    #[test]
    fn however_many_threads_there_are_the_newest_are_kept() {
        let mut threads = Threads::default();
        for index in 0..KEPT as i64 * 3 {
            threads.touch(&index.to_string(), &make::event(1, index + 1, EventType::NodeStart, "a"));
        }
        assert!(threads.threads.len() <= KEPT * 2);
        let (found, more) = threads.latest(2);
        assert_eq!(found[1].thread, (KEPT * 3 - 1).to_string());
        assert_eq!(more + 2, KEPT as u64 * 3);
    }
}
