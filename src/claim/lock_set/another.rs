//! Locks that say no more than the last part of a path: another console's can have the same name.

use super::super::Request;
use super::super::judge::{Death, Verdict};
use super::super::lock_file::LockFile;
use super::super::names::{LockName, lock_names};
use super::{LockSet, Slot};
use crate::console::Device;
use crate::process::Process;

impl LockSet {
    /// The live holder of what stands at a name, where that provably is another console's lock.
    pub(super) fn another(
        &self,
        request: &Request<'_>,
        slot: &Slot,
        lock: &LockFile,
        verdict: &Verdict,
    ) -> Option<Process> {
        slot.name.base.as_ref()?;
        let passes = has_another(verdict, &slot.name, request.target.device());
        match verdict {
            Verdict::Foreign(holder) if passes => Some(holder.clone()),
            Verdict::Ours(holder) if passes && self.has_this_name_alone(request, slot, lock) => {
                Some(holder.clone())
            }
            // Too young it also looks where the clock was set, and drives another console all the same.
            Verdict::Dead(Death::Recycled(pid)) if *pid != Process::own_pid() => {
                Process::shown(*pid).filter(|holder| {
                    holder.is_surely_vconsole() && self.has_this_name_alone(request, slot, lock)
                })
            }
            _ => None,
        }
    }

    /// Whether a vconsole's lock has none of the names that only this console can have. All the names of
    /// a session are one file; and one that is claiming a console, and has not opened it yet, takes these
    /// first and gives them back last: a lock that still stands when they were looked at never had any.
    fn has_this_name_alone(&self, request: &Request<'_>, slot: &Slot, lock: &LockFile) -> bool {
        let directory = &self.ledger.places[slot.place].directory;
        let is_it = |name: &LockName| match directory.look(&name.file) {
            Ok(found) => found.is_some_and(|found| found.inode == lock.inode),
            // It cannot be ruled out.
            Err(_) => true,
        };
        let names = lock_names(request.target.names(), request.target.device());
        let has_others = names.iter().filter(|name| name.base.is_none()).any(is_it);
        let now = directory.look(&slot.name.file);
        !has_others && matches!(now, Ok(Some(now)) if now.is_same(lock))
    }
}

/// Whether the holder of a lock that says no more than the last part of a path provably has another
/// device of that name, and not this one. A vconsole that does not have this one has another: what the
/// link is called that led there cannot be seen.
pub(in crate::claim) fn has_another(verdict: &Verdict, name: &LockName, device: Device) -> bool {
    let Some(base) = &name.base else { return false };
    match verdict {
        Verdict::Ours(holder) => holder.has_open(device) == Some(false),
        Verdict::Foreign(holder) => {
            let open = holder.open_devices();
            open.iter().all(|(_, its)| *its != device)
                && open.iter().any(|(path, _)| path.file_name() == Some(base))
        }
        Verdict::Dead(_) | Verdict::Suspect(_) => false,
    }
}
