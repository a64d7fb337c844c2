//! Passing a claim from one session to the next, without a moment in which the console is free.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::claim::holders::not_opened;
use crate::claim::slot::{AcquireError, Slot, SlotState};
use crate::claim::{Claim, lock_set::LockSet, request::Request};
use crate::console::open::{Console, OpenError};
use crate::console::tty::unless_hung_up;
use crate::guard::client::Guard;
use crate::locks::file::LockFile;
use crate::locks::journal::JournalOp;
use crate::process::Process;

const RETRY_FOR: Duration = Duration::from_secs(1);

pub(crate) struct PreparedTakeover {
    locks: LockSet,
    found: Vec<(Slot, SlotState)>,
}

impl PreparedTakeover {
    /// A claim that cannot succeed fails here, while the other session still operates the console.
    pub(crate) fn prepare(request: &Request<'_>) -> Result<Self, ClaimError> {
        Self::look(request).map_err(|error| error.on(request.target))
    }

    fn look(request: &Request<'_>) -> Result<Self, ClaimErrorKind> {
        let (mut locks, found) = LockSet::look(request)?;
        locks.prepare(request)?;
        Ok(Self { locks, found })
    }

    pub(crate) fn has_names(&self) -> bool {
        self.found.iter().any(|(_, state)| matches!(state, SlotState::HandedOver(_)))
    }

    /// Takes over the lock names. `console` is the other session's descriptor, with its flock. On
    /// failure, `give_up` tells that session that it keeps the console, before it gets its names
    /// back.
    pub(crate) fn accept(
        self,
        request: &Request<'_>,
        console: OwnedFd,
        socket: impl AsFd,
        give_up: &dyn Fn(),
    ) -> Result<PendingClaim, ClaimError> {
        let accepted = (|| {
            request.guard.tell_receiving_from(socket);
            let console =
                Console::received(console, request.target).map_err(|error| match error {
                    OpenError::Exclusive => ClaimErrorKind::Contended,
                    error => not_opened(error, request.target),
                })?;
            request.guard.tell_console(&console);
            let locks = self.take_names(request, give_up)?;
            Ok(PendingClaim(Claim::over(request, locks, console, None)))
        })();
        accepted.map_err(|error: ClaimErrorKind| error.on(request.target))
    }

    fn take_names(
        mut self,
        request: &Request<'_>,
        give_up: &dyn Fn(),
    ) -> Result<LockSet, ClaimErrorKind> {
        let deadline = Instant::now() + RETRY_FOR;
        loop {
            let error = match self.locks.take_names(request, self.found) {
                Ok(()) => return Ok(self.locks),
                Err(AcquireError::Changed) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                    // Until the next attempt flock and the flag alone keep others out.
                    drop(self.locks);
                    self = Self::look(request).inspect_err(|_| give_up())?;
                    continue;
                }
                Err(AcquireError::Changed) => ClaimErrorKind::Contended,
                Err(AcquireError::Failed(error)) => error,
            };
            give_up();
            return Err(error);
        }
    }
}

/// A claim that becomes ours when the other session knows that we have everything. Dropping it only
/// closes the console and releases the names that we took.
pub(crate) struct PendingClaim(Claim);

impl PendingClaim {
    pub(crate) fn commit(self, request: &Request<'_>) -> Result<Claim, ClaimError> {
        let Self(mut claim) = self;
        claim.console.keep();
        request.guard.tell_received();
        if request.guard.is_up() {
            // If the other end has just closed, the flag keeps nobody out, and there is output to
            // show.
            let flagged = claim.console.set_exclusive().or_else(unless_hung_up);
            flagged.map_err(|error| ClaimErrorKind::Unusable(error).on(request.target))?;
        } else {
            claim.do_without_flag();
        }
        claim.notes.extend(claim.locks.get_mut().settle(request));
        Ok(claim)
    }
}

impl LockSet {
    pub(super) fn take_over_name(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
        lock: &LockFile,
    ) -> Result<(), AcquireError> {
        self.note(request.guard, JournalOp::Take(slot.entry()));
        let Some(prepared) = &self.prepared[slot.dir] else { return Ok(()) };
        let directory = &self.journal.dirs[slot.dir].directory;
        match directory.replace(prepared, &slot.name.file, lock.inode) {
            Ok(true) => Ok(()),
            Ok(false) => Err(AcquireError::Changed),
            Err(error) => Err(self.unusable(slot.dir, error).into()),
        }
    }
}

impl Claim {
    pub(crate) fn give_away(&self) {
        self.console.give_away();
    }

    /// Leaves everything to the guard, which passes it to a viewer.
    pub(crate) fn leave_to_guard(&self) {
        self.console.give_away();
        self.locks.borrow_mut().journal.taken.clear();
    }

    /// Keeps the console that `newcomer` did not take. Returns messages for the user.
    pub(crate) fn take_back(&self, newcomer: Process, guard: &Guard) -> Vec<String> {
        self.console.keep();
        let mut locks = self.locks.borrow_mut();
        locks.remember(newcomer);
        locks.repair(guard)
    }
}
