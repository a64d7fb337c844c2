//! Lock directories that were replaced while we had locks in them.

use std::io;

use crate::claim::guard::Guard;
use crate::claim::ledger::Deed;
use crate::claim::lock_set::LockSet;
use crate::printable::Printable;

impl LockSet {
    /// Whether a directory of ours is gone, and to be looked for again.
    pub(in crate::claim) fn misses_a_directory(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether a directory is no longer the one that its path leads to.
    pub(super) fn has_moved(&self, place: usize) -> bool {
        !matches!(self.ledger.places[place].directory.replacement(), Ok(None))
    }

    /// Where a lock directory was replaced, takes the same names in the new one.
    pub(super) fn follow_directories(&mut self, guard: &Guard) -> Vec<String> {
        let mut said = Vec::new();
        for place in 0..self.ledger.places.len() {
            if self.prepared.get(place).is_none_or(Option::is_none) {
                continue;
            }
            let directory = &self.ledger.places[place].directory;
            let path = Printable::new(&directory.path).to_string();
            match directory.replacement() {
                Ok(None) => self.missing.retain(|missing| *missing != place),
                Ok(Some(new)) => {
                    self.missing.retain(|missing| *missing != place);
                    self.ledger.move_to(place, new);
                    said.push(match self.settle_in(place, guard) {
                        Ok(()) => format!("the lock directory {path} was replaced: following it"),
                        Err(error) => format!(
                            "the lock directory {path} was replaced, and takes no lock: {error}"
                        ),
                    });
                }
                Err(error) if !self.missing.contains(&place) => {
                    self.missing.push(place);
                    said.push(format!(
                        "the lock directory {path} is gone ({error}): until it is back, no lock file \
                         keeps others out"
                    ));
                }
                Err(_) => {}
            }
        }
        said
    }

    /// Takes all names in a directory that is new. The guard begins afresh before any is taken.
    fn settle_in(&mut self, place: usize, guard: &Guard) -> io::Result<()> {
        let prepared = self.ledger.places[place].directory.prepare();
        let file = prepared.as_ref().ok().map(|file| (file.inode, file.private.clone()));
        if let Some((inode, private)) = file {
            self.ledger.note(Deed::Prepare(place, inode, private), None);
        } else {
            self.ledger.taken.retain(|entry| entry.place != place);
        }
        guard.tell(Deed::Begin, None);
        self.tell_again(guard);
        self.prepared[place] = Some(prepared?);
        // A name that somebody else has there is found to be lost.
        let names = self.ledger.taken.iter().filter(|entry| entry.place == place);
        names.for_each(|entry| drop(self.link(entry)));
        Ok(())
    }
}
