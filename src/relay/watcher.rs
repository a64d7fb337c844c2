//! What else a session waits for, beside bytes and signals.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::{Notices, Undelivered};

/// Something that is looked after while bytes are moved, without ever holding them up.
pub trait Watcher: fmt::Debug {
    /// What becomes readable when there is something to look at, if anything does.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// When to look in any case.
    fn next_look(&self) -> Option<Instant>;

    /// Looks, since the descriptor is readable or the time has come.
    fn look(&mut self, notices: &mut Notices) -> Wish;

    /// Hands the console over as it wished, with what was read and is not delivered. Gives false where
    /// nobody has taken it: then the relay goes on, and delivers that itself.
    fn hand_over(&mut self, _left: &Undelivered, _notices: &mut Notices) -> bool {
        false
    }

    /// What the user should know of it when they ask how things stand: lines, safe to show.
    fn state(&self) -> Option<String> {
        None
    }

    /// Gets a copy of what the console printed, as it is read. It must not take its time.
    fn hears(&mut self, _printed: &[u8]) {}
}

/// What a watcher wishes of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wish {
    /// Nothing.
    GoOn,
    /// To hand the console over: [`Watcher::hand_over`] comes next.
    HandOver,
}

/// Stands in where there is nothing more to wait for.
#[derive(Debug)]
pub struct Nobody;

impl Watcher for Nobody {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn next_look(&self) -> Option<Instant> {
        None
    }

    fn look(&mut self, _notices: &mut Notices) -> Wish {
        Wish::GoOn
    }
}

/// How many watchers a session can have.
pub const WATCHERS: usize = 3;
