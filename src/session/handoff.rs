//! Handing a console over from one session to the next.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, OFlags, fcntl_get_seals, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::device::Device;
use crate::printable::sentence;
use crate::session::protocol::{ClientInfo, ClientMessage, Reply, StreamPos, VERSION};
use crate::session::registry::{self, SocketRole};
use crate::session::scrollback::{LONG, Scrollback};
use crate::{poll, seqpacket, test_point};

/// How long a session or its guard may take to answer.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long a newcomer may take to accept a console. Shorter than [`ANSWER_TIME`], so that the next
/// newcomer still gets an answer.
pub(crate) const ACCEPT_TIME: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The buffers of two sessions hold no more than this.
const MAX_PENDING_BYTES: u64 = 8 * 1024 * 1024;
/// No console has printed more: positions after this one could overflow.
const MAX_OFFSET: u64 = u64::MAX / 2;

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
/// `line`.
pub(crate) fn send(
    line: impl AsFd,
    console: impl AsFd,
    [typed, printed]: [&[u8]; 2],
    scrollback: Option<&Scrollback>,
) -> io::Result<()> {
    let mut file = File::from(memfd_create("vconsole", MemfdFlags::CLOEXEC)?);
    file.write_all(typed)?;
    file.write_all(printed)?;
    if let Some(scrollback) = scrollback {
        file.write_all(&scrollback.all_from(scrollback.oldest()))?;
    }
    let reply = Reply::Console {
        typed: typed.len() as u64,
        printed: printed.len() as u64,
        scrollback: scrollback.map(Scrollback::end),
    };
    seqpacket::send(line, &reply, &[console.as_fd(), file.as_fd()])
}

/// Waits for the outcome until `time_limit` has passed: then it is settled, and both sides know it.
/// The answer stays in `line`, for others that have the same socket.
pub(crate) fn outcome(line: impl AsFd, time_limit: Duration) -> Outcome {
    poll::wait_readable(&line, Some(Instant::now() + time_limit));
    // From here on `done` can no longer arrive: either it has, or it never will.
    let _ = shutdown(&line, Shutdown::Read);
    if seqpacket::peek(&line) == Ok(Some(ClientMessage::Done)) {
        return Outcome::Taken;
    }
    keep(line)
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
    let deadline = Instant::now() + takeover.time_limit;
    if cancelled() {
        return Err(HandoffError::Cancelled);
    }
    let &TakeoverRequest { uid, pid, role, only_if_reading, .. } = takeover;
    let socket = registry::connect_to(uid, pid, role).map_err(HandoffError::Nobody)?;
    let info = takeover.info.clone();
    let message = ClientMessage::Takeover { version: VERSION, info, only_if_reading };
    seqpacket::send(&socket, &message, &[]).map_err(|_| HandoffError::Ended)?;
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
            Ok(Some((Reply::Console { typed, printed, scrollback }, descriptors))) => {
                // Descriptors for which there is no room do not arrive (SCM_RIGHTS in unix(7)).
                if let Err(error) = rustix::io::fcntl_dupfd_cloexec(&socket, 0) {
                    return Err(HandoffError::NoRoom(error.into()));
                }
                return Handoff::open(socket, descriptors, [typed, printed], scrollback)
                    .map_err(|_| HandoffError::Garbled);
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
            Ok(Some((Reply::Unsupported { version }, _))) => Self::Unsupported(version),
            Ok(Some(_)) | Err(Errno::BADMSG) => Self::Garbled,
            Ok(None) | Err(_) => Self::Ended,
        }
    }

    /// Whether the session cannot be asked at all: it does not answer, or not in our protocol.
    pub(crate) fn is_no_answer(&self) -> bool {
        !matches!(self, Self::NoRoom(_) | Self::Refused(_) | Self::Cancelled)
    }
}

impl Handoff {
    pub(super) fn open(
        socket: OwnedFd,
        descriptors: Vec<OwnedFd>,
        [typed, printed]: [u64; 2],
        scrollback: Option<StreamPos>,
    ) -> io::Result<Self> {
        let wrong = || io::Error::other("it sent something else than a console");
        let [console, file] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| wrong())?;
        let flags = fcntl_getfl(&console)?;
        let device = Device::of_fd(&console)?;
        if flags & OFlags::RWMODE != OFlags::RDWR || device.is_none() {
            return Err(wrong());
        }
        // The sender chose its flags: we must never block on it.
        fcntl_setfl(&console, flags | OFlags::NONBLOCK)?;
        // Reading the file must not block, and its filesystem could be a program of the sender
        // (FUSE). Only memfds have seals (fcntl(2)), and the kernel itself answers for those.
        fcntl_get_seals(&file)?;
        let length = typed.checked_add(printed).filter(|length| *length <= MAX_PENDING_BYTES);
        let length = length.ok_or_else(wrong)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| wrong())?];
        let file = File::from(file);
        file.read_exact_at(&mut bytes, 0)?;
        let printed = bytes.split_off(usize::try_from(typed).map_err(|_| wrong())?);
        let scrollback = scrollback.filter(|end| end.offset <= MAX_OFFSET);
        let scrollback = scrollback.map(|end| read_scrollback(&file, length, end)).transpose()?;
        Ok(Self { socket, console, typed: bytes, printed, scrollback })
    }

    /// The console, the acknowledgement, and the undelivered bytes, typed and printed.
    pub(crate) fn into_parts(self) -> (OwnedFd, HandoffAck, Vec<u8>, Vec<u8>) {
        (self.console, HandoffAck(self.socket), self.typed, self.printed)
    }
}

/// Reads the scrollback from `start` on: at most its last [`LONG`] bytes.
fn read_scrollback(file: &File, start: u64, end: StreamPos) -> io::Result<Scrollback> {
    let length = file.metadata()?.len().saturating_sub(start);
    let kept = length.min(LONG as u64);
    let mut bytes = vec![0; usize::try_from(kept).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start + (length - kept))?;
    Ok(Scrollback::going_on(end, &bytes))
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
            // The first peek after a close only says that the other side left something unread.
            Err(Errno::AGAIN | Errno::CONNRESET) => {}
            Ok(None) => return true,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(descriptors: Vec<OwnedFd>, scrollback: Option<StreamPos>) -> io::Result<Handoff> {
        Handoff::open(seqpacket::pair().0, descriptors, [0, 0], scrollback)
    }

    fn opened(path: &str) -> OwnedFd {
        File::options().read(true).write(true).open(path).unwrap().into()
    }

    fn in_memory() -> OwnedFd {
        memfd_create("file", MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_scrollback_that_no_console_can_have_printed_is_ignored() {
        let scrollback = Some(StreamPos { stream: 1, offset: u64::MAX });
        let handoff = given(vec![opened("/dev/null"), in_memory()], scrollback);
        assert!(handoff.is_ok_and(|handoff| handoff.scrollback.is_none()));
    }

    #[test]
    fn files_that_could_make_us_wait_for_a_filesystem_are_not_taken() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(given(vec![opened("/dev/null"), opened(manifest)], None).is_err());
        assert!(given(vec![opened(manifest), in_memory()], None).is_err());
        assert!(given(vec![opened("/dev/null")], None).is_err());
    }
}
