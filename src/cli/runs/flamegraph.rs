//! `dashstream flamegraph`: a run as a flame graph.

use std::path::{Path, PathBuf};

use super::place::{Place, Which};
use super::target::Target;
use super::{Exit, UsageError, gather, note, show};
use crate::config::environment::Environment;
use crate::runs::flame::{folded, stacks};
use crate::runs::flame_svg::svg;
use crate::runs::tree::Tree;

/// Draw a run as a flame graph: graph, nodes, calls of models and tools
///
/// Folded stacks are lines of `frame;frame;frame microseconds`, which flame graph tools read; a semicolon, a blank or a percent
/// sign in a name is percent-encoded. The time of a stack is what its last frame took itself. An SVG opens in any browser,
/// without a network. Nodes that ran side by side stand side by side; steps whose duration nobody knows are named, with 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream flamegraph --thread run-17
  dashstream flamegraph --thread run-17 -o run-17.svg
  dashstream flamegraph --thread run-17 --format folded -o run-17.txt")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Where to: the file is there complete, or not at all. Otherwise, and with -, standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form. Otherwise that of the file's ending; folded stacks where there is none
    #[arg(short = 'f', long, value_enum)]
    format: Option<Format>,
    /// Replace the file if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

/// The forms of a flame graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Folded,
    Svg,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let Some(thread) = args.which.thread.as_deref() else {
        return Err(UsageError("name the run with --thread; `dashstream inspect` lists them".to_owned()).into());
    };
    let config = args.place.load(environment)?;
    let mut target = Target::open(args.output.as_deref(), args.force)?;
    let (runs, _) = gather::runs(&config, "dashstream-flamegraph", &args.which, (&[thread], false), &mut |_| {})?;
    let Some(run) = runs.first() else { return Ok(Exit::Failed) };
    gather::tell_missing(run);
    let tree = Tree::of(run);
    anyhow::ensure!(
        !tree.spans.is_empty(),
        "thread {} has no graph, node, model or tool in the window: there is nothing to draw",
        show::plain(thread, 120)
    );
    let stacks = stacks(&tree);
    let text = match format(args.format, args.output.as_deref()) {
        Format::Folded => folded(&stacks),
        Format::Svg => svg(&format!("{} {}", tree.graph, run.thread()), &stacks),
    };
    if target.write(&text)?
        && target.finish()?
        && let Some(path) = &args.output
    {
        note(&format!("{} stacks to {}", stacks.len(), path.display()));
    }
    Ok(Exit::Success)
}

fn format(asked: Option<Format>, output: Option<&Path>) -> Format {
    let ending = output.and_then(Path::extension);
    let by_ending =
        if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) { Format::Svg } else { Format::Folded };
    asked.unwrap_or(by_ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_ending_unless_it_is_asked_for() {
        let of = |asked, output: Option<&str>| format(asked, output.map(Path::new));
        assert_eq!(of(None, Some("a/b.SVG")), Format::Svg);
        assert_eq!(
            (of(None, Some("a.txt")), of(None, Some("-")), of(None, None)),
            (Format::Folded, Format::Folded, Format::Folded)
        );
        assert_eq!(of(Some(Format::Folded), Some("a.svg")), Format::Folded);
    }
}
