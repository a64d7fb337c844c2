//! Ending a session that cannot be asked for its console: it does not answer, or not in our
//! protocol.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::claim::error::{ClaimError, ClaimErrorKind};
use crate::claim::evict::target::{EvictMethod, EvictTarget};
use crate::claim::request::Request;
use crate::device::Device;
use crate::process::Process;
use crate::{poll, test_point};

/// On SIGTERM the session delivers what it can and releases everything; after SIGKILL its guard
/// releases everything.
const SIGNALS: [(Signal, &str, Duration); 2] = [
    (Signal::TERM, "SIGTERM", Duration::from_secs(2)),
    (Signal::KILL, "SIGKILL", Duration::from_secs(1)),
];

/// Ends the session `holder`. Returns false if it cannot be ended. A process that is not known to
/// be a session that has the console is sent nothing.
pub(crate) fn end_session(
    request: &Request<'_>,
    holder: &Process,
    why: &str,
) -> Result<bool, ClaimError> {
    test_point::reached("ending");
    let device = request.target.device();
    if !is_session_on(holder, device) {
        return Ok(false);
    }
    let evictee = EvictTarget::identify(holder, EvictMethod::Signals, device);
    let Ok(evictee) = evictee else { return Ok(false) };
    // It has released the console meanwhile.
    let Some(evictee) = evictee else { return Ok(true) };
    for (signal, name, patience) in SIGNALS {
        // The signal would wait until it thaws.
        if holder.frozen_cgroup().is_some() {
            return Ok(false);
        }
        if evictee.send(signal).is_err() {
            return Ok(false);
        }
        request.progress.report(&format!("sent {name} to {holder}, which cannot be asked: {why}"));
        if ends(&evictee, request, patience)? {
            evictee.record_eviction(request.target, &format!("by {name}"));
            return Ok(true);
        }
    }
    Ok(false)
}

/// A session has the console open, but neither as its own terminal nor from the other end.
fn is_session_on(holder: &Process, device: Device) -> bool {
    holder.is_surely_vconsole()
        && !holder.is_guard()
        && holder.has_open(device) == Some(true)
        && !holder.has_as_standard(device)
        && !holder.has_master_of(device)
}

/// Waits for the exit: the session removes its lock files after it has closed the console.
fn ends(
    evictee: &EvictTarget,
    request: &Request<'_>,
    time_limit: Duration,
) -> Result<bool, ClaimError> {
    let deadline = Instant::now() + time_limit;
    while Instant::now() < deadline {
        if poll::wait_readable(evictee, Some(Instant::now() + Duration::from_millis(20))) {
            return Ok(true);
        }
        if request.progress.cancelled() {
            return Err(ClaimErrorKind::Cancelled.on(request.target));
        }
    }
    Ok(evictee.has_ended())
}
