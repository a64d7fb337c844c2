//! Points in the program at which a test makes it stop.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::program::Program;
use super::until;

/// A point at which programs stop.
pub(crate) struct Pause {
    directory: TempDir,
    variable: &'static str,
    point: &'static str,
    reached: File,
}

impl Pause {
    /// Until they are continued.
    pub(crate) fn at(point: &'static str) -> Self {
        Self::by("VCONSOLE_TEST_PAUSE", point)
    }

    /// Until [`Pause::is_over`] for them, whoever continues them.
    pub(crate) fn held_at(point: &'static str) -> Self {
        Self::by("VCONSOLE_TEST_HOLD", point)
    }

    /// The same at a second point.
    pub(crate) fn held_too_at(point: &'static str) -> Self {
        Self::by("VCONSOLE_TEST_HOLD_TOO", point)
    }

    fn by(variable: &'static str, point: &'static str) -> Self {
        let directory = TempDir::with_prefix("vconsole-pause-").unwrap();
        let fifo = directory.path().join("reached");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reached = rustix::fs::open(&fifo, flags, Mode::empty()).unwrap().into();
        Self { directory, variable, point, reached }
    }

    fn fifo(&self) -> PathBuf {
        self.directory.path().join("reached")
    }

    pub(crate) fn of(&self, program: Program) -> Program {
        program.env(self.variable, format!("{}={}", self.point, self.fifo().display()))
    }

    /// Waits until one of them gets there and has stopped, and gives it.
    #[track_caller]
    pub(crate) fn reached(&self) -> Process {
        let mut line = Vec::new();
        until(&format!("{} is reached", self.point), || {
            let mut byte = [0];
            while rustix::io::read(&self.reached, &mut byte) == Ok(1) && byte != *b"\n" {
                line.push(byte[0]);
            }
            byte == *b"\n"
        });
        let pid: i32 = String::from_utf8(line).unwrap().parse().unwrap();
        let process = Process::find(rustix::process::Pid::from_raw(pid).unwrap()).unwrap();
        process.is_stopped();
        process
    }

    /// They go on.
    pub(crate) fn is_over(&self, processes: &[&Process]) {
        std::fs::remove_file(self.fifo()).unwrap();
        for process in processes {
            process.signal(Signal::CONT);
        }
    }
}
