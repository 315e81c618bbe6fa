//! A message that judges the quality of an answer, read with all the names that producers give to the same thing.
//!
//! What is missing stays missing: no value is made up. What is there and cannot be a value of its kind is told apart. It must not
//! know what becomes of an event.

use std::collections::BTreeMap;

use super::model_names;
use super::sessions;
use crate::runs::item::{Body, Item};
use crate::wire::telemetry::metric_value::Value;
use crate::wire::telemetry::{Header, MetricValue, Metrics};

/// The scope of such messages.
pub const SCOPE: &str = "quality";

/// Categories of queries.
pub const CATEGORIES: &[&str] = &["Simple", "Medium", "Complex", "Edge", "Other", UNKNOWN];
/// The category of a query without one.
const UNKNOWN: &str = "Unknown";
/// The category of a query with one that is not known here.
const OTHER: &str = "Other";

/// What judges find fault with, as they name it in tags.
pub const ISSUES: &[&str] =
    &["tool_results_ignored", "incomplete_coverage", "low_accuracy", "low_relevance", "low_completeness"];

/// Fields that are read as values.
pub const FIELDS: &[&str] =
    &["quality_score", "accuracy", "relevance", "completeness", "passed", "latency_ms", "retry_count", "turn_number"];

/// Applications that are counted as librarians.
const LIBRARIANS: [&str; 4] = ["librarian", "code_assistant", "document_search", "document_search_streaming"];

/// No score is beyond: more is a mistake, and would spoil every sum.
const MAX_SCORE: f64 = 1e9;
/// A week.
const MAX_LATENCY_MS: f64 = 7.0 * 86_400_000.0;
const MAX_COUNT: f64 = 1e9;

/// What a message is to the exporter.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A judgement.
    Event(Box<QualityEvent>),
    /// Measurements of something else.
    WrongScope,
    /// A judgement that does not say what it is about: it has no header.
    MissingHeader,
    /// No measurements at all.
    Other,
}

/// One judgement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QualityEvent {
    /// Overall score.
    pub score: Option<f64>,
    /// Its part for accuracy.
    pub accuracy: Option<f64>,
    /// Its part for relevance.
    pub relevance: Option<f64>,
    /// Its part for completeness.
    pub completeness: Option<f64>,
    /// Whether the answer passed; `None`: nobody said.
    pub passed: Option<bool>,
    /// How long the query took.
    pub latency_ms: Option<f64>,
    /// How often it was tried again.
    pub retries: Option<u64>,
    /// The turn of its session.
    pub turn: Option<u64>,
    /// Label of the model, of [`model_names::LABELS`].
    pub model: Option<&'static str>,
    /// One of [`CATEGORIES`].
    pub category: &'static str,
    /// Whether it is of a librarian.
    pub librarian: bool,
    /// Which of [`ISSUES`] it has.
    pub issues: Vec<&'static str>,
    /// Which of [`FIELDS`] were there without a value that they can have.
    pub invalid: Vec<&'static str>,
    /// The session, where there is one.
    pub session: Option<u128>,
    /// When the producer made it, in Unix microseconds, where it says so.
    pub time_us: Option<i64>,
}

/// Reads a message.
pub fn read(item: &Item) -> Read {
    let Body::Metrics(metrics) = &item.body else { return Read::Other };
    if metrics.scope != SCOPE {
        return Read::WrongScope;
    }
    // A header in which nothing is set says as little as none.
    if item.header == Header::default() {
        return Read::MissingHeader;
    }
    Read::Event(Box::new(event(&item.header, metrics)))
}

fn event(header: &Header, metrics: &Metrics) -> QualityEvent {
    let mut fields = Fields { values: &metrics.metrics, invalid: Vec::new() };
    let tag = |names: &[&str]| names.iter().find_map(|name| metrics.tags.get(*name)).map_or("", |tag| tag.trim());
    let application = tag(&["application_type", "app_type"]).to_ascii_lowercase();
    QualityEvent {
        score: fields.score("quality_score", &["quality_score", "quality_average", "average"]),
        accuracy: fields.score("accuracy", &["accuracy", "quality_accuracy"]),
        relevance: fields.score("relevance", &["relevance", "quality_relevance"]),
        completeness: fields.score("completeness", &["completeness", "quality_completeness"]),
        passed: fields.truth("passed", &["passed", "quality_passed"]),
        latency_ms: fields.number("latency_ms", &["latency_ms", "quality_latency_ms"], 0.0..=MAX_LATENCY_MS),
        retries: fields.count("retry_count", &["retry_count", "quality_retry_count"]),
        turn: fields.count("turn_number", &["turn_number", "quality_turn_number"]),
        model: model_names::label(tag(&["model", "model_name"])),
        category: category(tag(&["category", "query_category", "complexity"])),
        librarian: LIBRARIANS.contains(&application.as_str()),
        issues: ISSUES.iter().copied().filter(|issue| tag(&[*issue]).eq_ignore_ascii_case("true")).collect(),
        session: (!header.thread_id.is_empty()).then(|| sessions::key(&header.tenant_id, &header.thread_id)),
        time_us: (header.timestamp_us > 0).then_some(header.timestamp_us),
        invalid: fields.invalid,
    }
}

fn category(tag: &str) -> &'static str {
    if tag.is_empty() {
        return UNKNOWN;
    }
    CATEGORIES.iter().find(|category| category.eq_ignore_ascii_case(tag)).copied().unwrap_or(OTHER)
}

/// The values of a message, and which of them could not be used.
struct Fields<'a> {
    values: &'a BTreeMap<String, MetricValue>,
    invalid: Vec<&'static str>,
}

impl Fields<'_> {
    /// The first value under one of the names; one that says nothing is none.
    fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.values.get(*name).and_then(|value| value.value.as_ref()))
    }

    fn checked<T>(&mut self, field: &'static str, names: &[&str], take: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.find(names)?;
        let taken = take(value);
        if taken.is_none() {
            self.invalid.push(field);
        }
        taken
    }

    fn number(&mut self, field: &'static str, names: &[&str], range: std::ops::RangeInclusive<f64>) -> Option<f64> {
        // Not a number is in no range.
        self.checked(field, names, |value| number(value).filter(|number| range.contains(number)))
    }

    fn score(&mut self, field: &'static str, names: &[&str]) -> Option<f64> {
        self.number(field, names, -MAX_SCORE..=MAX_SCORE)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and within the range")]
    fn count(&mut self, field: &'static str, names: &[&str]) -> Option<u64> {
        let whole = |number: &f64| (0.0..=MAX_COUNT).contains(number) && number.fract() == 0.0;
        self.checked(field, names, |value| number(value).filter(whole).map(|number| number as u64))
    }

    fn truth(&mut self, field: &'static str, names: &[&str]) -> Option<bool> {
        self.checked(field, names, |value| match value {
            Value::BoolValue(truth) => Some(*truth),
            Value::StringValue(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::StringValue(text) if text.eq_ignore_ascii_case("false") => Some(false),
            value => match number(value)? {
                0.0 => Some(false),
                1.0 => Some(true),
                _ => None,
            },
        })
    }
}

/// A whole number is a number as well as one with a fraction.
#[allow(clippy::cast_precision_loss, reason = "what is beyond 2^53 is out of every range")]
const fn number(value: &Value) -> Option<f64> {
    match value {
        Value::IntValue(number) => Some(*number as f64),
        Value::FloatValue(number) => Some(*number),
        Value::StringValue(_) | Value::BoolValue(_) | Value::BytesValue(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runs::item::Place;
    use crate::wire::telemetry::Event;

    fn item(values: &[(&str, Value)], tags: &[(&str, &str)]) -> Item {
        let value = |value: &Value| MetricValue { value: Some(value.clone()), ..MetricValue::default() };
        let metrics = Metrics {
            scope: SCOPE.into(),
            metrics: values.iter().map(|(name, found)| ((*name).to_owned(), value(found))).collect(),
            tags: tags.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned())).collect(),
            ..Metrics::default()
        };
        let header = Header { thread_id: "t".into(), timestamp_us: 5, ..Header::default() };
        Item { place: Place::default(), record_time_ms: None, header, body: Body::Metrics(metrics) }
    }

    fn of(values: &[(&str, Value)], tags: &[(&str, &str)]) -> QualityEvent {
        match read(&item(values, tags)) {
            Read::Event(event) => *event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_forms_of_every_name_and_both_kinds_of_numbers_are_read() {
        let plain = [
            ("quality_score", Value::FloatValue(0.5)),
            ("accuracy", Value::FloatValue(1.0)),
            ("relevance", Value::IntValue(1)),
            ("completeness", Value::FloatValue(0.25)),
            ("passed", Value::BoolValue(true)),
            ("latency_ms", Value::IntValue(20)),
            ("retry_count", Value::IntValue(2)),
            ("turn_number", Value::FloatValue(3.0)),
        ];
        let prefixed = [
            ("quality_average", Value::FloatValue(0.5)),
            ("quality_accuracy", Value::IntValue(1)),
            ("quality_relevance", Value::FloatValue(1.0)),
            ("quality_completeness", Value::FloatValue(0.25)),
            ("quality_passed", Value::IntValue(1)),
            ("quality_latency_ms", Value::FloatValue(20.0)),
            ("quality_retry_count", Value::FloatValue(2.0)),
            ("quality_turn_number", Value::IntValue(3)),
        ];
        let event = of(&plain, &[]);
        assert_eq!(event, of(&prefixed, &[]));
        assert_eq!((event.score, event.accuracy, event.relevance), (Some(0.5), Some(1.0), Some(1.0)));
        assert_eq!((event.completeness, event.passed, event.latency_ms), (Some(0.25), Some(true), Some(20.0)));
        assert_eq!((event.retries, event.turn, event.invalid.len()), (Some(2), Some(3), 0));
    }

    #[test]
    fn what_is_missing_is_absent_and_no_failure() {
        let event = of(&[("accuracy", Value::FloatValue(0.0))], &[]);
        assert_eq!((event.accuracy, event.score, event.passed), (Some(0.0), None, None));
        assert_eq!((event.latency_ms, event.retries, event.turn, event.model), (None, None, None, None));
        assert_eq!((event.category, event.librarian, event.invalid.len()), ("Unknown", false, 0));
    }

    #[test]
    fn what_cannot_be_is_told_apart_from_what_is_missing() {
        let event = of(
            &[
                ("quality_score", Value::FloatValue(f64::NAN)),
                ("accuracy", Value::FloatValue(f64::INFINITY)),
                ("relevance", Value::StringValue("0.5".into())),
                ("completeness", Value::FloatValue(1e300)),
                ("passed", Value::IntValue(2)),
                ("latency_ms", Value::IntValue(-1)),
                ("retry_count", Value::FloatValue(0.5)),
                ("turn_number", Value::IntValue(i64::MAX)),
            ],
            &[],
        );
        assert_eq!(event.invalid, FIELDS);
        let none = QualityEvent { invalid: Vec::new(), ..event };
        assert_eq!(none, of(&[], &[]));
    }

    #[test]
    fn tags_are_brought_to_closed_sets() {
        let event = of(
            &[],
            &[
                ("model", " GPT-4o-2024-08-06 "),
                ("query_category", "complex"),
                ("app_type", "Code_Assistant"),
                ("low_accuracy", "true"),
                ("low_relevance", "false"),
            ],
        );
        assert_eq!((event.model, event.category, event.librarian), (Some("gpt-4o"), "Complex", true));
        assert_eq!(event.issues, ["low_accuracy"]);
        assert_eq!(of(&[], &[("complexity", "weird"), ("model", " ")]).category, "Other");
        assert_eq!(of(&[], &[("category", "Edge"), ("complexity", "Simple")]).category, "Edge");
    }

    #[test]
    fn other_messages_are_told_apart() {
        let event = Item { body: Body::Event(Event::default()), ..item(&[], &[]) };
        assert_eq!(read(&event), Read::Other);
        assert_eq!(read(&Item { header: Header::default(), ..item(&[], &[]) }), Read::MissingHeader);
        for scope in ["", "Quality", "quality ", "llm"] {
            let body = Body::Metrics(Metrics { scope: scope.into(), ..Metrics::default() });
            // Whose header is missing matters only for what would be read.
            assert_eq!(read(&Item { body, header: Header::default(), ..item(&[], &[]) }), Read::WrongScope);
        }
    }

    #[test]
    fn times_that_are_none_are_not_taken_for_the_beginning_of_time() {
        for (time, expected) in [(0, None), (-1, None), (1, Some(1)), (i64::MAX, Some(i64::MAX))] {
            let mut item = item(&[], &[]);
            item.header.timestamp_us = time;
            let Read::Event(event) = read(&item) else { panic!("an event") };
            assert_eq!(event.time_us, expected);
        }
    }

    proptest! {
        #[test]
        fn numbers_that_come_through_spoil_no_sum(number in any::<f64>(), whole in any::<i64>()) {
            for value in [Value::FloatValue(number), Value::IntValue(whole)] {
                let names = ["quality_score", "accuracy", "latency_ms", "retry_count", "turn_number"];
                let event = of(&names.map(|name| (name, value.clone())), &[]);
                let numbers = [event.score, event.accuracy, event.latency_ms];
                prop_assert!(numbers.into_iter().flatten().all(|number| number.is_finite() && number.abs() <= 1e9));
                let latency = event.latency_ms.unwrap_or_default();
                prop_assert!(latency >= 0.0);
                prop_assert!([event.retries, event.turn].into_iter().flatten().all(|count| count <= 1_000_000_000));
            }
        }
    }
}
