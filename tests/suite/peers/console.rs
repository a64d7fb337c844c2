//! What the programs attach to, as the test sees it from outside: who has it open, which lock files it
//! has, what the guest behind it hears.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::harness::{DEADLINE, Guest, contains};
use super::User;

/// The lock directory that all of the field knows.
const LOCKS: &str = "/var/lock";

/// A console, and the guest behind it.
pub(super) trait Console {
    /// Its path.
    fn path(&self) -> &Path;

    /// All that the guest has heard so far.
    fn heard(&self) -> Vec<u8>;

    /// The guest says `text`.
    fn say(&self, text: &str);

    /// How `virsh` names it: the connection.
    fn uri(&self) -> Option<&str> {
        None
    }

    /// Waits until the guest has heard `text`.
    #[track_caller]
    fn receives(&self, text: &str) {
        let start = Instant::now();
        while !self.has_heard(text) {
            let heard = String::from_utf8_lossy(&self.heard()).into_owned();
            assert!(start.elapsed() < DEADLINE, "the guest did not hear {text} but {heard:?}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn has_heard(&self, text: &str) -> bool {
        contains(&self.heard(), text.as_bytes())
    }

    /// The processes that have it open.
    fn openers(&self) -> Vec<Opener> {
        openers_of(self.path())
    }

    /// The names of its lock files, under any convention, sorted.
    fn lock_files(&self) -> Vec<String> {
        lock_files_of(self.path())
    }
}

impl Console for Guest {
    fn path(&self) -> &Path {
        self.path()
    }

    fn heard(&self) -> Vec<u8> {
        self.ear().so_far()
    }

    #[track_caller]
    fn say(&self, text: &str) {
        self.say(text);
    }
}

/// A guest whose console belongs to [`User::Owner`], and which every user may open: what keeps anybody
/// out is then no permission.
pub(super) fn guest() -> Guest {
    let guest = Guest::new();
    guest.chown(User::Owner.number());
    open_to_all(guest.path());
    guest
}

pub(super) fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// The names of the lock files that the PTY at `path` has, under any convention, sorted.
fn lock_files_of(path: &Path) -> Vec<String> {
    let number = path.file_name().unwrap().to_str().unwrap();
    let names = ["pts_", "", "_pts_"].map(|before| format!("LCK..{before}{number}"));
    // Of the file system's own device only the major number stands in it.
    let of_device = format!(".136.{number:0>3}");
    let entries = fs::read_dir(LOCKS).unwrap().flatten();
    let found = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_its = |name: &String| {
        names.contains(name) || (name.starts_with("LK.") && name.ends_with(&of_device))
    };
    let mut found: Vec<String> = found.filter(is_its).collect();
    found.sort();
    found
}

/// Removes those lock files that name one of `pids`: programs that were killed could not.
pub(super) fn remove_locks_of(path: &Path, pids: &[i32]) {
    for name in lock_files_of(path) {
        let lock = Path::new(LOCKS).join(name);
        let text = fs::read_to_string(&lock).unwrap_or_default();
        let pid = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            let _ = fs::remove_file(lock);
        }
    }
}

/// A process that has a console open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opener {
    pub(super) pid: i32,
    pub(super) program: String,
    pub(super) uid: u32,
}

impl Opener {
    fn find(pid: i32) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let program = fs::read_to_string(directory.join("comm")).ok()?.trim_end().to_owned();
        Some(Self { pid, program, uid: fs::metadata(directory).ok()?.uid() })
    }

    /// How vconsole names it to those who may know.
    pub(super) fn named(&self) -> String {
        let entry = nix::unistd::User::from_uid(self.uid.into()).unwrap();
        let user = entry.map_or_else(|| self.uid.to_string(), |user| user.name);
        format!("{} (pid {}, {user})", self.program, self.pid)
    }
}

/// The processes that have the device at `path` open.
pub(super) fn openers_of(path: &Path) -> Vec<Opener> {
    let Ok(device) = fs::metadata(path) else { return Vec::new() };
    let has_it = |pid: &i32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .any(|file| (file.dev(), file.rdev()) == (device.dev(), device.rdev()))
    };
    processes().filter(has_it).filter_map(Opener::find).collect()
}

/// The numbers of all processes.
pub(super) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of `pid`: field 4 of `proc_pid_stat(5)`, counted after the name.
pub(super) fn parent_of(pid: i32) -> Option<i32> {
    fields_of(pid)?.nth(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` behind the program's name: the state is the first.
pub(super) fn fields_of(pid: i32) -> Option<impl Iterator<Item = String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<String> = rest.split_ascii_whitespace().map(Into::into).collect();
    Some(fields.into_iter())
}
