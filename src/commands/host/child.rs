//! A process that host started.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

use crate::exit_status::ExitStatus;

/// A child, held by its pidfd.
pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let pid = Pid::from_child(&command.spawn()?);
        // Nobody else waits for our children, so the number is still this one's.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd, status: None })
    }

    /// The descriptor that is readable when it ended; none when that is known.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.status.is_none().then(|| self.pidfd.as_fd())
    }

    /// How it ended, if it did.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
            self.status = ended.and_then(|ended| {
                let exited = ended.exit_status().map(|code| ExitStatus::Command(low_byte(code)));
                exited.or_else(|| ended.terminating_signal().map(ExitStatus::Signal))
            });
        }
        Ok(self.status)
    }

    /// Waits for its end at most so long; how it ended, if it did.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(end) = self.end() {
            let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
            // Signals have been heard already when this is asked for: an early return is no harm.
            let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit));
        }
        self.status()
    }

    /// Sends it `signal`.
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended meanwhile, which is all that can be wrong.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills the process group that it leads, if it has not ended.
    pub(super) fn kill_group(&self) {
        // As long as it was not waited for, its number is nobody else's.
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// An exit status has 8 bits (exit(3)).
fn low_byte(code: i32) -> u8 {
    code.to_le_bytes()[0]
}
