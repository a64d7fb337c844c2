//! The messages from a session to its guard.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::jobs::JobInfo;
use crate::locks::journal::JournalOp;
use crate::terminal::Modes;

/// A message from a session to its guard. "Comes along" means a descriptor that is sent with the message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GuardMessage {
    /// This is about to be done in a lock directory, whose descriptor comes along with `Use`.
    Locks(JournalOp),
    /// The terminal that comes along is about to become raw, and has these settings now.
    Terminal(Modes, JobInfo),
    TerminalRestored,
    /// The console that comes along is about to get the exclusive flag.
    Console {
        locked: bool,
        name: String,
    },
    /// The console is about to be hung up, and opened again at this path.
    HangingUp(OsString, Device),
    /// The guard closes the watch that comes along last. It replaces an earlier one of its kind.
    Watch(WatchKind),
    Sockets(Vec<PathBuf>),
    /// The guard answers on the socket that comes along if the session does not.
    GuardSocket,
    /// The number of viewers.
    Viewers(usize),
    /// The newcomer at the other end of the socket that comes along is about to get the console.
    HandingOver,
    /// The newcomer has everything: the guard only closes what is left here.
    HandedOver,
    Kept,
    /// A console is coming from the session at the other end of the socket that comes along, and
    /// stays that session's until `Received`.
    ReceivingFrom,
    Received,
    Goodbye,
}

/// The object of an inotify watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum WatchKind {
    Console,
    Sockets,
}
