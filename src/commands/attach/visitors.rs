//! Those who come to a session, to drive instead or to watch.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::candidates::{Candidate, Candidates};
use crate::audit::{self, Event};
use crate::claim::Claim;
use crate::claim::guard::Guard;
use crate::relay::{Ending, Notices, Undelivered, Watcher, Wish};
use crate::session::door::refuse;
use crate::session::handover::{self, Outcome};
use crate::session::place::{Listener, Site, Who};
use crate::session::protocol::{Leave, Place as Seen};
use crate::session::{Call, Door, Gallery, Seatings, Tape, Visitor};
use crate::test_point;

/// Why who does not use force gets nothing.
const IT_DRIVES: &str = "it drives";

/// A session's visitors. Without a socket nobody comes.
#[derive(Debug)]
pub(super) struct Visitors<'a> {
    claim: &'a Claim,
    guard: &'a Guard,
    rules: Rules<'a>,
    door: Option<Door>,
    /// Where the guard answers if we do not.
    side_door: Option<Listener>,
    /// All names of the sockets of both.
    paths: Vec<PathBuf>,
    /// Those who watch.
    gallery: Option<Gallery>,
    /// How many may still come to watch.
    seatings: Seatings,
    /// What they are told at the end.
    leave: Leave,
    /// Those who want to drive instead.
    candidates: Candidates,
    /// The lines to those who could not be told that the console is still ours. Closed, they would say
    /// that nobody is left to give it.
    untold: Vec<OwnedFd>,
    /// Who drives instead.
    successor: Option<Visitor>,
    /// The place of the first byte that was not shown when we handed it over.
    seen: Option<Seen>,
}

/// What visitors may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Nobody may watch.
    pub(super) private: bool,
    /// Whether the session types. Otherwise whoever wants to drive is let do so.
    pub(super) typing: &'a Cell<bool>,
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
    /// Makes the session's sockets. Those who watch get what is on `tape`.
    pub(super) fn admit(
        claim: &'a Claim,
        guard: &'a Guard,
        rules: Rules<'a>,
        tape: Tape,
        notices: &mut Notices,
    ) -> Self {
        let (door, side_door, paths) = match open_doors(guard) {
            Ok((door, side_door, paths)) => (Some(door), Some(side_door), paths),
            Err(error) => {
                notices.say(format_args!("nobody can take this session over cleanly: {error}"));
                (None, None, Vec::new())
            }
        };
        let gallery = door.as_ref().and_then(|door| {
            let gallery = Gallery::open(tape).ok()?;
            door.tell_of(gallery.descriptor()).ok()?;
            Some(gallery)
        });
        Self {
            claim,
            guard,
            rules,
            door,
            side_door,
            paths,
            gallery,
            seatings: Seatings::new(Instant::now()),
            leave: Leave::Left,
            candidates: Candidates::default(),
            untold: Vec::new(),
            successor: None,
            seen: None,
        }
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
            Call::Takeover { wire, polite: true, .. } if self.rules.typing.get() => {
                refuse(&wire, IT_DRIVES);
            }
            Call::Takeover { wire: line, visitor, polite } => {
                self.candidates.admit(Candidate { line, visitor, polite });
            }
            Call::Watch { wire, visitor, from } => self.seat(wire, visitor, from, notices),
            Call::Stranger(peer) => {
                let (peer, console) = (peer.to_string(), self.claim.console().to_string());
                audit::record(&console, &Event::PeerRefused { peer: &peer });
                notices.say(format_args!("turned away another user: {peer}"));
            }
        }
    }

    /// Lets somebody watch, or says why not.
    fn seat(&mut self, wire: OwnedFd, who: Visitor, from: Option<Seen>, notices: &mut Notices) {
        // Nothing is said of those: it would be said without end.
        if !self.seatings.permit(Instant::now()) {
            return refuse(&wire, "too many come and go: try again later");
        }
        let (console, by) = (self.claim.console().to_string(), who.to_string());
        let seated = match &mut self.gallery {
            Some(gallery) if !self.rules.private => gallery.seat(wire, who, from),
            _ => Err((wire, "it lets nobody watch".to_owned())),
        };
        match seated {
            Ok(()) => {
                audit::record(&console, &Event::Watched { by: &by });
                notices.say(format_args!("watched by {by}"));
            }
            Err((wire, why)) => {
                audit::record(&console, &Event::WatchRefused { by: &by, why: &why });
                notices.say(format_args!("did not let watch, since {why}: {by}"));
                refuse(&wire, &why);
            }
        }
    }

    /// Those who watch, and what they are to be told at the end: by somebody else from now on.
    pub(super) fn take_gallery(&mut self, ending: Ending) -> Option<(Gallery, Leave)> {
        let leave = if ending == Ending::HungUp { Leave::HungUp } else { self.leave };
        Some((self.gallery.take()?, leave))
    }

    /// The place of the first byte that was not shown, when we handed the console over.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// Notes who drives now, and where our user was.
    fn note_heir(&mut self, heir: Visitor, left: &Undelivered) {
        let (pid, uid) = (heir.process.pid, heir.process.uid.unwrap_or_default());
        self.leave = Leave::TakenOver { pid, uid };
        let end = self.gallery.as_ref().map(|gallery| gallery.tape().end());
        let not_shown = left.printed.len() as u64;
        self.seen = end.map(|end| Seen { at: end.at.saturating_sub(not_shown), ..end });
        self.successor = Some(heir);
    }

    /// Gives the console to who is at the other end of `line` and takes it within `patience`, with what
    /// the relay has not delivered.
    fn give(&self, line: &OwnedFd, patience: Duration, left: &Undelivered) -> Outcome {
        self.guard.tell_handing_over(line);
        // Whatever becomes of us, nothing of it is given back: that is for the guard, who will know.
        self.claim.give_away();
        test_point::reached("handing-over");
        let tape = self.gallery.as_ref().map(Gallery::tape);
        let left = [&left.typed[..], &left.printed];
        let given = handover::give(line, self.claim.console(), left, tape);
        test_point::reached("given");
        let outcome = match given {
            Ok(()) => handover::outcome(line, patience),
            Err(_) => handover::keep(line),
        };
        test_point::reached("settled");
        outcome
    }
}

impl Drop for Visitors<'_> {
    /// Nobody is left standing at the door, and those who watch learn that it is over.
    fn drop(&mut self) {
        let late = self.door.take().map_or_else(Vec::new, Door::close).into_iter();
        let late = late.filter_map(|call| match call {
            Call::Takeover { wire, .. } => Some(wire),
            Call::Watch { .. } | Call::Stranger(_) => None,
        });
        let waiting = std::mem::take(&mut self.candidates).into_lines();
        if let Some(winner) = &self.successor {
            waiting.chain(late).for_each(|wire| {
                refuse(&wire, &format!("{winner} took it over at the same moment"));
            });
        }
        if let Some(gallery) = self.gallery.take() {
            gallery.close(self.leave);
        }
        remove_all(&self.paths);
    }
}

impl Watcher for Visitors<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().map(Door::descriptor)
    }

    fn next_look(&self) -> Option<Instant> {
        let door = self.door.as_ref().and_then(Door::next_look);
        let gallery = self.gallery.as_ref().and_then(Gallery::next_look);
        [self.candidates.next_look(), door, gallery].into_iter().flatten().min()
    }

    fn look(&mut self, notices: &mut Notices) -> Wish {
        for call in self.door.as_mut().map_or_else(Vec::new, Door::look) {
            self.receive(call, notices);
        }
        for gone in self.gallery.as_mut().map_or_else(Vec::new, Gallery::look) {
            notices.say(format_args!("watched no more by {gone}"));
        }
        if self.candidates.is_one_due() { Wish::HandOver } else { Wish::GoOn }
    }

    fn hand_over(&mut self, left: &Undelivered, notices: &mut Notices) -> bool {
        let Some((Candidate { line, visitor, polite }, patience)) = self.candidates.next() else {
            return false;
        };
        // It came when we only read; meanwhile our user has taken the wheel.
        if polite && self.rules.typing.get() {
            refuse(&line, IT_DRIVES);
            return false;
        }
        let start = Instant::now();
        match self.give(&line, patience, left) {
            Outcome::Taken => {
                self.guard.tell_handed_over();
                self.note_heir(visitor, left);
                true
            }
            Outcome::Kept { told } => {
                self.untold.extend((!told).then_some(line));
                self.guard.tell_kept();
                self.claim.take_back(visitor.process.pid, self.guard);
                let (console, by) = (self.claim.console().to_string(), visitor.to_string());
                audit::record(&console, &Event::NotTaken { by: &by });
                notices.say(format_args!("{visitor} asked for the console, and did not take it"));
                self.candidates.note_failure(visitor.process, start.elapsed());
                false
            }
        }
    }

    fn state(&self) -> Option<String> {
        let watching = self.gallery.iter().flat_map(Gallery::viewers);
        let lines: Vec<_> = watching.map(|viewer| format!("watched by {viewer}")).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn hears(&mut self, printed: &[u8]) {
        if let Some(gallery) = &mut self.gallery {
            gallery.hears(printed);
        }
    }
}
