//! An open console.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{
    Action, InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Winsize,
};

use super::line;
use super::{Device, Kind, NotAConsole, Target};
use crate::{sys, test_point};

/// An open console: reading and writing never block on it.
#[derive(Debug)]
pub struct Console {
    line: OwnedFd,
    kind: Kind,
    name: String,
    /// Whether its `flock` is ours.
    locked: Cell<bool>,
    /// Whether the exclusive flag on it is ours.
    exclusive: Cell<bool>,
    /// Whether flag and lock are another's by now, who has the same open file.
    given_away: Cell<bool>,
}

/// Why a console that was found could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be attached to at all.
    #[error(transparent)]
    NotAConsole(#[from] NotAConsole),
    /// Somebody has the exclusive flag on it (`TIOCEXCL`, `ioctl_tty(2)`).
    #[error("the exclusive flag is set")]
    Exclusive,
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Console {
    /// Opens the console that was found: never as our controlling terminal, never waiting for a
    /// carrier.
    pub(crate) fn open(target: &Target) -> Result<Self, OpenError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let line = rustix::fs::open(target.path(), flags, Mode::empty()).map_err(|errno| {
            let name = target.to_string();
            match errno {
                Errno::BUSY => OpenError::Exclusive,
                Errno::ACCESS | Errno::PERM => target.not_permitted().into(),
                // EIO: the other side of the PTY is closed. ENXIO, ENODEV: the port is unplugged.
                Errno::NOENT | Errno::IO | Errno::NXIO | Errno::NODEV => {
                    NotAConsole::Missing { name, source: errno.into() }.into()
                }
                _ => OpenError::Failed(errno.into()),
            }
        })?;
        Self::of_line(line, target)
    }

    /// The console that was found, opened by another who passes it on: lock and flag come with it, and are
    /// theirs until [`Console::keep`].
    pub(crate) fn received(line: OwnedFd, target: &Target) -> Result<Self, OpenError> {
        let console = Self::of_line(line, target)?;
        // It is theirs and so ours, unless there was none.
        let _ = console.lock();
        console.give_away();
        Ok(console)
    }

    fn of_line(line: OwnedFd, target: &Target) -> Result<Self, OpenError> {
        let file = rustix::fs::fstat(&line).map_err(io::Error::from)?;
        let opened = Device { filesystem: file.st_dev, number: file.st_rdev };
        let changed = (file.st_ctime, i64::try_from(file.st_ctime_nsec).unwrap_or(0));
        if !target.is_still(opened, changed) {
            return Err(NotAConsole::Replaced { name: target.to_string() }.into());
        }
        if !rustix::termios::isatty(&line) {
            let what = "a device that is no terminal line";
            return Err(NotAConsole::AnotherKind { name: target.to_string(), what }.into());
        }
        Ok(Self {
            line,
            kind: target.kind,
            name: target.to_string(),
            locked: Cell::new(false),
            exclusive: Cell::new(false),
            given_away: Cell::new(false),
        })
    }

    /// Flag and lock are another's from now on, who has the same open file: here it is only closed.
    pub(crate) fn give_away(&self) {
        self.given_away.set(true);
    }

    /// Flag and lock are ours, and nobody else's who has the same open file.
    pub(crate) fn keep(&self) {
        self.given_away.set(false);
    }

    /// Takes the lock of picocom, tio and others (flock(2)) on the open console. It is ours until the
    /// descriptor is closed, also by `SIGKILL`.
    ///
    /// Gives false if another has it.
    pub(crate) fn lock(&self) -> io::Result<bool> {
        let lock = || rustix::fs::flock(&self.line, FlockOperation::NonBlockingLockExclusive);
        match retry_on_intr(lock) {
            Ok(()) => self.locked.set(true),
            Err(Errno::WOULDBLOCK) => self.locked.set(false),
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.locked.get())
    }

    /// Whether its `flock` is ours.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.get()
    }

    /// Whether the exclusive flag is set: by another, before [`Console::set_exclusive`]. Only root gets
    /// a console open that has it.
    pub(crate) fn is_exclusive(&self) -> io::Result<bool> {
        sys::is_exclusive(&self.line)
    }

    /// Sets the exclusive flag (`TIOCEXCL`, `ioctl_tty(2)`): whoever else opens the console gets EBUSY,
    /// but root. It belongs to the line, not to us: it stays until somebody clears it, or until all who
    /// have the line open close it, the virtual machine as well.
    pub(crate) fn set_exclusive(&self) -> io::Result<()> {
        rustix::termios::ioctl_tiocexcl(&self.line)?;
        self.exclusive.set(true);
        Ok(())
    }

    /// Whether the exclusive flag is set, and ours.
    #[must_use]
    pub fn has_own_flag(&self) -> bool {
        self.exclusive.get()
    }

    /// Clears the exclusive flag again.
    pub(crate) fn clear_exclusive(&self) {
        // A line that hung up has no flag any more, and says so.
        let _ = rustix::termios::ioctl_tiocnxcl(&self.line);
        self.exclusive.set(false);
    }

    /// Sets the line raw, so that every byte passes unchanged and nothing is echoed; what is pending
    /// in it stays. It is left so: to bring echo back would give a guest its own output as input.
    ///
    /// Speed, parity and flow control by wires of a serial port stay as they were set before, but that
    /// a byte has eight bits, and that the line ignores the modem's.
    pub fn set_raw(&self) -> io::Result<()> {
        line::go_on(&self.line)
    }

    /// Hangs the line up for everybody who has it open (`TIOCVHANGUP`, `ioctl_tty(2)`), and opens it
    /// again, raw. Needs `CAP_SYS_ADMIN`; without it nothing happens but the error.
    ///
    /// What nobody had read of the guest's output is gone, and the modem lines of a serial port fall.
    pub(crate) fn hang_up(&mut self, target: &Target) -> Result<(), OpenError> {
        // A hang-up makes the line cooked, with echo. While its output is stopped no echo goes to the
        // guest, whatever that prints until the line is raw again (measured: without this a guest that
        // printed all the while read back up to 4 KiB of it).
        let _ = rustix::termios::tcflow(&self.line, Action::OOff);
        test_point::reached("hanging-up");
        if let Err(error) = sys::hang_up(&self.line) {
            let _ = rustix::termios::tcflow(&self.line, Action::OOn);
            return Err(error.into());
        }
        test_point::reached("hung-up");
        let again = Self::open(target)?;
        again.exclusive.set(self.exclusive.get());
        // Where that fails some echo reaches the guest, and nothing worse.
        let _ = again.forget_echoes();
        let raw = line::make_raw(&again.line);
        // What came in between was taken for lines.
        let _ = rustix::termios::tcflush(&again.line, QueueSelector::IFlush);
        let _ = rustix::termios::tcflow(&again.line, Action::OOn);
        *self = again;
        Ok(raw?)
    }

    /// Drops the echoes that wait for the line's output to go on, and what it has read meanwhile. The
    /// only thing that the kernel drops echoes for is a character that sends a signal (`isig` in the
    /// kernel's `drivers/tty/n_tty.c`; tcflush(3) does not): here to nobody, unless somebody has
    /// made the line their controlling terminal within this very instant.
    fn forget_echoes(&self) -> io::Result<()> {
        const INTERRUPT: u8 = 3;
        let mut settings = rustix::termios::tcgetattr(&self.line)?;
        settings.make_raw();
        // In canonical mode there is room for that character even when the guest has filled the rest,
        // unless a line is complete: here none is, without a character that ends it.
        settings.local_modes |= LocalModes::ISIG | LocalModes::ICANON;
        settings.input_modes |= InputModes::INLCR;
        for code in [SpecialCodeIndex::VEOF, SpecialCodeIndex::VEOL, SpecialCodeIndex::VEOL2] {
            settings.special_codes[code] = 0;
        }
        settings.special_codes[SpecialCodeIndex::VINTR] = INTERRUPT;
        rustix::termios::tcsetattr(&self.line, OptionalActions::Now, &settings)?;
        rustix::termios::tcflush(&self.line, QueueSelector::IFlush)?;
        sys::put_into_input(&self.line, INTERRUPT)
    }

    /// What kind of line it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Passes the size of the user's window on to the other end.
    pub fn set_size(&self, size: Winsize) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(&self.line, size)?)
    }
}

impl Drop for Console {
    /// Gives the flag and the lock back. Closing alone would not: the flag is the line's, and the lock
    /// goes with every copy of the descriptor, such as the guard's.
    fn drop(&mut self) {
        if self.given_away.get() {
            return;
        }
        if self.exclusive.get() {
            self.clear_exclusive();
        }
        let _ = retry_on_intr(|| rustix::fs::flock(&self.line, FlockOperation::Unlock));
    }
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl fmt::Display for Console {
    /// The name it was found by, safe to show on a terminal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}
