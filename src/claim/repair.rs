//! Repairing our lock files when somebody removes them.

use std::io;

use crate::claim::lock_set::LockSet;
use crate::guard::client::Guard;
use crate::locks::file::{Contents, Inode};
use crate::locks::journal::LockEntry;
use crate::printable::Printable;
use crate::process::Process;

impl LockSet {
    /// Creates removed lock files again, and reports other changes. Returns messages for the user.
    pub(crate) fn repair(&mut self, guard: &Guard) -> Vec<String> {
        let mut messages = self.report_replaced_directories();
        let mut lost = self.journal.taken.clone();
        lost.retain(|entry| !self.journal.is_ours(entry));
        for entry in lost {
            let path = Printable::new(&self.journal.path(&entry)).to_string();
            if let Some(theirs) = self.lock_of_newcomer(&entry) {
                // If the directory does not let us, the newcomer still releases its lock itself.
                let _ = self.replace(&entry, theirs, guard);
                continue;
            }
            let linked = self.with_file(&entry, guard, |set| set.link(&entry));
            if linked.is_err() {
                self.journal.taken.retain(|taken| *taken != entry);
            }
            messages.push(match linked {
                Ok(()) => format!("somebody removed the lock {path}: it is there again"),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    format!("somebody changed the lock {path}: it is not ours any more")
                }
                Err(error) => format!("somebody removed the lock {path}: {error}"),
            });
        }
        messages
    }

    /// The lock file by which a newcomer replaced ours, though it never got the console.
    fn lock_of_newcomer(&self, entry: &LockEntry) -> Option<Inode> {
        let newcomer = self.newcomer.as_ref()?;
        let directory = &self.journal.dirs[entry.dir].directory;
        let lock = directory.look(&entry.name).ok().flatten()?;
        let is_its = lock.contents == Contents::Pids(vec![newcomer.pid])
            && Process::living(newcomer.pid).is_none_or(|process| process.is(newcomer));
        is_its.then_some(lock.inode)
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
        if self.replacement_reported {
            return Vec::new();
        }
        let replaced = self.directories().filter(|directory| !directory.is_in_place());
        let line = |path| {
            format!("the lock directory {path} was moved or removed: no lock file keeps others out")
        };
        let lines: Vec<_> = replaced.map(|it| line(Printable::new(&it.path))).collect();
        self.replacement_reported = !lines.is_empty();
        lines
    }
}
