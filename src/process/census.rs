//! All that many questions need to know of processes, read in one walk and looked up by number.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;

use super::master::{Master, is_ptmx};
use super::walk::{Descriptors, is_gone, listed_pids};
use super::{PROC_IS_OURS, Presence, Process, packed};
use crate::console::Device;

/// Character devices that are no terminal lines, and that nearly everybody has open: memory devices
/// such as `/dev/null`, and the miscellaneous ones (the kernel's devices.txt).
const NO_LINES: [u32; 2] = [1, 10];

/// Who has which devices open, and who is at the other end of which PTY: all processes, each of them
/// read once.
#[derive(Debug, Default)]
pub struct Census {
    /// Those that have a device open, or the master of a PTY.
    processes: HashMap<i32, Entry>,
    openers: HashMap<Device, Vec<i32>>,
    masters: HashMap<u32, Vec<(i32, Master)>>,
    /// Every number that was there.
    counted: HashSet<i32>,
    /// Whether `/proc` could not be read.
    blind: bool,
    /// Those that hide what they have open: other users'.
    hidden: HashMap<i32, Process>,
    /// They, by the number of the terminal that controls them.
    hidden_on: HashMap<u64, Vec<i32>>,
    /// Those that were looked for, and whether each is a vconsole: thousands of lock files can name one.
    looked_for: RefCell<HashMap<i32, Option<(Process, bool)>>>,
}

#[derive(Debug)]
struct Entry {
    process: Process,
    devices: Vec<(i32, Device)>,
}

/// The process at the other end of a PTY, as far as that can be seen.
#[derive(Debug, Default)]
pub struct MasterHolders<'a> {
    /// They, in the order of their numbers: usually one, and what it started.
    pub processes: Vec<&'a Process>,
    /// Whether somebody has the master of a PTY of that number, and nobody can see in which devpts
    /// instance.
    pub unsure: bool,
}

impl Census {
    /// Walks over all processes, once. Ourselves it leaves out.
    #[must_use]
    pub fn take() -> Self {
        let mut census = Self::default();
        if !*PROC_IS_OURS {
            return census;
        }
        let Ok(pids) = listed_pids() else {
            census.blind = true;
            return census;
        };
        let own = Process::own_pid();
        for pid in pids.filter(|&pid| pid != own) {
            match Descriptors::of(pid) {
                Ok(descriptors) => census.count(pid, &descriptors),
                Err(errno) if is_gone(errno) => continue,
                Err(_) => census.count_hidden(pid),
            }
            census.counted.insert(pid);
        }
        census.openers.values_mut().for_each(|pids| pids.sort_unstable());
        census
            .masters
            .values_mut()
            .for_each(|masters| masters.sort_unstable_by_key(|&(pid, _)| pid));
        census
    }

    fn count(&mut self, pid: i32, descriptors: &Descriptors) {
        let mut devices = Vec::new();
        let all = descriptors.each_device(|number, device| {
            if !NO_LINES.contains(&rustix::fs::major(device.number)) {
                devices.push((number, device));
            }
        });
        if !all {
            self.count_hidden(pid);
        }
        if devices.is_empty() {
            return;
        }
        let Some((process, _)) = Process::read(pid) else { return };
        for &(number, device) in &devices {
            if is_ptmx(device) {
                if let Some(master) = Master::read(pid, number, device) {
                    self.masters.entry(master.index).or_default().push((pid, master));
                }
            } else {
                let openers = self.openers.entry(device).or_default();
                // One process comes in one go: its second descriptor would stand right behind.
                if openers.last() != Some(&pid) {
                    openers.push(pid);
                }
            }
        }
        self.processes.insert(pid, Entry { process, devices });
    }

    fn count_hidden(&mut self, pid: i32) {
        if let Some(process) = Process::that_may_hide_something(pid) {
            self.hidden_on.entry(process.terminal).or_default().push(pid);
            self.hidden.insert(pid, process);
        }
    }

    /// Those that have `device` open, in the order of their numbers.
    pub fn openers(&self, device: Device) -> impl Iterator<Item = &Process> {
        let pids = self.openers.get(&device).into_iter().flatten();
        pids.filter_map(|pid| Some(&self.processes.get(pid)?.process))
    }

    /// Those that have the master of the PTY slave `device`.
    #[must_use]
    pub fn masters(&self, device: Device) -> MasterHolders<'_> {
        let mut found = MasterHolders::default();
        let candidates = self.masters.get(&rustix::fs::minor(device.number)).into_iter().flatten();
        for (pid, master) in candidates {
            match master.is_of(device) {
                Some(false) => {}
                None => found.unsure = true,
                Some(true) => {
                    let process = self.processes.get(pid).map(|entry| &entry.process);
                    // It may have the master more than once.
                    let known = found.processes.last().is_some_and(|last| last.pid == *pid);
                    found.processes.extend(process.filter(|_| !known));
                }
            }
        }
        found
    }

    /// The process with this number, if it lives, and whether it is a vconsole. Whom the census does
    /// not know is asked for now, once.
    #[must_use]
    pub fn find(&self, pid: i32) -> Option<(Process, bool)> {
        let mut looked_for = self.looked_for.borrow_mut();
        looked_for.entry(pid).or_insert_with(|| self.look_for(pid)).clone()
    }

    fn look_for(&self, pid: i32) -> Option<(Process, bool)> {
        let known = self.processes.get(&pid).map(|entry| &entry.process);
        let process = match known.or_else(|| self.hidden.get(&pid)) {
            Some(process) => process.clone(),
            None => match Process::find(pid) {
                Presence::Alive(process) => process,
                Presence::Gone => return None,
            },
        };
        let is_vconsole = process.is_surely_vconsole();
        Some((process, is_vconsole))
    }

    /// Whether a process has `device` open; nothing is said where `/proc` hides that.
    #[must_use]
    pub fn has_open(&self, process: &Process, device: Device) -> Option<bool> {
        if let Some(entry) = self.processes.get(&process.pid) {
            return Some(entry.devices.iter().any(|(_, its)| *its == device));
        }
        if self.hidden.contains_key(&process.pid) {
            return None;
        }
        // Who was counted and has no entry has no line open. A newcomer is asked now.
        if self.counted.contains(&process.pid) { Some(false) } else { process.has_open(device) }
    }

    /// Whether a process has `device` as standard input, output or error.
    #[must_use]
    pub fn has_as_standard(&self, process: &Process, device: Device) -> bool {
        let entry = self.processes.get(&process.pid);
        entry.is_some_and(|entry| {
            entry.devices.iter().any(|&(number, its)| number <= 2 && its == device)
        })
    }

    /// Of those that hide what they have open, the ones that `device` controls, as far as its number
    /// tells.
    pub fn hidden_on(&self, device: Device) -> impl Iterator<Item = &Process> {
        let pids = self.hidden_on.get(&packed(device)).into_iter().flatten();
        pids.filter_map(|pid| self.hidden.get(pid))
    }

    /// Every vconsole session that has devices open.
    pub fn sessions(&self) -> impl Iterator<Item = &Process> {
        let processes = self.processes.values().map(|entry| &entry.process);
        processes.filter(|process| process.program.as_deref() == Some("vconsole"))
    }

    /// How many processes hide what they have open.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden.len()
    }

    /// Whether `/proc` shows the processes of others at all: with the mount option `hidepid` it may
    /// not, and one of another pid namespace shows none that we know (`proc(5)`).
    #[must_use]
    pub fn shows_everybody(&self) -> bool {
        *PROC_IS_OURS && !self.blind && fs::metadata("/proc/1").is_ok()
    }
}
