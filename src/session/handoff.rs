//! Handing a console over from one session to the next.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, shutdown};

use crate::device::Device;
use crate::printable::sentence;
use crate::session::protocol::{ClientInfo, ClientMessage, Reply, StreamPos, VERSION};
use crate::session::registry::{self, SocketRole};
use crate::session::scrollback::Scrollback;
use crate::{poll, seqpacket, test_point};

/// How long a session or its guard may take to answer.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long a newcomer may take to accept a console. Shorter than [`ANSWER_TIME`], so that the next
/// newcomer still gets an answer.
pub(crate) const ACCEPT_TIME: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The buffers of two sessions hold no more than this.
const MAX_PENDING_BYTES: u64 = 8 * 1024 * 1024;
/// How long all undelivered bytes may take to arrive.
const RECEIVE_TIME: Duration = Duration::from_secs(5);
pub(crate) const TOO_LATE: &str = "it waited too long for us to take it";
/// The bytes in one packet, of which several fit into a socket's buffer.
const PIECE: usize = 32 * 1024;
/// No console has printed more: positions after this one could overflow.
pub(super) const MAX_OFFSET: u64 = u64::MAX / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Taken,
    /// The session keeps the console: the newcomer ended, or did not say `done` in time. `told`:
    /// the newcomer was told, or is gone.
    Kept {
        told: bool,
    },
}

/// Sends the console, the undelivered bytes and the scrollback to the newcomer at the other end of
/// `line`. Not through a file: limits to files and descriptors would forbid one when it is needed.
pub(crate) fn send(
    line: impl AsFd,
    console: impl AsFd,
    [typed, printed]: [&[u8]; 2],
    scrollback: Option<&Scrollback>,
    deadline: Instant,
) -> io::Result<()> {
    let kept = scrollback.map(|it| it.all_from(it.oldest())).unwrap_or_default();
    let reply = Reply::Console {
        typed: typed.len() as u64,
        printed: printed.len() as u64,
        kept: kept.len() as u64,
        scrollback: scrollback.map(Scrollback::end),
    };
    seqpacket::send(&line, &reply, &[console.as_fd()])?;
    let pieces = [typed, printed, &kept].into_iter().flat_map(|bytes| bytes.chunks(PIECE));
    pieces.into_iter().try_for_each(|piece| send_piece(&line, piece, deadline))
}

fn send_piece(line: impl AsFd, piece: &[u8], deadline: Instant) -> io::Result<()> {
    loop {
        match seqpacket::send_raw(&line, &[IoSlice::new(&[0]), IoSlice::new(piece)], &[]) {
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                poll::wait(&mut [poll::entry(line.as_fd(), PollFlags::OUT)], Some(deadline))?;
            }
            sent => return Ok(sent?),
        }
    }
}

/// Receives the next `length` bytes that [`send`] sends.
fn receive_bytes(
    line: &OwnedFd,
    length: u64,
    deadline: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, HandoffError> {
    let length = usize::try_from(length).map_err(|_| HandoffError::Garbled)?;
    // The session or its guard keeps the console by now, but lives: it gets no signal for that.
    let too_late = || HandoffError::Refused(TOO_LATE.to_owned());
    let mut bytes = Vec::new();
    let mut packet = vec![0; PIECE + 1];
    while bytes.len() < length {
        match seqpacket::receive_raw(line, &mut packet, RecvFlags::DONTWAIT) {
            Ok((count, _)) if count > 1 && packet[0] == 0 => {
                bytes.extend(&packet[1..count]);
            }
            Err(Errno::AGAIN) if cancelled() => return Err(HandoffError::Cancelled),
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                poll::wait_readable(line, Some(deadline.min(Instant::now() + LOOK_INTERVAL)));
            }
            Ok((0, _)) | Err(Errno::CONNRESET) => return Err(HandoffError::Ended),
            Ok(_) | Err(_) => return Err(too_late()),
        }
    }
    if bytes.len() == length { Ok(bytes) } else { Err(HandoffError::Garbled) }
}

/// Waits for the outcome until `deadline`: then it is settled, and both sides know it.
/// The answer stays in `line`, for others that have the same socket.
pub(crate) fn outcome(line: impl AsFd, deadline: Instant) -> Outcome {
    poll::wait_readable(&line, Some(deadline));
    // From here on `done` can no longer arrive: either it has, or it never will.
    let _ = shutdown(&line, Shutdown::Read);
    if has_acknowledged(&line) { Outcome::Taken } else { keep(line) }
}

/// Whether `done` is in `line`. An error says neither yes nor no. While it stays that way the
/// console counts as taken, since two sessions must never operate it.
fn has_acknowledged(line: impl AsFd) -> bool {
    let deadline = Instant::now() + ACCEPT_TIME;
    loop {
        match seqpacket::peek(&line) {
            Ok(message) => return message == Some(ClientMessage::Done),
            Err(Errno::AGAIN | Errno::BADMSG) => return false,
            Err(_) if Instant::now() >= deadline => return true,
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// Keeps the console, and tells the newcomer. Unless the newcomer was told, `line` must stay open
/// as long as the session has the console.
pub(crate) fn keep(line: impl AsFd) -> Outcome {
    let _ = shutdown(&line, Shutdown::Read);
    test_point::reached("keeping");
    let sent = seqpacket::send(&line, &Reply::Kept, &[]);
    Outcome::Kept { told: sent.map_or_else(|e| e.kind() == io::ErrorKind::BrokenPipe, |()| true) }
}

pub(crate) fn is_waiting(line: impl AsFd) -> bool {
    seqpacket::peek::<ClientMessage>(&line) == Err(Errno::AGAIN)
}

/// A console that another session hands over to us, with the bytes that it did not deliver to the
/// console (`typed`) and to its terminal (`printed`).
pub(crate) struct Handoff {
    socket: OwnedFd,
    pub(crate) console: OwnedFd,
    pub(crate) typed: Vec<u8>,
    pub(crate) printed: Vec<u8>,
    pub(crate) scrollback: Option<Scrollback>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoffError {
    #[error("nobody answers there")]
    Nobody(#[source] io::Error),
    #[error("it does not answer")]
    Silent,
    #[error("it hung up on us")]
    Ended,
    #[error(
        "it is another version of vconsole, which speaks version {0} of the protocol and not {VERSION}"
    )]
    Unsupported(u32),
    #[error("it does not answer as a session does")]
    Garbled,
    /// It handed the console over, but this process has no room for the descriptor.
    #[error("we cannot take it")]
    NoRoom(#[source] io::Error),
    /// Its reason, safe to show.
    #[error("{0}")]
    Refused(String),
    #[error("we gave up waiting for it")]
    Cancelled,
    /// The session is gone, and this viewer reads the console now.
    #[error("another reads it now")]
    NextReader { pid: i32, uid: u32 },
}

#[derive(Clone, Debug)]
pub(crate) struct TakeoverRequest {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) role: SocketRole,
    pub(crate) info: ClientInfo,
    /// Only if the session is still reading, without an operator.
    pub(crate) only_if_reading: bool,
    pub(crate) time_limit: Duration,
}

/// Asks a session or its guard for its console. Calls `cancelled` again and again meanwhile.
pub(crate) fn ask(
    takeover: &TakeoverRequest,
    cancelled: &dyn Fn() -> bool,
) -> Result<Handoff, HandoffError> {
    if cancelled() {
        return Err(HandoffError::Cancelled);
    }
    let &TakeoverRequest { uid, pid, role, only_if_reading, .. } = takeover;
    let socket = registry::connect_to(uid, pid, role).map_err(HandoffError::Nobody)?;
    let info = takeover.info.clone();
    let message = ClientMessage::Takeover { version: VERSION, info, only_if_reading };
    test_point::reached("connected");
    seqpacket::send(&socket, &message, &[]).map_err(|_| HandoffError::Ended)?;
    // We may have slept before: the session's time begins now.
    let deadline = Instant::now() + takeover.time_limit;
    test_point::reached("asked");
    loop {
        if cancelled() {
            return Err(HandoffError::Cancelled);
        }
        let now = Instant::now();
        if !poll::wait_readable(&socket, Some(deadline.min(now + LOOK_INTERVAL))) {
            if now >= deadline {
                return Err(HandoffError::Silent);
            }
            continue;
        }
        match seqpacket::receive(&socket) {
            Ok(Some((Reply::Console { typed, printed, kept, scrollback }, descriptors))) => {
                // Descriptors for which there is no room do not arrive (SCM_RIGHTS in unix(7)).
                if let Err(error) = rustix::io::fcntl_dupfd_cloexec(&socket, 0) {
                    return Err(HandoffError::NoRoom(error.into()));
                }
                let lengths = [typed, printed, kept];
                return Handoff::receive(socket, descriptors, lengths, scrollback, cancelled);
            }
            Err(Errno::AGAIN) => {}
            // The guard says that it kept the console if it dies before it handed it over.
            Ok(Some((Reply::Kept, _))) => return Err(HandoffError::Ended),
            other => return Err(HandoffError::from_reply(other)),
        }
    }
}

impl HandoffError {
    /// The meaning of a reply other than the one that was asked for.
    pub(super) fn from_reply(reply: Result<Option<(Reply, Vec<OwnedFd>)>, Errno>) -> Self {
        match reply {
            Ok(Some((Reply::Refused(why), _))) => Self::Refused(sentence(&why)),
            Ok(Some((Reply::NextReader { pid, uid }, _))) => Self::NextReader { pid, uid },
            Ok(Some((Reply::Unsupported { version }, _))) => Self::Unsupported(version),
            Ok(Some(_)) | Err(Errno::BADMSG) => Self::Garbled,
            Ok(None) | Err(_) => Self::Ended,
        }
    }

    /// Whether the session cannot be asked at all: it does not answer, or not in our protocol.
    pub(crate) fn is_no_answer(&self) -> bool {
        use HandoffError::{Cancelled, NextReader, NoRoom, Refused};
        !matches!(self, NoRoom(_) | Refused(_) | NextReader { .. } | Cancelled)
    }
}

impl Handoff {
    /// Receives the bytes that follow the console, which came along.
    pub(super) fn receive(
        socket: OwnedFd,
        descriptors: Vec<OwnedFd>,
        lengths: [u64; 3],
        scrollback: Option<StreamPos>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, HandoffError> {
        let console = opened(descriptors).map_err(|_| HandoffError::Garbled)?;
        if lengths.iter().any(|length| *length > MAX_PENDING_BYTES) {
            return Err(HandoffError::Garbled);
        }
        let deadline = Instant::now() + RECEIVE_TIME;
        let receive = |length| receive_bytes(&socket, length, deadline, cancelled);
        let [typed, printed, kept] = lengths;
        let [typed, printed, kept] = [receive(typed)?, receive(printed)?, receive(kept)?];
        let scrollback = scrollback.filter(|end| end.offset <= MAX_OFFSET);
        let scrollback = scrollback.map(|end| Scrollback::going_on(end, &kept));
        Ok(Self { socket, console, typed, printed, scrollback })
    }

    /// The console, the acknowledgement, and the undelivered bytes, typed and printed.
    pub(crate) fn into_parts(self) -> (OwnedFd, HandoffAck, Vec<u8>, Vec<u8>) {
        (self.console, HandoffAck(self.socket), self.typed, self.printed)
    }
}

/// The console that came along: a terminal line, open for reading and writing.
fn opened(descriptors: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    let wrong = || io::Error::other("it sent something else than a console");
    let [console] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| wrong())?;
    let flags = fcntl_getfl(&console)?;
    if flags & OFlags::RWMODE != OFlags::RDWR || Device::of_fd(&console)?.is_none() {
        return Err(wrong());
    }
    // The sender chose its flags: we must never block on it.
    fcntl_setfl(&console, flags | OFlags::NONBLOCK)?;
    Ok(console)
}

/// The acknowledgement that the other session waits for. Dropping it without [`HandoffAck::commit`]
/// tells that session that we failed.
pub(crate) struct HandoffAck(OwnedFd);

impl HandoffAck {
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn give_up(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// Whether the other session has already stopped waiting. It can still do so at any moment.
    pub(crate) fn is_void(&self) -> bool {
        matches!(seqpacket::peek(&self.0), Ok(Some(Reply::Kept)))
    }

    /// Says that we have everything. Returns false if the other session stopped waiting before: it
    /// keeps the console, and our descriptor is only to be closed.
    pub(crate) fn commit(self) -> bool {
        seqpacket::send(&self.0, &ClientMessage::Done, &[]).is_ok()
            || is_left_to_us(&self.0, Some(Instant::now() + ANSWER_TIME))
    }
}

impl Drop for HandoffAck {
    /// Our guard has the same end of the socket: the other session would not notice a close alone.
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Whether a console that was being handed over is ours: we said `done` before, or the other side
/// is gone. The other side's message stays in `line`, for others that have the same socket.
pub(crate) fn is_left_to_us(line: impl AsFd, until: Option<Instant>) -> bool {
    let _ = shutdown(&line, Shutdown::Write);
    while poll::wait_readable(&line, until) {
        match seqpacket::peek::<Reply>(&line) {
            Ok(None) => return true,
            Ok(Some(_)) | Err(Errno::BADMSG) => return false,
            Err(Errno::AGAIN) => {}
            // The first peek after a close only says that the other side left something unread.
            // Any other error says neither yes nor no.
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn file(path: &str, writable: bool) -> OwnedFd {
        File::options().read(true).write(writable).open(path).unwrap().into()
    }

    #[test]
    fn only_a_device_that_can_be_read_and_written_is_taken() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(opened(vec![file("/dev/null", true)]).is_ok());
        assert!(opened(vec![file("/dev/null", false)]).is_err());
        assert!(opened(vec![file(manifest, true)]).is_err());
        assert!(opened(vec![]).is_err());
    }

    #[test]
    fn bytes_arrive_in_order_however_many_there_are() {
        let (ours, theirs) = seqpacket::pair();
        let sent: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
        let (expected, length) = (sent.clone(), sent.len() as u64);
        let deadline = Instant::now() + Duration::from_secs(60);
        let receiver = thread::spawn(move || receive_bytes(&theirs, length, deadline, &|| false));
        let deadline = Instant::now() + Duration::from_secs(60);
        sent.chunks(PIECE).for_each(|piece| send_piece(&ours, piece, deadline).unwrap());
        assert!(receiver.join().unwrap().is_ok_and(|received| received == expected));
    }

    #[test]
    fn a_session_that_ends_or_keeps_its_console_in_between_gives_nothing() {
        for message in [Some(Reply::Kept), None] {
            let (ours, theirs) = seqpacket::pair();
            send_piece(&ours, b"some", Instant::now()).unwrap();
            if let Some(message) = &message {
                seqpacket::send(&ours, message, &[]).unwrap();
            }
            drop(ours);
            let kept = message.is_some();
            let deadline = Instant::now() + Duration::from_secs(60);
            let received = receive_bytes(&theirs, 5, deadline, &|| false);
            assert_eq!(matches!(received, Err(HandoffError::Refused(_))), kept);
            assert_eq!(matches!(received, Err(HandoffError::Ended)), !kept);
        }
    }
}
