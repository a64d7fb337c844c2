//! How to watch a console: from the session that holds it, or if nobody does, by reading it.

use std::time::{Duration, Instant};
use std::{io, thread};

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::commands::attach::{
    acquire::TakeoverScope, context::Attach, outcome::Role, takeover::can_reach, view::View,
};
use crate::exit_status::ExitStatus;
use crate::process::{Presence, Process};
use crate::session::handoff::{ANSWER_TIME, HandoffError};
use crate::session::{protocol::StreamPos, subscription::Subscription};

const RETRY_FOR: Duration = Duration::from_secs(5);
/// How long a session that took the console over may be silent to the former session's viewers.
const SUCCESSOR_TIME: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl Attach<'_> {
    /// Watches the holder, or reads a free console. The user has seen the output before `from`.
    pub(super) fn open_view(&mut self, from: Option<StreamPos>) -> anyhow::Result<Role> {
        let deadline = Instant::now() + RETRY_FOR;
        // Many viewers may look at once when their operator leaves: their pauses differ.
        let odd = Duration::from_millis(u64::from(Process::own_pid().unsigned_abs() % 31));
        loop {
            if let Some(signal) = self.signals.obey()?.ending {
                return Ok(Role::Exit(ExitStatus::Signal(signal)));
            }
            let error = match self.acquire_to_read() {
                Ok(role) => return Ok(role),
                Err(error) => error.downcast::<ClaimError>()?,
            };
            let again = match error.session() {
                // It holds another console, or has not opened this one yet.
                Some(holder) if holder.has_open(self.target.device()) == Some(false) => true,
                Some(holder) => match self.subscribe(holder, from) {
                    Ok(view) => return Ok(Role::Watch(Box::new(view))),
                    Err(HandoffError::Nobody(_) | HandoffError::Ended) => true,
                    Err(error) => return Err(self.unwatched(holder, &error).into()),
                },
                // The guard of an operator that just ended may have left before it could be named.
                None if from.is_some() => error.may_pass(),
                None => error.is_transient(),
            };
            if !again || Instant::now() >= deadline {
                return Err(error.into());
            }
            thread::sleep(RETRY_INTERVAL + odd);
        }
    }

    /// Like `open_view`, after the operator left, perhaps after the process `successor` had taken
    /// the console over. If that one did not pass the console on, its output may be lost.
    pub(super) fn open_view_after(
        &mut self,
        successor: Option<i32>,
        from: Option<StreamPos>,
    ) -> anyhow::Result<Role> {
        let role = self.open_view(from);
        let lives = |pid: i32| matches!(Process::find(pid), Presence::Alive(_));
        let goes_on = match &role {
            Ok(Role::Watch(view)) => from.is_some_and(|from| from.stream == view.stream()),
            Ok(Role::Operate { .. }) => false,
            Ok(Role::Exit(_)) => true,
            // The error names the holder, which may be the successor.
            Err(_) => self.signals.ending().is_some() || successor.is_some_and(lives),
        };
        if let Some(pid) = successor.filter(|_| !goes_on) {
            let target = self.target;
            self.messages.info(format_args!(
                "vconsole (pid {pid}) had taken {target} over, and is gone: what it read may be missing"
            ));
        }
        role
    }

    fn acquire_to_read(&mut self) -> anyhow::Result<Role> {
        let snapshot = self.look_again()?;
        self.check_free(&snapshot)?;
        let mut acquired = self.acquire(&snapshot, TakeoverScope::None)?;
        acquired.how = "read-only";
        Ok(Role::Operate { acquired: Box::new(acquired), can_write: false })
    }

    fn subscribe(&self, holder: &Process, from: Option<StreamPos>) -> Result<View, HandoffError> {
        let Some(uid) = can_reach(holder) else {
            let why = "it is another user's, root can watch it".to_owned();
            return Err(HandoffError::Refused(why));
        };
        let subscription = Subscription::ask(uid, holder.pid, self.client_info(), from)?;
        Ok(View::new(subscription, holder.clone(), self.target))
    }

    /// Watches the new holder, which may have no socket yet. `None` if it is gone.
    pub(super) fn follow(
        &mut self,
        pid: i32,
        uid: u32,
        from: Option<StreamPos>,
    ) -> Result<Option<View>, ClaimError> {
        let start = Instant::now();
        let Presence::Alive(mut operator) = Process::find(pid) else { return Ok(None) };
        operator.uid = Some(uid);
        loop {
            if self.signals.ending().is_some() {
                return Err(self.cancelled());
            }
            match self.subscribe(&operator, from) {
                Ok(view) => {
                    // It may have lost the console meanwhile, and have it again.
                    if from.is_some_and(|from| from.stream != view.stream()) {
                        self.messages.info(format_args!(
                            "{operator} does not go on where we were: what was printed in between may be missing"
                        ));
                    }
                    return Ok(Some(view));
                }
                // It has no socket any more, or not yet.
                Err(HandoffError::Nobody(error))
                    if error.kind() != io::ErrorKind::WouldBlock
                        && start.elapsed() >= ANSWER_TIME =>
                {
                    return Ok(None);
                }
                // It is busy or stopped, or many ask at once.
                Err(HandoffError::Nobody(_) | HandoffError::Ended | HandoffError::Silent)
                    if start.elapsed() < SUCCESSOR_TIME =>
                {
                    if !operator.is_alive() {
                        return Ok(None);
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(HandoffError::Nobody(_) | HandoffError::Ended) => return Ok(None),
                Err(error) => return Err(self.unwatched(&operator, &error)),
            }
        }
    }

    fn unwatched(&self, holder: &Process, error: &HandoffError) -> ClaimError {
        let (holder, why) = (Box::new(holder.clone()), error.to_string());
        ClaimErrorKind::Unwatched { holder, why }.on(self.target)
    }
}
