//! The locks of evicted programs.

use std::thread;
use std::time::{Duration, Instant};

use crate::claim::slot::{AcquireError, SlotState};
use crate::claim::{error::ClaimErrorKind, lock_set::LockSet, request::Request};
use crate::locks::file::LockFile;
use crate::locks::staleness::{LockStatus, classify};
use crate::process::Process;

const CLEANUP_TIME: Duration = Duration::from_millis(1500);

impl LockSet {
    /// Takes the names of the evicted programs. Most programs remove their lock files at exit, some
    /// even a file that is another's by then: those are created again.
    pub(crate) fn take_from(
        &mut self,
        request: &Request<'_>,
        evicted: &[Process],
    ) -> Result<(), AcquireError> {
        let deadline = Instant::now() + CLEANUP_TIME;
        while !self.pending.is_empty() {
            if Instant::now() >= deadline {
                self.evicted = evicted.to_vec();
            }
            for slot in std::mem::take(&mut self.pending) {
                let state = self.state(request, &slot)?;
                match &state {
                    SlotState::Held(held) if evicted.iter().any(|it| it.is(&held.holder)) => {
                        self.pending.push(slot);
                    }
                    SlotState::Break(lock, _) if self.is_of_evicted(lock) => {
                        self.take_one(request, &slot, state)?;
                    }
                    // By now it is another program's lock, or one that is just being written.
                    SlotState::Held(_) | SlotState::Break(..) => return Err(AcquireError::Changed),
                    _ => self.take_one(request, &slot, state)?,
                }
            }
            if request.progress.cancelled() {
                return Err(ClaimErrorKind::Cancelled.into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        for line in self.repair(request.guard) {
            request.progress.report(&line);
        }
        Ok(())
    }

    fn is_of_evicted(&self, lock: &LockFile) -> bool {
        match classify(&self.processes, lock, None) {
            LockStatus::Foreign(holder) => self.evicted.iter().any(|it| it.is(&holder)),
            _ => false,
        }
    }
}
