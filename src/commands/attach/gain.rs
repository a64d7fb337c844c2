//! Coming by a console: at once, by waiting for it, or by force.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use super::ask::{self, Offer};
use super::takeover::take_over;
use super::wait::{Wait, Waited};
use crate::claim::guard::Guard;
use crate::claim::{Asker, Claim, Refusal, Request};
use crate::cli;
use crate::commands::guard;
use crate::console::{NotAConsole, Target};
use crate::process::{Openers, Process};
use crate::relay::{Notices, Signals, Undelivered};
use crate::session::Tape;
use crate::terminal::LeftRaw;

/// How long the guard of a session that ended may take to give everything back.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long lies between two looks at it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A console that is ours.
#[derive(Debug)]
pub(super) struct Gained {
    pub(super) claim: Claim,
    /// The user's terminal, if it is raw already. Given back before the guard is told goodbye.
    pub(super) terminal: Option<LeftRaw>,
    pub(super) guard: Guard,
    /// What the driver before us read and did not deliver.
    pub(super) left: Undelivered,
    /// What it kept for those who watch.
    pub(super) tape: Tape,
    /// Who that was, if we took over from a vconsole.
    pub(super) from: Option<String>,
    /// By which options, for the audit trail.
    pub(super) how: &'static str,
}

/// Whose session makes way.
#[derive(Clone, Copy, Debug)]
pub(super) enum MakesWay<'a> {
    /// By force one that was there before us; otherwise only who reads and does not type.
    AsAsked,
    /// By force this one.
    Seen(&'a Process),
    /// By force this one alone, whom our user watches; and no program that has it by now.
    Watched(&'a Process),
    /// Nobody's, and nobody else's: we only want to read ourselves, and no force is used for that.
    Nobody,
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
    match claim_now(options, target, openers, MakesWay::AsAsked, notices, signals) {
        Ok(gained) => Ok(Waited::Claimed(Box::new(gained))),
        Err(error) if options.ask && ask::can_ask() => {
            Offer { options, target, notices, signals }.make(busy(error)?)
        }
        Err(error) => Err(error),
    }
}

/// Claims the console, with a guard that knows what is done: by force also from other programs, and
/// from the vconsole that has to make way.
pub(super) fn claim_now(
    options: &cli::Attach,
    target: &Target,
    openers: &Openers,
    who: MakesWay<'_>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Gained> {
    let guard = start_guard(notices);
    let user = User::new(notices, signals);
    let force = match who {
        MakesWay::Watched(_) => true,
        MakesWay::Nobody => false,
        MakesWay::AsAsked | MakesWay::Seen(_) => options.force,
    };
    let request = Request { force, ..request(options, target, &guard, &user) };
    // Who is free already needs no force, and for who else has it none was meant.
    let plain = Request { force: force && !matches!(who, MakesWay::Watched(_)), ..request };
    let how = if force { "force" } else { options.wait.map_or("plain", |_| "wait") };
    let Seized { claim, left, tape, from } =
        seize(&request, &plain, who, openers, (&user, options.reason.as_deref()))?;
    Ok(Gained { claim, guard, left, tape, from, how, terminal: None })
}

/// A claim, and what it came with.
struct Seized {
    claim: Claim,
    left: Undelivered,
    tape: Tape,
    from: Option<String>,
}

impl Seized {
    /// Of a console that nobody had.
    fn free(claim: Claim) -> Self {
        Self { claim, left: Undelivered::default(), tape: Tape::new(), from: None }
    }
}

/// So many sessions are asked for the console that only read, one after the other: with each that leaves,
/// one of those who watched it may have come in its place.
const READERS: usize = 2;

/// Claims what is free, or takes it from the session that has to make way: by force from one that drives,
/// and from one that only reads without, also where it came in the place of the other.
fn seize(
    request: &Request<'_>,
    plain: &Request<'_>,
    who: MakesWay<'_>,
    openers: &Openers,
    by: (&User<'_>, Option<&str>),
) -> Result<Seized, Refusal> {
    let mut refusal = match claim_what_is_left(plain, openers) {
        Ok(claim) => return Ok(Seized::free(claim)),
        Err(refusal) => refusal,
    };
    let forced = match who {
        MakesWay::AsAsked if request.force => refusal.session(),
        MakesWay::AsAsked | MakesWay::Nobody => None,
        MakesWay::Seen(seen) | MakesWay::Watched(seen) => {
            refusal.any_session().filter(|session| session.is(seen))
        }
    };
    if let Some(holder) = forced {
        match seize_from(request, plain, holder, by)? {
            Ok(seized) => return Ok(seized),
            Err(left) => refusal = left,
        }
    }
    let polite = Request { force: false, ..*request };
    for _ in 0..READERS {
        let reader = refusal.any_session().filter(|_| !matches!(who, MakesWay::Nobody));
        let Some(holder) = reader else { break };
        match seize_from(&polite, plain, holder, by) {
            Ok(Ok(seized)) => return Ok(seized),
            Ok(Err(left)) => refusal = left,
            // It drives, and is in the way as before.
            Err(Refusal::Kept { .. }) => break,
            Err(other) => return Err(other),
        }
    }
    Err(refusal)
}

/// Takes the console over from `holder`, or claims it where it has let go of it. The refusal within: somebody
/// else has it by now.
fn seize_from(
    request: &Request<'_>,
    plain: &Request<'_>,
    holder: &Process,
    (user, reason): (&User<'_>, Option<&str>),
) -> Result<Result<Seized, Refusal>, Refusal> {
    let Some((mut claim, left, tape)) = take_over(request, reason, holder)? else {
        let openers = Openers::of(plain.target.device());
        return Ok(claim_what_is_left(plain, &openers).map(Seized::free));
    };
    // Beside a vconsole there can be root's programs that ask for no lock.
    if !request.force && !plain.force {
        claim.look_who_else_has_it();
    } else if let Err(refusal) = claim.evict_the_rest(&Request { force: true, ..*request })
        && !matches!(refusal, Refusal::GivenUp { .. })
    {
        user.hears(&format!("{refusal}: what it reads is lost to you"));
    }
    let (from, tape) = (Some(holder.to_string()), tape.unwrap_or_default());
    Ok(Ok(Seized { claim, left, tape, from }))
}

/// Claims a console that `openers` have open now, also what a session has left that ended: its guard may
/// still be giving it back.
fn claim_what_is_left(request: &Request<'_>, openers: &Openers) -> Result<Claim, Refusal> {
    let mut done = Claim::acquire(request, openers);
    let until = Instant::now() + FAREWELL;
    while done.as_ref().is_err_and(passes) && Instant::now() < until && !request.asker.gives_up() {
        thread::sleep(BETWEEN_LOOKS);
        done = Claim::acquire(request, &Openers::of(request.target.device()));
    }
    done
}

/// Whether a guard is in the way, or was until we looked for who is.
pub(super) fn passes(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Exclusive { by, .. } | Refusal::Flock { by, .. } if by.0.is_empty())
        || refusal.passes_by_itself()
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
    if !target.is_still(now.device(), now.changed()) {
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

pub(super) fn start_guard(notices: &mut Notices) -> Guard {
    let (guard, started) = guard::start();
    if let Err(error) = started {
        notices.say(format_args!(
            "no guard can be started ({error}): going on without the exclusive flag, and if this \
             session is killed, nobody gives the terminal and the locks back"
        ));
    }
    guard
}
