//! The masters of the two PTY pairs.

use std::os::fd::{OwnedFd, RawFd};
use std::{
    cell::OnceCell, ffi::OsString, io, mem::MaybeUninit, os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Gid, Mode, OFlags, fchmod, fchown, fcntl_setfl, fstat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, geteuid, pidfd_getfd, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use rustix::{event::PollFlags, io::Errno};

use crate::{device::Device, poll, process::snapshot::ProcessSnapshot};

/// Without CLOEXEC the command would get the masters, and nothing would ever hang up.
const OPEN: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);

/// The terminal that the command runs on.
pub(super) struct CommandLine {
    pub(super) master: OwnedFd,
    /// Kept open: the line must not hang up before host exits, even if the command closes its
    /// descriptors, or ends and leaves children there.
    slave: OwnedFd,
}

impl CommandLine {
    /// Opens a pair as the kernel creates it: cooked, with echo.
    pub(super) fn open() -> io::Result<Self> {
        let (master, slave) = open_pair()?;
        Ok(Self { master, slave })
    }

    /// Another descriptor for the command.
    pub(super) fn slave(&self) -> io::Result<OwnedFd> {
        self.slave.try_clone()
    }

    /// The kernel tells the command with SIGWINCH.
    pub(super) fn set_size(&self, size: Winsize) -> io::Result<()> {
        Ok(tcsetwinsize(&self.master, size)?)
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        unless_later(rustix::io::read(&self.master, buffer))
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        unless_later(rustix::io::write(&self.master, bytes))
    }
}

pub(super) struct OfferedLine {
    pub(super) master: OwnedFd,
    pub(super) path: PathBuf,
    /// Readable when a client opens the console: the master reports only that the last client left.
    pub(super) events: OwnedFd,
    client: ClientState,
    /// Whether a client has read something since [`OfferedLine::was_read`] was called.
    was_read: bool,
    client_fd: OnceCell<Option<ClientFd>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    /// The master would report that at each poll: so it is left out, and [`OfferedLine::events`]
    /// reports the next client.
    Absent,
    Attached,
    /// The client left, but its last input may still be unread.
    Left,
}

impl OfferedLine {
    /// The slave is raw, and accessible to its user alone.
    pub(super) fn open() -> io::Result<Self> {
        let (master, slave) = open_pair()?;
        let mut settings = tcgetattr(&slave)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings)?;
        belongs_to_its_user(&slave)?;
        let path = PathBuf::from(OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes()));
        // Closed, so that host is not taken for a client. The settings stay with the master.
        drop(slave);
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, &path, WatchFlags::OPEN)?;
        let (client, client_fd) = (ClientState::Absent, OnceCell::new());
        Ok(Self { master, path, events, client, was_read: false, client_fd })
    }

    /// Makes events report also that a client reads, which nothing else does.
    pub(super) fn watch_reading(&self) -> io::Result<()> {
        let wanted = WatchFlags::OPEN | WatchFlags::ACCESS;
        Ok(inotify::add_watch(&self.events, &self.path, wanted).map(drop)?)
    }

    pub(super) fn was_read(&mut self) -> bool {
        std::mem::take(&mut self.was_read)
    }

    pub(super) fn look(&mut self) -> io::Result<()> {
        // Events first, then the master: a client that comes in between is seen, reported, or both.
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.events, &mut space);
        while let Ok(event) = events.next() {
            self.was_read |= event.events().contains(ReadFlags::ACCESS);
        }
        self.client = ClientState::Attached;
        self.found(poll::events_now(&self.master, PollFlags::IN)?);
        Ok(())
    }

    /// The events to poll the master for: input if `wanted`, room if there is output to `deliver`.
    pub(super) fn interest(&self, wanted: bool, deliver: bool) -> Option<PollFlags> {
        let input = if wanted { PollFlags::IN } else { PollFlags::empty() };
        let output = if deliver { PollFlags::OUT } else { PollFlags::empty() };
        match self.client {
            ClientState::Absent => None,
            ClientState::Attached => Some(input | output),
            // poll(2) reports a hang-up unasked.
            ClientState::Left => wanted.then_some(input),
        }
    }

    pub(super) fn found(&mut self, events: PollFlags) {
        if events.contains(PollFlags::HUP) {
            self.client = ClientState::Left;
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.client == ClientState::Attached
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.client == ClientState::Absent {
            return Ok(0);
        }
        match rustix::io::read(&self.master, buffer) {
            Err(Errno::IO) => {
                self.client = ClientState::Absent;
                Ok(0)
            }
            other => unless_later(other),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        unless_later(rustix::io::write(&self.master, bytes))
    }

    pub(super) fn size(&self) -> io::Result<Winsize> {
        Ok(tcgetwinsize(&self.master)?)
    }

    /// Whether the client has unread output; `None` if no slave can be opened to see that. Only the
    /// second answer in a row counts: a kernel worker moves the bytes to where they are seen, and
    /// may have to run once more.
    pub(super) fn has_unread(&mut self) -> io::Result<Option<bool>> {
        let Some(slave) = self.slave()? else { return Ok(None) };
        let any = poll::events_now(&slave, PollFlags::IN)?.contains(PollFlags::IN);
        drop(slave);
        self.look()?;
        Ok(Some(any))
    }

    /// The slave, to be closed soon. With the exclusive flag it is a duplicate of the client's,
    /// unless we are root; `None` if that is refused.
    fn slave(&self) -> io::Result<Option<OwnedFd>> {
        match ioctl_tiocgptpeer(&self.master, OPEN) {
            Err(Errno::BUSY) => {}
            opened => return Ok(Some(opened?)),
        }
        let device = || Device::of(&std::fs::metadata(&self.path).ok()?);
        let client_fd = self.client_fd.get_or_init(|| ClientFd::of(device()?));
        Ok(client_fd.as_ref().and_then(ClientFd::duplicate))
    }
}

/// A client's descriptor of the console, for when the exclusive flag forbids another open: of a
/// client of the same user, as far as `ptrace(2)` would be allowed.
struct ClientFd {
    pidfd: OwnedFd,
    number: RawFd,
    device: Device,
}

impl ClientFd {
    /// Finds a client in a walk over all processes.
    fn of(device: Device) -> Option<Self> {
        let snapshot = ProcessSnapshot::of(device);
        let mut found = snapshot.openers(device).filter_map(|client| {
            let pidfd = pidfd_open(Pid::from_raw(client.pid)?, PidfdFlags::empty()).ok()?;
            let number = client.descriptor_of(device)?;
            Some(Self { pidfd, number, device })
        });
        found.find(|client| client.duplicate().is_some())
    }

    /// A duplicate, to be closed at once: an open one hides that the client leaves.
    fn duplicate(&self) -> Option<OwnedFd> {
        let fd = pidfd_getfd(&self.pidfd, self.number, PidfdGetfdFlags::empty()).ok()?;
        // The number may mean another file by now.
        (Device::of_fd(&fd).ok()? == Some(self.device)).then_some(fd)
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

/// A new PTY has the mode and perhaps the owner of the devpts mount, and often a group that may
/// write (mount option `gid`, tty(4)).
fn belongs_to_its_user(slave: &OwnedFd) -> io::Result<()> {
    if fstat(slave)?.st_uid != geteuid().as_raw() {
        fchown(slave, Some(geteuid()), None::<Gid>)?;
    }
    Ok(fchmod(slave, Mode::RUSR | Mode::WUSR)?)
}

/// 0 for "try again later".
fn unless_later(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}
