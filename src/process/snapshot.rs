//! One walk over all processes: which of them has which device open.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;

use crate::device::Device;
use crate::process::walk::{Descriptors, is_gone, listed_pids};
use crate::process::{Process, is_init, master::Master, proc_is_ours};

/// Majors that nearly every process has open: memory devices such as `/dev/null`, and miscellaneous
/// ones (the kernel's devices.txt).
const NOT_LINES: [u32; 2] = [1, 10];

/// The open devices of all processes except this one, read in one walk over `/proc`.
#[derive(Default)]
pub(crate) struct ProcessSnapshot {
    processes: HashMap<i32, OpenDevices>,
    openers: HashMap<Device, Vec<i32>>,
    /// By the number of their slave.
    masters: HashMap<u32, Vec<(i32, Master)>>,
    listed: HashSet<i32>,
    /// The processes that hide their descriptors: those of other users.
    hidden: HashMap<i32, Process>,
    /// By controlling terminal, as in [`Device::packed`].
    hidden_on: HashMap<u64, Vec<i32>>,
    /// There is no `/proc`, or it is that of another pid namespace.
    pub(crate) proc_unavailable: bool,
    /// Later lookups by pid, and whether each is a vconsole: thousands of lock files can name one
    /// process.
    found: RefCell<HashMap<i32, Option<(Process, bool)>>>,
}

struct OpenDevices {
    process: Process,
    devices: Vec<(i32, Device)>,
}

impl ProcessSnapshot {
    /// The rest of the snapshot stays empty.
    pub(crate) fn of(device: Device) -> Self {
        Self::take(|its| its == device)
    }

    pub(crate) fn of_all_lines() -> Self {
        Self::take(|its| !NOT_LINES.contains(&its.major()))
    }

    fn take(wanted: impl Fn(Device) -> bool) -> Self {
        let mut snapshot = Self::default();
        let Some(pids) = proc_is_ours().then(listed_pids).and_then(Result::ok) else {
            snapshot.proc_unavailable = true;
            return snapshot;
        };
        let own = Process::own_pid();
        for pid in pids.filter(|&pid| pid != own) {
            match Descriptors::of(pid) {
                Ok(descriptors) => snapshot.add(pid, &descriptors, &wanted),
                Err(errno) if is_gone(errno) => continue,
                Err(_) => snapshot.add_hidden(pid),
            }
            snapshot.listed.insert(pid);
        }
        snapshot.openers.values_mut().for_each(|pids| pids.sort_unstable());
        let masters = snapshot.masters.values_mut();
        masters.for_each(|masters| masters.sort_unstable_by_key(|&(pid, _)| pid));
        snapshot
    }

    fn add(&mut self, pid: i32, descriptors: &Descriptors, wanted: impl Fn(Device) -> bool) {
        let mut devices = Vec::new();
        let all = descriptors.each_device(wanted, |number, device| devices.push((number, device)));
        if !all {
            self.add_hidden(pid);
        }
        if devices.is_empty() {
            return;
        }
        let Some((process, _)) = Process::read(pid) else { return };
        if is_init(pid) {
            // It keeps `/dev/console` open, and reads nothing.
            devices.retain(|(number, _)| !process.opened_alias(*number));
        }
        for &(number, device) in &devices {
            if device.is_ptmx() {
                if let Some(master) = Master::read(pid, number, device) {
                    self.masters.entry(master.index).or_default().push((pid, master));
                }
            } else {
                let openers = self.openers.entry(device).or_default();
                // A process is added once: its second descriptor comes right after the first.
                if openers.last() != Some(&pid) {
                    openers.push(pid);
                }
            }
        }
        self.processes.insert(pid, OpenDevices { process, devices });
    }

    fn add_hidden(&mut self, pid: i32) {
        if let Some(process) = Process::that_may_hide_something(pid) {
            self.hidden_on.entry(process.terminal).or_default().push(pid);
            self.hidden.insert(pid, process);
        }
    }

    pub(crate) fn openers(&self, device: Device) -> impl Iterator<Item = &Process> {
        let pids = self.openers.get(&device).into_iter().flatten();
        pids.filter_map(|pid| Some(&self.processes.get(pid)?.process))
    }

    /// The processes that have the master of the PTY `device`, sorted by pid: one, and children
    /// that inherited it. Masters of an unknown devpts instance are left out.
    pub(crate) fn masters(&self, device: Device) -> Vec<&Process> {
        let masters = self.masters.get(&device.minor()).into_iter().flatten();
        let masters = masters.filter(|(_, master)| master.is_of(device) == Some(true));
        let mut pids: Vec<_> = masters.map(|(pid, _)| pid).collect();
        pids.dedup();
        pids.into_iter().filter_map(|pid| Some(&self.processes.get(pid)?.process)).collect()
    }

    /// Looks a process up now, once, if it is not in the snapshot.
    pub(crate) fn find(&self, pid: i32) -> Option<(Process, bool)> {
        self.found.borrow_mut().entry(pid).or_insert_with(|| self.look_up(pid)).clone()
    }

    fn look_up(&self, pid: i32) -> Option<(Process, bool)> {
        let known = self.processes.get(&pid).map(|open| &open.process);
        let known = known.or_else(|| self.hidden.get(&pid)).cloned();
        let process = known.or_else(|| Process::living(pid))?;
        let is_vconsole = process.is_surely_vconsole();
        Some((process, is_vconsole))
    }

    pub(crate) fn has_open(&self, process: &Process, device: Device) -> Option<bool> {
        if let Some(open) = self.processes.get(&process.pid) {
            return Some(open.devices.iter().any(|(_, its)| *its == device));
        }
        if self.hidden.contains_key(&process.pid) {
            return None;
        }
        // A listed process without an entry has no line open. A newer one is looked up now.
        if self.listed.contains(&process.pid) { Some(false) } else { process.has_open(device) }
    }

    pub(crate) fn has_as_standard(&self, process: &Process, device: Device) -> bool {
        let devices = self.processes.get(&process.pid).into_iter().flat_map(|open| &open.devices);
        devices.into_iter().any(|&(number, its)| number <= 2 && its == device)
    }

    pub(crate) fn hidden_on(&self, device: Device) -> impl Iterator<Item = &Process> {
        let pids = self.hidden_on.get(&device.packed()).into_iter().flatten();
        pids.filter_map(|pid| self.hidden.get(pid))
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Process> {
        let processes = self.processes.values().map(|open| &open.process);
        processes.filter(|process| process.program.as_deref() == Some("vconsole"))
    }

    pub(crate) fn hidden(&self) -> usize {
        self.hidden.len()
    }

    /// The mount option `hidepid` hides other users' processes (`proc(5)`).
    pub(crate) fn shows_everybody(&self) -> bool {
        !self.proc_unavailable && fs::metadata("/proc/1").is_ok()
    }
}
