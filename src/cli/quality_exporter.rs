//! `dashstream quality-exporter`: quality metrics of a topic for Prometheus.

use super::{Exit, FileArg, seam};
use crate::config::environment::Environment;

/// Export quality metrics of a topic to Prometheus
///
/// Reads judgements of quality (messages of metrics of scope `quality`) as a consumer group of its own and serves what they say on
/// /metrics, and how it does on /health, /ready and /live. Brokers, topic, security and limits come from the same file and variables
/// as those of `serve`; options win. A group without a commit begins where KAFKA_AUTO_OFFSET_RESET says: at the first record unless
/// told otherwise. Runs until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream quality-exporter --brokers 127.0.0.1:9092 --topic runs
  METRICS_PORT=0 dashstream quality-exporter                  any free port, printed once bound
  KAFKA_AUTO_OFFSET_RESET=latest dashstream quality-exporter  only what comes from now on")]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(short, long, value_name = "LIST")]
    brokers: Option<String>,
    /// Topic to read. Otherwise KAFKA_TOPIC
    #[arg(short, long)]
    topic: Option<String>,
    /// Consumer group. Otherwise DASHSTREAM_QUALITY_GROUP_ID
    #[arg(long, value_name = "GROUP")]
    group_id: Option<String>,
    /// Address to listen on, host:port or [IPv6 address]:port. Otherwise METRICS_BIND_IP and METRICS_PORT
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    listen: Option<Listen>,
}

/// An address, taken apart; whether host and port can be used is for the settings to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen {
    host: String,
    port: String,
}

fn listen(text: &str) -> Result<Listen, String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err("an IPv6 address needs brackets".into());
    }
    Ok(Listen { host: bare.unwrap_or(host).to_owned(), port: port.to_owned() })
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let host = args.listen.as_ref().map(|listen| listen.host.clone());
    let port = args.listen.as_ref().map(|listen| listen.port.clone());
    let flags = [
        ("--brokers", "kafka.brokers", &args.brokers),
        ("--topic", "kafka.topic", &args.topic),
        ("--group-id", "quality.group_id", &args.group_id),
        ("--listen", "quality.host", &host),
        ("--listen", "quality.port", &port),
    ];
    let config = args.file.load(environment, &flags)?;
    seam::quality_exporter(&config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_at_its_last_colon() {
        let of = |host: &str, port: &str| Ok(Listen { host: host.into(), port: port.into() });
        assert_eq!(listen("127.0.0.1:9190"), of("127.0.0.1", "9190"));
        assert_eq!(listen("[::1]:0"), of("::1", "0"));
        assert!(listen("::1:0").is_err() && listen("9190").is_err());
    }
}
