//! Watching a console that another session holds.

use std::time::{Duration, Instant, SystemTime};
use std::{cell::Cell, os::fd::BorrowedFd};

use crate::relay::event_loop::{self, Setup};
use crate::relay::event_source::{Action, EventSource};
use crate::relay::{
    self, ByteCounts, ExitReason, PendingBytes, Settings, escape::EscapeKey, upstream::Upstream,
};
use crate::session::subscription::{Subscription, ViewerEvent};
use crate::session::{protocol::StreamPos, scrollback::Scrollback};
use crate::{
    commands::attach::sources::GuardSource, console::target::Target, endpoint::Source,
    guard::client::Guard, messages::Messages, poll, printable::local_time, process::Process,
    signals::Signals, terminal::RawMode,
};

/// The limit for the last bytes and events of a session that handed its console over to us.
const LAST_EVENTS_TIME: Duration = Duration::from_secs(2);
/// More than a pipe and a scrollback hold.
const MAX_LAST_BYTES: usize = 4 << 20;
/// A session sends one event a second.
const EVENTS_A_LOOK: usize = 16;

/// A console that another session holds, as a viewer sees it.
pub(super) struct View {
    subscription: Subscription,
    pub(super) operator: Process,
    console: String,
    /// Output that was not shown, and input typed after the command to take control.
    pub(super) pending: PendingBytes,
    /// The bytes that were left out of the pipe.
    missed: u64,
    last: Option<ViewerEvent>,
    pub(super) counts: ByteCounts,
}

impl View {
    pub(super) fn new(subscription: Subscription, operator: Process, target: &Target) -> Self {
        let (console, pending) = (target.to_string(), PendingBytes::default());
        let counts = ByteCounts::default();
        Self { subscription, operator, console, pending, missed: 0, last: None, counts }
    }

    pub(super) fn stream(&self) -> u64 {
        self.subscription.from.stream
    }

    pub(super) fn show(
        &mut self,
        options: relay::Options,
        guard: &Guard,
        raw: Option<&RawMode<'_>>,
        messages: &mut Messages,
        signals: &mut Signals,
    ) -> anyhow::Result<ExitReason> {
        messages.info(self.introduction(options.escape, raw.is_some()));
        let printed = std::mem::take(&mut self.pending.printed);
        let pending = PendingBytes { typed: Vec::new(), printed };
        let since = SystemTime::now();
        let status_line = || format!("{}, watched since {}", self.description(), local_time(since));
        let (can_write, counts) = (&Cell::new(false), &self.counts);
        let settings = Settings { options, can_write, status_line: &status_line, counts };
        let mut guard_source = GuardSource::new(guard, None, raw);
        guard_source.replace_if_lost(messages);
        let mut events = self.events();
        let (input, output) = Setup::stdio()?;
        let upstream = Upstream::Feed(self.subscription.feed());
        let sources: Vec<&mut dyn EventSource> = vec![&mut guard_source, &mut events];
        let (taps, settings) = (Vec::new(), &settings);
        let setup =
            Setup { upstream, raw, input, output, messages, signals, sources, taps, settings };
        let (reason, pending) = event_loop::run(setup, &pending)?;
        (self.last, self.missed, self.pending) = (events.last, events.missed, pending);
        Ok(reason)
    }

    fn events(&self) -> ViewerEvents<'_> {
        ViewerEvents { subscription: &self.subscription, last: self.last, missed: self.missed }
    }

    /// The position of the pipe's next byte, as far as it is known.
    pub(super) fn position(&self) -> StreamPos {
        let from = self.subscription.from;
        let came = self.counts.received().saturating_add(self.missed);
        StreamPos { offset: from.offset.saturating_add(came), ..from }
    }

    fn introduction(&self, key: EscapeKey, on_terminal: bool) -> String {
        let what = self.description();
        if on_terminal && key.byte().is_some() {
            format!("watching {what}; {key} then . leaves, {key} then f takes control")
        } else {
            format!("watching {what}")
        }
    }

    fn description(&self) -> String {
        format!("{}, held by {}", self.console, self.operator)
    }

    /// The last event of a session that has closed its pipe.
    pub(super) fn last_event(&mut self, messages: &mut Messages) -> ViewerEvent {
        let deadline = Instant::now() + LAST_EVENTS_TIME;
        while !matches!(self.last, Some(ViewerEvent::Ended { .. } | ViewerEvent::Gone)) {
            let socket = self.subscription.socket();
            if Instant::now() >= deadline || !poll::wait_readable(socket, Some(deadline)) {
                return ViewerEvent::Gone;
            }
            let mut events = self.events();
            let _ = events.look(messages);
            (self.last, self.missed) = (events.last, events.missed);
        }
        self.last.unwrap_or(ViewerEvent::Gone)
    }

    /// All output that was not shown, when the console is ours. The former session has closed the
    /// pipe, and said up to which position it was filled.
    pub(super) fn take_unseen(
        &mut self,
        scrollback: &Scrollback,
        messages: &mut Messages,
    ) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.pending.printed);
        let more = read_to_end(self.subscription.feed(), &mut bytes);
        let at = match self.last_event(messages) {
            ViewerEvent::Ended { at, .. } => at,
            ViewerEvent::Missed(_) | ViewerEvent::Gone => {
                let position = self.position();
                StreamPos { offset: position.offset.saturating_add(more as u64), ..position }
            }
        };
        // Another scrollback began after ours had ended: all of it is new.
        let goes_on = at.stream == scrollback.end().stream;
        let (offset, oldest) = (if goes_on { at.offset } else { 0 }, scrollback.oldest());
        report_missed(oldest.saturating_sub(offset), messages);
        bytes.extend(scrollback.all_from(offset.max(oldest)));
        bytes
    }
}

/// Reads until the writer closes the pipe, within limits. Returns the count of bytes.
fn read_to_end(pipe: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> usize {
    let deadline = Instant::now() + LAST_EVENTS_TIME;
    let before = bytes.len();
    let Ok(mut source) = Source::new(pipe) else { return 0 };
    while bytes.len() - before < MAX_LAST_BYTES
        && Instant::now() < deadline
        && poll::wait_readable(pipe, Some(deadline))
    {
        let mut piece = [0; 4096];
        match source.read(&mut piece) {
            Ok(Some(0)) | Err(_) => break,
            Ok(Some(count)) => bytes.extend(&piece[..count]),
            Ok(None) => {}
        }
    }
    bytes.len() - before
}

fn report_missed(bytes: u64, messages: &mut Messages) {
    if bytes > 0 {
        let why = "they came faster than they were shown";
        messages.important(format_args!("missed {bytes} bytes: {why}"));
    }
}

#[derive(Debug)]
struct ViewerEvents<'a> {
    subscription: &'a Subscription,
    last: Option<ViewerEvent>,
    missed: u64,
}

impl EventSource for ViewerEvents<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let over = matches!(self.last, Some(ViewerEvent::Ended { .. } | ViewerEvent::Gone));
        (!over).then(|| self.subscription.socket())
    }

    fn look(&mut self, messages: &mut Messages) -> Action {
        // More events wake us again: the user's input gets its turn before.
        for _ in 0..EVENTS_A_LOOK {
            let Some(event) = self.descriptor().and_then(|_| self.subscription.next_event()) else {
                break;
            };
            self.last = Some(event);
            if let ViewerEvent::Missed(bytes) | ViewerEvent::Ended { missed: bytes, .. } = event {
                self.missed = self.missed.saturating_add(bytes);
                report_missed(bytes, messages);
            }
        }
        Action::Continue
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::seqpacket;
    use crate::session::protocol::Reply;

    #[test]
    fn one_look_handles_a_few_events_however_many_there_are() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let sockets = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (theirs, ours) = sockets.unwrap();
        let (feed, _end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let subscription = Subscription::at(ours, feed);
        for _ in 0..20 {
            seqpacket::send(&theirs, &Reply::Missed(1), &[]).unwrap();
        }
        let mut events = ViewerEvents { subscription: &subscription, last: None, missed: 0 };
        let mut messages = Messages::new(true);
        for heard in [16, 20] {
            assert_eq!(events.look(&mut messages), Action::Continue);
            assert_eq!(events.missed, heard);
        }
    }
}
