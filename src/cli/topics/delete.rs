//! `dashstream topics delete`.

use serde_json::json;

use super::{Cluster, admin};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;
use crate::kafka::topics::is_internal;

/// Delete topics with all their records
///
/// Topics are named here and nowhere else: no variable says what is deleted. A topic that does not exist is no failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream topics delete runs-old           tells what would be deleted
  dashstream topics delete runs-old --yes")]
pub(super) struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Names of topics
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do it. Otherwise it is only told what would be done
    #[arg(long)]
    yes: bool,
    /// One JSON object per topic and line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.cluster.load(environment)?;
    if let Some(name) = args.names.iter().find(|name| is_internal(name)) {
        anyhow::bail!("{} belongs to Kafka itself and is not deleted; nothing was done", show::plain(name, 249));
    }
    let admin = admin(&config)?;
    for name in &args.names {
        let (action, told) = match args.yes {
            true if admin.delete(name)? => ("deleted", "deleted"),
            false if admin.exists(name)? => ("would_delete", "would be deleted; nothing was done: --yes does it"),
            _ => ("missing", "does not exist"),
        };
        print(match args.json {
            true => format!("{}\n", json!({"topic": name, "action": action})),
            false => format!("{}: {told}\n", show::plain(name, 249)),
        })?;
    }
    Ok(Exit::Success)
}
