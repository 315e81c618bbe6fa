//! `dashstream check-config`: shows what `serve` would use, or everything that is wrong.

use serde_json::json;

use super::{Exit, FileArg, print};
use crate::config::environment::Environment;
use crate::config::load::load;
use crate::config::render::effective_config;

/// Check the configuration and show what would be used
///
/// Reads the same file and variables as `serve`. Shows every setting with the place that it comes from, secrets hidden, and
/// exits with 0; or shows everything that is wrong and exits with 64. Nothing is connected to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream check-config --config dashstream.toml
  dashstream check-config --json | jq '.settings[] | select(.source != \"default\")'")]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArg,
    /// Print one JSON object: `valid`, and `settings` with `warnings`, or `problems`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let result = load(args.file.config.as_deref(), environment, &[]);
    if args.json {
        let (exit, answer) = match result {
            Ok(loaded) => {
                let answer = json!({"valid": true, "settings": loaded.effective(), "warnings": loaded.warnings});
                (Exit::Success, answer)
            }
            Err(error) => (Exit::Usage, json!({"valid": false, "problems": error.problems})),
        };
        print(format!("{answer:#}\n"))?;
        return Ok(exit);
    }
    let loaded = result?;
    let mut text = effective_config(&loaded.effective());
    for warning in &loaded.warnings {
        text.push_str(&format!("\n# Warning: {warning}\n"));
    }
    print(text)
}
