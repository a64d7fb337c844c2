//! The guard's knowledge of its session, and how it cleans up after it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use rustix::termios::ioctl_tiocnxcl;

use crate::console::tty;
use crate::device::Device;
use crate::guard::message::{GuardMessage, WatchKind};
use crate::jobs::JobInfo;
use crate::locks::journal::LockJournal;
use crate::session::handoff::{self, ACCEPT_TIME, Outcome};
use crate::terminal::{self, Modes};

#[derive(Default)]
pub(super) struct GuardState {
    journal: LockJournal,
    terminal: Option<(OwnedFd, Modes, JobInfo)>,
    console: Option<OwnedFd>,
    /// Safe to show.
    pub(super) name: String,
    locked: bool,
    hanging_up: Option<(OsString, Device)>,
    watches: BTreeMap<WatchKind, OwnedFd>,
    sockets: Vec<PathBuf>,
    pub(super) viewers: usize,
    /// The socket to the session that is handing its console over to ours.
    receiving_from: Option<OwnedFd>,
    handoff: HandoffState,
}

#[derive(Default)]
enum HandoffState {
    #[default]
    None,
    /// To the newcomer at the other end of this socket, unless it ends before it has everything.
    Offered(OwnedFd),
    Done,
}

impl GuardState {
    pub(super) fn of(session: i32) -> Self {
        Self { journal: LockJournal::of(session), ..Self::default() }
    }

    /// Returns the socket on which the guard is to answer, if it came.
    pub(super) fn record(
        &mut self,
        message: GuardMessage,
        descriptor: Option<OwnedFd>,
    ) -> Option<OwnedFd> {
        match message {
            GuardMessage::Locks(op) => self.journal.note(op, descriptor),
            GuardMessage::Terminal(before, jobs) => {
                self.terminal = descriptor.map(|terminal| (terminal, before, jobs));
            }
            GuardMessage::TerminalRestored => self.terminal = None,
            GuardMessage::Console { locked, name } => {
                self.name = name;
                (self.console, self.locked, self.hanging_up) = (descriptor, locked, None);
            }
            GuardMessage::HangingUp(path, device) => self.hanging_up = Some((path, device)),
            GuardMessage::Watch(kind) => self.watches.extend(descriptor.map(|it| (kind, it))),
            GuardMessage::HandingOver => {
                self.handoff = descriptor.map_or(HandoffState::None, HandoffState::Offered);
            }
            GuardMessage::HandedOver => self.handoff = HandoffState::Done,
            GuardMessage::Kept => self.handoff = HandoffState::None,
            GuardMessage::ReceivingFrom => self.receiving_from = descriptor,
            GuardMessage::Received => self.receiving_from = None,
            GuardMessage::Sockets(paths) => self.sockets = paths,
            GuardMessage::Viewers(count) => self.viewers = count,
            GuardMessage::GuardSocket => return descriptor,
            GuardMessage::Goodbye => {}
        }
        None
    }

    pub(super) fn console(&self) -> Option<BorrowedFd<'_>> {
        let console = self.console.as_ref().filter(|_| self.receiving_from.is_none());
        console.filter(|console| self.is_still_held(console)).map(OwnedFd::as_fd)
    }

    /// Whether the session did not release the console, or nobody took it since. The guard shares
    /// the session's flock by the same open file description.
    fn is_still_held(&self, console: &OwnedFd) -> bool {
        let lock = || flock(console, FlockOperation::NonBlockingLockExclusive);
        !self.locked || retry_on_intr(lock).is_ok()
    }

    /// Waits until an offer is settled.
    pub(super) fn is_handed_over(&mut self) -> bool {
        if let HandoffState::Offered(newcomer) = &self.handoff {
            let taken = handoff::outcome(newcomer, Instant::now() + ACCEPT_TIME) == Outcome::Taken;
            self.handoff = if taken { HandoffState::Done } else { HandoffState::None };
        }
        matches!(self.handoff, HandoffState::Done)
    }

    /// The console is another session's: it alone decides when it is closed.
    pub(super) fn close_console(&mut self) {
        self.console = None;
    }

    pub(super) fn offer_to(&mut self, newcomer: OwnedFd) {
        self.handoff = HandoffState::Offered(newcomer);
    }

    /// Returns the terminal for a message, unless another job uses it by now.
    pub(super) fn restore_terminal(&mut self) -> Option<OwnedFd> {
        let (terminal, before, jobs) = self.terminal.take()?;
        if jobs.gave_way() {
            return None;
        }
        // A terminal that is gone needs nothing.
        let _ = terminal::put_back_if_raw(&terminal, &before);
        Some(terminal)
    }

    /// Releases the rest of the claim, unless the claim is another session's.
    fn clean_up(&mut self) {
        let never_ours =
            self.receiving_from.take().is_some_and(|from| !handoff::is_left_to_us(from, None));
        if !never_ours && !self.is_handed_over() {
            self.finish_hang_up();
            self.clear_flag();
        }
        self.journal.undo_for_killed();
        for path in std::mem::take(&mut self.sockets) {
            let _ = fs::remove_file(path);
        }
    }

    /// Our own descriptor may be revoked, and the line stopped and cooked.
    fn finish_hang_up(&mut self) {
        let Some((path, device)) = self.hanging_up.take() else { return };
        // Closed first: the old descriptor may still have flock.
        let before = self.console.take();
        let revoked = before.as_ref().is_none_or(tty::is_revoked);
        self.console =
            before.filter(|_| !revoked).or_else(|| tty::reopen(Path::new(&path), device).ok());
        if let Some(console) = &self.console {
            let _ = tty::go_on(console);
        }
    }

    /// Another process may have the console by now, and the flag with it.
    fn clear_flag(&self) {
        let Some(console) = &self.console else { return };
        if self.is_still_held(console) {
            let _ = ioctl_tiocnxcl(console);
            let _ = retry_on_intr(|| flock(console, FlockOperation::Unlock));
        }
    }

    /// The session died: everything is cleaned up.
    pub(super) fn close_after_death(mut self, socket: OwnedFd) {
        self.clean_up();
        self.close(socket);
    }

    /// Cleans up only a claim that is on its way to a newcomer: the session released the rest.
    pub(super) fn close_after_goodbye(mut self, socket: OwnedFd) {
        if matches!(self.handoff, HandoffState::Offered(_)) {
            drop(socket);
            self.clean_up();
        } else {
            self.close(socket);
        }
    }

    /// Closes what the session waits for first, and the watches last, which takes time.
    fn close(self, socket: OwnedFd) {
        let Self { watches, journal, terminal, console, .. } = self;
        drop((journal, terminal, console));
        drop(socket);
        drop(watches);
    }
}
