//! The `dashstream` command: hands arguments and environment to the command line and returns its exit code.

use std::process::ExitCode;

use dashstream::cli;
use dashstream::config::environment::Environment;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &Environment::of_process())
}
