//! Whether a lock at a name that several consoles can have is another console's.

use crate::claim::{lock_set::LockSet, request::Request, slot::Slot};
use crate::locks::file::LockFile;
use crate::locks::names::{LockName, lock_names};
use crate::locks::staleness::{LockStatus, StaleReason};
use crate::process::Process;

impl LockSet {
    /// The live holder of the lock at an ambiguous name, if it provably is another console's lock.
    pub(crate) fn other_device(
        &self,
        request: &Request<'_>,
        slot: &Slot,
        lock: &LockFile,
        status: &LockStatus,
    ) -> Option<Process> {
        if !slot.name.is_ambiguous() {
            return None;
        }
        let is_others = status.is_of_other_device(&slot.name, request.target.device());
        match status {
            LockStatus::Foreign(holder) if is_others => Some(holder.clone()),
            LockStatus::Vconsole(holder)
                if is_others && self.has_ambiguous_names_only(request, slot, lock) =>
            {
                Some(holder.clone())
            }
            // A session also looks younger than its lock when the clock was set, and still operates
            // another console.
            LockStatus::Stale(StaleReason::Recycled(pid)) if *pid != Process::own_pid() => {
                Process::shown(*pid).filter(|holder| {
                    holder.is_surely_vconsole()
                        && self.has_ambiguous_names_only(request, slot, lock)
                })
            }
            _ => None,
        }
    }

    /// All names of a session are links to one file. A session takes the unambiguous names first
    /// and releases them last: a lock that is still there after these were looked at never had any.
    fn has_ambiguous_names_only(
        &self,
        request: &Request<'_>,
        slot: &Slot,
        lock: &LockFile,
    ) -> bool {
        let directory = &self.journal.dirs[slot.dir].directory;
        let is_it = |name: &LockName| match directory.look(&name.file) {
            Ok(found) => found.is_some_and(|found| found.inode == lock.inode),
            // It cannot be ruled out.
            Err(_) => true,
        };
        let names = lock_names(&request.target.names, request.target.device());
        let has_others = names.iter().filter(|name| !name.is_ambiguous()).any(is_it);
        let now = directory.look(&slot.name.file);
        !has_others && matches!(now, Ok(Some(now)) if now.is_same(lock))
    }
}
