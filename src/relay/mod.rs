//! The loop that moves bytes between the user's standard input and output and a console.
//!
//! It is one thread with one poll. `event_loop` waits and decides when to end, `pump` moves what
//! can be moved without blocking, `actions` runs key commands. Each direction has one buffer of
//! fixed size; while it is full nothing more is read, so that the sender waits as on any slow line.

pub(crate) mod actions;
pub(crate) mod escape;
pub(crate) mod event_loop;
pub(crate) mod event_source;
mod job_control;
pub(crate) mod linger;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod pump;
pub(crate) mod upstream;

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::relay::escape::EscapeKey;
use crate::relay::linger::Linger;

/// How many bytes a relay has moved. Still known after it failed.
#[derive(Debug, Default)]
pub(crate) struct ByteCounts {
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl ByteCounts {
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }
}

/// The options of a relay; `vconsole-attach(1)` describes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Works only if standard input is a terminal.
    pub(crate) escape: EscapeKey,
    /// How long to stay after the end of input. `None`: 3 s for a first byte, then 1 s of quiet.
    pub(crate) linger: Option<Linger>,
    /// The longest time to stay after the end of input.
    pub(crate) linger_max: Option<Duration>,
}

#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) options: Options,
    /// Whether input goes to the console. If not, only the escape key works. That can change it.
    pub(crate) can_write: &'a Cell<bool>,
    /// For the status command: the console, and since when it is held.
    pub(crate) status_line: &'a dyn Fn() -> String,
    pub(crate) counts: &'a ByteCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Detached,
    /// The console got all of the input, and was quiet for as long as was asked.
    InputEnded,
    /// The other end of the console or of a viewer's pipe was closed, and its output was shown.
    HungUp,
    /// The reader of our stdout left (`EPIPE`).
    ReaderGone,
    /// The user's terminal vanished without a SIGHUP.
    TerminalGone,
    TimeLimit,
    Signal(i32),
    HandedOver,
    /// The user of a viewer wants to operate the console.
    TakeControl,
}

/// Bytes that were read and not delivered when a relay ended: those typed for the console, and
/// those that it printed, unchanged, because takeover and viewers count them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingBytes {
    pub(crate) typed: Vec<u8>,
    pub(crate) printed: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read from stdin")]
    Stdin(#[source] io::Error),
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("the console failed")]
    Console(#[source] io::Error),
    #[error("cannot set the terminal raw")]
    Terminal(#[source] io::Error),
    #[error("cannot wait for input")]
    Wait(#[source] io::Error),
}
