//! The command line: the tree of subcommands, and exit codes.
//!
//! One file per subcommand. Results go to standard output, everything else to standard error. It must not know how the
//! service works; [`seam`] is where it meets the rest of the program.

mod check_config;

mod completions;

mod default_config;

pub mod demo;

mod dlq;

pub mod generate;

mod ingest;

mod man;

mod quality_exporter;

mod runs;

mod serve;

mod show;

mod topics;

mod topology;

mod torture;

mod seam;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Config;
use crate::config::environment::Environment;
use crate::config::load::{Flag, load};
use crate::config::problem::ConfigError;
use crate::telemetry;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped in order.
    Success = 0,
    /// It could not start, or could not finish.
    Failed = 1,
    /// `dashstream diff` could not compare; 1 means there that something differs.
    NotCompared = 2,
    /// The command line or the configuration cannot be used (`EX_USAGE`).
    Usage = 64,
    /// The supervisor gave up; the platform should restart the process (`EX_SOFTWARE`).
    Escalated = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Live telemetry of AI-agent graphs, from Kafka to the browser, with no silent hole.
#[derive(Debug, Parser)]
#[command(name = "dashstream", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  dashstream demo                                    try it: everything in one process
  KAFKA_BROKERS=kafka:9092 dashstream serve          serve a real topic
  dashstream default-config > dashstream.toml        start a configuration file
  dashstream check-config --config dashstream.toml   see what would be used
  dashstream tail                                    what is being published
  dashstream inspect                                 which runs there are

Exit codes: 0 success, 1 failure (of `diff`: a difference, and 2 failure), 64 unusable command line or configuration, 70 the supervisor gave up.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Generate(generate::Args),
    CheckConfig(check_config::Args),
    DefaultConfig(default_config::Args),
    Ingest(ingest::Args),
    Dlq(dlq::Args),
    Tail(runs::tail::Args),
    Replay(runs::replay::Args),
    Export(runs::export::Args),
    Inspect(runs::inspect::Args),
    Diff(runs::diff::Args),
    Profile(runs::profile::Args),
    Flamegraph(runs::flamegraph::Args),
    Costs(runs::costs::Args),
    Watch(runs::watch::Args),
    Topics(topics::Args),
    QualityExporter(quality_exporter::Args),
    Topology(topology::Args),
    Torture(torture::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The options do not go together, in a way that only shows when the command runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// The configuration file, as several subcommands take it.
#[derive(Clone, Debug, clap::Args)]
struct FileArg {
    /// Configuration file (TOML). Otherwise the one that DASHSTREAM_CONFIG names, otherwise none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArg {
    /// The configuration that holds for a command that meets Kafka: file, variables, then `flags` (option, setting, value).
    /// Logging is started.
    fn load(
        &self,
        environment: &Environment,
        flags: &[(&'static str, &'static str, &Option<String>)],
    ) -> anyhow::Result<Config> {
        let given = |(name, path, value): &(&'static str, &'static str, &Option<String>)| {
            (*value).clone().map(|value| Flag { name, path, value })
        };
        let flags: Vec<_> = flags.iter().filter_map(given).collect();
        let loaded = load(self.config.as_deref(), environment, &flags)?;
        serve::start_logging(&loaded)?;
        Ok(loaded.config)
    }
}

/// The whole tree of subcommands, for what is made from it: completions, manual pages, tests that miss no command.
pub fn command_tree() -> clap::Command {
    Cli::command()
}

/// Runs the command line and reports failures.
pub fn main(args: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; anything else is a usage error, which clap would report as 2.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            let _ = error.print();
            return exit.into();
        }
    };
    match run(cli.command, environment) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", telemetry::chain(error.as_ref()));
            let unusable = error.is::<ConfigError>() || error.is::<UsageError>();
            let exit = if unusable { Exit::Usage } else { Exit::Failed };
            exit.into()
        }
    }
}

fn run(command: Command, environment: &Environment) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => serve::run(&args, environment),
        Command::Demo(args) => demo::run(&args, environment),
        Command::Generate(args) => generate::run(&args, environment),
        Command::CheckConfig(args) => check_config::run(&args, environment),
        Command::DefaultConfig(args) => default_config::run(&args),
        Command::Ingest(args) => ingest::run(&args, environment),
        Command::Dlq(args) => dlq::run(&args, environment),
        Command::Tail(args) => runs::tail::run(&args, environment),
        Command::Replay(args) => runs::replay::run(&args, environment),
        Command::Export(args) => runs::export::run(&args, environment),
        Command::Inspect(args) => runs::inspect::run(&args, environment),
        Command::Diff(args) => runs::diff::run(&args, environment),
        Command::Profile(args) => runs::profile::run(&args, environment),
        Command::Flamegraph(args) => runs::flamegraph::run(&args, environment),
        Command::Costs(args) => runs::costs::run(&args, environment),
        Command::Watch(args) => runs::watch::run(&args, environment),
        Command::Topics(args) => topics::run(&args, environment),
        Command::QualityExporter(args) => quality_exporter::run(&args, environment),
        Command::Torture(args) => torture::run(&args, environment),
        Command::Topology(args) => topology::run(&args, environment),
        Command::Completions(args) => completions::run(&args, &mut command_tree()),
        Command::Man(args) => man::run(&args, command_tree()),
    }
}

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: impl AsRef<[u8]>) -> anyhow::Result<Exit> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Success),
    }
}
