//! `dashstream ingest`: decisions about a running service's ingest.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Exit, print};
use crate::config::environment::Environment;
use crate::http_client;
use crate::pauses::Answer;

/// The service answers at once, or as soon as Kafka does; what takes longer is not answered.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Where the token is looked for: it must not stand on a command line, which everybody on the machine can read.
const TOKEN: &str = "DASHSTREAM_WEB_ADMIN_TOKEN";

/// Decide how a running service goes on reading
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Continue(Continue),
    Reset(Reset),
}

/// Have the stream begin anew, at the end of the log, for every client of every instance
///
/// Connected clients are told (cursor_reset, reason manual_reset) and drop what they show; nobody is given what lies before.
/// Nothing is deleted from Kafka. If the service has an admin token, it is taken from DASHSTREAM_WEB_ADMIN_TOKEN.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream ingest reset --topic dashstream-quality
  dashstream ingest reset --topic dashstream-quality --url http://host:3002   ask another instance")]
struct Reset {
    /// The topic that the service reads, so that no other stream is reset than you think
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3002")]
    url: String,
}

/// Go on after a record that cannot be processed (KAFKA_ON_DECODE_ERROR=pause)
///
/// /health names the record, and the dead-letter topic holds a letter about it. The answer goes to the instance that owns
/// the record's partition; the others follow it. If the service has an admin token, it is taken from
/// DASHSTREAM_WEB_ADMIN_TOKEN.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream ingest continue --retry                              judge the record again
  dashstream ingest continue --set-aside                          skip it; its dead letter stays
  dashstream ingest continue --set-aside --url http://host:3002   ask another instance")]
struct Continue {
    #[command(flatten)]
    action: Action,
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3002")]
    url: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Action {
    /// Judge the record again
    #[arg(long)]
    retry: bool,
    /// Skip the record
    #[arg(long)]
    set_aside: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Continue(args) => go_on(args, environment),
        Command::Reset(args) => reset(args, environment),
    }
}

fn go_on(Continue { action, url }: &Continue, environment: &Environment) -> anyhow::Result<Exit> {
    let answer = if action.set_aside { Answer::SetAside } else { Answer::Retry };
    let body = ask(url, "/admin/ingest/continue", &json!({"action": answer}), environment)?;
    let records = body.get("continued").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let lines: String = records
        .iter()
        .map(|record| {
            let text = |field| record.get(field).and_then(Value::as_str).unwrap_or("?");
            let partition = record.get("partition").and_then(Value::as_i64).unwrap_or(-1);
            format!("partition {partition}, offset {} ({}): {}\n", text("offset"), text("kind"), text("action"))
        })
        .collect();
    print(lines)
}

fn reset(Reset { topic, url }: &Reset, environment: &Environment) -> anyhow::Result<Exit> {
    let body = ask(url, "/admin/reset", &json!({"topic": topic}), environment)?;
    let epoch = body.get("epoch").and_then(Value::as_str).unwrap_or("?");
    let partitions = body.get("nextOffsets").and_then(Value::as_object);
    let mut lines = format!("epoch {epoch}\n");
    for (partition, offset) in partitions.into_iter().flatten() {
        lines.push_str(&format!("partition {partition} begins at offset {}\n", offset.as_str().unwrap_or("?")));
    }
    print(lines)
}

/// The answer of a service to a request of its operator.
fn ask(url: &str, path: &str, request_body: &Value, environment: &Environment) -> anyhow::Result<Value> {
    let address = format!("{}{path}", url.trim_end_matches('/'));
    let mut request = http_client::agent(TIMEOUT).post(&address).content_type("application/json");
    if let Some(token) = environment.get(TOKEN).and_then(|token| token.to_str()).filter(|token| !token.is_empty()) {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = request
        .send(request_body.to_string())
        .with_context(|| format!("cannot ask {address}; is the service running there? See --url"))?;
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().with_context(|| format!("no readable answer from {address}"))?;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    if status != 200 {
        let message = body.get("message").and_then(Value::as_str).unwrap_or("the answer holds no message");
        anyhow::bail!("the service answered {status}: {message}");
    }
    Ok(body)
}
