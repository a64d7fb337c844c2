//! The listener of a session: who may connect, and what they want.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, accept_with};
use serde::Deserialize as _;
use serde_json::Value;

use crate::seqpacket::{self, PeerCredentials};
use crate::session::client::Client;
use crate::session::protocol::{ClientMessage, Opening, Reply, StreamPos, VERSION};
use crate::session::registry::SessionSocket;

/// The most clients that have connected and not said yet what they want. More wait in the backlog.
const MAX_PENDING: usize = 32;
/// A client that has said nothing for this long makes room for others. Before that it may be
/// stopped, or starved of CPU time, and must not be turned away.
const SILENT_TIME: Duration = Duration::from_secs(2);
const SPARE: usize = 2;
/// How long to leave clients in the backlog when there are no descriptors to spare.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The epoll tokens of the socket, and of a descriptor that is handled elsewhere.
const SOCKET: u64 = 0;
const ELSEWHERE: u64 = u64::MAX;

const NOT_UNDERSTOOD: &str = "this session does not understand that";

#[derive(Debug)]
pub(crate) struct Listener {
    socket: SessionSocket,
    events: OwnedFd,
    /// The connected clients that have not said yet what they want, by their epoll token.
    pending: BTreeMap<u64, PendingClient>,
    next: u64,
    accepting: bool,
    /// No client is accepted before this time.
    retry_at: Option<Instant>,
    /// Descriptors to accept a client, and to look it up, when there are no others.
    spare: Vec<OwnedFd>,
}

#[derive(Debug)]
struct PendingClient {
    socket: OwnedFd,
    peer: PeerCredentials,
    came: Instant,
}

#[derive(Debug)]
pub(crate) enum ClientRequest {
    Takeover {
        socket: OwnedFd,
        client: Client,
        only_if_reading: bool,
    },
    /// `from`: the first byte that the client has not seen.
    Watch {
        socket: OwnedFd,
        client: Client,
        from: Option<StreamPos>,
    },
    /// Another user's process, which was refused.
    Unauthorized(PeerCredentials),
}

impl Listener {
    pub(crate) fn open(socket: SessionSocket) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &socket, epoll::EventData::new_u64(SOCKET), epoll::EventFlags::IN)?;
        let (pending, next) = (BTreeMap::new(), SOCKET + 1);
        let mut listener =
            Self { socket, events, pending, next, accepting: true, retry_at: None, spare: vec![] };
        listener.set_spare_aside();
        Ok(listener)
    }

    fn set_spare_aside(&mut self) {
        while self.spare.len() < SPARE
            && let Ok(spare) = self.events.try_clone()
        {
            self.spare.push(spare);
        }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Makes [`Self::descriptor`] readable also when `other` is.
    pub(crate) fn also_wait_for(&self, other: impl AsFd) -> io::Result<()> {
        let token = epoll::EventData::new_u64(ELSEWHERE);
        Ok(epoll::add(&self.events, other, token, epoll::EventFlags::IN)?)
    }

    pub(crate) fn next_look(&self) -> Option<Instant> {
        let is_full = self.pending.len() >= MAX_PENDING;
        let oldest = self.pending.values().map(|client| client.came + SILENT_TIME).min();
        oldest.filter(|_| is_full).into_iter().chain(self.retry_at).min()
    }

    pub(crate) fn look(&mut self) -> Vec<ClientRequest> {
        let now = Instant::now();
        if self.pending.len() >= MAX_PENDING {
            self.pending.retain(|_, client| client.came + SILENT_TIME > now);
        }
        self.retry_at = self.retry_at.filter(|at| *at > now);
        self.set_accepting();
        let mut requests = Vec::new();
        // Twice, since a client that was just accepted has often sent its request already.
        for _ in 0..2 {
            let mut events = Vec::with_capacity(2 * MAX_PENDING + 2);
            let room = spare_capacity(&mut events);
            let _ = epoll::wait(&self.events, room, Some(&Timespec::default()));
            for token in events.iter().map(|event| event.data.u64()) {
                match token {
                    SOCKET => requests.extend(self.accept()),
                    _ => requests.extend(self.receive(token)),
                }
            }
        }
        self.set_accepting();
        self.set_spare_aside();
        requests
    }

    /// Leaves clients in the backlog while too many are pending, or descriptors are short.
    fn set_accepting(&mut self) {
        let accepting = self.pending.len() < MAX_PENDING && self.retry_at.is_none();
        if accepting != self.accepting {
            let wanted = if accepting { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
            let token = epoll::EventData::new_u64(SOCKET);
            let _ = epoll::modify(&self.events, &self.socket, token, wanted);
            self.accepting = accepting;
        }
    }

    fn accept(&mut self) -> Vec<ClientRequest> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut unauthorized = Vec::new();
        for _ in 0..MAX_PENDING {
            match retry_on_intr(|| accept_with(&self.socket, flags)) {
                Ok(socket) => unauthorized.extend(self.add(socket)),
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE) if !self.spare.is_empty() => self.spare.clear(),
                Err(_) => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    break;
                }
            }
        }
        unauthorized
    }

    fn add(&mut self, socket: OwnedFd) -> Option<ClientRequest> {
        let peer = PeerCredentials::of(&socket).ok()?;
        if !is_authorized(peer) {
            refuse(&socket, "this session is another user's");
            return Some(ClientRequest::Unauthorized(peer));
        }
        let token = self.next;
        self.next += 1;
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.events, &socket, data, epoll::EventFlags::IN).ok()?;
        let came = Instant::now();
        self.pending.insert(token, PendingClient { socket, peer, came });
        None
    }

    fn receive(&mut self, token: u64) -> Option<ClientRequest> {
        let PendingClient { socket, peer, .. } = self.pending.remove(&token)?;
        let _ = epoll::delete(&self.events, &socket);
        understand(socket, peer)
    }

    /// Closes the listener. Returns the requests still pending, which must be answered.
    pub(crate) fn close(mut self) -> Vec<ClientRequest> {
        self.socket.remove();
        let mut requests = self.accept();
        let pending: Vec<u64> = self.pending.keys().copied().collect();
        requests.extend(pending.into_iter().filter_map(|token| self.receive(token)));
        requests
    }
}

/// Only the same user and root may connect.
pub(crate) fn is_authorized(peer: PeerCredentials) -> bool {
    peer.uid == 0 || peer.uid == geteuid().as_raw()
}

/// Receives what a client wants. Refuses a message that it does not understand.
pub(crate) fn understand(socket: OwnedFd, peer: PeerCredentials) -> Option<ClientRequest> {
    let said: Value = match seqpacket::receive(&socket) {
        Ok(Some((said, _))) => said,
        Err(Errno::BADMSG) => {
            refuse(&socket, NOT_UNDERSTOOD);
            return None;
        }
        Ok(None) | Err(_) => return None,
    };
    if let Ok(Opening::Takeover { version } | Opening::Watch { version }) =
        Opening::deserialize(&said)
        && version != VERSION
    {
        let _ = seqpacket::send(&socket, &Reply::Unsupported { version: VERSION }, &[]);
        return None;
    }
    match ClientMessage::deserialize(said) {
        Ok(ClientMessage::Takeover { info, only_if_reading, .. }) => {
            let client = Client::at(peer, info)?;
            Some(ClientRequest::Takeover { socket, client, only_if_reading })
        }
        Ok(ClientMessage::Watch { info, from, .. }) => {
            let client = Client::at(peer, info)?;
            Some(ClientRequest::Watch { socket, client, from })
        }
        Ok(ClientMessage::Done) => None,
        Err(_) => {
            refuse(&socket, NOT_UNDERSTOOD);
            None
        }
    }
}

pub(crate) fn refuse(socket: impl AsFd, why: &str) {
    let _ = seqpacket::send(socket, &Reply::Refused(why.to_owned()), &[]);
}
