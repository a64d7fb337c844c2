//! A claim that passes from one session to the next, without a moment in which the console is free.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::{Deed, Entry};
use super::lock_file::LockFile;
use super::lock_set::{LockSet, Slot, Stop, Way};
use super::refusal::Refusal;
use super::{Claim, Request};
use crate::console::{Console, OpenError};

/// How long we go on when names change under our hands.
const PATIENCE: Duration = Duration::from_secs(1);

/// All that can be made ready before another session is asked for its console.
#[derive(Debug)]
pub struct Inheritance {
    locks: LockSet,
    ways: Vec<(Slot, Way)>,
}

impl Inheritance {
    /// Looks at the lock files and writes ours, without a name yet: what cannot be had is refused while
    /// the other session still goes on.
    pub fn prepare(request: &Request<'_>) -> Result<Self, Refusal> {
        let (mut locks, ways) = LockSet::look(request)?;
        locks.begin(request)?;
        Ok(Self { locks, ways })
    }

    /// Takes the claim over: `line` is the console, as the other session opened it, with its `flock`.
    pub fn accept(self, request: &Request<'_>, line: OwnedFd) -> Result<Claim, Refusal> {
        let name = || request.target.to_string();
        let unusable = |source| Refusal::Unusable { console: name(), source };
        let console = Console::received(line, request.target).map_err(|error| match error {
            OpenError::NotAConsole(error) => error.into(),
            OpenError::Exclusive => Refusal::Contended { console: name() },
            OpenError::Failed(source) => unusable(source),
        })?;
        if !console.lock().map_err(unusable)? {
            return Err(Refusal::Contended { console: name() });
        }
        request.guard.tell_console(&console);
        if request.guard.is_up() {
            console.set_exclusive().map_err(unusable)?;
        }
        let locks = self.take_names(request)?;
        let mut claim = Claim::over(request, locks, console);
        claim.remarks = claim.locks.get_mut().settle(request);
        Ok(claim)
    }

    fn take_names(self, request: &Request<'_>) -> Result<LockSet, Refusal> {
        let Self { mut locks, mut ways } = self;
        let until = Instant::now() + PATIENCE;
        loop {
            match locks.take_names(request, ways) {
                Ok(()) => return Ok(locks),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::LookAgain) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(Stop::LookAgain) => {
                    return Err(Refusal::Contended { console: request.target.to_string() });
                }
            }
            drop(locks);
            (locks, ways) = LockSet::look(request)?;
            locks.begin(request)?;
        }
    }
}

impl LockSet {
    /// Takes a name over from the session that gives the console to us.
    pub(super) fn inherit(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
        lock: &LockFile,
    ) -> Result<(), Stop> {
        let entry = Entry { place: slot.place, name: slot.name.file.clone() };
        self.note(request.guard, Deed::Take(entry.place, entry.name.clone()));
        let Some(prepared) = &self.prepared[entry.place] else { return Ok(()) };
        let directory = &self.ledger.places[entry.place].directory;
        match directory.replace(prepared, &entry.name, lock.inode) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::LookAgain),
            Err(source) => {
                let directory = directory.path.clone();
                Err(Refusal::Directory { directory, source }.into())
            }
        }
    }
}

impl Claim {
    /// Another session has everything by now: what is left here is only closed.
    pub fn give_away(&self) {
        self.console.give_away();
    }
}
