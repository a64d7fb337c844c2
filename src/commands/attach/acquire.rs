//! Acquiring the console: free, evicted from other programs, or taken over from a session.

use std::thread;
use std::time::{Duration, Instant};

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::claim::{Claim, request::Request};
use crate::commands::attach::context::{Attach, UserProgress, request};
use crate::commands::attach::sources::{WITHOUT_GUARD, start_guard};
use crate::commands::attach::takeover::{Taken, can_reach, take_over};
use crate::process::{Process, snapshot::ProcessSnapshot};
use crate::session::protocol::ClientInfo;
use crate::session::registry::{self, ReaderRegistration, SocketDir};
use crate::{guard::client::Guard, terminal::DetachedRawMode};

/// How long the guard of a session that ended may take to release everything, or to find a viewer
/// that reads the console.
const RELEASE_TIME: Duration = Duration::from_secs(4);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Acquired {
    pub(super) taken: Taken,
    /// The user's terminal, if it is raw already. Restored before the guard is told goodbye.
    pub(super) terminal: Option<DetachedRawMode>,
    pub(super) guard: Guard,
    /// Present if this session only reads.
    pub(super) reader: Option<ReaderRegistration>,
    /// The options that led to it, for the audit trail.
    pub(super) how: &'static str,
}

/// From which sessions the console may be taken over.
#[derive(Clone, Copy, Debug)]
pub(super) enum TakeoverScope<'a> {
    /// With `--force`, from one that was there before us; always, from one that only reads.
    AsAsked,
    /// Like `AsAsked`, but with `--force` from this session.
    From(&'a Process),
    /// By force from this session, which the user watches, but from no other program.
    Watched(&'a Process),
    /// From none: we only want to read.
    None,
}

impl Attach<'_> {
    /// `snapshot` says which processes have the console open.
    pub(super) fn acquire(
        &mut self,
        snapshot: &ProcessSnapshot,
        scope: TakeoverScope<'_>,
    ) -> anyhow::Result<Acquired> {
        let guard = start_guard(&mut self.messages, WITHOUT_GUARD);
        let info = self.client_info();
        let progress = UserProgress::new(&mut self.messages, &mut self.signals);
        let force = match scope {
            TakeoverScope::Watched(_) => true,
            TakeoverScope::None => false,
            TakeoverScope::AsAsked | TakeoverScope::From(_) => self.options.force,
        };
        self.early_watch.tell(&guard);
        let request = request(&self.options, self.target, &guard, &progress, &self.early_watch);
        let request = Request { force, ..request };
        // Registered before the claim: a process that sees the claim sees that it only reads.
        let reads_only = matches!(scope, TakeoverScope::None);
        let reader = reads_only.then(|| register_reader(&guard)).flatten();
        let taken = Acquisition { request: &request, scope, info }.run(snapshot)?;
        let how = match (force, self.options.wait) {
            (true, _) => "force",
            (false, Some(_)) => "wait",
            (false, None) => "plain",
        };
        Ok(Acquired { taken, terminal: None, guard, reader, how })
    }
}

struct Acquisition<'a> {
    request: &'a Request<'a>,
    scope: TakeoverScope<'a>,
    info: ClientInfo,
}

impl Acquisition<'_> {
    /// Claims the console, or takes it over as far as the scope allows.
    fn run(&self, snapshot: &ProcessSnapshot) -> Result<Taken, ClaimError> {
        let mut error = match self.claim(snapshot) {
            Ok(claim) => return Ok(Taken::free(claim)),
            Err(error) => error,
        };
        let mut forced = false;
        // A session that only reads can leave, or read in the place of one that just left: the
        // console then passes from viewer to viewer, and for a moment nobody gives it away.
        let mut deadline = Instant::now() + RELEASE_TIME;
        loop {
            let by_force = self.session_to_force(&error).filter(|_| !forced);
            let reader = self.reader(&error).filter(|_| by_force.is_none());
            let Some(holder) = by_force.or(reader) else { return Err(error) };
            let request = Request { force: by_force.is_some(), ..*self.request };
            match take_over(&request, &self.info, holder) {
                Ok(Some(taken)) => return Ok(self.secure(taken, by_force.is_some())),
                // The session ended, or released the console.
                Ok(None) => {}
                Err(ClaimError { kind: ClaimErrorKind::Kept { .. }, .. }) if reader.is_some() => {
                    // Its user has taken control meanwhile: it is busy as before.
                    if !is_reader(holder) || Instant::now() >= deadline {
                        return Err(error);
                    }
                }
                Err(other) => return Err(other),
            }
            if by_force.is_some() {
                forced = true;
                // To end a session that hangs takes longer than that.
                deadline = Instant::now() + RELEASE_TIME;
            }
            match self.claim(&ProcessSnapshot::of(request.target.device())) {
                Ok(claim) => return Ok(Taken::free(claim)),
                Err(now) if Instant::now() >= deadline => return Err(now),
                Err(now) => error = now,
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn session_to_force<'e>(&self, error: &'e ClaimError) -> Option<&'e Process> {
        match self.scope {
            TakeoverScope::AsAsked if self.request.force => error.earlier_session(),
            TakeoverScope::From(session) | TakeoverScope::Watched(session)
                if self.request.force =>
            {
                error.session().filter(|holder| holder.is(session))
            }
            _ => None,
        }
    }

    fn reader<'e>(&self, error: &'e ClaimError) -> Option<&'e Process> {
        let wanted = !matches!(self.scope, TakeoverScope::None);
        error.session().filter(|holder| wanted && is_reader(holder))
    }

    /// Evicts by force, or else reports, programs that have the console open beside a session that
    /// handed it over, such as root's programs that use no lock.
    fn secure(&self, mut taken: Taken, by_force: bool) -> Taken {
        let watched = matches!(self.scope, TakeoverScope::Watched(_));
        if !by_force && (watched || !self.request.force) {
            taken.claim.report_earlier_openers();
        } else if let Err(error) = taken.claim.evict_the_rest(self.request)
            && !matches!(error.kind, ClaimErrorKind::Cancelled)
        {
            self.request.progress.report(&format!("{error}: what it reads is lost to you"));
        }
        taken
    }

    /// Claims the console, also while the guard of a session that ended is still releasing it.
    fn claim(&self, snapshot: &ProcessSnapshot) -> Result<Claim, ClaimError> {
        // Force against the session that the user watches must not hit another holder.
        let force = self.request.force && !matches!(self.scope, TakeoverScope::Watched(_));
        let request = Request { force, ..*self.request };
        let deadline = Instant::now() + RELEASE_TIME;
        let mut claimed = Claim::acquire(&request, snapshot);
        while claimed.as_ref().is_err_and(ClaimError::may_pass)
            && Instant::now() < deadline
            && !request.progress.cancelled()
        {
            thread::sleep(LOOK_INTERVAL);
            claimed = Claim::acquire(&request, &ProcessSnapshot::of(request.target.device()));
        }
        claimed
    }
}

/// Registers this process as a reader: a newcomer then takes the console over without --force.
pub(super) fn register_reader(guard: &Guard) -> Option<ReaderRegistration> {
    // Without a socket directory no newcomer can take the console over.
    let directory = SocketDir::of_ours().ok()?;
    guard.tell_sockets(&directory.paths());
    directory.register_reader().ok()
}

pub(super) fn is_reader(holder: &Process) -> bool {
    can_reach(holder).is_some_and(|uid| registry::is_reader(uid, holder.pid))
}

pub(super) fn busy(error: anyhow::Error) -> anyhow::Result<ClaimError> {
    match error.downcast::<ClaimError>() {
        Ok(error) if error.is_busy() => Ok(error),
        Ok(error) => Err(error.into()),
        Err(error) => Err(error),
    }
}
