//! Who has a console, whatever locks they ask for or not.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{Device, Target};
use crate::process::{Openers, Presence, Process};

/// A descriptor that is there at every look for so long belongs to somebody who uses the console. One
/// that goes away was udev's, fuser's, or that of somebody who lost the same race.
pub(super) const LONG_ENOUGH: Duration = Duration::from_millis(250);

/// How long lies between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Those of `openers` that use the console, though they hold no lock on it: not just for a moment, and
/// not from its other end. A vconsole never counts: the one that drives has the locks, and any other
/// reads nothing.
pub(super) fn who_stay(device: Device, openers: &Openers) -> Vec<Process> {
    let mut holders: Vec<Process> =
        openers.processes.iter().filter(|process| is_client(process, device)).cloned().collect();
    let until = Instant::now() + LONG_ENOUGH;
    while !holders.is_empty() && Instant::now() < until {
        thread::sleep(BETWEEN_LOOKS);
        holders.retain(|holder| holder.can_use(device) == Some(true));
    }
    holders
}

/// Whether a process that has the console open may be one that reads it. One of us is not, unless the
/// console is its own terminal; nor is one that was hung up.
pub(super) fn is_client(process: &Process, device: Device) -> bool {
    let one_of_us = process.is_one_of_us() && !process.has_as_standard(device);
    !one_of_us && !process.has_master_of(device) && process.can_use(device) != Some(false)
}

/// Those who hold the console's `flock`: the kernel names a process, which is only a hint, since the
/// lock goes with the descriptor to others; so that it must have the console open as well, or hide what
/// it has open. Where that leaves nobody, all who have it open.
pub(super) fn of_flock(target: &Target) -> Openers {
    let mut openers = Openers::of(target.device());
    let flocks = Flocks::read();
    let named = flocks.of(target);
    if openers.processes.iter().any(|process| named.contains(&process.pid)) {
        openers.processes.retain(|process| named.contains(&process.pid));
        return openers;
    }
    let hidden = |&pid: &i32| match Process::find(pid) {
        Presence::Alive(process) if process.has_open(target.device()).is_none() => Some(process),
        _ => None,
    };
    let hidden: Vec<Process> = named.iter().filter(|&&pid| pid > 0).filter_map(hidden).collect();
    if !hidden.is_empty() {
        openers.processes = hidden;
    }
    openers
}

/// The same, as far as the kernel's table and `openers` tell. The kernel goes on naming the first who took
/// the lock after that one has passed it on and closed the console: then it is a session's that has it open.
pub(super) fn of_flock_as_seen(target: &Target, openers: &Openers) -> Vec<Process> {
    let (device, own) = (target.device(), Process::own_pid());
    let flocks = Flocks::read();
    let named = flocks.of(target);
    let may_have_it = |&pid: &i32| match Process::find(pid) {
        Presence::Alive(process) if process.has_open(device) != Some(false) => Some(process),
        _ => None,
    };
    let others = named.iter().filter(|&&pid| pid > 0 && pid != own);
    let by: Vec<Process> = others.filter_map(may_have_it).collect();
    if named.is_empty() || !by.is_empty() {
        return by;
    }
    let is_session = |process: &&Process| {
        process.is_surely_vconsole() && !process.is_guard() && !process.has_master_of(device)
    };
    let sessions = openers.processes.iter().filter(is_session);
    sessions.filter(|process| process.can_use(device) != Some(false)).cloned().collect()
}

/// Whether those who hold the console's `flock` are among `victims`, as far as can be seen.
pub(super) fn flock_is_of(target: &Target, victims: &[i32]) -> bool {
    let device = target.device();
    let by = of_flock(target).processes;
    let is_victim = |process: &Process| victims.contains(&process.pid);
    let others = by.iter().any(|process| !is_victim(process) && !process.has_master_of(device));
    !others && by.iter().any(is_victim)
}

/// Who keeps the console's `flock` with nothing but descriptors that were hung up: those are good for
/// nothing else, and keep it until their process ends.
pub(super) fn of_flock_and_hung_up(target: &Target) -> Option<Process> {
    let device = target.device();
    let by = of_flock(target).processes.into_iter();
    let mut by = by.filter(|process| !process.has_master_of(device));
    let first = by.next().filter(|process| process.can_use(device) == Some(false))?;
    by.all(|process| process.can_use(device) == Some(false)).then_some(first)
}

/// The processes that the kernel names as holders of `flock`, by the file.
#[derive(Debug)]
pub(super) struct Flocks(HashMap<String, Vec<i32>>);

impl Flocks {
    /// Reads `/proc/locks`.
    pub(super) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/locks").unwrap_or_default())
    }

    /// A line has a number, the kind of lock, advisory or mandatory, read or write, the process, and the
    /// file as major:minor:inode, the first two hexadecimal (`proc_locks(5)`).
    pub(super) fn parse(table: &str) -> Self {
        let mut flocks: HashMap<String, Vec<i32>> = HashMap::new();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // One who waits for the lock has an arrow in the second place.
            if let [_, "FLOCK", _, _, pid, file, ..] = fields[..]
                && let Ok(pid) = pid.parse()
            {
                flocks.entry(file.to_owned()).or_default().push(pid);
            }
        }
        Self(flocks)
    }

    /// Those named for a console: none where nobody has locked it.
    pub(super) fn of(&self, target: &Target) -> &[i32] {
        // On most machines few files are locked: then nothing needs to be asked.
        let file = (!self.0.is_empty()).then(|| fs::metadata(target.path()).ok()).flatten();
        file.map_or(&[], |file| self.named(file.dev(), file.ino()))
    }

    pub(super) fn named(&self, device: u64, inode: u64) -> &[i32] {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = format!("{major:02x}:{minor:02x}:{inode}");
        self.0.get(&file).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::Flocks;

    #[test]
    fn the_kernel_s_table_names_who_holds_and_not_who_waits() {
        let table = "\
1: FLOCK  ADVISORY  WRITE 812 00:18:53 0 EOF
1: -> FLOCK  ADVISORY  WRITE 813 00:18:53 0 EOF
2: POSIX  ADVISORY  WRITE 814 00:18:53 0 EOF
3: FLOCK  ADVISORY  WRITE 815 00:18:54 0 EOF
4: FLOCK  ADVISORY  WRITE -1 00:18:53 0 EOF
half a line
";
        let flocks = Flocks::parse(table);
        assert_eq!(flocks.named(rustix::fs::makedev(0, 0x18), 53), [812, -1]);
        assert_eq!(flocks.named(rustix::fs::makedev(0, 0x18), 55), [0; 0]);
    }
}
