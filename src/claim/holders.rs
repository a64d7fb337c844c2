//! Which processes hold a console: by flock, by the exclusive flag, or by having it open.

use std::thread;
use std::time::{Duration, Instant};

use crate::claim::error::{ClaimErrorKind, PossibleHolders};
use crate::console::{open::OpenError, target::Target};
use crate::device::Device;
use crate::locks::flock::Flocks;
use crate::process::{Process, snapshot::ProcessSnapshot};

/// A descriptor that is open at every look for this long belongs to a holder. Others are those of
/// udev, of fuser, or of a process that lost the same race.
pub(super) const HOLDER_AFTER: Duration = Duration::from_millis(250);

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The processes in `snapshot` that use the console without a lock. A vconsole never counts: the
/// operator's has the locks, and any other reads nothing.
pub(super) fn lasting_openers(device: Device, snapshot: &ProcessSnapshot) -> Vec<Process> {
    let openers = snapshot.openers(device).filter(|process| is_client(process, device));
    let mut holders: Vec<Process> = openers.cloned().collect();
    let deadline = Instant::now() + HOLDER_AFTER;
    while !holders.is_empty() && Instant::now() < deadline {
        thread::sleep(LOOK_INTERVAL);
        holders.retain(|holder| holder.can_use(device) == Some(true));
    }
    holders
}

/// Whether a process that has the console open may read it. A vconsole reads only its own terminal.
/// A process at the other end, or with revoked descriptors, reads nothing.
pub(super) fn is_client(process: &Process, device: Device) -> bool {
    let is_vconsole = process.is_one_of_us() && !process.has_as_standard(device);
    !is_vconsole && !process.is_at_other_end_of(device) && process.can_use(device) != Some(false)
}

/// The kernel names the process that took the lock, but the lock passes to others with the
/// descriptor: a holder must also have the console open, or hide its descriptors. If there is none,
/// all processes that have the console open may be holders.
pub(super) fn of_flock(target: &Target) -> Vec<Process> {
    let device = target.device();
    let snapshot = ProcessSnapshot::of(device);
    let openers: Vec<&Process> = snapshot.openers(device).collect();
    let flocks = Flocks::read();
    let named = flocks.of(target);
    let is_named = |process: &Process| named.contains(&process.pid);
    if openers.iter().any(|process| is_named(process)) {
        return openers.into_iter().filter(|process| is_named(process)).cloned().collect();
    }
    let hidden: Vec<_> =
        live(&named).filter(|process| process.has_open(device).is_none()).collect();
    if hidden.is_empty() { openers.into_iter().cloned().collect() } else { hidden }
}

/// The same without a new walk over `/proc`. The kernel still names the process that took the lock
/// after it handed the console over: then the holder is the session that has the console open.
pub(super) fn of_flock_as_seen(target: &Target, snapshot: &ProcessSnapshot) -> Vec<Process> {
    let device = target.device();
    let flocks = Flocks::read();
    let named = flocks.of(target);
    let others = live(&named).filter(|process| process.pid != Process::own_pid());
    let by: Vec<_> = others.filter(|process| process.has_open(device) != Some(false)).collect();
    if named.is_empty() || !by.is_empty() {
        return by;
    }
    let is_session = |process: &&Process| {
        process.is_surely_vconsole() && !process.is_guard() && !process.is_at_other_end_of(device)
    };
    let sessions = snapshot.openers(device).filter(is_session);
    sessions.filter(|process| process.can_use(device) != Some(false)).cloned().collect()
}

fn live(pids: &[i32]) -> impl Iterator<Item = Process> {
    pids.iter().filter(|&&pid| pid > 0).filter_map(|&pid| Process::living(pid))
}

pub(super) fn flock_is_of(target: &Target, pids: &[i32]) -> bool {
    let by = of_flock(target);
    let is_among = |process: &Process| pids.contains(&process.pid);
    let is_other =
        |process: &Process| !is_among(process) && !process.is_at_other_end_of(target.device());
    by.iter().any(is_among) && !by.iter().any(is_other)
}

/// A process that has only revoked descriptors and still keeps the flock until it ends.
pub(super) fn of_flock_and_hung_up(target: &Target) -> Option<Process> {
    let device = target.device();
    let mut by = of_flock(target).into_iter().filter(|process| !process.is_at_other_end_of(device));
    let first = by.next().filter(|process| process.can_use(device) == Some(false))?;
    by.all(|process| process.can_use(device) == Some(false)).then_some(first)
}

/// The processes that have the console open, except its peer and our own guard.
pub(super) fn openers_but_the_peer(target: &Target) -> Vec<Process> {
    let device = target.device();
    let own_guard = |process: &Process| process.is_guard() && process.is_child_of_ours();
    ProcessSnapshot::of(device)
        .openers(device)
        .filter(|process| !own_guard(process) && !process.is_at_other_end_of(device))
        .filter(|process| process.can_use(device) != Some(false))
        .cloned()
        .collect()
}

/// Whether a process in `snapshot` may read the console, or could before it ended.
pub(super) fn has_clients(target: &Target, snapshot: &ProcessSnapshot) -> bool {
    let device = target.device();
    snapshot.openers(device).any(|process| !process.is_alive() || is_client(process, device))
}

pub(super) fn refuse_if_open(
    target: &Target,
    snapshot: &ProcessSnapshot,
) -> Result<(), ClaimErrorKind> {
    let holders = lasting_openers(target.device(), snapshot);
    let open = |by| Err(ClaimErrorKind::Open { by: PossibleHolders(by) });
    if holders.is_empty() { Ok(()) } else { open(holders) }
}

pub(super) fn exclusive(target: &Target) -> ClaimErrorKind {
    ClaimErrorKind::Exclusive { by: PossibleHolders(openers_but_the_peer(target)) }
}

pub(super) fn not_opened(error: OpenError, target: &Target) -> ClaimErrorKind {
    match error {
        OpenError::Target(error) => error.into(),
        OpenError::Exclusive => exclusive(target),
        OpenError::Failed(source) => ClaimErrorKind::Unusable(source),
    }
}
