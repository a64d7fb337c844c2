//! Standard input, output and error, used without ever waiting in them.
//!
//! They are shared with whoever started us, down to their file status flags: `O_NONBLOCK` set here
//! would be set for the user's shell too. So a terminal is opened again, for an open file
//! description of our own, and everything else is asked not to wait in each call.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::termios::tcgetsid;
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, read, retry_on_intr, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::termios::tcgetattr;

use crate::device::Device;
use crate::poll;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    Terminal,
    /// A pipe or a socket: the process at the other end can leave.
    Stream,
    /// A file or a device.
    Other,
}

/// How to move bytes without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IoMode {
    /// Plain calls: the description is our own and non-blocking, or a file, which never waits.
    Plain,
    /// `RWF_NOWAIT` (preadv2(2)).
    NoWait,
    /// `MSG_DONTWAIT` (recv(2), send(2)).
    Socket,
    /// Ask poll before each call, then move at most this many bytes.
    AskFirst(usize),
}

/// A terminal that cannot be opened again is ready for output as soon as there is any room at all;
/// a longer write would wait for more (`n_tty_poll` and `n_tty_write` in `drivers/tty/n_tty.c`).
const TERMINAL_PIECE: usize = 64;
/// A pipe that is ready for output takes `PIPE_BUF` bytes at once (pipe(7)).
const PIPE_PIECE: usize = 4096;
/// Other devices, such as `/dev/null`, have no limit.
const DEVICE_PIECE: usize = 65536;
/// The offset -1: the current position, the only one that a pipe has (preadv2(2)).
const STREAM: u64 = u64::MAX;

#[derive(Debug)]
struct Endpoint {
    fd: OwnedFd,
    kind: EndpointKind,
    mode: IoMode,
}

impl Endpoint {
    /// `access`: `RDONLY` or `WRONLY`, for a terminal that is opened again.
    fn new(shared: BorrowedFd<'_>, access: OFlags) -> io::Result<Self> {
        let fd = shared.try_clone_to_owned()?;
        if is_terminal(&fd) {
            return Ok(match own_description(&fd, access) {
                Some(own) => Self { fd: own, kind: EndpointKind::Terminal, mode: IoMode::Plain },
                None => Self::asking(fd, EndpointKind::Terminal, TERMINAL_PIECE),
            });
        }
        // An input that cannot be read has ended: GNU nohup(1) opens /dev/null for writing only.
        let access_mode = fcntl_getfl(&fd)? & OFlags::RWMODE;
        let fd = if access == OFlags::RDONLY && access_mode == OFlags::WRONLY {
            open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        } else {
            fd
        };
        let (kind, mode) = match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::Fifo => (EndpointKind::Stream, IoMode::NoWait),
            FileType::Socket => (EndpointKind::Stream, IoMode::Socket),
            // Not opened again: that would lose O_APPEND and the position shared with others.
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
                (EndpointKind::Other, IoMode::Plain)
            }
            _ => (EndpointKind::Other, IoMode::AskFirst(DEVICE_PIECE)),
        };
        Ok(Self { fd, kind, mode })
    }

    fn asking(fd: OwnedFd, kind: EndpointKind, piece: usize) -> Self {
        Self { fd, kind, mode: IoMode::AskFirst(piece) }
    }

    /// Runs `request`. Returns `None` if it would have to wait. Where the kernel has no
    /// `RWF_NOWAIT` for pipes, asks poll from now on.
    fn attempt(
        &mut self,
        ready: PollFlags,
        mut request: impl FnMut(&OwnedFd, IoMode) -> Result<usize, Errno>,
    ) -> io::Result<Option<usize>> {
        if matches!(self.mode, IoMode::AskFirst(_)) && poll::events_now(&self.fd, ready)?.is_empty()
        {
            return Ok(None);
        }
        match retry_on_intr(|| request(&self.fd, self.mode)) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.mode == IoMode::NoWait => {
                self.mode = IoMode::AskFirst(PIPE_PIECE);
                self.attempt(ready, request)
            }
            Err(error) => Err(error.into()),
        }
    }
}

pub(crate) struct Source(Endpoint);

impl Source {
    pub(crate) fn new(shared: BorrowedFd<'_>) -> io::Result<Self> {
        Endpoint::new(shared, OFlags::RDONLY).map(Self)
    }

    pub(crate) fn kind(&self) -> EndpointKind {
        self.0.kind
    }

    /// Reads what is there into `room`. `None`: nothing now; 0: the end of input.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.attempt(PollFlags::IN, |fd, mode| match mode {
            IoMode::Plain => read(fd, &mut *room),
            IoMode::NoWait => read_at_once(fd, room),
            IoMode::Socket => recv(fd, &mut *room, RecvFlags::DONTWAIT).map(|(count, _)| count),
            IoMode::AskFirst(piece) => {
                let piece = piece.min(room.len());
                read(fd, &mut room[..piece])
            }
        })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

#[derive(Debug)]
pub(crate) struct Sink(Endpoint);

impl Sink {
    pub(crate) fn new(shared: BorrowedFd<'_>) -> io::Result<Self> {
        Endpoint::new(shared, OFlags::WRONLY).map(Self)
    }

    pub(crate) fn kind(&self) -> EndpointKind {
        self.0.kind
    }

    /// Writes as much of `bytes` as is accepted at once. `None`: nothing now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        self.0.attempt(PollFlags::OUT, |fd, mode| match mode {
            IoMode::Plain => write(fd, bytes),
            IoMode::NoWait => pwritev2(fd, &[IoSlice::new(bytes)], STREAM, ReadWriteFlags::NOWAIT),
            IoMode::Socket => send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            IoMode::AskFirst(piece) => write(fd, &bytes[..piece.min(bytes.len())]),
        })
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// Reads from a pipe without waiting, whatever its flags are.
fn read_at_once(pipe: &impl AsFd, room: &mut [u8]) -> Result<usize, Errno> {
    preadv2(pipe, &mut [IoSliceMut::new(room)], STREAM, ReadWriteFlags::NOWAIT)
}

/// Reads from a pipe without waiting, if the kernel can: others may have made it blocking.
pub(crate) fn read_feed(pipe: impl AsFd, room: &mut [u8]) -> Result<usize, Errno> {
    match read_at_once(&pipe, room) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => read(pipe, room),
        done => done,
    }
}

/// A terminal that is gone answers every question with `EIO` (`hung_up_tty_ioctl` in
/// `drivers/tty/tty_io.c`), and still counts as one.
fn is_terminal(fd: &OwnedFd) -> bool {
    matches!(tcgetattr(fd), Ok(_) | Err(Errno::IO))
}

/// Opens the terminal behind `shared` again, non-blocking, for an open file description of our own.
/// `None` if that is not possible: after su(1) it belongs to another user, and a terminal of
/// another session is out of reach.
fn own_description(shared: &OwnedFd, access: OFlags) -> Option<OwnedFd> {
    // A PTY master opened again would be a new PTY (pts(4)).
    if Device::of_fd(shared).is_ok_and(|device| device.is_some_and(Device::is_ptmx)) {
        return None;
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let reopen = |path: &str| open(path, flags, Mode::empty()).ok();
    // The kernel tells the session of our controlling terminal only (TIOCGSID in ioctl_tty(2)), and
    // /dev/tty opens it for any owner. In a container /dev/tty may be anything else: ask again.
    let controlling = if tcgetsid(shared).is_ok() { reopen("/dev/tty") } else { None };
    let controlling = controlling.filter(|own| tcgetsid(own).is_ok());
    controlling.or_else(|| reopen(&format!("/proc/self/fd/{}", shared.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _, pipe};
    use std::os::unix::net::UnixStream;

    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    const FLOOD: [u8; 4096] = [b'x'; 4096];

    fn fill(sink: &mut Sink) -> usize {
        let mut total = 0;
        while let Some(count) = sink.write(&FLOOD).unwrap() {
            total += count;
            assert!(total < 100 << 20, "a sink that nobody empties is never full");
        }
        total
    }

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, slave)
    }

    fn is_blocking(fd: impl AsFd) -> bool {
        !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    #[test]
    fn a_pipe_never_waits_and_keeps_its_flags() {
        let (mut read_end, write_end) = pipe().unwrap();
        let mut source = Source::new(read_end.as_fd()).unwrap();
        let mut sink = Sink::new(write_end.as_fd()).unwrap();
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        let total = fill(&mut sink);
        assert!(is_blocking(&read_end) && is_blocking(&write_end));
        drop((sink, write_end));
        let mut content = Vec::new();
        read_end.read_to_end(&mut content).unwrap();
        assert_eq!(content.len(), total);
        assert_eq!(source.read(&mut [0; 8]).unwrap(), Some(0), "the end");
    }

    #[test]
    fn a_pipe_without_nowait_never_waits_either() {
        let (read_end, write_end) = pipe().unwrap();
        let asking = |fd| Endpoint::asking(fd, EndpointKind::Stream, PIPE_PIECE);
        let (mut source, mut sink) =
            (Source(asking(read_end.into())), Sink(asking(write_end.into())));
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        assert!(fill(&mut sink) >= PIPE_PIECE);
        assert_eq!(source.read(&mut [0; 8192]).unwrap(), Some(PIPE_PIECE));
    }

    #[test]
    fn a_socket_never_waits_and_a_reader_that_left_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut source = Source::new(ours.as_fd()).unwrap();
        let mut sink = Sink::new(ours.as_fd()).unwrap();
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        assert!(fill(&mut sink) > 0);
        assert!(is_blocking(&ours));
        drop(theirs);
        assert_eq!(sink.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_terminal_never_waits_and_keeps_its_flags() {
        let (_master, slave) = pty();
        let mut source = Source::new(slave.as_fd()).unwrap();
        let mut sink = Sink::new(slave.as_fd()).unwrap();
        assert_eq!((source.kind(), sink.kind()), (EndpointKind::Terminal, EndpointKind::Terminal));
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        assert!(fill(&mut sink) > 0);
        assert!(is_blocking(&slave));
    }

    #[test]
    fn a_terminal_that_cannot_be_opened_again_never_waits_either() {
        let (master, slave) = pty();
        let mut sink = Sink(Endpoint::asking(slave, EndpointKind::Terminal, TERMINAL_PIECE));
        assert!(fill(&mut sink) > 0);
        // A master opened again would be that of another PTY.
        let mut source = Source::new(master.as_fd()).unwrap();
        assert_eq!(source.read(&mut [0; 3]).unwrap(), Some(3));
    }

    #[test]
    fn a_terminal_that_is_gone_is_still_known_as_one() {
        let (master, slave) = pty();
        drop(master);
        let mut source = Source::new(slave.as_fd()).unwrap();
        let read = source.read(&mut [0; 8]).unwrap();
        assert_eq!((source.kind(), read), (EndpointKind::Terminal, Some(0)));
        let mut sink = Sink::new(slave.as_fd()).unwrap();
        let refused = Errno::from_io_error(&sink.write(b"x").unwrap_err());
        assert_eq!((sink.kind(), refused), (EndpointKind::Terminal, Some(Errno::IO)));
    }

    #[test]
    fn a_file_is_written_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut sink = Sink::new(file.as_fd()).unwrap();
        assert_eq!((sink.kind(), sink.write(b"after").unwrap()), (EndpointKind::Other, Some(5)));
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "before after");
    }

    #[test]
    fn an_input_that_cannot_be_read_has_ended() {
        let (_read_end, write_end) = pipe().unwrap();
        let null = File::options().write(true).open("/dev/null").unwrap();
        for unreadable in [write_end.as_fd(), null.as_fd()] {
            assert_eq!(Source::new(unreadable).unwrap().read(&mut [0; 8]).unwrap(), Some(0));
        }
    }

    #[test]
    fn devices_that_are_no_terminals_do_as_they_do() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert_eq!(Source::new(null.as_fd()).unwrap().read(&mut [0; 8]).unwrap(), Some(0));
        assert_eq!(Sink::new(null.as_fd()).unwrap().write(b"abc").unwrap(), Some(3));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let refused = Sink::new(full.as_fd()).unwrap().write(b"abc").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }
}
