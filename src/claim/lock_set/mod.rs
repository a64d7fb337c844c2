//! The lock files of one console: looking at them, taking them, and releasing them.

pub(crate) mod other_device;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::io::Errno;

use crate::claim::error::ClaimErrorKind;
use crate::claim::request::{ClaimNotes, LockMode, Request};
use crate::claim::slot::{AcquireError, HeldLock, Slot, SlotState};
use crate::device::Device;
use crate::guard::client::Guard;
use crate::locks::directory::{Directory, Prepared};
use crate::locks::file::{Contents, LockFile};
use crate::locks::journal::{JournalOp, LockEntry, LockJournal};
use crate::locks::names::LockName;
use crate::locks::names::lock_names;
use crate::locks::staleness::{
    LiveProcesses, LockStatus, ProcessTable as _, StaleReason, classify,
};
use crate::process::Process;

/// The lock files of one console. Dropping the set releases them.
pub(crate) struct LockSet {
    pub(crate) journal: LockJournal,
    /// For each of the journal's directories: the file that gets the names, if we may write there.
    pub(crate) prepared: Vec<Option<Prepared>>,
    /// The mutexes of the locks that were broken, until the claim succeeds or fails.
    mutexes: Vec<LockFile>,
    /// The last newcomers that did not take the console offered to them. Lock files that they still
    /// take are ours.
    pub(crate) newcomers: Vec<Process>,
    notes: ClaimNotes,
    pub(crate) pending: Vec<Slot>,
    pub(crate) evicted: Vec<Process>,
    pub(crate) processes: LiveProcesses,
    /// The directories that are not at their paths, as the user was told.
    pub(crate) replaced: Vec<PathBuf>,
    /// The names that are not ours now, as the user was told.
    pub(crate) reported: Vec<LockEntry>,
}

impl LockSet {
    /// Looks at all lock names, and fails at the first that refuses the claim. Holds nothing yet.
    pub(crate) fn look(
        request: &Request<'_>,
    ) -> Result<(Self, Vec<(Slot, SlotState)>), ClaimErrorKind> {
        let mut set = Self {
            journal: LockJournal::of(Process::own_pid()),
            prepared: Vec::new(),
            mutexes: Vec::new(),
            newcomers: Vec::new(),
            notes: ClaimNotes::default(),
            pending: Vec::new(),
            evicted: Vec::new(),
            processes: LiveProcesses::default(),
            replaced: Vec::new(),
            reported: Vec::new(),
        };
        if request.mode == LockMode::Off {
            return Ok((set, Vec::new()));
        }
        match Directory::open_all(request.place) {
            Ok(all) => all.into_iter().for_each(|directory| set.journal.add(directory)),
            Err((path, error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                set.cannot_see(request, &path, error)?;
            }
            Err((path, error)) => set.do_without(request, &path, error)?,
        }
        let mut found = Vec::new();
        for slot in set.slots(request) {
            let state = set.state(request, &slot)?;
            found.push((slot, state));
        }
        Ok((set, found))
    }

    /// Takes the names that are free or whose locks may be removed; the files are written before.
    pub(crate) fn take_names(
        &mut self,
        request: &Request<'_>,
        found: Vec<(Slot, SlotState)>,
    ) -> Result<(), AcquireError> {
        found.into_iter().try_for_each(|(slot, state)| self.take_one(request, &slot, state))
    }

    pub(crate) fn note(&mut self, guard: &Guard, op: JournalOp) {
        guard.tell(op.clone(), None);
        self.journal.note(op, None);
    }

    /// Checks, when everything is held, that our names are still ours and that nobody took another.
    pub(crate) fn look_again(&mut self, request: &Request<'_>) -> Result<(), AcquireError> {
        for slot in self.slots(request) {
            let entry = slot.entry();
            if self.journal.taken.contains(&entry) {
                if !self.journal.is_ours(&entry) {
                    return Err(AcquireError::Changed);
                }
            } else if let SlotState::Held(held) = self.state(request, &slot)? {
                return Err(held.error(request).into());
            }
        }
        Ok(())
    }

    fn slots(&self, request: &Request<'_>) -> Vec<Slot> {
        let mut names = lock_names(&request.target.names, request.target.device());
        // Unambiguous names first: two processes that want this console meet there, and a process
        // that fails releases them last.
        names.sort_by_key(LockName::is_ambiguous);
        let dirs = 0..self.journal.dirs.len();
        dirs.flat_map(|dir| names.iter().map(move |name| Slot { dir, name: name.clone() }))
            .collect()
    }

    pub(crate) fn state(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
    ) -> Result<SlotState, ClaimErrorKind> {
        let directory = &self.journal.dirs[slot.dir].directory;
        let path = directory.path.join(&slot.name.file);
        let lock = match directory.look(&slot.name.file) {
            Ok(None) => return Ok(SlotState::Free),
            Ok(Some(lock)) => lock,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let path = directory.path.clone();
                self.cannot_see(request, &path, error)?;
                return Ok(SlotState::Free);
            }
            Err(error) => return Err(self.unusable(slot.dir, error)),
        };
        let device = request.target.device();
        let lock_status = classify(&self.processes, &lock, Some(device));
        let is_foreign = matches!(lock_status, LockStatus::Foreign(_));
        if let Some(holder) = self.other_device(request, slot, &lock, &lock_status) {
            self.notes.passed_over(&path, &format!("{holder} has another device of that name"));
            return Ok(SlotState::OtherDevice);
        }
        // A session that has left can still hand over, by its guard.
        let is_handed_over =
            |pid| lock.contents == Contents::Pids(vec![pid]) && request.handoff_from == Some(pid);
        match lock_status {
            LockStatus::Stale(StaleReason::Gone(pid)) if is_handed_over(pid) => {
                Ok(SlotState::HandedOver(lock))
            }
            LockStatus::Stale(why) => Ok(SlotState::Stale(lock, why.to_string())),
            LockStatus::Unknown(why) if request.force => {
                Ok(SlotState::Break(lock, why.to_string()))
            }
            LockStatus::Unknown(why) => Err(ClaimErrorKind::UnknownLock { lock: path, why }),
            LockStatus::Vconsole(holder) if request.handoff_from == Some(holder.pid) => {
                Ok(SlotState::HandedOver(lock))
            }
            LockStatus::Foreign(holder) | LockStatus::Vconsole(holder) => {
                if self.evicted.iter().any(|evicted| evicted.is(&holder)) {
                    return Ok(SlotState::Break(lock, format!("{holder} was evicted")));
                }
                let may_break = request.force && is_foreign && geteuid().is_root();
                if may_break && self.cannot_be_a_client(&holder, device) {
                    let why = format!("{holder} does not have the console open");
                    return Ok(SlotState::Break(lock, why));
                }
                let evictable =
                    request.force && request.handoff_from.is_none() && !holder.is_surely_vconsole();
                let held = HeldLock { holder, since: lock.written, lock: path };
                if evictable { Ok(SlotState::Held(held)) } else { Err(held.error(request)) }
            }
        }
    }

    /// Whether a process does not have the console open, at two looks. A lock that was written in
    /// another pid namespace names any process of ours, such as the first or a kernel thread.
    fn cannot_be_a_client(&self, holder: &Process, device: Device) -> bool {
        Process::that_may_hide_something(holder.pid).is_none()
            || self.processes.has_open(holder, device) == Some(false)
    }

    /// Such a directory may contain any lock: only --force goes on.
    fn cannot_see(
        &mut self,
        request: &Request<'_>,
        path: &Path,
        source: io::Error,
    ) -> Result<(), ClaimErrorKind> {
        if !request.force {
            return Err(ClaimErrorKind::LocksHidden { directory: path.to_path_buf(), source });
        }
        self.notes.add("going on without seeing the locks in ", path, &source.to_string());
        Ok(())
    }

    pub(crate) fn unusable(&self, dir: usize, source: io::Error) -> ClaimErrorKind {
        let directory = self.journal.dirs[dir].directory.path.clone();
        ClaimErrorKind::Directory { directory, source }
    }

    pub(crate) fn prepare(&mut self, request: &Request<'_>) -> Result<(), ClaimErrorKind> {
        if matches!(request.mode, LockMode::Off | LockMode::Check) {
            return Ok(());
        }
        request.guard.tell(JournalOp::Begin, None);
        for index in 0..self.journal.dirs.len() {
            let directory = &self.journal.dirs[index].directory;
            request.guard.tell(JournalOp::Use, Some(directory.as_fd()));
            self.prepared.push(None);
            if let Err(error) = self.prepare_in(index, request.guard) {
                let path = self.journal.dirs[index].directory.path.clone();
                self.do_without(request, &path, error)?;
            }
        }
        Ok(())
    }

    pub(crate) fn prepare_in(&mut self, dir: usize, guard: &Guard) -> io::Result<()> {
        let prepared = self.journal.dirs[dir].directory.prepare()?;
        self.note(guard, JournalOp::Prepare(dir, prepared.inode, prepared.private.clone()));
        self.prepared[dir] = Some(prepared);
        Ok(())
    }

    pub(crate) fn link(&self, entry: &LockEntry) -> io::Result<()> {
        match &self.prepared[entry.dir] {
            Some(ours) => self.journal.dirs[entry.dir].directory.link(ours, &entry.name),
            None => Ok(()),
        }
    }

    /// In session mode an ordinary user goes on without lock files that cannot be created.
    fn do_without(
        &mut self,
        request: &Request<'_>,
        path: &Path,
        source: io::Error,
    ) -> Result<(), ClaimErrorKind> {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::ACCESS | Errno::ROFS) if request.in_session_mode() => {
                self.notes.without_files(path, &source);
                Ok(())
            }
            // A directory that does not exist contains no locks to check.
            Some(Errno::NOENT) if request.mode == LockMode::Check => Ok(()),
            _ => Err(ClaimErrorKind::Directory { directory: path.to_path_buf(), source }),
        }
    }

    pub(crate) fn take_one(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
        state: SlotState,
    ) -> Result<(), AcquireError> {
        let checked_only = self.prepared.get(slot.dir).is_none_or(Option::is_none);
        let may_take = match state {
            SlotState::OtherDevice => false,
            SlotState::Held(_) => {
                self.pending.push(slot.clone());
                false
            }
            SlotState::Break(_, why) if checked_only => {
                self.notes.passed_over(&self.journal.path(&slot.entry()), &why);
                false
            }
            _ if checked_only => false,
            SlotState::Free => true,
            SlotState::HandedOver(lock) => return self.take_over_name(request, slot, &lock),
            SlotState::Stale(lock, why) | SlotState::Break(lock, why) => {
                self.stash(request, slot, lock, &why)?
            }
        };
        if !may_take {
            return Ok(());
        }
        let entry = slot.entry();
        self.note(request.guard, JournalOp::Take(entry.clone()));
        match self.link(&entry) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(AcquireError::Changed)
            }
            Err(error) => {
                let path = self.journal.dirs[entry.dir].directory.path.clone();
                self.journal.taken.pop();
                Ok(self.do_without(request, &path, error)?)
            }
        }
    }

    /// Moves a lock aside. Returns false if the directory is sticky and the file another user's:
    /// the claim goes on without that name.
    fn stash(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
        lock: LockFile,
        why: &str,
    ) -> Result<bool, AcquireError> {
        let entry = slot.entry();
        let path = self.journal.path(&entry);
        let directory = &self.journal.dirs[slot.dir].directory;
        // The locks of a killed session are one file with several names, and so one mutex.
        let has_mutex = self.mutexes.iter().any(|held| held.inode == lock.inode)
            || lock.lock().map_err(|error| self.unusable(slot.dir, error))?;
        if !has_mutex {
            return Err(AcquireError::Changed);
        }
        // Only under the mutex is the lock that we classified the lock that we break.
        let now = directory.look(&entry.name);
        if !matches!(now, Ok(Some(now)) if now.is_same(&lock)) {
            return Err(AcquireError::Changed);
        }
        let stashed = directory.free_private_name();
        self.note(request.guard, JournalOp::Stash(entry, stashed.clone()));
        let directory = &self.journal.dirs[slot.dir].directory;
        match directory.stash(&slot.name.file, lock.inode, &stashed) {
            Ok(true) => {
                self.notes.add("removed the lock ", &path, why);
                self.mutexes.push(lock);
                Ok(true)
            }
            Ok(false) => Err(AcquireError::Changed),
            Err(error)
                if request.in_session_mode() && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                self.journal.forget_last_stash();
                let why = format!("{why}, but it cannot be removed: {error}");
                self.notes.passed_over(&path, &why);
                Ok(false)
            }
            Err(error) => Err(self.unusable(slot.dir, error).into()),
        }
    }

    /// Removes the broken locks, since the claim has succeeded. Returns messages for the user.
    pub(crate) fn settle(&mut self, request: &Request<'_>) -> Vec<String> {
        self.note(request.guard, JournalOp::Settle);
        for left in self.journal.settle() {
            let path = self.journal.path(&left);
            self.notes.add("moved aside, for you to remove: ", &path, "it is not empty");
        }
        self.mutexes.clear();
        std::mem::take(&mut self.notes).into_lines()
    }

    pub(crate) fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.journal.dirs.iter().filter(|dir| dir.ours.is_some()).map(|dir| &dir.directory)
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.journal.taken.iter().map(|entry| self.journal.path(entry)).collect()
    }

    pub(crate) fn tell_again(&self, guard: &Guard) {
        for (op, directory) in self.journal.ops() {
            guard.tell(op, directory.map(AsFd::as_fd));
        }
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        self.journal.undo();
    }
}
