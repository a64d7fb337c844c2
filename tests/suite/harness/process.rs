//! One process that a test started: never another that got its number.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitid,
};
use vconsole::{SocketRole, socket_name};

use super::{DEADLINE, ready, until};

/// A process, held by its pidfd.
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended that we reaped ourselves.
#[derive(Clone, Copy)]
pub(super) struct Ended {
    /// As a shell says it: 128+N after signal N.
    pub(super) code: i32,
    pub(super) cpu: Duration,
}

impl Process {
    /// The process `pid`; `None` if it is gone already.
    pub(crate) fn find(pid: Pid) -> Option<Self> {
        Some(Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it `signal`, if it is still there.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills it, waits until it ended, and reaps it if it has lost its parent.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.ends();
        self.reap();
    }

    /// Whether it ended (and may still wait to be reaped).
    pub(crate) fn has_ended(&self) -> bool {
        ready(&self.pidfd, PollFlags::IN, Duration::ZERO)
    }

    /// Waits until it ended; false when the deadline passed.
    pub(super) fn ends(&self) -> bool {
        ready(&self.pidfd, PollFlags::IN, DEADLINE)
    }

    /// The names of the sockets of a session and of its guard, of which this is the session.
    pub(crate) fn socket_names(&self) -> [String; 2] {
        [SocketRole::Session, SocketRole::Guard].map(|role| socket_name(self.pid(), role))
    }

    /// Waits until it is stopped, as SIGSTOP and SIGTSTP do it.
    #[track_caller]
    pub(crate) fn is_stopped(&self) {
        until("the process is stopped", || self.is_stopped_now());
    }

    /// Whether it is stopped at this moment.
    pub(crate) fn is_stopped_now(&self) -> bool {
        self.stat(2) == Some("T".into())
    }

    /// The time for which it has used a processor so far, in steps of 10 ms.
    pub(crate) fn cpu_time(&self) -> Duration {
        // Fields 14 and 15 of proc_pid_stat(5), in clock ticks. USER_HZ is 100 on every Linux that
        // Rust's standard library runs on.
        let ticks = |field| self.stat(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis((ticks(13) + ticks(14)) * 10)
    }

    /// The memory that it has, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// The most memory it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    /// How often it went to sleep so far, and so was woken up again.
    pub(crate) fn naps(&self) -> u64 {
        self.status("voluntary_ctxt_switches:")
    }

    /// What its descriptors are, as links of `/proc`: paths, and `pipe:[1]` and the like.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
    }

    /// A number of `proc_pid_status(5)`.
    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The file status flags of its descriptor `number`: those of everybody who shares the open file.
    pub(crate) fn flags_of(&self, number: i32) -> OFlags {
        let path = format!("/proc/{}/fdinfo/{number}", self.pid);
        let info = std::fs::read_to_string(path).unwrap();
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        OFlags::from_bits_retain(u32::from_str_radix(octal.trim(), 8).unwrap())
    }

    /// How many bytes it has read so far, of whatever it has open (`rchar` of `proc_pid_io(5)`).
    pub(crate) fn bytes_read(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("rchar:")).unwrap();
        line.trim().parse().unwrap()
    }

    /// Waits until it has read nothing for a while.
    #[track_caller]
    pub(crate) fn reads_no_more(&self) {
        let (mut before, mut since) = (self.bytes_read(), Instant::now());
        until("it reads no more", || {
            let now = self.bytes_read();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(200)
        });
    }

    /// A field of `proc_pid_stat(5)`, counted from 0. The name before it may hold anything, also blanks
    /// and brackets: the fields begin after the last one.
    fn stat(&self, field: usize) -> Option<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split_ascii_whitespace().nth(field - 2).map(Into::into)
    }

    /// How it ended, which it did. Its tracer, if it has one, learns of that first.
    #[track_caller]
    pub(super) fn reaped(&self) -> Ended {
        let mut ended = None;
        until("its end can be learned", || {
            ended = self.reap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Reaps it, if it ended and is our child.
    pub(super) fn reap(&self) -> Option<Ended> {
        let cpu = self.cpu_time();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).ok()??;
        Some(Ended { code: code(&status), cpu })
    }
}

fn code(status: &WaitIdStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => unreachable!("waitid was only asked for processes that ended"),
    }
}

/// Whether a process `pid` runs: one that ended and waits to be reaped does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Makes the processes that lose their parent ours, so that their end can be waited for.
pub(super) fn adopt_orphans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_child_subreaper(Some(getpid())).unwrap());
}
