//! Who started us, and whose turn it is on a terminal.

use std::iter;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getpgrp, getsid};
use serde::{Deserialize, Serialize};

use super::Process;
use super::stat::Stat;

impl Process {
    /// Whether it started us, or started who did.
    #[must_use]
    pub fn is_above_us(&self) -> bool {
        above_us().any(|above| above.parent == self.pid)
    }
}

/// A process's place among the jobs on its terminal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Jobs {
    /// Its process group, and those of the shells that it was started from, which wait for it.
    groups: Vec<i32>,
    /// The leader of its session in the sense of `setsid(2)`.
    leader: i32,
}

impl Jobs {
    /// Ours.
    #[must_use]
    pub fn ours() -> Self {
        let mut groups: Vec<i32> = above_us().skip(1).map(|process| process.group).collect();
        groups.push(getpgrp().as_raw());
        // 0 where it is in no namespace of ours, or we are of the machine's first session. (rustix has
        // no value for that, and panics.)
        let leader = getsid(None).map_or(0, Pid::as_raw);
        Self { groups, leader }
    }

    /// Whether another job is in the foreground of the terminal by now, such as another vconsole, whose
    /// raw settings are the same as ours: then they are not ours to undo.
    #[must_use]
    pub fn gave_way(&self) -> bool {
        let Some(front) = Stat::read(self.leader).map(|leader| leader.foreground) else {
            return false;
        };
        let front_lives = || kill(Pid::from_raw(-front), None) != Err(Errno::ESRCH);
        front > 0 && !self.groups.contains(&front) && front_lives()
    }
}

/// We, and those who started us, upwards.
fn above_us() -> impl Iterator<Item = Stat> {
    let own = Stat::read(Process::own_pid());
    let above =
        iter::successors(own, |child| Stat::read(child.parent).filter(|_| child.parent > 1));
    // Nobody has so many above them; but numbers can be given anew while we read.
    above.take(65)
}
