//! Whose terminal is it? A line on which somebody is logged in is a terminal, and no console.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::other_end::shows_terminals;
use super::{Device, Kind, Target};
use crate::process::{Census, Openers, Process};

/// One who has `device` as its terminal: it controls the process, and is its standard input, output or
/// error.
///
/// The first alone proves nothing of a PTY: the number carries no devpts instance, and a client that was
/// started without a session takes the console that it opens as its controlling terminal by accident.
/// A serial port is the same everywhere: there it is enough for a process that hides what it has open,
/// which an ordinary user's getty is to them.
pub(super) fn logged_in(device: Device, kind: Kind, openers: &Openers) -> Option<Process> {
    let seen = openers
        .processes
        .iter()
        .find(|process| process.is_controlled_by(device) && process.has_as_standard(device));
    let hidden = || {
        let hidden = openers.hidden.iter().filter(|_| kind == Kind::Serial);
        hidden
            .filter_map(|&pid| Process::shown(pid))
            .find(|process| process.is_controlled_by(device))
    };
    seen.cloned().or_else(hidden)
}

/// The same, of a census: nothing is asked again.
pub(super) fn logged_in_of(device: Device, kind: Kind, census: &Census) -> Option<&Process> {
    let mut seen = census.openers(device).filter(|process| process.is_controlled_by(device));
    seen.find(|process| census.has_as_standard(process, device)).or_else(|| {
        let hidden = (kind == Kind::Serial).then(|| census.hidden_on(device));
        hidden.into_iter().flatten().next()
    })
}

/// Whether a line that nobody asked about is left alone as a terminal that somebody sits at: somebody is
/// logged in on it, or its other end is a program that shows terminals to people.
///
/// Where all of that is hidden, it is taken for a terminal if it controls a process of the user that
/// the line belongs to, `owner`.
#[must_use]
pub fn is_sat_at(target: &Target, owner: u32, census: &Census) -> bool {
    let device = target.device();
    if is_our_own(device) || logged_in_of(device, target.kind(), census).is_some() {
        return true;
    }
    let masters = census.masters(device).processes;
    let hidden = masters.is_empty()
        && census.openers(device).next().is_none()
        && census.hidden_on(device).any(|process| process.uid == Some(owner));
    hidden || masters.iter().any(|process| shows_terminals(process))
}

/// Whether `device` is this process's own standard input, output or error.
pub(super) fn is_our_own(device: Device) -> bool {
    let own = |descriptor: BorrowedFd<'_>| {
        let own = rustix::fs::fstat(descriptor);
        own.is_ok_and(|file| device == Device { filesystem: file.st_dev, number: file.st_rdev })
    };
    own(io::stdin().as_fd()) || own(io::stdout().as_fd()) || own(io::stderr().as_fd())
}
