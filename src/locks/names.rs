//! The names of a console's lock files, under every convention in use.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::major;
use serde::Serialize;

use crate::device::{self, Device};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Convention {
    /// minicom, pppd and others: the path below `/dev/`, with `_` for each `/`.
    Path,
    /// Taylor UUCP (cu), C-Kermit: the last part of the path. Two devices can share it.
    BaseName,
    /// libvirt: the path below `/dev`, with `_` for each `/`, the first one included.
    Libvirt,
    /// SVR4: the major number of the filesystem's device, then major and minor of the device.
    DeviceNumbers,
}

impl Convention {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::BaseName => "base-name",
            Self::Libvirt => "libvirt",
            Self::DeviceNumbers => "device-numbers",
        }
    }
}

impl Serialize for Convention {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockName {
    pub(crate) file: OsString,
    pub(crate) convention: Convention,
    ambiguous: bool,
}

impl LockName {
    /// Whether another console can have a lock of this name.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Whether this is a lock name of the console with this path and device.
    pub(crate) fn means(&self, path: &Path, device: Device) -> bool {
        lock_names(&[path], device).iter().any(|name| name.file == self.file)
    }
}

/// The lock names of the console with these paths, each once, in the order in which they are taken.
pub(crate) fn lock_names(paths: &[impl AsRef<Path>], device: Device) -> Vec<LockName> {
    let mut names: Vec<LockName> = paths.iter().flat_map(|path| names_of(path.as_ref())).collect();
    // Three digits each.
    let filesystem = major(device.filesystem);
    let aliases = paths.iter().filter_map(|path| device::numbers_of_alias(path.as_ref()));
    for (major, minor) in aliases.chain([(device.major(), device.minor())]) {
        let file = format!("LK.{filesystem:03}.{major:03}.{minor:03}").into();
        names.push(LockName { file, convention: Convention::DeviceNumbers, ambiguous: false });
    }
    // No filesystem has longer names (NAME_MAX).
    names.retain(|name| name.file.len() <= 255);
    // A name that is unambiguous under one convention (`LCK..ttyS0`) sorts before its ambiguous
    // twin.
    names.sort_by(|a, b| (&a.file, a.ambiguous).cmp(&(&b.file, b.ambiguous)));
    names.dedup_by(|later, earlier| later.file == earlier.file);
    names
}

fn names_of(path: &Path) -> Vec<LockName> {
    let lck = |rest: &[u8], convention, ambiguous| {
        let mut file = b"LCK..".to_vec();
        file.extend(rest.iter().map(|&byte| if byte == b'/' { b'_' } else { byte }));
        LockName { file: OsString::from_vec(file), convention, ambiguous }
    };
    let mut names = Vec::new();
    if let Ok(in_dev) = path.strip_prefix("/dev") {
        let in_dev = in_dev.as_os_str().as_bytes();
        names.push(lck(in_dev, Convention::Path, false));
        names.push(lck(&[b"/", in_dev].concat(), Convention::Libvirt, false));
    }
    if let Some(base) = path.file_name() {
        // `/dev/ttyS0` has no other part.
        let ambiguous = path.parent() != Some(Path::new("/dev"));
        names.push(lck(base.as_bytes(), Convention::BaseName, ambiguous));
    }
    names
}

/// Parses a lock name: its convention, and the console's path if the name can mean only one.
pub(crate) fn read_name(file: &OsStr) -> Option<(Convention, Option<OsString>)> {
    let file = file.as_bytes();
    if let Some(numbers) = file.strip_prefix(b"LK.") {
        return Some((Convention::DeviceNumbers, pty_with_numbers(numbers)));
    }
    let rest = file.strip_prefix(b"LCK..").filter(|rest| !rest.is_empty())?;
    let in_dev = |rest: &[u8]| {
        // These name no device, and the last of them leads out of /dev.
        let nowhere = matches!(rest, b"" | b"." | b"..");
        (!nowhere).then(|| OsString::from_vec([b"/dev/", rest].concat()))
    };
    let pty = |rest: &[u8]| {
        let number = rest.strip_prefix(b"pts_")?;
        let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        in_dev(&[b"pts/", digits.then_some(number)?].concat())
    };
    Some(match rest.strip_prefix(b"_") {
        Some(rest) => (Convention::Libvirt, pty(rest).or_else(|| in_dev(rest))),
        None if rest.starts_with(b"pts_") => (Convention::Path, pty(rest)),
        // All digits is some PTY's base name, of whatever devpts instance.
        None if rest.iter().all(u8::is_ascii_digit) => (Convention::BaseName, None),
        None => (Convention::Path, in_dev(rest)),
    })
}

fn pty_with_numbers(numbers: &[u8]) -> Option<OsString> {
    let mut parts = std::str::from_utf8(numbers).ok()?.split('.').skip(1);
    let (major, minor): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (major == 136 && parts.next().is_none()).then(|| format!("/dev/pts/{minor}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::makedev;

    fn files(paths: &[&str], device: Device) -> String {
        let names = lock_names(paths, device).into_iter();
        names.map(|name| name.file.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pty_is_locked_under_every_convention_of_the_field() {
        let device = Device { filesystem: makedev(0, 24), number: makedev(136, 50) };
        let all = "LCK..50 LCK.._pts_50 LCK..pts_50 LK.000.136.050";
        assert_eq!(files(&["/dev/pts/50"], device), all);
    }

    #[test]
    fn a_symlink_adds_its_own_names_and_outside_dev_only_the_last_part() {
        let device = Device { filesystem: makedev(0, 5), number: makedev(4, 64) };
        let all = "LCK.._serial_by-id_usb-1 LCK.._ttyS0 LCK..serial_by-id_usb-1 LCK..ttyS0 \
                   LCK..usb-1 LCK..vm0 LK.000.004.064";
        assert_eq!(files(&["/dev/serial/by-id/usb-1", "/tmp/vm0", "/dev/ttyS0"], device), all);
    }

    #[test]
    fn the_last_part_alone_is_ambiguous_unless_it_is_all_there_is() {
        let device = Device { filesystem: 5, number: makedev(4, 64) };
        let names = lock_names(&["/dev/ttyS0"], device);
        assert!(names.iter().all(|name| !name.ambiguous), "{names:?}");
        let names = lock_names(&["/dev/pts/7"], device);
        let base = names.iter().find(|name| name.file == "LCK..7" && name.ambiguous).unwrap();
        assert!(base.means(Path::new("/tmp/pts/7"), device));
        assert!(!base.means(Path::new("/dev/pts/8"), device));
    }

    #[test]
    fn names_are_read_back() {
        let read = |file: &str| {
            let (convention, path) = read_name(OsStr::new(file))?;
            Some((convention, path.map(|path| path.into_string().unwrap())))
        };
        let some = |convention, path: &str| Some((convention, Some(path.to_owned())));
        assert_eq!(read("LCK..pts_50"), some(Convention::Path, "/dev/pts/50"));
        assert_eq!(read("LCK.._pts_50"), some(Convention::Libvirt, "/dev/pts/50"));
        assert_eq!(read("LCK..50"), Some((Convention::BaseName, None)));
        assert_eq!(read("LCK..ttyS0"), some(Convention::Path, "/dev/ttyS0"));
        assert_eq!(read("LK.000.136.050"), some(Convention::DeviceNumbers, "/dev/pts/50"));
        assert_eq!(read("LK.000.004.064"), Some((Convention::DeviceNumbers, None)));
        assert_eq!(read("LCK..pts_"), Some((Convention::Path, None)));
        for nowhere in ["LCK...", "LCK....", "LCK.._", "LCK.._.", "LCK.._.."] {
            assert!(read(nowhere).is_some_and(|(_, path)| path.is_none()), "{nowhere}");
        }
        for other in ["LCK..", "lockdev", ".LCK..x", "LCK.x", "subsys"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
