//! Whether a lock file still has a holder. A lock is stale only if its holder is provably gone.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use crate::device::Device;
use crate::locks::file::{Contents, LockFile};
use crate::locks::names::LockName;
use crate::process::{self, Process, snapshot::ProcessSnapshot};

#[derive(Debug)]
pub(crate) enum LockStatus {
    Stale(StaleReason),
    Unknown(UnknownReason),
    Foreign(Process),
    Vconsole(Process),
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StaleReason {
    #[error("its process {0} is gone")]
    Gone(i32),
    /// The pid belongs to a newer process, which does not have the console open.
    #[error("its process {0} is gone, and the number is another's now")]
    Recycled(i32),
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum UnknownReason {
    #[error("it is empty")]
    Empty,
    #[error("it does not name a process")]
    Garbage,
    #[error("it may not be read")]
    Unreadable,
    #[error("it is {0}")]
    NotAFile(&'static str),
    #[error("process {0} is not here, but may live in another pid namespace")]
    OtherNamespace(i32),
    #[error("{0} is younger than it, and may have its number by chance")]
    PerhapsRecycled(Box<Process>),
    #[error("it names this very process, which did not write it")]
    NamesUs,
}

impl LockStatus {
    /// Whether the holder of a lock with an ambiguous name provably uses another device of that
    /// name. For a vconsole it is enough that `device` is not open: the symlink that named the
    /// other device cannot be seen.
    pub(crate) fn is_of_other_device(&self, name: &LockName, device: Device) -> bool {
        match self {
            _ if !name.is_ambiguous() => false,
            Self::Vconsole(holder) => holder.has_open(device) == Some(false),
            Self::Foreign(holder) => {
                let open = holder.open_devices();
                open.iter().all(|(_, its)| *its != device)
                    && open.iter().any(|(path, its)| name.means(path, *its))
            }
            Self::Stale(_) | Self::Unknown(_) => false,
        }
    }
}

/// A process is another one if it is younger than the lock by this. Start times are rough: 148 of
/// 400 processes looked younger than the lock that they had just written, by less.
const CLEARLY: Duration = Duration::from_secs(2);

/// A client may just be opening the console at the first look.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

pub(crate) trait ProcessTable {
    /// The live process with this pid, and whether it is a vconsole.
    fn find(&self, pid: i32) -> Option<(Process, bool)>;
    /// `None` where `/proc` hides the descriptors.
    fn has_open(&self, process: &Process, device: Device) -> Option<bool>;
}

#[derive(Debug, Default)]
pub(crate) struct LiveProcesses {
    /// Processes that did not have the console at two looks need only one look for the next lock:
    /// all the locks of a session name one process.
    cleared: RefCell<Vec<(Process, Device)>>,
}

impl ProcessTable for LiveProcesses {
    fn find(&self, pid: i32) -> Option<(Process, bool)> {
        let process = Process::living(pid)?;
        let is_vconsole = process.is_surely_vconsole();
        Some((process, is_vconsole))
    }

    fn has_open(&self, process: &Process, device: Device) -> Option<bool> {
        let is_it = |(cleared, its): &(Process, Device)| cleared.is(process) && *its == device;
        if self.cleared.borrow().iter().any(is_it) {
            return process.has_open(device);
        }
        let has_it = has_it_at_either_look(process, device);
        if has_it == Some(false) {
            self.cleared.borrow_mut().push((process.clone(), device));
        }
        has_it
    }
}

/// The processes of one snapshot: one look is enough to show them.
impl ProcessTable for ProcessSnapshot {
    fn find(&self, pid: i32) -> Option<(Process, bool)> {
        self.find(pid)
    }

    fn has_open(&self, process: &Process, device: Device) -> Option<bool> {
        self.has_open(process, device)
    }
}

/// Judges a lock of the console `device` so that it may be broken. Without a device no process can
/// be cleared of having the console open.
pub(crate) fn classify(
    table: &impl ProcessTable,
    lock: &LockFile,
    device: Option<Device>,
) -> LockStatus {
    let pids = match &lock.contents {
        Contents::Pids(pids) => pids,
        Contents::Empty => return LockStatus::Unknown(UnknownReason::Empty),
        Contents::Garbage => return LockStatus::Unknown(UnknownReason::Garbage),
        Contents::Unreadable => return LockStatus::Unknown(UnknownReason::Unreadable),
        Contents::NotAFile(what) => return LockStatus::Unknown(UnknownReason::NotAFile(what)),
    };
    // The first of two pids is reported, unless only the second lives.
    let mut status = None;
    for &pid in pids {
        match classify_one(table, pid, lock, device) {
            stale @ LockStatus::Stale(_) => status = status.or(Some(stale)),
            other => return other,
        }
    }
    status.unwrap_or(LockStatus::Unknown(UnknownReason::Garbage))
}

fn classify_one(
    table: &impl ProcessTable,
    pid: i32,
    lock: &LockFile,
    device: Option<Device>,
) -> LockStatus {
    let (process, is_vconsole) = match table.find(pid) {
        // In the machine's first pid namespace every process has a pid. In another, a process
        // outside has none, and its lock can also be younger than the namespace.
        None if process::in_first_namespace() => return LockStatus::Stale(StaleReason::Gone(pid)),
        None => return LockStatus::Unknown(UnknownReason::OtherNamespace(pid)),
        Some(found) => found,
    };
    let times = process.started.zip(lock.written.checked_add(CLEARLY));
    let younger = times.is_some_and(|(started, written)| started > written);
    let alive = if is_vconsole { LockStatus::Vconsole } else { LockStatus::Foreign };
    let another = LockStatus::Stale(StaleReason::Recycled(pid));
    match (younger, pid == Process::own_pid()) {
        // We have not taken anything: the pid was another process's before.
        (true, true) => return another,
        (false, true) => return LockStatus::Unknown(UnknownReason::NamesUs),
        // A vconsole writes its lock before it opens the console.
        (false, false) => return alive(process),
        (true, false) => {}
    }
    match device.and_then(|device| table.has_open(&process, device)) {
        Some(false) => another,
        None if !is_vconsole => {
            LockStatus::Unknown(UnknownReason::PerhapsRecycled(Box::new(process)))
        }
        Some(true) | None => alive(process),
    }
}

fn has_it_at_either_look(process: &Process, device: Device) -> Option<bool> {
    if process.has_open(device)? {
        return Some(true);
    }
    thread::sleep(BETWEEN_LOOKS);
    Process::living(process.pid).map_or(Some(false), |process| process.has_open(device))
}
