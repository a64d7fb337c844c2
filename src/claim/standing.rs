//! How a console stands: who has it and how that is known, put together from its lock files, the
//! kernel's table of locks and what processes have open.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::judge::Verdict;
use super::names::Convention;
use super::survey::Found;
use crate::console::{Device, Kind, OtherEnd, Target};
use crate::process::{Census, Process};

/// What a console is, from the harmless to the grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nobody has it, as far as can be seen.
    Free,
    /// Nobody has it, but somebody left a lock file behind.
    Dead,
    /// It has a lock file that nobody can vouch for.
    Suspect,
    /// Somebody has it.
    Held,
}

impl State {
    /// What it is called in a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Dead => "dead",
            Self::Suspect => "suspect",
            Self::Held => "held",
        }
    }
}

/// How it is known that somebody has a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A lock file under this convention names the process.
    LockFile(Convention),
    /// The kernel says that it has `flock` on the device.
    Flock,
    /// It has the device open, and is not at its other end.
    Open,
}

impl Way {
    /// What it is called in a word: that of the convention, or what it is.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LockFile(convention) => convention.word(),
            Self::Flock => "flock",
            Self::Open => "open",
        }
    }
}

/// Somebody who has a console.
#[derive(Debug)]
pub struct Holder {
    /// The process; nothing where only its lock can be seen.
    pub process: Option<Process>,
    /// How that is known, in one order.
    pub by: Vec<Way>,
    /// Since when: when the first lock file was written, else when the process started, since which it
    /// may have it.
    pub since: Option<SystemTime>,
}

/// A console, and all that is known of it.
#[derive(Debug)]
pub struct Standing {
    /// The console.
    pub target: Target,
    /// What it is, all in all.
    pub state: State,
    /// Who has it, in the order of their numbers.
    pub holders: Vec<Holder>,
    /// Its lock files.
    pub locks: Vec<Found>,
    /// What is at the other end of a PTY, in the order of process numbers: usually one process, and
    /// what it started.
    pub other_end: Vec<OtherEnd>,
    /// Whether it has another end that could not be seen.
    pub other_end_unseen: bool,
}

impl Standing {
    /// Puts together what is known of `target`: its lock files `locks`, and the processes that the
    /// kernel names as holders of its `flock`.
    pub(super) fn of(target: Target, locks: Vec<Found>, flocks: &[i32], census: &Census) -> Self {
        let device = target.device();
        let mut holders = Holders::default();
        for lock in &locks {
            holders.add_lock(lock);
        }
        holders.add_openers(device, census);
        if !flocks.is_empty() {
            holders.add_flock(flocks, device, census);
        }
        let holders = holders.into_list();
        let masters = census.masters(device).processes.into_iter();
        let other_end: Vec<_> = masters.cloned().map(OtherEnd::of).collect();
        Self {
            state: state(&holders, &locks),
            other_end_unseen: target.kind() == Kind::Pty && other_end.is_empty(),
            target,
            holders,
            locks,
            other_end,
        }
    }
}

fn state(holders: &[Holder], locks: &[Found]) -> State {
    if !holders.is_empty() {
        return State::Held;
    }
    let states = locks.iter().map(|lock| match lock.verdict {
        Verdict::Dead(_) => State::Dead,
        Verdict::Suspect(_) => State::Suspect,
        Verdict::Foreign(_) | Verdict::Ours(_) => State::Held,
    });
    states.max().unwrap_or(State::Free)
}

/// Holders by their numbers, so that each is there once however many locks it has.
#[derive(Default)]
struct Holders {
    known: BTreeMap<i32, Holder>,
    /// Somebody has the console's `flock`, and nobody can see who.
    unseen: bool,
}

impl Holders {
    fn add(&mut self, process: &Process, way: Way) -> &mut Holder {
        let holder = self.known.entry(process.pid).or_insert_with(|| Holder {
            process: Some(process.clone()),
            by: Vec::new(),
            since: None,
        });
        if !holder.by.contains(&way) {
            holder.by.push(way);
        }
        holder
    }

    fn add_lock(&mut self, lock: &Found) {
        if let Verdict::Foreign(process) | Verdict::Ours(process) = &lock.verdict {
            let holder = self.add(process, Way::LockFile(lock.convention));
            let first = holder.since.is_none_or(|since| lock.written < since);
            holder.since = if first { Some(lock.written) } else { holder.since };
        }
    }

    /// Who has the console open uses it: but for who is at its other end, as many who offer a PTY keep
    /// it open so that it never hangs up, and the guard of a session, which is shown itself.
    fn add_openers(&mut self, device: Device, census: &Census) {
        let masters = census.masters(device).processes;
        let offers = |pid| masters.iter().any(|master| master.pid == pid);
        for process in census.openers(device) {
            if !is_seen_by_its_session(process, device, census) && !offers(process.pid) {
                self.add(process, Way::Open);
            }
        }
    }

    /// The kernel names who took the lock first. It went on to others with the descriptor if that one
    /// does not have the console open; then whoever alone has it open has the lock.
    fn add_flock(&mut self, named: &[i32], device: Device, census: &Census) {
        let mut found = false;
        for &pid in named {
            let Some((process, _)) = census.find(pid) else { continue };
            // Where it hides what it has open, nothing speaks against it.
            let has_it = census.has_open(&process, device) != Some(false);
            if has_it && !is_seen_by_its_session(&process, device, census) {
                self.add(&process, Way::Flock);
                found = true;
            }
        }
        if found {
            return;
        }
        let mut open = self.known.values_mut().filter(|holder| holder.by.contains(&Way::Open));
        match (open.next(), open.next()) {
            (Some(only), None) => only.by.push(Way::Flock),
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
            list.push(Holder { process: None, by: vec![Way::Flock], since: None });
        }
        list
    }
}

/// Whether this is the guard of a session: the session is the holder. A name makes no guard: it runs the
/// file that we run, or one who has the console open started it, as a guard of another version.
fn is_seen_by_its_session(process: &Process, device: Device, census: &Census) -> bool {
    let has_a_session = || census.openers(device).any(|other| process.is_child_of(other));
    process.is_guard() && (process.is_one_of_us() || has_a_session())
}
