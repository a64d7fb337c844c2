//! One lock name in one lock directory, and what was found there.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::claim::{error::ClaimErrorKind, request::Request};
use crate::locks::{file::LockFile, journal::LockEntry, names::LockName};
use crate::process::Process;

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) dir: usize,
    pub(crate) name: LockName,
}

impl Slot {
    pub(crate) fn entry(&self) -> LockEntry {
        LockEntry { dir: self.dir, name: self.name.file.clone() }
    }
}

pub(crate) enum AcquireError {
    Changed,
    Failed(ClaimErrorKind),
}

impl<E: Into<ClaimErrorKind>> From<E> for AcquireError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The state of a lock name that does not refuse the claim.
pub(crate) enum SlotState {
    Free,
    Stale(LockFile, String),
    Break(LockFile, String),
    /// The lock of the session that hands the console over to us.
    HandedOver(LockFile),
    OtherDevice,
    /// The lock of a live program that --force evicts.
    Held(HeldLock),
}

pub(crate) struct HeldLock {
    pub(crate) holder: Process,
    pub(crate) since: SystemTime,
    pub(crate) lock: PathBuf,
}

impl HeldLock {
    pub(crate) fn error(&self, request: &Request<'_>) -> ClaimErrorKind {
        ClaimErrorKind::Held {
            holder: Box::new(self.holder.clone()),
            since: self.since,
            lock: self.lock.clone(),
            forced: request.force,
        }
    }
}
