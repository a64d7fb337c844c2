//! `vconsole-guard`: not for users. A session starts it; `claim::guard` says what it is for.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getppid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::claim::guard::{Charge, GUARD, Message, See, is_wire};
use crate::exit_status::ExitStatus;
use crate::session::door::{may_come, understand};
use crate::session::handover::{self, Outcome};
use crate::session::{Call, Visitor};
use crate::sys;
use crate::wire::{self, Peer};

/// So long a caller may take to say what they want, and a killed session to end.
const MANNERS: Duration = Duration::from_secs(1);

/// Whether this process was started to be a guard.
#[must_use]
pub fn is_meant() -> bool {
    let name = env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name.as_bytes() == GUARD.as_bytes())
}

/// Guards the session that started it.
#[must_use]
pub fn run() -> ExitStatus {
    // What a terminal sends to its session is not for us. Blocked, and not only ignored: so the kernel
    // also lets us set a terminal in whose background we are (SIGTTOU).
    let blocked = SigSet::all().thread_block();
    sys::close_inherited();
    let session = env::args().nth(1).and_then(|pid| pid.parse().ok());
    let (Some(session), Ok(()), Ok(wire)) = (session, blocked, take_wire()) else {
        eprintln!("{GUARD} is a part of vconsole attach, which starts it");
        return ExitStatus::Failed;
    };
    // It fails only where we lead a process group, which is as good.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"vconsole-guard");
    stand_guard(session, wire);
    ExitStatus::Done
}

/// Takes the session's wire, which is standard input, away from there.
fn take_wire() -> io::Result<OwnedFd> {
    if !is_wire(io::stdin()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let wire = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(wire)
}

/// Guards the session with the process number `session`, which is at the other end of `wire`, until it
/// says goodbye or dies.
fn stand_guard(session: i32, wire: OwnedFd) {
    let mut charge = Charge::of(session);
    let mut side_door = None;
    loop {
        match wait_for(&wire, side_door.as_ref()) {
            News::Session => match wire::receive(&wire) {
                Ok(Some((Message::Goodbye, _))) => {
                    // It waits for us no longer than until its wire is closed.
                    charge.close(wire, See::ToTheHeir, has_it);
                    return;
                }
                Ok(Some((message, mut descriptors))) => {
                    side_door = charge.note(message, descriptors.pop()).or(side_door);
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(None) | Err(_) => break,
            },
            News::Caller => {
                if let Some(door) = &side_door
                    && let Some((line, visitor)) = hear_caller(door)
                    && end_session(session, &wire, &mut charge)
                {
                    give_for_the_dead(&mut charge, line, &visitor);
                    break;
                }
            }
        }
    }
    charge.restore_terminal();
    charge.close(wire, See::ToEverything, has_it);
}

/// Waits until who was given the console has everything, or has ended, and tells which.
fn has_it(line: OwnedFd) -> bool {
    handover::outcome(line, None) == Outcome::Taken
}

/// What a guard hears of.
enum News {
    Session,
    Caller,
}

fn wait_for(wire: &OwnedFd, side_door: Option<&OwnedFd>) -> News {
    let door = side_door.unwrap_or(wire);
    let mut fds = [PollFd::new(wire, PollFlags::IN), PollFd::new(door, PollFlags::IN)];
    // All that can go wrong is an interruption, and the wire is looked at without waiting.
    let _ = poll(&mut fds, None);
    let called = fds[0].revents().is_empty() && !fds[1].revents().is_empty();
    if called { News::Caller } else { News::Session }
}

/// Somebody whom the session did not answer, and who may have its console.
fn hear_caller(door: &OwnedFd) -> Option<(OwnedFd, Visitor)> {
    let line = accept_with(door, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
    let peer = Peer::of(&line).ok()?;
    if !may_come(peer) || !wire::wait(&line, Some(Instant::now() + MANNERS)) {
        return None;
    }
    match understand(line, peer)? {
        Call::Takeover { wire, visitor } => Some((wire, visitor)),
        Call::Stranger(_) => None,
    }
}

/// Ends the session, which is our parent as long as it lives, and hears out what it still said.
fn end_session(session: i32, wire: &OwnedFd, charge: &mut Charge) -> bool {
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

/// Gives the console of the dead session to who asked for it.
fn give_for_the_dead(charge: &mut Charge, line: OwnedFd, visitor: &Visitor) {
    charge.say(&format!("taken over by {visitor}: this session did not answer, and was ended"));
    let given = charge.console().is_some_and(|it| handover::give(&line, it, &[], &[]).is_ok());
    if given {
        charge.expect(line);
    }
}
