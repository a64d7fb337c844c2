//! What a session looks after while it relays: its guard, and intruders.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::visitors::SideDoor;
use crate::claim::guard::Guard;
use crate::claim::{Claim, Intruder, Intruders};
use crate::commands::guard;
use crate::relay::{Notices, Watcher, Wish};
use crate::terminal::RawMode;

/// Sees to it that there is a guard.
#[derive(Debug)]
pub(super) struct GuardWatch<'a> {
    guard: &'a Guard,
    /// What is ours. Who only watches has none.
    claim: Option<&'a Claim>,
    raw: Option<&'a RawMode<'a>>,
    side_door: Option<SideDoor>,
    wire: Option<OwnedFd>,
    /// When guards were started anew, of late.
    restarts: VecDeque<Instant>,
}

/// So many new guards in so long a time are too many.
const MANY: (usize, Duration) = (3, Duration::from_secs(10));

impl<'a> GuardWatch<'a> {
    pub(super) fn new(
        guard: &'a Guard,
        claim: Option<&'a Claim>,
        raw: Option<&'a RawMode<'a>>,
        side_door: Option<SideDoor>,
    ) -> Self {
        Self { guard, claim, raw, side_door, wire: guard.wire(), restarts: VecDeque::new() }
    }

    /// It may have been killed before anybody looked after it.
    pub(super) fn see_that_it_is_up(&mut self, notices: &mut Notices) {
        if self.guard.was_lost() {
            let _ = self.look(notices);
        }
    }

    /// Starts another guard and tells it everything. One that is killed again and again is not
    /// replaced for ever.
    fn replace(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.restarts.retain(|restart| now.duration_since(*restart) < MANY.1);
        if self.restarts.len() >= MANY.0 {
            return Err(io::Error::other("it is killed again and again"));
        }
        self.restarts.push_back(now);
        self.guard.restart()?;
        self.claim.iter().for_each(|claim| claim.tell_again(self.guard));
        self.raw.iter().for_each(|raw| raw.tell_again());
        self.side_door.iter().for_each(|side_door| side_door.tell(self.guard));
        self.wire = self.guard.wire();
        if !self.guard.is_up() {
            return Err(io::Error::other("it was killed as well"));
        }
        // The one before it may have been lost before the claim was whole.
        self.claim.map_or(Ok(()), Claim::set_flag)
    }
}

impl Watcher for GuardWatch<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wire.as_ref().map(OwnedFd::as_fd)
    }

    fn next_look(&self) -> Option<Instant> {
        None
    }

    /// A guard never speaks: it is gone.
    fn look(&mut self, notices: &mut Notices) -> Wish {
        self.wire = None;
        match self.replace() {
            Ok(()) => notices.say("the guard was killed: there is a new one"),
            Err(error) => {
                self.wire = None;
                let Some(claim) = self.claim else {
                    notices.say(format_args!(
                        "the guard was killed, and there is no other ({error}): if this session is \
                         killed, nobody gives the terminal back"
                    ));
                    return Wish::GoOn;
                };
                claim.do_without_flag();
                notices.say(format_args!(
                    "the guard was killed, and there is no other ({error}): going on without the \
                     exclusive flag, and if this session is killed, nobody gives the terminal and \
                     the locks back"
                ));
            }
        }
        Wish::GoOn
    }
}

/// Tells of those who open the console though it is ours, and mends the locks that they break.
#[derive(Debug)]
pub(super) struct IntruderWatch<'a> {
    intruders: Option<Intruders>,
    claim: &'a Claim,
    guard: &'a Guard,
    /// When to look for a lock directory that is gone.
    mend_at: Option<Instant>,
}

/// How often to look for a lock directory that is gone: nothing tells that its path is there again.
const SEARCH: Duration = Duration::from_secs(1);

impl<'a> IntruderWatch<'a> {
    pub(super) fn new(intruders: Option<Intruders>, claim: &'a Claim, guard: &'a Guard) -> Self {
        Self { intruders, claim, guard, mend_at: None }
    }
}

impl Watcher for IntruderWatch<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.intruders.as_ref().map(Intruders::descriptor)
    }

    fn next_look(&self) -> Option<Instant> {
        let intruders = self.intruders.as_ref().and_then(Intruders::next_look);
        [intruders, self.mend_at].into_iter().flatten().min()
    }

    fn look(&mut self, notices: &mut Notices) -> Wish {
        let Some(intruders) = &mut self.intruders else { return Wish::GoOn };
        let new = intruders.look();
        let due = self.mend_at.is_some_and(|at| at <= Instant::now());
        if intruders.locks_were_touched() || due {
            for line in self.claim.mend_locks(self.guard, intruders) {
                notices.say(line);
            }
            self.mend_at = self.claim.misses_a_directory().then(|| Instant::now() + SEARCH);
        }
        for intruder in new {
            match intruder {
                Intruder::Seen(process) => notices.say(format_args!(
                    "{process} has opened the console as well: what it reads is lost to you"
                )),
                Intruder::Hidden => notices.say(
                    "somebody whom /proc hides from you has opened the console as well: what they \
                     read is lost to you",
                ),
            }
        }
        Wish::GoOn
    }
}

/// A guard that knows of the terminal alone.
pub(super) fn terminal_guard(notices: &mut Notices) -> Guard {
    let (guard, started) = guard::start();
    if let Err(error) = started {
        notices.say(format_args!(
            "no guard can be started ({error}): if this session is killed, nobody gives the terminal \
             back"
        ));
    }
    guard
}
