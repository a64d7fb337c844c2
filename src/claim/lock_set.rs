//! All lock files of one console: taken in one order, all or nothing.

mod another;
mod evicted;
mod way;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directory::{Directory, Prepared};
use super::guard::Guard;
use super::judge::{Now, Verdict, judge};
use super::ledger::{Deed, Entry, Ledger};
use super::lock_file::LockFile;
use super::names::lock_names;
use super::refusal::Refusal;
use super::remarks::Remarks;
use super::{LockMode, Request};
use crate::process::Process;
use way::Held;

pub(super) use another::has_another;
pub(super) use way::{Slot, Stop, Way};

/// The lock files of one console. All that could be had under the request's mode are held; dropping
/// this gives them back.
#[derive(Debug)]
pub(super) struct LockSet {
    pub(super) ledger: Ledger,
    /// The file that gets the names in each of the ledger's directories.
    pub(super) prepared: Vec<Option<Prepared>>,
    /// The mutexes of the locks that were broken, for as long as the outcome is open.
    mutexes: Vec<LockFile>,
    /// The processes that were to have the console, and did not take it: the names that they take in spite
    /// of it are ours.
    pub(super) suitors: Vec<i32>,
    /// What the user should know once the claim has succeeded.
    remarks: Remarks,
    /// The names whose holders are to be evicted, and so are not taken yet.
    pending: Vec<Slot>,
    /// The places of the ledger whose directory is gone.
    pub(super) missing: Vec<usize>,
    /// Those who were evicted: their locks are good for nothing any more.
    evicted: Vec<Process>,
    /// Those whom locks name.
    processes: Now,
}

impl LockSet {
    /// Looks at all the console's lock names before any is taken; the first that cannot be passed
    /// refuses. Nothing is held yet: [`LockSet::take`] is told what was found.
    pub(super) fn look(request: &Request<'_>) -> Result<(Self, Vec<(Slot, Way)>), Refusal> {
        let mut set = Self {
            ledger: Ledger::of(Process::own_pid()),
            prepared: Vec::new(),
            mutexes: Vec::new(),
            suitors: Vec::new(),
            remarks: Remarks::default(),
            pending: Vec::new(),
            missing: Vec::new(),
            evicted: Vec::new(),
            processes: Now::default(),
        };
        if request.mode == LockMode::Off {
            return Ok((set, Vec::new()));
        }
        match Directory::open_all(request.place) {
            Ok(all) => all.into_iter().for_each(|directory| set.ledger.add(directory)),
            Err((path, error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                set.cannot_see(request, &path, error)?;
            }
            Err((path, error)) => set.do_without(request, &path, error)?,
        }
        let mut ways = Vec::new();
        for slot in set.slots(request) {
            let way = set.way(request, &slot)?;
            ways.push((slot, way));
        }
        Ok((set, ways))
    }

    /// Takes the names that were found to be free or to be broken.
    pub(super) fn take(
        &mut self,
        request: &Request<'_>,
        ways: Vec<(Slot, Way)>,
    ) -> Result<(), Stop> {
        self.begin(request)?;
        self.take_names(request, ways)
    }

    /// Writes the files that get the names.
    pub(super) fn begin(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        if matches!(request.mode, LockMode::Off | LockMode::Check) {
            return Ok(());
        }
        request.guard.tell(Deed::Begin, None);
        self.prepare(request)
    }

    /// Takes the names, once the files are written.
    pub(super) fn take_names(
        &mut self,
        request: &Request<'_>,
        ways: Vec<(Slot, Way)>,
    ) -> Result<(), Stop> {
        for (slot, way) in ways {
            self.take_one(request, &slot, way)?;
        }
        Ok(())
    }

    /// Notes what is about to be done, and tells the guard.
    pub(super) fn note(&mut self, guard: &Guard, deed: Deed) {
        guard.tell(deed.clone(), None);
        self.ledger.note(deed, None);
    }

    /// Looks once more, when all is held: whether what we took is still ours, and nobody else's lock
    /// came beside it.
    pub(super) fn look_again(&mut self, request: &Request<'_>) -> Result<(), Stop> {
        for slot in self.slots(request) {
            let mut taken = self.ledger.taken.iter();
            match taken.find(|entry| entry.is(slot.place, &slot.name.file)) {
                Some(entry) if self.ledger.is_ours(entry) => {}
                Some(_) => return Err(Stop::LookAgain),
                None => {
                    if let Way::Held(held) = self.way(request, &slot)? {
                        return Err(held.refusal(request).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The console's names, in the order in which they are taken.
    fn slots(&self, request: &Request<'_>) -> Vec<Slot> {
        let mut names = lock_names(request.target.names(), request.target.device());
        // Whoever has one that another console can have as well has one that none can: there two who
        // want this console meet, and one who fails gives it back last.
        names.sort_by_key(|name| name.base.is_some());
        let places = 0..self.ledger.places.len();
        places
            .flat_map(|place| names.iter().map(move |name| Slot { place, name: name.clone() }))
            .collect()
    }

    /// Judges what stands at one name.
    fn way(&mut self, request: &Request<'_>, slot: &Slot) -> Result<Way, Refusal> {
        let place = &self.ledger.places[slot.place];
        let path = place.directory.path.join(&slot.name.file);
        let console = || request.target.to_string();
        let suspect = |why| Refusal::Suspect { console: console(), lock: path.clone(), why };
        let lock = match place.directory.look(&slot.name.file) {
            Ok(None) => return Ok(Way::Free),
            Ok(Some(lock)) => lock,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let path = place.directory.path.clone();
                self.cannot_see(request, &path, error)?;
                return Ok(Way::Free);
            }
            Err(source) => {
                return Err(Refusal::Directory { directory: place.directory.path.clone(), source });
            }
        };
        let verdict = judge(&self.processes, &lock, Some(request.target.device()));
        if let Some(holder) = self.another(request, slot, &lock, &verdict) {
            self.remarks.passed_over(&path, &format!("{holder} has another device of that name"));
            return Ok(Way::Anothers);
        }
        match verdict {
            Verdict::Dead(death) => Ok(Way::Remove(lock, death.to_string())),
            Verdict::Suspect(why) if request.force => Ok(Way::Break(lock, why.to_string())),
            Verdict::Suspect(why) => Err(suspect(why)),
            Verdict::Ours(holder) if request.heir_of == Some(holder.pid) => Ok(Way::Inherit(lock)),
            Verdict::Foreign(holder) | Verdict::Ours(holder) => {
                if self.evicted.iter().any(|evicted| evicted.is(&holder)) {
                    return Ok(Way::Break(lock, format!("{holder} was evicted")));
                }
                let evictable =
                    request.force && request.heir_of.is_none() && !holder.is_surely_vconsole();
                let held = Held { holder, since: lock.written, lock: path };
                if evictable { Ok(Way::Held(held)) } else { Err(held.refusal(request)) }
            }
        }
    }

    /// The directory may not be searched: there may be any locks. Only force goes on.
    fn cannot_see(
        &mut self,
        request: &Request<'_>,
        path: &Path,
        source: io::Error,
    ) -> Result<(), Refusal> {
        if !request.force {
            let console = request.target.to_string();
            return Err(Refusal::Unseen { console, directory: path.to_path_buf(), source });
        }
        self.remarks.unseen(path, &source);
        Ok(())
    }

    /// Writes the file that gets all the names, in each directory that lets us.
    fn prepare(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        for index in 0..self.ledger.places.len() {
            let directory = &self.ledger.places[index].directory;
            request.guard.tell(Deed::Use, Some(directory.as_fd()));
            self.prepared.push(None);
            if let Err(error) = self.prepare_in(index, request.guard) {
                let path = self.ledger.places[index].directory.path.clone();
                self.do_without(request, &path, error)?;
            }
        }
        Ok(())
    }

    pub(super) fn prepare_in(&mut self, place: usize, guard: &Guard) -> io::Result<()> {
        let prepared = self.ledger.places[place].directory.prepare()?;
        self.note(guard, Deed::Prepare(place, prepared.inode, prepared.private.clone()));
        self.prepared[place] = Some(prepared);
        Ok(())
    }

    pub(super) fn link(&self, entry: &Entry) -> io::Result<()> {
        match &self.prepared[entry.place] {
            Some(ours) => self.ledger.places[entry.place].directory.link(ours, &entry.name),
            None => Ok(()),
        }
    }

    /// Session mode: an ordinary user goes on without files where the directory is missing or not for
    /// writing. All else is an error.
    fn do_without(
        &mut self,
        request: &Request<'_>,
        path: &Path,
        source: io::Error,
    ) -> Result<(), Refusal> {
        let errno = Errno::from_io_error(&source);
        let missing = errno == Some(Errno::NOENT);
        let session = request.in_session_mode()
            && (missing || matches!(errno, Some(Errno::ACCESS | Errno::ROFS)));
        if session {
            self.remarks.without_files(path, &source);
            return Ok(());
        }
        // Where no lock can be, none needs to be looked for.
        if request.mode == LockMode::Check && missing {
            return Ok(());
        }
        Err(Refusal::Directory { directory: path.to_path_buf(), source })
    }

    fn take_one(&mut self, request: &Request<'_>, slot: &Slot, way: Way) -> Result<(), Stop> {
        let checked_only = self.prepared.get(slot.place).is_none_or(Option::is_none);
        match way {
            Way::Anothers => return Ok(()),
            Way::Held(_) => {
                self.pending.push(slot.clone());
                return Ok(());
            }
            Way::Break(_, why) if checked_only => {
                self.remarks.passed_over(&self.ledger.path_of(slot.place, &slot.name.file), &why);
                return Ok(());
            }
            _ if checked_only => return Ok(()),
            Way::Free => {}
            Way::Inherit(lock) => return self.inherit(request, slot, &lock),
            Way::Remove(lock, why) | Way::Break(lock, why) => {
                if !self.set_aside(request, slot, lock, &why)? {
                    return Ok(());
                }
            }
        }
        let entry = Entry { place: slot.place, name: slot.name.file.clone() };
        self.note(request.guard, Deed::Take(entry.place, entry.name.clone()));
        match self.link(&entry) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Stop::LookAgain),
            Err(error) => {
                let path = self.ledger.places[entry.place].directory.path.clone();
                self.ledger.taken.pop();
                Ok(self.do_without(request, &path, error)?)
            }
        }
    }

    /// Breaks a lock, so that it can be put back. Gives false if the directory does not let us (it is
    /// sticky, and the file another user's): we do without that name.
    fn set_aside(
        &mut self,
        request: &Request<'_>,
        slot: &Slot,
        lock: LockFile,
        why: &str,
    ) -> Result<bool, Stop> {
        let directory = &self.ledger.places[slot.place].directory;
        let path = directory.path.join(&slot.name.file);
        let place = directory.path.clone();
        let failed = |source| Stop::from(Refusal::Directory { directory: place, source });
        // What a killed session left is one file with several names, and one mutex.
        if !self.mutexes.iter().any(|held| held.inode == lock.inode) {
            match lock.lock() {
                Ok(true) => {}
                Ok(false) => return Err(Stop::LookAgain),
                Err(error) => return Err(failed(error)),
            }
        }
        // Only under the mutex is what was judged known to be what is broken.
        match directory.look(&slot.name.file) {
            Ok(Some(now)) if now.is_same(&lock) => {}
            _ => return Err(Stop::LookAgain),
        }
        let aside = directory.free_private_name();
        let file = slot.name.file.clone();
        self.note(request.guard, Deed::SetAside(slot.place, file, aside.clone()));
        let directory = &self.ledger.places[slot.place].directory;
        match directory.set_aside(&slot.name.file, lock.inode, &aside) {
            Ok(true) => {
                self.remarks.removed(&path, why);
                self.mutexes.push(lock);
                Ok(true)
            }
            Ok(false) => Err(Stop::LookAgain),
            Err(error)
                if request.in_session_mode() && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                self.ledger.forget_last_aside();
                let why = format!("{why}, but it cannot be removed: {error}");
                self.remarks.passed_over(&path, &why);
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The claim has succeeded: what was in the way is removed for good. Gives what the user should
    /// know.
    pub(super) fn settle(&mut self, request: &Request<'_>) -> Vec<String> {
        self.note(request.guard, Deed::Settle);
        for left in self.ledger.settle() {
            self.remarks.left(&self.ledger.path(&left));
        }
        self.mutexes.clear();
        std::mem::take(&mut self.remarks).into_lines()
    }

    /// The directories that our lock files are in.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.ledger.places.iter().filter(|place| place.ours.is_some()).map(|place| &place.directory)
    }

    /// The lock files that are ours.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.ledger.taken.iter().map(|entry| self.ledger.path(entry)).collect()
    }

    /// Tells a new guard all that was done.
    pub(super) fn tell_again(&self, guard: &Guard) {
        for (deed, directory) in self.ledger.deeds() {
            guard.tell(deed, directory.map(AsFd::as_fd));
        }
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        self.ledger.undo();
    }
}
