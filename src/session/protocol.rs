//! The protocol of a session's socket.
//!
//! Each message is one packet (`SOCK_SEQPACKET`) of JSON. A newcomer that wants to operate sends
//! `takeover`. The session replies `refused`, `unsupported`, or `console` with the open console. The
//! undelivered bytes follow in packets of their own, each after a byte 0, which no JSON begins with.
//! The newcomer says `done` when it has everything.
//!
//! `done` transfers the console, and there is no moment in which both sides believe that they have
//! it. The session never reads `done`, it only peeks at it. A session that stops waiting shuts its
//! end down for reading, after which no `done` can arrive (the kernel does both under one lock,
//! `net/unix/af_unix.c`), and peeks once more; if there is none, it says `kept` and goes on. If the
//! session dies, its guard, which has the same end, does the same for it.
//!
//! When a session that is watched leaves or dies, its guard answers in its place. Each viewer asks it
//! by `takeover`, as one that only reads. The first gets the console, and the others learn by
//! `next-reader` whom to follow.
//!
//! A viewer sends `watch`. The session replies `refused`, or `watching` with the read end of a pipe
//! with the console's output. Over the socket come `missed`, and at the end `ended`.

use serde::{Deserialize, Serialize};

use crate::printable::{LONGEST, beginning};

/// The protocol version. Peers with another one are refused by its number: so only `takeover`,
/// `watch`, `refused` and `unsupported`, with their `version`, must stay as they are.
pub(crate) const VERSION: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientMessage {
    Takeover {
        version: u32,
        info: ClientInfo,
        /// Only if the session is still reading, without an operator.
        #[serde(default)]
        only_if_reading: bool,
    },
    Watch {
        version: u32,
        info: ClientInfo,
        /// The first byte that the client has not seen. Without it, the last 64 KiB come first.
        from: Option<StreamPos>,
    },
    /// The client has everything: the console is its own.
    Done,
}

/// The first message of a client of any version.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Opening {
    Takeover { version: u32 },
    Watch { version: u32 },
}

/// A client's claims about itself. The kernel tells everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientInfo {
    /// The host that its user is logged in from (`SSH_CONNECTION`).
    pub(crate) host: Option<String>,
    pub(crate) reason: Option<String>,
}

/// The longest host name (`gethostname(2)`).
const LONGEST_HOST: usize = 255;

impl ClientInfo {
    /// Both texts, cut to what fits into a message and onto a screen.
    pub(crate) fn shortened(self) -> Self {
        let short = |text: String, longest| beginning(&text, longest).to_owned();
        Self {
            host: self.host.map(|host| short(host, LONGEST_HOST)),
            reason: self.reason.map(|reason| short(reason, LONGEST)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamPos {
    /// Identifies the scrollback, which passes from operator to operator with the console.
    pub(crate) stream: u64,
    /// The number of bytes before it.
    pub(crate) offset: u64,
}

/// A reply of a session to a client, or a message to its viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// No, and why, in a sentence to show.
    Refused(String),
    /// No: the session speaks only this version.
    Unsupported { version: u32 },
    /// The session is gone, and its guard gave the console to this one of its viewers.
    NextReader { pid: i32, uid: u32 },
    /// The session keeps the console: `done` did not arrive in time, or nothing was sent.
    Kept,
    /// The console. Packets follow with this many bytes for the console, for the terminal, and of
    /// scrollback.
    Console { typed: u64, printed: u64, kept: u64, scrollback: Option<StreamPos> },
    /// The pipe for a viewer. It carries the output from `from` on, except for what is missed.
    Watching { from: StreamPos },
    /// This many bytes were left out of the pipe, because the viewer was too slow.
    Missed(u64),
    /// Nothing more comes. `at`: the end of the output; `missed`: missed bytes not reported before.
    Ended { why: EndReason, at: StreamPos, missed: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EndReason {
    /// The operator left, and the console is free.
    Left,
    HungUp,
    TakenOver {
        pid: i32,
        uid: u32,
    },
}
