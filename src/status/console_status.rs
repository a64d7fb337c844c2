//! The status of a console: its holders, and the evidence for each from lock files, the kernel's
//! table of locks and open descriptors.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::SystemTime};

use crate::console::{kind::Kind, peer::Peer, target::Target};
use crate::device::Device;
use crate::locks::{names::Convention, staleness::LockStatus};
use crate::process::{Process, snapshot::ProcessSnapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConsoleState {
    Free,
    Stale,
    /// It has a lock file whose holder is not known.
    Unknown,
    Held,
}

impl ConsoleState {
    /// As in `status --json`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Stale => "dead",
            Self::Unknown => "suspect",
            Self::Held => "held",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evidence {
    LockFile(Convention),
    /// The kernel names it as holder of the flock.
    Flock,
    /// It has the device open, and is not its peer.
    Open,
}

impl Evidence {
    /// As in `status --json`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::LockFile(convention) => convention.word(),
            Self::Flock => "flock",
            Self::Open => "open",
        }
    }
}

pub(crate) struct Holder {
    /// `None` if only its lock can be seen.
    pub(crate) process: Option<Process>,
    /// Sorted.
    pub(crate) by: Vec<Evidence>,
    /// When its first lock file was written, else when the process started.
    pub(crate) since: Option<SystemTime>,
}

pub(crate) struct LockReport {
    pub(crate) path: PathBuf,
    /// As far as the name tells.
    pub(crate) convention: Convention,
    pub(crate) console: Option<OsString>,
    pub(crate) status: LockStatus,
    pub(crate) written: SystemTime,
}

pub(crate) struct ConsoleStatus {
    pub(crate) target: Target,
    pub(crate) state: ConsoleState,
    pub(crate) holders: Vec<Holder>,
    pub(crate) locks: Vec<LockReport>,
    /// The processes at the other end of a PTY, sorted by pid: usually one, and its children.
    pub(crate) peer: Vec<Peer>,
    pub(crate) peer_unseen: bool,
}

impl ConsoleStatus {
    /// `flocks` are the pids that the kernel names as holders of the flock.
    pub(crate) fn of(
        target: Target,
        locks: Vec<LockReport>,
        flocks: &[i32],
        snapshot: &ProcessSnapshot,
    ) -> Self {
        let device = target.device();
        let mut holders = Holders::default();
        for lock in &locks {
            holders.add_lock(lock);
        }
        holders.add_openers(device, snapshot);
        if !flocks.is_empty() {
            holders.add_flock(flocks, device, snapshot);
        }
        let holders = holders.into_list();
        let masters = snapshot.masters(device).into_iter();
        let peer: Vec<_> = masters.cloned().map(Peer::of).collect();
        Self {
            state: state(&holders, &locks),
            peer_unseen: target.kind == Kind::Pty && peer.is_empty(),
            target,
            holders,
            locks,
            peer,
        }
    }
}

fn state(holders: &[Holder], locks: &[LockReport]) -> ConsoleState {
    if !holders.is_empty() {
        return ConsoleState::Held;
    }
    let states = locks.iter().map(|lock| match lock.status {
        LockStatus::Stale(_) => ConsoleState::Stale,
        LockStatus::Unknown(_) => ConsoleState::Unknown,
        LockStatus::Foreign(_) | LockStatus::Vconsole(_) => ConsoleState::Held,
    });
    states.max().unwrap_or(ConsoleState::Free)
}

#[derive(Default)]
struct Holders {
    known: BTreeMap<i32, Holder>,
    unseen: bool,
}

impl Holders {
    fn add(&mut self, process: &Process, evidence: Evidence) -> &mut Holder {
        let new = || Holder { process: Some(process.clone()), by: Vec::new(), since: None };
        let holder = self.known.entry(process.pid).or_insert_with(new);
        if !holder.by.contains(&evidence) {
            holder.by.push(evidence);
        }
        holder
    }

    fn add_lock(&mut self, lock: &LockReport) {
        if let LockStatus::Foreign(process) | LockStatus::Vconsole(process) = &lock.status {
            let holder = self.add(process, Evidence::LockFile(lock.convention));
            let earliest = holder.since.map_or(lock.written, |since| since.min(lock.written));
            holder.since = Some(earliest);
        }
    }

    /// Adds the openers, except the peer, which often keeps the console open against a hang-up, its
    /// children that inherited the console, and the guard of a session, which is shown itself.
    fn add_openers(&mut self, device: Device, snapshot: &ProcessSnapshot) {
        let masters = snapshot.masters(device);
        // Whether it inherited the console is asked only where that can be.
        let is_at_other_end = |process: &Process| {
            masters.iter().any(|master| process.is(master))
                || !masters.is_empty()
                    && !snapshot.has_as_standard(process, device)
                    && process.is_at_other_end_of(device)
        };
        for process in snapshot.openers(device) {
            if !is_guard_of_session(process, device, snapshot) && !is_at_other_end(process) {
                self.add(process, Evidence::Open);
            }
        }
    }

    /// The kernel names the process that took the lock first. If that one does not have the console
    /// open, the lock passed with the descriptor to the only process that has it open.
    fn add_flock(&mut self, named: &[i32], device: Device, snapshot: &ProcessSnapshot) {
        let mut found = false;
        for &pid in named {
            let Some((process, _)) = snapshot.find(pid) else { continue };
            // If it hides what it has open, nothing contradicts the kernel.
            let has_it = snapshot.has_open(&process, device) != Some(false);
            if has_it && !is_guard_of_session(&process, device, snapshot) {
                self.add(&process, Evidence::Flock);
                found = true;
            }
        }
        if found {
            return;
        }
        let mut open = self.known.values_mut().filter(|holder| holder.by.contains(&Evidence::Open));
        match (open.next(), open.next()) {
            (Some(only), None) => only.by.push(Evidence::Flock),
            _ => self.unseen = true,
        }
    }

    fn into_list(self) -> Vec<Holder> {
        let mut list: Vec<Holder> = self.known.into_values().collect();
        for holder in &mut list {
            holder.by.sort_unstable();
            let started = holder.process.as_ref().and_then(|process| process.started);
            holder.since = holder.since.or(started);
        }
        if self.unseen {
            list.push(Holder { process: None, by: vec![Evidence::Flock], since: None });
        }
        list
    }
}

/// Whether this is the guard of a session. The name proves nothing: a guard runs our file, or in
/// another version is the child of a process that has the console open.
fn is_guard_of_session(process: &Process, device: Device, snapshot: &ProcessSnapshot) -> bool {
    let has_a_session = || snapshot.openers(device).any(|other| process.is_child_of(other));
    process.is_guard() && (process.is_one_of_us() || has_a_session())
}
