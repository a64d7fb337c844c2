//! Somebody who comes to a session.

use std::fmt;

use super::protocol::About;
use crate::printable::Printable;
use crate::process::{Presence, Process};
use crate::wire::Peer;

/// Somebody who comes to a session: a process that the kernel vouches for, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The process.
    pub process: Process,
    /// The terminal that controls it, such as `pts/5`.
    pub terminal: Option<String>,
    /// What it says of itself.
    pub about: About,
}

impl Visitor {
    /// The process at the other end of a socket. Nothing where it is gone, or in no namespace of ours.
    pub(crate) fn at(peer: Peer, about: About) -> Option<Self> {
        match Process::find(peer.pid) {
            _ if peer.pid <= 0 => None,
            Presence::Gone => None,
            Presence::Alive(mut process) => {
                process.uid = Some(peer.uid);
                let about = about.shortened();
                Some(Self { terminal: process.terminal_name(), process, about })
            }
        }
    }
}

impl fmt::Display for Visitor {
    /// `vconsole (pid 812, bob) on pts/3 from 192.0.2.7: "the reason"`, safe to show on a terminal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.process)?;
        if let Some(terminal) = &self.terminal {
            write!(out, " on {}", Printable::new(terminal))?;
        }
        if let Some(host) = &self.about.host {
            write!(out, " from {}", Printable::new(host))?;
        }
        if let Some(reason) = &self.about.reason {
            write!(out, ": {}", Printable::new(reason))?;
        }
        Ok(())
    }
}
