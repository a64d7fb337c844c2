//! Lock files of ours that somebody wrote into.

use crate::claim::guard::Guard;
use crate::claim::ledger::Entry;
use crate::claim::lock_file::Contents;
use crate::claim::lock_set::LockSet;
use crate::process::{Presence, Process};

impl LockSet {
    /// Writes the names anew that are still our file, where that does not say so any more. A living process
    /// that wrote its own number there has them.
    pub(super) fn write_again(&mut self, guard: &Guard) -> Vec<String> {
        let mut said = Vec::new();
        for place in 0..self.ledger.places.len() {
            let Some(old) = self.ledger.places[place].ours else { continue };
            let here = |entry: &&Entry| entry.place == place;
            let names: Vec<Entry> = self.ledger.taken.iter().filter(here).cloned().collect();
            // All names mean one file: what is true of one is true of all, or will be in a moment.
            if !names.iter().any(|entry| self.is_overwritten(entry))
                || self.prepare_in(place, guard).is_err()
            {
                continue;
            }
            for entry in names {
                if self.replace(&entry, old).is_ok_and(|done| done) {
                    let path = self.shown(&entry);
                    said.push(format!("somebody wrote into the lock {path}: it is ours again"));
                }
            }
        }
        said
    }

    /// Whether a name is still our file, but for what that says.
    pub(super) fn is_overwritten(&self, entry: &Entry) -> bool {
        let place = &self.ledger.places[entry.place];
        let Ok(Some(lock)) = place.directory.look(&entry.name) else { return false };
        let own = Process::own_pid();
        let lives = |pid: &i32| matches!(Process::find(*pid), Presence::Alive(_));
        let stands = match &lock.contents {
            Contents::Pids(pids) => {
                pids == &[own] || pids.iter().any(|pid| *pid != own && lives(pid))
            }
            // It can be read again when its mode is what it was.
            Contents::Unreadable => true,
            Contents::Empty | Contents::Garbage | Contents::NotAFile(_) => false,
        };
        place.ours == Some(lock.inode) && !stands
    }
}
