//! The masters of the two PTY pairs.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Gid, Mode, OFlags, fchmod, fchown, fcntl_setfl, fstat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::lender::Lender;
use crate::console::Device;

/// Without CLOEXEC the command would get the masters, and nothing would ever hang up.
const OPEN: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);

/// The terminal that the command lives on.
pub(super) struct CommandLine {
    master: OwnedFd,
    /// Kept open, so that the line never hangs up before host does: the command may close its
    /// descriptors and live on, or end and leave others there.
    slave: OwnedFd,
}

impl CommandLine {
    /// Opens a pair as the kernel makes it: cooked, with echo.
    pub(super) fn open() -> io::Result<Self> {
        let (master, slave) = open_pair()?;
        Ok(Self { master, slave })
    }

    /// The slave once more, for the command.
    pub(super) fn slave(&self) -> io::Result<OwnedFd> {
        self.slave.try_clone()
    }

    /// Sets the size; the kernel tells the command with SIGWINCH.
    pub(super) fn set_size(&self, size: Winsize) -> io::Result<()> {
        Ok(tcsetwinsize(&self.master, size)?)
    }

    /// Reads what the command printed; 0 when there is nothing now.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        unless_later(rustix::io::read(&self.master, buffer))
    }

    /// Passes input to the command; 0 when it takes no more now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        unless_later(rustix::io::write(&self.master, bytes))
    }
}

impl AsFd for CommandLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// The offered console.
pub(super) struct OfferedLine {
    master: OwnedFd,
    path: PathBuf,
    events: OwnedFd,
    client: Client,
    /// Whether a client has read something since that was asked for.
    was_read: bool,
    lender: OnceCell<Option<Lender>>,
}

/// Whether anybody has the offered console open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Nobody. The master says so for as long as it lasts, whenever it is polled; so it is not, and
    /// [`OfferedLine::events`] tells of the next.
    Absent,
    /// Somebody reads.
    Attached,
    /// Nobody any more, but what was typed last may still be to be read.
    Left,
}

impl OfferedLine {
    /// Opens a pair whose slave is raw, and for its user alone.
    pub(super) fn open() -> io::Result<Self> {
        let (master, slave) = open_pair()?;
        let mut settings = tcgetattr(&slave)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        belongs_to_its_user(&slave)?;
        let path = PathBuf::from(OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes()));
        // The slave is closed at the end: nobody must think that host is a client. The settings live
        // on with the master.
        drop(slave);
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, &path, WatchFlags::OPEN)?;
        let (client, lender) = (Client::Absent, OnceCell::new());
        Ok(Self { master, path, events, client, was_read: false, lender })
    }

    /// Where clients find it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that is readable when somebody opened the console. Nothing else tells: the
    /// master itself is only told when the last one closed it.
    pub(super) fn events(&self) -> &OwnedFd {
        &self.events
    }

    /// From here on events also tell that a client reads. Nothing else tells that either: what is
    /// written goes into buffers of the kernel that are given back whole.
    pub(super) fn watch_reading(&self) -> io::Result<()> {
        let wanted = WatchFlags::OPEN | WatchFlags::ACCESS;
        Ok(inotify::add_watch(&self.events, &self.path, wanted).map(drop)?)
    }

    /// Whether a client has read something since this was last asked.
    pub(super) fn was_read(&mut self) -> bool {
        std::mem::take(&mut self.was_read)
    }

    /// Looks who is there now. An open that was followed by a close leaves nothing behind.
    pub(super) fn look(&mut self) -> io::Result<()> {
        // First what is known, then the master: who comes in between is seen or told of, or both.
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.events, &mut space);
        while let Ok(event) = events.next() {
            self.was_read |= event.events().contains(ReadFlags::ACCESS);
        }
        self.client = Client::Attached;
        self.found(found_now(&self.master, PollFlags::IN)?);
        Ok(())
    }

    /// What to wait for on the master, if anything: for input when it is `wanted`, and for room when
    /// there is output to `deliver`.
    pub(super) fn interest(&self, wanted: bool, deliver: bool) -> Option<PollFlags> {
        let input = if wanted { PollFlags::IN } else { PollFlags::empty() };
        let output = if deliver { PollFlags::OUT } else { PollFlags::empty() };
        match self.client {
            Client::Absent => None,
            Client::Attached => Some(input | output),
            // A hang-up is reported whether it is asked for or not.
            Client::Left => wanted.then_some(input),
        }
    }

    /// Notes what was found on the master. That nothing is unread is known by reading alone: input is
    /// not always asked for.
    pub(super) fn found(&mut self, events: PollFlags) {
        if events.contains(PollFlags::HUP) {
            self.client = Client::Left;
        }
    }

    /// Whether somebody reads it.
    pub(super) fn is_attached(&self) -> bool {
        self.client == Client::Attached
    }

    /// Reads what was typed; 0 when there is nothing now.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.client == Client::Absent {
            return Ok(0);
        }
        match rustix::io::read(&self.master, buffer) {
            Err(Errno::IO) => {
                self.client = Client::Absent;
                Ok(0)
            }
            other => unless_later(other),
        }
    }

    /// Writes to whoever is attached; 0 when they take no more now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_attached() {
            return Ok(0);
        }
        unless_later(rustix::io::write(&self.master, bytes))
    }

    /// The size that the client gave the console.
    pub(super) fn size(&self) -> io::Result<Winsize> {
        Ok(tcgetwinsize(&self.master)?)
    }

    /// Whether something was written that is still unread inside the kernel; `None` where that cannot
    /// be seen. Only an open slave can be asked.
    ///
    /// It should be asked twice: a worker of the kernel moves the bytes to where they are seen, and
    /// although poll waits for it, it may have to start once more.
    pub(super) fn has_unread(&mut self) -> io::Result<Option<bool>> {
        let Some(slave) = self.slave()? else { return Ok(None) };
        let any = found_now(&slave, PollFlags::IN)?.contains(PollFlags::IN);
        drop(slave);
        self.look()?;
        Ok(Some(any))
    }

    /// The slave, for a moment. A client that has it for itself alone (TIOCEXCL) is asked for its own,
    /// unless we are root; `None` where that is refused.
    fn slave(&self) -> io::Result<Option<OwnedFd>> {
        match ioctl_tiocgptpeer(&self.master, OPEN) {
            Err(Errno::BUSY) => {}
            opened => return Ok(Some(opened?)),
        }
        let lender = self.lender.get_or_init(|| {
            let device = Device::of(&std::fs::metadata(&self.path).ok()?)?;
            Lender::of(device)
        });
        Ok(lender.as_ref().and_then(Lender::lend))
    }
}

impl AsFd for OfferedLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

fn open_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OPEN)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OPEN)?;
    fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok((master, slave))
}

/// A new PTY has the mode and perhaps the owner that devpts was mounted with, often with leave for a
/// group to write to it (mount option `gid`, tty(4)).
fn belongs_to_its_user(slave: &OwnedFd) -> io::Result<()> {
    if fstat(slave)?.st_uid != geteuid().as_raw() {
        fchown(slave, Some(geteuid()), None::<Gid>)?;
    }
    Ok(fchmod(slave, Mode::RUSR | Mode::WUSR)?)
}

fn found_now(descriptor: &OwnedFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut set = [PollFd::new(descriptor, events)];
    retry_on_intr(|| poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(set[0].revents())
}

/// Nothing, where the answer is to try again later.
fn unless_later(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}
