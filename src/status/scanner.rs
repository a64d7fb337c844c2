//! The survey of this machine's consoles, which changes nothing. Everything is read once, and
//! looked up by device, pid and name: so the survey takes linear time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::{io, path::PathBuf};

use crate::console::{kind::Kind, login::is_login_terminal, peer::Peer, target::Target};
use crate::locks::directory::{Directory, LockPlace};
use crate::locks::names::{Convention, LockName, lock_names, read_name};
use crate::locks::staleness::{LockStatus, classify};
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::status::console_status::{ConsoleState, ConsoleStatus, LockReport};
use crate::{device::Device, locks::flock::Flocks};

pub(crate) struct Scanner {
    directories: Vec<Directory>,
    pub(crate) snapshot: ProcessSnapshot,
    flocks: Flocks,
}

pub(crate) struct Inventory {
    pub(crate) consoles: Vec<ConsoleStatus>,
    /// Lock files of no console, by path: a lock can outlive its console, and some names tell none.
    pub(crate) strays: Vec<LockReport>,
}

type Unreadable = (PathBuf, io::Error);

/// The lock file names in each directory. Those of a console are taken out.
type Listed = Vec<HashSet<OsString>>;

impl Scanner {
    /// Only the system's lock directory may be missing: a typing error must not hide every lock.
    pub(crate) fn take(place: &LockPlace) -> Result<Self, Unreadable> {
        let directories = Directory::open_all(place).or_else(|failed| {
            let missing = failed.1.kind() == io::ErrorKind::NotFound;
            if missing && *place == LockPlace::Auto { Ok(Vec::new()) } else { Err(failed) }
        })?;
        Ok(Self { directories, snapshot: ProcessSnapshot::of_all_lines(), flocks: Flocks::read() })
    }

    pub(crate) fn of(&self, target: Target) -> Result<ConsoleStatus, Unreadable> {
        let mut found = Vec::new();
        for directory in &self.directories {
            for name in lock_names(&target.names, target.device()) {
                found.extend(self.look(directory, &name, &target)?);
            }
        }
        Ok(self.status(target, found))
    }

    /// Finds real serial ports, PTYs that are known to offer consoles, and everything with a
    /// holder, a lock file or a session of ours; with `all` every PTY that is not a login terminal.
    pub(crate) fn inventory(&self, all: bool) -> Result<Inventory, Unreadable> {
        let mut listed = self.list()?;
        let mut consoles = Vec::new();
        for target in self.find(&listed) {
            let mut found = Vec::new();
            let names = lock_names(&target.names, target.device());
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
            let status = self.status(target, found);
            if all || is_of_interest(&status) {
                consoles.push(status);
            }
        }
        let mut strays = self.strays(&listed)?;
        self.find_consoles_of(&mut strays, &consoles);
        Ok(Inventory { consoles, strays })
    }

    /// A stray lock names no existing console, but its holder can have one open that it locked
    /// under another name, such as a symlink's.
    fn find_consoles_of(&self, strays: &mut [LockReport], consoles: &[ConsoleStatus]) {
        let mut open = HashMap::new();
        for ConsoleStatus { target, .. } in consoles {
            let openers = self.snapshot.openers(target.device());
            open.extend(openers.map(|process| (process.pid, target.path())));
        }
        for stray in strays {
            if let LockStatus::Foreign(holder) | LockStatus::Vconsole(holder) = &stray.status
                && let Some(path) = open.get(&holder.pid)
            {
                stray.console = Some(path.as_os_str().to_os_string());
            }
        }
    }

    pub(crate) fn consoles(&self) -> Result<Vec<Target>, Unreadable> {
        Ok(self.find(&self.list()?))
    }

    fn status(&self, target: Target, locks: Vec<LockReport>) -> ConsoleStatus {
        let flocks = self.flocks.of(&target);
        ConsoleStatus::of(target, locks, &flocks, &self.snapshot)
    }

    fn list(&self) -> Result<Listed, Unreadable> {
        let list = |directory: &Directory| {
            let files = directory.list().map_err(|error| (directory.path.clone(), error))?;
            Ok(files.into_iter().filter(|file| read_name(file).is_some()).collect())
        };
        self.directories.iter().map(list).collect()
    }

    /// Each console once, though several names may lead to it.
    fn find(&self, listed: &Listed) -> Vec<Target> {
        let snapshot = &self.snapshot;
        let mut lines = Target::every_line();
        lines.retain(|(target, owner)| {
            !is_login_terminal(target.device(), target.kind, *owner, snapshot)
        });
        let mut consoles: Vec<Target> = lines.into_iter().map(|(target, _)| target).collect();
        let mut known: HashMap<Device, usize> =
            consoles.iter().enumerate().map(|(index, target)| (target.device(), index)).collect();
        for path in self.sessions().into_iter().chain(named_by(listed)) {
            let Ok(target) = Target::find(path.as_ref()) else { continue };
            if target.check_login(snapshot).is_err() {
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

    /// Our sessions' open devices: a console need not be in `/dev/pts`.
    fn sessions(&self) -> Vec<OsString> {
        let open = self.snapshot.sessions().flat_map(Process::open_devices);
        open.map(|(path, _)| path.into_os_string()).collect()
    }

    fn strays(&self, listed: &Listed) -> Result<Vec<LockReport>, Unreadable> {
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

    /// A lock that belongs to another console is left out.
    fn look(
        &self,
        directory: &Directory,
        name: &LockName,
        target: &Target,
    ) -> Result<Option<LockReport>, Unreadable> {
        let (console, device) = (Some(target.path().as_os_str().into()), target.device());
        let found = self.read(directory, &name.file, name.convention, console, Some(device))?;
        Ok(found.filter(|lock| !lock.status.is_of_other_device(name, device)))
    }

    fn read(
        &self,
        directory: &Directory,
        file: &OsStr,
        convention: Convention,
        console: Option<OsString>,
        device: Option<Device>,
    ) -> Result<Option<LockReport>, Unreadable> {
        let lock = directory.look(file).map_err(|error| (directory.path.clone(), error))?;
        Ok(lock.map(|lock| {
            let (path, written) = (directory.path.join(file), lock.written);
            let status = classify(&self.snapshot, &lock, device);
            LockReport { path, convention, console, status, written }
        }))
    }
}

fn named_by(listed: &Listed) -> BTreeSet<OsString> {
    listed.iter().flatten().filter_map(|file| read_name(file)?.1).collect()
}

fn is_of_interest(status: &ConsoleStatus) -> bool {
    status.target.kind == Kind::Serial
        || status.state != ConsoleState::Free
        || status.peer.iter().any(Peer::offers_consoles)
}
