//! Standard input, output and error, used without ever waiting in them.
//!
//! They are shared with whoever started us, down to their file status flags: `O_NONBLOCK` set here
//! would be set for the user's shell too. So a terminal is opened again, for an open file description
//! of our own, and everything else is asked not to wait in each call.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::termios::tcgetsid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, read, retry_on_intr, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::termios::tcgetattr;

/// What a descriptor leads to, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Terminal,
    /// A pipe or a socket: there is a process at the other end, and it can leave.
    Stream,
    /// A file or a device.
    Other,
}

/// How to move bytes without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Plain calls: the description is our own and non-blocking, or it is a file, which never waits.
    Plain,
    /// `RWF_NOWAIT` (preadv2(2)).
    NoWait,
    /// `MSG_DONTWAIT` (recv(2), send(2)).
    Socket,
    /// Ask poll before each call, then move at most so many bytes.
    AskFirst(usize),
}

/// A terminal that cannot be opened again is ready for output as soon as there is any room at all, and
/// a longer write would wait for more (`n_tty_poll` and `n_tty_write` in `drivers/tty/n_tty.c`).
const TERMINAL_PIECE: usize = 64;
/// A pipe that is ready for output takes `PIPE_BUF` bytes at once (pipe(7)).
const PIPE_PIECE: usize = 4096;
/// Other devices, `/dev/null` for one, have no such limit.
const DEVICE_PIECE: usize = 65536;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug)]
enum Direction {
    In,
    Out,
}

#[derive(Debug)]
struct Endpoint {
    fd: OwnedFd,
    kind: Kind,
    manner: Manner,
}

impl Endpoint {
    fn new(shared: BorrowedFd<'_>, direction: Direction) -> io::Result<Self> {
        let fd = shared.try_clone_to_owned()?;
        if is_terminal(&fd) {
            return Ok(match own_description(&fd, direction) {
                Some(own) => Self { fd: own, kind: Kind::Terminal, manner: Manner::Plain },
                None => Self::asking(fd, Kind::Terminal, TERMINAL_PIECE),
            });
        }
        let (kind, manner) = match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::Fifo => (Kind::Stream, Manner::NoWait),
            FileType::Socket => (Kind::Stream, Manner::Socket),
            // Not opened again: that would lose O_APPEND and the position shared with others.
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
                (Kind::Other, Manner::Plain)
            }
            _ => (Kind::Other, Manner::AskFirst(DEVICE_PIECE)),
        };
        Ok(Self { fd, kind, manner })
    }

    fn asking(fd: OwnedFd, kind: Kind, piece: usize) -> Self {
        Self { fd, kind, manner: Manner::AskFirst(piece) }
    }

    /// Runs `call`; `None` if it would have to wait. Where the kernel has no `RWF_NOWAIT` for these
    /// pipes, asks poll from now on.
    fn attempt(
        &mut self,
        ready: PollFlags,
        mut call: impl FnMut(&OwnedFd, Manner) -> Result<usize, Errno>,
    ) -> io::Result<Option<usize>> {
        if matches!(self.manner, Manner::AskFirst(_)) && !is_ready(&self.fd, ready)? {
            return Ok(None);
        }
        match retry_on_intr(|| call(&self.fd, self.manner)) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.manner == Manner::NoWait => {
                self.manner = Manner::AskFirst(PIPE_PIECE);
                self.attempt(ready, call)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Where the user's bytes come from.
#[derive(Debug)]
pub(crate) struct Source(Endpoint);

impl Source {
    pub(crate) fn new(shared: BorrowedFd<'_>) -> io::Result<Self> {
        Endpoint::new(shared, Direction::In).map(Self)
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Reads what is there into `room`. `None`: nothing now; 0: the end.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.attempt(PollFlags::IN, |fd, manner| match manner {
            Manner::Plain => read(fd, &mut *room),
            Manner::NoWait => read_at_once(fd, room),
            Manner::Socket => recv(fd, &mut *room, RecvFlags::DONTWAIT).map(|(count, _)| count),
            Manner::AskFirst(piece) => {
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

/// Where bytes for the user go.
#[derive(Debug)]
pub(super) struct Sink(Endpoint);

impl Sink {
    pub(super) fn new(shared: BorrowedFd<'_>) -> io::Result<Self> {
        Endpoint::new(shared, Direction::Out).map(Self)
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Writes as much of `bytes` as is taken at once. `None`: nothing now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        self.0.attempt(PollFlags::OUT, |fd, manner| match manner {
            Manner::Plain => write(fd, bytes),
            Manner::NoWait => pwritev2(fd, &[IoSlice::new(bytes)], STREAM, ReadWriteFlags::NOWAIT),
            Manner::Socket => send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Manner::AskFirst(piece) => write(fd, &bytes[..piece.min(bytes.len())]),
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

/// Reads from a pipe that somebody else has as well, who may have made it wait. Only where the kernel
/// cannot read without waiting it has to be believed.
pub(super) fn read_feed(pipe: impl AsFd, room: &mut [u8]) -> Result<usize, Errno> {
    match read_at_once(&pipe, room) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => read(pipe, room),
        done => done,
    }
}

/// The offset -1: the current position, the only one a pipe has (preadv2(2)).
const STREAM: u64 = u64::MAX;

/// A terminal that is gone answers every question with `EIO` (`hung_up_tty_ioctl` in
/// `drivers/tty/tty_io.c`), and is a terminal all the same.
fn is_terminal(fd: &OwnedFd) -> bool {
    matches!(tcgetattr(fd), Ok(_) | Err(Errno::IO))
}

/// Opens the terminal behind `shared` again, non-blocking, for an open file description of our own.
/// `None` where that is not possible: after su(1) it belongs to another user, and a terminal of
/// another session is out of reach.
fn own_description(shared: &OwnedFd, direction: Direction) -> Option<OwnedFd> {
    if is_pty_multiplexer(shared) {
        return None;
    }
    let access = match direction {
        Direction::In => OFlags::RDONLY,
        Direction::Out => OFlags::WRONLY,
    };
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let reopen = |path: &str| open(path, flags, Mode::empty()).ok();
    // Only of the terminal that controls us does the kernel tell the session (TIOCGSID in
    // ioctl_tty(2)), and that one /dev/tty opens whoever owns it.
    // What a container has in its place may be anything else.
    let controlling = if tcgetsid(shared).is_ok() { reopen("/dev/tty") } else { None };
    let controlling = controlling.filter(|own| tcgetsid(own).is_ok());
    controlling.or_else(|| reopen(&format!("/proc/self/fd/{}", shared.as_raw_fd())))
}

/// The master side of a PTY: opened again it would be a new PTY (pts(4); device 5:2 in the kernel's
/// `Documentation/admin-guide/devices.txt`).
fn is_pty_multiplexer(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2))
}

fn is_ready(fd: &OwnedFd, events: PollFlags) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(retry_on_intr(|| poll(&mut [PollFd::new(fd, events)], Some(&at_once)))? > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _, pipe};
    use std::os::unix::net::UnixStream;

    use rustix::fs::fcntl_getfl;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    const FLOOD: [u8; 4096] = [b'x'; 4096];

    /// Writes until nothing more is taken.
    fn fill(sink: &mut Sink) -> usize {
        let mut total = 0;
        while let Some(count) = sink.write(&FLOOD).unwrap() {
            total += count;
            assert!(total < 100 << 20, "a sink that nobody empties is never full");
        }
        total
    }

    fn pty() -> (OwnedFd, OwnedFd) {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
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
        let mut sink = Sink(Endpoint::asking(write_end.into(), Kind::Stream, PIPE_PIECE));
        let mut source = Source(Endpoint::asking(read_end.into(), Kind::Stream, PIPE_PIECE));
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
        assert_eq!((source.kind(), sink.kind()), (Kind::Terminal, Kind::Terminal));
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        assert!(fill(&mut sink) > 0);
        assert!(is_blocking(&slave));
    }

    #[test]
    fn a_terminal_that_cannot_be_opened_again_never_waits_either() {
        let (master, slave) = pty();
        let mut sink = Sink(Endpoint::asking(slave, Kind::Terminal, TERMINAL_PIECE));
        assert!(fill(&mut sink) > 0);
        // A master opened again would be another PTY's.
        let mut source = Source::new(master.as_fd()).unwrap();
        assert_eq!(source.read(&mut [0; 3]).unwrap(), Some(3));
    }

    #[test]
    fn a_terminal_that_is_gone_is_still_known_as_one() {
        let (master, slave) = pty();
        drop(master);
        let mut source = Source::new(slave.as_fd()).unwrap();
        assert_eq!((source.kind(), source.read(&mut [0; 8]).unwrap()), (Kind::Terminal, Some(0)));
        let mut sink = Sink::new(slave.as_fd()).unwrap();
        let refused = Errno::from_io_error(&sink.write(b"x").unwrap_err());
        assert_eq!((sink.kind(), refused), (Kind::Terminal, Some(Errno::IO)));
    }

    #[test]
    fn a_file_is_written_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut sink = Sink::new(file.as_fd()).unwrap();
        assert_eq!((sink.kind(), sink.write(b"after").unwrap()), (Kind::Other, Some(5)));
        let mut content = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "before after");
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
