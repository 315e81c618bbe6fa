//! `dashstream topics describe`.

use serde_json::{Map, Value, json};

use super::{Place, admin};
use crate::cli::{Exit, print, show};
use crate::config::environment::Environment;
use crate::kafka::topics::{SettingFound, TopicDescription};

/// Settings that are shown although they are the brokers': they decide what is lost, and when.
const SHOWN: [&str; 6] = [
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
];

/// Describe topics: partitions, replicas, settings
///
/// Without names, the topic of the records and that of the dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream topics describe
  dashstream topics describe runs runs-dlq
  dashstream topics describe runs --json | jq '.settings[\"retention.ms\"]'

Exit code: 1 when a topic does not exist; the others are described all the same.")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Names of topics
    #[arg(value_name = "NAME", conflicts_with_all = ["topic", "dlq_topic"])]
    names: Vec<String>,
    /// One JSON object per topic and line, with all settings
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let config = args.place.load(environment)?;
    let own = [config.kafka.topic.clone(), config.dlq_topic()];
    let names = if args.names.is_empty() { &own[..] } else { &args.names[..] };
    let admin = admin(&config)?;
    let mut exit = Exit::Success;
    for name in names {
        match admin.describe(name)? {
            Some(found) => print(if args.json { as_json(&found) } else { as_text(&found) })?,
            None => {
                exit = Exit::Failed;
                print(match args.json {
                    true => format!("{}\n", json!({"topic": name, "exists": false})),
                    false => format!("topic {} does not exist\n", show::plain(name, 249)),
                })?
            }
        };
    }
    Ok(exit)
}

fn as_json(found: &TopicDescription) -> String {
    let partitions: Vec<Value> = found
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.partition, "leader": partition.leader,
                "replicas": partition.replicas, "in_sync": partition.in_sync,
            })
        })
        .collect();
    let settings: Map<String, Value> =
        found.settings.iter().map(|SettingFound { name, value, .. }| (name.clone(), json!(value))).collect();
    let own: Vec<&str> = found.settings.iter().filter(|found| found.own).map(|found| found.name.as_str()).collect();
    let object = json!({
        "topic": found.name, "exists": true, "id": found.id,
        "partitions": partitions, "settings": settings, "own_settings": own,
    });
    format!("{object}\n")
}

fn as_text(found: &TopicDescription) -> String {
    let brokers = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut rows = vec![["PARTITION", "LEADER", "REPLICAS", "IN SYNC"].map(str::to_owned).to_vec()];
    rows.extend(found.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            brokers(&partition.replicas),
            brokers(&partition.in_sync),
        ]
    }));
    let id = found.id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
    let mut text = format!("topic {}, {} partitions{id}\n{}", found.name, found.partitions.len(), show::table(&rows));
    for setting in found.settings.iter().filter(|found| found.own || SHOWN.contains(&found.name.as_str())) {
        let whose = if setting.own { "" } else { "  (the brokers' default)" };
        text.push_str(&format!("{} = {}{whose}\n", setting.name, show::plain(&setting.value, 200)));
    }
    text
}
