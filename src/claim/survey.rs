//! Looking at this machine's consoles without touching any: what `status` shows.
//!
//! All is read once, and looked up by device, by number and by name: so it takes as long as there is
//! to read, however many consoles and processes there are.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::LockPlace;
use super::directory::Directory;
use super::holders::Flocks;
use super::judge::{Verdict, judge};
use super::lock_set::has_another;
use super::names::{Convention, LockName, lock_names, read_name};
use super::standing::Standing;
use crate::console::{Device, Target, is_sat_at};
use crate::process::{Census, Process};

/// What there is to be seen of consoles at one moment.
#[derive(Debug)]
pub struct Survey {
    directories: Vec<Directory>,
    census: Census,
    flocks: Flocks,
}

/// A lock file, and what it means.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Whose convention its name follows, as far as the name tells.
    pub convention: Convention,
    /// The console that it is about, where that is known.
    pub console: Option<OsString>,
    /// What it means.
    pub verdict: Verdict,
    /// When it was written.
    pub written: SystemTime,
}

/// All consoles of this machine.
#[derive(Debug)]
pub struct Overview {
    /// They.
    pub consoles: Vec<Standing>,
    /// The lock files of none of them, sorted by their paths: a lock can outlive its console, or its
    /// name not tell which it is.
    pub strays: Vec<Found>,
}

/// A lock directory that cannot be looked into, and why.
type Unreadable = (PathBuf, io::Error);

/// The lock files' names that were listed, directory by directory. Those of a console are taken out.
type Listed = Vec<HashSet<OsString>>;

impl Survey {
    /// Opens the lock directories, or says which one cannot be opened, and reads what processes have
    /// open. The system's directory holds no lock where it does not exist; one that was named has to be
    /// there, or a slip of the finger would make every lock unseen.
    pub fn take(place: &LockPlace) -> Result<Self, Unreadable> {
        let directories = match Directory::open_all(place) {
            Ok(directories) => directories,
            Err((_, error))
                if *place == LockPlace::Auto && error.kind() == io::ErrorKind::NotFound =>
            {
                Vec::new()
            }
            Err(failed) => return Err(failed),
        };
        Ok(Self { directories, census: Census::take(), flocks: Flocks::read() })
    }

    /// Who has what open.
    #[must_use]
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// How one console stands.
    pub fn of(&self, target: Target) -> Result<Standing, Unreadable> {
        let mut found = Vec::new();
        for directory in &self.directories {
            for name in lock_names(target.names(), target.device()) {
                found.extend(self.look(directory, &name, &target)?);
            }
        }
        Ok(self.standing(target, found))
    }

    /// Finds all consoles, and says how each stands: PTYs that nobody sits at, real serial ports, and
    /// whatever has a lock file or a session of ours.
    pub fn all(&self) -> Result<Overview, Unreadable> {
        let mut listed = self.list()?;
        let mut consoles = Vec::new();
        for target in self.find(&listed) {
            let mut found = Vec::new();
            let names = lock_names(target.names(), target.device());
            for (directory, listed) in self.directories.iter().zip(&mut listed) {
                for name in &names {
                    if !listed.contains(&name.file) {
                        continue;
                    }
                    if let Some(lock) = self.look(directory, name, &target)? {
                        listed.remove(&name.file);
                        found.push(lock);
                    }
                }
            }
            consoles.push(self.standing(target, found));
        }
        let mut strays = self.strays(&listed)?;
        self.find_consoles_of(&mut strays, &consoles);
        Ok(Overview { consoles, strays })
    }

    /// The name of a stray tells no console that is there; but its holder can have one open, and have
    /// locked it under a name of its own, such as a symlink's.
    fn find_consoles_of(&self, strays: &mut [Found], consoles: &[Standing]) {
        let mut open = HashMap::new();
        for Standing { target, .. } in consoles {
            let openers = self.census.openers(target.device());
            open.extend(openers.map(|process| (process.pid, target.path())));
        }
        for stray in strays {
            if let Verdict::Foreign(holder) | Verdict::Ours(holder) = &stray.verdict
                && let Some(path) = open.get(&holder.pid)
            {
                stray.console = Some(path.as_os_str().to_os_string());
            }
        }
    }

    /// The consoles alone, whoever has them.
    pub fn consoles(&self) -> Result<Vec<Target>, Unreadable> {
        Ok(self.find(&self.list()?))
    }

    fn standing(&self, target: Target, locks: Vec<Found>) -> Standing {
        let flocks = self.flocks.of(&target);
        Standing::of(target, locks, flocks, &self.census)
    }

    /// The names of all lock files.
    fn list(&self) -> Result<Listed, Unreadable> {
        let list = |directory: &Directory| {
            let files = directory.list().map_err(|error| (directory.path.clone(), error))?;
            Ok(files.into_iter().filter(|file| read_name(file).is_some()).collect())
        };
        self.directories.iter().map(list).collect()
    }

    /// Every console, each once, though it may be known by several names.
    fn find(&self, listed: &Listed) -> Vec<Target> {
        let census = &self.census;
        let lines = Target::every_line().into_iter();
        let lines = lines.filter(|(target, owner)| !is_sat_at(target, *owner, census));
        let mut consoles: Vec<Target> = lines.map(|(target, _)| target).collect();
        let mut known: HashMap<Device, usize> =
            consoles.iter().enumerate().map(|(index, target)| (target.device(), index)).collect();
        for path in self.sessions().into_iter().chain(named_by(listed)) {
            let Ok(target) = Target::find(path.as_ref()) else { continue };
            if target.check_that_it_is_no_terminal(census).is_err() {
                continue;
            }
            let index = *known.entry(target.device()).or_insert(consoles.len());
            match consoles.get_mut(index) {
                Some(console) => console.also_called(&target),
                None => consoles.push(target),
            }
        }
        consoles
    }

    /// The paths of what our sessions have open: a console need not be in `/dev/pts`.
    fn sessions(&self) -> Vec<OsString> {
        let open = self.census.sessions().flat_map(Process::open_devices);
        open.map(|(path, _)| path.into_os_string()).collect()
    }

    /// The lock files that belong to no console which is there.
    fn strays(&self, listed: &Listed) -> Result<Vec<Found>, Unreadable> {
        let mut strays = Vec::new();
        for (directory, files) in self.directories.iter().zip(listed) {
            for file in files {
                let Some((convention, console)) = read_name(file) else { continue };
                strays.extend(self.read(directory, file, convention, console, None)?);
            }
        }
        strays.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(strays)
    }

    /// Looks at one of the names of a console's lock files. What is another's lock is left out: a live
    /// process has it, and has another device of the same base name open.
    fn look(
        &self,
        directory: &Directory,
        name: &LockName,
        target: &Target,
    ) -> Result<Option<Found>, Unreadable> {
        let (console, device) = (target.path().as_os_str().to_os_string(), target.device());
        let found =
            self.read(directory, &name.file, name.convention, Some(console), Some(device))?;
        Ok(found.filter(|lock| !has_another(&lock.verdict, name, device)))
    }

    fn read(
        &self,
        directory: &Directory,
        file: &OsStr,
        convention: Convention,
        console: Option<OsString>,
        device: Option<Device>,
    ) -> Result<Option<Found>, Unreadable> {
        let lock = directory.look(file).map_err(|error| (directory.path.clone(), error))?;
        Ok(lock.map(|lock| Found {
            path: directory.path.join(file),
            convention,
            console,
            verdict: judge(&self.census, &lock, device),
            written: lock.written,
        }))
    }
}

/// The paths that lock files are named after, each once.
fn named_by(listed: &Listed) -> Vec<OsString> {
    let paths = listed.iter().flatten().filter_map(|file| read_name(file)?.1);
    let mut paths: Vec<OsString> = paths.collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}
