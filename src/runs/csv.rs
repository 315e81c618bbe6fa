//! Messages as rows of a table: RFC 4180, and harmless in a spreadsheet.
//!
//! A text that a spreadsheet would take for a formula gets an apostrophe in front of it, which spreadsheets show as text: what
//! a program publishes must not run at the desk of whoever looks at it. It must not know where rows go.

use super::item::{Body, Item};
use super::json::{self, hex};
use super::line;

/// The columns. The last two are JSON, complete.
pub const COLUMNS: [&str; 16] = [
    "partition",
    "offset",
    "index",
    "time",
    "timestamp_us",
    "record_time_ms",
    "kind",
    "type",
    "tenant_id",
    "thread_id",
    "sequence",
    "message_id",
    "subject",
    "duration_us",
    "attributes",
    "body",
];

/// The first row.
pub fn head() -> String {
    row(COLUMNS.map(str::to_owned))
}

/// The row of a message, with its line end. `thread` is the thread that it counts for.
pub fn message(item: &Item, thread: &str) -> String {
    let (attributes, body) = match &item.body {
        Body::Event(event) => (json::attributes(&event.attributes).to_string(), json::body(&item.body)),
        body => (String::new(), json::body(body)),
    };
    row([
        item.place.partition.to_string(),
        item.place.offset.to_string(),
        item.place.index.to_string(),
        line::clock(line::time_us(item)),
        item.header.timestamp_us.to_string(),
        item.record_time_ms.map(|time| time.to_string()).unwrap_or_default(),
        item.body.kind().to_owned(),
        text(&json::type_name(item)),
        text(&item.header.tenant_id),
        text(thread),
        item.header.sequence.to_string(),
        hex(&item.header.message_id),
        text(line::subject(item)),
        line::duration_us(item).map(|us| us.to_string()).unwrap_or_default(),
        attributes,
        body.to_string(),
    ])
}

/// A text from a record, as a cell that stays one.
fn text(cell: &str) -> String {
    let formula = |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    // Blanks in front do not keep every spreadsheet from it.
    let begins = cell.starts_with(formula) || cell.trim_start().starts_with(formula);
    if begins { format!("'{cell}") } else { cell.to_owned() }
}

fn row<const N: usize>(cells: [String; N]) -> String {
    let mut row = cells.map(quoted).join(",");
    row.push_str("\r\n");
    row
}

fn quoted(cell: String) -> String {
    let special = |c: char| matches!(c, ',' | '"' | '\r' | '\n') || c.is_whitespace();
    if cell.contains(special) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runs::item::Place;
    use crate::wire::telemetry::attribute_value::Value as Attribute;
    use crate::wire::telemetry::{AttributeValue, Event, EventType, Header};

    /// A reader of RFC 4180, written apart from the writer.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
        let mut chars = text.chars().peekable();
        let mut inside = false;
        while let Some(c) = chars.next() {
            match (inside, c) {
                (true, '"') if chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
                (_, '"') => inside = !inside,
                (false, ',') => row.push(std::mem::take(&mut cell)),
                (false, '\r') => assert_eq!(chars.next(), Some('\n')),
                (_, c) => cell.push(c),
            }
            if !inside && c == '\r' {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
        }
        rows
    }

    fn item(node: &str) -> Item {
        let value = AttributeValue { value: Some(Attribute::StringValue("a,\"b\"\r\nc".into())) };
        let event = Event {
            event_type: EventType::NodeEnd.into(),
            node_id: node.into(),
            attributes: [("k".to_owned(), value)].into(),
            duration_us: 7,
            ..Event::default()
        };
        let header = Header { timestamp_us: 1, sequence: u64::MAX, message_id: vec![1], ..Header::default() };
        Item {
            place: Place { partition: 1, offset: i64::MAX, index: 0 },
            record_time_ms: None,
            header,
            body: Body::Event(event),
        }
    }

    #[test]
    fn a_row_has_every_column_and_reads_back() {
        let table = format!("{}{}", head(), message(&item("n"), "t,1"));
        let rows = parse(&table);
        assert_eq!((rows.len(), rows[0].len(), rows[1].len()), (2, COLUMNS.len(), COLUMNS.len()));
        let cell = |name: &str| rows[1][COLUMNS.iter().position(|column| *column == name).unwrap()].as_str();
        assert_eq!(
            (cell("offset"), cell("sequence"), cell("time"), cell("type"), cell("thread_id"), cell("message_id")),
            ("9223372036854775807", "18446744073709551615", "1970-01-01T00:00:00.000Z", "NODE_END", "t,1", "01")
        );
        let attributes: serde_json::Value = serde_json::from_str(cell("attributes")).unwrap();
        assert_eq!(attributes["k"]["string_value"], "a,\"b\"\r\nc");
        let body: serde_json::Value = serde_json::from_str(cell("body")).unwrap();
        assert_eq!(body["duration_us"], "7");
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =cmd|' /C calc'!A0", "＝1"] {
            assert!(text(bad).starts_with('\''), "{bad:?}");
        }
        assert_eq!((text("a=1"), text("")), ("a=1".into(), String::new()));
    }

    proptest! {
        #[test]
        fn whatever_a_record_says_makes_one_row(node in "\\PC*|[,\"\r\n=a ]{0,8}", thread in "[,\"\r\n=a ]{0,8}") {
            let rows = parse(&message(&item(&node), &thread));
            prop_assert_eq!(rows.len(), 1);
            prop_assert_eq!(rows[0].len(), COLUMNS.len());
            prop_assert_eq!(&rows[0][9], &text(&thread));
            prop_assert_eq!(&rows[0][12], &text(&node));
        }
    }
}
