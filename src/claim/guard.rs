//! The guard: a tiny process that outlives a SIGKILL of its session, and puts things right.
//!
//! The session tells it everything before it does it, through a socket pair, and waits for no answer:
//! what was written is in the kernel, and the guard reads it even if the session is dead by then. The
//! socket closing without a goodbye means that it is. Only at the goodbye the session waits, until the
//! guard has let go of the console.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::{Pid, getpgrp, getsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::termios::{ioctl_tiocnxcl, isatty};
use serde::{Deserialize, Serialize};

use super::ledger::{Deed, Ledger};
use crate::process::{Process, foreground_of, groups_above_us};
use crate::terminal::{self, Modes, Witness};

/// The name by which the program knows, when it is started, that it is to be a guard.
pub const GUARD: &str = "vconsole-guard";

/// How long a guard may take to let go.
const FAREWELL: Duration = Duration::from_millis(500);

/// The most that a message can be: a name has at most 255 bytes, and there are at most two in one.
const LONGEST_MESSAGE: usize = 8192;

/// What the session tells its guard.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Something is about to be done in a lock directory. Its descriptor comes along with `Use`.
    Locks(Deed),
    /// The terminal that comes along is about to become raw, and had these settings before.
    Terminal(Modes, Jobs),
    /// The terminal is back as it was.
    TerminalIsBack,
    /// The console that comes along is about to get the exclusive flag.
    Console,
    /// The watch on the console that comes along is to be closed by the guard, last of all.
    Watch,
    /// The session has given everything back.
    Goodbye,
}

/// A session's guard. Where none could be started, or it is gone, telling it something does nothing.
#[derive(Debug)]
pub struct Guard {
    running: RefCell<Option<Running>>,
    /// Whether one was started.
    was_up: Cell<bool>,
}

#[derive(Debug)]
struct Running {
    wire: OwnedFd,
    child: Child,
}

impl Guard {
    /// Starts a guard, and says whether that worked.
    pub fn start() -> (Self, io::Result<()>) {
        match Running::start() {
            Ok(running) => (Self::new(Some(running)), Ok(())),
            Err(error) => (Self::new(None), Err(error)),
        }
    }

    /// No guard: for who only looks.
    #[must_use]
    pub fn none() -> Self {
        Self::new(None)
    }

    fn new(running: Option<Running>) -> Self {
        Self { was_up: Cell::new(running.is_some()), running: RefCell::new(running) }
    }

    /// Starts another one, that has to be told everything again.
    pub fn restart(&self) -> io::Result<()> {
        self.lose();
        *self.running.borrow_mut() = Some(Running::start()?);
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
    pub(super) fn tell_console(&self, console: impl AsFd) {
        self.send(&Message::Console, Some(console.as_fd()));
    }

    /// Hands over a copy of the watch on the console. Closing the last one can take long: the kernel
    /// waits until nobody can be looking at it any more (10 ms, seconds on a loaded machine; measured).
    /// A guard that has let go of all else has the time, and the user has not.
    pub(super) fn tell_watch(&self, watch: impl AsFd) {
        self.send(&Message::Watch, Some(watch.as_fd()));
    }

    /// Says goodbye: everything has been given back. Waits until the guard has let go of everything,
    /// but not until it has ended.
    fn goodbye(&self) {
        self.send(&Message::Goodbye, None);
        let Some(running) = self.running.borrow_mut().take() else { return };
        let patience = Timespec::try_from(FAREWELL).ok();
        let mut wire = [PollFd::new(&running.wire, PollFlags::IN)];
        if !matches!(retry_on_intr(|| poll(&mut wire, patience.as_ref())), Ok(1..)) {
            // It is stopped, or worse: it would keep the console open. There is nothing left to guard.
            *self.running.borrow_mut() = Some(running);
            self.lose();
        }
    }

    fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) {
        let sent = self.running.borrow().as_ref().map(|running| running.send(message, descriptor));
        if let Some(Err(_)) = sent {
            self.lose();
        }
    }

    /// A guard that does not listen is none.
    fn lose(&self) {
        if let Some(mut running) = self.running.borrow_mut().take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
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
    fn start() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // The file that we run, even if it has been replaced or removed since.
        let child = Command::new("/proc/self/exe")
            .arg0(GUARD)
            .arg(Process::own_pid().to_string())
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { wire: ours, child })
    }

    fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        // Never waiting: one who does not read is stopped or worse, and the buffer holds hundreds.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        retry_on_intr(|| sendmsg(&self.wire, &[IoSlice::new(&text)], &mut ancillary, flags))?;
        Ok(())
    }
}

/// The session's place among the jobs on its terminal.
#[derive(Debug, Serialize, Deserialize)]
struct Jobs {
    /// Its process group, and those of the shells that it was started from.
    groups: Vec<i32>,
    /// The leader of its session in the sense of `setsid(2)`.
    leader: i32,
}

impl Jobs {
    fn ours() -> Self {
        let mut groups = groups_above_us();
        groups.push(getpgrp().as_raw());
        // 0 where it is in no namespace of ours, or we are of the machine's first session. (rustix has
        // no value for that, and panics.)
        let leader = getsid(None).map_or(0, Pid::as_raw);
        Self { groups, leader }
    }

    /// Whether another job is in the foreground of the terminal by now, such as another vconsole, whose
    /// raw settings are the same as ours: then they are not ours to undo.
    fn gave_way(&self) -> bool {
        let Some(front) = foreground_of(self.leader) else { return false };
        let front_lives = || kill(Pid::from_raw(-front), None) != Err(nix::errno::Errno::ESRCH);
        front > 0 && !self.groups.contains(&front) && front_lives()
    }
}

/// What a guard knows, and what it puts right.
#[derive(Debug)]
struct Charge {
    ledger: Ledger,
    terminal: Option<(OwnedFd, Modes, Jobs)>,
    console: Option<OwnedFd>,
    watch: Option<OwnedFd>,
}

/// Guards the session with the process number `session`, which is at the other end of `wire`, until it
/// says goodbye or dies.
pub fn stand_guard(session: i32, wire: OwnedFd) {
    let ledger = Ledger::of(session);
    let mut charge = Charge { ledger, terminal: None, console: None, watch: None };
    loop {
        match receive(&wire) {
            Ok(Some((message, descriptor))) => match message {
                Message::Goodbye => break,
                Message::Locks(deed) => charge.ledger.note(deed, descriptor),
                Message::Terminal(before, jobs) => {
                    charge.terminal = descriptor.map(|terminal| (terminal, before, jobs));
                }
                Message::TerminalIsBack => charge.terminal = None,
                Message::Console => charge.console = descriptor,
                Message::Watch => charge.watch = descriptor,
            },
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => {
                charge.put_right();
                break;
            }
        }
    }
    // What the session waits for goes first, and what takes its time last.
    let Charge { watch, ledger, terminal, console } = charge;
    drop((ledger, terminal, console));
    drop(wire);
    drop(watch);
}

impl Charge {
    /// The session is dead. The terminal comes first: its user is already typing.
    fn put_right(&mut self) {
        if let Some((terminal, before, jobs)) = &self.terminal
            && !jobs.gave_way()
        {
            // A terminal that is gone needs nothing.
            let _ = terminal::put_back_if_raw(terminal, before);
        }
        // If the session had its flock, so have we, by the same open file; if another has it now, the
        // flag is theirs.
        if let Some(console) = &self.console
            && flock(console, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = ioctl_tiocnxcl(console);
        }
        self.ledger.undo_for_the_dead();
    }
}

/// Receives a message. Nothing: the session is at its end.
fn receive(wire: impl AsFd) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
    let mut text = [0; LONGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(wire, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let message = serde_json::from_slice(&text[..got.bytes]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, descriptor)))
}

/// Whether a descriptor can be a session's end of the wire.
#[must_use]
pub fn is_wire(descriptor: impl AsFd) -> bool {
    !isatty(&descriptor)
        && rustix::net::sockopt::socket_type(descriptor) == Ok(SocketType::SEQPACKET)
}
