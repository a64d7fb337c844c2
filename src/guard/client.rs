//! The session's side of the guard, a small process that outlives a SIGKILL of the session and
//! cleans up.
//!
//! The guard is forked before the session takes anything. An executed program would cost a megabyte
//! of memory and a sixth of the time of an attach.
//!
//! The session announces each step on a socket pair before the step, and waits for no answer: the
//! guard reads it even if the session is dead by then. A socket that closes without a goodbye means
//! that the session died. After the goodbye the session waits until the guard has closed the
//! console.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::console::{open::Console, target::Target};
use crate::guard::message::{GuardMessage, WatchKind};
use crate::guard::process;
use crate::jobs::JobInfo;
use crate::locks::journal::JournalOp;
use crate::process::Process;
use crate::terminal::{Modes, RawModeObserver};
use crate::{poll, seqpacket, sys};

pub(crate) const GUARD: &str = "vconsole-guard";

const GOODBYE_TIME: Duration = Duration::from_millis(500);

/// A session's guard. Messages to a guard that is gone, or never started, do nothing.
#[derive(Debug)]
pub(crate) struct Guard {
    running: RefCell<Option<Running>>,
    wanted: bool,
    was_up: Cell<bool>,
    /// This field and the next two are sent again to a new guard: the names of our sockets, and the one on which the guard answers.
    sockets: RefCell<(Vec<PathBuf>, Option<OwnedFd>)>,
    watches: RefCell<BTreeMap<WatchKind, OwnedFd>>,
    viewers: Cell<usize>,
    /// Whether the guard goes on alone, to pass the console to a viewer.
    goes_on: Cell<bool>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    pid: Pid,
    /// `None` on a kernel without pidfds.
    pidfd: Option<OwnedFd>,
}

/// Guards that said goodbye and may still run. They are reaped when the next one starts.
static LEAVING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

impl Guard {
    pub(crate) fn start() -> (Self, io::Result<()>) {
        match Running::start() {
            Ok(running) => (Self::new(Some(running), true), Ok(())),
            Err(error) => (Self::new(None, true), Err(error)),
        }
    }

    pub(crate) fn none() -> Self {
        Self::new(None, false)
    }

    fn new(running: Option<Running>, wanted: bool) -> Self {
        let was_up = Cell::new(running.is_some());
        let (running, sockets) = (RefCell::new(running), RefCell::default());
        let (watches, viewers, goes_on) = (RefCell::default(), Cell::new(0), Cell::new(false));
        Self { running, wanted, was_up, sockets, watches, viewers, goes_on }
    }

    /// The new guard knows our sockets and watches, and has to be told everything else again.
    pub(crate) fn restart(&self) -> io::Result<()> {
        self.lose();
        if !self.wanted {
            return Err(io::ErrorKind::Unsupported.into());
        }
        *self.running.borrow_mut() = Some(Running::start()?);
        let sockets = self.sockets.borrow();
        self.send(&GuardMessage::Sockets(sockets.0.clone()), None);
        if let Some(socket) = &sockets.1 {
            self.send(&GuardMessage::GuardSocket, Some(socket.as_fd()));
        }
        for (kind, watch) in &*self.watches.borrow() {
            self.send(&GuardMessage::Watch(*kind), Some(watch.as_fd()));
        }
        self.send(&GuardMessage::Viewers(self.viewers.get()), None);
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.borrow().is_some()
    }

    pub(crate) fn was_lost(&self) -> bool {
        self.was_up.get() && !self.is_up()
    }

    /// Becomes readable when the guard is gone.
    pub(crate) fn socket(&self) -> Option<OwnedFd> {
        self.running.borrow().as_ref().and_then(|running| running.socket.try_clone().ok())
    }

    pub(crate) fn tell(&self, op: JournalOp, directory: Option<BorrowedFd<'_>>) {
        self.send(&GuardMessage::Locks(op), directory);
    }

    pub(crate) fn tell_console(&self, console: &Console) {
        let (locked, name) = (console.is_locked(), console.to_string());
        self.send(&GuardMessage::Console { locked, name }, Some(console.as_fd()));
    }

    /// [`Guard::tell_console`] follows when the console is open again.
    pub(crate) fn tell_hanging_up(&self, target: &Target) {
        let message = GuardMessage::HangingUp(target.path().into(), target.device());
        self.send(&message, None);
    }

    /// Passes on a copy of the watch. Closing the last copy takes 10 ms to seconds (measured),
    /// since the kernel waits for an SRCU grace period: the guard has that time, and the user has
    /// not.
    pub(crate) fn tell_watch(&self, kind: WatchKind, watch: impl AsFd) {
        let copy = watch.as_fd().try_clone_to_owned().ok();
        self.watches.borrow_mut().extend(copy.map(|copy| (kind, copy)));
        self.send(&GuardMessage::Watch(kind), Some(watch.as_fd()));
    }

    pub(crate) fn tell_sockets(&self, paths: &[PathBuf]) {
        self.sockets.borrow_mut().0 = paths.to_vec();
        self.send(&GuardMessage::Sockets(paths.to_vec()), None);
    }

    pub(crate) fn tell_guard_socket(&self, listener: impl AsFd) {
        self.sockets.borrow_mut().1 = listener.as_fd().try_clone_to_owned().ok();
        self.send(&GuardMessage::GuardSocket, Some(listener.as_fd()));
    }

    pub(crate) fn tell_viewers(&self, count: usize) {
        if self.viewers.replace(count) != count {
            self.send(&GuardMessage::Viewers(count), None);
        }
    }

    /// Leaves the claim to the guard, which passes it to a viewer. Returns false if nobody watches,
    /// or there is no guard that runs.
    pub(crate) fn leave_to_viewers(&self) -> bool {
        // A guard that is stopped would keep the console, and pass it to nobody.
        let pid = self.running.borrow().as_ref().map(|running| running.pid.as_raw());
        let guard = pid.and_then(Process::shown);
        let goes_on = self.viewers.get() > 0 && guard.is_some_and(|guard| !guard.is_stopped());
        self.goes_on.set(goes_on);
        goes_on
    }

    /// From now on neither session nor guard releases anything until the newcomer at the other end
    /// of `socket` has everything or ends.
    pub(crate) fn tell_handing_over(&self, socket: impl AsFd) {
        self.send(&GuardMessage::HandingOver, Some(socket.as_fd()));
    }

    pub(crate) fn tell_handed_over(&self) {
        self.send(&GuardMessage::HandedOver, None);
    }

    pub(crate) fn tell_kept(&self) {
        self.send(&GuardMessage::Kept, None);
    }

    /// The console stays that of the session at the other end of `socket` until
    /// [`Guard::tell_received`].
    pub(crate) fn tell_receiving_from(&self, socket: impl AsFd) {
        self.send(&GuardMessage::ReceivingFrom, Some(socket.as_fd()));
    }

    pub(crate) fn tell_received(&self) {
        self.send(&GuardMessage::Received, None);
    }

    fn send(&self, message: &GuardMessage, descriptor: Option<BorrowedFd<'_>>) {
        let fails =
            |it: &Running| seqpacket::send(&it.socket, message, descriptor.as_slice()).is_err();
        let lost = self.running.borrow().as_ref().is_some_and(fails);
        if lost {
            self.lose();
        }
    }

    fn lose(&self) {
        if let Some(running) = self.running.borrow_mut().take() {
            running.end();
        }
    }
}

impl Drop for Guard {
    /// Waits until the guard has closed everything, but not until it exits.
    fn drop(&mut self) {
        if self.goes_on.get() {
            self.watches.get_mut().clear();
            // Without a goodbye it does what it does after our death.
            return;
        }
        // The guard closes the last copies of the watches.
        self.watches.get_mut().clear();
        self.send(&GuardMessage::Goodbye, None);
        let Some(running) = self.running.get_mut().take() else { return };
        if poll::wait_readable(&running.socket, Some(Instant::now() + GOODBYE_TIME)) {
            leaving().push(running.pid);
        } else {
            // The guard is stopped and would keep the console open.
            running.end();
        }
    }
}

impl RawModeObserver for Guard {
    fn will_be_raw(&self, terminal: BorrowedFd<'_>, before: &Modes) {
        self.send(&GuardMessage::Terminal(before.clone(), JobInfo::ours()), Some(terminal));
    }

    fn is_back(&self) {
        self.send(&GuardMessage::TerminalRestored, None);
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        leaving().retain(|&pid| {
            matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        });
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let pid = sys::copy(GUARD, theirs, process::run)?;
        let pidfd = rustix::process::Pid::from_raw(pid.as_raw())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { socket: ours, pid, pidfd })
    }

    /// The guard must not see the socket close while it lives: it would take us for dead. So the
    /// socket closes last, when `self` is dropped.
    fn end(self) {
        let _ = match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, Signal::KILL).map_err(io::Error::from),
            // A child keeps its pid until it is reaped, unless children are reaped automatically.
            None if sys::is_ignored(libc::SIGCHLD) => return,
            None => kill(self.pid, nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from),
        };
        let _ = waitpid(self.pid, None);
    }
}

fn leaving() -> MutexGuard<'static, Vec<Pid>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}
