//! Is a lock alive? Only what can be proved dead is taken for dead.

use std::cell::RefCell;
use std::fmt;
use std::thread;
use std::time::Duration;

use super::lock_file::{Contents, LockFile};
use crate::console::Device;
use crate::process::{self, Census, Presence, Process};

/// What a lock file means.
#[derive(Debug)]
pub enum Verdict {
    /// Nobody holds it any more.
    Dead(Death),
    /// Nobody can say.
    Suspect(Suspicion),
    /// A living program that is no vconsole holds it.
    Foreign(Process),
    /// A living vconsole holds it.
    Ours(Process),
}

/// Why a lock is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process that it names is gone.
    Gone(i32),
    /// The number was given to another process since, which does not have the console.
    Recycled(i32),
}

/// Why nobody can vouch for a lock.
#[derive(Clone, Debug)]
pub enum Suspicion {
    /// It is empty.
    Empty,
    /// It does not name a process.
    Garbage,
    /// It may not be read.
    Unreadable,
    /// It is no regular file, but what is said here, with its article.
    NotAFile(&'static str),
    /// Its process is gone here, but may live in another pid namespace.
    OtherNamespace(i32),
    /// Its process is younger than the lock, and what it has open is hidden from us.
    PerhapsRecycled(Box<Process>),
    /// It names ourselves, and we did not write it.
    NamesUs,
}

/// By how much a process must be younger than the lock that names it to be another one. Start times
/// are rough, and clocks get set: 148 of 400 processes looked younger than the lock that they had just
/// written, by less than this.
const CLEARLY: Duration = Duration::from_secs(2);

/// How long lies between the two looks at what a process has open: a client may just be opening it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What judging a lock asks of processes.
pub(super) trait Register {
    /// The process with this number, if it lives, and whether it is a vconsole.
    fn find(&self, pid: i32) -> Option<(Process, bool)>;
    /// Whether it has `device` open; nothing where that is hidden.
    fn has_open(&self, process: &Process, device: Device) -> Option<bool>;
}

/// The processes as they are now, at two looks.
#[derive(Debug, Default)]
pub(super) struct Now {
    /// Those that did not have a console at two looks: one more does for their next lock. All the locks
    /// that a session left name one process.
    cleared: RefCell<Vec<(Process, Device)>>,
}

impl Register for Now {
    fn find(&self, pid: i32) -> Option<(Process, bool)> {
        match Process::find(pid) {
            Presence::Gone => None,
            Presence::Alive(process) => {
                let is_vconsole = process.is_surely_vconsole();
                Some((process, is_vconsole))
            }
        }
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

/// The processes as they were when they were counted: one look has to do for who only wants to know.
impl Register for Census {
    fn find(&self, pid: i32) -> Option<(Process, bool)> {
        self.find(pid)
    }

    fn has_open(&self, process: &Process, device: Device) -> Option<bool> {
        self.has_open(process, device)
    }
}

/// Judges a lock of the console that is `device` by what `register` knows of processes, so that it may
/// be broken; without a device, no process can be cleared of having it open.
pub(super) fn judge(register: &impl Register, lock: &LockFile, device: Option<Device>) -> Verdict {
    let pids = match &lock.contents {
        Contents::Pids(pids) => pids,
        Contents::Empty => return Verdict::Suspect(Suspicion::Empty),
        Contents::Garbage => return Verdict::Suspect(Suspicion::Garbage),
        Contents::Unreadable => return Verdict::Suspect(Suspicion::Unreadable),
        Contents::NotAFile(what) => return Verdict::Suspect(Suspicion::NotAFile(what)),
    };
    // Of two numbers the first is the one that is spoken of, unless only the second lives.
    let mut verdict = None;
    for &pid in pids {
        match judge_one(register, pid, lock, device) {
            dead @ Verdict::Dead(_) => verdict = verdict.or(Some(dead)),
            not_dead => return not_dead,
        }
    }
    verdict.unwrap_or(Verdict::Suspect(Suspicion::Garbage))
}

fn judge_one(
    register: &impl Register,
    pid: i32,
    lock: &LockFile,
    device: Option<Device>,
) -> Verdict {
    let (process, is_vconsole) = match register.find(pid) {
        // In the machine's first pid namespace every process has a number: gone is gone. In another, a
        // process outside it has none, and its lock can also be younger than the namespace.
        None if process::in_first_namespace() => return Verdict::Dead(Death::Gone(pid)),
        None => return Verdict::Suspect(Suspicion::OtherNamespace(pid)),
        Some(found) => found,
    };
    let younger = process
        .started
        .zip(lock.written.checked_add(CLEARLY))
        .is_some_and(|(started, written)| started > written);
    if pid == Process::own_pid() {
        // We have not taken anything: the number was another's before, here or in a namespace.
        return if younger {
            Verdict::Dead(Death::Recycled(pid))
        } else {
            Verdict::Suspect(Suspicion::NamesUs)
        };
    }
    let alive = if is_vconsole { Verdict::Ours } else { Verdict::Foreign };
    // A vconsole that is claiming a console as well: it writes its lock before it opens that.
    if !younger {
        return alive(process);
    }
    match device.and_then(|device| register.has_open(&process, device)) {
        Some(false) => Verdict::Dead(Death::Recycled(pid)),
        None if !is_vconsole => Verdict::Suspect(Suspicion::PerhapsRecycled(Box::new(process))),
        Some(true) | None => alive(process),
    }
}

fn has_it_at_either_look(process: &Process, device: Device) -> Option<bool> {
    if process.has_open(device)? {
        return Some(true);
    }
    thread::sleep(BETWEEN_LOOKS);
    match Process::find(process.pid) {
        Presence::Gone => Some(false),
        Presence::Alive(process) => process.has_open(device),
    }
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(pid) => write!(out, "its process {pid} is gone"),
            Self::Recycled(pid) => {
                write!(out, "its process {pid} is gone, and the number is another's now")
            }
        }
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("it is empty"),
            Self::Garbage => out.write_str("it does not name a process"),
            Self::Unreadable => out.write_str("it may not be read"),
            Self::NotAFile(what) => write!(out, "it is {what}"),
            Self::OtherNamespace(pid) => {
                write!(out, "process {pid} is not here, but may live in another pid namespace")
            }
            Self::PerhapsRecycled(process) => {
                write!(out, "{process} is younger than it, and may have its number by chance")
            }
            Self::NamesUs => out.write_str("it names this very process, which did not write it"),
        }
    }
}
