//! The relay's loop: it waits, and decides when to end.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::endpoint::{EndpointKind, Sink, Source};
use crate::messages::Messages;
use crate::poll::GONE;
use crate::relay::escape::Escape;
use crate::relay::event_source::{Action, EventSource, Tap};
use crate::relay::linger::LingerTimer;
use crate::relay::upstream::Upstream;
use crate::relay::{Error, ExitReason, PendingBytes, Settings};
use crate::ring_buffer::Buffer;
use crate::signals::Signals;
use crate::terminal::RawMode;
use crate::user_name::Unasked;
use crate::{poll, terminal, test_point};

/// The size of the buffer of each direction.
pub(super) const BUFFER: usize = 64 * 1024;
/// The same while the console accepts nothing and the input is a terminal: the escape key behind a
/// large paste must be read to be obeyed.
const STUCK_BUFFER: usize = 1024 * 1024;
/// A console that accepts nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Setup<'a> {
    pub(crate) upstream: Upstream<'a>,
    /// The terminal on standard input, if there is one. Only then does the escape key work.
    pub(crate) raw: Option<&'a RawMode<'a>>,
    pub(crate) input: Source,
    pub(crate) output: Sink,
    pub(crate) messages: &'a mut Messages,
    pub(crate) signals: &'a mut Signals,
    pub(crate) sources: Vec<&'a mut dyn EventSource>,
    pub(crate) taps: Vec<&'a mut dyn Tap>,
    pub(crate) settings: &'a Settings<'a>,
}

impl Setup<'_> {
    pub(crate) fn stdio() -> Result<(Source, Sink), Error> {
        let input = Source::new(io::stdin().as_fd()).map_err(Error::Stdin)?;
        Ok((input, Sink::new(io::stdout().as_fd()).map_err(Error::Stdout)?))
    }
}

/// Moves bytes both ways, unchanged and in order, until there is a reason to end. `pending` is
/// delivered first. At the end both directions get another 200 ms to deliver what was read, and a
/// message says how much was lost. If a source hands the console over, the newcomer gets those bytes.
pub(crate) fn run(
    setup: Setup<'_>,
    pending: &PendingBytes,
) -> Result<(ExitReason, PendingBytes), Error> {
    Relay::new(setup, pending).run()
}

/// Why the loop ends: an `Err`, so that `?` leaves the loop from any depth.
pub(super) enum LoopExit {
    Ended(ExitReason),
    Failed(Error),
}

impl From<Error> for LoopExit {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Step<T = ()> = Result<T, LoopExit>;

pub(super) struct Relay<'a> {
    pub(super) setup: Setup<'a>,
    /// Finds commands in the input, if it is a terminal and has an escape key.
    pub(super) escape: Option<Escape>,
    /// When to explain an escape key that no command follows.
    pub(super) hint_at: Option<Instant>,
    /// From the input, for the console.
    pub(super) typed: Buffer,
    /// When the console last accepted some of it.
    pub(super) accepted_at: Instant,
    /// From the console, for the output, unchanged: takeover and viewers count its bytes.
    pub(super) printed: Buffer,
    pub(super) said: Said,
    /// The other end of the console was closed: nothing more comes or goes.
    pub(super) hung_up: bool,
    pub(super) input_ended: bool,
    pub(super) linger: LingerTimer,
    /// Bytes that the console did not accept before it hung up.
    pub(super) refused: usize,
}

/// Messages that are shown only once.
#[derive(Default)]
pub(super) struct Said {
    pub(super) read_only: bool,
    pub(super) raw_again: bool,
}

/// The result of poll(2). Descriptors that were left out have no events.
struct Ready {
    signals: bool,
    input: PollFlags,
    output: PollFlags,
    console: PollFlags,
    sources: Vec<bool>,
}

/// How often the event sources are looked after before the process stops.
const LOOKS_BEFORE_STOP: usize = 8;

impl<'a> Relay<'a> {
    fn new(setup: Setup<'a>, pending: &PendingBytes) -> Self {
        let settings = setup.settings;
        // Leaves room for input behind the pending bytes, or the escape key could not be read; but
        // the buffer must not grow from takeover to takeover without end.
        let reads_on = setup.raw.is_some() && pending.typed.len() < 4 * STUCK_BUFFER;
        let needed = pending.typed.len() + if reads_on { BUFFER } else { 0 };
        let mut relay = Self {
            escape: setup.raw.and(settings.options.escape.byte()).map(Escape::new),
            hint_at: None,
            typed: Buffer::new(needed.max(BUFFER)),
            accepted_at: Instant::now(),
            printed: Buffer::new(pending.printed.len().max(BUFFER)),
            said: Said::default(),
            hung_up: false,
            input_ended: false,
            linger: LingerTimer::new(settings.options.linger, settings.options.linger_max),
            refused: 0,
            setup,
        };
        relay.typed.push(&pending.typed);
        relay.printed.push(&pending.printed);
        relay
    }

    fn run(mut self) -> Result<(ExitReason, PendingBytes), Error> {
        let _unasked = Unasked::begin();
        self.pass_window_size();
        let _blocked = self.setup.raw.map(|_| terminal::BlockSigttin::new());
        test_point::reached("relay");
        // A signal may have arrived before this loop began to wait.
        let mut done = self.obey_signals();
        let exit = loop {
            match done {
                Ok(()) => done = self.turn(),
                Err(exit) => break exit,
            }
        };
        self.wind_up(&exit);
        match exit {
            LoopExit::Ended(reason) => Ok((reason, self.pending())),
            LoopExit::Failed(error) => Err(error),
        }
    }

    fn pending(&self) -> PendingBytes {
        PendingBytes { typed: self.typed.contents(), printed: self.printed.contents() }
    }

    /// Waits until something can be done, and does it: first what the user asks for.
    fn turn(&mut self) -> Step {
        let ready = self.wait()?;
        if ready.signals {
            self.obey_signals()?;
        }
        self.move_up(ready.input)?;
        self.check_output(ready.output)?;
        self.move_down(ready.console)?;
        self.wake_sources(&ready.sources, Instant::now())?;
        self.setup.messages.write();
        self.check_clock(Instant::now())
    }

    /// Waits for whatever could be moved, and for the next deadline. Leaves out a descriptor of
    /// which nothing can be moved: poll(2) would report its hang-up again and again.
    fn wait(&self) -> Step<Ready> {
        let Setup { upstream, input, output, messages, signals, sources, .. } = &self.setup;
        let signals = signals.as_fd();
        // A descriptor that is left out is replaced by that of the signals, without an event.
        let entry = |fd, events: Option<PollFlags>| match events {
            Some(events) => poll::entry(fd, events),
            None => poll::entry(signals, PollFlags::empty()),
        };
        let stderr = messages.waiting_for();
        let mut fds: Vec<PollFd<'_>> = vec![
            poll::entry(signals, PollFlags::IN),
            entry(input.as_fd(), self.input_interest()),
            entry(output.as_fd(), self.output_interest()),
            entry(upstream.as_fd(), self.upstream_interest()),
            entry(stderr.unwrap_or(signals), stderr.map(|_| PollFlags::OUT)),
        ];
        let first_source = fds.len();
        fds.extend(sources.iter().map(|source| {
            let fd = source.descriptor();
            entry(fd.unwrap_or(signals), fd.map(|_| PollFlags::IN))
        }));
        let looks = sources.iter().filter_map(|source| source.next_look());
        poll::wait(&mut fds, looks.chain(self.next_look()).min()).map_err(Error::Wait)?;
        let readable = PollFlags::IN.union(GONE);
        Ok(Ready {
            signals: !fds[0].revents().is_empty(),
            input: fds[1].revents(),
            output: fds[2].revents(),
            console: fds[3].revents(),
            sources: fds[first_source..]
                .iter()
                .map(|fd| fd.revents().intersects(readable))
                .collect(),
        })
    }

    fn wake_sources(&mut self, ready: &[bool], now: Instant) -> Step {
        for (index, ready) in ready.iter().enumerate() {
            let source = &mut self.setup.sources[index];
            let due = *ready || source.next_look().is_some_and(|at| at <= now);
            if due && source.look(self.setup.messages) == Action::HandOver {
                self.hand_over(index)?;
            }
        }
        Ok(())
    }

    /// Lets an event source hand the console over. If nobody takes it, nothing is lost.
    fn hand_over(&mut self, source: usize) -> Step {
        // A terminal that another job uses by now gets nothing more from us.
        if self.setup.raw.is_none() || terminal::in_foreground() {
            self.read_the_rest()?;
            self.deliver_the_rest();
        }
        let pending = self.pending();
        if self.setup.sources[source].hand_over(&pending, self.setup.messages) {
            return Err(LoopExit::Ended(ExitReason::HandedOver));
        }
        Ok(())
    }

    /// Reads what was typed before the newcomer asked: it may have come since the last look.
    fn read_the_rest(&mut self) -> Step {
        let wanted = self.input_interest().unwrap_or(PollFlags::empty());
        let ready = poll::events_now(&self.setup.input, wanted).map_err(Error::Wait)?;
        self.move_up(ready & wanted)
    }

    /// Looks after the event sources alone: a newcomer may have continued us to take over.
    pub(super) fn look_at_sources(&mut self) -> Step {
        // A client is accepted at one look, and its request is read at the next.
        for _ in 0..LOOKS_BEFORE_STOP {
            let now = Instant::now();
            // A newcomer whose request was read is only due.
            let is_due = |source: &dyn EventSource| {
                source.descriptor().is_some_and(poll::is_readable)
                    || source.next_look().is_some_and(|at| at <= now)
            };
            let due: Vec<bool> =
                self.setup.sources.iter().map(|source| is_due(&**source)).collect();
            if !due.contains(&true) {
                break;
            }
            self.wake_sources(&due, now)?;
        }
        Ok(())
    }

    fn input_interest(&self) -> Option<PollFlags> {
        match self.setup.input.kind() {
            // Without an event it still reports that it is gone.
            EndpointKind::Terminal if self.typed.room() == 0 => Some(PollFlags::empty()),
            // After a hang-up input goes nowhere, but the escape key still works.
            EndpointKind::Terminal => Some(PollFlags::IN),
            // Unread input stays for others that share it.
            _ if !self.setup.settings.can_write.get() => None,
            _ if self.typed.room() == 0 || self.input_ended || self.hung_up => None,
            _ => Some(PollFlags::IN),
        }
    }

    fn output_interest(&self) -> Option<PollFlags> {
        match (self.printed.is_empty(), self.setup.output.kind()) {
            (false, _) => Some(PollFlags::OUT),
            (true, EndpointKind::Terminal | EndpointKind::Stream) => Some(PollFlags::empty()),
            (true, EndpointKind::Other) => None,
        }
    }

    fn upstream_interest(&self) -> Option<PollFlags> {
        // The session of a viewer can have left while there is more to read than there is room for.
        if self.setup.upstream.console().is_none() && self.printed.room() == 0 {
            return None;
        }
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.printed.room() > 0);
        events.set(PollFlags::OUT, !self.typed.is_empty());
        (!self.hung_up).then_some(events)
    }

    /// When to leave if the console prints nothing more. Counts once all its output is shown.
    fn quiet_until(&self) -> Option<Instant> {
        self.linger.quiet_until().filter(|_| self.printed.is_empty() && !self.hung_up)
    }

    fn next_look(&self) -> Option<Instant> {
        let clocks =
            [self.hint_at, self.quiet_until(), self.linger.limit_at(), self.read_ahead_at()];
        clocks.into_iter().flatten().min()
    }

    /// When to make more room: the escape key may be behind what a stuck console does not accept.
    fn read_ahead_at(&self) -> Option<Instant> {
        let full = self.typed.room() == 0 && self.typed.capacity() < STUCK_BUFFER;
        (self.setup.raw.is_some() && full && !self.hung_up).then(|| self.accepted_at + STUCK_AFTER)
    }

    fn check_clock(&mut self, now: Instant) -> Step {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.hung_up && self.printed.is_empty() {
            return Err(LoopExit::Ended(ExitReason::HungUp));
        }
        if passed(self.linger.limit_at()) {
            return Err(LoopExit::Ended(ExitReason::TimeLimit));
        }
        // Time also passes while we are stopped, or in a failed takeover: output may be unread.
        if passed(self.quiet_until()) && !poll::is_readable(self.setup.upstream.as_fd()) {
            return Err(LoopExit::Ended(ExitReason::InputEnded));
        }
        if passed(self.read_ahead_at()) {
            self.typed.grow(STUCK_BUFFER);
        }
        if passed(self.hint_at) {
            self.hint_at = None;
            self.explain_escape_key();
        }
        Ok(())
    }

    /// Ends if the reader of our output left. Writing to a file or device tells it by itself.
    fn check_output(&self, ready: PollFlags) -> Step {
        let reason = match self.setup.output.kind() {
            EndpointKind::Terminal => ExitReason::TerminalGone,
            EndpointKind::Stream => ExitReason::ReaderGone,
            EndpointKind::Other => return Ok(()),
        };
        if ready.intersects(GONE) { Err(LoopExit::Ended(reason)) } else { Ok(()) }
    }
}
