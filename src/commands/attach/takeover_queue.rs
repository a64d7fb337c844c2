//! Newcomers that want the console, first come, first served. An offer stops the relay until the
//! newcomer has taken the console or not: so only a few newcomers wait.

use std::time::{Duration, Instant};
use std::{collections::VecDeque, os::fd::OwnedFd};

use crate::session::handoff::{self, ACCEPT_TIME};
use crate::session::{client::Client, listener::refuse};

/// All have their turn before the last of them asks our guard instead.
const MAX_WAITING: usize = 4;

#[derive(Debug, Default)]
pub(super) struct TakeoverQueue(VecDeque<Newcomer>);

#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) socket: OwnedFd,
    pub(super) client: Client,
    pub(super) came: Instant,
    /// Only if we are still reading.
    pub(super) only_if_reading: bool,
}

impl TakeoverQueue {
    pub(super) fn push(&mut self, newcomer: Newcomer) {
        self.drop_departed();
        if self.0.len() < MAX_WAITING {
            self.0.push_back(newcomer);
        } else {
            refuse(&newcomer.socket, "too many others ask for it at the same moment");
        }
    }

    fn drop_departed(&mut self) {
        self.0.retain(|newcomer| handoff::is_waiting(&newcomer.socket));
    }

    /// Hand the console over at once if a newcomer waits.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.0.front().map(|newcomer| newcomer.came)
    }

    pub(super) fn has_newcomer(&mut self) -> bool {
        self.drop_departed();
        !self.0.is_empty()
    }

    /// The first newcomer, and its time to accept: all waiting newcomers share the time.
    pub(super) fn pop(&mut self) -> Option<(Newcomer, Duration)> {
        let first = self.0.pop_front()?;
        let waiting = u32::try_from(1 + self.0.len()).unwrap_or(u32::MAX);
        Some((first, ACCEPT_TIME / waiting))
    }

    pub(super) fn into_sockets(self) -> impl Iterator<Item = OwnedFd> {
        self.0.into_iter().map(|newcomer| newcomer.socket)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::seqpacket::PeerCredentials;
    use crate::session::protocol::ClientInfo;

    #[test]
    fn only_a_few_newcomers_wait_and_they_share_the_time() {
        let mut queue = TakeoverQueue::default();
        let _sockets = [(); 9].map(|()| {
            let (theirs, ours) = UnixStream::pair().unwrap();
            let client =
                Client::at(PeerCredentials::of(&ours).unwrap(), ClientInfo::default()).unwrap();
            let (socket, came) = (ours.into(), Instant::now());
            queue.push(Newcomer { socket, client, came, only_if_reading: false });
            theirs
        });
        assert!(queue.has_newcomer());
        let times: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, time)| time).collect();
        assert_eq!(times.len(), MAX_WAITING);
        assert!(times.iter().sum::<Duration>() > ACCEPT_TIME && times[0] == ACCEPT_TIME / 4);
        assert_eq!(times.last(), Some(&ACCEPT_TIME));
    }
}
