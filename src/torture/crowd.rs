//! The clients of a scenario, on a thread of their own: they misbehave until they are told to stop, and are judged then.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::ledger::Ledger;
use super::truth::{Truth, has_reached};
use super::{Report, Settings, Shared};

/// Longer than any scenario.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// Between two looks at whether all have been judged.
const LOOK: Duration = Duration::from_millis(50);

/// A log that is over.
#[derive(Debug)]
pub(super) struct Ended {
    /// What lay in it.
    pub truth: Truth,
    /// Per client the partitions of which it had applied something: of these it has to be told.
    pub known: BTreeMap<u32, BTreeSet<i32>>,
    /// Only one instance was there.
    pub one_reader: bool,
}

/// What clients are held against in the end.
#[derive(Debug)]
pub(super) struct Verdict {
    truth: Truth,
    ends: BTreeMap<i32, i64>,
    /// Below lies what retention took, per partition.
    kept_from: BTreeMap<i32, i64>,
    ended: Option<Ended>,
    /// Partitions that were there when the clients came; of later ones they get all.
    first_partitions: i32,
}

impl Verdict {
    /// A log with all that lies in it.
    pub(super) fn new(
        truth: Truth,
        kept_from: BTreeMap<i32, i64>,
        ended: Option<Ended>,
        first_partitions: i32,
    ) -> Self {
        Self { ends: truth.ends(), truth, kept_from, ended, first_partitions }
    }

    /// Whether a client has the whole stream and nothing else, and was told where offsets started again.
    ///
    /// # Errors
    /// What is missing or wrong, in words.
    pub(super) fn judge(&self, client: u32, from_the_start: bool, ledger: &Ledger) -> Result<(), String> {
        let resets = || ledger.resets.iter().filter(|reset| reset.reason != "retention");
        if let Some(ended) = &self.ended {
            let told: BTreeSet<i32> = resets().map(|reset| reset.partition).collect();
            let known = ended.known.get(&client).cloned().unwrap_or_default();
            if !known.is_subset(&told) {
                return Err(format!("it was told of the new log for {told:?}, and had something of {known:?}"));
            }
            ended.truth.compare_ended(&self.truth, ended.one_reader, ledger)?;
        }
        let expected = if self.ended.is_some() { "topic_recreated" } else { "none" };
        if let Some(reset) = resets().find(|reset| reset.reason != expected) {
            return Err(format!("offsets started again: {reset:?}"));
        }
        let kept_from = |partition: i32| self.kept_from.get(&partition).copied().unwrap_or(0);
        let gets_all = |partition: i32| from_the_start || self.ended.is_some() || partition >= self.first_partitions;
        let late = |(partition, began): &(&i32, &i64)| gets_all(**partition) && **began > kept_from(**partition);
        if let Some((partition, began)) = ledger.began.iter().find(late) {
            let kept_from = kept_from(*partition);
            return Err(format!("partition {partition} began at {began}, and is kept from {kept_from} on"));
        }
        has_reached(&self.ends, ledger)?;
        self.truth.compare(ledger, |partition, offset| offset < kept_from(partition))
    }
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Crowd {
    shared: Shared,
    clients: u32,
    verdict: Option<oneshot::Sender<Verdict>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Lets them come.
    pub(super) fn start(settings: Settings) -> std::io::Result<Self> {
        let shared = Shared::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (verdict, awaited) = oneshot::channel();
        let (clients, theirs) = (settings.clients, shared.clone());
        let thread = std::thread::Builder::new()
            .name("clients".into())
            .spawn(move || runtime.block_on(live(settings, theirs, awaited)))?;
        Ok(Self { shared, clients, verdict: Some(verdict), thread: Some(thread) })
    }

    /// Whether each of them has got something.
    pub(super) fn all_have_begun(&self) -> Result<(), String> {
        match self.shared.lock().known.len() {
            begun if begun >= self.clients as usize => Ok(()),
            begun => Err(format!("{begun} of {} have", self.clients)),
        }
    }

    /// Tells them where the instances are now.
    pub(super) fn find(&self, addresses: Vec<String>) {
        self.shared.lock().addresses = addresses;
    }

    /// Lets all of them lose their connections at once.
    pub(super) fn cut(&self) {
        self.shared.lock().cuts += 1;
    }

    /// Lets them behave well, or badly again.
    pub(super) fn calm(&self, calm: bool) {
        self.shared.lock().calm = calm;
    }

    /// Whether some have come to these ends, all of them together.
    pub(super) fn has_come_to(&self, ends: &BTreeMap<i32, i64>) -> Result<(), String> {
        let state = self.shared.lock();
        if state.over.is_some() && state.over == state.newest {
            return Err("nobody was told of the new log".to_owned());
        }
        let furthest = state.goal().furthest;
        let missing = |(partition, end): &(&i32, &i64)| furthest.get(partition).unwrap_or(&0) < *end;
        match ends.iter().find(missing) {
            Some((partition, end)) => {
                Err(format!("partition {partition} reaches to {end}, they have come to {:?}", furthest.get(partition)))
            }
            None => Ok(()),
        }
    }

    /// The topic is about to be made anew: per client the partitions of which it has something.
    pub(super) fn log_is_over(&self) -> BTreeMap<u32, BTreeSet<i32>> {
        let mut state = self.shared.lock();
        state.over = state.newest.clone();
        state.known.clone()
    }

    /// The epochs that any of them was told of.
    pub(super) fn epochs(&self) -> Vec<String> {
        self.shared.lock().logs.keys().cloned().collect()
    }

    /// Notes a promise that was broken to all of them.
    pub(super) fn blame(&self, what: &str) {
        self.shared.broken(what.to_owned());
    }

    /// Ends the misbehaviour, and waits until each has been judged, or until `stop`.
    pub(super) fn judge(&mut self, verdict: Verdict, stop: &CancellationToken) {
        self.shared.lock().at_an_end = true;
        if let Some(sender) = self.verdict.take() {
            let _ = sender.send(verdict);
        }
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.shared.lock().abandoned |= stop.is_cancelled();
            std::thread::sleep(LOOK);
        }
        self.end();
    }

    /// What they saw.
    pub(super) fn report(&self) -> Report {
        std::mem::take(&mut self.shared.lock().report)
    }

    fn end(&mut self) {
        self.shared.lock().at_an_end = true;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.blame("the clients' thread panicked");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.verdict.take());
        self.end();
    }
}

async fn live(settings: Settings, shared: Shared, awaited: oneshot::Receiver<Verdict>) {
    let mut clients: Vec<Client> =
        (0..settings.clients).map(|number| Client::new(number, &settings, shared.clone())).collect();
    let end = Instant::now() + LONG;
    join_all(clients.iter_mut().map(|client| client.misbehave(end))).await;
    if let Ok(verdict) = awaited.await {
        join_all(clients.iter_mut().map(|client| client.face(&verdict))).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::torture::ledger::Fingerprint;
    use crate::torture::truth::Expected;
    use crate::wire::stream::item::Kind;
    use crate::wire::stream::{Frame, Gap, GapReason, Item, Record, Skip, SkipReason};

    const VALUE: &[u8] = b"a record";

    /// Four records, the second of which cannot be processed; retention has taken the first.
    fn verdict() -> Verdict {
        let good = Expected::Record(Fingerprint::of(VALUE));
        let expected = [good, Expected::Skip(SkipReason::PayloadMissing), good, good];
        let truth = Truth { expected: (0..).map(|offset| (0, offset)).zip(expected).collect() };
        Verdict { ends: truth.ends(), truth, kept_from: [(0, 1)].into(), ended: None, first_partitions: 1 }
    }

    fn record(offset: i64) -> Kind {
        Kind::Record(Record { offset, value: VALUE.into(), ..Record::default() })
    }

    fn skip(offset: i64, reason: SkipReason) -> Kind {
        Kind::Skip(Skip { first_offset: offset, next_offset: offset + 1, reason: reason.into() })
    }

    fn gap(offset: i64) -> Kind {
        let reason = GapReason::Retention.into();
        Kind::Gap(Gap { first_offset: offset, next_offset: offset + 1, reason })
    }

    fn welcome(ledger: &mut Ledger, from: i64) {
        let position = json!({ "from": from.to_string(), "low": "0", "next": "4" });
        ledger.connected();
        ledger.text(&json!({ "type": "welcome", "epoch": "one", "partitions": { "0": position } })).unwrap();
    }

    fn give(ledger: &mut Ledger, from: i64, items: Vec<Kind>) {
        let next_offset = from + i64::try_from(items.len()).unwrap();
        let items = items.into_iter().map(|kind| Item { kind: Some(kind) }).collect();
        ledger.frame(Frame { partition: 0, first_offset: from, next_offset, items }).unwrap();
    }

    /// A client that was welcomed at `from` and given these items.
    fn client(from: i64, items: Vec<Kind>) -> Ledger {
        let mut ledger = Ledger::default();
        welcome(&mut ledger, from);
        give(&mut ledger, from, items);
        ledger
    }

    /// The whole log, from `from` on.
    fn all_from(from: i64) -> Vec<Kind> {
        let items = vec![record(0), skip(1, SkipReason::PayloadMissing), record(2), record(3)];
        items.into_iter().skip(usize::try_from(from).unwrap()).collect()
    }

    fn judged(from: i64, items: Vec<Kind>) -> Result<(), String> {
        verdict().judge(0, false, &client(from, items))
    }

    #[test]
    fn who_has_everything_from_where_it_began_has_it() {
        let missing = || skip(1, SkipReason::PayloadMissing);
        judged(0, vec![record(0), missing(), record(2), record(3)]).unwrap();
        judged(0, vec![gap(0), missing(), record(2), record(3)]).unwrap();
        judged(2, vec![record(2), record(3)]).unwrap();
        // Retention was faster than the first record of a client that began at what was kept.
        judged(0, vec![skip(0, SkipReason::NoRecord), missing(), record(2), record(3)]).unwrap();
    }

    #[test]
    fn whatever_is_missing_wrong_or_too_much_is_told() {
        let other = || Kind::Record(Record { offset: 2, value: b"another".as_slice().into(), ..Record::default() });
        let missing = || skip(1, SkipReason::PayloadMissing);
        for (items, told) in [
            (vec![record(0), missing(), record(2)], "(3, 4)"),
            (vec![record(0), missing(), gap(2), record(3)], "is in a gap"),
            (vec![record(0), missing(), skip(2, SkipReason::NoRecord), record(3)], "should be a record"),
            (vec![record(0), missing(), other(), record(3)], "should be a record"),
            (vec![record(0), skip(1, SkipReason::NoRecord), record(2), record(3)], "should be a skip"),
            (vec![record(0), record(1), record(2), record(3)], "should be a skip"),
            // Retention has not taken this one, and the client did not begin there.
            (vec![skip(0, SkipReason::Filtered), missing(), record(2), record(3)], "should be a record"),
            (vec![record(0), missing(), record(2), record(3), record(4)], "never published"),
        ] {
            let why = judged(0, items).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }

    #[test]
    fn what_retention_takes_of_who_is_on_the_way_is_a_gap_and_no_skip() {
        let two_taken = Verdict { kept_from: [(0, 3)].into(), ..verdict() };
        let items = |second| vec![record(0), second, gap(2), record(3)];
        two_taken.judge(0, false, &client(0, items(gap(1)))).unwrap();
        let why = two_taken.judge(0, false, &client(0, items(skip(1, SkipReason::NoRecord)))).unwrap_err();
        assert!(why.contains("(0, 1) should be a skip for PayloadMissing"), "{why}");
    }

    #[test]
    fn who_has_to_begin_at_the_start_does() {
        let whole = |from: i64| client(from, all_from(from));
        verdict().judge(1, true, &whole(1)).unwrap();
        assert!(verdict().judge(1, true, &whole(2)).unwrap_err().contains("began at 2"));
        let later = Verdict { first_partitions: 0, ..verdict() };
        assert!(later.judge(0, false, &whole(2)).unwrap_err().contains("began at 2"), "a partition that came later");
    }

    #[test]
    fn who_has_nothing_yet_may_begin_where_the_log_begins_by_then_and_no_later() {
        let begun_anew = |from: i64| {
            let mut ledger = Ledger::default();
            welcome(&mut ledger, 0);
            welcome(&mut ledger, from);
            give(&mut ledger, from, all_from(from));
            ledger
        };
        verdict().judge(0, false, &begun_anew(0)).unwrap();
        verdict().judge(0, false, &begun_anew(1)).unwrap();
        assert!(verdict().judge(0, false, &begun_anew(2)).unwrap_err().contains("(0, 1) was left out"));
        // Who has something goes on at its cursor.
        let mut moved = client(0, vec![record(0)]);
        welcome(&mut moved, 2);
        let hole = Frame { partition: 0, first_offset: 2, next_offset: 3, items: Vec::new() };
        assert!(moved.frame(hole).unwrap_err().contains("instead of the cursor"));
    }

    #[test]
    fn offsets_that_start_again_are_told_once_the_topic_is_made_anew_and_only_then() {
        let reset = |ledger: &mut Ledger| {
            let reset = json!({
                "type": "cursor_reset", "partition": 0, "nextOffset": "0", "reason": "topic_recreated", "epoch": "two",
            });
            ledger.text(&reset).unwrap();
            give(ledger, 0, all_from(0));
        };
        let ended = |values: &[&[u8]], one_reader| {
            let expected = values.iter().map(|value| Expected::Record(Fingerprint::of(value)));
            let truth = Truth { expected: (0..).map(|offset| (0, offset)).zip(expected).collect() };
            Verdict { ended: Some(Ended { truth, known: [(0, [0].into())].into(), one_reader }), ..verdict() }
        };
        let mut told = client(0, vec![record(0)]);
        reset(&mut told);
        ended(&[VALUE], true).judge(0, false, &told).unwrap();
        let of_neither = Record { offset: 0, value: b"a third".as_slice().into(), ..Record::default() };
        let mut invented = client(0, vec![Kind::Record(of_neither)]);
        reset(&mut invented);
        assert!(ended(&[b"another"], true).judge(0, false, &invented).unwrap_err().contains("published then"));
        // From an offset on, what was not read yet of the log that is over may be the next one's.
        ended(&[b"another"], true).judge(0, false, &told).unwrap();
        let mut went_on = client(1, vec![skip(1, SkipReason::PayloadMissing), record(2)]);
        reset(&mut went_on);
        ended(&[b"another"], true).judge(0, false, &went_on).unwrap();
        // A reader does not go back; a client may, to an instance that has not gone on.
        let old = Record { offset: 3, value: b"old".as_slice().into(), ..Record::default() };
        let mut went_back = client(2, vec![record(2), Kind::Record(old)]);
        reset(&mut went_back);
        let logs: [&[u8]; 4] = [b"old"; 4];
        assert!(ended(&logs, true).judge(0, false, &went_back).unwrap_err().contains("of the next log"));
        ended(&logs, false).judge(0, false, &went_back).unwrap();
        assert!(verdict().judge(0, false, &told).unwrap_err().contains("offsets started again"));
        let whole = client(0, vec![record(0), skip(1, SkipReason::PayloadMissing), record(2), record(3)]);
        assert!(
            ended(&[VALUE], true).judge(0, false, &whole).unwrap_err().contains("it was told of the new log for {}")
        );
    }
}
