//! A message as a line for people: one line, whatever the message says.

use super::place::thread_of;
use super::show::plain;
use crate::runs::item::Item;
use crate::runs::line::{clock, duration, duration_us, hint, place, subject, time_us, what};

/// Time, place, thread, type, node or tool, duration, hint.
pub(super) fn line(item: &Item) -> String {
    let or_dash = |text: &str, width| if text.is_empty() { "-".to_owned() } else { plain(text, width) };
    let line = format!(
        "{:<24}  {:<8}  {:<20}  {:<18}  {:<16}  {:>8}  {}",
        clock(time_us(item)),
        place(item),
        or_dash(thread_of(item), 60),
        plain(&what(item), 40),
        or_dash(subject(item), 40),
        duration_us(item).map_or_else(|| "-".to_owned(), duration),
        plain(&hint(item), 120),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::item::{Body, Place};
    use crate::wire::telemetry::{Event, EventType, Header, TokenChunk};

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let header = Header { timestamp_us: 1_769_860_800_000_000, thread_id: "t\n1".into(), ..Header::default() };
        let event = Event {
            event_type: EventType::NodeEnd.into(),
            node_id: "\u{1b}[2Jresearch".into(),
            duration_us: 1_500,
            ..Event::default()
        };
        let item = Item {
            place: Place { partition: 0, offset: 17, index: 0 },
            record_time_ms: None,
            header,
            body: Body::Event(event),
        };
        assert_eq!(
            line(&item).split_whitespace().collect::<Vec<_>>(),
            ["2026-01-31T12:00:00.000Z", "0:17", "t\\u{a}1", "NODE_END", "\\u{1b}[2Jresearch", "1.5ms"]
        );
        let chunk = TokenChunk { text: "a\r\nb".repeat(1_000), ..TokenChunk::default() };
        let line = line(&Item { body: Body::TokenChunk(chunk), ..item });
        assert!(line.chars().all(|c| !c.is_control()) && line.chars().count() < 300, "{line}");
    }
}
