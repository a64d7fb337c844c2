//! Passing the console of a session that is gone to one of its viewers, and telling the others whom
//! to follow. If each of them looked for itself, hundreds would walk over `/proc` at once.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::guard::state::GuardState;
use crate::process::Process;
use crate::session::client::Client;
use crate::session::handoff::{self, ACCEPT_TIME};
use crate::session::listener::{ClientRequest, Listener};
use crate::session::protocol::Reply;
use crate::session::registry;
use crate::{poll, seqpacket, test_point};

/// How long a viewer may take to ask, or the one that reads to let the others in. A console that
/// nobody reads is free after that.
const READER_TIME: Duration = Duration::from_secs(2);
/// How long the others may take to ask.
const OTHERS_TIME: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Offers the console to the viewers in the order in which they ask, until one reads it, and tells
/// the others when that one lets them in. Returns when all were answered, or at a time limit.
pub(super) fn name_next_reader(listener: &mut Listener, state: &mut GuardState) {
    let mut viewers = Viewers { unanswered: state.viewers, waiting: VecDeque::new() };
    let Some(reader) = first_reader(&mut viewers, listener, state) else { return };
    let ready_by = Instant::now() + READER_TIME;
    while !lets_others_in(&reader) && Instant::now() < ready_by && reader.is_alive() {
        viewers.wait(listener, Instant::now() + LOOK_INTERVAL);
    }
    let next = Reply::NextReader { pid: reader.pid, uid: reader.uid.unwrap_or_default() };
    let deadline = Instant::now() + OTHERS_TIME;
    while let Some((viewer, _)) = viewers.next(listener, deadline) {
        let _ = seqpacket::send(&viewer, &next, &[]);
    }
}

fn first_reader(
    viewers: &mut Viewers,
    listener: &mut Listener,
    state: &mut GuardState,
) -> Option<Process> {
    loop {
        // Another process may have the console by now, or it is gone.
        state.console()?;
        let (viewer, client) = viewers.next(listener, Instant::now() + READER_TIME)?;
        if offer(viewer, state) {
            state.close_console();
            return Some(client.process);
        }
        // It may ask again.
        viewers.unanswered += 1;
    }
}

struct Viewers {
    unanswered: usize,
    waiting: VecDeque<(OwnedFd, Client)>,
}

impl Viewers {
    /// Waits until some ask, and at most until `deadline`.
    fn wait(&mut self, listener: &mut Listener, deadline: Instant) {
        let until = listener.next_look().map_or(deadline, |look| look.min(deadline));
        poll::wait_readable(listener.descriptor(), Some(until));
        for request in listener.look() {
            if let ClientRequest::Takeover { socket, client, .. } = request {
                self.waiting.push_back((socket, client));
            }
        }
    }

    /// The next viewer to answer. `None` if there is none left, or none asks until `deadline`.
    fn next(&mut self, listener: &mut Listener, deadline: Instant) -> Option<(OwnedFd, Client)> {
        while self.waiting.is_empty() && self.unanswered > 0 && Instant::now() < deadline {
            self.wait(listener, deadline);
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        self.waiting.pop_front()
    }
}

/// Whether the viewer at the other end took the console.
fn offer(viewer: OwnedFd, state: &mut GuardState) -> bool {
    test_point::reached("naming");
    let console = state.console();
    if console.is_some_and(|it| {
        handoff::send(&viewer, it, [&[], &[]], None, Instant::now() + ACCEPT_TIME).is_ok()
    }) {
        state.offer_to(viewer);
    }
    state.is_handed_over()
}

fn lets_others_in(reader: &Process) -> bool {
    reader.uid.is_some_and(|uid| registry::has_socket(uid, reader.pid))
}
