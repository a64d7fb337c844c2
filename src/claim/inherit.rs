//! A claim that passes from one session to the next, without a moment in which the console is free.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::ledger::{Deed, Entry};
use super::lock_file::LockFile;
use super::lock_set::{LockSet, Slot, Stop, Way};
use super::refusal::Refusal;
use super::{Claim, Request};
use crate::console::{Console, OpenError, unless_hung_up};

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

    /// Whether the other session has any of the console's lock files.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.ways.iter().any(|(_, way)| matches!(way, Way::Inherit(_)))
    }

    /// Takes the names over: `console` is as the other session opened it, with its `flock`, and the other
    /// session is at the other end of `line`.
    ///
    /// `give_up` tells that session that it keeps the console, before it gets its names back.
    pub fn accept(
        self,
        request: &Request<'_>,
        console: OwnedFd,
        line: impl AsFd,
        give_up: &dyn Fn(),
    ) -> Result<Borrowed, Refusal> {
        let name = || request.target.to_string();
        request.guard.tell_receiving_from(line);
        let console = Console::received(console, request.target).map_err(|error| match error {
            OpenError::NotAConsole(error) => error.into(),
            OpenError::Exclusive => Refusal::Contended { console: name() },
            OpenError::Failed(source) => Refusal::Unusable { console: name(), source },
        })?;
        request.guard.tell_console(&console);
        let locks = self.take_names(request, give_up)?;
        Ok(Borrowed(Claim::over(request, locks, console)))
    }

    fn take_names(self, request: &Request<'_>, give_up: &dyn Fn()) -> Result<LockSet, Refusal> {
        let Self { mut locks, mut ways } = self;
        let until = Instant::now() + PATIENCE;
        loop {
            match locks.take_names(request, ways) {
                Ok(()) => return Ok(locks),
                Err(Stop::Refused(refusal)) => {
                    give_up();
                    return Err(refusal);
                }
                Err(Stop::LookAgain) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(Stop::LookAgain) => {
                    give_up();
                    return Err(Refusal::Contended { console: request.target.to_string() });
                }
            }
            drop(locks);
            (locks, ways) = LockSet::look(request)?;
            locks.begin(request)?;
        }
    }
}

/// A claim that is ours as soon as the session that gives it knows that we have everything. Until then it
/// is that session's: dropping this only closes the console, and gives our names back.
#[derive(Debug)]
pub struct Borrowed(Claim);

impl Borrowed {
    /// It is ours.
    pub fn keep(self, request: &Request<'_>) -> Result<Claim, Refusal> {
        let Self(mut claim) = self;
        claim.console.keep();
        request.guard.tell_received();
        if request.guard.is_up() {
            let console = request.target.to_string();
            let unusable = |source| Refusal::Unusable { console, source };
            // Where the other end has just closed there is nothing to keep others out of, and still
            // something to show.
            claim.console.set_exclusive().or_else(unless_hung_up).map_err(unusable)?;
        } else {
            claim.do_without_flag();
        }
        claim.remarks.extend(claim.locks.get_mut().settle(request));
        Ok(claim)
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
    /// Another session is about to have it: if that is the end of it here, it is only closed.
    pub fn give_away(&self) {
        self.console.give_away();
    }

    /// It is ours as before: process `to`, to which it was given away, has not taken it.
    pub fn take_back(&self, to: i32, guard: &Guard) {
        self.console.keep();
        self.locks.borrow_mut().take_back(to, guard);
    }
}
