//! The vconsole program as a library, for its binary, its tests and its benchmarks. It has no
//! stable interface.
//!
//! Each layer uses only the layers below it:
//!
//! - `commands`: `attach`, `status` and `host`
//! - `relay`: the loop that moves bytes; `status`: the survey of all consoles
//! - `claim`: the exclusive right to operate a console
//! - `guard`: the helper process that cleans up after a killed session
//! - `session`: the sockets of running sessions, takeover, viewers, the wait queue
//! - `locks`: UUCP lock files
//! - `console`: what a user attaches to
//! - `process`: processes, as `/proc` and pidfds show them
//! - the ground floor: the modules that stand on none of these

#![doc(hidden)]
#![deny(unsafe_code)]

mod audit;
mod claim;
mod cli;
mod commands;
mod console;
mod device;
mod endpoint;
mod exit_status;
mod guard;
mod jobs;
mod locks;
mod messages;
mod poll;
mod printable;
mod proc_stat;
mod process;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
mod relay;
mod ring_buffer;
mod seqpacket;
mod session;
mod signals;
mod status;
#[allow(unsafe_code, reason = "the one module that may have it")]
pub mod sys;
mod terminal;
mod test_point;
mod user_name;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};

pub use printable::Printable;
pub use session::registry::{SocketRole, name_of as socket_name};

pub fn main() -> ExitCode {
    terminal::restore_on_panic();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return commands::report_usage(error),
    };
    let done = match cli.command {
        Command::Attach(args) => commands::attach::run(&args.into()),
        Command::Status(args) => commands::status::run(&args.into()),
        Command::Host(args) => commands::host::run(&args.into()),
    };
    match done {
        Ok(status) => status.into(),
        Err(error) => commands::report(&error).into(),
    }
}

/// The commands after the escape key: their keys, and what they do.
pub fn key_commands() -> impl Iterator<Item = (String, &'static str)> {
    relay::actions::KEY_BINDINGS.iter().map(|binding| (binding.key_names(), binding.description))
}

/// The definition of the command line, from which the man pages and completions are generated.
pub fn command_line() -> clap::Command {
    Cli::command()
}
