//! Eviction: making programs that are not vconsoles release a console.
//!
//! Interactive programs get SIGHUP and then SIGTERM. Daemons and shells get no signal: too much
//! would end with them. For these, and for programs that ignore signals, root hangs the console up.

pub(crate) mod locks;
pub(crate) mod session;
pub(crate) mod target;

use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::Signal;

use crate::claim::error::{ClaimErrorKind, EvictError, PossibleHolders};
use crate::claim::evict::target::{EvictMethod, EvictTarget, is_another_users, may_hang_up};
use crate::claim::holders::{lasting_openers, not_opened};
use crate::claim::slot::{AcquireError, Slot, SlotState};
use crate::claim::{holders, lock_set::LockSet, request::Request};
use crate::console::open::{Console, OpenError};
use crate::console::peer::{Peer, PeerKind};
use crate::console::{kind::Kind, target::Target};
use crate::device::Device;
use crate::printable::Printable;
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::{poll, test_point};

/// The time for a program to end: on SIGHUP minicom takes 3.0 s and cu 2.0 s (measured). SIGKILL is
/// only for programs that are stopped: socat restores its terminal before it ends, and as a
/// suspended job is stopped again for that (SIGTTOU).
const SIGNALS: [(Signal, &str, Duration); 3] = [
    (Signal::HUP, "SIGHUP", Duration::from_secs(4)),
    (Signal::TERM, "SIGTERM", Duration::from_secs(2)),
    (Signal::KILL, "SIGKILL", Duration::from_secs(1)),
];

const REPORT_AFTER: Duration = Duration::from_millis(500);

/// How often to look whether a program has closed the console, for which the kernel sends no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Hang-ups for programs that open the console again: root's minicom does so within 1 ms.
const ROUNDS: usize = 3;

pub(super) struct Eviction<'a> {
    request: &'a Request<'a>,
    evictees: Vec<EvictTarget>,
    evicted: Vec<Process>,
}

impl<'a> Eviction<'a> {
    /// Finds the holders: those of the locks in `found`, and the processes that have the console
    /// open. Returns `None` if there is no holder. On an error, no holder has been disturbed.
    pub(super) fn plan(
        request: &'a Request<'a>,
        found: &[(Slot, SlotState)],
        snapshot: Option<&ProcessSnapshot>,
    ) -> Result<Option<Self>, AcquireError> {
        let device = request.target.device();
        let now = || lasting_openers(device, &ProcessSnapshot::of(device));
        let openers = snapshot.map_or_else(now, |snapshot| lasting_openers(device, snapshot));
        let mut eviction = Self { request, evictees: Vec::new(), evicted: Vec::new() };
        for (_, state) in found {
            let SlotState::Held(held) = state else { continue };
            let holder = &held.holder;
            if openers.iter().any(|process| process.pid == holder.pid) {
                continue;
            }
            let revoked = holder.can_use(device) == Some(false);
            match holder.has_open(device) {
                Some(true) if revoked => eviction.evicted.push(holder.clone()),
                // It has exited since its lock was looked at.
                _ if !holder.is_alive() => return Err(AcquireError::Changed),
                None if is_another_users(holder) => {
                    let why = evict_error_of_hidden(holder, request);
                    return Err(unevictable(request, holder, why).into());
                }
                // Whether it uses the console is not known: it is not signalled.
                _ => return Err(held.error(request).into()),
            }
        }
        test_point::reached("holders-seen");
        eviction.add(&openers)?;
        if !eviction.evictees.is_empty() || !eviction.evicted.is_empty() {
            return Ok(Some(eviction));
        }
        // The holder of the lock has released the console since, and nobody would take its name.
        let held = found.iter().any(|(_, state)| matches!(state, SlotState::Held(_)));
        if held { Err(AcquireError::Changed) } else { Ok(None) }
    }

    fn add(&mut self, holders: &[Process]) -> Result<(), ClaimErrorKind> {
        let device = self.request.target.device();
        // A vconsole is never evicted. A program that only has the name of one is like any other.
        if holders.iter().any(Process::is_surely_vconsole) {
            return Err(ClaimErrorKind::Open { by: PossibleHolders(holders.to_vec()) });
        }
        let mut all = Vec::new();
        for holder in holders {
            match EvictMethod::against(holder, device) {
                Ok(method) => all.push((holder, method)),
                Err(_) if !holder.is_alive() => {}
                Err(error) => return Err(self.unevictable(holder, error)),
            }
        }
        if all.iter().any(|(_, method)| *method == EvictMethod::HangUp) {
            self.check_that_hang_up_ends_nobody()?;
        }
        for (holder, method) in all {
            match EvictTarget::identify(holder, method, device) {
                Ok(evictee) => self.evictees.extend(evictee),
                Err(error) => return Err(self.unevictable(holder, EvictError::Failed(error))),
            }
        }
        Ok(())
    }

    /// Evicts all. `console` is opened again after a hang-up; `locks` gets the names of the
    /// evicted.
    pub(super) fn carry_out(
        mut self,
        console: &mut Console,
        locks: &mut LockSet,
    ) -> Result<(), AcquireError> {
        self.secure(console)?;
        for _ in 0..ROUNDS {
            if self.evictees.is_empty() {
                break;
            }
            // With a hang-up for one of them no other is signalled: it may have the console from a
            // shell.
            if self.evictees.iter().all(|evictee| evictee.method == EvictMethod::Signals) {
                self.signal_all(console)?;
            }
            if !self.evictees.is_empty() {
                self.hang_up(console)?;
            }
            // Programs that came back, and children of those that ended.
            let openers = lasting_openers(self.device(), &ProcessSnapshot::of(self.device()));
            // A program that came back at once can have left since.
            self.note_evicted(&self.by_hanging_up());
            self.evictees.clear();
            self.add(&openers)?;
        }
        if let Some(evictee) = self.evictees.first() {
            return Err(self.unevictable(&evictee.process, EvictError::ComesBack).into());
        }
        locks.take_from(self.request, &self.evicted)
    }

    /// Takes flock and the exclusive flag as far as possible, to keep others out during the
    /// eviction. Fails if another process has flock.
    fn secure(&self, console: &Console) -> Result<(), ClaimErrorKind> {
        let target = self.request.target;
        let unusable = ClaimErrorKind::Unusable;
        if !console.lock().map_err(unusable)? {
            let mut pids: Vec<i32> = self.evictees.iter().map(|it| it.process.pid).collect();
            pids.extend(self.evicted.iter().map(|process| process.pid));
            let known = holders::flock_is_of(target, &pids)
                || holders::of_flock_and_hung_up(target).is_some();
            return if known { Ok(()) } else { Err(flock_error(self.request)) };
        }
        // The guard clears the flag of a killed session only if the session had flock.
        if self.request.guard.is_up() && !console.is_exclusive().map_err(unusable)? {
            self.request.guard.tell_console(console);
            console.set_exclusive().map_err(unusable)?;
        }
        Ok(())
    }

    fn signal_all(&mut self, console: &Console) -> Result<(), ClaimErrorKind> {
        for (signal, name, patience) in SIGNALS {
            let is_due = |evictee: &&EvictTarget| {
                evictee.has_it() && (signal != Signal::KILL || evictee.process.is_stopped())
            };
            let due: Vec<_> = self.evictees.iter().filter(is_due).collect();
            if due.is_empty() {
                continue;
            }
            for evictee in due {
                if let Err(error) = evictee.send(signal) {
                    return Err(self.unevictable(&evictee.process, EvictError::Failed(error)));
                }
            }
            self.wait(name, patience)?;
            // They restore the settings that they found: with echo, often.
            let _ = console.set_raw();
        }
        Ok(())
    }

    fn wait(&mut self, signal: &str, patience: Duration) -> Result<(), ClaimErrorKind> {
        let start = Instant::now();
        let mut told = false;
        loop {
            self.note_evicted(&format!("by {signal}"));
            let Some(evictee) = self.evictees.first() else { return Ok(()) };
            if start.elapsed() >= patience {
                return Ok(());
            }
            if !told && start.elapsed() >= REPORT_AFTER {
                told = true;
                let line = format!("sent {signal} to {}: waiting for it to leave", evictee.process);
                self.request.progress.report(&line);
            }
            self.pause()?;
        }
    }

    fn hang_up(&mut self, console: &mut Console) -> Result<(), ClaimErrorKind> {
        let target = self.request.target;
        let Some(evictee) = self.evictees.first() else { return Ok(()) };
        if !may_hang_up() {
            return Err(self.unevictable(&evictee.process, EvictError::Stubborn));
        }
        let survivor = self.evictees.iter().find(|it| it.process.has_alias_of(self.device()));
        if let Some(survivor) = survivor {
            return Err(self.unevictable(&survivor.process, EvictError::Alias));
        }
        // Somebody may have logged in on it meanwhile.
        target.check_access(&ProcessSnapshot::of(self.device()))?;
        self.check_that_hang_up_ends_nobody()?;
        let unusable = ClaimErrorKind::Unusable;
        let had_flag = console.has_own_flag();
        self.request.guard.tell_hanging_up(target);
        match console.hang_up(target) {
            // Root in a user namespace of its own.
            Err(OpenError::Failed(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(self.unevictable(&evictee.process, EvictError::Failed(error)));
            }
            done => done.map_err(|error| not_opened(error, target))?,
        }
        // A program that was hung up may still have flock, of which it can make no other use.
        let _ = console.lock().map_err(unusable)?;
        self.request.guard.tell_console(console);
        if had_flag {
            // It is still set: the hang-up does not clear it.
            console.set_exclusive().map_err(unusable)?;
        }
        self.note_evicted(&self.by_hanging_up());
        self.request.progress.report(match target.kind {
            Kind::Pty => "what nobody had read of the console's output may be gone",
            Kind::Serial => {
                "DTR and RTS fell for a moment, and what nobody had read of the console's output may \
                 be gone"
            }
        });
        // Programs that open it again need a moment.
        thread::sleep(holders::HOLDER_AFTER);
        Ok(())
    }

    fn by_hanging_up(&self) -> String {
        format!("by hanging up {}", Printable::new(self.request.target.path()))
    }

    /// A hang-up ends the leader of a session whose controlling terminal is the console, even if
    /// the leader has closed the console.
    fn check_that_hang_up_ends_nobody(&self) -> Result<(), ClaimErrorKind> {
        let unevictable = |leader| Err(self.unevictable(&leader, EvictError::Controlled));
        Process::leading_on(self.device()).map_or(Ok(()), unevictable)
    }

    fn note_evicted(&mut self, how: &str) {
        let all = std::mem::take(&mut self.evictees).into_iter();
        let (stay, left): (Vec<_>, Vec<_>) = all.partition(EvictTarget::has_it);
        self.evictees = stay;
        for evictee in left {
            self.request.progress.report(&format!("evicted {} {how}", evictee.process));
            evictee.record_eviction(self.request.target, how);
            self.evicted.push(evictee.process);
        }
    }

    fn pause(&self) -> Result<(), ClaimErrorKind> {
        if self.request.progress.cancelled() {
            return Err(ClaimErrorKind::Cancelled);
        }
        let mut fds: Vec<_> = self.evictees.iter().map(poll::readable).collect();
        let waited = poll::wait(&mut fds, Some(Instant::now() + LOOK_INTERVAL));
        waited.map(drop).map_err(ClaimErrorKind::Unusable)
    }

    fn device(&self) -> Device {
        self.request.target.device()
    }

    fn unevictable(&self, holder: &Process, why: EvictError) -> ClaimErrorKind {
        unevictable(self.request, holder, why)
    }
}

fn unevictable(request: &Request<'_>, holder: &Process, why: EvictError) -> ClaimErrorKind {
    ClaimErrorKind::Unevictable {
        holder: Box::new(holder.clone()),
        why,
        guest: guest_of(request.target),
    }
}

pub(super) fn flock_error(request: &Request<'_>) -> ClaimErrorKind {
    let by = holders::of_flock(request.target);
    match by.as_slice() {
        [other] if request.force && is_another_users(other) && !other.is_surely_vconsole() => {
            unevictable(request, other, evict_error_of_hidden(other, request))
        }
        _ => ClaimErrorKind::Flock { by: PossibleHolders(by) },
    }
}

fn evict_error_of_hidden(holder: &Process, request: &Request<'_>) -> EvictError {
    let daemon = !holder.is_interactive(request.target.device());
    if daemon { EvictError::Daemon } else { EvictError::AnotherUsers }
}

fn guest_of(target: &Target) -> Option<String> {
    let snapshot = ProcessSnapshot::of_all_lines();
    let masters = snapshot.masters(target.device()).into_iter();
    let mut roles = masters.map(|process| Peer::of(process.clone()).role);
    roles.find_map(|role| match role {
        PeerKind::Guest(name) => name.map(|name| Printable::new(&name).to_string()),
        _ => None,
    })
}
