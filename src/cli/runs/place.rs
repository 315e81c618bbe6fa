//! Where the records are, and which of them are meant: options that all commands of this folder share.

use super::seam;
use crate::cli::FileArg;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::setting::Literal;
use crate::config::table;
use crate::pipeline::letters::point_in_time;
use crate::runs::item::{Body, Item};

/// Where the records are.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Place {
    #[command(flatten)]
    file: FileArg,
    /// Bootstrap brokers, host:port, separated by commas. Otherwise KAFKA_BROKERS
    #[arg(short = 'b', long, visible_alias = "bootstrap-servers", value_name = "LIST")]
    brokers: Option<String>,
    #[arg(short = 't', long, help = topic_help())]
    topic: Option<String>,
}

impl Place {
    /// The configuration that holds for these options: options win over variables, variables over the file. Logging is
    /// started.
    pub(in crate::cli) fn load(&self, environment: &Environment) -> anyhow::Result<Config> {
        let flags = [("--brokers", "kafka.brokers", &self.brokers), ("--topic", "kafka.topic", &self.topic)];
        self.file.load(environment, &flags)
    }
}

/// The default is that of the service, whatever that is.
fn topic_help() -> String {
    let topic = table::settings().find(|setting| setting.path == "kafka.topic").map(|setting| setting.default);
    let default = if let Some(Literal::Text(topic)) = topic { topic } else { "" };
    format!("Topic of the records. Otherwise KAFKA_TOPIC [default: {default}]")
}

/// Which messages are meant. What is not set admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(in crate::cli) struct Which {
    /// Messages of this thread
    #[arg(long, visible_alias = "thread-id", value_name = "ID")]
    pub(in crate::cli) thread: Option<String>,
    /// Messages of this tenant
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) tenant: Option<String>,
    /// Records that Kafka has since then: a time (2026-01-31T12:00:00Z), or a span before now (30m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(in crate::cli) since: Option<i64>,
    /// Records that Kafka has from before then, in the same forms
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(in crate::cli) until: Option<i64>,
}

impl Which {
    /// Whether a record of this time is meant, Unix milliseconds. One without a time may be.
    pub(in crate::cli) fn admits_time(&self, record_time_ms: Option<i64>) -> bool {
        record_time_ms.is_none_or(|time| {
            self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
        })
    }

    /// Whether a message is meant, by its own header.
    pub(in crate::cli) fn admits(&self, item: &Item) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        same(&self.thread, thread_of(item)) && same(&self.tenant, &item.header.tenant_id)
    }
}

/// The thread of a message. An execution trace may name it in its body alone.
pub(in crate::cli) fn thread_of(item: &Item) -> &str {
    match &item.body {
        Body::ExecutionTrace(trace) if item.header.thread_id.is_empty() => &trace.thread_id,
        _ => &item.header.thread_id,
    }
}

fn time(text: &str) -> Result<i64, String> {
    point_in_time(text, seam::now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telemetry::{Event, ExecutionTrace, Header};

    #[test]
    fn the_help_names_the_topic_that_the_service_reads() {
        assert!(topic_help().ends_with("[default: dashstream-quality]"), "{}", topic_help());
    }

    #[test]
    fn messages_are_chosen_by_their_own_header_and_records_by_kafkas_time() {
        let which = Which { thread: Some("t".into()), tenant: Some("a".into()), since: Some(10), until: Some(20) };
        let header = |thread: &str, tenant: &str| Header {
            thread_id: thread.into(),
            tenant_id: tenant.into(),
            ..Header::default()
        };
        let event = |thread, tenant| Item {
            place: Default::default(),
            record_time_ms: None,
            header: header(thread, tenant),
            body: Body::Event(Event::default()),
        };
        assert!(which.admits(&event("t", "a")) && Which::default().admits(&event("", "")));
        assert!(!which.admits(&event("t", "b")) && !which.admits(&event("u", "a")) && !which.admits(&event("", "a")));
        let trace = ExecutionTrace { thread_id: "t".into(), ..ExecutionTrace::default() };
        assert!(which.admits(&Item { body: Body::ExecutionTrace(trace), ..event("", "a") }));
        let times = [Some(9), Some(10), Some(19), Some(20), None].map(|time| which.admits_time(time));
        assert_eq!(times, [false, true, true, false, true]);
    }
}
