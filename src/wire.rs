//! Messages between our own processes, over sockets that keep them apart (`SOCK_SEQPACKET`), with the
//! descriptors that come along.
//!
//! Nothing here ever waits: who does not read is stopped or worse.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use std::time::Instant;

/// The most that a message can be, in bytes.
pub const LONGEST_MESSAGE: usize = 8192;

/// How many descriptors can come along with a message.
const MOST_DESCRIPTORS: usize = 2;

/// Sends a message, and copies of the descriptors.
pub fn send(
    wire: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST_MESSAGE {
        return Err(Errno::MSGSIZE.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(&wire, &[IoSlice::new(&text)], &mut ancillary, flags))?;
    Ok(())
}

/// Receives the next message if there is one (else `EAGAIN`). Nothing: the other side is at its end.
/// What is no message of this kind is `EBADMSG`.
pub fn receive<M: DeserializeOwned>(wire: impl AsFd) -> Result<Option<(M, Vec<OwnedFd>)>, Errno> {
    let mut text = [0; LONGEST_MESSAGE];
    let (count, descriptors) = receive_raw(wire, &mut text, RecvFlags::DONTWAIT)?;
    if count == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&text[..count]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, descriptors)))
}

/// Looks at the next message and leaves it where it is, for others who have the same socket.
pub fn peek<M: DeserializeOwned>(wire: impl AsFd) -> Result<Option<M>, Errno> {
    let mut text = [0; LONGEST_MESSAGE];
    let (count, _) = receive_raw(wire, &mut text, RecvFlags::DONTWAIT | RecvFlags::PEEK)?;
    if count == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&text[..count]).map(Some).map_err(|_| Errno::BADMSG)
}

/// Receives a packet of any kind. One that does not fit is `EBADMSG`; a packet of no bytes is taken for
/// the end.
pub fn receive_raw(
    wire: impl AsFd,
    packet: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| {
        recvmsg(wire.as_fd(), &mut [IoSliceMut::new(packet)], &mut ancillary, flags)
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

/// Waits until there is something to receive, or the other side is at its end. False: the time `until`
/// which to wait comes first.
pub fn wait(wire: impl AsFd, until: Option<Instant>) -> bool {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&wire, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Who is at the other end of a socket, as the kernel knows it (`SO_PEERCRED`, `unix(7)`): the process
/// that connected, or for who connected, the one that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number; 0 where it is in no namespace of ours.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pid {} of uid {}", self.pid, self.uid)
    }
}

impl Peer {
    /// Asks the kernel.
    pub fn of(wire: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(wire, PeerCredentials)?;
        Ok(Self { pid: credentials.pid(), uid: credentials.uid() })
    }
}
