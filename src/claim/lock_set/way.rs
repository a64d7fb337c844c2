//! What stands at a lock name, and why an attempt at the names ended.

use std::path::PathBuf;
use std::time::SystemTime;

use super::super::Request;
use super::super::lock_file::LockFile;
use super::super::names::LockName;
use super::super::refusal::Refusal;
use crate::process::Process;

/// One lock name in one lock directory.
#[derive(Clone, Debug)]
pub(in crate::claim) struct Slot {
    pub(in crate::claim) place: usize,
    pub(in crate::claim) name: LockName,
}

/// Why an attempt ended.
pub(in crate::claim) enum Stop {
    /// Something changed meanwhile: look again from the start.
    LookAgain,
    /// It cannot be had.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What stands at a lock name, and may be passed.
#[derive(Debug)]
pub(in crate::claim) enum Way {
    Free,
    /// A lock to remove, since it is dead, and what to say of it.
    Remove(LockFile, String),
    /// A lock to break, since the user vouches with --force that nobody holds it, and what to say.
    Break(LockFile, String),
    /// The lock of the session that gives the console to us.
    Inherit(LockFile),
    /// Another console's lock with the same name.
    Anothers,
    /// A live program's lock, which --force breaks once that was evicted.
    Held(Held),
}

/// A live program's lock.
#[derive(Debug)]
pub(in crate::claim) struct Held {
    pub(in crate::claim) holder: Process,
    pub(super) since: SystemTime,
    pub(super) lock: PathBuf,
}

impl Held {
    pub(in crate::claim) fn refusal(&self, request: &Request<'_>) -> Refusal {
        Refusal::Held {
            console: request.target.to_string(),
            holder: Box::new(self.holder.clone()),
            since: self.since,
            lock: self.lock.clone(),
            forced: request.force,
        }
    }
}
