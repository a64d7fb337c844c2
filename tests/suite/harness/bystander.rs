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

    /// One of `user`'s that calls itself vconsole: it runs `file`, a copy of `sleep` with that name.
    pub(crate) fn daemon_named_vconsole(file: &Path, user: u32, path: impl AsRef<Path>) -> Self {
        let mut command = Command::new("setsid");
        command.stdin(fs::File::open(path).unwrap()).gid(user).uid(user).current_dir("/");
        Self::daemon_called("vconsole", command.arg(file))
    }

    fn daemon(command: &mut Command) -> Self {
        Self::daemon_called("sleep", command.arg("sleep"))
    }

    fn daemon_called(name: &str, command: &mut Command) -> Self {
        let daemon = Self(command.arg("1000").spawn().unwrap());
        super::until("the daemon runs", || {
            let its = fs::read_to_string(format!("/proc/{}/comm", daemon.pid()));
            its.is_ok_and(|its| its.trim_end() == name)
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
