//! A client of a session.

use std::fmt;

use crate::printable::Printable;
use crate::process::{Presence, Process};
use crate::seqpacket::PeerCredentials;
use crate::session::protocol::ClientInfo;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) process: Process,
    /// Its controlling terminal, such as `pts/5`.
    pub(crate) terminal: Option<String>,
    pub(crate) info: ClientInfo,
}

impl Client {
    /// The process at the other end of a socket. `None` if it is gone, or in no namespace of ours.
    pub(crate) fn at(peer: PeerCredentials, info: ClientInfo) -> Option<Self> {
        if peer.pid <= 0 {
            return None;
        }
        let Presence::Alive(mut process) = Process::find(peer.pid) else { return None };
        process.uid = Some(peer.uid);
        Some(Self { terminal: process.terminal_name(), process, info: info.shortened() })
    }
}

impl fmt::Display for Client {
    /// `vconsole (pid 812, bob) on pts/3 from 192.0.2.7: "the reason"`, safe to show on a terminal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.process)?;
        if let Some(terminal) = &self.terminal {
            write!(out, " on {}", Printable::new(terminal))?;
        }
        if let Some(host) = &self.info.host {
            write!(out, " from {}", Printable::new(host))?;
        }
        if let Some(reason) = &self.info.reason {
            write!(out, ": {}", Printable::new(reason))?;
        }
        Ok(())
    }
}
