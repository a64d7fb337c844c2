//! The guard: a tiny process that outlives a SIGKILL of its session, and puts things right.
//!
//! It is a copy of the session, made before the session has anything. A program started anew would load
//! itself and its libraries once more, for a megabyte of memory and a sixth of the time that an attach
//! takes.
//!
//! The session tells it everything before it does it, through a socket pair, and waits for no answer:
//! what was written is in the kernel, and the guard reads it even if the session is dead by then. The
//! socket closing without a goodbye means that it is. Only at the goodbye the session waits, until the
//! guard has let go of the console.

mod charge;

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
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
use serde::{Deserialize, Serialize};

use super::ledger::Deed;
use crate::console::{Console, Device, Target};
use crate::process::Jobs;
use crate::terminal::{Modes, Witness};
use crate::{sys, wire};

pub(crate) use charge::{Charge, See, Verdicts};

/// What a guard is called, where the session is `vconsole`.
pub const GUARD: &str = "vconsole-guard";

/// What a guard does for the session with that process number, which is at the other end of the wire.
pub type Duty = fn(session: i32, wire: OwnedFd);

/// How long a guard may take to let go.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the session tells its guard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Something is about to be done in a lock directory. Its descriptor comes along with `Use`.
    Locks(Deed),
    /// The terminal that comes along is about to become raw, and had these settings before.
    Terminal(Modes, Jobs),
    /// The terminal is back as it was.
    TerminalIsBack,
    /// The console that comes along is about to get the exclusive flag.
    Console {
        /// Whether its `flock` is the session's.
        locked: bool,
        /// What it was called, safe to show.
        name: String,
    },
    /// The console is about to be hung up, with all descriptors of it, and opened again at this path.
    HangingUp(OsString, Device),
    /// The watch on the console that comes along is to be closed by the guard, last of all.
    Watch,
    /// These are the session's sockets, or are about to be.
    Sockets(Vec<PathBuf>),
    /// At the socket that comes along the guard is to answer when the session does not.
    SideDoor,
    /// The console is about to be given to the process at the other end of the line that comes along.
    HandingOver,
    /// That process has everything: what is left of the claim here is only to be closed.
    HandedOver,
    /// That process did not take it: it is the session's as before.
    Kept,
    /// A console is coming from the session at the other end of the line that comes along. Until it is
    /// ours it is that session's, and here it is only to be closed.
    ReceivingFrom,
    /// It is ours.
    Received,
    /// The session has given everything back.
    Goodbye,
}

/// A session's guard. Where none could be started, or it is gone, telling it something does nothing.
#[derive(Debug)]
pub struct Guard {
    running: RefCell<Option<Running>>,
    /// What it does. Nothing: none is to be started.
    duty: Option<Duty>,
    /// Whether one was started.
    was_up: Cell<bool>,
}

#[derive(Debug)]
struct Running {
    wire: OwnedFd,
    process: Child,
}

/// A guard's process, a child of ours.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// What means it whatever becomes of its number. Nothing where the kernel has no such descriptors.
    pidfd: Option<OwnedFd>,
}

/// The guards that have let go and may not have ended yet: somebody has to hear of their end, and nobody
/// has the time to wait for it.
static LEAVING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

impl Guard {
    /// Starts a guard that does `duty`, and says whether that worked.
    pub fn start(duty: Duty) -> (Self, io::Result<()>) {
        match Running::start(duty) {
            Ok(running) => (Self::new(Some(running), Some(duty)), Ok(())),
            Err(error) => (Self::new(None, Some(duty)), Err(error)),
        }
    }

    /// No guard: for who only looks.
    #[must_use]
    pub fn none() -> Self {
        Self::new(None, None)
    }

    fn new(running: Option<Running>, duty: Option<Duty>) -> Self {
        Self { was_up: Cell::new(running.is_some()), running: RefCell::new(running), duty }
    }

    /// Starts another one, that has to be told everything again.
    pub fn restart(&self) -> io::Result<()> {
        self.lose();
        let duty = self.duty.ok_or(io::ErrorKind::Unsupported)?;
        *self.running.borrow_mut() = Some(Running::start(duty)?);
        Ok(())
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.running.borrow().is_some()
    }

    /// Whether there was one, and it is gone.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.was_up.get() && !self.is_up()
    }

    /// What becomes readable when the guard is gone.
    pub fn wire(&self) -> Option<OwnedFd> {
        self.running.borrow().as_ref().and_then(|running| running.wire.try_clone().ok())
    }

    /// Says what is about to be done in a lock directory.
    pub(super) fn tell(&self, deed: Deed, directory: Option<BorrowedFd<'_>>) {
        self.send(&Message::Locks(deed), directory);
    }

    /// Says that the console is about to get the exclusive flag.
    pub(super) fn tell_console(&self, console: &Console) {
        let (locked, name) = (console.is_locked(), console.to_string());
        self.send(&Message::Console { locked, name }, Some(console.as_fd()));
    }

    /// Says that the console is about to be hung up, until [`Guard::tell_console`] says that it is open
    /// again.
    pub(super) fn tell_hanging_up(&self, target: &Target) {
        let message = Message::HangingUp(target.path().into(), target.device());
        self.send(&message, None);
    }

    /// Hands over a copy of the watch on the console. Closing the last one can take long: the kernel
    /// waits until nobody can be looking at it any more (10 ms, seconds on a loaded machine; measured).
    /// A guard that has let go of all else has the time, and the user has not.
    pub(super) fn tell_watch(&self, watch: impl AsFd) {
        self.send(&Message::Watch, Some(watch.as_fd()));
    }

    /// Says where the session's sockets are, or are about to be.
    pub fn tell_sockets(&self, paths: &[PathBuf]) {
        self.send(&Message::Sockets(paths.to_vec()), None);
    }

    /// Hands over the socket at which the guard answers.
    pub fn tell_side_door(&self, listener: impl AsFd) {
        self.send(&Message::SideDoor, Some(listener.as_fd()));
    }

    /// Says that the console is about to be given to who is at the other end of `line`. From then on
    /// the session and its guard give nothing back until it says that it has everything, or ends.
    pub fn tell_handing_over(&self, line: impl AsFd) {
        self.send(&Message::HandingOver, Some(line.as_fd()));
    }

    /// Says that another has everything.
    pub fn tell_handed_over(&self) {
        self.send(&Message::HandedOver, None);
    }

    /// Says that the other did not take it.
    pub fn tell_kept(&self) {
        self.send(&Message::Kept, None);
    }

    /// Says that a console is coming from who is at the other end of `line`, and is theirs until we say
    /// that it is ours.
    pub fn tell_receiving_from(&self, line: impl AsFd) {
        self.send(&Message::ReceivingFrom, Some(line.as_fd()));
    }

    /// Says that the console that came is ours.
    pub(super) fn tell_received(&self) {
        self.send(&Message::Received, None);
    }

    /// Says goodbye: everything has been given back. Waits until the guard has let go of everything,
    /// but not until it has ended.
    fn goodbye(&self) {
        self.send(&Message::Goodbye, None);
        let Some(running) = self.running.borrow_mut().take() else { return };
        if !wire::wait(&running.wire, Some(Instant::now() + FAREWELL)) {
            // It is stopped, or worse: it would keep the console open. There is nothing left to guard.
            *self.running.borrow_mut() = Some(running);
            return self.lose();
        }
        leaving().push(running.process.pid);
    }

    fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) {
        let sent = self
            .running
            .borrow()
            .as_ref()
            .map(|running| wire::send(&running.wire, message, descriptor.as_slice()));
        if let Some(Err(_)) = sent {
            self.lose();
        }
    }

    /// A guard that does not listen is none.
    fn lose(&self) {
        // While it lives it is not to see the end of its wire, and take us for dead.
        let Some(Running { wire, process }) = self.running.borrow_mut().take() else { return };
        process.end();
        drop(wire);
    }
}

impl Drop for Guard {
    /// By now everything has been given back, or nothing was ever taken.
    fn drop(&mut self) {
        self.goodbye();
    }
}

impl Witness for Guard {
    fn will_be_raw(&self, terminal: BorrowedFd<'_>, before: &Modes) {
        self.send(&Message::Terminal(before.clone(), Jobs::ours()), Some(terminal));
    }

    fn is_back(&self) {
        self.send(&Message::TerminalIsBack, None);
    }
}

impl Running {
    fn start(duty: Duty) -> io::Result<Self> {
        leaving().retain(|&pid| {
            matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        });
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = Child::start(theirs, duty)?;
        Ok(Self { wire: ours, process })
    }
}

impl Child {
    fn start(wire: OwnedFd, duty: Duty) -> io::Result<Self> {
        let pid = sys::copy(GUARD, wire, duty)?;
        let pidfd = rustix::process::Pid::from_raw(pid.as_raw())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { pid, pidfd })
    }

    /// Ends it, and waits for that.
    fn end(self) {
        let _ = match self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, Signal::KILL).map_err(io::Error::from),
            // A child's number stays its own until somebody has waited for it, but where nobody wants to.
            None if sys::is_ignored(libc::SIGCHLD) => return,
            None => kill(self.pid, nix::sys::signal::Signal::SIGKILL).map_err(io::Error::from),
        };
        let _ = waitpid(self.pid, None);
    }
}

fn leaving() -> MutexGuard<'static, Vec<Pid>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}
