//! `dashstream topics`: the topics of the cluster, for operators.

mod delete;

mod describe;

mod ensure;

mod list;

use super::{Exit, FileArg, seam};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::kafka::topics::TopicAdmin;

/// Create, list, describe or delete topics
///
/// Brokers, topics and security come from the same file and variables as those of `serve`; options win.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream topics ensure --profile recommended      KAFKA_TOPIC and the topic of its dead letters
  dashstream topics list
  dashstream topics describe
  dashstream topics delete runs-old --yes")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ensure(ensure::Args),
    List(list::Args),
    Describe(describe::Args),
    Delete(delete::Args),
}

/// Where the topics are.
#[derive(Debug, clap::Args)]
struct Cluster {
    #[command(flatten)]
    file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(long, value_name = "LIST")]
    brokers: Option<String>,
}

/// Which topics belong to the service.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    cluster: Cluster,
    /// Topic of the records. Otherwise KAFKA_TOPIC
    #[arg(long)]
    topic: Option<String>,
    /// Topic of the dead letters. Otherwise KAFKA_DLQ_TOPIC, otherwise the other topic's name with -dlq
    #[arg(long, value_name = "TOPIC")]
    dlq_topic: Option<String>,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Ensure(args) => ensure::run(args, environment),
        Command::List(args) => list::run(args, environment),
        Command::Describe(args) => describe::run(args, environment),
        Command::Delete(args) => delete::run(args, environment),
    }
}

impl Cluster {
    fn load(&self, environment: &Environment) -> anyhow::Result<Config> {
        self.file.load(environment, &[("--brokers", "kafka.brokers", &self.brokers)])
    }
}

impl Place {
    fn load(&self, environment: &Environment) -> anyhow::Result<Config> {
        let flags = [
            ("--brokers", "kafka.brokers", &self.cluster.brokers),
            ("--topic", "kafka.topic", &self.topic),
            ("--dlq-topic", "dlq.topic", &self.dlq_topic),
        ];
        self.cluster.file.load(environment, &flags)
    }
}

fn admin(config: &Config) -> anyhow::Result<TopicAdmin> {
    Ok(TopicAdmin::new(&seam::connection(config, "dashstream-topics"))?)
}
