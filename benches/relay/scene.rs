//! A guest's console, a user's terminal, and a program between the two.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use vconsole::sys;

use crate::client::Client;
use crate::program::vconsole;

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// After so long nothing more comes.
const SILENCE: Duration = Duration::from_secs(1);

/// The master of a PTY, which never waits.
pub(crate) struct PtyLine {
    pub(crate) master: OwnedFd,
    pub(crate) path: PathBuf,
    slave: Option<OwnedFd>,
}

impl PtyLine {
    fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap().into();
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        Self { master, path, slave: Some(slave) }
    }

    /// A guest's, raw as QEMU makes it.
    fn console() -> Self {
        let mut line = Self::open();
        let mut settings = tcgetattr(&line.master).unwrap();
        settings.make_raw();
        tcsetattr(&line.master, OptionalActions::Now, &settings).unwrap();
        line.slave = None;
        line
    }

    /// Reads what there is, waiting for something until `deadline`.
    pub(crate) fn read(&self, bytes: &mut [u8], deadline: Instant) -> usize {
        loop {
            match read(&self.master, &mut *bytes) {
                Ok(count) => return count,
                // No slave is open now.
                Err(Errno::IO) => thread::sleep(Duration::from_millis(1)),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline),
                Err(error) => panic!("{}: {error}", self.path.display()),
            }
            assert!(Instant::now() < deadline, "nothing comes from {}", self.path.display());
        }
    }

    /// Reads what there is now, or comes within `patience`.
    pub(crate) fn read_within(&self, bytes: &mut [u8], patience: Duration) -> usize {
        self.wait(PollFlags::IN, Instant::now() + patience);
        read(&self.master, bytes).unwrap_or(0)
    }

    /// Writes all of `bytes`, or as much as is taken: some programs lose their way.
    pub(crate) fn write(&self, mut bytes: &[u8]) -> bool {
        let mut last = Instant::now();
        while !bytes.is_empty() && last.elapsed() < SILENCE {
            match write(&self.master, bytes) {
                Ok(count) => (bytes, last) = (&bytes[count..], Instant::now()),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, last + SILENCE),
                Err(error) => panic!("{}: {error}", self.path.display()),
            }
        }
        bytes.is_empty()
    }

    fn wait(&self, what: PollFlags, until: Instant) {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        let _ = poll(&mut [PollFd::new(&self.master, what)], Some(&left));
    }

    /// Reads until `count` bytes have come, or nothing more comes. Tells when the last one came, and how
    /// many came.
    pub(crate) fn swallow(&self, count: usize) -> (Instant, usize) {
        let (mut left, mut bytes) = (count, vec![0; 64 * 1024]);
        let mut last = Instant::now();
        while left > 0 {
            match self.read_within(&mut bytes, SILENCE) {
                0 => break,
                read => (left, last) = (left.saturating_sub(read), Instant::now()),
            }
        }
        (last, count - left)
    }
}

/// A guest's console, and where its locks are.
pub(crate) struct Scene {
    pub(crate) console: PtyLine,
    locks: tempfile::TempDir,
}

/// A program that runs on a terminal.
pub(crate) struct Running {
    pub(crate) terminal: PtyLine,
    child: Child,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { console: PtyLine::console(), locks: tempfile::tempdir().unwrap() }
    }

    /// The command line of `client`.
    pub(crate) fn command(&self, client: Client) -> Command {
        client.command(&self.console.path, self.locks.path())
    }

    /// Starts `command` on a terminal of its own.
    pub(crate) fn start(mut command: Command) -> Running {
        let mut terminal = PtyLine::open();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal.master, size).unwrap();
        let slave = terminal.slave.take().unwrap();
        let copy = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(copy()).stdout(copy()).stderr(copy());
        sys::lead_a_session_on(&mut command, slave.try_clone().unwrap());
        let child = command.spawn().unwrap();
        Running { terminal, child }
    }

    /// Starts `client`, and waits until it relays.
    pub(crate) fn attach(&self, client: Client) -> Running {
        let running = Self::start(self.command(client));
        self.greet(&running);
        running
    }

    /// Waits until what the console prints is shown, and all of that is read.
    pub(crate) fn greet(&self, running: &Running) {
        let (mut shown, mut bytes) = (Vec::new(), vec![0; 4096]);
        let deadline = Instant::now() + DEADLINE;
        while !shown.windows(4).any(|window| window == b"HERE") {
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&shown));
            let _ = self.console.write(b"HERE");
            let count = running.terminal.read_within(&mut bytes, Duration::from_millis(10));
            shown.extend(&bytes[..count]);
        }
        while running.terminal.read_within(&mut bytes, Duration::from_millis(100)) > 0 {}
        // What it asks the guest at its start, if anything.
        while self.console.read_within(&mut bytes, Duration::from_millis(10)) > 0 {}
    }

    /// Runs `work` while the guest sends back whatever comes.
    pub(crate) fn with_echo<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = [0; 256];
                while !done.load(Ordering::Relaxed) {
                    let count = self.console.read_within(&mut bytes, Duration::from_millis(50));
                    let _ = self.console.write(&bytes[..count]);
                }
            });
            let result = work();
            done.store(true, Ordering::Relaxed);
            result
        })
    }
}

impl Running {
    /// The time for which it was on a processor so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let on_cpu = |task: fs::DirEntry| -> u64 {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(tasks.map(on_cpu).sum())
    }

    /// The most memory that it and what it started ever had, in bytes (`VmHWM`, `proc_pid_status(5)`).
    pub(crate) fn peak_memory(&self) -> u64 {
        let own = self.child.id();
        let children = format!("/proc/{own}/task/{own}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let children = children.split_ascii_whitespace().map(str::to_owned);
        children.chain([own.to_string()]).map(|pid| peak_of(&pid)).sum()
    }

    /// Ends it by SIGHUP, as a window that is closed does, and waits until it is gone.
    pub(crate) fn end(mut self) {
        drop(self.terminal);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Somebody who watches, and throws away what they see. Dropping it ends it.
pub(crate) struct Viewer {
    child: Child,
    words: BufReader<ChildStderr>,
}

impl Viewer {
    pub(crate) fn of(scene: &Scene) -> Self {
        let mut command = Command::new(vconsole());
        command.args(["attach", "--read-only", "--lock-dir"]).arg(scene.locks.path());
        command.arg(&scene.console.path).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let words = BufReader::new(child.stderr.take().unwrap());
        Self { child, words }
    }

    /// Waits until it watches.
    pub(crate) fn watches(&mut self) {
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert!(self.words.read_line(&mut line).unwrap() > 0, "a viewer ended");
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn peak_of(pid: &str) -> u64 {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}
