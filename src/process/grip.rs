//! What a process can still do with a line that it has open, and what becomes of it by a signal.

use std::fs;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::termios::tcgetattr;

use super::stat::{Stat, State};
use super::walk::{Descriptors, every_pid};
use super::{PROC_IS_OURS, Process};
use crate::console::Device;

/// Shells, beside those that the system lists itself.
const SHELLS: [&str; 14] = [
    "sh", "bash", "rbash", "dash", "ash", "busybox", "zsh", "fish", "ksh", "ksh93", "mksh", "csh",
    "tcsh", "elvish",
];

impl Process {
    /// Whether it has `device` open, and can use it: a hang-up leaves descriptors that are good for
    /// nothing, and still show in `/proc`. Nothing is said where `/proc` hides its descriptors from us.
    #[must_use]
    pub fn can_use(&self, device: Device) -> Option<bool> {
        if !*PROC_IS_OURS {
            return None;
        }
        let mut numbers = Vec::new();
        let all = Descriptors::of(self.pid)
            .ok()?
            .each_device(|number, its| numbers.extend((its == device).then_some(number)));
        let usable = numbers.into_iter().any(|number| !self.is_revoked(number));
        (usable || all).then_some(usable)
    }

    /// Whether a descriptor that it has on a line is closed, or was hung up: that gives EIO. Where it
    /// cannot be asked, it counts as good.
    fn is_revoked(&self, number: i32) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return true };
        let copy = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
        match copy {
            Ok(line) => matches!(tcgetattr(line), Err(Errno::IO | Errno::NOTTY)),
            Err(errno) => matches!(errno, Errno::SRCH | Errno::BADF),
        }
    }

    /// Whether there is a terminal that its user sits at. `console` is none: who opens that without a
    /// session of its own may get it as controlling terminal by accident.
    #[must_use]
    pub fn is_interactive(&self, console: Device) -> bool {
        self.terminal != 0 && !self.is_controlled_by(console)
    }

    /// Who leads the session whose controlling terminal is `device`, whether it has that open or not: a
    /// hang-up sends it SIGHUP (`__tty_hangup` in the kernel's `drivers/tty/tty_io.c`).
    #[must_use]
    pub fn leading_on(device: Device) -> Option<Self> {
        every_pid().filter_map(Self::shown).find(|process| {
            process.session == process.pid
                && process.is_controlled_by(device)
                && (process.has_open(device) == Some(true)
                    || !process.has_another_of_that_number(device))
        })
    }

    /// Whether it sees another devpts instance, with a PTY of its own under this one's number: that is
    /// its terminal then, and not this one.
    fn has_another_of_that_number(&self, device: Device) -> bool {
        let Some(name) = self.terminal_name().filter(|name| name.starts_with("pts/")) else {
            return false;
        };
        let its = fs::metadata(format!("/proc/{}/root/dev/{name}", self.pid));
        its.is_ok_and(|its| Device::of(&its).is_some_and(|its| its != device))
    }

    /// Whether others are lost with it: it is a shell, or leads a session that others are in.
    #[must_use]
    pub fn is_shell(&self) -> bool {
        let program = self.program.as_deref().unwrap_or_default();
        let listed = || fs::read_to_string("/etc/shells").unwrap_or_default();
        SHELLS.contains(&program)
            || listed().lines().any(|line| line.rsplit('/').next() == Some(program))
            || self.leads_others()
    }

    fn leads_others(&self) -> bool {
        let in_its_session = |pid: i32| {
            let stat = Stat::read(pid).filter(|stat| stat.state == State::Living);
            stat.is_some_and(|stat| stat.session == self.pid)
        };
        self.session == self.pid && every_pid().filter(|&pid| pid != self.pid).any(in_its_session)
    }
}
