//! Messages between our processes, with descriptors, over sockets that keep them apart
//! (`SOCK_SEQPACKET`). Nothing here waits, because a process that does not read may be stopped.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socket_with,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most that a message can be, in bytes.
pub(crate) const LONGEST_MESSAGE: usize = 8192;

const MOST_DESCRIPTORS: usize = 2;

pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST_MESSAGE {
        return Err(Errno::MSGSIZE.into());
    }
    Ok(send_raw(socket, &[IoSlice::new(&text)], descriptors)?)
}

/// Sends a packet of any kind, never an empty one: that would mean the end.
pub(crate) fn send_raw(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&socket, parts, &mut ancillary, flags))?;
    Ok(())
}

/// Receives the next message (`EAGAIN`: none yet; `EBADMSG`: another kind). `None`: the end.
pub(crate) fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(M, Vec<OwnedFd>)>, Errno> {
    let mut text = [0; LONGEST_MESSAGE];
    let (count, descriptors) = receive_raw(socket, &mut text, RecvFlags::DONTWAIT)?;
    if count == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&text[..count]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, descriptors)))
}

/// Looks at the next message and leaves it where it is, for others who have the same socket.
pub(crate) fn peek<M: DeserializeOwned>(socket: impl AsFd) -> Result<Option<M>, Errno> {
    let mut text = [0; LONGEST_MESSAGE];
    let (count, _) = receive_raw(socket, &mut text, RecvFlags::DONTWAIT | RecvFlags::PEEK)?;
    if count == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&text[..count]).map(Some).map_err(|_| Errno::BADMSG)
}

/// Receives any packet. One that does not fit is `EBADMSG`; an empty one is taken for the end.
pub(crate) fn receive_raw(
    socket: impl AsFd,
    packet: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| {
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(packet)], &mut ancillary, flags)
    })?;
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::BADMSG);
    }
    Ok((got.bytes, descriptors))
}

/// A new socket for messages. It never blocks.
pub(crate) fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Two connected sockets.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests")]
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// The process that connected the other end, or listened there (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    /// 0 if it is in no namespace of ours.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

impl fmt::Display for PeerCredentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pid {} of uid {}", self.pid, self.uid)
    }
}

impl PeerCredentials {
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        Ok(Self { pid: credentials.pid(), uid: credentials.uid() })
    }
}
