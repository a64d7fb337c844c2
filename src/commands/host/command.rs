//! The command that host runs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::time::Duration;

use nix::unistd::{User, getuid};

use super::child::Child;
use super::line::CommandLine;
use crate::exit_status::ExitStatus;
use crate::printable::Printable;
use crate::sys::lead_a_session_on;

/// How long a command whose terminal is gone has to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// The command, as the leader of a session on its line. The line must be gone when this is dropped:
/// what waits for the command then is its end, if need be by SIGKILL.
pub(super) struct HostedCommand(Child);

/// Why there is no command, and with what status shells end then.
pub(super) struct Refused {
    program: OsString,
    error: io::Error,
}

impl HostedCommand {
    /// Starts `words`, or the user's shell, on `line`.
    pub(super) fn start(
        words: &[OsString],
        line: &CommandLine,
    ) -> io::Result<Result<Self, Refused>> {
        let shell = [shell()];
        let [program, arguments @ ..] = words else { return Self::start(&shell, line) };
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(line.slave()?).stdout(line.slave()?).stderr(line.slave()?);
        lead_a_session_on(&mut command, line.slave()?);
        let refused = |error| Refused { program: program.into(), error };
        Ok(Child::start(&mut command).map(Self).map_err(refused))
    }

    /// The descriptor that is readable when it ended; none when that is known.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.0.end()
    }

    /// How it ended, if it did.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.status()
    }
}

impl Drop for HostedCommand {
    fn drop(&mut self) {
        // The kernel has sent SIGHUP when the line went. There is nobody to tell of errors.
        if let Ok(None) = self.0.wait(GRACE) {
            self.0.kill_group();
            let _ = self.0.wait(GRACE);
        }
    }
}

impl Refused {
    /// 127 where there is no such program, 126 where it cannot be run.
    pub(super) fn status(&self) -> ExitStatus {
        ExitStatus::Command(if self.is_missing() { 127 } else { 126 })
    }

    fn is_missing(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot run {}: ", Printable::new(&self.program))?;
        match &self.error {
            _ if self.is_missing() => out.write_str("there is no such program"),
            other => other.fmt(out),
        }
    }
}

/// The user's shell: what `SHELL` says, else what the user database says.
fn shell() -> OsString {
    let asked_for = std::env::var_os("SHELL");
    let registered = || Some(User::from_uid(getuid()).ok()??.shell.into_os_string());
    let named = |shell: &OsString| shell != OsStr::new("");
    asked_for.filter(named).or_else(registered).filter(named).unwrap_or_else(|| "/bin/sh".into())
}
