//! The files that a process has open, how it uses a line, and what ends with it on a signal.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use rustix::termios::tcgetattr;

use crate::device::{Device, is_alias};
use crate::proc_stat::{ProcessState, Stat};
use crate::process::walk::{Descriptors, every_pid};
use crate::process::{Process, master::Master, proc_is_ours};
use crate::{jobs, sys};

/// Shells, in addition to /etc/shells.
const SHELLS: [&str; 14] = [
    "sh", "bash", "rbash", "dash", "ash", "busybox", "zsh", "fish", "ksh", "ksh93", "mksh", "csh",
    "tcsh", "elvish",
];

impl Process {
    /// `None` where `/proc` hides the descriptors.
    fn has_open_as(&self, device: Device, wanted: impl Fn(i32) -> bool) -> Option<bool> {
        let mut found = false;
        let is_it = |its| its == device;
        let all = self.each_device(is_it, |number, _| found = found || wanted(number))?;
        (found || all).then_some(found)
    }

    /// Whether it has the master of the PTY `device`. Many programs that offer a PTY keep the slave
    /// open as well, so that it never hangs up: they are no clients.
    pub(crate) fn has_master_of(&self, device: Device) -> bool {
        let mut found = false;
        self.each_device(Device::is_ptmx, |number, its| {
            let master = Master::read(self.pid, number, its);
            // Where the devpts instance cannot be seen, the number decides.
            found |= master.is_some_and(|master| master.is_of(device).unwrap_or(true));
        });
        found
    }

    /// Whether it has the master of the PTY `device`, or the slave only because it inherited that
    /// from such a program: socat's `EXEC` child does, and never reads it.
    pub(crate) fn is_at_other_end_of(&self, device: Device) -> bool {
        self.has_master_of(device) || self.has_inherited(device)
    }

    /// Whether all its descriptors of `device` are above 2, and are its parent's, which is at the
    /// other end.
    fn has_inherited(&self, device: Device) -> bool {
        let own = self.descriptors_of(device);
        if own.is_empty() || own.iter().any(|&number| number <= 2) {
            return false;
        }
        let Some(parent) = Self::shown(self.parent) else { return false };
        let its = parent.descriptors_of(device);
        let is_its = |&own: &i32| {
            its.iter().any(|&its| sys::is_same_file([(self.pid, own), (parent.pid, its)]))
        };
        own.iter().all(is_its) && parent.is_at_other_end_of(device)
    }

    /// `None` where `/proc` hides the descriptors.
    pub(crate) fn has_open(&self, device: Device) -> Option<bool> {
        self.has_open_as(device, |_| true)
    }

    pub(crate) fn has_as_standard(&self, device: Device) -> bool {
        self.has_open_as(device, |number| number <= 2) == Some(true)
    }

    /// With the path under which each was opened.
    pub(crate) fn open_devices(&self) -> Vec<(PathBuf, Device)> {
        let mut found = Vec::new();
        self.each_device(
            |_| true,
            |number, device| {
                let path = fs::read_link(format!("/proc/{}/fd/{number}", self.pid));
                found.extend(path.ok().map(|path| (path, device)));
            },
        );
        found
    }

    /// Whether it opened `device` as `/dev/console` or `/dev/tty0`: a hang-up leaves such a
    /// descriptor usable (`__tty_hangup` in the kernel's `drivers/tty/tty_io.c`).
    pub(crate) fn has_alias_of(&self, device: Device) -> bool {
        self.open_devices().iter().any(|(path, its)| *its == device && is_alias(path))
    }

    pub(crate) fn descriptor_of(&self, device: Device) -> Option<i32> {
        self.descriptors_of(device).first().copied()
    }

    fn descriptors_of(&self, device: Device) -> Vec<i32> {
        let mut found = Vec::new();
        self.each_device(|its| its == device, |number, _| found.push(number));
        found
    }

    /// Returns whether these are all; `None` where none can be seen.
    pub(super) fn each_device(
        &self,
        wanted: impl Fn(Device) -> bool,
        show: impl FnMut(i32, Device),
    ) -> Option<bool> {
        if !proc_is_ours() {
            return None;
        }
        Some(Descriptors::of(self.pid).ok()?.each_device(wanted, show))
    }

    pub(crate) fn is_above_us(&self) -> bool {
        jobs::is_ancestor(self.pid)
    }

    /// Whether it can use `device`: after a hang-up descriptors stay in `/proc` that are of no use.
    /// `None` where `/proc` hides the descriptors.
    pub(crate) fn can_use(&self, device: Device) -> Option<bool> {
        self.has_open_as(device, |number| !self.is_revoked(number))
    }

    /// Whether the descriptor is closed, or revoked by a hang-up (EIO). One that cannot be checked
    /// counts as good.
    fn is_revoked(&self, number: i32) -> bool {
        let copy = self.pidfd().and_then(|it| pidfd_getfd(it, number, PidfdGetfdFlags::empty()));
        match copy {
            Ok(line) => matches!(tcgetattr(line), Err(Errno::IO | Errno::NOTTY)),
            Err(errno) => matches!(errno, Errno::SRCH | Errno::BADF),
        }
    }

    /// Whether it has a terminal other than `console`, as controlling terminal or as standard input
    /// (`setsid cu`): a process without a session that opens the console may get it as controlling
    /// terminal by accident.
    pub(crate) fn is_interactive(&self, console: Device) -> bool {
        self.terminal != 0 && !self.is_controlled_by(console) || self.reads_a_terminal(console)
    }

    /// Whether somebody sits at its standard input. Daemons that init started have `/dev/console`
    /// there, and others a terminal that is gone.
    fn reads_a_terminal(&self, console: Device) -> bool {
        let mut found = false;
        let is_seat = |its: Device| its != console && its.is_seat();
        self.each_device(is_seat, |number, _| found |= number == 0);
        found && !self.opened_alias(0) && !self.is_revoked(0)
    }

    /// Whether it opened the descriptor as `/dev/console` or `/dev/tty0`.
    pub(super) fn opened_alias(&self, number: i32) -> bool {
        let path = fs::read_link(format!("/proc/{}/fd/{number}", self.pid));
        path.is_ok_and(|path| is_alias(&path))
    }

    /// Whether its end would hang `device` up: it leads the session whose controlling terminal that
    /// is, and only PTYs are spared (`disassociate_ctty` in the kernel's
    /// `drivers/tty/tty_jobctrl.c`).
    pub(crate) fn takes_along(&self, device: Device) -> bool {
        !device.is_pty() && self.session == self.pid && self.is_controlled_by(device)
    }

    /// The leader of the session whose controlling terminal is `device`, open or not: a hang-up
    /// sends it SIGHUP (`__tty_hangup` in the kernel's `drivers/tty/tty_io.c`).
    pub(crate) fn leading_on(device: Device) -> Option<Self> {
        every_pid().filter_map(Self::shown).find(|process| {
            process.session == process.pid
                && process.is_controlled_by(device)
                && (process.has_open(device) == Some(true)
                    || !process.has_another_of_that_number(device))
        })
    }

    /// Whether it sees another devpts instance that has a PTY of the same number: its terminal is
    /// that one.
    fn has_another_of_that_number(&self, device: Device) -> bool {
        let Some(name) = self.terminal_name().filter(|name| name.starts_with("pts/")) else {
            return false;
        };
        let its = fs::metadata(format!("/proc/{}/root/dev/{name}", self.pid));
        its.is_ok_and(|its| Device::of(&its).is_some_and(|its| its != device))
    }

    /// Whether it is a shell, or something like one: others are in its session.
    pub(crate) fn is_shell(&self) -> bool {
        is_shell_name(self.program.as_deref().unwrap_or_default()) || self.leads_others()
    }

    /// Whether it leads a session with others in it than its own children, of which cu has one.
    fn leads_others(&self) -> bool {
        let is_other = |pid: i32| {
            let stat = Stat::read(pid).filter(|stat| stat.state == ProcessState::Living);
            stat.is_some_and(|stat| {
                stat.session == self.pid
                    && (stat.parent != self.pid || is_shell_name(&stat.program))
            })
        };
        self.session == self.pid && every_pid().filter(|&pid| pid != self.pid).any(is_other)
    }

    pub(crate) fn resume(&self) {
        if !self.is_stopped() {
            return;
        }
        // The pid belongs to the process of the pidfd while that process lives.
        if let Ok(pidfd) = self.pidfd()
            && self.is_stopped()
        {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }

    /// Fails with `ESRCH` if there is no such process.
    pub(crate) fn pidfd(&self) -> rustix::io::Result<OwnedFd> {
        pidfd_open(Pid::from_raw(self.pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let Some(stat) = Stat::read(self.pid).filter(|stat| stat.stopped) else { return false };
        self.started.is_some() && Self::started(stat.start) == self.started
    }

    /// The guard that it started. An earlier guard may still be a zombie.
    pub(crate) fn guard(&self) -> Option<Self> {
        let living = |pid| Self::read(pid).filter(|(_, state)| *state == ProcessState::Living);
        let children = every_pid().filter_map(living).map(|(process, _)| process);
        let mut children = children.filter(|it| it.parent == self.pid);
        children.find(|child| child.is_guard() && child.uid == self.uid)
    }
}

fn is_shell_name(program: &str) -> bool {
    let listed = || fs::read_to_string("/etc/shells").unwrap_or_default();
    SHELLS.contains(&program)
        || listed().lines().any(|line| line.rsplit('/').next() == Some(program))
}
