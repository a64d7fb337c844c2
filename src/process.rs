//! Processes, as `/proc` and `kill` show them to us.

mod census;
mod grip;
mod jobs;
mod master;
mod open;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod stat;
mod wake;
mod walk;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::unistd::{Pid, Uid, User};

use crate::console::Device;
use crate::printable::Printable;
use stat::{Stat, State};
use walk::{Descriptors, is_gone, listed_pids};

pub use census::{Census, MasterHolders};
pub use jobs::Jobs;

/// A living process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number in our pid namespace.
    pub pid: i32,
    /// The name of its program as the kernel has it (at most 15 bytes; the process may change it),
    /// where `/proc` shows it.
    pub program: Option<String>,
    /// The user it belongs to.
    pub uid: Option<u32>,
    /// When it started, as the wall clock of now would have shown it. Rough: 10 ms ticks since boot,
    /// and clocks get set.
    pub started: Option<SystemTime>,
    /// Its controlling terminal: field 7 of `/proc/PID/stat`, 0 for none. It says nothing of the
    /// devpts instance.
    terminal: u64,
    /// Whether it is a thread of the kernel's own.
    of_the_kernel: bool,
    /// Who started it.
    parent: i32,
    /// The process that leads its session (`setsid(2)`); 0 where that has no number here.
    session: i32,
}

/// What there is of a process number.
#[derive(Debug)]
pub enum Presence {
    /// No process has it.
    Gone,
    /// A process has it.
    Alive(Process),
}

impl Process {
    /// Looks for the process with this number (greater than 0).
    #[must_use]
    pub fn find(pid: i32) -> Presence {
        // EPERM means that it lives and is not ours; only ESRCH means that it is gone (kill(2)).
        let has_ended = || nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        if has_ended() {
            return Presence::Gone;
        }
        match Self::read(pid) {
            // A zombie has closed all its descriptors: it holds nothing, whatever kill(2) says.
            Some((_, State::Zombie)) => Presence::Gone,
            Some((process, State::Living)) => Presence::Alive(process),
            // It is hidden, or has ended just now.
            None if has_ended() => Presence::Gone,
            None => Presence::Alive(Self::unknown(pid)),
        }
    }

    /// One of which nothing is known but that it is there.
    fn unknown(pid: i32) -> Self {
        Self {
            pid,
            program: None,
            uid: None,
            started: None,
            terminal: 0,
            of_the_kernel: false,
            parent: 0,
            session: 0,
        }
    }

    /// This process.
    #[must_use]
    pub fn own_pid() -> i32 {
        Pid::this().as_raw()
    }

    /// Reads `/proc/PID`; nothing where it is hidden, gone, or the `/proc` of another pid namespace.
    fn read(pid: i32) -> Option<(Self, State)> {
        if !*PROC_IS_OURS {
            return None;
        }
        let stat = Stat::read(pid)?;
        let process = Self {
            pid,
            program: Some(stat.program),
            // Whose it is can always be seen, unless it has ended meanwhile.
            uid: Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid()),
            started: Self::started(stat.start),
            terminal: stat.terminal,
            of_the_kernel: stat.of_the_kernel,
            parent: stat.parent,
            session: stat.session,
        };
        Some((process, stat.state))
    }

    /// Whether it was there so long after the machine started, as far as the kernel's clock ticks tell.
    #[must_use]
    pub fn was_there(&self, since_start: Duration) -> bool {
        let then = BOOT_TIME.checked_add(since_start + TICKS);
        self.started.is_none_or(|started| then.is_some_and(|then| started <= then))
    }

    /// When a process started, from the ticks that its `stat` says.
    fn started(start: u64) -> Option<SystemTime> {
        BOOT_TIME.checked_add(ticks(start))
    }

    /// The process `pid`, if it may have a console open that it hides from us. The kernel's own threads
    /// have nothing open, and the machine's first process is nobody's client, even where it hides
    /// from root. Where it cannot be read what it is, for want of descriptors, it may be any.
    fn that_may_hide_something(pid: i32) -> Option<Self> {
        let Some((process, state)) = Self::read(pid) else {
            return fs::metadata(format!("/proc/{pid}")).is_ok().then(|| Self::unknown(pid));
        };
        let init = pid == 1 && in_first_namespace();
        (state == State::Living && !process.of_the_kernel && !init).then_some(process)
    }

    /// Whether this is a vconsole: by its program's name, or since it runs the file that we run.
    #[must_use]
    pub fn is_vconsole(&self) -> bool {
        matches!(self.program.as_deref(), Some("vconsole" | "vconsole-guard"))
            || OWN_FILE.is_some_and(|own| executable(&self.pid.to_string()) == Some(own))
    }

    /// Whether it certainly is one of us: it runs the very file that we run. Where that cannot be seen,
    /// its name has to do.
    #[must_use]
    pub fn is_one_of_us(&self) -> bool {
        match (executable(&self.pid.to_string()), *OWN_FILE) {
            (Some(its), Some(own)) => its == own,
            _ => self.is_vconsole(),
        }
    }

    /// Whether this is a vconsole, and does not only call itself one: it runs the file that we run, or,
    /// of another version or build, has a guard. Where its file cannot be seen, its name has to do, and so
    /// it has for a guard.
    #[must_use]
    pub fn is_surely_vconsole(&self) -> bool {
        let by_name_alone = || match (executable(&self.pid.to_string()), *OWN_FILE) {
            (Some(its), Some(own)) => its != own && !self.is_guard() && self.guard().is_none(),
            _ => false,
        };
        self.is_vconsole() && !by_name_alone()
    }

    /// Whether this is the guard of a vconsole session, by its program's name.
    #[must_use]
    pub fn is_guard(&self) -> bool {
        self.program.as_deref() == Some("vconsole-guard")
    }

    /// Whether both are the same process: numbers are used again.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }

    /// Whether it still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(Self::find(self.pid), Presence::Alive(now) if now.is(self))
    }

    /// Whether `other` started it, and lives.
    #[must_use]
    pub fn is_child_of(&self, other: &Self) -> bool {
        self.parent == other.pid
    }

    /// Whether we started it.
    #[must_use]
    pub fn is_child_of_ours(&self) -> bool {
        self.parent == Self::own_pid()
    }

    /// The name of its controlling terminal in `/dev`, such as `pts/5`; nothing where it has none. It
    /// is that of our own devpts instance, whichever instance the process has it from.
    #[must_use]
    pub fn terminal_name(&self) -> Option<String> {
        let packed = u32::try_from(self.terminal).ok().filter(|&packed| packed != 0)?;
        let (major, minor) = ((packed >> 8) & 0xfff, (packed & 0xff) | ((packed >> 12) & 0xf_ff00));
        if (136..=143).contains(&major) {
            return Some(format!("pts/{minor}"));
        }
        let event = fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/uevent")).ok()?;
        event.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(str::to_owned)
    }

    /// Whether `device` is its controlling terminal, as far as its number tells.
    #[must_use]
    pub fn is_controlled_by(&self, device: Device) -> bool {
        self.terminal != 0 && self.terminal == packed(device)
    }

    /// The process `pid`, if `/proc` shows it.
    #[must_use]
    pub fn shown(pid: i32) -> Option<Self> {
        Self::read(pid).map(|(process, _)| process)
    }

    /// The name of its user, else the user's number; nothing where `/proc` hides the process.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let uid = self.uid?;
        let entry = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        Some(entry.map_or_else(|| uid.to_string(), |user| user.name))
    }
}

impl fmt::Display for Process {
    /// `minicom (pid 812, bob)`, safe to show on a terminal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => write!(out, "{} (pid {}", Printable::new(program), self.pid)?,
            None => write!(out, "a process that /proc hides (pid {}", self.pid)?,
        }
        if let Some(user) = self.user() {
            write!(out, ", {}", Printable::new(&user))?;
        }
        out.write_str(")")
    }
}

/// The processes that have a device open, as far as `/proc` shows them.
#[derive(Debug, Default)]
pub struct Openers {
    /// They, without ourselves.
    pub processes: Vec<Process>,
    /// The processes that hide from us what they have open: other users', or all for which we lack the
    /// means to look.
    pub hidden: Vec<i32>,
    /// Whether nobody can be seen: there is no `/proc`, or that of another pid namespace, or it cannot be
    /// read.
    pub blind: bool,
}

impl Openers {
    /// Walks over all processes, once.
    #[must_use]
    pub fn of(device: Device) -> Self {
        let mut openers = Self::default();
        if !*PROC_IS_OURS {
            openers.blind = true;
            return openers;
        }
        let Ok(pids) = listed_pids() else {
            openers.blind = true;
            return openers;
        };
        let own = Process::own_pid();
        for pid in pids.filter(|&pid| pid != own) {
            match Descriptors::of(pid) {
                Ok(descriptors) => {
                    let mut open = false;
                    let all = descriptors.each_device(|_, its| open |= its == device);
                    let process = if open { Process::read(pid) } else { None };
                    openers.processes.extend(process.map(|(process, _)| process));
                    if !open && !all {
                        openers.count_hidden(pid);
                    }
                }
                Err(errno) if is_gone(errno) => {}
                Err(_) => openers.count_hidden(pid),
            }
        }
        openers
    }

    fn count_hidden(&mut self, pid: i32) {
        self.hidden.extend(Process::that_may_hide_something(pid).map(|process| process.pid));
    }
}

/// A device's number as field 7 of `/proc/PID/stat` holds it: as the kernel's `new_encode_dev()` packs
/// it (`proc_pid_stat(5)`).
fn packed(device: Device) -> u64 {
    let (major, minor) = (rustix::fs::major(device.number), rustix::fs::minor(device.number));
    ((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).into()
}

/// Whether we are in the machine's first pid namespace, in which every process has a number.
#[must_use]
pub fn in_first_namespace() -> bool {
    *OWN_NAMESPACE == Some(FIRST_NAMESPACE)
}

/// The number of our pid namespace, where it is not the machine's first one. Nothing either where there is
/// no `/proc`.
#[must_use]
pub fn namespace_beside_the_first() -> Option<u64> {
    OWN_NAMESPACE.filter(|&own| own != FIRST_NAMESPACE)
}

/// `PROC_PID_INIT_INO`, which the kernel gives to the first one (`include/uapi/linux/nsfs.h`).
const FIRST_NAMESPACE: u64 = 4_026_531_836;

static OWN_NAMESPACE: LazyLock<Option<u64>> = LazyLock::new(|| {
    let name = fs::read_link("/proc/self/ns/pid").ok()?;
    name.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
});

/// The file that we run.
static OWN_FILE: LazyLock<Option<(u64, u64)>> = LazyLock::new(|| executable("self"));

/// The file that a process runs, by its device and number.
fn executable(pid: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Whether `/proc` is there and shows our own pid namespace (a container may see its host's).
static PROC_IS_OURS: LazyLock<bool> = LazyLock::new(|| {
    fs::read_link("/proc/self")
        .is_ok_and(|own| own.to_str().and_then(|pid| pid.parse().ok()) == Some(Process::own_pid()))
});

/// When the machine was started, as the wall clock of now would have shown it.
static BOOT_TIME: LazyLock<SystemTime> = LazyLock::new(|| {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::try_from(up).unwrap_or_default();
    SystemTime::now().checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH)
});

/// A few of the kernel's clock ticks, which are 10 ms, and what reading two clocks takes.
const TICKS: Duration = Duration::from_millis(50);

/// A length of time in the kernel's clock ticks (`USER_HZ`).
fn ticks(count: u64) -> Duration {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(count.saturating_mul(1000) / a_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_no_older_than_the_machine_s_start() {
        let Presence::Alive(own) = Process::find(Process::own_pid()) else { panic!("gone") };
        assert_eq!(own.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(
            own.started
                .is_some_and(|started| { (*BOOT_TIME..=SystemTime::now()).contains(&started) })
        );
    }
}
