//! Those who come to a session, to drive instead.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use crate::audit::{self, Event};
use crate::claim::Claim;
use crate::claim::guard::Guard;
use crate::process::Process;
use crate::relay::{Notices, Undelivered, Watcher, Wish};
use crate::session::door::refuse;
use crate::session::handover::{self, Outcome};
use crate::session::place::{Listener, Site, Who};
use crate::session::{Call, Door, Visitor};
use crate::test_point;

/// A session's visitors. Without a socket nobody comes.
#[derive(Debug)]
pub(super) struct Visitors<'a> {
    claim: &'a Claim,
    guard: &'a Guard,
    door: Option<Door>,
    /// Where the guard answers if we do not.
    side_door: Option<Listener>,
    /// All names of the sockets of both.
    paths: Vec<PathBuf>,
    /// Those who want to drive instead, the first first.
    candidates: VecDeque<Candidate>,
    /// Those who asked, and then did not take it.
    fickle: VecDeque<Process>,
    /// Who drives instead.
    successor: Option<Visitor>,
}

/// So many of those who did not take the console are remembered.
const REMEMBERED: usize = 64;

/// Somebody who wants to drive instead.
#[derive(Debug)]
struct Candidate {
    line: OwnedFd,
    visitor: Visitor,
    came: Instant,
}

/// The socket at which the guard answers when the session does not.
#[derive(Debug)]
pub(super) struct SideDoor {
    paths: Vec<PathBuf>,
    listener: OwnedFd,
}

impl SideDoor {
    /// Tells a guard of it.
    pub(super) fn tell(&self, guard: &Guard) {
        guard.tell_sockets(&self.paths);
        guard.tell_side_door(&self.listener);
    }
}

/// Makes the sockets of the session and of its guard, which knows of them beforehand.
fn open_doors(guard: &Guard) -> io::Result<(Door, Listener, Vec<PathBuf>)> {
    let site = Site::of_ours()?;
    let paths = site.paths();
    guard.tell_sockets(&paths);
    let made = site.listen(Who::Session).and_then(|own| {
        test_point::reached("one-socket");
        Ok((Door::open(own)?, site.listen(Who::Guard)?))
    });
    match made {
        Ok((door, side_door)) => {
            guard.tell_side_door(&side_door);
            Ok((door, side_door, paths))
        }
        Err(error) => {
            remove_all(&paths);
            Err(error)
        }
    }
}

fn remove_all(sockets: &[PathBuf]) {
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
}

impl<'a> Visitors<'a> {
    /// Makes the session's sockets.
    pub(super) fn admit(claim: &'a Claim, guard: &'a Guard, notices: &mut Notices) -> Self {
        let (door, side_door, paths) = match open_doors(guard) {
            Ok((door, side_door, paths)) => (Some(door), Some(side_door), paths),
            Err(error) => {
                notices.say(format_args!("nobody can take this session over cleanly: {error}"));
                (None, None, Vec::new())
            }
        };
        let (candidates, fickle) = (VecDeque::new(), VecDeque::new());
        let successor = None;
        Self { claim, guard, door, side_door, paths, candidates, fickle, successor }
    }

    /// The side door once more, for a new guard.
    pub(super) fn side_door(&self) -> Option<SideDoor> {
        let listener = self.side_door.as_ref()?.as_fd().try_clone_to_owned().ok()?;
        Some(SideDoor { paths: self.paths.clone(), listener })
    }

    /// Who drives instead, if we handed the console over.
    pub(super) fn successor(&self) -> Option<&Visitor> {
        self.successor.as_ref()
    }

    fn receive(&mut self, call: Call, notices: &mut Notices) {
        match call {
            Call::Takeover { wire, visitor } if self.is_fickle(&visitor) => {
                refuse(&wire, "you asked before, and did not take it");
            }
            Call::Takeover { wire: line, visitor } => {
                self.candidates.push_back(Candidate { line, visitor, came: Instant::now() });
            }
            Call::Stranger(peer) => {
                let peer = format!("pid {} of uid {}", peer.pid, peer.uid);
                let console = self.claim.console().to_string();
                audit::record(&console, &Event::PeerRefused { peer: &peer });
                notices.say(format_args!("turned away another user: {peer}"));
            }
        }
    }

    /// Whoever waits for nobody's answer would keep the console from moving, again and again.
    fn is_fickle(&self, visitor: &Visitor) -> bool {
        let (pid, started) = (visitor.process.pid, visitor.process.started);
        self.fickle.iter().any(|process| (process.pid, process.started) == (pid, started))
    }

    /// Gives the console to who is at the other end of `line`, and what the relay has not delivered.
    fn give(&self, line: &OwnedFd, left: &Undelivered) -> Outcome {
        self.guard.tell_handing_over(line);
        // Whatever becomes of us, nothing of it is given back: that is for the guard, who will know.
        self.claim.give_away();
        test_point::reached("handing-over");
        let given = handover::give(line, self.claim.console(), &left.typed, &left.printed);
        test_point::reached("given");
        let outcome = given.map_or_else(|_| handover::settle(line), |()| handover::outcome(line));
        test_point::reached("settled");
        outcome
    }
}

impl Drop for Visitors<'_> {
    /// Nobody is left standing at the door.
    fn drop(&mut self) {
        let late = self.door.take().map_or_else(Vec::new, Door::close).into_iter();
        let late = late.filter_map(|call| match call {
            Call::Takeover { wire, .. } => Some(wire),
            Call::Stranger(_) => None,
        });
        let waiting = std::mem::take(&mut self.candidates).into_iter().map(|it| it.line);
        if let Some(winner) = &self.successor {
            waiting.chain(late).for_each(|wire| {
                refuse(&wire, &format!("{winner} took it over at the same moment"));
            });
        }
        remove_all(&self.paths);
    }
}

impl Watcher for Visitors<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().map(Door::descriptor)
    }

    fn next_look(&self) -> Option<Instant> {
        let next = self.candidates.front().map(|candidate| candidate.came);
        next.or_else(|| self.door.as_ref().and_then(Door::next_look))
    }

    fn look(&mut self, notices: &mut Notices) -> Wish {
        for call in self.door.as_mut().map_or_else(Vec::new, Door::look) {
            self.receive(call, notices);
        }
        // Who asked and left has not asked.
        self.candidates.retain(|candidate| handover::is_waiting(&candidate.line));
        if self.candidates.is_empty() { Wish::GoOn } else { Wish::HandOver }
    }

    fn hand_over(&mut self, left: &Undelivered, notices: &mut Notices) -> bool {
        let Some(Candidate { line, visitor, .. }) = self.candidates.pop_front() else {
            return false;
        };
        match self.give(&line, left) {
            Outcome::Taken => {
                self.guard.tell_handed_over();
                self.successor = Some(visitor);
                true
            }
            Outcome::Kept => {
                self.guard.tell_kept();
                self.claim.take_back(visitor.process.pid, self.guard);
                notices.say(format_args!("{visitor} asked for the console, and did not take it"));
                self.fickle.truncate(REMEMBERED - 1);
                self.fickle.push_front(visitor.process);
                let candidates = std::mem::take(&mut self.candidates);
                for Candidate { line, visitor, .. } in candidates {
                    self.receive(Call::Takeover { wire: line, visitor }, notices);
                }
                false
            }
        }
    }
}
