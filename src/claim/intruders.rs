//! Those who open the console while it is ours: root's programs that ask for no lock cannot be kept
//! out, but they are noticed.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::iter;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::Directory;
use super::holders::{LONG_ENOUGH, is_client};
use super::names::lock_names;
use crate::console::{Device, Target};
use crate::printable::Printable;
use crate::process::{Openers, Process};

/// Notices whoever opens a console, and who of them stays. It costs nothing while nobody does.
#[derive(Debug)]
pub struct Intruders {
    device: Device,
    events: OwnedFd,
    /// The names of the files in the lock directories that are ours, or would be.
    lock_names: Vec<OsString>,
    /// The lock directories that cannot be watched.
    unwatched: Vec<PathBuf>,
    /// When to look who is still there.
    look_at: Option<Instant>,
    /// Those who were there at the last look, and of whom it has not been told.
    seen: Vec<Process>,
    /// Those of whom it has been told, by number and start.
    told: Vec<(i32, Option<SystemTime>)>,
    /// Whether somebody opened it, and nobody closed it since.
    stays: bool,
    /// Whether something happened to our lock directories, or to files in them.
    locks_touched: bool,
}

/// Somebody who opened the console, and stays.
#[derive(Debug)]
pub enum Intruder {
    /// This process.
    Seen(Process),
    /// One that `/proc` hides from us.
    Hidden,
}

/// So many events are looked at in one go. A lock directory can be everybody's: who makes and removes
/// files there without end must not keep us from all else.
const MANY: usize = 1024;

impl Intruders {
    /// Watches from now on: the console, and the directories that our lock files are in. What cannot be
    /// watched comes with it, a line each.
    pub(super) fn watch<'a>(
        target: &Target,
        directories: impl Iterator<Item = &'a Directory>,
    ) -> (Option<Self>, Vec<String>) {
        // It works on devpts (measured on Linux 6.18).
        let events = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(events) => events,
            Err(errno) => {
                let paths = directories.map(|directory| &*directory.path);
                let locks = paths.map(|path| unwatched_locks(path, errno));
                return (None, iter::once(unwatched_console(errno)).chain(locks).collect());
            }
        };
        let wanted = WatchFlags::OPEN | WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        let watched = inotify::add_watch(&events, target.path(), wanted);
        let mut said: Vec<String> = watched.err().map(unwatched_console).into_iter().collect();
        let names = lock_names(target.names(), target.device());
        let mut watch = Self {
            device: target.device(),
            events,
            lock_names: names.into_iter().map(|name| name.file).collect(),
            unwatched: Vec::new(),
            look_at: None,
            seen: Vec::new(),
            told: Vec::new(),
            stays: false,
            locks_touched: false,
        };
        said.extend(watch.watch_locks(directories));
        (Some(watch), said)
    }

    /// Watches these directories as well. One that is watched already stays so. Gives what cannot be
    /// watched, a line each, once.
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

    /// Another descriptor of the same watch.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        self.events.try_clone()
    }

    /// What becomes readable when somebody opens or closes the console.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// When to look who is still there.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks who is there also where nobody comes.
    pub(super) fn suspect(&mut self) {
        self.look_at.get_or_insert_with(|| Instant::now() + LONG_ENOUGH);
    }

    /// When it is time, gives those who are new and stay, which is to say: are there at two looks. Who
    /// is gone again after a moment was udev, or somebody whom the locks refused.
    pub fn look(&mut self) -> Vec<Intruder> {
        if self.read_events() {
            self.look_at.get_or_insert_with(|| Instant::now() + LONG_ENOUGH);
        }
        if self.look_at.is_none_or(|at| at > Instant::now()) {
            return Vec::new();
        }
        let new = self.who_are_new();
        // Those who were seen once are looked at once more.
        self.look_at = (!self.seen.is_empty()).then(|| Instant::now() + LONG_ENOUGH);
        new
    }

    /// Whether something has happened to our lock directories or files in them since the last time.
    pub fn locks_were_touched(&mut self) -> bool {
        std::mem::take(&mut self.locks_touched)
    }

    /// Tells whether somebody opened it.
    fn read_events(&mut self) -> bool {
        let mut opened = false;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut space);
        let mut count = 0;
        // What was read and not looked at would be lost.
        while (count < MANY || !reader.is_buffer_empty())
            && let Ok(event) = reader.next()
        {
            count += 1;
            let what = event.events();
            if let Some(name) = event.file_name() {
                self.locks_touched |= self.lock_names.iter().any(|it| is_name(it, name));
            } else if what.contains(ReadFlags::MOVE_SELF) {
                self.locks_touched = true;
            } else if what.contains(ReadFlags::OPEN) {
                (opened, self.stays) = (true, true);
            } else if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE) {
                self.stays = false;
            } else if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Whatever happened, it was a lot.
                (opened, self.stays, self.locks_touched) = (true, true, true);
            }
        }
        opened
    }

    fn who_are_new(&mut self) -> Vec<Intruder> {
        let openers = Openers::of(self.device);
        let is_new = |process: &Process| {
            is_client(process, self.device) && !self.told.contains(&identity(process))
        };
        let here: Vec<Process> = openers.processes.into_iter().filter(is_new).collect();
        let before: Vec<_> = self.seen.iter().map(identity).collect();
        let (stay, come): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|process| before.contains(&identity(process)));
        self.told.extend(stay.iter().map(identity));
        // Somebody came and has not left, and it is none of those who can be seen.
        let somebody = stay.is_empty() && come.is_empty() && std::mem::take(&mut self.stays);
        let hidden = somebody && (openers.blind || !openers.hidden.is_empty());
        self.seen = come;
        stay.into_iter().map(Intruder::Seen).chain(hidden.then_some(Intruder::Hidden)).collect()
    }
}

fn is_name(ours: &OsStr, name: &CStr) -> bool {
    ours.as_encoded_bytes() == name.to_bytes()
}

fn unwatched_console(why: Errno) -> String {
    let why = io::Error::from(why);
    format!("the console cannot be watched ({why}): who opens it as well goes unnoticed")
}

fn unwatched_locks(path: &Path, why: Errno) -> String {
    let (path, why) = (Printable::new(path), io::Error::from(why));
    format!("{path} cannot be watched ({why}): who breaks a lock there goes unnoticed")
}

/// What tells a process from another that gets its number.
fn identity(process: &Process) -> (i32, Option<SystemTime>) {
    (process.pid, process.started)
}
