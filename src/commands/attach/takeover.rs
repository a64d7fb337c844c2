//! Taking a console over from the session that holds it.

use std::time::{Duration, Instant};
use std::{io, thread};

use nix::unistd::geteuid;

use crate::claim::error::{ClaimError, ClaimErrorKind, Hint};
use crate::claim::{
    Claim, evict::session::end_session, request::Request, transfer::PreparedTakeover,
};
use crate::printable::Printable;
use crate::session::handoff::{ANSWER_TIME, Handoff, HandoffError, TOO_LATE, TakeoverRequest, ask};
use crate::session::{protocol::ClientInfo, registry::SocketRole, scrollback::Scrollback};
use crate::{process::Process, relay::PendingBytes, test_point};

const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The limit for a reader to answer, and for a session that claims the console to open it.
const READER_TIME: Duration = Duration::from_secs(2);

/// A claim, and what the previous session left.
pub(super) struct Taken {
    pub(super) claim: Claim,
    /// Bytes that the previous operator read and did not deliver.
    pub(super) pending: PendingBytes,
    pub(super) scrollback: Scrollback,
    pub(super) from: Option<String>,
}

impl Taken {
    pub(super) fn free(claim: Claim) -> Self {
        let (pending, scrollback) = (PendingBytes::default(), Scrollback::new());
        Self { claim, pending, scrollback, from: None }
    }
}

/// Takes the console over. Without `request.force` only from a reader; with it a session that
/// cannot be asked is ended. `None`: the session ended, and the console has to be claimed again.
pub(super) fn take_over(
    request: &Request<'_>,
    info: &ClientInfo,
    holder: &Process,
) -> Result<Option<Taken>, ClaimError> {
    let Some(uid) = can_reach(holder) else {
        let why = "it is another user's: root can take it over";
        return Err(kept(request, holder, why, Hint::BeRoot));
    };
    // Its user's name is asked for now: later that would keep sessions waiting.
    holder.user();
    // A signal would end it the moment it thaws, with all that it has not delivered.
    if let Some(group) = holder.frozen_cgroup() {
        let why = format!("its control group {} is frozen", Printable::new(&group));
        return Err(kept(request, holder, &why, Hint::Thaw));
    }
    let request = Request { handoff_from: Some(holder.pid), ..*request };
    let client = TakeoverClient { request: &request, holder, uid, info };
    // Checked before its lock names: it releases those before it closes the console.
    let has_it = client.session_opens_it();
    test_point::reached("holder-looked-at");
    if request.progress.cancelled() {
        return Err(ClaimErrorKind::Cancelled.on(request.target));
    }
    let prepared = match PreparedTakeover::prepare(&request) {
        Ok(prepared) => prepared,
        // Another session may have come in its place.
        Err(_) if has_it && !client.session_has_it() || !holder.is_alive() => return Ok(None),
        Err(error) if error.session().is_some_and(|session| !session.is(holder)) => {
            return Ok(None);
        }
        Err(error) if !request.force => {
            return Err(client.kept(&error.to_string(), Hint::AskAgain));
        }
        Err(error) => return Err(error),
    };
    if !has_it {
        // It operates another console, if any: it is not asked, and gets no signal.
        let why = "it does not have the console open";
        let goes_on = prepared.has_names() && holder.is_alive();
        return if goes_on { Err(client.kept(why, Hint::ShowStatus)) } else { Ok(None) };
    }
    match client.ask() {
        Ok(handoff) => accept(&request, holder, prepared, handoff).map(Some),
        Err(HandoffError::Cancelled) => Err(ClaimErrorKind::Cancelled.on(request.target)),
        Err(HandoffError::NoRoom(source)) => {
            Err(ClaimErrorKind::Unusable(source).on(request.target))
        }
        Err(error) if error.is_no_answer() => {
            let why = error.to_string();
            let ended = client.is_leaving(&error)
                || request.force && end_session(&request, holder, &why)?
                || !client.session_lives_and_has_it();
            if ended { Ok(None) } else { Err(client.kept(&why, Hint::EndHolder)) }
        }
        Err(error) => Err(client.kept(&error.to_string(), Hint::AskAgain)),
    }
}

fn kept(request: &Request<'_>, holder: &Process, why: &str, hint: Hint) -> ClaimError {
    let (holder, why) = (Box::new(holder.clone()), why.to_owned());
    ClaimErrorKind::Kept { holder, why, hint }.on(request.target)
}

struct TakeoverClient<'a> {
    request: &'a Request<'a>,
    holder: &'a Process,
    uid: u32,
    info: &'a ClientInfo,
}

impl TakeoverClient<'_> {
    fn kept(&self, why: &str, hint: Hint) -> ClaimError {
        kept(self.request, self.holder, why, hint)
    }

    /// As far as that can be seen.
    fn session_has_it(&self) -> bool {
        self.holder.has_open(self.request.target.device()) != Some(false)
    }

    fn session_lives_and_has_it(&self) -> bool {
        // A session that ends meanwhile seems to hide what it has open: so that is checked last.
        self.session_has_it() && self.holder.is_alive()
    }

    /// Waits for a session that is just claiming the console: it takes the lock files first.
    fn session_opens_it(&self) -> bool {
        let deadline = Instant::now() + READER_TIME;
        while !self.session_has_it() {
            let waits = Instant::now() < deadline && !self.request.progress.cancelled();
            if !self.holder.is_alive() || !waits {
                return false;
            }
            thread::sleep(RETRY_INTERVAL);
        }
        true
    }

    /// Asks the session, and with force its guard if the session does not answer.
    fn ask(&self) -> Result<Handoff, HandoffError> {
        if !self.request.force {
            return self.ask_role(SocketRole::Session, READER_TIME, None);
        }
        let device = self.request.target.device();
        // Only a process that is known to be the session is sent SIGCONT.
        let is_session =
            self.holder.is_surely_vconsole() && self.holder.has_open(device) == Some(true);
        let session = Some(self.holder).filter(|_| is_session);
        match self.ask_role(SocketRole::Session, ANSWER_TIME, session) {
            Err(HandoffError::Silent) if self.session_has_it() => {
                self.ask_role(SocketRole::Guard, ANSWER_TIME, self.holder.guard().as_ref())
            }
            answered => answered,
        }
    }

    /// Retries while there is no socket yet. A stopped `resume` is continued each time.
    fn ask_role(
        &self,
        role: SocketRole,
        time_limit: Duration,
        resume: Option<&Process>,
    ) -> Result<Handoff, HandoffError> {
        let cancelled = || {
            resume.into_iter().for_each(Process::resume);
            self.request.progress.cancelled()
        };
        let (uid, pid, info) = (self.uid, self.holder.pid, self.info.clone());
        let only_if_reading = !self.request.force;
        let takeover = TakeoverRequest { uid, pid, role, info, only_if_reading, time_limit };
        let mut deadline = Instant::now() + time_limit;
        let mut asked_again = false;
        loop {
            let answered = ask(&takeover, &cancelled);
            // It may have turned away one that came too late, because it was stopped.
            if matches!(answered, Err(HandoffError::Ended))
                && !std::mem::replace(&mut asked_again, true)
                && self.session_lives_and_has_it()
            {
                deadline = Instant::now() + time_limit;
                continue;
            }
            let Err(HandoffError::Nobody(error)) = &answered else { return answered };
            if Instant::now() >= deadline || !self.session_lives_and_has_it() {
                let silent = error.kind() == io::ErrorKind::WouldBlock && self.request.force;
                return if silent { Err(HandoffError::Silent) } else { answered };
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Whether a session that did not answer has released the console. A session that closed the
    /// connection has closed its listener, and is just about to release the console.
    fn is_leaving(&self, error: &HandoffError) -> bool {
        let closed = matches!(error, HandoffError::Ended);
        let deadline = Instant::now() + if closed { ANSWER_TIME / 2 } else { Duration::ZERO };
        while self.session_lives_and_has_it() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(RETRY_INTERVAL);
        }
        true
    }
}

/// Accepts the console that `holder` or its guard hands over, and acknowledges it: from then on the
/// console is ours.
pub(super) fn accept(
    request: &Request<'_>,
    holder: &Process,
    prepared: PreparedTakeover,
    mut handoff: Handoff,
) -> Result<Taken, ClaimError> {
    test_point::reached("given-to-us");
    let scrollback = handoff.scrollback.take().unwrap_or_else(Scrollback::new);
    let (console, ack, typed, printed) = handoff.into_parts();
    let too_late = || kept(request, holder, TOO_LATE, Hint::AskAgain);
    if ack.is_void() {
        return Err(too_late());
    }
    test_point::reached("accepting");
    let pending = prepared.accept(request, console, ack.socket(), &|| ack.give_up());
    test_point::reached("taken");
    // The session may have its names back, and they were not ours to take.
    if ack.is_void() {
        return Err(too_late());
    }
    let pending = pending?;
    if request.progress.cancelled() {
        // The session is told before its names are released: they are its own.
        drop(ack);
        return Err(ClaimErrorKind::Cancelled.on(request.target));
    }
    test_point::reached("signing");
    if !ack.commit() {
        return Err(too_late());
    }
    test_point::reached("signed");
    let claim = pending.commit(request)?;
    let (pending, from) = (PendingBytes { typed, printed }, Some(holder.to_string()));
    Ok(Taken { claim, pending, scrollback, from })
}

/// The user of a session that accepts us: our own, or for root any.
pub(super) fn can_reach(holder: &Process) -> Option<u32> {
    holder.uid.filter(|uid| geteuid().is_root() || *uid == geteuid().as_raw())
}
