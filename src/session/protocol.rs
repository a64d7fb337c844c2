//! What is said over a session's socket.
//!
//! Each message is one packet (`SOCK_SEQPACKET`) of JSON. Who wants to drive sends `takeover`; the
//! session answers `refused`, `unsupported`, or `console` with the open console and a file of undelivered bytes as
//! descriptors; who has taken all of it over says `done`.
//!
//! `done` is what makes the console another's, and there is no moment in which both sides can think so:
//! it lies in the session's end of the line, which never reads it, only looks at it. A session that waits
//! no longer shuts that end for reading, so that no `done` can come any more (the kernel does both under
//! one lock, `net/unix/af_unix.c`), and looks once more; if there is none, it says `kept` and goes on.
//! Where a session dies its guard, which has the same end, does the same for it.
//!
//! Who wants to watch sends `watch`; the session answers `refused`, or `watching` with the read end of a
//! pipe, that carries what the console prints and nothing else. What is to be known of it comes over the
//! socket: `missed`, and at the end `ended`.

use serde::{Deserialize, Serialize};

use crate::printable::{LONGEST, beginning};

/// The version that we speak. Another one is refused by its number, whatever else it says: both sides
/// then know what to do. What comes later may change all but `takeover` and `watch` with their `version`,
/// `refused` and `unsupported`.
pub const VERSION: u32 = 2;

/// What somebody who comes says first, and when the console is theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// I want to drive from now on, whoever does now.
    Takeover {
        /// The version that is spoken.
        version: u32,
        /// What we say of ourselves.
        about: About,
        /// Only from who reads and does not type: a driver is left alone.
        #[serde(default)]
        polite: bool,
    },
    /// I want to see what the console prints.
    Watch {
        /// The version that is spoken.
        version: u32,
        /// What we say of ourselves.
        about: About,
        /// The first byte that we have not seen, if we watched before. Otherwise the last 64 KiB come
        /// first.
        from: Option<Place>,
    },
    /// I have everything: the console is mine.
    Done,
}

/// How somebody who comes begins, in whatever version of the protocol they go on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opening {
    /// As [`Request::Takeover`].
    Takeover {
        /// The version that is spoken.
        version: u32,
    },
    /// As [`Request::Watch`].
    Watch {
        /// The version that is spoken.
        version: u32,
    },
}

/// What somebody who comes says of themselves. All else is asked of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The host from which they are logged in, as `SSH_CONNECTION` names it.
    pub host: Option<String>,
    /// Why they come.
    pub reason: Option<String>,
}

/// No host's name is longer (`gethostname(2)`).
const LONGEST_HOST: usize = 255;

impl About {
    /// What fits into a message and onto a screen: the beginning of each.
    #[must_use]
    pub fn shortened(self) -> Self {
        let short = |text: Option<String>, longest| {
            text.map(|text: String| beginning(&text, longest).to_owned())
        };
        Self { host: short(self.host, LONGEST_HOST), reason: short(self.reason, LONGEST) }
    }
}

/// A place in what a console printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which tape it is on. It passes from driver to driver, with the console.
    pub reel: u64,
    /// How many bytes come before it.
    pub at: u64,
}

/// What a session answers, and what it says to those who watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// No, and why: a sentence to show.
    Refused(String),
    /// No: we speak this version of the protocol alone.
    Unsupported {
        /// That version.
        version: u32,
    },
    /// The console is still ours: `done` did not come in time, or nothing was given.
    Kept,
    /// Here is the console, and in the second descriptor, a file, the bytes that were not delivered:
    /// first those for the console, then those for the terminal.
    Console {
        /// How many bytes of the file are for the console.
        typed: u64,
        /// How many are for the terminal.
        printed: u64,
        /// All the rest of the file is the tape for those who watch, which ends here.
        tape: Option<Place>,
    },
    /// Here is the pipe; what is printed from this place on comes through it, but for what is missed.
    Watching {
        /// The place of the first byte that comes, or is missed.
        from: Place,
    },
    /// So many bytes were left out of the pipe: the viewer was too slow.
    Missed(u64),
    /// Nothing more comes through the pipe.
    Ended {
        /// Why.
        why: Leave,
        /// Up to here everything came, but for what was missed.
        at: Place,
        /// So many bytes were missed that were not told before.
        missed: u64,
    },
}

/// Why there is nothing more to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// The driver left, and the console is free.
    Left,
    /// The console hung up.
    HungUp,
    /// Another session has it now.
    TakenOver {
        /// Its process.
        pid: i32,
        /// Its user.
        uid: u32,
    },
}
