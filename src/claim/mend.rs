//! Lock files that somebody removed or overwrote though they were ours, or took away with their directory.

mod moved;
mod overwritten;

use std::io;

use super::guard::Guard;
use super::ledger::Entry;
use super::lock_file::{Contents, Inode};
use super::lock_set::LockSet;
use crate::printable::Printable;

impl LockSet {
    /// Makes the names again that somebody removed or overwrote behind our back, and gives up those that
    /// somebody else has taken. Gives what the user should know.
    pub(super) fn mend(&mut self, guard: &Guard) -> Vec<String> {
        let mut said = self.follow_directories(guard);
        said.extend(self.write_again(guard));
        let is_here = |entry: &&Entry| !self.missing.contains(&entry.place);
        let taken = self.ledger.taken.iter().filter(is_here);
        let lost: Vec<Entry> = taken.filter(|entry| !self.ledger.is_ours(entry)).cloned().collect();
        for entry in lost {
            let path = self.shown(&entry);
            if let Some(theirs) = self.is_a_suitors(&entry) {
                // Where they are another user's, the directory may not let us: they give them back.
                let _ = self.take_from_suitor(&entry, theirs, guard);
                continue;
            }
            match self.take_again(&entry, guard) {
                Ok(()) => said.push(format!("somebody removed the lock {path}: it is there again")),
                // Only just now: the news of it is still to come.
                Err(_) if self.is_overwritten(&entry) => {}
                // The directory went away after its locks, in the middle of this: of that no news comes.
                Err(_) if self.has_moved(entry.place) => {
                    said.extend(self.mend(guard));
                    break;
                }
                Err(error) => {
                    self.ledger.taken.retain(|taken| *taken != entry);
                    said.push(format!("somebody took the lock {path} away: {error}"));
                }
            }
        }
        said
    }

    fn shown(&self, entry: &Entry) -> String {
        Printable::new(&self.ledger.path(entry)).to_string()
    }

    /// Takes the names again that process `from` took, which was to have the console. It may not know yet
    /// that it has not, and take them once more.
    pub(super) fn take_back(&mut self, from: i32, guard: &Guard) {
        self.suitors.push(from);
        self.mend(guard);
    }

    /// The lock file that such a process has put in the place of ours.
    fn is_a_suitors(&self, entry: &Entry) -> Option<Inode> {
        let directory = &self.ledger.places[entry.place].directory;
        let lock = directory.look(&entry.name).ok().flatten()?;
        let theirs = |pid: &i32| lock.contents == Contents::Pids(vec![*pid]);
        self.suitors.iter().any(theirs).then_some(lock.inode)
    }

    fn take_from_suitor(
        &mut self,
        entry: &Entry,
        theirs: Inode,
        guard: &Guard,
    ) -> io::Result<bool> {
        match self.replace(entry, theirs) {
            // As below: they have taken all our names.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.prepare_in(entry.place, guard)?;
                self.replace(entry, theirs)
            }
            done => done,
        }
    }

    fn replace(&self, entry: &Entry, old: Inode) -> io::Result<bool> {
        match &self.prepared[entry.place] {
            Some(ours) => self.ledger.places[entry.place].directory.replace(ours, &entry.name, old),
            None => Ok(false),
        }
    }

    fn take_again(&mut self, entry: &Entry, guard: &Guard) -> io::Result<()> {
        let again = self.link(entry);
        match again.as_ref().map_err(io::Error::kind) {
            // All names of the file were removed, and no link to it can be made any more.
            Err(io::ErrorKind::NotFound) => {
                self.prepare_in(entry.place, guard)?;
                self.link(entry)
            }
            _ => again,
        }
    }
}
