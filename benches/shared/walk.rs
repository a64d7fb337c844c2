//! A plain walk over `/proc`: what each process has open, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, statat};

/// The directories of the processes that there are.
pub(crate) fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbered =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    entries.filter(numbered).map(|entry| entry.path())
}

/// Looks at each descriptor of the process, and gives how many it has.
pub(crate) fn look_at(process: &Path) -> usize {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, process.join("fd"), flags, Mode::empty()) else { return 0 };
    let Ok(entries) = Dir::read_from(&directory) else { return 0 };
    let is_open = |entry: &rustix::fs::DirEntry| {
        statat(&directory, entry.file_name(), AtFlags::empty()).is_ok()
    };
    entries.flatten().filter(is_open).count()
}
