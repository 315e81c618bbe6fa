//! `dashstream completions`: prints completions for a shell.

use super::{Exit, print};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  dashstream completions bash > /etc/bash_completion.d/dashstream")]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> anyhow::Result<Exit> {
    // Written at once: the generator panics when a reader of standard output goes away.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "dashstream", &mut text);
    print(text)
}
