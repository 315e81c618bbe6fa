//! Sums of calls: tokens, and money by what producers sent and by prices.
//!
//! It must not know where the calls are from.

use std::collections::BTreeMap;

use super::costs::{Entry, Source};
use super::money::{Money, Price};
use super::tokens::Tokens;

/// What a model's tokens cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Read.
    pub input: Price,
    /// Written.
    pub output: Price,
    /// Read from the model's cache.
    pub cached: Price,
    /// Written to the model's cache.
    pub cache_write: Price,
}

impl Rates {
    /// What these tokens cost. `None`: of some only the sum is known, and sides differ in price.
    pub fn of(&self, tokens: Tokens) -> Option<Money> {
        let parts = [
            self.input.of(tokens.input),
            self.output.of(tokens.output),
            self.cached.of(tokens.cached),
            self.cache_write.of(tokens.cache_write),
        ];
        let sum = parts.into_iter().fold(Money::default(), Money::plus);
        match tokens.unsplit {
            0 => Some(sum),
            unsplit if self.input == self.output => Some(sum.plus(self.input.of(unsplit))),
            _ => None,
        }
    }
}

/// What tokens cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// By model.
    pub models: BTreeMap<String, Rates>,
    /// Of the others.
    pub others: Option<Rates>,
}

impl Prices {
    fn of(&self, model: &str) -> Option<&Rates> {
        self.models.get(model).or(self.others.as_ref())
    }
}

/// Several calls together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Calls whose tokens are known; figures of several calls that nobody told apart are one.
    pub calls: u64,
    /// Calls whose tokens nobody told.
    pub unknown: u64,
    /// Calls of which one side only is told.
    pub partial: u64,
    /// The tokens.
    pub tokens: Tokens,
    /// Calls whose cost was sent.
    pub with_cost: u64,
    /// What producers sent as costs.
    pub sent: Money,
    /// Calls that have a price.
    pub priced_calls: u64,
    /// Calls that have none.
    pub unpriced: u64,
    /// What the prices say.
    pub priced: Money,
}

impl Sum {
    /// Adds a call.
    pub fn take(&mut self, entry: &Entry, prices: &Prices) {
        if let Some(cost) = entry.told.cost {
            self.with_cost += 1;
            self.sent = self.sent.plus(cost);
        }
        let Some((tokens, is_whole)) = entry.tokens() else {
            // What only tells a cost is no call of its own.
            self.unknown += u64::from(entry.source == Source::Call);
            return;
        };
        self.calls += 1;
        self.partial += u64::from(!is_whole);
        self.tokens = self.tokens.plus(tokens);
        match prices.of(&entry.whose.model).and_then(|rates| rates.of(tokens)) {
            Some(cost) => {
                self.priced_calls += 1;
                self.priced = self.priced.plus(cost);
            }
            None => self.unpriced += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::costs::Costs;
    use super::super::make;
    use super::*;
    use crate::wire::telemetry::EventType;
    use crate::wire::telemetry::attribute_value::Value;

    fn rates(input: &str, output: &str, cached: &str) -> Rates {
        let price = |text| Price::per_million(text).unwrap();
        Rates { input: price(input), output: price(output), cached: price(cached), cache_write: price(input) }
    }

    fn sum(prices: &Prices) -> Sum {
        let mut costs = Costs::default();
        for (request, model, cached) in [("r", "large", 400), ("s", "small", 0), ("u", "?", 0)] {
            let item = make::request(make::event(1, 10, EventType::LlmEnd, "a"), request);
            let mut item = make::text(item, "model", model);
            if model != "?" {
                for (name, count) in [("prompt_tokens", 1_000), ("completion_tokens", 10), ("cached_tokens", cached)] {
                    item = make::attribute(item, name, Value::IntValue(count));
                }
                item = make::attribute(item, "cost_usd", Value::FloatValue(0.1));
            }
            costs.add(&item).unwrap();
        }
        let mut sum = Sum::default();
        costs.entries().iter().for_each(|entry| sum.take(entry, prices));
        sum
    }

    #[test]
    fn tokens_and_money_are_summed_to_the_last_digit() {
        let models = BTreeMap::from([("large".to_owned(), rates("3", "15", "0.3"))]);
        let others = Some(rates("0.25", "1.25", "0.25"));
        let sum = sum(&Prices { models, others });
        assert_eq!((sum.calls, sum.unknown, sum.tokens.all()), (2, 1, 2_020));
        assert_eq!(sum.tokens, Tokens { input: 1_600, cached: 400, output: 20, ..Tokens::default() });
        assert_eq!((sum.sent.to_string(), sum.with_cost), ("0.20".to_owned(), 2));
        // 600 at 3, 400 at 0.3, 10 at 15; 1000 at 0.25, 10 at 1.25: millionths.
        assert_eq!((sum.priced.to_string(), sum.priced_calls), ("0.0023325".to_owned(), 2));
    }

    #[test]
    fn without_a_price_there_is_no_cost() {
        let sum = sum(&Prices::default());
        assert_eq!((sum.unpriced, sum.priced_calls, sum.priced), (2, 0, Money::default()));
        let unsplit = Tokens { unsplit: 5, ..Tokens::default() };
        assert_eq!(rates("1", "2", "1").of(unsplit), None);
        assert_eq!(rates("2", "2", "1").of(unsplit).unwrap().to_string(), "0.00001");
    }
}
