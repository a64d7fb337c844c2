//! What we attach to: finding it by its name, knowing it again, opening it, its line settings.

mod discover;
mod kind;
pub(crate) mod line;
mod open;
mod other_end;
mod owner;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod target;

use std::ffi::CStr;
use std::fs::Metadata;
use std::hash::{Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use rustix::fs::{AtFlags, FileType, StatxFlags, makedev, statat, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use kind::Kind;
pub use line::unless_hung_up;
pub use open::{Console, OpenError};
pub use other_end::{OtherEnd, Role};
pub use owner::is_sat_at;
pub use target::{NotAConsole, Target};

/// What tells one terminal line from another: never its path, which can name another a moment later.
///
/// Two are the same if their numbers are, and of PTYs also their filesystems: each devpts instance has
/// a `/dev/pts/5`, while a serial port may have a node on any filesystem.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Device {
    /// The filesystem that its node is on (`st_dev`).
    pub filesystem: u64,
    /// Its major and minor number (`st_rdev`).
    pub number: u64,
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        let same_place = self.filesystem == other.filesystem || !kind::is_pty(*self);
        self.number == other.number && same_place
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What is equal has the same number; nodes of one number are few.
        self.number.hash(state);
    }
}

impl Device {
    /// The device that a file is, if it is a character device.
    #[must_use]
    pub fn of(file: &Metadata) -> Option<Self> {
        let device = Self { filesystem: file.dev(), number: file.rdev() };
        file.file_type().is_char_device().then_some(device)
    }

    /// The same of an open file, `name` below `directory` or by [`AtFlags::EMPTY_PATH`] itself, as the
    /// kernel knows it without asking: a file on a server that is gone, or on a filesystem that is a
    /// program (FUSE), must not hold us up.
    pub(crate) fn of_open(
        directory: impl AsFd,
        name: &CStr,
        flags: AtFlags,
    ) -> rustix::io::Result<Option<Self>> {
        let asking_nobody = flags | AtFlags::STATX_DONT_SYNC;
        let (mode, filesystem, number) =
            match statx(&directory, name, asking_nobody, StatxFlags::TYPE) {
                // A kernel before 4.11, or a filter of system calls that does not know it.
                Err(Errno::NOSYS) => {
                    let file = statat(&directory, name, flags)?;
                    (file.st_mode, file.st_dev, file.st_rdev)
                }
                other => {
                    let file = other?;
                    let filesystem = makedev(file.stx_dev_major, file.stx_dev_minor);
                    let number = makedev(file.stx_rdev_major, file.stx_rdev_minor);
                    (file.stx_mode.into(), filesystem, number)
                }
            };
        let is_device = FileType::from_raw_mode(mode) == FileType::CharacterDevice;
        Ok(is_device.then_some(Self { filesystem, number }))
    }
}
