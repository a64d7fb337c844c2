//! Repairing our lock files when somebody removes them.

use std::io;
use std::path::PathBuf;

use crate::claim::lock_set::LockSet;
use crate::guard::client::Guard;
use crate::locks::file::{Contents, Inode};
use crate::locks::journal::LockEntry;
use crate::printable::Printable;
use crate::process::Process;

/// How many newcomers are remembered: more of them never wait at a time.
const MAX_NEWCOMERS: usize = 4;

impl LockSet {
    pub(super) fn remember(&mut self, newcomer: Process) {
        if self.newcomers.len() == MAX_NEWCOMERS {
            self.newcomers.remove(0);
        }
        self.newcomers.push(newcomer);
    }

    /// Creates removed lock files again, and reports other changes. Returns messages for the user.
    pub(crate) fn repair(&mut self, guard: &Guard) -> Vec<String> {
        let mut messages = self.report_replaced_directories();
        let (ours, lost): (Vec<_>, Vec<_>) =
            self.journal.taken.clone().into_iter().partition(|entry| self.journal.is_ours(entry));
        // A claim that failed has put them back.
        for entry in ours.iter().filter(|entry| self.reported.contains(entry)) {
            let path = Printable::new(&self.journal.path(entry)).to_string();
            messages.push(format!("the lock {path} is ours again"));
        }
        self.reported.retain(|entry| lost.contains(entry));
        for entry in lost {
            let path = Printable::new(&self.journal.path(&entry)).to_string();
            if let Some(theirs) = self.lock_of_newcomer(&entry) {
                // If the directory does not let us, the newcomer still releases its lock itself.
                let _ = self.replace(&entry, theirs, guard);
                continue;
            }
            let linked = self.with_file(&entry, guard, |set| set.link(&entry));
            if linked.is_err() && self.reported.contains(&entry) {
                continue;
            }
            messages.push(match &linked {
                Ok(()) => format!("somebody removed the lock {path}: it is there again"),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    format!("somebody changed the lock {path}: it is not ours any more")
                }
                Err(error) => format!("somebody removed the lock {path}: {error}"),
            });
            if linked.is_err() {
                // It stays among the names to release: only what is our file is removed.
                self.reported.push(entry);
            }
        }
        messages
    }

    /// The lock file by which a newcomer replaced ours, though it never got the console.
    fn lock_of_newcomer(&self, entry: &LockEntry) -> Option<Inode> {
        let directory = &self.journal.dirs[entry.dir].directory;
        let lock = directory.look(&entry.name).ok().flatten()?;
        let is_its = |newcomer: &Process| {
            lock.contents == Contents::Pids(vec![newcomer.pid])
                && Process::living(newcomer.pid).is_none_or(|process| process.is(newcomer))
        };
        self.newcomers.iter().any(is_its).then_some(lock.inode)
    }

    fn replace(&mut self, entry: &LockEntry, old: Inode, guard: &Guard) -> io::Result<bool> {
        self.with_file(entry, guard, |set| match &set.prepared[entry.dir] {
            Some(ours) => set.journal.dirs[entry.dir].directory.replace(ours, &entry.name, old),
            None => Ok(false),
        })
    }

    /// Links our file, or a new one: a file without a name gets no more links.
    fn with_file<T>(
        &mut self,
        entry: &LockEntry,
        guard: &Guard,
        link: impl Fn(&Self) -> io::Result<T>,
    ) -> io::Result<T> {
        match link(self) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.prepare_in(entry.dir, guard)?;
                link(self)
            }
            linked => linked,
        }
    }

    fn report_replaced_directories(&mut self) -> Vec<String> {
        let replaced = self.directories().filter(|directory| !directory.is_in_place());
        let replaced: Vec<PathBuf> = replaced.map(|directory| directory.path.clone()).collect();
        let line = |path| {
            let path = Printable::new(path);
            format!("the lock directory {path} was moved or removed: no lock file keeps others out")
        };
        let news = replaced.iter().filter(|path| !self.replaced.contains(path)).map(line);
        let lines = news.collect();
        self.replaced = replaced;
        lines
    }
}
