//! The one walk over `/proc`: which processes there are, and which devices each has open.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::device::Device;

/// For the entries of about two hundred descriptors.
const BUFFER: usize = 8192;

/// None where `/proc` cannot be read.
pub(super) fn every_pid() -> impl Iterator<Item = i32> {
    listed_pids().into_iter().flatten()
}

pub(super) fn listed_pids() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether the process has ended. Any other error says that it cannot be looked at.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}

pub(super) struct Descriptors(OwnedFd);

impl Descriptors {
    /// Fails with `EACCES` where `/proc` hides them, as another user's.
    pub(super) fn of(pid: i32) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty()).map(Self)
    }

    /// Shows each open character device that is wanted, with the descriptor's number. A stat below
    /// this directory opens nothing. Returns false if some are hidden: root without
    /// `CAP_SYS_PTRACE` may list what it may not look at; or memory is short.
    pub(super) fn each_device(
        &self,
        wanted: impl Fn(Device) -> bool,
        mut show: impl FnMut(i32, Device),
    ) -> bool {
        let mut all = true;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return all && is_gone(errno),
            };
            let Some(number) = descriptor(entry.file_name()) else { continue };
            match Device::below(&self.0, entry.file_name(), AtFlags::empty()) {
                Ok(Some(device)) if wanted(device) && !self.only_names(entry.file_name()) => {
                    show(number, device);
                }
                Err(Errno::ACCESS | Errno::PERM) => {
                    all = false;
                    if self.is_hidden(entry.file_name()) {
                        break;
                    }
                }
                Err(Errno::NOMEM) => all = false,
                // Not wanted, no device, closed, or a file of a server that is gone.
                Ok(_) | Err(_) => {}
            }
        }
        all
    }

    /// Whether a descriptor names a device without having it open (`O_PATH`): its link has neither
    /// read nor write permission (`tid_fd_update_inode` in the kernel's `fs/proc/fd.c`).
    fn only_names(&self, name: &CStr) -> bool {
        let link = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        let access = Mode::RUSR | Mode::WUSR;
        link.is_ok_and(|link| !Mode::from_raw_mode(link.st_mode).intersects(access))
    }

    /// Whether the process hides all its files, and not a security module this one: then the names
    /// are hidden as well.
    fn is_hidden(&self, name: &CStr) -> bool {
        matches!(readlinkat(&self.0, name, Vec::new()), Err(Errno::ACCESS | Errno::PERM))
    }
}

fn descriptor(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}
