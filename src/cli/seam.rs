//! Where the command line meets the program. Each function is to call the composition in [`crate::app`].

use super::{Exit, demo, generate};
use crate::app::{self, Ended, Options};
use crate::config::Config;

/// Runs the service until it is told to stop.
pub(super) fn serve(config: &Config, allow_sabotage: bool) -> anyhow::Result<Exit> {
    match app::serve(config, Options { allow_sabotage })? {
        Ended::Stopped => Ok(Exit::Success),
        Ended::Escalated(reason) => {
            tracing::error!(reason, "the supervisor gave up");
            Ok(Exit::Escalated)
        }
        Ended::Refused(reason) => anyhow::bail!(reason),
    }
}

/// Runs the demo until it is told to stop.
pub(super) fn demo(_options: &demo::Args, _config: Config) -> anyhow::Result<Exit> {
    unavailable("demo")
}

/// Writes generated records until done or told to stop.
pub(super) fn generate(_options: &generate::Options, _config: Config) -> anyhow::Result<Exit> {
    unavailable("generate")
}

/// Actors, edges and bounds, as text or as JSON.
pub(super) fn topology(_config: &Config, _json: bool) -> anyhow::Result<String> {
    unavailable("topology")
}

fn unavailable<T>(what: &str) -> anyhow::Result<T> {
    anyhow::bail!("{what} is not available in this build")
}
