//! What a guard does. `claim::guard` says what it is for.

use std::env;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::audit::{self, Event};
use crate::claim::guard::{Charge, Guard, Message, See, Verdicts};
use crate::relay::Notices;
use crate::session::door::refuse;
use crate::session::handover::{self, Outcome, TO_TAKE_IT};
use crate::session::place::Listener;
use crate::session::{Call, Door, Visitor};
use crate::{terminal, test_point, wire};

/// So long a killed session may take to end.
const MANNERS: Duration = Duration::from_secs(1);

/// How long the last words may take on a terminal that takes none.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why of two callers only one gets the console.
const AT_THE_SAME_MOMENT: &str = "another took it over at the same moment";

/// Starts a guard for this process, and says whether that worked.
pub(super) fn start() -> (Guard, io::Result<()>) {
    Guard::start(stand_guard)
}

/// Guards the session with the process number `session`, which is at the other end of `wire`, until it
/// says goodbye or dies.
fn stand_guard(session: i32, wire: OwnedFd) {
    leave_the_session();
    let mut charge = Charge::of(session);
    let mut door: Option<Door> = None;
    loop {
        wait_for_news(&wire, door.as_ref());
        match wire::receive(&wire) {
            Ok(Some((Message::Goodbye, _))) => {
                // It waits for us no longer than until its wire is closed.
                charge.close(wire, See::ToTheHeir, VERDICTS);
                return;
            }
            Ok(Some((message, mut descriptors))) => {
                door = charge.note(message, descriptors.pop()).and_then(open_door).or(door);
                continue;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(None) | Err(_) => break,
        }
        if let Some((line, visitor)) =
            door.as_mut().and_then(|door| hear_callers(door, charge.name()))
            && end_session(session, &wire, &mut charge)
        {
            give_for_the_dead(session, &mut charge, line, &visitor);
            break;
        }
    }
    test_point::reached("guard-alone");
    charge.restore_terminal();
    charge.close(wire, See::ToEverything, VERDICTS);
}

/// Makes a process of its own of the session's copy: all signals are blocked, and not only ignored, so
/// that the kernel also lets us set a terminal in whose background we are (SIGTTOU).
fn leave_the_session() {
    let _ = rustix::thread::set_name(c"vconsole-guard");
    terminal::forget();
    // It fails only where we lead a process group, which is as good.
    let _ = rustix::process::setsid();
    // No directory is to be in use because of us.
    let _ = env::set_current_dir("/");
}

/// How a guard learns whose a console is that was between two.
const VERDICTS: Verdicts = Verdicts {
    heir_has_it: |line| handover::outcome(line, TO_TAKE_IT) == Outcome::Taken,
    giver_kept_it: |line| !handover::is_left_to_us(line, None),
};

/// Waits until the session says something or has ended, or somebody is at the door.
fn wait_for_news(wire: &OwnedFd, door: Option<&Door>) {
    let other = door.map_or(wire.as_fd(), Door::descriptor);
    let mut fds =
        [PollFd::new(wire, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
    let next = door.and_then(Door::next_look);
    let left = next.map(|at| at.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    // All that can go wrong is an interruption, and both are looked at without waiting.
    let _ = poll(&mut fds, left.as_ref());
}

/// The door at which a guard answers. The session made its socket, and gives its name back.
fn open_door(listener: OwnedFd) -> Option<Door> {
    Door::open(Listener::received(listener, PathBuf::new())).ok()
}

/// Somebody whom the session did not answer, and who may have its console: the first of them.
fn hear_callers(door: &mut Door, console: &str) -> Option<(OwnedFd, Visitor)> {
    let mut first = None;
    for call in door.look() {
        match call {
            Call::Takeover { wire, visitor, polite: false } if first.is_none() => {
                first = Some((wire, visitor));
            }
            Call::Takeover { wire, .. } => refuse(&wire, AT_THE_SAME_MOMENT),
            Call::Stranger(peer) => {
                audit::record(console, &Event::PeerRefused { peer: &peer.to_string() });
            }
            Call::Watch { .. } => {}
        }
    }
    first
}

/// Ends the session, which is our parent as long as it lives, and hears out what it still said.
fn end_session(session: i32, wire: &OwnedFd, charge: &mut Charge) -> bool {
    test_point::reached("guard-called");
    if getppid().as_raw() == session {
        let _ = kill(Pid::from_raw(session), Signal::SIGKILL);
    }
    let until = Instant::now() + MANNERS;
    while wire::wait(wire, Some(until)) {
        match wire::receive(wire) {
            Ok(Some((message, mut descriptors))) => {
                charge.note(message, descriptors.pop());
            }
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => return true,
        }
    }
    false
}

/// Gives the console of the dead session to who asked for it, and then tells who was at its terminal.
fn give_for_the_dead(session: i32, charge: &mut Charge, line: OwnedFd, visitor: &Visitor) {
    test_point::reached("guard-giving");
    // The session may have given it to another, and died before it said so.
    if charge.is_inherited(VERDICTS) {
        return refuse(&line, AT_THE_SAME_MOMENT);
    }
    if charge
        .console()
        .is_some_and(|console| handover::give(&line, console, [&[], &[]], None).is_ok())
    {
        charge.expect(line);
    }
    test_point::reached("guard-given");
    if let Some(terminal) = charge.restore_terminal() {
        let mut notices = Notices::on(&terminal);
        notices.say(format_args!(
            "taken over by {visitor}: this session did not answer, and was ended"
        ));
        notices.flush(LAST_WORDS);
    }
    if charge.is_inherited(VERDICTS) {
        let by = visitor.to_string();
        audit::record(charge.name(), &Event::TakenFromTheDead { by: &by, session });
    }
}
