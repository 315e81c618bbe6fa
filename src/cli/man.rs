//! `dashstream man`: prints the manual page, or writes one per subcommand.

use std::path::PathBuf;

use anyhow::Context;

use super::{Exit, print};

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream man | man -l -
  dashstream man --out /usr/local/share/man/man1     one page per subcommand")]
pub(super) struct Args {
    /// Write the page, and one for each subcommand, into this directory instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, command: clap::Command) -> anyhow::Result<Exit> {
    if let Some(directory) = &args.out {
        clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
        return Ok(Exit::Success);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    print(text)
}
