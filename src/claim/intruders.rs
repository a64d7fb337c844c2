//! Those who open the console while it is ours: root's programs that ask for no lock cannot be kept
//! out, but they are noticed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::directory::Directory;
use super::holders::{LONG_ENOUGH, is_client};
use crate::console::{Device, Target};
use crate::process::{Openers, Process};

/// Notices whoever opens a console, and who of them stays. It costs nothing while nobody does.
#[derive(Debug)]
pub struct Intruders {
    device: Device,
    events: OwnedFd,
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

impl Intruders {
    /// Watches from now on: the console, and the directories that our lock files are in.
    pub(super) fn watch<'a>(
        target: &Target,
        directories: impl Iterator<Item = &'a Directory>,
    ) -> io::Result<Self> {
        // It works on devpts (measured on Linux 6.18).
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::OPEN | WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&events, target.path(), wanted)?;
        let watch = Self {
            device: target.device(),
            events,
            look_at: None,
            seen: Vec::new(),
            told: Vec::new(),
            stays: false,
            locks_touched: false,
        };
        watch.watch_locks(directories)?;
        Ok(watch)
    }

    /// Watches these directories as well. One that is watched already stays so.
    pub(super) fn watch_locks<'a>(
        &self,
        mut directories: impl Iterator<Item = &'a Directory>,
    ) -> io::Result<()> {
        let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let changed = gone | WatchFlags::MODIFY | WatchFlags::MOVE_SELF;
        directories.try_for_each(|directory| {
            let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
            inotify::add_watch(&self.events, path, changed)?;
            Ok(())
        })
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
        while let Ok(event) = reader.next() {
            let what = event.events();
            if event.file_name().is_some() || what.contains(ReadFlags::MOVE_SELF) {
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

/// What tells a process from another that gets its number.
fn identity(process: &Process) -> (i32, Option<SystemTime>) {
    (process.pid, process.started)
}
