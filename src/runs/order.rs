//! The order in which messages of one thread are shown, and the pace.
//!
//! A producer that repeats sends may bring messages of a thread into the log slightly out of order; their numbers tell. They
//! are put right within a window, so that a thread of any length needs no more memory than that. A number that comes a second
//! time, or that lies before what was shown, begins another run under the same name: it is not mixed into the one before.

use std::collections::BTreeMap;

use super::item::Item;

/// The messages that wait for those that may belong before them.
#[derive(Debug)]
pub struct Window {
    messages: usize,
    bytes: usize,
    waiting: BTreeMap<(u64, u64, u64), (Item, usize)>,
    held: usize,
    /// Which of the runs under this name.
    run: u64,
    /// The number of the last message of this run that came, was numbered, and the one that was shown last.
    last: u64,
    shown: u64,
    arrived: u64,
}

impl Window {
    /// Holds at most so many messages, of at most so many bytes and one message more.
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes, waiting: BTreeMap::new(), held: 0, run: 0, last: 0, shown: 0, arrived: 0 }
    }

    /// A message came. What it pushes out is to be shown, in this order.
    pub fn push(&mut self, item: Item) -> Vec<Item> {
        self.arrived += 1;
        let number = item.header.sequence;
        if number != 0 {
            let mut known = self.waiting.range((self.run, number, 0)..=(self.run, number, u64::MAX));
            let twice = known.any(|(_, (known, _))| known.header.sequence == number);
            if twice || number <= self.shown {
                self.run += 1;
                self.shown = 0;
            }
            self.last = number;
        }
        // One without a number stays behind the one that it came after.
        let weight = item.weight();
        self.held = self.held.saturating_add(weight);
        self.waiting.insert((self.run, self.last, self.arrived), (item, weight));
        let mut out = Vec::new();
        while self.waiting.len() > self.messages || self.held > self.bytes {
            let Some(((run, ..), (item, weight))) = self.waiting.pop_first() else { break };
            self.held = self.held.saturating_sub(weight);
            if run == self.run {
                self.shown = self.shown.max(item.header.sequence);
            }
            out.push(item);
        }
        out
    }

    /// Everything that waits, in its order: nothing more comes.
    pub fn finish(self) -> impl Iterator<Item = Item> {
        self.waiting.into_values().map(|(item, _)| item)
    }
}

/// When messages are shown again: as far apart as they were.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    speed: f64,
    first: Option<i64>,
}

impl Pace {
    /// So many times as fast as it was; 0: without waiting.
    pub const fn new(speed: f64) -> Self {
        Self { speed, first: None }
    }

    /// How long after the first message one of this time is due, in microseconds. Times that go back are due at once.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a century are exact")]
    pub fn due_us(&mut self, time_us: Option<i64>) -> u64 {
        let Some(time) = time_us.filter(|_| self.speed > 0.0) else { return 0 };
        let first = *self.first.get_or_insert(time);
        let apart = time.saturating_sub(first).max(0);
        (apart as f64 / self.speed) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runs::item::{Body, Place};
    use crate::wire::telemetry::{Event, Header};

    fn item(sequence: u64, offset: i64) -> Item {
        Item {
            place: Place { partition: 0, offset, index: 0 },
            record_time_ms: None,
            header: Header { sequence, ..Header::default() },
            body: Body::Event(Event { node_id: "n".repeat(10), ..Event::default() }),
        }
    }

    fn shown(window: usize, numbers: &[u64]) -> Vec<u64> {
        let mut window = Window::new(window, usize::MAX);
        let mut shown: Vec<Item> =
            numbers.iter().zip(0..).flat_map(|(number, offset)| window.push(item(*number, offset))).collect();
        shown.extend(window.finish());
        shown.into_iter().map(|item| item.header.sequence).collect()
    }

    #[test]
    fn what_came_out_of_order_is_put_right_and_nothing_is_lost() {
        assert_eq!(shown(8, &[1, 3, 2, 4]), [1, 2, 3, 4]);
        assert_eq!(shown(1, &[1, 3, 2, 4]), [1, 2, 3, 4]);
        assert_eq!(shown(8, &[]), [0; 0]);
    }

    #[test]
    fn messages_without_a_number_stay_where_they_came() {
        assert_eq!(shown(8, &[1, 0, 3, 0, 2]), [1, 0, 2, 3, 0]);
        assert_eq!(shown(2, &[0, 0, 0]), [0, 0, 0]);
    }

    #[test]
    fn a_second_run_under_the_same_name_is_not_mixed_into_the_first() {
        assert_eq!(shown(100, &[1, 2, 3, 1, 2, 3]), [1, 2, 3, 1, 2, 3]);
        let long: Vec<u64> = (1..=500).chain(1..=500).collect();
        assert_eq!(shown(64, &long), long);
    }

    #[test]
    fn the_window_is_bounded_by_bytes_too() {
        let mut window = Window::new(100, 30);
        let mut out = 0;
        for number in 1..=50 {
            out += window.push(item(number, 0)).len();
            assert!(window.held <= 30);
        }
        assert!(out > 40);
    }

    #[test]
    fn the_pace_is_that_of_the_times_and_never_goes_back() {
        let mut pace = Pace::new(2.0);
        let due = [Some(1_000), Some(3_000), Some(2_000), None, Some(500)].map(|time| pace.due_us(time));
        assert_eq!(due, [0, 1_000, 500, 0, 0]);
        assert_eq!(Pace::new(0.0).due_us(Some(5)), 0);
        // Half of nearly 2^63, in steps of 1024.
        assert_eq!(pace.due_us(Some(i64::MAX)), (1 << 62) - 512);
    }

    proptest! {
        #[test]
        fn every_message_comes_out_once(numbers in proptest::collection::vec(0_u64..20, 0..60), window in 1_usize..10) {
            let mut expected = numbers.clone();
            let mut found = shown(window, &numbers);
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
