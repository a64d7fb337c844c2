//! A program to evict, identified by a pidfd; how it can be evicted, or why it cannot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fs, io};

use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{CapabilitySet, capabilities};

use crate::audit::Event;
use crate::claim::error::EvictError;
use crate::console::target::Target;
use crate::device::Device;
use crate::process::Process;
use crate::{audit, poll, test_point};

/// A process that has the console open. The pidfd cannot mean another process with the same pid.
pub(super) struct EvictTarget {
    pub(super) process: Process,
    pub(super) method: EvictMethod,
    device: Device,
    pidfd: OwnedFd,
}

impl EvictTarget {
    /// Returns `None` if the process has ended or released the console.
    pub(super) fn identify(
        process: &Process,
        method: EvictMethod,
        device: Device,
    ) -> io::Result<Option<Self>> {
        let pidfd = match process.pidfd() {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Only now that the pidfd is open does the pid identify the process.
        let same = Process::shown(process.pid).is_some_and(|now| now.is(process));
        let evictee = Self { process: process.clone(), method, device, pidfd };
        Ok((same && evictee.has_it()).then_some(evictee))
    }

    /// Whether it can use the console. A process that hides its descriptors counts as one that can.
    pub(super) fn has_it(&self) -> bool {
        let can_use = self.process.can_use(self.device) != Some(false);
        test_point::reached("victim-looked-at");
        // A process that ends meanwhile also seems to hide: so that is checked last.
        can_use && !self.has_ended()
    }

    /// Sends `signal`, then SIGCONT: a stopped process reacts to nothing else.
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
        poll::is_readable(&self.pidfd)
    }

    pub(super) fn record_eviction(&self, console: &Target, how: &str) {
        let event = Event::notable("evicted").with("whom", &self.process).with("how", how);
        audit::record(&console.to_string(), &event);
    }
}

impl AsFd for EvictTarget {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EvictMethod {
    Signals,
    HangUp,
}

impl EvictMethod {
    pub(super) fn against(holder: &Process, device: Device) -> Result<Self, EvictError> {
        let error = if !holder.is_interactive(device) {
            EvictError::Daemon
        } else if is_another_users(holder) {
            EvictError::AnotherUsers
        } else if holder.is_shell() {
            EvictError::Shell
        } else if holder.is_above_us() {
            EvictError::AboveUs
        } else if holder.takes_along(device) {
            EvictError::Controlled
        } else if let Some(group) = holder.frozen_cgroup() {
            EvictError::Frozen(group)
        } else {
            return Ok(Self::Signals);
        };
        if may_hang_up() { Ok(Self::HangUp) } else { Err(error) }
    }
}

pub(super) fn is_another_users(process: &Process) -> bool {
    let own = geteuid();
    !own.is_root()
        && (process.uid != Some(own.as_raw())
            || kill(Pid::from_raw(process.pid), None) == Err(nix::errno::Errno::EPERM))
}

/// A hang-up needs `CAP_SYS_ADMIN` in the machine's own user namespace. Root in a container mostly
/// lacks it.
pub(super) fn may_hang_up() -> bool {
    // The machine's own namespace has all numbers, as they are (user_namespaces(7)).
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let of_the_machine = users.is_empty() || users.split_ascii_whitespace().eq(ALL);
    let capable = || capabilities(None).map(|ours| ours.effective);
    of_the_machine && capable().is_ok_and(|ours| ours.contains(CapabilitySet::SYS_ADMIN))
}
