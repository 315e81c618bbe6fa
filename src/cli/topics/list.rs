//! `dashstream topics list`.

use serde_json::json;

use super::{Cluster, admin};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;

/// List the topics of the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream topics list
  dashstream topics list --json | jq -r .topic")]
pub(super) struct Args {
    #[command(flatten)]
    cluster: Cluster,
    /// Also those of Kafka itself
    #[arg(long)]
    all: bool,
    /// One JSON object per topic and line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.cluster.load(environment)?;
    let mut topics = admin(&config)?.list()?;
    topics.retain(|topic| args.all || !topic.is_internal());
    if args.json {
        let line = |name: &str, partitions, replicas| {
            format!("{}\n", json!({"topic": name, "partitions": partitions, "replicas": replicas}))
        };
        return print(
            topics.iter().map(|topic| line(&topic.name, topic.partitions, topic.replicas)).collect::<String>(),
        );
    }
    let mut rows = vec![["TOPIC", "PARTITIONS", "REPLICAS"].map(str::to_owned).to_vec()];
    rows.extend(
        topics.into_iter().map(|topic| vec![topic.name, topic.partitions.to_string(), topic.replicas.to_string()]),
    );
    print(show::table(&rows))
}
