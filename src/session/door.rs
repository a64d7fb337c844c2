//! The door of a session: who may come in, and what they want.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, accept_with};
use serde::Deserialize as _;
use serde_json::Value;

use super::place::Listener;
use super::protocol::{Answer, Opening, Place, Request, VERSION};
use super::visitor::Visitor;
use crate::wire::{self, Peer};

/// Who comes in has to say soon what they want.
const MANNERS: Duration = Duration::from_secs(2);
/// So many may be inside that have not said yet what they want. More wait outside.
const UNHEARD: usize = 32;
/// So many are let in within one breath, however few come at a time; then the console has its turn.
const AT_ONCE: usize = 16;
/// How long that is.
const BREATH: Duration = Duration::from_millis(10);

/// What is answered to whom nobody understands.
const NOT_UNDERSTOOD: &str = "this session does not understand that";

/// The door of a session. One descriptor tells of all that happens at it.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    events: OwnedFd,
    inside: BTreeMap<u64, Caller>,
    next: u64,
    /// How many were let in since this breath began.
    let_in: usize,
    breath: Instant,
    /// Whether the door is open: whether who comes wakes us.
    open: bool,
}

#[derive(Debug)]
struct Caller {
    wire: OwnedFd,
    peer: Peer,
    until: Instant,
}

/// What somebody at the door wants.
#[derive(Debug)]
pub enum Call {
    /// To drive.
    Takeover {
        /// The line to them.
        wire: OwnedFd,
        /// Who it is.
        visitor: Visitor,
        /// Whether a driver is left alone.
        polite: bool,
    },
    /// To watch.
    Watch {
        /// The line to them.
        wire: OwnedFd,
        /// Who it is.
        visitor: Visitor,
        /// The first byte that they have not seen.
        from: Option<Place>,
    },
    /// Another user's process, which was turned away.
    Stranger(Peer),
}

/// What stands for the listener among the events, and for what is looked at elsewhere.
const LISTENER: u64 = 0;
const ELSEWHERE: u64 = u64::MAX;

impl Door {
    /// Opens it.
    pub fn open(listener: Listener) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(LISTENER);
        epoll::add(&events, &listener, token, epoll::EventFlags::IN)?;
        let (inside, next, breath) = (BTreeMap::new(), LISTENER + 1, Instant::now());
        Ok(Self { listener, events, inside, next, let_in: 0, breath, open: true })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// What becomes readable when something happens at the door.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Makes [`Self::descriptor`] tell of what happens at another one as well.
    pub fn tell_of(&self, other: impl AsFd) -> io::Result<()> {
        let token = epoll::EventData::new_u64(ELSEWHERE);
        Ok(epoll::add(&self.events, other, token, epoll::EventFlags::IN)?)
    }

    /// When to look in any case.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let patience = self.inside.values().map(|caller| caller.until).min();
        // While it is full, only who leaves makes room.
        let breath = (!self.open && !self.is_full()).then(|| self.breath + BREATH);
        [breath, patience].into_iter().flatten().min()
    }

    fn is_full(&self) -> bool {
        self.inside.len() >= UNHEARD
    }

    /// Lets in who waits, and hears what they want.
    pub fn look(&mut self) -> Vec<Call> {
        let now = Instant::now();
        self.inside.retain(|_, caller| caller.until > now);
        if now >= self.breath + BREATH {
            (self.breath, self.let_in) = (now, 0);
        }
        self.open_or_shut();
        let mut events = Vec::with_capacity(AT_ONCE);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&at_once));
        let tokens: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        let mut calls = Vec::new();
        for token in tokens {
            calls.extend(if token == LISTENER { self.let_in() } else { self.hear(token) });
        }
        self.open_or_shut();
        calls
    }

    /// Whoever comes to a shut door waits outside.
    fn open_or_shut(&mut self) {
        let open = self.let_in < AT_ONCE && !self.is_full();
        if open != self.open {
            let what = if open { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
            let token = epoll::EventData::new_u64(LISTENER);
            let _ = epoll::modify(&self.events, &self.listener, token, what);
            self.open = open;
        }
    }

    fn let_in(&mut self) -> Vec<Call> {
        let mut strangers = Vec::new();
        while self.let_in < AT_ONCE && !self.is_full() {
            self.let_in += 1;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match retry_on_intr(|| accept_with(&self.listener, flags)) {
                Ok(wire) => strangers.extend(self.admit(wire)),
                Err(Errno::AGAIN) => break,
                // Out of descriptors, or the like: later.
                Err(_) => self.let_in = AT_ONCE,
            }
        }
        strangers
    }

    fn admit(&mut self, wire: OwnedFd) -> Option<Call> {
        let peer = Peer::of(&wire).ok()?;
        if !may_come(peer) {
            refuse(&wire, "this session is another user's");
            return Some(Call::Stranger(peer));
        }
        let token = self.next;
        self.next += 1;
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.events, &wire, data, epoll::EventFlags::IN).ok()?;
        let until = Instant::now() + MANNERS;
        self.inside.insert(token, Caller { wire, peer, until });
        None
    }

    fn hear(&mut self, token: u64) -> Vec<Call> {
        let Some(Caller { wire, peer, .. }) = self.inside.remove(&token) else {
            return Vec::new();
        };
        let _ = epoll::delete(&self.events, &wire);
        understand(wire, peer).into_iter().collect()
    }

    /// Closes the door for good, and gives who still stood there: they are told what became of it.
    #[must_use]
    pub fn close(mut self) -> Vec<Call> {
        self.listener.remove();
        let mut calls = self.look();
        let waiting: Vec<u64> = self.inside.keys().copied().collect();
        calls.extend(waiting.into_iter().flat_map(|token| self.hear(token)));
        calls
    }
}

/// The same user or root, and nobody else.
pub(crate) fn may_come(peer: Peer) -> bool {
    peer.uid == 0 || peer.uid == geteuid().as_raw()
}

/// Hears what somebody wants. What cannot be understood is answered so, and nothing comes of it.
pub(crate) fn understand(wire: OwnedFd, peer: Peer) -> Option<Call> {
    let said: Value = match wire::receive(&wire) {
        Ok(Some((said, _))) => said,
        Err(Errno::BADMSG) => {
            refuse(&wire, NOT_UNDERSTOOD);
            return None;
        }
        Ok(None) | Err(_) => return None,
    };
    if let Ok(Opening::Takeover { version } | Opening::Watch { version }) =
        Opening::deserialize(&said)
        && version != VERSION
    {
        let _ = wire::send(&wire, &Answer::Unsupported { version: VERSION }, &[]);
        return None;
    }
    match Request::deserialize(said) {
        Ok(Request::Takeover { about, polite, .. }) => {
            let visitor = Visitor::at(peer, about)?;
            Some(Call::Takeover { wire, visitor, polite })
        }
        Ok(Request::Watch { about, from, .. }) => {
            let visitor = Visitor::at(peer, about)?;
            Some(Call::Watch { wire, visitor, from })
        }
        Ok(Request::Done) => None,
        Err(_) => {
            refuse(&wire, NOT_UNDERSTOOD);
            None
        }
    }
}

/// Says no. Who does not listen has missed it.
pub fn refuse(wire: impl AsFd, why: &str) {
    let _ = wire::send(wire, &Answer::Refused(why.to_owned()), &[]);
}
