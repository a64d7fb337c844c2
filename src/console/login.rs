//! Login terminals: a line on which a user is logged in is not a console.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use crate::console::kind::Kind;
use crate::device::Device;
use crate::process::Process;
use crate::process::snapshot::ProcessSnapshot;

/// A process that has `device` as controlling terminal and as standard input, output or error.
///
/// The controlling terminal alone proves nothing about a PTY: its number does not name the devpts
/// instance, and a client without a session gets the console that it opens as controlling terminal
/// by accident. The number of a serial port is the same everywhere: there it is enough for a
/// process that hides its descriptors, as a getty does from an ordinary user.
pub(super) fn logged_in(
    device: Device,
    kind: Kind,
    snapshot: &ProcessSnapshot,
) -> Option<&Process> {
    let mut seen = snapshot.openers(device).filter(|process| process.is_controlled_by(device));
    seen.find(|process| snapshot.has_as_standard(process, device)).or_else(|| {
        let hidden = (kind == Kind::Serial).then(|| snapshot.hidden_on(device));
        hidden.into_iter().flatten().next()
    })
}

/// Whether a line is a login terminal, and so not listed as a console. If everything about it is
/// hidden, the controlling terminal of a process of its `owner` is one.
pub(crate) fn is_login_terminal(
    device: Device,
    kind: Kind,
    owner: u32,
    snapshot: &ProcessSnapshot,
) -> bool {
    if is_our_own(device) || logged_in(device, kind, snapshot).is_some() {
        return true;
    }
    snapshot.masters(device).is_empty()
        && snapshot.openers(device).next().is_none()
        && snapshot.hidden_on(device).any(|process| process.uid == Some(owner))
}

pub(super) fn is_our_own(device: Device) -> bool {
    let is_it = |fd: BorrowedFd<'_>| Device::of_fd(fd) == Ok(Some(device));
    is_it(io::stdin().as_fd()) || is_it(io::stdout().as_fd()) || is_it(io::stderr().as_fd())
}
