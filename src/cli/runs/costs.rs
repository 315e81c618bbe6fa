//! `dashstream costs`: tokens that were used, and what they cost.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::place::{Place, Which};
use super::source::Told;
use super::{Exit, gather, show};
use crate::cli::print;
use crate::config::environment::Environment;
use crate::runs::bill::{Prices, Rates, Sum};
use crate::runs::costs::{Costs, Entry};
use crate::runs::money::{Money, Price};

/// Sum the tokens that calls of models used, and what they cost
///
/// Only what producers counted is summed, each call once however many messages tell of it: the end of the call, the last piece of
/// its answer, the metrics of its node, the summary of its run, in this order. Nothing is estimated: calls without counts are told
/// as UNKNOWN. SENT is the sum of the costs that producers sent (cost_usd); PRICED comes from the prices given here, exact to the last
/// digit. Tokens read from a model's cache are counted apart from other input; without a price of their own they cost as input.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream costs --since 1d --by-tenant --by-model
  dashstream costs --thread run-17 --by-node
  dashstream costs --input-cost-per-million 0.25 --output-cost-per-million 1.25
  dashstream costs --price atlas-large=3,15,0.3 --price atlas-mini=0.25,1.25 --json")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// A line per node
    #[arg(long)]
    by_node: bool,
    /// A line per tenant
    #[arg(long)]
    by_tenant: bool,
    /// A line per model
    #[arg(long)]
    by_model: bool,
    /// A line per thread
    #[arg(long)]
    by_thread: bool,
    /// Price of a million input tokens, in dollars, for models without a --price
    #[arg(long, value_name = "USD", value_parser = price, requires = "output_cost_per_million")]
    input_cost_per_million: Option<Price>,
    /// Price of a million output tokens, in dollars
    #[arg(long, value_name = "USD", value_parser = price, requires = "input_cost_per_million")]
    output_cost_per_million: Option<Price>,
    /// Price of a million input tokens that were read from the model's cache. Otherwise that of input
    #[arg(long, value_name = "USD", value_parser = price, requires = "input_cost_per_million")]
    cached_cost_per_million: Option<Price>,
    /// Price of a million input tokens that were written to the model's cache. Otherwise that of input
    #[arg(long, value_name = "USD", value_parser = price, requires = "input_cost_per_million")]
    cache_write_cost_per_million: Option<Price>,
    /// Prices of one model, in dollars per million tokens. Can be given several times
    #[arg(long, value_name = "MODEL=IN,OUT[,CACHED[,CACHE_WRITE]]", value_parser = model_rates)]
    price: Vec<(String, Rates)>,
    /// One JSON object; tokens and dollars as decimal strings
    #[arg(long)]
    json: bool,
}

fn price(text: &str) -> Result<Price, String> {
    Price::per_million(text).ok_or_else(|| "must be dollars, as 0.25, with at most six decimal places".to_owned())
}

fn model_rates(text: &str) -> Result<(String, Rates), String> {
    let form = "must be MODEL=IN,OUT, or with CACHED and CACHE_WRITE behind, as in atlas=3,15,0.3";
    let (model, prices) = text.rsplit_once('=').filter(|(model, _)| !model.is_empty()).ok_or(form)?;
    let prices: Result<Vec<Price>, String> = prices.split(',').map(price).collect();
    let rates = match *prices?.as_slice() {
        [input, output] => Rates { input, output, cached: input, cache_write: input },
        [input, output, cached] => Rates { input, output, cached, cache_write: input },
        [input, output, cached, cache_write] => Rates { input, output, cached, cache_write },
        _ => return Err(form.to_owned()),
    };
    Ok((model.to_owned(), rates))
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let mut costs = Costs::default();
    let told = gather::all(&config, "dashstream-costs", &args.which, &mut |item| {
        costs.add(&item)?;
        Ok(true)
    })?;
    let prices = args.prices();
    let entries = costs.entries();
    let mut lines = BTreeMap::<Vec<String>, Sum>::new();
    let mut total = Sum::default();
    for entry in &entries {
        total.take(entry, &prices);
        lines.entry(args.group(entry)).or_default().take(entry, &prices);
    }
    print(if args.json { args.as_json(&lines, &total, &told) } else { args.as_text(&lines, &total) })
}

impl Args {
    fn prices(&self) -> Prices {
        let others = self.input_cost_per_million.zip(self.output_cost_per_million).map(|(input, output)| Rates {
            input,
            output,
            cached: self.cached_cost_per_million.unwrap_or(input),
            cache_write: self.cache_write_cost_per_million.unwrap_or(input),
        });
        Prices { models: self.price.iter().cloned().collect(), others }
    }

    /// What the lines are by.
    fn columns(&self) -> Vec<&'static str> {
        let columns =
            [(self.by_tenant, "tenant"), (self.by_thread, "thread"), (self.by_node, "node"), (self.by_model, "model")];
        columns.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
    }

    fn group(&self, entry: &Entry) -> Vec<String> {
        let whose = &entry.whose;
        let part = |column: &'static str| match column {
            "tenant" => whose.tenant.clone(),
            "thread" => whose.thread.clone(),
            "node" => whose.node.clone(),
            _ => whose.model.clone(),
        };
        self.columns().into_iter().map(part).collect()
    }

    fn as_json(&self, lines: &BTreeMap<Vec<String>, Sum>, total: &Sum, told: &Told) -> String {
        let columns = self.columns();
        let groups: Vec<Value> = lines
            .iter()
            .filter(|_| !columns.is_empty())
            .map(|(group, sum)| {
                let names = columns.iter().zip(group).map(|(column, name)| ((*column).to_owned(), json!(name)));
                Value::Object(names.chain(figures(sum)).collect())
            })
            .collect();
        let object = json!({
            "complete": told.missing().is_none(), "total": Value::Object(figures(total).collect()), "groups": groups,
        });
        format!("{object}\n")
    }

    fn as_text(&self, lines: &BTreeMap<Vec<String>, Sum>, total: &Sum) -> String {
        let columns = self.columns();
        let has_prices = self.prices() != Prices::default();
        let mut head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
        head.extend(
            ["CALLS", "UNKNOWN", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "UNSPLIT", "SENT USD", "PRICED USD"]
                .map(str::to_owned),
        );
        let cells = |sum: &Sum| {
            let tokens = sum.tokens;
            let counts = [tokens.input, tokens.cached, tokens.cache_write, tokens.output, tokens.unsplit];
            let priced = if has_prices { sum.priced.to_string() } else { "-".to_owned() };
            let sent = if sum.with_cost > 0 { sum.sent.to_string() } else { "-".to_owned() };
            let mut cells = vec![sum.calls.to_string(), sum.unknown.to_string()];
            cells.extend(counts.map(|count| count.to_string()));
            cells.extend([sent, priced]);
            cells
        };
        let mut table = vec![head];
        for (group, sum) in lines.iter().filter(|_| !columns.is_empty()) {
            let or_dash = |name: &String| if name.is_empty() { "-".to_owned() } else { show::plain(name, 48) };
            table.push(group.iter().map(or_dash).chain(cells(sum)).collect());
        }
        let labels = (0..columns.len()).map(|at| if at == 0 { "(all)".to_owned() } else { String::new() });
        table.push(labels.chain(cells(total)).collect());
        let mut text = show::table(&table);
        for (count, what) in [
            (total.unknown, "calls tell no tokens: they are not in the sums"),
            (total.partial, "calls tell one side of their tokens only"),
            (if has_prices { total.unpriced } else { 0 }, "calls have no price: see --price"),
        ] {
            if count > 0 {
                text.push_str(&format!("{count} {what}\n"));
            }
        }
        text
    }
}

fn figures(sum: &Sum) -> impl Iterator<Item = (String, Value)> {
    let tokens = sum.tokens;
    let money = |money: Money| json!(money.to_string());
    let count = |count: u64| json!(count.to_string());
    let figures: [(&str, Value); 14] = [
        ("calls", json!(sum.calls)),
        ("unknown_calls", json!(sum.unknown)),
        ("partial_calls", json!(sum.partial)),
        ("unpriced_calls", json!(sum.unpriced)),
        ("input_tokens", count(tokens.input)),
        ("cached_tokens", count(tokens.cached)),
        ("cache_write_tokens", count(tokens.cache_write)),
        ("output_tokens", count(tokens.output)),
        ("unsplit_tokens", count(tokens.unsplit)),
        ("total_tokens", count(tokens.all())),
        ("calls_with_sent_cost", json!(sum.with_cost)),
        ("sent_cost_usd", money(sum.sent)),
        ("priced_calls", json!(sum.priced_calls)),
        ("priced_cost_usd", money(sum.priced)),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_of_a_model_are_two_to_four_numbers() {
        let dollars = |price: Price| price.of(1_000_000).to_string();
        let (model, rates) = model_rates("a=b=3,15,0.3").unwrap();
        assert_eq!(model, "a=b");
        assert_eq!(
            [rates.input, rates.output, rates.cached, rates.cache_write].map(dollars),
            ["3.00", "15.00", "0.30", "3.00"]
        );
        for bad in ["", "a", "a=", "=1,2", "a=1", "a=1,2,3,4,5", "a=1,x"] {
            assert!(model_rates(bad).is_err(), "{bad}");
        }
    }
}
