//! Acquiring a console: lock files, open, flock, exclusive flag, and a last look at who else has
//! it.

use std::thread;
use std::time::{Duration, Instant};

use crate::claim::error::{ClaimError, ClaimErrorKind, PossibleHolders};
use crate::claim::holders::{
    exclusive, has_clients, not_opened, openers_but_the_peer, refuse_if_open,
};
use crate::claim::{
    Claim, evict, evict::Eviction, holders, lock_set::LockSet, monitor::OpenMonitor,
    request::Request, slot::AcquireError,
};
use crate::console::open::Console;
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::test_point;

const RETRY_FOR: Duration = Duration::from_secs(3);

const RELEASE_TIME: Duration = Duration::from_millis(500);

impl Request<'_> {
    /// Fails if a lock file, flock or an open descriptor shows a holder. Takes nothing, and so
    /// cannot see an exclusive flag.
    pub(crate) fn check_free(&self, snapshot: &ProcessSnapshot) -> Result<(), ClaimError> {
        let checked = LockSet::look(self).and_then(|_| {
            let by = holders::of_flock_as_seen(self.target, snapshot);
            if !by.is_empty() {
                return Err(ClaimErrorKind::Flock { by: PossibleHolders(by) });
            }
            refuse_if_open(self.target, snapshot)
        });
        checked.map_err(|error| error.on(self.target))
    }
}

impl Claim {
    /// Looks at the console's lock files and takes them, and opens the console only then. Takes
    /// flock and the exclusive flag, and looks again. Fails if a process in `snapshot` goes on
    /// using the console.
    pub(crate) fn acquire(
        request: &Request<'_>,
        snapshot: &ProcessSnapshot,
    ) -> Result<Self, ClaimError> {
        let mut snapshot = Some(snapshot);
        // The time counts from the first failed attempt: an eviction may take longer.
        let mut deadline = None;
        loop {
            match Self::attempt(request, snapshot.take()) {
                Ok(claim) => return Ok(claim),
                Err(AcquireError::Failed(error)) => return Err(error.on(request.target)),
                Err(AcquireError::Changed) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + RETRY_FOR);
                    if Instant::now() >= deadline {
                        return Err(ClaimErrorKind::Contended.on(request.target));
                    }
                    // Processes that lost the same race wait for different times.
                    let odd = u64::from(Process::own_pid().unsigned_abs() % 7);
                    thread::sleep(Duration::from_millis(1 + odd));
                }
            }
        }
    }

    fn attempt(
        request: &Request<'_>,
        snapshot: Option<&ProcessSnapshot>,
    ) -> Result<Self, AcquireError> {
        let target = request.target;
        // Only the first snapshot was taken after the watch began.
        let early = request.early_watch.take().filter(|_| snapshot.is_some());
        let (mut locks, found) = LockSet::look(request)?;
        test_point::reached("locks-seen");
        // A program that has gone since may have passed the console on to a child.
        let was_open = snapshot.is_some_and(|it| has_clients(target, it));
        let mut eviction = None;
        if request.force {
            eviction = Eviction::plan(request, &found, snapshot)?;
        } else if let Some(snapshot) = snapshot {
            refuse_if_open(target, snapshot)?;
        }
        locks.prepare(request)?;
        locks.take_names(request, found)?;
        test_point::reached("names-taken");
        let mut console = Console::open(target).map_err(|error| not_opened(error, target))?;
        let evicts = eviction.is_some();
        if let Some(eviction) = eviction {
            eviction.carry_out(&mut console, &mut locks)?;
        }
        let has_flock = console.lock().map_err(ClaimErrorKind::Unusable)?;
        let hung_up = if has_flock { None } else { holders::of_flock_and_hung_up(target) };
        if !has_flock && hung_up.is_none() {
            return Err(evict::flock_error(request).into());
        }
        let mut claim = Self::over(request, locks, console, early);
        let stuck_flag = claim.take_flag(request)?;
        // The first walk still holds if nobody else has opened the console since.
        let alone = claim.monitor.as_mut().is_some_and(OpenMonitor::only_we_opened);
        if evicts || was_open || !alone {
            refuse_if_open(target, &ProcessSnapshot::of(target.device()))?;
        }
        claim.check_locks(request)?;
        // Without flock nothing else tells two vconsoles apart.
        let is_session = |process: &Process| process.is_one_of_us() && !process.is_guard();
        if hung_up.is_some() && openers_but_the_peer(target).iter().any(is_session) {
            return Err(AcquireError::Changed);
        }
        claim.notes.extend(claim.locks.get_mut().settle(request));
        if stuck_flag {
            claim.notes.push("took over an exclusive flag that somebody left behind".to_owned());
        }
        claim.notes.extend(hung_up.map(|process| {
            format!("going on without flock: {process} was hung up, and keeps it until it ends")
        }));
        Ok(claim)
    }

    /// Returns whether the flag was set already, left behind by another process.
    fn take_flag(&mut self, request: &Request<'_>) -> Result<bool, ClaimErrorKind> {
        let unusable = ClaimErrorKind::Unusable;
        let ours = self.console.has_own_flag();
        let stuck = !ours && self.console.is_exclusive().map_err(unusable)?;
        // The flag was left behind only if the peer alone has the console open. A vconsole that
        // uses another node of the same port has another flock.
        if stuck && !(request.force && openers_but_the_peer(request.target).is_empty()) {
            return Err(exclusive(request.target));
        }
        request.guard.tell_console(&self.console);
        // The flag outlives the process that set it: it is not set without a guard to clear it.
        if request.guard.is_up() {
            self.console.set_exclusive().map_err(unusable)?;
        }
        Ok(stuck)
    }

    /// A vconsole that still has lock files fails at our flock, and then releases them.
    fn check_locks(&mut self, request: &Request<'_>) -> Result<(), AcquireError> {
        let deadline = Instant::now() + RELEASE_TIME;
        loop {
            match self.locks.get_mut().look_again(request) {
                Err(AcquireError::Failed(ClaimErrorKind::Held { holder, .. }))
                    if holder.is_vconsole() && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                done => return done,
            }
        }
    }
}
