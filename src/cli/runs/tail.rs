//! `dashstream tail`: what is being published, one line per message.

use tokio_util::sync::CancellationToken;

use super::place::{Place, Which};
use super::source::Source;
use super::types::Types;
use super::{Exit, note, print_line, seam, show, text};
use crate::config::environment::Environment;
use crate::kafka::records::{End, Start};
use crate::runs::json;

/// Follow the messages that are published, one line each
///
/// Begins with what is published from now on, unless told otherwise, and goes on until Ctrl-C. A line shows the producer's
/// time (UTC), partition:offset, thread, type, node or tool, duration, and a hint of the content; the events of a batch have a
/// line each. Nobody is disturbed: no group is joined, nothing is committed, and any number of tails see everything. Messages of
/// one partition come in its order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream tail                                     until Ctrl-C
  dashstream tail --thread run-17 --type NODE_END,error
  dashstream tail --since 10m --no-follow             the last ten minutes
  dashstream tail -B -n 100 --json | jq .header.thread_id")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    types: Types,
    /// Begin with the first record that Kafka has
    #[arg(short = 'B', long, conflicts_with = "since")]
    from_beginning: bool,
    /// End with what the topic has now, instead of waiting for more. Begins with the first record, unless --since says
    /// otherwise. So does --until
    #[arg(long)]
    no_follow: bool,
    /// End after so many lines
    #[arg(short = 'n', long, value_name = "LINES", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object per message and line, complete
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let ends = args.no_follow || args.which.until.is_some();
    let start = if args.from_beginning || ends { Start::Earliest } else { Start::Latest };
    let end = if ends { End::Now } else { End::Never };
    let from = match (args.which.since, &start) {
        (Some(_), _) => "from the time given",
        (None, Start::Latest) => "from its end",
        (None, _) => "from its beginning",
    };
    let source = Source::open(&config, "dashstream-tail", &args.which, start, end)?;
    let doing = if ends { "reading" } else { "following" };
    // From here on nothing is missed: the positions are known.
    note(&format!("{doing} {} {from} ({} partitions)", show::plain(&config.kafka.topic, 249), source.partitions()));
    let mut left = args.limit;
    source.run(&stop, &mut |item| {
        if !args.types.admits(&item) {
            return Ok(true);
        }
        let line = if args.json { json::message(&item).to_string() } else { text::line(&item) };
        left = left.map(|left| left.saturating_sub(1));
        Ok(print_line(&line)? && left != Some(0))
    })?;
    Ok(Exit::Success)
}
