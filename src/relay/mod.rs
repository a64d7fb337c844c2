//! The loop that moves the bytes, between the user's standard input and output and a console.
//!
//! One thread and one poll: `event_loop` waits and tells why it ended, `ways` moves what can be moved
//! without waiting, `commands` obeys the escape key and signals. Each way has one `buffer` of fixed
//! size; while it is full nothing more is read, so that who sends has to wait as on any slow line. The
//! rest are the values the loop works with: `endpoint` reads and writes what others gave us, without
//! waiting and without changing it, `escape` finds commands in what is typed, `linger` knows when to
//! leave after the end of input, `signals` come through a descriptor, and `notices` never wait either.

mod buffer;
mod commands;
mod endpoint;
mod escape;
mod event_loop;
mod line;
mod linger;
mod notices;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
mod signals;
mod watcher;
mod ways;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::event::Timespec;

use crate::terminal::RawMode;

pub(crate) use endpoint::Source;
pub use escape::{EscapeKey, NotAnEscapeKey};
pub use line::Line;
pub use linger::Linger;
pub use notices::Notices;
pub use signals::{Obeyed, Signals};
pub use watcher::{Nobody, WATCHERS, Watcher, Wish};

/// How many bytes a relay has moved so far: still known when it has failed.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Read from the console.
    received: Cell<u64>,
    /// Taken by the console.
    sent: Cell<u64>,
}

impl Traffic {
    /// How many came from the console.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// How many went to it.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    fn add_received(&self, count: usize) {
        self.received.set(self.received() + count as u64);
    }

    fn add_sent(&self, count: usize) {
        self.sent.set(self.sent() + count as u64);
    }
}

/// What the user wishes of a relay.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The key that begins a command. Without a terminal on standard input there are no commands.
    pub escape: EscapeKey,
    /// How long to stay after the end of input. `None`: up to 3 s for a first byte, then until 1 s of
    /// quiet.
    pub linger: Option<Linger>,
    /// How long to stay after the end of input at most.
    pub linger_max: Option<Duration>,
    /// Whether what is typed goes to the console. Otherwise nothing but the escape key works, and the end
    /// of input is no reason to leave. Who only reads a console that is theirs can change that by the
    /// escape key.
    pub typing: &'a Cell<bool>,
    /// What to answer when the user asks how things stand: the console, and since when it is ours. The
    /// relay adds what it has moved.
    pub status_line: &'a dyn Fn() -> String,
    /// Where to count what is moved.
    pub traffic: &'a Traffic,
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Settings")
            .field("escape", &self.escape)
            .field("linger", &self.linger)
            .field("linger_max", &self.linger_max)
            .field("typing", &self.typing)
            .finish_non_exhaustive()
    }
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user left.
    Detached,
    /// The input ended, the console got all of it, and was quiet for as long as was wished.
    InputEnded,
    /// The other end of the console closed it, or who passed it on to us. All that was read from it was written to stdout.
    HungUp,
    /// Who read our stdout left (`EPIPE`).
    ReaderGone,
    /// The user's terminal vanished, without SIGHUP.
    TerminalGone,
    /// The time limit after the end of input passed.
    TimeLimit,
    /// This signal came.
    Signal(i32),
    /// A watcher wished it: another drives from now on.
    HandedOver,
    /// The user, who only watches, wants to drive.
    Wheel,
}

/// Bytes that were read and not delivered when a relay ended.
#[derive(Clone, Debug, Default)]
pub struct Undelivered {
    /// From the input, for the console.
    pub typed: Vec<u8>,
    /// From the console, for the output.
    pub printed: Vec<u8>,
}

/// What makes a relay fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading standard input.
    #[error("cannot read from stdin")]
    Stdin(#[source] io::Error),
    /// Writing standard output: the disk may be full.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    /// Reading from or writing to the console.
    #[error("the console failed")]
    Console(#[source] io::Error),
    /// Making the terminal raw again after we were stopped.
    #[error("cannot set the terminal raw")]
    Terminal(#[source] io::Error),
    /// Waiting for something to happen.
    #[error("cannot wait for input")]
    Wait(#[source] io::Error),
}

/// Moves bytes both ways, unchanged and in order, until there is a reason to end. Standard input and
/// output may be anything: terminals, pipes, files, sockets.
///
/// `raw` is the terminal on standard input if there is one: then the escape key works, and `raw` is
/// suspended while we are stopped. `signals` that came before are obeyed as if they came now. `watchers`
/// are woken when there is something for them to look at.
///
/// What `left` holds is delivered first. At the end both ways get another 200 ms to deliver what was
/// read, and `notices` says how much was lost. A watcher that hands the console over gets it instead.
pub fn run<'a>(
    line: Line<'a>,
    raw: Option<&'a RawMode<'a>>,
    notices: &'a mut Notices,
    signals: &'a mut Signals,
    watchers: [&'a mut dyn Watcher; WATCHERS],
    settings: &'a Settings<'a>,
    left: &Undelivered,
) -> Result<(Ending, Undelivered), Error> {
    event_loop::Relay::new(line, raw, notices, signals, watchers, settings)?.take_up(left).run()
}

/// `time` as poll wants it; more than it can count is for ever.
fn timeout(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
