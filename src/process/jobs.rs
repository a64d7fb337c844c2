//! Who started us, and whose turn it is on a terminal.

use std::iter;

use super::Process;
use super::stat::Stat;

impl Process {
    /// Whether it started us, or started who did.
    #[must_use]
    pub fn is_above_us(&self) -> bool {
        above_us().any(|above| above.parent == self.pid)
    }
}

/// The process group in the foreground of the terminal of the session that `leader` leads (less than 1
/// where it has none); nothing where the leader is gone or hidden.
#[must_use]
pub fn foreground_of(leader: i32) -> Option<i32> {
    Some(Stat::read(leader)?.foreground)
}

/// The process groups of those who started us, and of those who started them: the shells that wait for
/// us are among them.
#[must_use]
pub fn groups_above_us() -> Vec<i32> {
    above_us().skip(1).map(|process| process.group).collect()
}

/// We, and those who started us, upwards.
fn above_us() -> impl Iterator<Item = Stat> {
    let own = Stat::read(Process::own_pid());
    let above =
        iter::successors(own, |child| Stat::read(child.parent).filter(|_| child.parent > 1));
    // Nobody has so many above them; but numbers can be given anew while we read.
    above.take(65)
}
