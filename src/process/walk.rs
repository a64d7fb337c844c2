//! The one walk over `/proc`: which processes there are, and which devices each has open.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat};
use rustix::io::Errno;

use crate::console::Device;

/// Enough for the entries of some two hundred descriptors at a time.
const BUFFER: usize = 8192;

/// The numbers of all processes that `/proc` lists; none where it cannot be read.
pub(super) fn every_pid() -> impl Iterator<Item = i32> {
    listed_pids().into_iter().flatten()
}

/// The numbers of all processes that `/proc` lists, or why it cannot be read.
pub(super) fn listed_pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether an error says that a process has ended, or closed what it had open. Any other says that it
/// cannot be looked at, also for want of descriptors or memory of our own.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}

/// The descriptors of one process, to be looked at and not opened.
#[derive(Debug)]
pub(super) struct Descriptors(OwnedFd);

impl Descriptors {
    /// Those of process `pid`. `EACCES` where `/proc` hides them, as another user's.
    pub(super) fn of(pid: i32) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty()).map(Self)
    }

    /// Shows each character device that is open, with the descriptor's number. The open file itself
    /// is asked what it is: below this directory that opens nothing, and needs no name.
    ///
    /// Gives false if some of them are hidden: a root without `CAP_SYS_PTRACE`, as containers have it,
    /// may list what it may not look at; or if there is not the memory to look at all.
    pub(super) fn each_device(&self, mut show: impl FnMut(i32, Device)) -> bool {
        let mut all = true;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return all && is_gone(errno),
            };
            let Some(number) = descriptor(entry.file_name()) else { continue };
            match Device::of_open(&self.0, entry.file_name(), AtFlags::empty()) {
                Ok(Some(device)) => show(number, device),
                Err(Errno::ACCESS | Errno::PERM) => {
                    all = false;
                    if self.is_hidden(entry.file_name()) {
                        break;
                    }
                }
                Err(Errno::NOMEM) => all = false,
                // It is none, or was closed meanwhile, or is a file of a server that is gone.
                Ok(None) | Err(_) => {}
            }
        }
        all
    }

    /// Whether the process hides what it has open, and not a security module this one file: the name
    /// of a file is kept from whoever may not look at the process, and then so are all of them.
    fn is_hidden(&self, name: &CStr) -> bool {
        matches!(readlinkat(&self.0, name, Vec::new()), Err(Errno::ACCESS | Errno::PERM))
    }
}

fn descriptor(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}
