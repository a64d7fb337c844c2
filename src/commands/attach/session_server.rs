//! The server of a session: it answers newcomers and viewers.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::audit::{self, Event};
use crate::commands::attach::sockets::{Sockets, remove_all};
use crate::commands::attach::takeover_queue::{Newcomer, TakeoverQueue};
use crate::relay::event_source::{Action, EventSource, Tap};
use crate::relay::{ExitReason, PendingBytes};
use crate::session::handoff::{self, Outcome};
use crate::session::listener::{ClientRequest, refuse};
use crate::session::protocol::{EndReason, StreamPos};
use crate::session::{broadcast::Broadcaster, client::Client, scrollback::Scrollback};
use crate::{claim::Claim, guard::client::Guard, messages::Messages, test_point};

const HAS_OPERATOR: &str = "it has an operator";
/// Clients that connect again and again must not fill the screen and the audit trail.
const LINES_A_SECOND: u32 = 20;
/// How often, and at which interval, to look again whether sockets that were made again are there.
const LOOKS: u32 = 10;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Without sockets no client comes.
pub(super) struct SessionServer<'a> {
    claim: &'a Claim,
    guard: &'a Guard,
    /// Whether nobody may watch.
    private: bool,
    /// Whether the session has an operator. Without one any newcomer gets the console.
    can_write: &'a Cell<bool>,
    sockets: Option<Sockets>,
    viewers: &'a Viewers,
    /// When to look again for sockets that were removed, and how many more times.
    again_at: Option<Instant>,
    looks_left: u32,
    said_no_sockets: bool,
    lines: LineLimit,
    queue: TakeoverQueue,
    /// The sockets of newcomers that could not be told that we keep the console. A closed socket
    /// would say that nobody is left to hand it over.
    untold: Vec<OwnedFd>,
    /// Whether our guard answers from now on.
    pub(super) leaves_to_viewers: bool,
    /// After a handover: the new holder, and the position of the first byte that our user has not
    /// seen.
    pub(super) successor: Option<(Client, Option<StreamPos>)>,
}

/// Shared by the tap, which copies the output, and the server.
#[derive(Debug, Default)]
pub(super) struct Viewers(RefCell<Option<Broadcaster>>);

impl Viewers {
    pub(super) fn close(&self, why: EndReason) {
        if let Some(broadcaster) = self.0.take() {
            broadcaster.close(why);
        }
    }
}

impl Drop for Viewers {
    /// Also after a panic.
    fn drop(&mut self) {
        self.close(EndReason::Left);
    }
}

impl Tap for &Viewers {
    fn write(&mut self, printed: &[u8]) {
        if let Some(broadcaster) = &mut *self.0.borrow_mut() {
            broadcaster.write(printed);
        }
    }
}

impl<'a> SessionServer<'a> {
    /// Viewers get `scrollback` first.
    pub(super) fn start(
        claim: &'a Claim,
        guard: &'a Guard,
        private: bool,
        can_write: &'a Cell<bool>,
        viewers: &'a Viewers,
        scrollback: Scrollback,
        messages: &mut Messages,
    ) -> Self {
        let sockets = Sockets::open(guard).inspect_err(|error| {
            messages.info(without_sockets(error));
        });
        let sockets = sockets.ok();
        *viewers.0.borrow_mut() = sockets.as_ref().and_then(|sockets| {
            let broadcaster = Broadcaster::open(scrollback).ok()?;
            sockets.listener.also_wait_for(broadcaster.descriptor()).ok()?;
            Some(broadcaster)
        });
        let (lines, queue) = (LineLimit::default(), TakeoverQueue::default());
        let (untold, successor) = (Vec::new(), None);
        Self {
            claim,
            guard,
            private,
            can_write,
            sockets,
            viewers,
            again_at: None,
            looks_left: 0,
            said_no_sockets: false,
            lines,
            queue,
            untold,
            leaves_to_viewers: false,
            successor,
        }
    }

    /// Makes the sockets again that somebody has removed, in whichever directory can be used: a
    /// runtime directory goes with the last login of its user, and a session under tmux stays.
    fn make_sockets_again(&mut self, messages: &mut Messages) {
        // Its names are removed before the new ones come.
        let late = self.sockets.take().map(|old| old.listener.close()).unwrap_or_default();
        let (sockets, failed) = match Sockets::open(self.guard) {
            Ok(sockets) => (Some(sockets), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(Sockets { directory, listener, .. }) = &sockets {
            let viewers = self.viewers.0.borrow();
            viewers.iter().for_each(|viewers| drop(listener.also_wait_for(viewers.descriptor())));
            if !self.can_write.get() {
                let _ = directory.mark_reader();
            }
        }
        if let Some(error) = failed.filter(|_| !std::mem::replace(&mut self.said_no_sockets, true))
        {
            messages.info(without_sockets(&error));
        }
        self.sockets = sockets;
        for request in late {
            self.handle(request, messages);
        }
    }

    pub(super) fn end_reason(&self, reason: ExitReason) -> EndReason {
        match &self.successor {
            _ if reason == ExitReason::HungUp => EndReason::HungUp,
            Some((Client { process, .. }, _)) => {
                EndReason::TakenOver { pid: process.pid, uid: process.uid.unwrap_or_default() }
            }
            None => EndReason::Left,
        }
    }

    fn handle(&mut self, request: ClientRequest, messages: &mut Messages) {
        match request {
            ClientRequest::Takeover { socket, only_if_reading: true, .. }
                if self.has_operator() =>
            {
                refuse(&socket, HAS_OPERATOR);
            }
            ClientRequest::Takeover { socket, client, only_if_reading } => {
                let came = Instant::now();
                self.queue.push(Newcomer { socket, client, came, only_if_reading });
            }
            ClientRequest::Watch { socket, client, from } => {
                self.subscribe(socket, client, from, messages);
            }
            ClientRequest::Unauthorized(peer) => {
                if self.lines.allow() {
                    self.record(&Event::notable("peer-refused").with("peer", peer));
                    messages.info(format_args!("turned away another user: {peer}"));
                }
            }
        }
    }

    /// Also unregisters a session that has an operator by now as a reader.
    fn has_operator(&self) -> bool {
        let has_operator = self.can_write.get();
        if let Some(sockets) = self.sockets.as_ref().filter(|_| has_operator) {
            sockets.directory.unregister_reader();
        }
        has_operator
    }

    fn record(&self, event: &Event) {
        audit::record(&self.claim.console().to_string(), event);
    }

    fn subscribe(
        &mut self,
        socket: OwnedFd,
        client: Client,
        from: Option<StreamPos>,
        messages: &mut Messages,
    ) {
        let by = client.to_string();
        let subscribed = match &mut *self.viewers.0.borrow_mut() {
            Some(broadcaster) if !self.private => {
                // Before the viewer knows that it watches: we may die the next moment, and the guard
                // has to know that somebody will ask for the console.
                self.guard.tell_viewers(broadcaster.viewers().count() + 1);
                broadcaster.subscribe(socket, client, from)
            }
            _ => Err((socket, "it lets nobody watch".to_owned())),
        };
        let show = self.lines.allow();
        match subscribed {
            Ok(()) if show => {
                self.record(&Event::usual("watched").with("by", &by));
                messages.info(format_args!("watched by {by}"));
            }
            Ok(()) => {}
            Err((socket, why)) => {
                refuse(&socket, &why);
                if show {
                    self.record(&Event::notable("watch-refused").with("by", &by).with("why", &why));
                    messages.info(format_args!("did not let watch, since {why}: {by}"));
                }
            }
        }
    }

    fn note_successor(&mut self, successor: Client, pending: &PendingBytes) {
        let not_shown = pending.printed.len() as u64;
        let seen = self.viewers.0.borrow().as_ref().map(|broadcaster| {
            let end = broadcaster.scrollback.end();
            StreamPos { offset: end.offset.saturating_sub(not_shown), ..end }
        });
        self.successor = Some((successor, seen));
    }

    /// Offers the console, with the undelivered bytes, to the newcomer.
    fn offer(&self, socket: &OwnedFd, time_limit: Duration, pending: &PendingBytes) -> Outcome {
        let deadline = Instant::now() + time_limit;
        self.guard.tell_handing_over(socket);
        // From now on nothing of it is released here if we die: the guard will know whose it is.
        self.claim.give_away();
        test_point::reached("handing-over");
        let sent = {
            let broadcaster = self.viewers.0.borrow();
            let scrollback = broadcaster.as_ref().map(|it| &it.scrollback);
            let pending = [&pending.typed[..], &pending.printed];
            handoff::send(socket, self.claim.console(), pending, scrollback, deadline)
        };
        test_point::reached("given");
        let outcome = match sent {
            Ok(()) => handoff::outcome(socket, deadline),
            Err(_) => handoff::keep(socket),
        };
        test_point::reached("settled");
        outcome
    }
}

impl Drop for SessionServer<'_> {
    /// Answers the waiting newcomers, and removes the sockets. The viewers are told later. A guard
    /// that goes on has its own.
    fn drop(&mut self) {
        let Some(Sockets { directory, listener, .. }) = self.sockets.take() else { return };
        let late = listener.close().into_iter().filter_map(|request| match request {
            ClientRequest::Takeover { socket, .. } => Some(socket),
            ClientRequest::Watch { .. } | ClientRequest::Unauthorized(_) => None,
        });
        let waiting = std::mem::take(&mut self.queue).into_sockets();
        if let Some((winner, _)) = &self.successor {
            waiting.chain(late).for_each(|socket| {
                refuse(&socket, &format!("{winner} took it over at the same moment"));
            });
        }
        if !self.leaves_to_viewers {
            remove_all(&directory.paths());
        }
    }
}

impl EventSource for SessionServer<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.sockets.as_ref().map(|sockets| sockets.listener.descriptor())
    }

    fn next_look(&self) -> Option<Instant> {
        let listener = self.sockets.as_ref().and_then(|sockets| sockets.listener.next_look());
        let viewers = self.viewers.0.borrow().as_ref().and_then(Broadcaster::next_look);
        [self.queue.next_look(), listener, viewers, self.again_at].into_iter().flatten().min()
    }

    fn look(&mut self, messages: &mut Messages) -> Action {
        let removed = self.sockets.as_ref().is_some_and(Sockets::were_removed);
        let due = self.again_at.is_some_and(|at| at <= Instant::now());
        if removed {
            self.looks_left = LOOKS;
        }
        if removed || due && !self.sockets.as_ref().is_some_and(|it| it.directory.has_sockets()) {
            self.make_sockets_again(messages);
        }
        if removed || due {
            // A logout empties the directory first and then unmounts it, without an event.
            self.looks_left = self.looks_left.saturating_sub(1);
            let goes_on = self.sockets.is_none() || self.looks_left > 0;
            self.again_at = goes_on.then(|| Instant::now() + AGAIN_AFTER);
        }
        test_point::reached("listening");
        let requests = self.sockets.as_mut().map(|sockets| sockets.listener.look());
        for request in requests.unwrap_or_default() {
            self.handle(request, messages);
        }
        let gone = self.viewers.0.borrow_mut().as_mut().map(Broadcaster::look);
        for gone in gone.unwrap_or_default() {
            if self.lines.allow() {
                messages.info(format_args!("watched no more by {gone}"));
            }
        }
        let viewers = self.viewers.0.borrow();
        self.guard.tell_viewers(viewers.as_ref().map_or(0, |it| it.viewers().count()));
        drop(viewers);
        if self.queue.has_newcomer() { Action::HandOver } else { Action::Continue }
    }

    fn hand_over(&mut self, pending: &PendingBytes, messages: &mut Messages) -> bool {
        let Some((newcomer, time_limit)) = self.queue.pop() else { return false };
        let Newcomer { socket, client, only_if_reading, .. } = newcomer;
        // It came while we only read; meanwhile our user has taken control.
        if only_if_reading && self.has_operator() {
            refuse(&socket, HAS_OPERATOR);
            return false;
        }
        match self.offer(&socket, time_limit, pending) {
            Outcome::Taken => {
                self.guard.tell_handed_over();
                self.note_successor(client, pending);
                true
            }
            Outcome::Kept { told } => {
                self.untold.extend((!told).then_some(socket));
                self.guard.tell_kept();
                let by = client.to_string();
                let repaired = self.claim.take_back(client.process, self.guard);
                for line in repaired {
                    messages.info(line);
                }
                if self.lines.allow() {
                    self.record(&Event::notable("not-taken").with("by", &by));
                    messages.info(format_args!("{by} asked for the console, and did not take it"));
                }
                false
            }
        }
    }

    fn state(&self) -> Option<String> {
        let broadcaster = self.viewers.0.borrow();
        let viewers = broadcaster.iter().flat_map(Broadcaster::viewers);
        let lines: Vec<_> = viewers.map(|viewer| format!("watched by {viewer}")).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

#[derive(Debug, Default)]
struct LineLimit {
    since: Option<Instant>,
    lines: u32,
}

impl LineLimit {
    fn allow(&mut self) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= Duration::from_secs(1)) {
            *self = Self { since: Some(Instant::now()), lines: 0 };
        }
        self.lines += 1;
        self.lines <= LINES_A_SECOND
    }
}

fn without_sockets(error: &io::Error) -> String {
    format!(
        "cannot create the sockets of this session ({error}): nobody can watch, and --force ends it \
         by SIGTERM"
    )
}
