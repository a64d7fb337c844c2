//! An open console.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fmt, io};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::termios::{
    Action, InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Winsize,
};

use crate::console::kind::Kind;
use crate::console::target::{Target, TargetError};
use crate::console::tty::{self, LineSettings};
use crate::device::Device;
use crate::{sys, terminal, test_point};

/// An open console. Reading and writing never block.
#[derive(Debug)]
pub(crate) struct Console {
    line: OwnedFd,
    pub(crate) kind: Kind,
    name: String,
    /// Whether its `flock` is ours.
    locked: Cell<bool>,
    /// Whether the exclusive flag on it is ours.
    exclusive: Cell<bool>,
    /// As last seen, to notice changes by other programs.
    settings: Cell<Option<LineSettings>>,
    said_raw_again: Cell<bool>,
    /// Whether flag and lock now belong to another process, which has the same open file.
    given_away: Cell<bool>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Another process set the exclusive flag (`TIOCEXCL`, `ioctl_tty(2)`).
    #[error("the exclusive flag is set")]
    Exclusive,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Console {
    /// Opens the console: never as our controlling terminal, never waiting for a carrier.
    pub(crate) fn open(target: &Target) -> Result<Self, OpenError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let line = rustix::fs::open(target.path(), flags, Mode::empty()).map_err(|errno| {
            let name = target.to_string();
            match errno {
                Errno::BUSY => OpenError::Exclusive,
                Errno::ACCESS | Errno::PERM => target.not_permitted().into(),
                // EIO: the other side of the PTY is closed. ENXIO, ENODEV: the port is unplugged.
                Errno::NOENT | Errno::IO | Errno::NXIO | Errno::NODEV => {
                    TargetError::Missing { name, source: errno.into() }.into()
                }
                _ => OpenError::Failed(errno.into()),
            }
        })?;
        Self::of_line(line, target)
    }

    /// A console that another session opened and handed over. Lock and flag come with it, and
    /// belong to that session until [`Console::keep`].
    pub(crate) fn received(line: OwnedFd, target: &Target) -> Result<Self, OpenError> {
        let console = Self::of_line(line, target)?;
        // The lock comes with the open file, unless that session had none.
        let _ = console.lock();
        console.give_away();
        Ok(console)
    }

    fn of_line(line: OwnedFd, target: &Target) -> Result<Self, OpenError> {
        let opened = Device::of_fd(&line).map_err(io::Error::from)?;
        if !opened.is_some_and(|opened| target.is_still(opened)) {
            return Err(TargetError::Replaced { name: target.to_string() }.into());
        }
        if !rustix::termios::isatty(&line) {
            let what = "a device that is no terminal line";
            return Err(TargetError::AnotherKind { name: target.to_string(), what }.into());
        }
        Ok(Self {
            line,
            kind: target.kind,
            name: target.to_string(),
            locked: Cell::new(false),
            exclusive: Cell::new(false),
            settings: Cell::new(None),
            said_raw_again: Cell::new(false),
            given_away: Cell::new(false),
        })
    }

    /// Leaves flag and lock to another process that has the same open file: here it is only closed.
    pub(crate) fn give_away(&self) {
        self.given_away.set(true);
    }

    pub(crate) fn keep(&self) {
        self.given_away.set(false);
    }

    /// Takes the `flock(2)` that picocom, tio and others take. It is ours until the descriptor is
    /// closed, also by `SIGKILL`. Returns false if another process has it.
    pub(crate) fn lock(&self) -> io::Result<bool> {
        let lock = || rustix::fs::flock(&self.line, FlockOperation::NonBlockingLockExclusive);
        match retry_on_intr(lock) {
            Ok(()) => self.locked.set(true),
            Err(Errno::WOULDBLOCK) => self.locked.set(false),
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.locked.get())
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.locked.get()
    }

    /// Whether the exclusive flag is set: not by us before [`Console::set_exclusive`].
    pub(crate) fn is_exclusive(&self) -> io::Result<bool> {
        sys::is_exclusive(&self.line)
    }

    /// Sets the exclusive flag (`TIOCEXCL`, `ioctl_tty(2)`): all others but root get EBUSY when
    /// they open the console. The flag belongs to the line: it stays until it is cleared, or until
    /// every process that has the line open closes it, the virtual machine too.
    pub(crate) fn set_exclusive(&self) -> io::Result<()> {
        rustix::termios::ioctl_tiocexcl(&self.line)?;
        self.exclusive.set(true);
        Ok(())
    }

    /// Whether we set the exclusive flag.
    pub(crate) fn has_own_flag(&self) -> bool {
        self.exclusive.get()
    }

    pub(crate) fn clear_exclusive(&self) {
        // Fails after a hang-up, which has cleared the flag.
        let _ = rustix::termios::ioctl_tiocnxcl(&self.line);
        self.exclusive.set(false);
    }

    /// Sets the line raw, so that every byte passes unchanged and nothing is echoed. It stays so
    /// when we leave: with echo a guest would get its own output as input.
    ///
    /// Pending bytes, speed, data bits, parity and hardware flow control stay. The line ignores the
    /// modem lines.
    pub(crate) fn set_raw(&self) -> io::Result<()> {
        tty::go_on(&self.line)?;
        self.settings.set(Some(tty::look(&self.line)?.0));
        Ok(())
    }

    /// Whether the other end is gone. A read of 0 bytes alone proves nothing: another program may
    /// have set `VMIN` to 0, or canonical mode.
    pub(crate) fn is_hung_up(&self) -> bool {
        terminal::is_hung_up(&self.line)
    }

    /// Makes the line raw again if another program has changed that. Leaves other changes, such as
    /// a new speed. Returns messages for the user.
    pub(crate) fn check_settings(&self) -> io::Result<Vec<String>> {
        let mut messages = Vec::new();
        let (now, is_raw) = tty::look(&self.line)?;
        if !is_raw {
            tty::make_raw(&self.line)?;
            if !self.said_raw_again.replace(true) {
                messages.push(format!(
                    "another program changed the settings of {self}: it is raw again"
                ));
            }
        }
        let before = self.settings.replace(Some(now));
        if let Some(change) = before.and_then(|before| before.changed_to(now)) {
            messages.push(format!("another program changed {change} on {self}"));
        }
        Ok(messages)
    }

    /// Hangs the line up for every process that has it open (`TIOCVHANGUP`, `ioctl_tty(2)`), and
    /// opens it again, raw. Fails without `CAP_SYS_ADMIN`, and then changes nothing. Unread output
    /// of the guest is lost, and the modem lines of a serial port fall.
    pub(crate) fn hang_up(&mut self, target: &Target) -> Result<(), OpenError> {
        // A hang-up turns echo on. While output is stopped no echo reaches the guest, even if it
        // prints until the line is raw again (measured: without this such a guest read up to 4 KiB
        // of its own output).
        let _ = rustix::termios::tcflow(&self.line, Action::OOff);
        test_point::reached("hanging-up");
        if let Err(error) = sys::hang_up(&self.line) {
            let _ = rustix::termios::tcflow(&self.line, Action::OOn);
            return Err(error.into());
        }
        test_point::reached("hung-up");
        let again = Self::open(target)?;
        again.exclusive.set(self.exclusive.get());
        // If that fails some echo reaches the guest, and nothing worse.
        let _ = again.forget_echoes();
        let raw = tty::make_raw(&again.line);
        // The input since the hang-up was collected as lines.
        let _ = rustix::termios::tcflush(&again.line, QueueSelector::IFlush);
        let _ = rustix::termios::tcflow(&again.line, Action::OOn);
        *self = again;
        Ok(raw?)
    }

    /// Drops the echoes that wait until output goes on, and the input read meanwhile. The kernel
    /// drops echoes only for a character that sends a signal (`isig` in the kernel's
    /// `drivers/tty/n_tty.c`; tcflush(3) does not). Here the signal reaches no process, unless one
    /// has just made the line its controlling terminal.
    fn forget_echoes(&self) -> io::Result<()> {
        const INTERRUPT: u8 = 3;
        let mut settings = rustix::termios::tcgetattr(&self.line)?;
        settings.make_raw();
        // Canonical mode has room for that character even if the guest has filled the rest, unless
        // a line is complete: without a character that ends lines none is.
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

    pub(crate) fn set_size(&self, size: Winsize) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(&self.line, size)?)
    }
}

impl Drop for Console {
    /// Gives the flag and the lock back. Closing would not: the flag belongs to the line, and the
    /// lock to every copy of the descriptor, such as the guard's.
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
    /// The name it was found by, safe to show.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}
