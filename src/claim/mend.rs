//! Lock files that somebody removed though they were ours.

use std::io;

use super::guard::Guard;
use super::ledger::Entry;
use super::lock_set::LockSet;
use crate::printable::Printable;

impl LockSet {
    /// Makes the names again that somebody removed behind our back, and gives up those that somebody
    /// else has taken. Gives what the user should know.
    pub(super) fn mend(&mut self, guard: &Guard) -> Vec<String> {
        let lost: Vec<Entry> =
            self.ledger.taken.iter().filter(|entry| !self.ledger.is_ours(entry)).cloned().collect();
        let mut said = Vec::new();
        for entry in lost {
            let path = Printable::new(&self.ledger.path(&entry)).to_string();
            match self.take_again(&entry, guard) {
                Ok(()) => said.push(format!("somebody removed the lock {path}: it is there again")),
                Err(error) => {
                    self.ledger.taken.retain(|taken| *taken != entry);
                    said.push(format!("somebody took the lock {path} away: {error}"));
                }
            }
        }
        said
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
