//! Continuing a process that is stopped.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Process;
use super::stat::{Stat, State};
use super::walk::every_pid;

impl Process {
    /// Continues it if it is stopped: this process, and no other that has got its number since.
    pub fn wake(&self) {
        if !self.is_stopped() {
            return;
        }
        let pidfd =
            Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // The number belongs to whom the pidfd means for as long as that one lives.
        if let Some(pidfd) = pidfd.filter(|_| self.is_stopped()) {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }

    fn is_stopped(&self) -> bool {
        let Some(stat) = Stat::read(self.pid).filter(|stat| stat.stopped) else { return false };
        self.started.is_some() && Self::started(stat.start) == self.started
    }

    /// The guard that it started, if `/proc` shows it. An earlier one may have left and not be forgotten.
    #[must_use]
    pub fn guard(&self) -> Option<Self> {
        let living = |pid| Self::read(pid).filter(|(_, state)| *state == State::Living);
        let children = every_pid().filter_map(living).map(|(process, _)| process);
        let mut children = children.filter(|it| it.parent == self.pid);
        children.find(|child| child.is_guard() && child.uid == self.uid)
    }
}
