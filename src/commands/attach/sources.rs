//! Event sources of a session: its guard, its lock files, and other programs on the console.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{collections::VecDeque, io};

use crate::claim::monitor::{Intruder, OpenMonitor};
use crate::relay::event_source::{Action, EventSource};
use crate::{claim::Claim, guard::client::Guard, messages::Messages, terminal::RawMode};

pub(super) struct GuardSource<'a> {
    guard: &'a Guard,
    /// `None` for a viewer.
    claim: Option<&'a Claim>,
    raw: Option<&'a RawMode<'a>>,
    socket: Option<OwnedFd>,
    /// The starts of the last guards.
    restarts: VecDeque<Instant>,
}

const MAX_RESTARTS: usize = 3;
const RESTART_PERIOD: Duration = Duration::from_secs(10);

pub(super) const WITHOUT_GUARD: &str = "going on without the exclusive flag, and if this session is \
    killed, nobody gives the terminal and the locks back";
pub(super) const WITHOUT_TERMINAL_GUARD: &str =
    "if this session is killed, nobody gives the terminal back";

impl<'a> GuardSource<'a> {
    pub(super) fn new(
        guard: &'a Guard,
        claim: Option<&'a Claim>,
        raw: Option<&'a RawMode<'a>>,
    ) -> Self {
        Self { guard, claim, raw, socket: guard.socket(), restarts: VecDeque::new() }
    }

    pub(super) fn replace_if_lost(&mut self, messages: &mut Messages) {
        if self.guard.was_lost() {
            let _ = self.look(messages);
        }
    }

    /// Starts a guard and tells it everything, unless guards are killed again and again.
    fn replace(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.restarts.retain(|restart| now.duration_since(*restart) < RESTART_PERIOD);
        if self.restarts.len() >= MAX_RESTARTS {
            return Err(io::Error::other("it is killed again and again"));
        }
        self.restarts.push_back(now);
        self.guard.restart()?;
        self.claim.iter().for_each(|claim| claim.tell_again(self.guard));
        self.raw.iter().for_each(|raw| raw.tell_again());
        self.socket = self.guard.socket();
        if !self.guard.is_up() {
            return Err(io::Error::other("it was killed as well"));
        }
        // The guard before it may have been lost before the flag was set.
        self.claim.map_or(Ok(()), Claim::set_flag)
    }
}

impl EventSource for GuardSource<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(OwnedFd::as_fd)
    }

    /// A guard never sends anything: its socket is readable when it is gone.
    fn look(&mut self, messages: &mut Messages) -> Action {
        self.socket = None;
        match self.replace() {
            Ok(()) => messages.info("the guard was killed: there is a new one"),
            Err(error) => {
                self.socket = None;
                self.claim.iter().for_each(|claim| claim.do_without_flag());
                let consequence =
                    if self.claim.is_some() { WITHOUT_GUARD } else { WITHOUT_TERMINAL_GUARD };
                messages.info(format_args!(
                    "the guard was killed, and there is no other ({error}): {consequence}"
                ));
            }
        }
        Action::Continue
    }
}

pub(super) struct MonitorSource<'a> {
    pub(super) monitor: Option<OpenMonitor>,
    pub(super) claim: &'a Claim,
    pub(super) guard: &'a Guard,
}

impl EventSource for MonitorSource<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(OpenMonitor::descriptor)
    }

    fn next_look(&self) -> Option<Instant> {
        self.monitor.as_ref().and_then(OpenMonitor::next_look)
    }

    fn look(&mut self, messages: &mut Messages) -> Action {
        let Some(monitor) = &mut self.monitor else { return Action::Continue };
        let new = monitor.look();
        if monitor.locks_were_touched() {
            self.claim.repair_locks(self.guard).iter().for_each(|line| messages.info(line));
        }
        if monitor.was_closed() {
            // A hang-up is for the relay to find.
            let lines = self.claim.console().check_settings().unwrap_or_default();
            for line in lines {
                messages.info(line);
            }
        }
        for intruder in new {
            match intruder {
                Intruder::Visible(process) => messages.info(format_args!(
                    "{process} has opened the console as well: what it reads is lost to you"
                )),
                Intruder::Hidden => messages.info(
                    "somebody whom /proc hides from you has opened the console as well: what they \
                     read is lost to you",
                ),
            }
        }
        Action::Continue
    }
}

/// `consequence` says what is missing without a guard.
pub(super) fn start_guard(messages: &mut Messages, consequence: &str) -> Guard {
    let (guard, started) = Guard::start();
    if let Err(error) = started {
        messages.info(format_args!("no guard can be started ({error}): {consequence}"));
    }
    guard
}
