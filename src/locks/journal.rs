//! The steps that were done in lock directories. The session undoes them when it leaves; its
//! guard undoes it when the session is killed.

use std::ffi::OsString;
use std::iter;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::locks::directory::{Directory, private_names};
use crate::locks::file::{Contents, Inode};
use crate::process::Process;

/// A step. It is noted before it is done, so that no step is done and not noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum JournalOp {
    Begin,
    /// A lock directory, whose descriptor comes along.
    Use,
    /// The file that gets the names was written, under a private name where needed.
    Prepare(usize, Inode, Option<OsString>),
    Take(LockEntry),
    /// A lock is broken: its file gets this private name instead of its own.
    Stash(LockEntry, OsString),
    /// The claim has succeeded: stashed files are removed, and not put back.
    Settle,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockEntry {
    pub(crate) dir: usize,
    pub(crate) name: OsString,
}

#[derive(Default)]
pub(crate) struct LockJournal {
    owner: i32,
    pub(crate) dirs: Vec<LockDir>,
    /// In the order in which they were taken.
    pub(crate) taken: Vec<LockEntry>,
    /// The stashed files, by their former name, and their private names.
    stashed: Vec<(LockEntry, OsString)>,
    settled: bool,
}

pub(crate) struct LockDir {
    pub(crate) directory: Directory,
    /// `None` where locks are only checked.
    pub(crate) ours: Option<Inode>,
    private: Option<OsString>,
}

impl LockJournal {
    pub(crate) fn of(owner: i32) -> Self {
        Self { owner, ..Self::default() }
    }

    pub(crate) fn add(&mut self, directory: Directory) {
        self.dirs.push(LockDir { directory, ours: None, private: None });
    }

    /// Steps that make no sense are ignored: they come only from ourselves.
    pub(crate) fn note(&mut self, op: JournalOp, directory: Option<OwnedFd>) {
        match op {
            JournalOp::Begin => *self = Self::of(self.owner),
            JournalOp::Use => {
                if let Some(handle) = directory {
                    self.add(Directory::received(handle));
                }
            }
            JournalOp::Prepare(dir, inode, private) => {
                if let Some(dir) = self.dirs.get_mut(dir) {
                    // The file before this one gets no more names.
                    dir.discard_private();
                    (dir.ours, dir.private) = (Some(inode), private);
                }
            }
            JournalOp::Take(entry) => self.taken.push(entry),
            JournalOp::Stash(entry, stashed) => self.stashed.push((entry, stashed)),
            JournalOp::Settle => self.settled = true,
        }
    }

    pub(crate) fn ops(&self) -> impl Iterator<Item = (JournalOp, Option<&Directory>)> {
        let dirs = self.dirs.iter().enumerate().flat_map(|(index, dir)| {
            let prepare = |inode| JournalOp::Prepare(index, inode, dir.private.clone());
            let prepared = dir.ours.map(|inode| (prepare(inode), None));
            iter::once((JournalOp::Use, Some(&dir.directory))).chain(prepared)
        });
        let taken = self.taken.iter().cloned();
        dirs.chain(taken.map(|entry| (JournalOp::Take(entry), None)))
    }

    pub(crate) fn path(&self, entry: &LockEntry) -> PathBuf {
        self.dirs[entry.dir].directory.path.join(&entry.name)
    }

    /// Whether the name still means our file, with our pid in it.
    pub(crate) fn is_ours(&self, entry: &LockEntry) -> bool {
        let Some(dir) = self.dirs.get(entry.dir) else { return false };
        let Some(ours) = dir.ours else { return false };
        match dir.directory.look(&entry.name) {
            Ok(None) => false,
            Ok(Some(lock)) => {
                lock.inode == ours && lock.contents == Contents::Pids(vec![self.owner])
            }
            // A lack of descriptors.
            Err(_) => self.is_our_file(entry),
        }
    }

    /// Whether the name still means our file, whatever was written into it. Only the session can
    /// tell: it has the file open, so that no other file can have its inode.
    pub(crate) fn is_our_file(&self, entry: &LockEntry) -> bool {
        let dir = &self.dirs[entry.dir];
        self.owner == Process::own_pid()
            && dir.ours.is_some_and(|ours| dir.directory.has(&entry.name, ours))
    }

    /// Whether the name is to be released: it means our file, and no living process wrote its pid
    /// there.
    fn is_to_be_released(&self, entry: &LockEntry) -> bool {
        let is_another = |pid: &i32| *pid != self.owner && Process::living(*pid).is_some();
        self.is_ours(entry)
            || self.is_our_file(entry)
                && match self.dirs[entry.dir].directory.look(&entry.name) {
                    Ok(Some(lock)) => match lock.contents {
                        Contents::Pids(pids) => !pids.iter().any(is_another),
                        contents => matches!(contents, Contents::Empty | Contents::Garbage),
                    },
                    Ok(None) | Err(_) => false,
                }
    }

    pub(crate) fn forget_last_stash(&mut self) {
        self.stashed.pop();
    }

    /// Returns the stashed files that could not be removed.
    pub(crate) fn settle(&mut self) -> Vec<LockEntry> {
        let mut left = Vec::new();
        for (LockEntry { dir, .. }, name) in std::mem::take(&mut self.stashed) {
            if !self.dirs[dir].directory.remove_stashed(&name) {
                left.push(LockEntry { dir, name });
            }
        }
        self.dirs.iter_mut().for_each(LockDir::discard_private);
        left
    }

    /// Releases our names, last taken first, and then puts the stashed files back.
    pub(crate) fn undo(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        taken.iter().rev().for_each(|entry| self.give_back(entry));
        self.dirs.iter_mut().for_each(LockDir::discard_private);
        for (entry, stashed) in std::mem::take(&mut self.stashed).iter().rev() {
            let Some(dir) = self.dirs.get(entry.dir) else { continue };
            // A stashed file whose name is taken by now is of no use.
            let taken = || dir.directory.unstash(stashed, &entry.name) == Err(Errno::EXIST);
            if self.settled || taken() {
                dir.directory.remove_stashed(stashed);
            }
        }
    }

    fn give_back(&self, entry: &LockEntry) {
        if !self.is_to_be_released(entry) {
            return;
        }
        let dir = &self.dirs[entry.dir];
        let Some(ours) = dir.ours else { return };
        let stashed = dir.directory.free_private_name();
        if matches!(dir.directory.stash(&entry.name, ours, &stashed), Ok(true)) {
            dir.directory.remove_stashed(&stashed);
        }
    }

    /// A killed session may have left files that have only a private name.
    pub(crate) fn undo_for_killed(&mut self) {
        self.undo();
        for dir in &self.dirs {
            let start = private_names(self.owner);
            let mut names = dir.directory.list().unwrap_or_default();
            names.retain(|name| name.as_encoded_bytes().starts_with(start.as_bytes()));
            for name in names {
                let Ok(Some(file)) = dir.directory.look(&name) else { continue };
                if [Contents::Empty, Contents::Pids(vec![self.owner])].contains(&file.contents) {
                    dir.directory.remove_stashed(&name);
                }
            }
        }
    }
}

impl LockDir {
    fn discard_private(&mut self) {
        if let Some(private) = self.private.take() {
            self.directory.remove_stashed(&private);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::locks::directory::LockPlace;

    #[test]
    fn a_file_that_gets_no_more_names_loses_its_private_one() {
        let scratch = TempDir::with_prefix("vconsole-journal-").unwrap();
        let open = || Directory::open_all(&LockPlace::Directory(scratch.path().into())).unwrap();
        let own = Process::own_pid();
        let mut journal = LockJournal::of(own);
        journal.add(open().remove(0));
        let mut prepares = |name: &str| {
            let private = private_names(own) + name;
            fs::write(scratch.path().join(&private), "").unwrap();
            let file = journal.dirs[0].directory.look(private.as_ref()).unwrap().unwrap();
            journal.note(JournalOp::Prepare(0, file.inode, Some(private.into())), None);
        };
        let left = || fs::read_dir(scratch.path()).unwrap().count();
        prepares("one");
        prepares("two");
        assert_eq!(left(), 1);
        journal.undo();
        assert_eq!(left(), 0);
    }
}
