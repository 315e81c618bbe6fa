//! `dashstream profile`: where the time of a run went.

use serde_json::{Value, json};

use super::place::{Place, Which};
use super::{Exit, UsageError, gather, show};
use crate::cli::print;
use crate::config::environment::Environment;
use crate::runs::line::duration;
use crate::runs::profile::{Profile, Row};
use crate::runs::run::Run;
use crate::runs::tree::Tree;

/// Show where the time of a run went: by node, model and tool
///
/// Durations are those that producers tell at the end of a step; where they tell none, the time between its first and its last
/// message. TOTAL sums all executions, SELF leaves out what ran inside (calls of models and tools). SHARE is of the time of the
/// graphs, and passes 100 % where nodes ran side by side. Steps whose duration nobody knows are counted, not summed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream profile --thread run-17
  dashstream profile --thread run-17 --top 5 --detailed
  dashstream profile --thread run-17 --json | jq '.nodes[0]'")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// So many of the nodes that took longest; the rest is in the total
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Also the median, the 95th percentile, the shortest, the longest, and where durations come from
    #[arg(long)]
    detailed: bool,
    /// One JSON object, with all nodes and figures; microseconds as decimal strings
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let Some(thread) = args.which.thread.as_deref() else {
        return Err(UsageError("name the run with --thread; `dashstream inspect` lists them".to_owned()).into());
    };
    let config = args.place.load(environment)?;
    let (runs, told) = gather::runs(&config, "dashstream-profile", &args.which, (&[thread], false), &mut |_| {})?;
    let Some(run) = runs.first() else { return Ok(Exit::Failed) };
    let profile = Profile::of(&Tree::of(run));
    gather::tell_missing(run);
    print(if args.json { as_json(run, &profile, told.missing().is_none()) } else { as_text(args, run, &profile) })
}

fn as_json(run: &Run, profile: &Profile, complete: bool) -> String {
    let rows = |rows: &[Row]| rows.iter().map(row_json).collect::<Vec<Value>>();
    let object = json!({
        "tenant": run.tenant(), "thread": run.thread(), "complete": complete && run.numbers().missing.is_empty(),
        "graphs": row_json(&profile.graphs), "nodes_us": profile.nodes_us().to_string(),
        "nodes": rows(&profile.nodes), "models": rows(&profile.models), "tools": rows(&profile.tools),
    });
    format!("{object}\n")
}

fn row_json(row: &Row) -> Value {
    let micros = |micros: Option<u64>| micros.map(|micros| micros.to_string());
    json!({
        "name": row.name, "count": row.count, "failed": row.failed, "unfinished": row.unfinished,
        "told": row.told, "between": row.between, "absurd": row.absurd, "retries": row.retries,
        "total_us": row.total_us.to_string(), "self_us": row.self_us.to_string(), "average_us": micros(row.average_us()),
        "p50_us": micros(row.percentile_us(50)), "p95_us": micros(row.percentile_us(95)),
        "min_us": micros(row.min_us()), "max_us": micros(row.max_us()),
    })
}

fn as_text(args: &Args, run: &Run, profile: &Profile) -> String {
    let graphs = &profile.graphs;
    let mut text = format!(
        "thread {}: {} in {} graphs, {} in nodes\n",
        show::plain(run.thread(), 120),
        short(Some(graphs.total_us).filter(|_| graphs.known() > 0)),
        graphs.count,
        short(Some(profile.nodes_us())),
    );
    for (what, rows) in [("NODE", &profile.nodes), ("MODEL", &profile.models), ("TOOL", &profile.tools)] {
        if rows.is_empty() {
            continue;
        }
        let mut head = vec![what, "COUNT", "FAILED", "TOTAL", "SHARE", "SELF", "AVERAGE"];
        if args.detailed {
            head.extend(["P50", "P95", "MIN", "MAX", "RETRIES", "UNFINISHED", "TOLD", "BETWEEN", "ABSURD"]);
        }
        let mut table = vec![head.into_iter().map(str::to_owned).collect()];
        let shown = rows.iter().take(args.top.into());
        table.extend(shown.map(|row| cells(row, graphs.total_us, args.detailed)));
        text.push('\n');
        text.push_str(&show::table(&table));
        if rows.len() > usize::from(args.top) {
            text.push_str(&format!("… and {} more; see --top\n", rows.len() - usize::from(args.top)));
        }
    }
    text
}

fn cells(row: &Row, whole_us: u64, detailed: bool) -> Vec<String> {
    let name = if row.name.is_empty() { "-".to_owned() } else { show::plain(&row.name, 40) };
    let mut cells = vec![
        name,
        row.count.to_string(),
        row.failed.to_string(),
        short(Some(row.total_us).filter(|_| row.known() > 0)),
        share(row.total_us, whole_us),
        short(Some(row.self_us).filter(|_| row.known() > 0)),
        short(row.average_us()),
    ];
    if detailed {
        cells.extend([row.percentile_us(50), row.percentile_us(95), row.min_us(), row.max_us()].map(short));
        cells.extend([row.retries, row.unfinished, row.told, row.between, row.absurd].map(|count| count.to_string()));
    }
    cells
}

/// A duration in the unit that fits; `-` for one that nobody knows.
pub(super) fn short(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), |micros| duration(i64::try_from(micros).unwrap_or(i64::MAX)))
}

fn share(part: u64, whole: u64) -> String {
    match (u128::from(part) * 1_000).checked_div(u128::from(whole)) {
        Some(permille) => format!("{}.{}%", permille / 10, permille % 10),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_and_of_nothing_there_is_none() {
        assert_eq!((share(1, 3), share(3, 2), share(1, 0)), ("33.3%".into(), "150.0%".into(), "-".into()));
        assert_eq!(share(u64::MAX, 1), "1844674407370955161500.0%");
    }
}
