//! What was done in lock directories, and how to undo it: kept by the session, which undoes it when it
//! leaves, and by its guard, which undoes it when the session is killed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directory::{Directory, is_private_name_of};
use super::lock_file::{Contents, Inode};
use crate::process::Process;

/// Something that is about to be done. Noted before it is done, so that there is no moment in which it
/// is done and not noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// Everything starts afresh: what was noted before has been undone.
    Begin,
    /// The next lock directory is used. Its descriptor comes along.
    Use,
    /// The file that gets the names in this directory was written, under a private name where the
    /// filesystem has no files without a name.
    Prepare(usize, Inode, Option<OsString>),
    /// A name is taken in this directory.
    Take(usize, OsString),
    /// A lock is broken in this directory: the name is taken from it, and the private name given.
    SetAside(usize, OsString, OsString),
    /// The claim has succeeded: what was set aside is removed for good.
    Settle,
}

/// A lock name in one of the lock directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: usize,
    pub(super) name: OsString,
}

/// All that was done, and whose process number stands in the lock files.
#[derive(Debug)]
pub(super) struct Ledger {
    owner: i32,
    pub(super) places: Vec<Place>,
    /// The names that are ours, in the order in which they were taken.
    pub(super) taken: Vec<Entry>,
    /// What stood in the way, and the private name that each has now.
    aside: Vec<(Entry, OsString)>,
    /// Whether what was set aside is to be removed, and not to be put back.
    settled: bool,
}

/// A lock directory, and the file that gets its names there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: Directory,
    /// Nothing while, or where, locks are only checked.
    pub(super) ours: Option<Inode>,
    private: Option<OsString>,
}

impl Ledger {
    /// An empty one, for the lock files of process `owner`.
    pub(super) fn of(owner: i32) -> Self {
        Self { owner, places: Vec::new(), taken: Vec::new(), aside: Vec::new(), settled: false }
    }

    /// Opens the account of a lock directory.
    pub(super) fn add(&mut self, directory: Directory) {
        self.places.push(Place { directory, ours: None, private: None });
    }

    /// Notes what is about to be done. What makes no sense is not noted: it comes from nobody but
    /// ourselves.
    pub(super) fn note(&mut self, deed: Deed, directory: Option<OwnedFd>) {
        match deed {
            Deed::Begin => *self = Self::of(self.owner),
            Deed::Use => {
                if let Some(handle) = directory {
                    self.add(Directory::received(handle));
                }
            }
            Deed::Prepare(place, inode, private) => {
                if let Some(place) = self.places.get_mut(place) {
                    // The file before this one gets no more names.
                    place.discard_private();
                    (place.ours, place.private) = (Some(inode), private);
                }
            }
            Deed::Take(place, name) => self.taken.push(Entry { place, name }),
            Deed::SetAside(place, name, aside) => self.aside.push((Entry { place, name }, aside)),
            Deed::Settle => self.settled = true,
        }
    }

    /// The same account again, for a new guard.
    pub(super) fn deeds(&self) -> impl Iterator<Item = (Deed, Option<&Directory>)> {
        let places = self.places.iter().enumerate().flat_map(|(index, place)| {
            let private = || place.private.clone();
            let prepared = place.ours.map(|inode| Deed::Prepare(index, inode, private()));
            [(Deed::Use, Some(&place.directory))]
                .into_iter()
                .chain(prepared.map(|deed| (deed, None)))
        });
        let taken = self.taken.iter().map(|entry| Deed::Take(entry.place, entry.name.clone()));
        places.chain(taken.map(|deed| (deed, None)))
    }

    /// Where an entry is.
    pub(super) fn path(&self, entry: &Entry) -> PathBuf {
        self.path_of(entry.place, &entry.name)
    }

    /// Where a name is in one of the directories.
    pub(super) fn path_of(&self, place: usize, name: &OsStr) -> PathBuf {
        self.places[place].directory.path.join(name)
    }

    /// Whether a name is still our file, with our number in it.
    pub(super) fn is_ours(&self, entry: &Entry) -> bool {
        let Some(place) = self.places.get(entry.place) else { return false };
        let Some(ours) = place.ours else { return false };
        match place.directory.look(&entry.name) {
            Ok(None) => false,
            Ok(Some(lock)) => {
                lock.inode == ours && lock.contents == Contents::Pids(vec![self.owner])
            }
            // It cannot be read now, for want of a descriptor. The file that it was is still open in
            // the session, so that no other can have its inode.
            Err(_) => self.owner == Process::own_pid() && place.directory.has(&entry.name, ours),
        }
    }

    /// The last lock was not set aside after all.
    pub(super) fn forget_last_aside(&mut self) {
        self.aside.pop();
    }

    /// The broken locks are removed for good. Gives those that could not be removed.
    pub(super) fn settle(&mut self) -> Vec<Entry> {
        let aside = std::mem::take(&mut self.aside).into_iter();
        let left =
            aside.filter(|(entry, aside)| !self.places[entry.place].directory.remove_aside(aside));
        let left = left.map(|(entry, aside)| Entry { place: entry.place, name: aside }).collect();
        self.places.iter_mut().for_each(Place::discard_private);
        left
    }

    /// Gives back what is still ours, last taken first, and then what was set aside for it.
    pub(super) fn undo(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        taken.iter().rev().for_each(|entry| self.give_back(entry));
        self.places.iter_mut().for_each(Place::discard_private);
        for (entry, aside) in std::mem::take(&mut self.aside).iter().rev() {
            let Some(place) = self.places.get(entry.place) else { continue };
            // If it was to go back, and somebody has the name by now, it is of no more use.
            let taken = || place.directory.put_back(aside, &entry.name) == Err(Errno::EXIST);
            if self.settled || taken() {
                place.directory.remove_aside(aside);
            }
        }
    }

    /// Removes a lock file, if it is still ours.
    fn give_back(&self, entry: &Entry) {
        if !self.is_ours(entry) {
            return;
        }
        let place = &self.places[entry.place];
        let Some(ours) = place.ours else { return };
        let aside = place.directory.free_private_name();
        if matches!(place.directory.set_aside(&entry.name, ours, &aside), Ok(true)) {
            place.directory.remove_aside(&aside);
        }
    }

    /// Goes on in another directory instead of one of these: gives back what is ours in that. The names
    /// stay noted.
    pub(super) fn move_to(&mut self, place: usize, directory: Directory) {
        self.taken.iter().filter(|entry| entry.place == place).for_each(|it| self.give_back(it));
        self.places[place].discard_private();
        self.places[place] = Place { directory, ours: None, private: None };
    }

    /// Undoes what a killed session did, also what it was just doing: then a file of its own may have
    /// nothing but a private name.
    pub(super) fn undo_for_the_dead(&mut self) {
        self.undo();
        for place in &self.places {
            let names = place.directory.list().unwrap_or_default();
            for name in names.iter().filter(|name| is_private_name_of(self.owner, name)) {
                let contents = place.directory.look(name).ok().flatten().map(|file| file.contents);
                if contents.is_some_and(|contents| {
                    contents == Contents::Empty || contents == Contents::Pids(vec![self.owner])
                }) {
                    place.directory.remove_aside(name);
                }
            }
        }
    }
}

impl Place {
    fn discard_private(&mut self) {
        if let Some(private) = self.private.take() {
            self.directory.remove_aside(&private);
        }
    }
}

impl Entry {
    pub(super) fn is(&self, place: usize, name: &OsStr) -> bool {
        self.place == place && self.name == name
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::LockPlace;
    use super::super::directory::private_names;
    use super::*;

    #[test]
    fn a_file_that_gets_no_more_names_loses_its_private_one() {
        let scratch = TempDir::with_prefix("vconsole-ledger-").unwrap();
        let open = || Directory::open_all(&LockPlace::Directory(scratch.path().into())).unwrap();
        let own = Process::own_pid();
        let mut ledger = Ledger::of(own);
        ledger.add(open().remove(0));
        let mut prepares = |name: &str| {
            let private = private_names(own) + name;
            fs::write(scratch.path().join(&private), "").unwrap();
            let file = ledger.places[0].directory.look(private.as_ref()).unwrap().unwrap();
            ledger.note(Deed::Prepare(0, file.inode, Some(private.into())), None);
        };
        let left = || fs::read_dir(scratch.path()).unwrap().count();
        prepares("one");
        prepares("two");
        assert_eq!(left(), 1);
        ledger.move_to(0, open().remove(0));
        assert_eq!(left(), 0);
    }
}
