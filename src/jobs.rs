//! Job control: the ancestors of this process, and which job is in the foreground of its terminal.

use std::iter;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, getpgrp, getsid};
use serde::{Deserialize, Serialize};

use crate::proc_stat::Stat;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobInfo {
    /// Its process group, and those of the shells that it was started from, which wait for it.
    groups: Vec<i32>,
    /// The leader of its session (`setsid(2)`).
    leader: i32,
}

impl JobInfo {
    pub(crate) fn ours() -> Self {
        let mut groups: Vec<i32> = ancestors().skip(1).map(|process| process.group).collect();
        groups.push(getpgrp().as_raw());
        // 0 if it is in no namespace of ours, or we are in the first session of the machine.
        // (rustix has no value for that, and panics.)
        let leader = getsid(None).map_or(0, Pid::as_raw);
        Self { groups, leader }
    }

    /// Whether another job is in the foreground of the terminal by now. It may be a vconsole whose
    /// raw settings equal ours: then they are not ours to undo.
    pub(crate) fn gave_way(&self) -> bool {
        let Some(leader) = Stat::read(self.leader) else { return false };
        let front = leader.foreground;
        let front_lives = || kill(Pid::from_raw(-front), None) != Err(Errno::ESRCH);
        front > 0 && !self.groups.contains(&front) && front_lives()
    }
}

fn ancestors() -> impl Iterator<Item = Stat> {
    let own = Stat::read(Pid::this().as_raw());
    let above =
        iter::successors(own, |child| Stat::read(child.parent).filter(|_| child.parent > 1));
    // A limit, since pids can be reused while we read.
    above.take(65)
}

pub(crate) fn is_ancestor(pid: i32) -> bool {
    ancestors().any(|process| process.parent == pid)
}
