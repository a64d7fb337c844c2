//! Character devices, and which of them are PTYs.

use std::ffi::CStr;
use std::fs::{self, Metadata};
use std::hash::{Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, StatxFlags, major, makedev, minor, statat, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Identifies a terminal line. A path does not: it can lead to another device a moment later.
///
/// Two PTYs are the same if device number and filesystem match, since each devpts instance has its
/// own `/dev/pts/5`. A serial port can have nodes on several filesystems: its number alone
/// identifies it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Device {
    /// The filesystem that holds the node (`st_dev`).
    pub(crate) filesystem: u64,
    /// Major and minor number (`st_rdev`).
    pub(crate) number: u64,
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        let same_filesystem = self.filesystem == other.filesystem || !self.is_pty();
        self.number == other.number && same_filesystem
    }
}

impl Eq for Device {}

impl Hash for Device {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Equal devices have equal numbers, and few nodes share a number.
        self.number.hash(state);
    }
}

impl Device {
    /// The device of a file's metadata, if it is a character device.
    pub(crate) fn of(file: &Metadata) -> Option<Self> {
        let device = Self { filesystem: file.dev(), number: file.rdev() };
        file.file_type().is_char_device().then(|| device.behind_alias())
    }

    pub(crate) fn of_fd(file: impl AsFd) -> rustix::io::Result<Option<Self>> {
        Self::below(file, c"", AtFlags::EMPTY_PATH)
    }

    /// The device of the file `name` below `directory`, from what the kernel has cached: a file on
    /// a dead server or on a FUSE filesystem must not block us.
    pub(crate) fn below(
        directory: impl AsFd,
        name: &CStr,
        flags: AtFlags,
    ) -> rustix::io::Result<Option<Self>> {
        let no_sync = flags | AtFlags::STATX_DONT_SYNC;
        let (mode, filesystem, number) = match statx(&directory, name, no_sync, StatxFlags::TYPE) {
            // A kernel before 4.11, or a seccomp filter that does not know statx.
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
        Ok(is_device.then(|| Self { filesystem, number }.behind_alias()))
    }

    /// The port behind `/dev/console` or `/dev/tty0`; itself for any other device, or where sysfs is
    /// missing. A process that opened `/dev/tty0` before another virtual console became active counts
    /// as a user of that other one.
    fn behind_alias(self) -> Self {
        let number = match (self.major(), self.minor()) {
            (5, 1) => active_port("console"),
            (4, 0) => active_port("tty0"),
            _ => None,
        };
        Self { number: number.unwrap_or(self.number), ..self }
    }

    /// The nodes beside its own that open this port.
    pub(crate) fn aliases(self) -> impl Iterator<Item = PathBuf> {
        let leads_here = move |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|node| Self::of(&node) == Some(self))
        };
        ALIASES.map(|(alias, _)| PathBuf::from(alias)).into_iter().filter(leads_here)
    }

    pub(crate) fn major(self) -> u32 {
        major(self.number)
    }

    pub(crate) fn minor(self) -> u32 {
        minor(self.number)
    }

    /// Whether this is a PTY slave on devpts: `UNIX98_PTY_SLAVE_MAJOR` and the seven majors after
    /// it (the kernel's `Documentation/admin-guide/devices.txt`).
    pub(crate) fn is_pty(self) -> bool {
        is_pty_major(self.major())
    }

    /// Whether a user can sit at it: a PTY or a virtual console (`TTY_MAJOR`, same file).
    pub(crate) fn is_seat(self) -> bool {
        self.is_pty() || self.major() == 4 && (1..64).contains(&self.minor())
    }

    /// Whether this is `/dev/ptmx`, which opens PTY masters (5:2, same file).
    pub(crate) fn is_ptmx(self) -> bool {
        (self.major(), self.minor()) == (5, 2)
    }

    /// The number in the kernel's `new_encode_dev()` form, as in field 7 of `proc_pid_stat(5)`.
    pub(crate) fn packed(self) -> u64 {
        let (major, minor) = (self.major(), self.minor());
        ((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).into()
    }
}

/// Nodes that open the port that the kernel uses as its console, and their own numbers.
const ALIASES: [(&str, (u32, u32)); 2] = [("/dev/console", (5, 1)), ("/dev/tty0", (4, 0))];

pub(crate) fn is_alias(path: &Path) -> bool {
    numbers_of_alias(path).is_some()
}

/// The node's own numbers, which are not those of the port behind it.
pub(crate) fn numbers_of_alias(path: &Path) -> Option<(u32, u32)> {
    ALIASES.iter().find(|(alias, _)| path == Path::new(alias)).map(|(_, numbers)| *numbers)
}

/// The number of the port that the device `alias` opens (`/sys/class/tty/*/active` in the kernel's
/// `Documentation/ABI/testing/sysfs-tty`).
fn active_port(alias: &str) -> Option<u64> {
    let active = fs::read_to_string(format!("/sys/class/tty/{alias}/active")).ok()?;
    // Of several consoles /dev/console opens the last one listed (`show_cons_active` in the kernel's
    // `drivers/tty/tty_io.c`).
    let port = active.split_ascii_whitespace().next_back()?;
    if port == "tty0" {
        return active_port(port);
    }
    let numbers = fs::read_to_string(format!("/sys/class/tty/{port}/dev")).ok()?;
    let (major, minor) = numbers.trim_end().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

fn is_pty_major(major: u32) -> bool {
    (136..=143).contains(&major)
}

/// The name below `/dev` of the terminal with this [`Device::packed`] number, such as `pts/5`;
/// `None` for 0, which means no terminal. A PTY's name is that of our own devpts instance.
pub(crate) fn terminal_name(packed: u64) -> Option<String> {
    let packed = u32::try_from(packed).ok().filter(|&packed| packed != 0)?;
    let (major, minor) = ((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xf_ff00));
    if is_pty_major(major) {
        return Some(format!("pts/{minor}"));
    }
    let event = fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/uevent")).ok()?;
    event.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(str::to_owned)
}
