//! What a guard knows of its session, and what it puts right.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use rustix::termios::ioctl_tiocnxcl;

use super::Message;
use crate::claim::ledger::Ledger;
use crate::console::{Device, line};
use crate::process::Jobs;
use crate::terminal::{self, Modes};

/// What a guard knows, and what it puts right.
#[derive(Debug)]
pub(crate) struct Charge {
    ledger: Ledger,
    terminal: Option<(OwnedFd, Modes, Jobs)>,
    console: Option<OwnedFd>,
    /// What it was called, safe to show.
    name: String,
    /// Whether the console's `flock` is the session's.
    locked: bool,
    /// Where the console is to be opened again, if it was hung up.
    hanging_up: Option<(OsString, Device)>,
    watch: Option<OwnedFd>,
    sockets: Vec<PathBuf>,
    /// The line to the session whose console is coming, and still its own.
    giver: Option<OwnedFd>,
    heir: Heir,
}

/// Who gets the console after the session.
#[derive(Debug)]
pub(crate) enum Heir {
    /// Nobody: it is given back.
    Nobody,
    /// Who is at the other end of this line, unless it ends before it has everything.
    Expected(OwnedFd),
    /// Somebody who has everything.
    InPossession,
}

impl Charge {
    /// That of a guard that knows nothing yet, of the session with the process number `session`.
    pub(crate) fn of(session: i32) -> Self {
        Self {
            ledger: Ledger::of(session),
            terminal: None,
            console: None,
            name: String::new(),
            locked: false,
            hanging_up: None,
            watch: None,
            sockets: Vec::new(),
            giver: None,
            heir: Heir::Nobody,
        }
    }

    /// Notes what the session says. Gives the socket at which the guard is to answer, if it is told.
    pub(crate) fn note(
        &mut self,
        message: Message,
        descriptor: Option<OwnedFd>,
    ) -> Option<OwnedFd> {
        match message {
            Message::Locks(deed) => self.ledger.note(deed, descriptor),
            Message::Terminal(before, jobs) => {
                self.terminal = descriptor.map(|terminal| (terminal, before, jobs));
            }
            Message::TerminalIsBack => self.terminal = None,
            Message::Console { locked, name } => {
                self.name = name;
                (self.console, self.locked, self.hanging_up) = (descriptor, locked, None);
            }
            Message::HangingUp(path, device) => self.hanging_up = Some((path, device)),
            Message::Watch => self.watch = descriptor,
            Message::HandingOver => self.heir = descriptor.map_or(Heir::Nobody, Heir::Expected),
            Message::HandedOver => self.heir = Heir::InPossession,
            Message::Kept => self.heir = Heir::Nobody,
            Message::ReceivingFrom => self.giver = descriptor,
            Message::Received => self.giver = None,
            Message::Sockets(paths) => self.sockets = paths,
            Message::SideDoor => return descriptor,
            Message::Goodbye => {}
        }
        None
    }

    /// The console, if there is one to give away.
    pub(crate) fn console(&self) -> Option<BorrowedFd<'_>> {
        let console = self.console.as_ref().filter(|_| self.giver.is_none());
        console.filter(|console| self.is_still_held(console)).map(OwnedFd::as_fd)
    }

    /// Whether the session did not give the console back, or nobody has come since. If it had `flock`, so
    /// have we, by the same open file.
    fn is_still_held(&self, console: &OwnedFd) -> bool {
        let lock = || flock(console, FlockOperation::NonBlockingLockExclusive);
        !self.locked || retry_on_intr(lock).is_ok()
    }

    /// What the console was called, for the audit trail.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the session gave the console away before it died: there is nothing left to give.
    pub(crate) fn is_inherited(&mut self, verdicts: Verdicts) -> bool {
        let inherited = match std::mem::replace(&mut self.heir, Heir::Nobody) {
            Heir::Nobody => false,
            Heir::InPossession => true,
            Heir::Expected(line) => (verdicts.heir_has_it)(line),
        };
        if inherited {
            self.heir = Heir::InPossession;
        }
        inherited
    }

    /// The console was given to who is at the other end of `line`.
    pub(crate) fn expect(&mut self, line: OwnedFd) {
        self.heir = Heir::Expected(line);
    }

    /// Gives the terminal of the dead session back: its user is already typing. Gives it out as well, for
    /// who has to say something there, unless another job shows something there by now.
    pub(crate) fn restore_terminal(&mut self) -> Option<OwnedFd> {
        let (terminal, before, jobs) = self.terminal.take()?;
        if jobs.gave_way() {
            return None;
        }
        // A terminal that is gone needs nothing.
        let _ = terminal::put_back_if_raw(&terminal, &before);
        Some(terminal)
    }

    /// What is left of the claim is given back, unless it is another's: an heir's, who has it all, or that
    /// of who was giving it to us.
    fn put_right(&mut self, verdicts: Verdicts) {
        let never_ours = self.giver.take().is_some_and(verdicts.giver_kept_it);
        let anothers = never_ours || self.is_inherited(verdicts);
        if !anothers {
            self.end_hang_up();
            self.clear_flag();
        }
        self.ledger.undo_for_the_dead();
        for path in std::mem::take(&mut self.sockets) {
            let _ = fs::remove_file(path);
        }
    }

    /// Brings a hang-up to its end that the session began. Our own descriptor may be good for nothing by
    /// now, and others may have the line stopped, and cooked.
    fn end_hang_up(&mut self) {
        let Some((path, device)) = self.hanging_up.take() else { return };
        // Closed first: it may still have flock.
        let before = self.console.take();
        let revoked = before.as_ref().is_none_or(line::is_revoked);
        self.console =
            before.filter(|_| !revoked).or_else(|| line::reopen(Path::new(&path), device).ok());
        if let Some(console) = &self.console {
            let _ = line::go_on(console);
        }
    }

    /// Clears the exclusive flag, unless it is another's by now.
    fn clear_flag(&self) {
        let Some(console) = &self.console else { return };
        if self.is_still_held(console) {
            let _ = ioctl_tiocnxcl(console);
            let _ = retry_on_intr(|| flock(console, FlockOperation::Unlock));
        }
    }

    /// Sees to what is left, and closes everything: first what the session waits for, with `wire` the
    /// line to it, and last what takes its time.
    pub(crate) fn close(mut self, wire: OwnedFd, see: See, verdicts: Verdicts) {
        match see {
            See::ToEverything => self.put_right(verdicts),
            See::ToTheHeir if matches!(self.heir, Heir::Expected(_)) => {
                drop(wire);
                return self.put_right(verdicts);
            }
            See::ToTheHeir => {}
        }
        let Self { watch, ledger, terminal, console, .. } = self;
        drop((ledger, terminal, console));
        drop(wire);
        drop(watch);
    }
}

/// How it is learnt whose a console is that was between two when a session died. Both wait until the other
/// side, which is at the other end of the line, has said so, or has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdicts {
    /// Whether who was to get it has everything.
    pub(crate) heir_has_it: fn(OwnedFd) -> bool,
    /// Whether who was giving it has kept it.
    pub(crate) giver_kept_it: fn(OwnedFd) -> bool,
}

/// What a guard has to see to at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum See {
    /// The session is dead: to all that it did.
    ToEverything,
    /// The session has given back what was its own: to a claim that is between two.
    ToTheHeir,
}
