//! What is said over a session's socket.
//!
//! Each message is one packet (`SOCK_SEQPACKET`) of JSON. Who wants to drive sends `takeover`; the
//! session answers `refused`, or `console` with the open console and a file of undelivered bytes as
//! descriptors; who has taken all of it over says `done`.
//!
//! `done` is what makes the console another's, and there is no moment in which both sides can think so:
//! it lies in the session's end of the line, which never reads it, only looks at it. A session that waits
//! no longer shuts that end for reading, so that no `done` can come any more (the kernel does both under
//! one lock, `net/unix/af_unix.c`), and looks once more; if there is none, it says `kept` and goes on.
//! Where a session dies its guard, which has the same end, does the same for it.

use serde::{Deserialize, Serialize};

/// The version that we speak. Another one is refused by its number: both sides then say what to do.
pub const VERSION: u32 = 1;

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
    },
    /// I have everything: the console is mine.
    Done,
}

/// What somebody who comes says of themselves. All else is asked of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The host from which they are logged in, as `SSH_CONNECTION` names it.
    pub host: Option<String>,
    /// Why they come.
    pub reason: Option<String>,
}

/// What a session answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// No, and why: a sentence to show.
    Refused(String),
    /// The console is still ours: `done` did not come in time, or nothing was given.
    Kept,
    /// Here is the console, and in the second descriptor, a file, the bytes that were not delivered:
    /// first those for the console, then those for the terminal.
    Console {
        /// How many bytes of the file are for the console.
        typed: u64,
        /// How many are for the terminal.
        printed: u64,
    },
}
