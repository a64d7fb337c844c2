//! Coming by a console: at once, by waiting for it, or by force.

use std::cell::RefCell;

use super::ask::{self, Offer};
use super::takeover::take_over;
use super::wait::{Wait, Waited};
use crate::claim::guard::Guard;
use crate::claim::{Asker, Claim, Refusal, Request};
use crate::cli;
use crate::console::{NotAConsole, Target};
use crate::process::{Openers, Process};
use crate::relay::{Notices, Signals, Undelivered};

/// A console that is ours.
#[derive(Debug)]
pub(super) struct Gained {
    pub(super) claim: Claim,
    pub(super) guard: Guard,
    /// What the driver before us read and did not deliver.
    pub(super) left: Undelivered,
    /// Who that was, if we took over from a vconsole.
    pub(super) from: Option<String>,
    /// By which options, for the audit trail.
    pub(super) how: &'static str,
}

/// Claims the console: now, or when its user is content to wait, as soon as it is free; or asks which.
pub(super) fn gain(
    options: &cli::Attach,
    target: &Target,
    openers: &Openers,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Waited> {
    if let Some(limit) = options.wait {
        return Wait::new(options, target, limit, notices, signals)?.run();
    }
    match claim_now(options, target, openers, None, notices, signals) {
        Ok(gained) => Ok(Waited::Claimed(Box::new(gained))),
        Err(error) if options.ask && ask::can_ask() => {
            Offer { options, target, notices, signals }.make(busy(error)?)
        }
        Err(error) => Err(error),
    }
}

/// Claims the console, with a guard that knows what is done: by force also from other programs, and
/// from another vconsole, if that was there before us, or is the one that was `seen` to have it.
pub(super) fn claim_now(
    options: &cli::Attach,
    target: &Target,
    openers: &Openers,
    seen: Option<&Process>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Gained> {
    let guard = start_guard(notices);
    let user = User::new(notices, signals);
    let request = request(options, target, &guard, &user);
    let how = if options.force { "force" } else { options.wait.map_or("plain", |_| "wait") };
    let refusal = match Claim::acquire(&request, openers) {
        Ok(claim) => {
            return Ok(Gained { claim, guard, left: Undelivered::default(), from: None, how });
        }
        Err(refusal) => refusal,
    };
    let session = match seen {
        Some(seen) => refusal.any_session().filter(|session| session.is(seen)),
        None => refusal.session(),
    };
    let Some(holder) = session.filter(|_| options.force) else {
        return Err(refusal.into());
    };
    if let Some((mut claim, left)) = take_over(&request, options.reason.as_deref(), holder)? {
        // Beside a vconsole there can be root's programs that ask for no lock.
        if let Err(refusal) = claim.evict_the_rest(&request) {
            user.hears(&format!("{refusal}: what it reads is lost to you"));
        }
        return Ok(Gained { claim, guard, left, from: Some(holder.to_string()), how });
    }
    let claim = Claim::acquire(&request, &Openers::of(target.device()))?;
    Ok(Gained { claim, guard, left: Undelivered::default(), from: None, how })
}

/// That somebody has the console. Any other error stays one.
pub(super) fn busy(error: anyhow::Error) -> anyhow::Result<Refusal> {
    match error.downcast::<Refusal>() {
        Ok(refusal) if refusal.is_busy() => Ok(refusal),
        Ok(refusal) => Err(refusal.into()),
        Err(error) => Err(error),
    }
}

/// Who has the console open by now. It must still be the same device: its path can be another's.
pub(super) fn find_again(options: &cli::Attach, target: &Target) -> Result<Openers, NotAConsole> {
    let now = Target::find(&options.console)?;
    if now.device() != target.device() || now.changed() != target.changed() {
        return Err(NotAConsole::Replaced { name: target.to_string() });
    }
    let openers = Openers::of(now.device());
    now.check_that_it_may_be_driven(&openers)?;
    Ok(openers)
}

/// What the command line asks for.
pub(super) fn request<'a>(
    options: &'a cli::Attach,
    target: &'a Target,
    guard: &'a Guard,
    asker: &'a dyn Asker,
) -> Request<'a> {
    let (mode, place) = (options.locks.mode, &options.locks.place.directory);
    Request { target, mode, place, force: options.force, heir_of: None, guard, asker }
}

/// The user, who learns what is done for the claim, and ends us by a signal.
#[derive(Debug)]
pub(super) struct User<'a> {
    notices: RefCell<&'a mut Notices>,
    signals: RefCell<&'a mut Signals>,
}

impl<'a> User<'a> {
    pub(super) fn new(notices: &'a mut Notices, signals: &'a mut Signals) -> Self {
        Self { notices: notices.into(), signals: signals.into() }
    }
}

impl Asker for User<'_> {
    fn hears(&self, line: &str) {
        self.notices.borrow_mut().say(line);
    }

    fn gives_up(&self) -> bool {
        self.signals.borrow_mut().ending().is_some()
    }
}

fn start_guard(notices: &mut Notices) -> Guard {
    let (guard, started) = Guard::start();
    if let Err(error) = started {
        notices.say(format_args!(
            "no guard can be started ({error}): going on without the exclusive flag, and if this \
             session is killed, nobody gives the terminal and the locks back"
        ));
    }
    guard
}
