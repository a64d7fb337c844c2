//! The exclusive right to operate a console, under every convention of the field at once.

pub(crate) mod acquire;
pub(crate) mod error;
pub(crate) mod evict;
pub(crate) mod holders;
pub(crate) mod lock_set;
pub(crate) mod monitor;
pub(crate) mod repair;
pub(crate) mod request;
pub(crate) mod slot;
pub(crate) mod transfer;

use std::cell::RefCell;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use crate::claim::{
    error::ClaimError, evict::Eviction, holders::openers_but_the_peer, lock_set::LockSet,
    monitor::OpenMonitor, request::Request, slot::AcquireError,
};
use crate::console::open::{Console, OpenError};
use crate::console::target::Target;
use crate::guard::client::Guard;

/// The exclusive right to operate a console. Dropping it releases everything.
pub(crate) struct Claim {
    // Dropped first: flock still keeps others out while the lock files go.
    locks: RefCell<LockSet>,
    console: Console,
    monitor: Option<OpenMonitor>,
    notes: Vec<String>,
}

impl Claim {
    /// The monitor starts before the last look at others, so that no later opener is missed.
    fn over(
        request: &Request<'_>,
        locks: LockSet,
        console: Console,
        early: Option<OpenMonitor>,
    ) -> Self {
        let (monitor, notes) = match early {
            Some(mut monitor) => {
                let notes = monitor.watch_locks(locks.directories());
                (Some(monitor), notes)
            }
            None => OpenMonitor::watch(request.target, locks.directories()),
        };
        if let Some(monitor) = &monitor {
            monitor.tell(request.guard);
        }
        Self { locks: locks.into(), console, monitor, notes }
    }

    /// Evicts all programs that have the console open. The claim stands even on an error.
    pub(crate) fn evict_the_rest(&mut self, request: &Request<'_>) -> Result<(), ClaimError> {
        let carry_out =
            |eviction: Eviction<'_>| eviction.carry_out(&mut self.console, self.locks.get_mut());
        match Eviction::plan(request, &[], None).and_then(|it| it.map_or(Ok(()), carry_out)) {
            Err(AcquireError::Failed(error)) => Err(error.on(request.target)),
            Ok(()) | Err(AcquireError::Changed) => Ok(()),
        }
    }

    pub(crate) fn report_earlier_openers(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            monitor.look_soon();
        }
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    pub(crate) fn take_monitor(&mut self) -> Option<OpenMonitor> {
        self.monitor.take()
    }

    pub(crate) fn tell_again(&self, guard: &Guard) {
        self.locks.borrow().tell_again(guard);
        guard.tell_console(&self.console);
    }

    /// Returns messages for the user.
    pub(crate) fn repair_locks(&self, guard: &Guard) -> Vec<String> {
        self.locks.borrow_mut().repair(guard)
    }

    /// For a claim that began without a guard, which clears the flag if we are killed.
    pub(crate) fn set_flag(&self) -> std::io::Result<()> {
        if self.console.has_own_flag() { Ok(()) } else { self.console.set_exclusive() }
    }

    /// Without a guard nobody clears the flag if we are killed.
    pub(crate) fn do_without_flag(&self) {
        self.console.clear_exclusive();
    }

    /// The exclusive flag survives a hang-up and our descriptor does not: the console is opened
    /// again to clear the flag, which the flag allows only root. Returns a message for the user.
    pub(crate) fn clear_flag_after_hang_up(&self, target: &Target) -> Option<String> {
        if !self.console.has_own_flag() {
            return None;
        }
        match Console::open(target) {
            Ok(console) => {
                // A descriptor that was hung up still has flock.
                let _ = retry_on_intr(|| flock(&self.console, FlockOperation::Unlock));
                // By now another process may have the console, and the flag with it.
                let free = console.lock().is_ok_and(|ours| ours);
                if free && openers_but_the_peer(target).is_empty() {
                    // The line came back cooked; the guest would read the echo.
                    let _ = console.set_raw();
                    console.clear_exclusive();
                }
                Some(format!("somebody hung {target} up: its other end is still there"))
            }
            Err(OpenError::Exclusive) => Some(format!(
                "somebody hung {target} up, and so its exclusive flag is still set: root clears it: \
                 sudo vconsole attach --force {target}"
            )),
            // The other end is gone, and the flag with it.
            Err(OpenError::Target(_) | OpenError::Failed(_)) => None,
        }
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn lock_files(&self) -> Vec<PathBuf> {
        self.locks.borrow().paths()
    }
}
