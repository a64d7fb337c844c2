//! Programs that open the console while it is ours: root's cannot be kept out, but are noticed.

use std::cell::Cell;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fmt, io, iter};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::claim::holders::{HOLDER_AFTER, is_client};
use crate::console::{kind::Kind, target::Target};
use crate::device::Device;
use crate::guard::{client::Guard, message::WatchKind};
use crate::locks::{directory::Directory, names::lock_names};
use crate::poll;
use crate::printable::Printable;
use crate::process::{Process, snapshot::ProcessSnapshot};

/// A watch on a console that begins before the walk over `/proc` whose snapshot a claim begins with.
/// It tells whether anybody opened the console since, and becomes the claim's [`OpenMonitor`].
#[derive(Default)]
pub(crate) struct EarlyWatch(Cell<Option<OpenMonitor>>);

impl EarlyWatch {
    pub(crate) fn on(target: &Target) -> Self {
        // A port may have other nodes, which this does not watch.
        let monitor = (target.kind == Kind::Pty).then(|| OpenMonitor::counting(target).ok());
        Self(Cell::new(monitor.flatten()))
    }

    pub(super) fn take(&self) -> Option<OpenMonitor> {
        self.0.take()
    }

    /// Passes a copy to the guard, since closing the last one takes time.
    pub(crate) fn tell(&self, guard: &Guard) {
        let monitor = self.0.take();
        if let Some(monitor) = &monitor {
            monitor.tell(guard);
        }
        self.0.set(monitor);
    }
}

impl fmt::Debug for EarlyWatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("EarlyWatch")
    }
}

/// Notices processes that open a console and keep it open.
pub(crate) struct OpenMonitor {
    device: Device,
    pub(super) events: OwnedFd,
    lock_names: Vec<OsString>,
    unwatched: Vec<PathBuf>,
    look_at: Option<Instant>,
    seen: Vec<Process>,
    told: Vec<Process>,
    /// Whether a process opened the console since the last close.
    stays: bool,
    locks_touched: bool,
    closed: bool,
    /// How often the console was opened, and the watch on its directory, while this counts.
    opened: usize,
    directory: Option<i32>,
}

pub(crate) enum Intruder {
    Visible(Process),
    Hidden,
}

/// The most events for one look: a user who creates files in a public lock directory without end
/// must not keep us busy.
const MANY: usize = 1024;

impl OpenMonitor {
    /// Watches the console and the directories of our lock files. Also returns a line for each that
    /// cannot be watched.
    pub(super) fn watch<'a>(
        target: &Target,
        directories: impl Iterator<Item = &'a Directory>,
    ) -> (Option<Self>, Vec<String>) {
        // It works on devpts (measured on Linux 6.18).
        let mut watch = match Self::new(target) {
            Ok(watch) => watch,
            Err(errno) => {
                let paths = directories.map(|directory| &*directory.path);
                let locks = paths.map(|path| unwatched_locks(path, errno));
                return (None, iter::once(unwatched_console(errno)).chain(locks).collect());
            }
        };
        let watched = watch.watch_console(target);
        let mut said: Vec<String> = watched.err().map(unwatched_console).into_iter().collect();
        said.extend(watch.watch_locks(directories));
        (Some(watch), said)
    }

    fn new(target: &Target) -> Result<Self, Errno> {
        let names = lock_names(&target.names, target.device());
        Ok(Self {
            device: target.device(),
            events: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            lock_names: names.into_iter().map(|name| name.file).collect(),
            unwatched: Vec::new(),
            look_at: None,
            seen: Vec::new(),
            told: Vec::new(),
            stays: false,
            locks_touched: false,
            closed: false,
            opened: 0,
            directory: None,
        })
    }

    fn watch_console(&self, target: &Target) -> Result<(), Errno> {
        let wanted = WatchFlags::OPEN | WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&self.events, target.path(), wanted)?;
        // An ordinary user may read the port and not `/dev/console`, by which only root comes.
        for alias in target.nodes().skip(1) {
            let _ = inotify::add_watch(&self.events, alias, wanted);
        }
        Ok(())
    }

    /// Counts every open. The kernel merges equal events that follow each other (inotify(7)): with its
    /// directory watched as well, each open makes two different ones, which do not merge unless two
    /// processors open it in the same moment.
    fn counting(target: &Target) -> Result<Self, Errno> {
        let mut monitor = Self::new(target)?;
        let directory = target.path().parent().unwrap_or(Path::new("/"));
        monitor.directory = Some(inotify::add_watch(&monitor.events, directory, WatchFlags::OPEN)?);
        monitor.watch_console(target)?;
        Ok(monitor)
    }

    /// Whether nobody but us opened the console since this began to count. Ends the count.
    pub(super) fn only_we_opened(&mut self) -> bool {
        let Some(directory) = self.directory.take() else { return false };
        // The events that follow are not counted, and nothing is lost.
        let _ = inotify::remove_watch(&self.events, directory);
        self.read_events();
        let alone = self.opened == 1 && !poll::is_readable(&self.events);
        if !alone {
            self.look_soon();
        }
        alone
    }

    /// Watches these directories as well. Returns a line for each that cannot be watched, once.
    pub(super) fn watch_locks<'a>(
        &mut self,
        directories: impl Iterator<Item = &'a Directory>,
    ) -> Vec<String> {
        let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let changed = gone | WatchFlags::MODIFY | WatchFlags::MOVE_SELF;
        let mut said = Vec::new();
        for directory in directories {
            let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
            match inotify::add_watch(&self.events, path, changed) {
                Ok(_) => self.unwatched.retain(|unwatched| *unwatched != directory.path),
                Err(errno) if !self.unwatched.contains(&directory.path) => {
                    self.unwatched.push(directory.path.clone());
                    said.push(unwatched_locks(&directory.path, errno));
                }
                Err(_) => {}
            }
        }
        said
    }

    pub(super) fn tell(&self, guard: &Guard) {
        guard.tell_watch(WatchKind::Console, &self.events);
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    pub(super) fn look_soon(&mut self) {
        self.look_at.get_or_insert_with(|| Instant::now() + HOLDER_AFTER);
    }

    /// Returns the new processes that are there at two looks. Others were udev, or were refused by
    /// the locks.
    pub(crate) fn look(&mut self) -> Vec<Intruder> {
        if self.read_events() {
            self.look_soon();
        }
        if self.look_at.is_none_or(|at| at > Instant::now()) {
            return Vec::new();
        }
        let new = self.who_are_new();
        // A process that was seen once is looked at once more.
        self.look_at = (!self.seen.is_empty()).then(|| Instant::now() + HOLDER_AFTER);
        new
    }

    /// Whether something happened to our lock files or their directories since the last call.
    pub(crate) fn locks_were_touched(&mut self) -> bool {
        std::mem::take(&mut self.locks_touched)
    }

    /// Whether a process closed the console since the last call: it may have changed its settings.
    pub(crate) fn was_closed(&mut self) -> bool {
        std::mem::take(&mut self.closed)
    }

    fn read_events(&mut self) -> bool {
        let mut opened = false;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut space);
        let mut count = 0;
        // Events that are read and not looked at would be lost.
        while (count < MANY || !reader.is_buffer_empty())
            && let Ok(event) = reader.next()
        {
            count += 1;
            let what = event.events();
            if let Some(name) = event.file_name() {
                self.locks_touched |=
                    self.lock_names.iter().any(|ours| ours.as_encoded_bytes() == name.to_bytes());
            } else if what.contains(ReadFlags::MOVE_SELF) {
                self.locks_touched = true;
            } else if what.contains(ReadFlags::OPEN) {
                self.opened = self.opened.saturating_add(1);
                (opened, self.stays) = (true, true);
            } else if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE) {
                (self.stays, self.closed) = (false, true);
            } else if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Too many events: anything can have happened.
                (opened, self.stays, self.locks_touched, self.closed) = (true, true, true, true);
                self.opened = usize::MAX;
            }
        }
        opened
    }

    fn who_are_new(&mut self) -> Vec<Intruder> {
        let snapshot = ProcessSnapshot::of(self.device);
        let is_among = |all: &[Process], process: &Process| all.iter().any(|it| it.is(process));
        let is_new =
            |process: &&Process| is_client(process, self.device) && !is_among(&self.told, process);
        let here: Vec<Process> = snapshot.openers(self.device).filter(is_new).cloned().collect();
        let (stay, come): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|process| is_among(&self.seen, process));
        self.told.extend_from_slice(&stay);
        // A process opened the console and is still there, but is none of those that can be seen.
        let somebody = stay.is_empty() && come.is_empty() && std::mem::take(&mut self.stays);
        let hidden = somebody && (snapshot.proc_unavailable || snapshot.hidden() > 0);
        self.seen = come;
        stay.into_iter().map(Intruder::Visible).chain(hidden.then_some(Intruder::Hidden)).collect()
    }
}

fn unwatched_console(why: Errno) -> String {
    let why = io::Error::from(why);
    format!("the console cannot be watched ({why}): who opens it as well goes unnoticed")
}

fn unwatched_locks(path: &Path, why: Errno) -> String {
    let (path, why) = (Printable::new(path), io::Error::from(why));
    format!("{path} cannot be watched ({why}): who breaks a lock there goes unnoticed")
}
