//! Coming by a place from which a console is watched: in the gallery of who drives it, or where nobody
//! does, at the console itself.

use std::thread;
use std::time::{Duration, Instant};

use super::Role;
use super::gain::{MakesWay, User, claim_now, find_again, passes, request};
use super::takeover::{about, within_reach};
use super::view::View;
use crate::claim::guard::Guard;
use crate::claim::{Refusal, Request};
use crate::cli;
use crate::console::{NotAConsole, Target};
use crate::exit_status::ExitStatus;
use crate::process::{Presence, Process};
use crate::relay::{Notices, Signals};
use crate::session::Seat;
use crate::session::handover::{Declined, PATIENCE};
use crate::session::protocol::Place;

/// How long we go on when sessions come and go at the same moment.
const ALL_TOGETHER: Duration = Duration::from_secs(5);
/// How long who took a console over may be silent to those who watched it before.
const FOR_AN_HEIR: Duration = Duration::from_secs(10);
/// How long lies between two looks. Many may look at once, when their driver left: each a little later
/// than the other.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Finds a place to watch from. What was printed before `from` was seen already.
pub(super) fn look_on(
    options: &cli::Attach,
    target: &Target,
    from: Option<Place>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    let until = Instant::now() + ALL_TOGETHER;
    let odd = Duration::from_millis(u64::from(Process::own_pid().unsigned_abs() % 31));
    loop {
        if let Some(signal) = signals.obey()?.ending {
            return Ok(Role::Out(ExitStatus::Signal(signal)));
        }
        let refusal = match claim_to_read(options, target, notices, signals) {
            Ok(gained) => return Ok(gained),
            Err(error) => error.downcast::<Refusal>()?,
        };
        let again = match refusal.any_session() {
            // It drives another console, or has not opened this one yet.
            Some(holder) if holder.has_open(target.device()) == Some(false) => true,
            Some(holder) => match sit_down(options, target, holder, from) {
                Ok(view) => return Ok(Role::Watch(Box::new(view))),
                Err(Declined::Nobody(_) | Declined::Ended) => true,
                Err(declined) => return Err(unwatched(target, holder, &declined).into()),
            },
            // Where a driver has just ended its guard may have gone while we looked for who is in the way.
            None if from.is_some() => passes(&refusal),
            None => refusal.passes_by_itself(),
        };
        if !again || Instant::now() >= until {
            return Err(refusal.into());
        }
        thread::sleep(BETWEEN_LOOKS + odd);
    }
}

/// The same, where the driver has left; after it perhaps process `heir`, which had taken the console over. That
/// one may have passed it on, with all that it read, and else nobody knows what that was.
pub(super) fn look_on_after(
    heir: Option<i32>,
    options: &cli::Attach,
    target: &Target,
    from: Option<Place>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    let role = look_on(options, target, from, notices, signals);
    let goes_on = match &role {
        Ok(Role::Watch(view)) => from.is_some_and(|from| from.reel == view.reel()),
        Ok(Role::Drive { .. }) => false,
        Ok(Role::Out(_)) => true,
        // It says who has the console now, if not that the console is gone; that may be the heir.
        Err(_) => signals.ending().is_some() || heir.is_some_and(lives),
    };
    if let Some(heir) = heir.filter(|_| !goes_on) {
        notices.say(format_args!(
            "vconsole (pid {heir}) had taken {target} over, and is gone: what it read may be missing"
        ));
    }
    role
}

fn lives(pid: i32) -> bool {
    matches!(Process::find(pid), Presence::Alive(_))
}

/// Claims the console, if nobody is in the way: then we read it ourselves.
fn claim_to_read(
    options: &cli::Attach,
    target: &Target,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    let openers = find_again(options, target)?;
    {
        // The look costs nothing, and touches nothing.
        let user = User::new(notices, signals);
        let guard = Guard::none();
        let request = request(options, target, &guard, &user);
        Request { force: false, ..request }.look(&openers)?;
    }
    let mut gained = claim_now(options, target, &openers, MakesWay::Nobody, notices, signals)?;
    gained.how = "read-only";
    Ok(Role::Drive { gained: Box::new(gained), typing: false })
}

/// Sits down in the gallery of the session that has the console.
fn sit_down(
    options: &cli::Attach,
    target: &Target,
    holder: &Process,
    from: Option<Place>,
) -> Result<View, Declined> {
    let Some(uid) = within_reach(holder) else {
        return Err(Declined::Refused("it is another user's, root can watch it".to_owned()));
    };
    let about = about(options.reason.as_deref());
    let seat = Seat::ask(uid, holder.pid, about, from)?;
    Ok(View::new(seat, holder.clone(), target))
}

/// Follows the console to the session that has just taken it over, and may have no socket yet. Nothing:
/// it is not there any more.
pub(super) fn follow(
    options: &cli::Attach,
    target: &Target,
    (pid, uid): (i32, u32),
    from: Option<Place>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> Result<Option<View>, Refusal> {
    let start = Instant::now();
    let Presence::Alive(mut driver) = Process::find(pid) else { return Ok(None) };
    driver.uid = Some(uid);
    loop {
        if signals.ending().is_some() {
            return Err(Refusal::GivenUp { console: target.to_string() });
        }
        match sit_down(options, target, &driver, from) {
            Ok(view) => {
                // It may have lost the console meanwhile, and have it again.
                if from.is_some_and(|from| from.reel != view.reel()) {
                    notices.say(format_args!(
                        "{driver} does not go on where we were: what was printed in between may be missing"
                    ));
                }
                return Ok(Some(view));
            }
            Err(Declined::Nobody(_) | Declined::Ended) => {
                if start.elapsed() >= PATIENCE || !driver.is_alive() {
                    return Ok(None);
                }
                thread::sleep(BETWEEN_LOOKS);
            }
            // It has much to do, or is stopped.
            Err(Declined::Silent) if start.elapsed() < FOR_AN_HEIR => {}
            Err(declined) => return Err(unwatched(target, &driver, &declined)),
        }
    }
}

fn unwatched(target: &Target, holder: &Process, declined: &Declined) -> Refusal {
    Refusal::Unwatched {
        console: target.to_string(),
        holder: Box::new(holder.clone()),
        why: declined.to_string(),
    }
}

/// Whether the console that we watched is there no more. That it may not be opened by now, or somebody is
/// logged in on it, is another thing.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let why = match error.downcast_ref() {
        Some(Refusal::NotAConsole(why)) => Some(why),
        _ => error.downcast_ref(),
    };
    matches!(why, Some(NotAConsole::Missing { .. } | NotAConsole::Replaced { .. }))
}
