//! A viewer whose operator left: the operator's guard passes the console to one of the viewers, and
//! names that one to the others.

use std::cell::RefCell;
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::claim::error::ClaimError;
use crate::claim::{request::Request, transfer::PreparedTakeover};
use crate::commands::attach::acquire::{Acquired, register_reader};
use crate::commands::attach::context::{Attach, UserProgress, request};
use crate::commands::attach::outcome::Role;
use crate::commands::attach::sources::{WITHOUT_GUARD, start_guard};
use crate::commands::attach::takeover::{accept, can_reach};
use crate::exit_status::ExitStatus;
use crate::process::Process;
use crate::session::handoff::{Handoff, HandoffError, TakeoverRequest, ask};
use crate::session::{protocol::StreamPos, registry::SocketRole, scrollback::Scrollback};
use crate::test_point;

/// How long to look at the lock names again. Shorter than the guard waits for the one that it named.
const NAMES_TIME: Duration = Duration::from_millis(500);
/// The guard is one process, and hundreds of viewers may ask it.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl Attach<'_> {
    /// Asks the guard of `operator` who reads the console now: this session does, or another that it
    /// watches. The user has seen all before `at`; nothing was printed after that if `is_end`.
    /// `None` if there is no such guard: then anybody may claim the console.
    pub(super) fn next_reader(
        &mut self,
        operator: &Process,
        at: StreamPos,
        is_end: bool,
    ) -> anyhow::Result<Option<Role>> {
        let Some(uid) = can_reach(operator) else { return Ok(None) };
        let question = TakeoverRequest {
            uid,
            pid: operator.pid,
            role: SocketRole::Guard,
            info: self.client_info(),
            only_if_reading: true,
            time_limit: ANSWER_TIME,
        };
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let signals = RefCell::new(&mut self.signals);
            let answer = ask(&question, &|| signals.borrow_mut().ending().is_some());
            match answer {
                Ok(handoff) => {
                    test_point::reached("given-to-read");
                    let scrollback =
                        if is_end { Scrollback::going_on(at, &[]) } else { Scrollback::new() };
                    // If that fails, the guard offers it to another.
                    let acquired = self.read_next(operator, handoff, scrollback).ok().map(Box::new);
                    return Ok(
                        acquired.map(|acquired| Role::Operate { acquired, can_write: false })
                    );
                }
                Err(HandoffError::NextReader { pid, uid }) => {
                    let view = self.follow(pid, uid, Some(at))?;
                    return Ok(view.map(|view| Role::Watch(Box::new(view))));
                }
                // The guard has not noticed yet that the operator is gone, or many ask at once.
                Err(HandoffError::Ended) => {}
                Err(HandoffError::Nobody(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    let signal = self.signals.ending();
                    return Ok(signal.map(|signal| Role::Exit(ExitStatus::Signal(signal))));
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    fn read_next(
        &mut self,
        operator: &Process,
        handoff: Handoff,
        scrollback: Scrollback,
    ) -> Result<Acquired, ClaimError> {
        let guard = start_guard(&mut self.messages, WITHOUT_GUARD);
        // Before the claim: a process that sees the claim sees that we only read.
        let reader = register_reader(&guard);
        let progress = UserProgress::new(&mut self.messages, &mut self.signals);
        let request = request(&self.options, self.target, &guard, &progress, &self.early_watch);
        let request = Request { force: false, handoff_from: Some(operator.pid), ..request };
        let prepared = prepare(&request)?;
        let mut taken = accept(&request, operator, prepared, handoff)?;
        taken.claim.report_earlier_openers();
        (taken.scrollback, taken.from) = (scrollback, None);
        Ok(Acquired { taken, terminal: None, guard, reader, how: "read-only" })
    }
}

/// A newcomer that tries to claim the console has its names for a moment, and gives them back.
fn prepare(request: &Request<'_>) -> Result<PreparedTakeover, ClaimError> {
    let deadline = Instant::now() + NAMES_TIME;
    loop {
        match PreparedTakeover::prepare(request) {
            Err(error) if error.is_busy() && Instant::now() < deadline => {
                thread::sleep(RETRY_INTERVAL);
            }
            prepared => return prepared,
        }
    }
}
