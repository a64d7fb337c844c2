//! A program that lives, has a number and perhaps a console, and does nothing.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `sleep`: a live program that is no vconsole. Dropping it ends it.
pub(crate) struct Bystander(Child);

impl Bystander {
    /// One that has nothing open.
    pub(crate) fn new() -> Self {
        Self::on(Stdio::null())
    }

    /// One that has `path` open: a console, if it is to be a holder without a lock.
    pub(crate) fn with_open(path: impl AsRef<Path>) -> Self {
        Self::on(fs::File::open(path).unwrap())
    }

    /// A daemon that has `path` open: it leads a session of its own, and has no terminal.
    pub(crate) fn daemon_with_open(path: impl AsRef<Path>) -> Self {
        Self::daemon(Command::new("setsid").stdin(fs::File::open(path).unwrap()))
    }

    /// The same, run by `user`.
    pub(crate) fn daemon_of(user: u32, path: impl AsRef<Path>) -> Self {
        let mut command = Command::new("setsid");
        command.stdin(fs::File::open(path).unwrap()).gid(user).uid(user);
        Self::daemon(&mut command)
    }

    fn daemon(command: &mut Command) -> Self {
        command.args(["sleep", "1000"]);
        let daemon = Self(command.spawn().unwrap());
        super::until("the daemon runs", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid()));
            name.is_ok_and(|name| name.trim_end() == "sleep")
        });
        daemon
    }

    fn on(input: impl Into<Stdio>) -> Self {
        Self(Command::new("sleep").arg("1000").stdin(input).spawn().unwrap())
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What a lock file of its says.
    pub(crate) fn lock(&self) -> String {
        format!("{:>10}\n", self.pid())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
