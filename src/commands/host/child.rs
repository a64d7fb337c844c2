//! The processes that host starts: the command, and the session of `--attach`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fmt, io, os::unix::process::CommandExt as _, process::Command};

use nix::unistd::{User, getuid};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

use crate::{
    commands::host::line::CommandLine, exit_status::ExitStatus, poll, printable::Printable,
    sys::lead_a_session_on,
};

pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Child {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let pid = Pid::from_child(&command.spawn()?);
        // Only we wait for our children, so the number is still this child's.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd, status: None })
    }

    /// Readable when it has ended; `None` once that is known.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.status.is_none().then(|| self.pidfd.as_fd())
    }

    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
            self.status = ended.and_then(|ended| {
                // An exit status has 8 bits (exit(3)).
                let low_byte = |code: i32| code.to_le_bytes()[0];
                let exited = ended.exit_status().map(low_byte).map(ExitStatus::Command);
                exited.or_else(|| ended.terminating_signal().map(ExitStatus::Signal))
            });
        }
        Ok(self.status)
    }

    /// Waits for its end, for `limit` at most.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(end) = self.end() {
            poll::wait_readable(end, Some(Instant::now() + limit));
        }
        self.status()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended meanwhile; nothing else can fail.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills the process group that it leads.
    pub(super) fn kill_group(&self) {
        // Until it is waited for, no other process gets its number.
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// How long a command without a terminal may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// The command, which leads a session on its line. Drop it after the line: the drop waits for the
/// command's end, and uses SIGKILL if needed.
pub(super) struct HostedCommand(pub(super) Child);

/// Why the command did not start.
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
        let [program, arguments @ ..] = words else { return Self::start(&[shell()], line) };
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(line.slave()?).stdout(line.slave()?).stderr(line.slave()?);
        lead_a_session_on(&mut command, line.slave()?);
        let refused = |error| Refused { program: program.into(), error };
        Ok(Child::start(&mut command).map(Self).map_err(refused))
    }
}

impl Drop for HostedCommand {
    fn drop(&mut self) {
        // The kernel sent SIGHUP when the line was closed.
        if let Ok(None) = self.0.wait(GRACE) {
            self.0.kill_group();
            let _ = self.0.wait(GRACE);
        }
    }
}

impl Refused {
    /// As in shells: 127 for no such program, 126 for one that cannot be run.
    pub(super) fn status(&self) -> ExitStatus {
        let missing = self.error.kind() == io::ErrorKind::NotFound;
        ExitStatus::Command(if missing { 127 } else { 126 })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot run {}: ", Printable::new(&self.program))?;
        match self.error.kind() {
            io::ErrorKind::NotFound => out.write_str("there is no such program"),
            _ => self.error.fmt(out),
        }
    }
}

/// From `SHELL`, else from the user database.
fn shell() -> OsString {
    let asked_for = env::var_os("SHELL");
    let registered = || Some(User::from_uid(getuid()).ok()??.shell.into_os_string());
    let named = |shell: &OsString| shell != OsStr::new("");
    asked_for.filter(named).or_else(registered).filter(named).unwrap_or_else(|| "/bin/sh".into())
}

/// How long a session may take to end by itself, and then after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// A `vconsole attach` on the user's terminal, in our process group: so it is in the foreground
/// when we are. Drop it after the console: the drop waits until it has left the terminal.
pub(super) struct Attachment(pub(super) Child);

impl Attachment {
    pub(super) fn start(console: &Path) -> io::Result<Self> {
        let mut attach = Command::new(this_program());
        // A user looks for this name in the list of processes, not for the file's.
        attach.arg0("vconsole").arg("attach").arg(console);
        Ok(Self(Child::start(&mut attach)?))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Ok(None) = self.0.wait(PATIENCE) {
            self.0.signal(Signal::TERM);
            self.0.signal(Signal::CONT);
            let _ = self.0.wait(PATIENCE);
        }
    }
}

/// The file we were started from; if it was removed or replaced, what is left of it.
fn this_program() -> PathBuf {
    let file = env::current_exe().ok().filter(|file| file.exists());
    file.unwrap_or_else(|| "/proc/self/exe".into())
}
