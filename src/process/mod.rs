//! Processes, as `/proc` and `kill` show them to us.

pub(crate) mod access;
pub(crate) mod cgroup;
pub(crate) mod master;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod snapshot;
pub(crate) mod walk;

use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};
use std::{fmt, fs};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::device::{self, Device};
use crate::printable::Printable;
use crate::proc_stat::{ProcessState, Stat};
use crate::user_name;

#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    /// In our pid namespace.
    pub(crate) pid: i32,
    /// The kernel's name of the program (at most 15 bytes; the process may change it).
    pub(crate) program: Option<String>,
    pub(crate) uid: Option<u32>,
    /// The start by the wall clock of now. Rough: 10 ms ticks since boot, and clocks get set.
    pub(crate) started: Option<SystemTime>,
    /// Field 7 of `/proc/PID/stat`, 0 for none, without the devpts instance.
    terminal: u64,
    of_the_kernel: bool,
    parent: i32,
    /// 0 where the leader has no pid here (`setsid(2)`).
    session: i32,
}

pub(crate) enum Presence {
    Gone,
    Alive(Process),
}

impl Process {
    /// `pid` is greater than 0.
    pub(crate) fn find(pid: i32) -> Presence {
        // EPERM means that it lives and is not ours; only ESRCH means that it is gone (kill(2)).
        let has_ended = || nix::sys::signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
        if has_ended() {
            return Presence::Gone;
        }
        match Self::read(pid) {
            // A zombie has closed all its descriptors: it holds nothing, whatever kill(2) says.
            Some((_, ProcessState::Zombie)) => Presence::Gone,
            Some((process, ProcessState::Living)) => Presence::Alive(process),
            // It is hidden, or has ended just now.
            None if has_ended() => Presence::Gone,
            None => Presence::Alive(Self::unknown(pid)),
        }
    }

    /// Like [`Self::find`].
    pub(crate) fn living(pid: i32) -> Option<Self> {
        match Self::find(pid) {
            Presence::Alive(process) => Some(process),
            Presence::Gone => None,
        }
    }

    fn unknown(pid: i32) -> Self {
        Self { pid, ..Self::default() }
    }

    pub(crate) fn own_pid() -> i32 {
        Pid::this().as_raw()
    }

    /// `None` where it is hidden, gone, or `/proc` is that of another pid namespace.
    pub(crate) fn read(pid: i32) -> Option<(Self, ProcessState)> {
        if !proc_is_ours() {
            return None;
        }
        let stat = Stat::read(pid)?;
        let process = Self {
            pid,
            program: Some(stat.program),
            // The owner can always be seen, unless the process has ended.
            uid: Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid()),
            started: Self::started(stat.start),
            terminal: stat.terminal,
            of_the_kernel: stat.of_the_kernel,
            parent: stat.parent,
            session: stat.session,
        };
        Some((process, stat.state))
    }

    /// Whether it ran at this time after boot, as far as clock ticks tell.
    pub(crate) fn was_there(&self, since_start: Duration) -> bool {
        let then = BOOT_TIME.checked_add(since_start + TICKS);
        self.started.is_none_or(|started| then.is_some_and(|then| started <= then))
    }

    /// `start` counts clock ticks since boot.
    fn started(start: u64) -> Option<SystemTime> {
        let a_second = rustix::param::clock_ticks_per_second().max(1);
        BOOT_TIME.checked_add(Duration::from_millis(start.saturating_mul(1000) / a_second))
    }

    /// The process, if it may have a console open and hide it. Kernel threads have nothing open,
    /// and init is no client, even where it hides from root. One that cannot be read may be any.
    pub(crate) fn that_may_hide_something(pid: i32) -> Option<Self> {
        let Some((process, state)) = Self::read(pid) else {
            return fs::metadata(format!("/proc/{pid}")).is_ok().then(|| Self::unknown(pid));
        };
        (state == ProcessState::Living && !process.of_the_kernel && !is_init(pid))
            .then_some(process)
    }

    /// `None` where that cannot be seen.
    fn runs_our_file(&self) -> Option<bool> {
        Some(executable(&self.pid.to_string())? == (*OWN_FILE)?)
    }

    /// By name, or because it runs our file.
    pub(crate) fn is_vconsole(&self) -> bool {
        matches!(self.program.as_deref(), Some("vconsole" | "vconsole-guard"))
            || self.runs_our_file() == Some(true)
    }

    /// Whether it runs our file. Where that cannot be seen, the name decides.
    pub(crate) fn is_one_of_us(&self) -> bool {
        self.runs_our_file().unwrap_or_else(|| self.is_vconsole())
    }

    /// Whether it is a vconsole, and not only called so: it runs our file, or, of another build, is
    /// or has a guard. Where its file cannot be seen, the name decides.
    pub(crate) fn is_surely_vconsole(&self) -> bool {
        self.is_vconsole()
            && (self.runs_our_file() != Some(false) || self.is_guard() || self.guard().is_some())
    }

    pub(crate) fn is_guard(&self) -> bool {
        self.program.as_deref() == Some("vconsole-guard")
    }

    /// Pids are used again.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::living(self.pid).is_some_and(|now| now.is(self))
    }

    pub(crate) fn is_child_of(&self, other: &Self) -> bool {
        self.parent == other.pid
    }

    pub(crate) fn is_child_of_ours(&self) -> bool {
        self.parent == Self::own_pid()
    }

    /// The name below `/dev`, such as `pts/5`, in our own devpts instance.
    pub(crate) fn terminal_name(&self) -> Option<String> {
        device::terminal_name(self.terminal)
    }

    /// As far as the terminal's number tells.
    pub(crate) fn is_controlled_by(&self, device: Device) -> bool {
        self.terminal != 0 && self.terminal == device.packed()
    }

    pub(crate) fn shown(pid: i32) -> Option<Self> {
        Self::read(pid).map(|(process, _)| process)
    }

    /// The user's name or number; `None` where `/proc` hides the process.
    pub(crate) fn user(&self) -> Option<String> {
        self.uid.map(user_name::of)
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

/// Whether we are in the machine's first pid namespace, in which every process has a number.
pub(crate) fn in_first_namespace() -> bool {
    *OWN_NAMESPACE == Some(FIRST_NAMESPACE)
}

/// Whether this is the machine's first process.
pub(crate) fn is_init(pid: i32) -> bool {
    pid == 1 && in_first_namespace()
}

/// `None` also where there is no `/proc`.
pub(crate) fn namespace_beside_the_first() -> Option<u64> {
    OWN_NAMESPACE.filter(|&own| own != FIRST_NAMESPACE)
}

/// `PROC_PID_INIT_INO`, which the kernel gives to the first one (`include/uapi/linux/nsfs.h`).
const FIRST_NAMESPACE: u64 = 4_026_531_836;

static OWN_NAMESPACE: LazyLock<Option<u64>> = LazyLock::new(|| {
    let name = fs::read_link("/proc/self/ns/pid").ok()?;
    name.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
});

static OWN_FILE: LazyLock<Option<(u64, u64)>> = LazyLock::new(|| executable("self"));

fn executable(pid: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Whether `/proc` shows our own pid namespace: a container may see its host's.
pub(crate) fn proc_is_ours() -> bool {
    static OURS: LazyLock<bool> = LazyLock::new(|| {
        let own = fs::read_link("/proc/self").ok();
        own.and_then(|own| own.to_str()?.parse().ok()) == Some(Process::own_pid())
    });
    *OURS
}

/// The time of boot by the wall clock of now.
static BOOT_TIME: LazyLock<SystemTime> = LazyLock::new(|| {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::try_from(up).unwrap_or_default();
    SystemTime::now().checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH)
});

/// A few clock ticks of 10 ms, and the time to read two clocks.
const TICKS: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_no_older_than_the_machine_s_start() {
        let own = Process::living(Process::own_pid()).unwrap();
        assert_eq!(own.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(
            own.started.is_some_and(|started| (*BOOT_TIME..=SystemTime::now()).contains(&started))
        );
    }
}
