//! Those who come to a session, to drive instead.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::audit::{self, Event};
use crate::claim::Claim;
use crate::claim::guard::Guard;
use crate::console::Target;
use crate::relay::{Notices, Traffic, Undelivered, Watcher, Wish};
use crate::session::door::refuse;
use crate::session::handover::{self, Outcome, PATIENCE};
use crate::session::place::{Listener, Who};
use crate::session::{Call, Door, Visitor};
use crate::test_point;

/// A session's visitors. Without a socket nobody comes.
#[derive(Debug)]
pub(super) struct Visitors<'a> {
    console: String,
    guard: &'a Guard,
    door: Option<Door>,
    /// Where the guard answers if we do not.
    side_door: Option<Listener>,
    /// Who is to drive instead.
    successor: Option<(OwnedFd, Visitor)>,
}

/// The socket at which the guard answers when the session does not.
#[derive(Debug)]
pub(super) struct SideDoor {
    /// The names of both sockets.
    paths: [PathBuf; 2],
    listener: OwnedFd,
}

impl SideDoor {
    /// Tells a guard of it.
    pub(super) fn tell(&self, guard: &Guard) {
        guard.tell_sockets(&self.paths, &self.listener);
    }
}

/// How a session passed its console on.
#[derive(Debug)]
pub(super) enum Passed {
    /// To this visitor.
    On(Visitor),
    /// To nobody: this visitor ended first, and the console is free.
    Dropped(Visitor),
}

impl Passed {
    /// Writes it to the audit trail.
    pub(super) fn record(&self, target: &Target, traffic: &Traffic) {
        let (received, sent) = (traffic.received(), traffic.sent());
        let by = match self {
            Self::On(visitor) => visitor.to_string(),
            Self::Dropped(visitor) => format!("{visitor}, which ended first"),
        };
        audit::record(&target.to_string(), &Event::TakenOver { by: &by, received, sent });
    }
}

impl<'a> Visitors<'a> {
    /// Makes the session's sockets.
    pub(super) fn admit(console: String, guard: &'a Guard, notices: &mut Notices) -> Self {
        let made = Listener::of_ours(Who::Session)
            .and_then(|own| Ok((Door::open(own)?, Listener::of_ours(Who::Guard)?)));
        let (door, side_door) = match made {
            Ok((door, side_door)) => (Some(door), Some(side_door)),
            Err(error) => {
                notices.say(format_args!("nobody can take this session over cleanly: {error}"));
                (None, None)
            }
        };
        let visitors = Self { console, guard, door, side_door, successor: None };
        if let Some(side_door) = visitors.side_door() {
            side_door.tell(guard);
        }
        visitors
    }

    /// The side door once more, for a new guard.
    pub(super) fn side_door(&self) -> Option<SideDoor> {
        let (door, side_door) = (self.door.as_ref()?, self.side_door.as_ref()?);
        let listener = side_door.as_fd().try_clone_to_owned().ok()?;
        let paths = [door.path(), side_door.path()].map(Path::to_path_buf);
        Some(SideDoor { paths, listener })
    }

    fn receive(&mut self, call: Call, notices: &mut Notices) {
        match call {
            Call::Takeover { wire, visitor } if self.successor.is_none() => {
                // Who asked and left has not asked.
                if handover::outcome(&wire, Some(Instant::now())) == Outcome::Open {
                    self.successor = Some((wire, visitor));
                }
            }
            Call::Takeover { wire, .. } => self.send_away(&wire),
            Call::Stranger(peer) => {
                let peer = format!("pid {} of uid {}", peer.pid, peer.uid);
                audit::record(&self.console, &Event::PeerRefused { peer: &peer });
                notices.say(format_args!("turned away another user: {peer}"));
            }
        }
    }

    /// Tells one of several who wanted the console at once whom it went to.
    fn send_away(&self, wire: &OwnedFd) {
        if let Some((_, winner)) = &self.successor {
            refuse(wire, &format!("{winner} took it over at the same moment"));
        }
    }

    /// Gives the console to the visitor for whom the relay ended, and what it left undelivered. Nothing
    /// where there is none.
    pub(super) fn pass_on(&mut self, claim: &Claim, left: &Undelivered) -> Option<Passed> {
        let (line, visitor) = self.successor.as_ref()?;
        self.guard.tell_handing_over(line);
        test_point::reached("handing-over");
        let given = handover::give(line, claim.console(), &left.typed, &left.printed);
        test_point::reached("given");
        let until = Some(Instant::now() + PATIENCE);
        let outcome = given.map_or(Outcome::Dropped, |()| handover::outcome(line, until));
        let passed = match outcome {
            Outcome::Dropped => Passed::Dropped(visitor.clone()),
            Outcome::Taken | Outcome::Open => {
                if outcome == Outcome::Taken {
                    self.guard.tell_handed_over();
                }
                claim.give_away();
                Passed::On(visitor.clone())
            }
        };
        Some(passed)
    }
}

impl Drop for Visitors<'_> {
    /// Nobody is left standing at the door.
    fn drop(&mut self) {
        for call in self.door.take().map_or_else(Vec::new, Door::close) {
            if let Call::Takeover { wire, .. } = call {
                self.send_away(&wire);
            }
        }
        if let Some(side_door) = &self.side_door {
            side_door.remove();
        }
    }
}

impl Watcher for Visitors<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().map(Door::descriptor)
    }

    fn next_look(&self) -> Option<Instant> {
        self.door.as_ref().and_then(Door::next_look)
    }

    fn look(&mut self, notices: &mut Notices) -> Wish {
        for call in self.door.as_mut().map_or_else(Vec::new, Door::look) {
            self.receive(call, notices);
        }
        if self.successor.is_some() { Wish::HandOver } else { Wish::GoOn }
    }
}
