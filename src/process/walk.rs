//! The one walk over `/proc`: which processes there are, and which devices each has open.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, makedev, openat, readlinkat, statat,
    statx,
};

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
            let (kind, device) = match look(&self.0, entry.file_name()) {
                Ok(found) => found,
                Err(Errno::ACCESS | Errno::PERM) => {
                    all = false;
                    if self.is_hidden(entry.file_name()) {
                        break;
                    }
                    continue;
                }
                Err(Errno::NOMEM) => {
                    all = false;
                    continue;
                }
                // It was closed meanwhile, or is a file of a server that is gone: no device.
                Err(_) => continue,
            };
            if kind == FileType::CharacterDevice {
                show(number, device);
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

/// What an open file is, as the kernel knows it without asking: a file on a server that is gone must not
/// hold us up.
fn look(descriptors: &OwnedFd, name: &CStr) -> rustix::io::Result<(FileType, Device)> {
    let file = match statx(descriptors, name, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE) {
        // A kernel before 4.11, or a filter of system calls that does not know it.
        Err(Errno::NOSYS) => {
            let file = statat(descriptors, name, AtFlags::empty())?;
            let device = Device { filesystem: file.st_dev, number: file.st_rdev };
            return Ok((FileType::from_raw_mode(file.st_mode), device));
        }
        other => other?,
    };
    let device = Device {
        filesystem: makedev(file.stx_dev_major, file.stx_dev_minor),
        number: makedev(file.stx_rdev_major, file.stx_rdev_minor),
    };
    Ok((FileType::from_raw_mode(file.stx_mode.into()), device))
}

fn descriptor(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}
