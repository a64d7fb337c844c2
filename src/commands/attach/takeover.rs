//! Taking a console over from the vconsole that drives it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::claim::{Claim, Inheritance, Refusal, Request};
use crate::process::Process;
use crate::relay::Undelivered;
use crate::session::handover::{Declined, Gift, PATIENCE, ask};
use crate::session::place::Who;
use crate::session::protocol::About;
use crate::test_point;

/// How long lies between two calls of a session that has no socket yet.
const BETWEEN_CALLS: Duration = Duration::from_millis(20);

/// Takes the console over from `holder`, whose claim stands in the way. Nothing: it ended meanwhile, and
/// the claim has to be tried again.
pub(super) fn take_over(
    request: &Request<'_>,
    reason: Option<&str>,
    holder: &Process,
) -> Result<Option<(Claim, Undelivered)>, Refusal> {
    let kept = |why: &str| Refusal::Kept {
        console: request.target.to_string(),
        holder: Box::new(holder.clone()),
        why: why.to_owned(),
    };
    let given_up = || Refusal::GivenUp { console: request.target.to_string() };
    let Some(uid) = holder.uid.filter(|uid| geteuid().is_root() || *uid == geteuid().as_raw())
    else {
        return Err(kept("it is another user's: root can take it over"));
    };
    let request = Request { heir_of: Some(holder.pid), ..*request };
    // What cannot be had is refused while the other session still goes on.
    let inheritance = Inheritance::prepare(&request)?;
    let about = About { host: host(), reason: reason.map(str::to_owned) };
    let visit = Visit { request: &request, holder, uid, about };
    let gift = match visit.ask_session() {
        Err(Declined::Silent) => visit.ask_guard(),
        answered => answered,
    };
    let gift = match gift {
        Ok(gift) => gift,
        Err(Declined::GivenUp) => return Err(given_up()),
        Err(Declined::Ended) => return Ok(None),
        Err(Declined::Nobody(_)) if !is_alive(holder) => return Ok(None),
        Err(declined) => return Err(kept(&declined.to_string())),
    };
    test_point::reached("given-to-us");
    let (console, receipt, typed, printed) = gift.into_parts();
    let too_late = || kept("it waited too long for us to take it: try again");
    if receipt.is_void() {
        return Err(too_late());
    }
    let borrowed = inheritance.accept(&request, console, receipt.line());
    test_point::reached("taken");
    // Whoever drives has its names back, and they were not ours to take.
    let borrowed = if receipt.is_void() { return Err(too_late()) } else { borrowed? };
    if request.asker.gives_up() {
        return Err(given_up());
    }
    test_point::reached("signing");
    if !receipt.sign() {
        return Err(too_late());
    }
    test_point::reached("signed");
    Ok(Some((borrowed.keep(&request)?, Undelivered { typed, printed })))
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
    /// Asks the session. One that is stopped is continued, however often it stops.
    fn ask_session(&self) -> Result<Gift, Declined> {
        // By its program and by what it has open: no other is sent a signal.
        let device = self.request.target.device();
        let is_it = self.holder.is_vconsole() && self.holder.has_open(device) == Some(true);
        self.ask_patiently(Who::Session, Some(self.holder).filter(|_| is_it))
    }

    /// Asks the guard of a session that hangs, which ends it. A guard that is stopped is continued as well.
    fn ask_guard(&self) -> Result<Gift, Declined> {
        self.ask_patiently(Who::Guard, self.holder.guard().as_ref())
    }

    /// Who has no socket yet, or too many callers, is called again.
    fn ask_patiently(&self, who: Who, wake: Option<&Process>) -> Result<Gift, Declined> {
        let give_up = || {
            wake.into_iter().for_each(Process::wake);
            self.request.asker.gives_up()
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match ask(self.uid, self.holder.pid, who, self.about.clone(), &give_up) {
                Err(Declined::Nobody(_)) if Instant::now() < until => thread::sleep(BETWEEN_CALLS),
                Err(Declined::Nobody(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Declined::Silent);
                }
                answered => return answered,
            }
        }
    }
}

fn is_alive(process: &Process) -> bool {
    matches!(Process::find(process.pid), crate::process::Presence::Alive(now) if now.started == process.started)
}

/// The host that we are logged in from. Our own environment may say anything, and it is passed on as
/// what we say of ourselves.
fn host() -> Option<String> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    connection.split_ascii_whitespace().next().map(str::to_owned)
}
