//! `dashstream topology`: shows actors, edges and bounds.

use super::{Exit, FileArg, print, seam};
use crate::config::environment::Environment;
use crate::config::load::load;

/// Show the actors, who sends what to whom, and the bound on each edge
///
/// The bounds are those of the configuration in use.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  dashstream topology --json | jq .")]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let loaded = load(args.file.config.as_deref(), environment, &[])?;
    print(seam::topology(&loaded, args.json))
}
