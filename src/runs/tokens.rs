//! Tokens and costs as producers write them, under the several names that are in use.
//!
//! What nobody told is `None`, never 0. It must not know which messages speak of the same call.

use std::collections::BTreeMap;

use super::money::Money;
use crate::wire::telemetry::attribute_value::Value;
use crate::wire::telemetry::metric_value::Value as MetricKind;
use crate::wire::telemetry::{AttributeValue, MetricValue, NodeExecutionRecord, TokenStats};

const INPUT: &[&str] = &["input_tokens", "prompt_tokens", "tokens_prompt", "tokens_input", "gen_ai.usage.input_tokens"];
const OUTPUT: &[&str] =
    &["output_tokens", "completion_tokens", "tokens_completion", "tokens_output", "gen_ai.usage.output_tokens"];
const TOTAL: &[&str] = &["total_tokens", "tokens_total"];
/// Read from the model's cache, and among the input tokens.
const CACHED: &[&str] = &["cached_tokens", "cached_input_tokens", "cached_prompt_tokens", "tokens_cached"];
/// Read from the model's cache, besides the input tokens.
const CACHE_READ: &[&str] = &["cache_read_input_tokens", "cache_read_tokens"];
/// Written to the model's cache, besides the input tokens.
const CACHE_WRITE: &[&str] = &["cache_creation_input_tokens", "cache_creation_tokens", "cache_write_tokens"];
const COST: &[&str] = &["cost_usd"];

/// What a message tells of a call's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    /// What it cost, as the producer has it.
    pub cost: Option<Money>,
}

/// Tokens, each in one place only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, and not from the model's cache.
    pub input: u64,
    /// Read from the model's cache.
    pub cached: u64,
    /// Written to the model's cache.
    pub cache_write: u64,
    /// Written.
    pub output: u64,
    /// Of which only the sum is known.
    pub unsplit: u64,
}

impl Tokens {
    /// All of them.
    pub const fn all(self) -> u64 {
        let input = self.input.saturating_add(self.cached).saturating_add(self.cache_write);
        input.saturating_add(self.output).saturating_add(self.unsplit)
    }

    /// The sums.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached: self.cached.saturating_add(other.cached),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            unsplit: self.unsplit.saturating_add(other.unsplit),
        }
    }
}

impl Told {
    /// What an event's attributes tell, also inside an attribute `usage`.
    pub fn of_attributes(attributes: &BTreeMap<String, AttributeValue>) -> Self {
        let usage = attributes.get("usage").and_then(|usage| match usage.value.as_ref()? {
            Value::MapValue(map) => Some(&map.values),
            _ => None,
        });
        let find = |name: &str| {
            let found = attributes.get(name).or_else(|| usage?.get(name));
            Some(match found?.value.as_ref()? {
                Value::IntValue(number) => Number::Int(*number),
                Value::FloatValue(number) => Number::Float(*number),
                Value::StringValue(text) => Number::Text(text),
                _ => return None,
            })
        };
        Self::of(find)
    }

    /// What metrics tell.
    pub fn of_metrics(metrics: &BTreeMap<String, MetricValue>) -> Self {
        Self::of(|name| {
            Some(match metrics.get(name)?.value.as_ref()? {
                MetricKind::IntValue(number) => Number::Int(*number),
                MetricKind::FloatValue(number) => Number::Float(*number),
                MetricKind::StringValue(text) => Number::Text(text),
                _ => return None,
            })
        })
    }

    /// What a model's last piece tells. Its numbers cannot be left out: a 0 may mean that nobody counted.
    pub fn of_stats(stats: &TokenStats) -> Self {
        Self::counted(stats.prompt_tokens.into(), stats.completion_tokens.into(), stats.total_tokens.into())
    }

    /// What a run's summary tells of a node.
    pub fn of_record(record: &NodeExecutionRecord) -> Self {
        Self::counted(record.prompt_tokens, record.completion_tokens, record.total_tokens)
    }

    /// What a run's summary tells of the whole.
    pub fn of_total(total: u64) -> Self {
        Self::counted(0, 0, total)
    }

    fn counted(input: u64, output: u64, total: u64) -> Self {
        let is_split = input > 0 || output > 0;
        Self {
            input: is_split.then_some(input),
            output: is_split.then_some(output),
            total: Some(total).filter(|total| *total > 0),
            ..Self::default()
        }
    }

    fn of<'a>(find: impl Fn(&str) -> Option<Number<'a>>) -> Self {
        let count = |names: &[&str]| names.iter().find_map(|name| find(name)?.count());
        Self {
            input: count(INPUT),
            output: count(OUTPUT),
            total: count(TOTAL),
            cached: count(CACHED),
            cache_read: count(CACHE_READ),
            cache_write: count(CACHE_WRITE),
            cost: COST.iter().find_map(|name| find(name)?.money()),
        }
    }

    /// What this message leaves open is taken from another one about the same call.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            total: self.total.or(other.total),
            cached: self.cached.or(other.cached),
            cache_read: self.cache_read.or(other.cache_read),
            cache_write: self.cache_write.or(other.cache_write),
            cost: self.cost.or(other.cost),
        }
    }

    /// The cost without the tokens.
    #[must_use]
    pub fn cost_alone(self) -> Self {
        Self { cost: self.cost, ..Self::default() }
    }

    /// Whether it counts tokens at all.
    pub const fn is_counted(&self) -> bool {
        self.input.is_some() || self.output.is_some() || self.total.is_some()
    }

    /// The tokens, and whether all of them are told: one side alone is not. `None` when nobody counted.
    pub fn tokens(&self) -> Option<(Tokens, bool)> {
        let (cache_read, cache_write) = (self.cache_read.unwrap_or_default(), self.cache_write.unwrap_or_default());
        // The other side of a sum.
        let rest = |one: Option<u64>| Some(self.total?.saturating_sub(one?));
        let (input, output) = (self.input.or_else(|| rest(self.output)), self.output.or_else(|| rest(self.input)));
        if input.is_none() && output.is_none() {
            return self.total.map(|unsplit| (Tokens { unsplit, ..Tokens::default() }, true));
        }
        let read = input.unwrap_or_default();
        let cached = self.cached.unwrap_or_default().min(read);
        let tokens = Tokens {
            input: read - cached,
            cached: cached.saturating_add(cache_read),
            cache_write,
            output: output.unwrap_or_default(),
            unsplit: 0,
        };
        Some((tokens, input.is_some() && output.is_some()))
    }
}

enum Number<'a> {
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl Number<'_> {
    fn count(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            // Whole and exact: 2^53.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
            Self::Float(number) if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number) => {
                Some(*number as u64)
            }
            Self::Float(_) => None,
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn money(&self) -> Option<Money> {
        match self {
            Self::Int(number) => Money::of_text(&number.to_string()),
            Self::Float(number) => Money::of_dollars(*number),
            Self::Text(text) => Money::of_text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telemetry::AttributeMap;

    fn told(values: &[(&str, i64)]) -> Told {
        let value = |number: &i64| AttributeValue { value: Some(Value::IntValue(*number)) };
        Told::of_attributes(&values.iter().map(|(name, number)| ((*name).to_owned(), value(number))).collect())
    }

    #[test]
    fn every_name_in_use_is_understood() {
        for input in INPUT {
            for output in OUTPUT {
                let tokens = Tokens { input: 7, output: 5, ..Tokens::default() };
                assert_eq!(told(&[(input, 7), (output, 5)]).tokens(), Some((tokens, true)), "{input} {output}");
            }
        }
        let usage = AttributeMap {
            values: BTreeMap::from([(
                "input_tokens".to_owned(),
                AttributeValue { value: Some(Value::StringValue("7".to_owned())) },
            )]),
        };
        let attributes = BTreeMap::from([("usage".to_owned(), AttributeValue { value: Some(Value::MapValue(usage)) })]);
        assert_eq!(Told::of_attributes(&attributes).input, Some(7));
    }

    #[test]
    fn tokens_from_the_cache_are_counted_once() {
        // Among the input.
        let among = told(&[("prompt_tokens", 100), ("completion_tokens", 5), ("cached_tokens", 80)]);
        let expected = Tokens { input: 20, cached: 80, output: 5, ..Tokens::default() };
        assert_eq!(among.tokens(), Some((expected, true)));
        // Besides it.
        let beside = told(&[
            ("input_tokens", 20),
            ("output_tokens", 5),
            ("cache_read_input_tokens", 80),
            ("cache_creation_input_tokens", 9),
        ]);
        assert_eq!(beside.tokens(), Some((Tokens { cache_write: 9, ..expected }, true)));
        // More than there were cannot have been.
        let absurd = told(&[("prompt_tokens", 10), ("completion_tokens", 5), ("cached_tokens", 80)]);
        assert_eq!(absurd.tokens().unwrap().0.all(), 15);
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(Told::default().tokens(), None);
        assert_eq!(told(&[("prompt_tokens", -1), ("latency", 9)]).tokens(), None);
        assert_eq!(Told::of_stats(&TokenStats::default()).tokens(), None);
        let half = told(&[("prompt_tokens", 7)]);
        assert_eq!(half.tokens(), Some((Tokens { input: 7, ..Tokens::default() }, false)));
        assert_eq!(
            half.or(told(&[("tokens_total", 10)])).tokens().unwrap(),
            (Tokens { input: 7, output: 3, ..Tokens::default() }, true)
        );
        assert_eq!(Told::of_total(9).tokens(), Some((Tokens { unsplit: 9, ..Tokens::default() }, true)));
        // Told as 0 is told.
        assert_eq!(told(&[("input_tokens", 0), ("output_tokens", 0)]).tokens(), Some((Tokens::default(), true)));
    }
}
