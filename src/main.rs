//! The program: read the command line, do what it says, say how it went.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use vconsole::cli::{Cli, Command};
use vconsole::{commands, terminal};

fn main() -> ExitCode {
    terminal::restore_on_panic();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return commands::report_usage(error),
    };
    let done = match cli.command {
        Command::Attach(options) => commands::attach::run(&options),
        Command::Status(options) => commands::status::run(&options),
        Command::Host(options) => commands::host::run(&options),
    };
    match done {
        Ok(status) => status.into(),
        Err(error) => commands::report(&error).into(),
    }
}
