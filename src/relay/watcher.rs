//! What else a session waits for, beside bytes and signals.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::Notices;

/// Something that is looked after while bytes are moved, without ever holding them up.
pub trait Watcher: fmt::Debug {
    /// What becomes readable when there is something to look at, if anything does.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// When to look in any case.
    fn next_look(&self) -> Option<Instant>;

    /// Looks, since the descriptor is readable or the time has come.
    fn look(&mut self, notices: &mut Notices);
}

/// How many watchers a session can have.
pub const WATCHERS: usize = 2;
