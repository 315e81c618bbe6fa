//! `dashstream default-config`: prints the documented configuration.

use clap::ValueEnum;

use super::{Exit, print};
use crate::config::render;

/// Print every setting with its default, variable, range and meaning
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  dashstream default-config > dashstream.toml")]
pub(super) struct Args {
    /// As a configuration file, or as a page for people
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Toml,
    Markdown,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    print(match args.format {
        Format::Toml => render::default_config(),
        Format::Markdown => render::reference_page(),
    })
}
