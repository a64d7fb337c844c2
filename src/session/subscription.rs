//! A subscription to a session's output: the viewer's side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;

use crate::session::handoff::{ANSWER_TIME, HandoffError};
use crate::session::protocol::{ClientInfo, ClientMessage, EndReason, Reply, StreamPos, VERSION};
use crate::session::registry::{self, SocketRole};
use crate::{poll, seqpacket};

#[derive(Debug)]
pub(crate) struct Subscription {
    socket: OwnedFd,
    feed: OwnedFd,
    pub(crate) from: StreamPos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewerEvent {
    Missed(u64),
    /// There is nothing more to watch; see [`Reply::Ended`].
    Ended {
        why: EndReason,
        at: StreamPos,
        missed: u64,
    },
    /// The session was killed.
    Gone,
}

impl Subscription {
    /// Subscribes to the session with this pid and user, from the first byte not seen yet.
    pub(crate) fn ask(
        uid: u32,
        pid: i32,
        info: ClientInfo,
        from: Option<StreamPos>,
    ) -> Result<Self, HandoffError> {
        let deadline = Instant::now() + ANSWER_TIME;
        let socket =
            registry::connect_to(uid, pid, SocketRole::Session).map_err(HandoffError::Nobody)?;
        let message = ClientMessage::Watch { version: VERSION, info, from };
        seqpacket::send(&socket, &message, &[]).map_err(|_| HandoffError::Ended)?;
        loop {
            if !poll::wait_readable(&socket, Some(deadline)) {
                return Err(HandoffError::Silent);
            }
            match seqpacket::receive(&socket) {
                Ok(Some((Reply::Watching { from }, mut descriptors))) => {
                    let feed = descriptors.pop().filter(is_readable_pipe);
                    return Ok(Self { socket, feed: feed.ok_or(HandoffError::Ended)?, from });
                }
                Err(Errno::AGAIN) => {}
                other => return Err(HandoffError::from_reply(other)),
            }
        }
    }

    /// A subscription whose other end a test has.
    #[cfg(test)]
    pub(crate) fn at(socket: OwnedFd, feed: OwnedFd) -> Self {
        Self { socket, feed, from: StreamPos { stream: 7, offset: 0 } }
    }

    pub(crate) fn feed(&self) -> BorrowedFd<'_> {
        self.feed.as_fd()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next event, if there is one. After the last one it is always [`ViewerEvent::Gone`].
    pub(crate) fn next_event(&self) -> Option<ViewerEvent> {
        match seqpacket::receive(&self.socket) {
            Ok(Some((Reply::Missed(bytes), _))) => Some(ViewerEvent::Missed(bytes)),
            Ok(Some((Reply::Ended { why, at, missed }, _))) => {
                Some(ViewerEvent::Ended { why, at, missed })
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Ok(_) | Err(_) => Some(ViewerEvent::Gone),
        }
    }
}

/// Makes the read end of a pipe non-blocking. Returns false for anything else, which could block
/// us. The sender can make the pipe blocking again, so each read asks not to block.
fn is_readable_pipe(feed: &OwnedFd) -> bool {
    // The kernel itself answers this. Other questions about a file may go to its filesystem, which
    // can be a program that does not answer (FUSE).
    let is_pipe = fcntl_getpipe_size(feed).is_ok();
    let Ok(flags) = fcntl_getfl(feed) else { return false };
    is_pipe
        && flags & OFlags::ACCMODE == OFlags::RDONLY
        && fcntl_setfl(feed, flags | OFlags::NONBLOCK).is_ok()
}
