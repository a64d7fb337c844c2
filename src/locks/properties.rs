//! Properties of what we read from lock files and the kernel's tables, whatever they say.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use crate::device::Device;
use crate::locks::file::{Contents, LockFile, PID_MAX_LIMIT, contents_for};
use crate::locks::flock::Flocks;
use crate::locks::names::{lock_names, read_name};
use crate::locks::staleness::{LockStatus, ProcessTable, classify};
use crate::printable::is_harmless;
use crate::process;
use crate::process::Process;

/// A lock file names one or two processes, each of them a single one; what we write is read back.
pub fn lock_file(bytes: &[u8]) {
    let ours = bytes.iter().fold(0, |sum, &byte| (sum * 31 + i32::from(byte)) % PID_MAX_LIMIT) + 1;
    let written = contents_for(ours);
    assert_eq!((written.len(), written.as_bytes()[10]), (11, b'\n'));
    assert_eq!(Contents::parse(written.as_bytes()), Contents::Pids(vec![ours]));
    let contents = Contents::parse(bytes);
    assert_eq!(contents == Contents::Empty, bytes.is_empty());
    let Contents::Pids(pids) = contents else { return };
    assert!(pids.len() == 1 || (pids.len() == 2 && pids[0] != pids[1]), "{pids:?}");
    for pid in pids {
        assert!((1..=PID_MAX_LIMIT).contains(&pid), "{pid} is no process");
        let binary = bytes == pid.to_ne_bytes();
        let text = String::from_utf8_lossy(bytes);
        assert!(binary || text.contains(&pid.to_string()), "{bytes:?} does not say {pid}");
    }
}

/// A path that is read from a lock name has that lock name; and each lock name of a device can be
/// read.
pub fn lock_name(bytes: &[u8]) {
    let file = OsStr::from_bytes(bytes);
    let device = Device { filesystem: 24, number: rustix::fs::makedev(136, 50) };
    let can_be_a_file_s = !bytes.contains(&b'/') && !bytes.contains(&0) && bytes.len() <= 255;
    if let Some((_, Some(path))) = read_name(file)
        && can_be_a_file_s
    {
        let path = PathBuf::from(path);
        let in_dev = path.strip_prefix("/dev").is_ok_and(|rest| rest.file_name().is_some());
        assert!(in_dev, "{} is not in /dev", path.display());
        let names = lock_names(&[&path], device);
        let is_among_them = names.iter().any(|name| name.file == file);
        assert!(is_among_them || bytes.starts_with(b"LK."), "of {}: {names:?}", path.display());
    }
    let path = PathBuf::from(OsString::from_vec([b"/dev/", bytes].concat()));
    if path.file_name().is_none() || path == Path::new("/dev") {
        return;
    }
    let names = lock_names(&[path], device);
    assert!(names.is_sorted_by(|one, next| one.file < next.file), "{names:?}");
    for name in names {
        let file = name.file.as_bytes();
        assert!(!file.contains(&b'/') && file.len() <= 255, "{name:?}");
        assert!(read_name(&name.file).is_some(), "{name:?}");
    }
}

struct Imagined<'a>(&'a [u8]);

impl Imagined<'_> {
    fn of(&self, pid: i32) -> u8 {
        let dir = usize::try_from(pid).unwrap_or(0) % self.0.len().max(1);
        self.0.get(dir).copied().unwrap_or(0)
    }

    fn lives(&self, pid: i32) -> bool {
        self.of(pid) & 1 != 0
    }

    fn is_younger(&self, pid: i32) -> bool {
        self.of(pid) & 4 != 0
    }

    fn shows(&self, pid: i32) -> Option<bool> {
        (self.of(pid) & 8 != 0).then_some(self.of(pid) & 16 != 0)
    }
}

impl ProcessTable for Imagined<'_> {
    fn find(&self, pid: i32) -> Option<(Process, bool)> {
        let mut process = OURSELVES.clone()?;
        process.pid = pid;
        process.program = Some(String::from_utf8_lossy(self.0).into_owned());
        let age = if self.is_younger(pid) { 100 } else { 0 };
        process.started = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(age));
        self.lives(pid).then_some((process, self.of(pid) & 2 != 0))
    }

    fn has_open(&self, process: &Process, _: Device) -> Option<bool> {
        self.shows(process.pid)
    }
}

static OURSELVES: LazyLock<Option<Process>> = LazyLock::new(|| Process::shown(Process::own_pid()));

/// Only a lock whose every process is proved gone, or proved to be another, is dead.
pub fn lock_status(bytes: &[u8]) {
    let (about_processes, text) = bytes.split_at(bytes.len().min(8));
    let table = Imagined(about_processes);
    let Ok(mut file) = rustix::fs::stat("/") else { return };
    file.st_mtime = 1;
    let lock = LockFile::new(&file, Contents::parse(text), None);
    let device = Device { filesystem: 24, number: rustix::fs::makedev(136, 50) };
    let lock_status = classify(&table, &lock, Some(device));
    let Contents::Pids(pids) = &lock.contents else {
        assert!(matches!(lock_status, LockStatus::Unknown(_)), "{lock_status:?}");
        return;
    };
    let is_dead = |&pid: &i32| {
        if table.lives(pid) {
            let hidden = table.shows(pid) != Some(false) && pid != Process::own_pid();
            table.is_younger(pid) && !hidden
        } else {
            process::in_first_namespace()
        }
    };
    let dead = matches!(lock_status, LockStatus::Stale(_));
    assert_eq!(dead, pids.iter().all(is_dead), "{lock_status:?} of {pids:?}");
    match lock_status {
        LockStatus::Stale(death) => is_harmless(&death.to_string()),
        LockStatus::Unknown(suspicion) => is_harmless(&suspicion.to_string()),
        LockStatus::Foreign(process) | LockStatus::Vconsole(process) => {
            assert!(pids.contains(&process.pid) && table.lives(process.pid));
            is_harmless(&process.to_string());
        }
    }
}

pub fn flock_table(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let line = "7: FLOCK  ADVISORY  WRITE 4242 00:18:53 0 EOF";
    let before = Flocks::parse(&text).named(rustix::fs::makedev(0, 0x18), 53).len();
    let flocks = Flocks::parse(&format!("{text}\n{line}\n"));
    let named = flocks.named(rustix::fs::makedev(0, 0x18), 53);
    assert_eq!((named.len(), named.last()), (before + 1, Some(&4242)));
}
