//! Ending a session that cannot be asked for its console: nobody answers, or not in words that we
//! understand.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::immunity::Means;
use super::victim::Victim;
use super::{GLANCE, Refusal, Request};
use crate::audit::{self, Event};
use crate::console::Device;
use crate::process::Process;
use crate::test_point;

/// What it is sent, and how long it may take to end: it delivers what it can, and gives everything back.
/// Killed, it leaves that to its guard.
const SIGNALS: [(Signal, &str, Duration); 2] = [
    (Signal::TERM, "SIGTERM", Duration::from_secs(2)),
    (Signal::KILL, "SIGKILL", Duration::from_secs(1)),
];

/// Ends the session `holder`, which cannot be asked, as `why` says. False where it is not known to be a
/// session that has the console: that one is sent nothing. Or it cannot be ended.
pub fn end_session(request: &Request<'_>, holder: &Process, why: &str) -> Result<bool, Refusal> {
    test_point::reached("ending");
    let device = request.target.device();
    let victim = Some(holder).filter(|holder| is_session_on(holder, device));
    let victim = victim.map(|holder| Victim::identify(holder, Means::Signals, device));
    let Some(Ok(victim)) = victim else { return Ok(false) };
    // It has let go meanwhile.
    let Some(victim) = victim else { return Ok(true) };
    for (signal, name, patience) in SIGNALS {
        if victim.send(signal).is_err() {
            return Ok(false);
        }
        request.asker.hears(&format!("sent {name} to {holder}, which cannot be asked: {why}"));
        if ends(&victim, request, patience)? {
            let (whom, how) = (holder.to_string(), format!("by {name}"));
            audit::record(&request.target.to_string(), &Event::Evicted { whom: &whom, how: &how });
            return Ok(true);
        }
    }
    Ok(false)
}

/// By its program, not by its name alone, and by what it has open: the console, and not as its own
/// terminal, nor from the other end.
fn is_session_on(holder: &Process, device: Device) -> bool {
    holder.is_surely_vconsole()
        && !holder.is_guard()
        && holder.has_open(device) == Some(true)
        && !holder.has_as_standard(device)
        && !holder.has_master_of(device)
}

/// Waits for its end, and not only until it has closed the console: its lock files go with it.
fn ends(victim: &Victim, request: &Request<'_>, patience: Duration) -> Result<bool, Refusal> {
    let until = Instant::now() + patience;
    while !victim.has_ended() {
        if request.asker.gives_up() {
            return Err(Refusal::GivenUp { console: request.target.to_string() });
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        let mut end = [PollFd::new(victim, PollFlags::IN)];
        // An interruption only means to look earlier.
        let _ = poll(&mut end, GLANCE.try_into().ok().as_ref());
    }
    Ok(true)
}
