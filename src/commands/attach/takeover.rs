//! Taking a console over from the vconsole that drives it.

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
    let Some(uid) = holder.uid.filter(|uid| geteuid().is_root() || *uid == geteuid().as_raw())
    else {
        return Err(kept("it is another user's: root can take it over"));
    };
    let request = Request { heir_of: Some(holder.pid), ..*request };
    // What cannot be had is refused while the other session still goes on.
    let inheritance = Inheritance::prepare(&request)?;
    let about = About { host: host(), reason: reason.map(str::to_owned) };
    let gift = match ask_patiently(uid, holder.pid, &about) {
        // A session that hangs is ended by its guard.
        Err(Declined::Silent) => ask(uid, holder.pid, Who::Guard, about),
        answered => answered,
    };
    let gift = match gift {
        Ok(gift) => gift,
        Err(Declined::Ended) => return Ok(None),
        Err(Declined::Nobody(_)) if !is_alive(holder) => return Ok(None),
        Err(declined) => return Err(kept(&declined.to_string())),
    };
    test_point::reached("given-to-us");
    let (console, receipt, typed, printed) = gift.into_parts();
    let claim = inheritance.accept(&request, console)?;
    test_point::reached("taken");
    receipt.sign();
    Ok(Some((claim, Undelivered { typed, printed })))
}

/// Asks the session. One that has no socket yet, or too many callers, is called again.
fn ask_patiently(uid: u32, pid: i32, about: &About) -> Result<Gift, Declined> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask(uid, pid, Who::Session, about.clone()) {
            Err(Declined::Nobody(error)) if Instant::now() >= until => {
                return Err(match error.kind() {
                    std::io::ErrorKind::WouldBlock => Declined::Silent,
                    _ => Declined::Nobody(error),
                });
            }
            Err(Declined::Nobody(_)) => thread::sleep(BETWEEN_CALLS),
            answered => return answered,
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
