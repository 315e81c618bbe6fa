//! `dashstream inspect`: which runs there are, what a run was, what a message says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::place::{Place, Which, thread_of};
use super::profile::short;
use super::source::Told;
use super::{Exit, UsageError, gather, show, text};
use crate::cli::print;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::runs::item::{self, Item};
use crate::runs::json;
use crate::runs::line::clock;
use crate::runs::names::event_name;
use crate::runs::profile::Profile;
use crate::runs::run::{MAX_BYTES, Missing, Run};
use crate::runs::threads::Threads;
use crate::runs::tree::Tree;

/// So many ranges of missing numbers are named for people.
const RANGES: usize = 20;

/// Show which runs there are, a run, or a message
///
/// Without a thread: the threads of the window, the newest last. With a thread: when it ran, how it ended, how many messages of each
/// kind it has, which are missing or repeated, and what its nodes took. With --message: that message with everything it says.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream inspect --since 1h
  dashstream inspect run-17
  dashstream inspect run-17 --detailed
  dashstream inspect --message 3:4711
  dashstream inspect --message 7d3bc9f0a1e24c52b0f6a84d7e19c3aa --json

Exit code: 1 when the thread or the message is not in the window.")]
pub(in crate::cli) struct Args {
    /// The run's thread, as with --thread
    #[arg(value_name = "THREAD", conflicts_with = "thread")]
    run: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// All messages of the run, in its order, one line each
    #[arg(long, conflicts_with = "message")]
    detailed: bool,
    /// One message: its id, hexadecimal, or where it lies
    #[arg(long, value_name = "HEX|PARTITION:OFFSET", value_parser = wanted)]
    message: Option<Wanted>,
    /// So many threads of the list
    #[arg(short = 'n', long, value_name = "THREADS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// JSON: one object, or one per message and thread
    #[arg(long)]
    json: bool,
}

/// Which message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Id(Vec<u8>),
    At(i32, i64),
}

fn wanted(text: &str) -> Result<Wanted, String> {
    if let Some((partition, offset)) = text.split_once(':') {
        let at = partition.parse().ok().zip(offset.parse().ok());
        let at = at.filter(|(partition, offset): &(i32, i64)| *partition >= 0 && *offset >= 0);
        let form = "must be PARTITION:OFFSET, as in 3:4711";
        return at.map(|(partition, offset)| Wanted::At(partition, offset)).ok_or_else(|| form.to_owned());
    }
    super::replay::checkpoint(text).map(|id| Wanted::Id(id.0))
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let mut which = args.which.clone();
    which.thread = which.thread.or_else(|| args.run.clone());
    if args.detailed && which.thread.is_none() {
        return Err(UsageError("--detailed shows the messages of a run; name it".to_owned()).into());
    }
    let config = args.place.load(environment)?;
    match (&args.message, which.thread.as_deref()) {
        (Some(wanted), _) => one_message(args, &config, &which, wanted),
        (None, Some(thread)) => one_run(args, &config, &which, thread),
        (None, None) => threads(args, &config, &which),
    }
}

fn threads(args: &Args, config: &Config, which: &Which) -> anyhow::Result<Exit> {
    let mut threads = Threads::default();
    gather::all(config, "dashstream-inspect", which, &mut |item| {
        threads.touch(thread_of(&item), &item);
        Ok(true)
    })?;
    let (found, more) = threads.latest(args.limit.into());
    if args.json {
        let lines: Vec<String> = found
            .iter()
            .map(|of| {
                let object = json!({
                    "tenant": of.tenant, "thread": of.thread, "graph": of.graph, "status": of.status.as_str(),
                    "start_us": long(of.start_us), "end_us": long(of.end_us), "messages": of.messages.to_string(),
                });
                format!("{object}\n")
            })
            .collect();
        return print(lines.concat());
    }
    let mut rows =
        vec![["START", "LAST", "STATUS", "MESSAGES", "GRAPH", "TENANT", "THREAD"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|of| {
        let plain = |text: &str| if text.is_empty() { "-".to_owned() } else { show::plain(text, 80) };
        let times = [clock(of.start_us), clock(of.end_us)];
        let rest = [of.status.as_str().to_owned(), of.messages.to_string()];
        let names = [plain(&of.graph), plain(&of.tenant), plain(&of.thread)];
        times.into_iter().chain(rest).chain(names).collect()
    }));
    let more = if more > 0 { format!("… and {more} older ones; see --limit\n") } else { String::new() };
    print(show::table(&rows) + &more)
}

fn one_message(args: &Args, config: &Config, which: &Which, wanted: &Wanted) -> anyhow::Result<Exit> {
    let mut found: Vec<Item> = Vec::new();
    gather::all(config, "dashstream-inspect", which, &mut |item| {
        let is_it = match wanted {
            Wanted::Id(id) => item.header.message_id == *id,
            Wanted::At(partition, offset) => (item.place.partition, item.place.offset) == (*partition, *offset),
        };
        let is_behind = !is_it && !found.is_empty();
        if is_it {
            found.push(item);
        }
        // A record may hold several; an id belongs to one message.
        Ok(!(is_behind || (is_it && matches!(wanted, Wanted::Id(_)))))
    })?;
    let topic = show::plain(&config.kafka.topic, 249);
    anyhow::ensure!(
        !found.is_empty(),
        "no such message in the window of topic {topic}; `dashstream tail -B --no-follow --json` shows ids and places"
    );
    let mut text = String::new();
    for item in &found {
        let object = json::message(item);
        if args.json {
            text.push_str(&format!("{object}\n"));
        } else {
            for line in serde_json::to_string_pretty(&object)?.lines() {
                text.push_str(&show::plain(line, usize::MAX));
                text.push('\n');
            }
        }
    }
    print(text)
}

fn one_run(args: &Args, config: &Config, which: &Which, thread: &str) -> anyhow::Result<Exit> {
    let mut lines = BTreeMap::<item::Place, String>::new();
    let mut bytes = 0;
    let (runs, told) = gather::runs(config, "dashstream-inspect", which, (&[thread], false), &mut |item| {
        if args.detailed && bytes < MAX_BYTES {
            let line = if args.json { json::message(item).to_string() } else { text::line(item) };
            bytes += line.len();
            lines.insert(item.place, line);
        }
    })?;
    let Some(run) = runs.first() else { return Ok(Exit::Failed) };
    anyhow::ensure!(
        bytes < MAX_BYTES,
        "the messages of the run have more than {} MiB of text; leave --detailed out, or see `dashstream replay --thread`",
        MAX_BYTES >> 20
    );
    let tree = Tree::of(run);
    let profile = Profile::of(&tree);
    let mut text = if args.json { as_json(run, &tree, &profile, &told) } else { as_text(run, &tree, &profile) };
    if args.detailed {
        if !args.json {
            text.push('\n');
        }
        for note in run.ordered() {
            text.push_str(lines.get(&note.place).map_or("", String::as_str));
            text.push('\n');
        }
    }
    print(text)
}

fn long(number: Option<i64>) -> Option<String> {
    number.map(|number| number.to_string())
}

fn as_json(run: &Run, tree: &Tree, profile: &Profile, told: &Told) -> String {
    let numbers = run.numbers();
    let range = |missing: &Missing| json!({"first": missing.first.to_string(), "last": missing.last.to_string()});
    let times = run.times();
    let events: BTreeMap<String, u64> = run.events().iter().map(|(kind, count)| (event_name(*kind), *count)).collect();
    let nodes: Vec<Value> = profile
        .nodes
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "executions": row.count, "failed": row.failed, "unfinished": row.unfinished,
                "total_us": row.total_us.to_string(), "average_us": row.average_us().map(|us| us.to_string()),
            })
        })
        .collect();
    let object = json!({
        "tenant": run.tenant(), "thread": run.thread(), "graph": tree.graph, "status": tree.status.as_str(),
        "graphs": profile.graphs.count,
        "start_us": long(times.map(|(start, _)| start)), "end_us": long(times.map(|(_, end)| end)),
        "duration_us": (profile.graphs.known() > 0).then(|| profile.graphs.total_us.to_string()),
        "messages": run.len(), "repeated": run.repeated(), "kinds": run.kinds(), "events": events,
        "missing": numbers.missing.iter().map(range).collect::<Vec<_>>(),
        "before_window": numbers.before.as_ref().map(range), "numbering_restarts": numbers.restarts,
        "reused_numbers": numbers.reused, "complete": told.missing().is_none(), "nodes": nodes,
    });
    format!("{object}\n")
}

fn as_text(run: &Run, tree: &Tree, profile: &Profile) -> String {
    let plain = |text: &str| if text.is_empty() { "-".to_owned() } else { show::plain(text, 120) };
    let times = run.times();
    let span = times.map(|(start, end)| end.abs_diff(start));
    let graphs = &profile.graphs;
    let took = if graphs.known() > 0 { Some(graphs.total_us) } else { None };
    let counts = |counts: Vec<(String, u64)>| {
        counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let kinds = run.kinds().iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    let events = run.events().iter().map(|(kind, count)| (event_name(*kind), *count)).collect();
    let mut rows = vec![
        ("thread", plain(run.thread())),
        ("tenant", plain(run.tenant())),
        ("graph", plain(&tree.graph)),
        ("status", tree.status.as_str().to_owned()),
        ("start", clock(times.map(|(start, _)| start))),
        ("end", clock(times.map(|(_, end)| end))),
        (
            "duration",
            format!("{} ({} graphs), {} from the first to the last message", short(took), graphs.count, short(span)),
        ),
        ("messages", format!("{} ({})", run.len(), counts(kinds))),
        ("events", counts(events)),
        ("repeated", run.repeated().to_string()),
        ("missing", missing(run)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut text = show::table(&rows);
    if !profile.nodes.is_empty() {
        let head = ["NODE", "EXECUTIONS", "TOTAL", "AVERAGE", "FAILED", "UNFINISHED"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        table.extend(profile.nodes.iter().map(|row| {
            vec![
                plain(&row.name),
                row.count.to_string(),
                short(Some(row.total_us).filter(|_| row.known() > 0)),
                short(row.average_us()),
                row.failed.to_string(),
                row.unfinished.to_string(),
            ]
        }));
        text.push('\n');
        text.push_str(&show::table(&table));
    }
    text
}

/// What the numbers say, in words.
fn missing(run: &Run) -> String {
    let numbers = run.numbers();
    let range = |missing: &Missing| match missing.first == missing.last {
        true => missing.first.to_string(),
        false => format!("{}-{}", missing.first, missing.last),
    };
    let count = numbers.missing.iter().fold(0_u64, |sum, missing| sum.saturating_add(missing.count()));
    let mut ranges: Vec<String> = numbers.missing.iter().take(RANGES).map(range).collect();
    if numbers.missing.len() > RANGES {
        ranges.push("…".to_owned());
    }
    let mut parts = Vec::new();
    if count > 0 {
        parts.push(format!("{count}, numbers {}", ranges.join(", ")));
    }
    if let Some(before) = &numbers.before {
        parts.push(format!("numbers {} are not in the window", range(before)));
    }
    if numbers.restarts > 0 {
        parts.push(format!("the producer began to count anew {} times", numbers.restarts));
    }
    if numbers.reused > 0 {
        parts.push(format!("cannot be told: {} numbers were used more than once", numbers.reused));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_named_by_id_or_by_place() {
        assert_eq!(wanted("3:4711"), Ok(Wanted::At(3, 4_711)));
        assert_eq!(wanted("00ff"), Ok(Wanted::Id(vec![0, 0xff])));
        for bad in ["", "3:", ":1", "-1:5", "1:-5", "xy", "abc"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
    }
}
