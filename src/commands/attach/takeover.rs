//! Taking a console over from the vconsole that drives it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::claim::{Claim, Inheritance, Refusal, Remedy, Request, end_session};
use crate::process::Process;
use crate::relay::Undelivered;
use crate::session::Tape;
use crate::session::handover::{Declined, Gift, PATIENCE, ask};
use crate::session::place::Who;
use crate::session::protocol::About;
use crate::test_point;

/// How long lies between two calls of a session that has no socket yet.
const BETWEEN_CALLS: Duration = Duration::from_millis(20);

/// How long who reads and does not type may take to make room. A driver who is stopped shall not keep
/// others waiting for the news that it is busy.
const COURTESY: Duration = Duration::from_secs(1);

/// Takes the console over from `holder`, whose claim stands in the way: without force only where it
/// reads and does not type. By force, one that cannot be asked is ended. Nothing: it ended, and the claim
/// has to be tried again.
pub(super) fn take_over(
    request: &Request<'_>,
    reason: Option<&str>,
    holder: &Process,
) -> Result<Option<Taken>, Refusal> {
    let kept = |why: &str, remedy| kept(request, holder, why, remedy);
    let Some(uid) = within_reach(holder) else {
        return Err(kept("it is another user's: root can take it over", Remedy::BeRoot));
    };
    let request = Request { heir_of: Some(holder.pid), ..*request };
    let visit = Visit { request: &request, holder, uid, about: about(reason) };
    // Looked at before its names are: it gives them back before it closes the console.
    let has_it = visit.opens_it();
    test_point::reached("holder-looked-at");
    if request.asker.gives_up() {
        return Err(given_up(&request));
    }
    // What cannot be had is refused while the other session still goes on.
    let inheritance = match Inheritance::prepare(&request) {
        // Another may have come in its place meanwhile.
        Err(_) if has_it && !visit.has_it() || !holder.is_alive() => return Ok(None),
        Err(refusal) if refusal.any_session().is_some_and(|session| !session.is(holder)) => {
            return Ok(None);
        }
        Err(refusal) if !request.force => {
            return Err(kept(&refusal.to_string(), Remedy::AskAgain));
        }
        prepared => prepared?,
    };
    if !has_it {
        // It drives another console, if any: it is asked for nothing, and sent nothing.
        let why = "it does not have the console open";
        let goes_on = inheritance.has_names() && holder.is_alive();
        return if goes_on { Err(kept(why, Remedy::Look)) } else { Ok(None) };
    }
    match visit.ask() {
        Ok(gift) => visit.take(inheritance, gift).map(Some),
        Err(Declined::GivenUp) => Err(given_up(&request)),
        Err(Declined::NoRoom(source)) => {
            Err(Refusal::Unusable { console: request.target.to_string(), source })
        }
        Err(declined) if declined.is_no_answer() => {
            let why = declined.to_string();
            let over = visit.is_leaving(&declined)
                || request.force && end_session(&request, holder, &why)?
                || !visit.is_there();
            if over { Ok(None) } else { Err(kept(&why, Remedy::EndIt)) }
        }
        Err(declined) => Err(kept(&declined.to_string(), Remedy::AskAgain)),
    }
}

/// A claim that was another session's, and what that had read: what it did not deliver, and what it kept for
/// those who watch.
pub(super) type Taken = (Claim, Undelivered, Option<Tape>);

fn kept(request: &Request<'_>, holder: &Process, why: &str, remedy: Remedy) -> Refusal {
    Refusal::Kept {
        console: request.target.to_string(),
        holder: Box::new(holder.clone()),
        why: why.to_owned(),
        remedy,
    }
}

fn given_up(request: &Request<'_>) -> Refusal {
    Refusal::GivenUp { console: request.target.to_string() }
}

/// What it takes to ask a session for its console.
#[derive(Debug)]
struct Visit<'a> {
    request: &'a Request<'a>,
    holder: &'a Process,
    uid: u32,
    about: About,
}

impl Visit<'_> {
    /// Whether the session has the console open, as far as that can be seen.
    fn has_it(&self) -> bool {
        self.holder.has_open(self.request.target.device()) != Some(false)
    }

    /// Whether the session is alive and has the console open, as far as that can be seen.
    fn is_there(&self) -> bool {
        // One that ends meanwhile seems to hide: its end is asked for last.
        self.has_it() && self.holder.is_alive()
    }

    /// Whether the session has the console open, or opens it now: who is just claiming it has its lock
    /// files first.
    fn opens_it(&self) -> bool {
        let until = Instant::now() + COURTESY;
        let waits = || Instant::now() < until && !self.request.asker.gives_up();
        while !self.has_it() {
            if !self.holder.is_alive() || !waits() {
                return false;
            }
            thread::sleep(BETWEEN_CALLS);
        }
        true
    }

    /// Asks the session: politely, or by force, and then its guard where it is silent.
    fn ask(&self) -> Result<Gift, Declined> {
        if !self.request.force {
            return self.ask_politely();
        }
        match self.ask_session() {
            Err(Declined::Silent) if self.has_it() => self.ask_guard(),
            answered => answered,
        }
    }

    /// Takes what it gives, and signs for it: from then on the console is ours.
    fn take(&self, inheritance: Inheritance, mut gift: Gift) -> Result<Taken, Refusal> {
        test_point::reached("given-to-us");
        let tape = gift.tape.take();
        let (console, receipt, typed, printed) = gift.into_parts();
        let why = "it waited too long for us to take it";
        let too_late = || kept(self.request, self.holder, why, Remedy::AskAgain);
        if receipt.is_void() {
            return Err(too_late());
        }
        let borrowed =
            inheritance.accept(self.request, console, receipt.line(), &|| receipt.give_up());
        test_point::reached("taken");
        // Whoever drives has its names back, and they were not ours to take.
        let borrowed = if receipt.is_void() { return Err(too_late()) } else { borrowed? };
        if self.request.asker.gives_up() {
            // It is told before its names are given back: they are its own.
            drop(receipt);
            return Err(given_up(self.request));
        }
        test_point::reached("signing");
        if !receipt.sign() {
            return Err(too_late());
        }
        test_point::reached("signed");
        Ok((borrowed.keep(self.request)?, Undelivered { typed, printed }, tape))
    }

    /// Asks the session. One that is stopped is continued, however often it stops.
    fn ask_session(&self) -> Result<Gift, Declined> {
        // By its program and by what it has open: no other is sent a signal.
        let device = self.request.target.device();
        let is_it = self.holder.is_surely_vconsole() && self.holder.has_open(device) == Some(true);
        self.ask_patiently(Who::Session, Some(self.holder).filter(|_| is_it))
    }

    /// Asks the guard of a session that hangs, which ends it. A guard that is stopped is continued as well.
    fn ask_guard(&self) -> Result<Gift, Declined> {
        self.ask_patiently(Who::Guard, self.holder.guard().as_ref())
    }

    /// Asks a session that reads and does not type, of which nothing is known yet.
    fn ask_politely(&self) -> Result<Gift, Declined> {
        let (pid, about) = (self.holder.pid, self.about.clone());
        let give_up = || self.request.asker.gives_up();
        let until = Instant::now() + COURTESY;
        loop {
            match ask(self.uid, pid, Who::Session, about.clone(), (COURTESY, true), &give_up) {
                // Who has just claimed it has no socket yet.
                Err(Declined::Nobody(_)) if Instant::now() < until && self.holder.is_alive() => {
                    thread::sleep(BETWEEN_CALLS);
                }
                answered => return answered,
            }
        }
    }

    /// Whether a session that did not answer has let go of the console. One that hung up on us has closed
    /// its door, and is just about to.
    fn is_leaving(&self, declined: &Declined) -> bool {
        let hung_up = matches!(declined, Declined::Ended);
        let until = Instant::now() + if hung_up { PATIENCE / 2 } else { Duration::ZERO };
        while self.is_there() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(BETWEEN_CALLS);
        }
        true
    }

    /// Who has no socket yet, or too many callers, is called again.
    fn ask_patiently(&self, who: Who, wake: Option<&Process>) -> Result<Gift, Declined> {
        let give_up = || {
            wake.into_iter().for_each(Process::wake);
            self.request.asker.gives_up()
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let (pid, about) = (self.holder.pid, self.about.clone());
            match ask(self.uid, pid, who, about, (PATIENCE, false), &give_up) {
                Err(Declined::Nobody(_)) if Instant::now() < until && self.holder.is_alive() => {
                    thread::sleep(BETWEEN_CALLS);
                }
                Err(Declined::Nobody(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Declined::Silent);
                }
                answered => return answered,
            }
        }
    }
}

/// The user of a session that talks to us: it is ours, or we are root.
pub(super) fn within_reach(holder: &Process) -> Option<u32> {
    holder.uid.filter(|uid| geteuid().is_root() || *uid == geteuid().as_raw())
}

/// What we say of ourselves.
pub(super) fn about(reason: Option<&str>) -> About {
    About { host: host(), reason: reason.map(str::to_owned) }.shortened()
}

/// The host that we are logged in from. Our own environment may say anything, and it is passed on as
/// what we say of ourselves.
fn host() -> Option<String> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    connection.split_ascii_whitespace().next().map(str::to_owned)
}
