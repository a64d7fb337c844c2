//! A process that is to let go of the console.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::immunity::Means;
use crate::console::Device;
use crate::process::Process;
use crate::test_point;

/// A process that was identified as one that has the console: never another that got its number.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) process: Process,
    pub(super) means: Means,
    device: Device,
    pidfd: OwnedFd,
}

impl Victim {
    /// Takes hold of `process`; nothing if it is gone, or has let go of the console meanwhile.
    pub(super) fn identify(
        process: &Process,
        means: Means,
        device: Device,
    ) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(process.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Only now is it known that whoever has this number is who we hold.
        let same = Process::shown(process.pid).is_some_and(|now| now.is(process));
        let victim = Self { process: process.clone(), means, device, pidfd };
        Ok((same && victim.has_it()).then_some(victim))
    }

    /// Whether it still has the console, and can use it. One that hides from now on what it has open
    /// still has it, as far as anybody knows.
    pub(super) fn has_it(&self) -> bool {
        let can_use = self.process.can_use(self.device) != Some(false);
        test_point::reached("victim-looked-at");
        // One that ends while it is looked at seems to hide as well: its end is asked for last.
        can_use && !self.has_ended()
    }

    /// Sends it `signal`, and lets it go on if it is stopped: a stopped one heeds nothing.
    pub(super) fn send(&self, signal: Signal) -> io::Result<()> {
        for signal in [signal, Signal::CONT] {
            match pidfd_send_signal(&self.pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    pub(super) fn has_ended(&self) -> bool {
        let mut pidfd = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut pidfd, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }
}

impl AsFd for Victim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
