//! The names that a console's lock files have, under every convention of the field.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{major, minor};

use crate::console::Device;

/// Who names lock files so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// minicom, pppd and others: the path behind `/dev/`, with `_` for each `/`.
    Path,
    /// Taylor UUCP (cu), C-Kermit: the last part of the path. Two devices can share it.
    BaseName,
    /// libvirt: the path behind `/dev`, with `_` for each `/`, also the first.
    Libvirt,
    /// SVR4: the numbers of the filesystem's and of the device's own device.
    DeviceNumbers,
}

impl Convention {
    /// What it is called in a word, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::BaseName => "base-name",
            Self::Libvirt => "libvirt",
            Self::DeviceNumbers => "device-numbers",
        }
    }
}

/// A lock file's name, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockName {
    /// The file's name.
    pub file: OsString,
    /// Who names it so.
    pub convention: Convention,
    /// The last part of the console's path, where that is all that the name says.
    pub base: Option<OsString>,
}

/// The names of the lock files of the console that has these paths, each name once, in the one order
/// in which every vconsole takes them.
#[must_use]
pub fn lock_names(paths: &[impl AsRef<Path>], device: Device) -> Vec<LockName> {
    let mut names: Vec<LockName> = paths.iter().flat_map(|path| names_of(path.as_ref())).collect();
    names.push(LockName {
        // Three digits each; of the filesystem's device only the major number stands in the name.
        file: format!(
            "LK.{:03}.{:03}.{:03}",
            major(device.filesystem),
            major(device.number),
            minor(device.number)
        )
        .into(),
        convention: Convention::DeviceNumbers,
        base: None,
    });
    // No filesystem has longer names (NAME_MAX): nobody can have such a lock.
    names.retain(|name| name.file.len() <= 255);
    // A name that is unambiguous under one convention (`LCK..ttyS0`) stands before its ambiguous twin.
    names.sort_by(|a, b| (&a.file, a.base.is_some()).cmp(&(&b.file, b.base.is_some())));
    names.dedup_by(|later, earlier| later.file == earlier.file);
    names
}

fn names_of(path: &Path) -> Vec<LockName> {
    let lck = |rest: &[u8]| {
        let mut file = b"LCK..".to_vec();
        file.extend(rest.iter().map(|&byte| if byte == b'/' { b'_' } else { byte }));
        OsString::from_vec(file)
    };
    let mut names = Vec::new();
    if let Ok(in_dev) = path.strip_prefix("/dev") {
        let in_dev = in_dev.as_os_str().as_bytes();
        let file = lck(in_dev);
        names.push(LockName { file, convention: Convention::Path, base: None });
        let file = lck(&[b"/", in_dev].concat());
        names.push(LockName { file, convention: Convention::Libvirt, base: None });
    }
    if let Some(base) = path.file_name() {
        let file = lck(base.as_bytes());
        names.push(LockName {
            file,
            convention: Convention::BaseName,
            base: Some(base.to_os_string()),
        });
    }
    names
}

/// What a file name in a lock directory says of its console: whose convention it follows as far as
/// that can be told, and the device's path if there is only one that it can mean.
///
/// Nothing if it is no lock file's name.
#[must_use]
pub fn read_name(file: &OsStr) -> Option<(Convention, Option<OsString>)> {
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
        let number = digits.then_some(number)?;
        in_dev(&[b"pts/", number].concat())
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

    fn files(paths: &[&str], device: Device) -> Vec<String> {
        let names = lock_names(paths, device);
        names.into_iter().map(|name| name.file.into_string().unwrap()).collect()
    }

    #[test]
    fn a_pty_is_locked_under_every_convention_of_the_field() {
        let device = Device { filesystem: makedev(0, 24), number: makedev(136, 50) };
        assert_eq!(
            files(&["/dev/pts/50"], device),
            ["LCK..50", "LCK.._pts_50", "LCK..pts_50", "LK.000.136.050"]
        );
    }

    #[test]
    fn a_symlink_adds_its_own_names_and_outside_dev_only_the_last_part() {
        let device = Device { filesystem: makedev(0, 5), number: makedev(4, 64) };
        assert_eq!(
            files(&["/dev/serial/by-id/usb-1", "/tmp/vm0", "/dev/ttyS0"], device),
            [
                "LCK.._serial_by-id_usb-1",
                "LCK.._ttyS0",
                "LCK..serial_by-id_usb-1",
                "LCK..ttyS0",
                "LCK..usb-1",
                "LCK..vm0",
                "LK.000.004.064"
            ]
        );
    }

    #[test]
    fn the_last_part_alone_is_ambiguous_unless_it_is_all_there_is() {
        let device = Device { filesystem: 5, number: makedev(4, 64) };
        let names = lock_names(&["/dev/ttyS0"], device);
        assert!(names.iter().all(|name| name.base.is_none()), "{names:?}");
        let names = lock_names(&["/dev/pts/7"], device);
        let base = names.iter().find(|name| name.file == "LCK..7").unwrap();
        assert_eq!(base.base.as_deref(), Some(OsStr::new("7")));
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
