//! `dashstream serve`: runs the service.

use super::{Exit, FileArg, seam};
use crate::app::Options;
use crate::config::environment::Environment;
use crate::config::load::{Effective, Loaded, load};
use crate::telemetry;

/// Serve a Kafka topic to browsers
///
/// Every setting has an environment variable, so no file is needed; see `dashstream default-config`. The service answers
/// /health from its start, also while Kafka cannot be reached. SIGTERM and SIGINT stop it in order.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream serve --config /etc/dashstream.toml
  KAFKA_BROKERS=kafka-1:9092,kafka-2:9092 KAFKA_TOPIC=runs dashstream serve
  WEBSOCKET_PORT=0 dashstream serve                  any free port, printed once bound")]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArg,
}

pub(super) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let loaded = load(args.file.config.as_deref(), environment, &[])?;
    start_logging(&loaded)?;
    log_configuration(&loaded);
    // Only tests of the whole service set this variable.
    let allow_sabotage = environment.get("DASHSTREAM_TEST_SABOTAGE").is_some_and(|value| value == "1");
    seam::serve(&loaded.config, Options { allow_sabotage, ..Options::default() })
}

/// Starts logging, first with what the operator should know.
pub(super) fn start_logging(loaded: &Loaded) -> anyhow::Result<()> {
    telemetry::init(&loaded.config.telemetry.log, loaded.config.telemetry.log_format)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// One event per section, secrets hidden.
fn log_configuration(loaded: &Loaded) {
    let effective = loaded.effective();
    for section in crate::config::table::SECTIONS {
        let of_section = |setting: &&Effective| section.settings.iter().any(|row| row.path == setting.key);
        let settings: Vec<_> = effective.iter().filter(of_section).map(shown).collect();
        tracing::info!(section = section.name, settings = %settings.join(" "), "configuration");
    }
}

/// `name=value`, with the source where somebody set it.
fn shown(setting: &Effective) -> String {
    let name = setting.key.rsplit_once('.').map_or(setting.key, |(_, name)| name);
    let value = if setting.value.is_null() { "\"\"".into() } else { setting.value.to_string() };
    match &setting.source {
        crate::config::problem::Origin::Default => format!("{name}={value}"),
        source => format!("{name}={value} ({source})"),
    }
}
